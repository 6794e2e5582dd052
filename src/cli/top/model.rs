//! What is on the screen: what was seen, what is selected, and what keys make of it. No terminal, no
//! socket, no clock: the loop tells it what comes, and when.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use coordinator::Event;
use coordinator::types::FencingToken;
use coordinator::wire::{LockStatus, ServerStatus};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::dialog::{Answer, Dialog};
use super::heard::Heard;
use super::look::{List, Sight, Wanted};
use super::rows::{Grant, Row, Sort, keep, rows};
use super::waited::{Span, Waited};
use crate::cli::text::visible;

/// Rates of grants that are drawn side by side.
pub(super) const RATES_MAX: usize = 12;
/// Rows that a page key goes over.
const PAGE: usize = 10;
/// Longest filter, in bytes.
const FILTER_LEN_MAX: usize = 128;

/// The screen.
#[derive(Debug)]
pub(super) struct Top {
    /// Where the coordinator is, as its user said.
    pub(super) server: String,
    /// What is shown below.
    pub(super) view: View,
    /// The lock that is looked into, if one is.
    pub(super) inside: Option<String>,
    /// What keys do now.
    pub(super) mode: Mode,
    /// Only rows with this in them.
    pub(super) filter: String,
    /// The order of rows.
    pub(super) sort: Sort,
    /// The key of the selected row; none, or a row that is gone: the first.
    selected: Option<String>,
    /// The last place of the selection: if its row goes, the next in its place is selected.
    place: usize,
    /// Whether nothing new is asked for.
    paused: bool,
    /// What was seen last.
    pub(super) sight: Option<Sight>,
    /// When that was.
    seen_at: Option<Instant>,
    /// Why nothing was seen since.
    pub(super) trouble: Option<String>,
    /// What came of what was done last.
    pub(super) said: Option<String>,
    /// Grants a second, from look to look.
    pub(super) rates: VecDeque<u64>,
    /// For how long grants were waited for.
    pub(super) waited: Waited,
    /// Of what time that is told.
    pub(super) span: Span,
    /// What has happened, as far as somebody listened.
    heard: Heard,
    /// Why what was to be broken was not; none: nothing speaks against the next.
    unable: Option<String>,
    /// Why nobody listens, though events are shown.
    pub(super) deaf: Option<String>,
}

/// What can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Locks that somebody waits for.
    Waits,
    /// All locks.
    Locks,
    /// Sessions.
    Sessions,
    /// What happens.
    Events,
}

/// What keys do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They move, and begin everything else.
    Browsing,
    /// They write the filter.
    Filtering,
    /// Whatever comes, the help goes.
    Help,
    /// They answer whether a grant is to be broken.
    Breaking(Dialog),
}

/// What the loop is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing but draw.
    Nothing,
    /// Look, now.
    Look,
    /// Take a grant away.
    Break {
        /// The lock.
        name: String,
        /// The grant.
        token: FencingToken,
        /// Why, for the audit log.
        reason: String,
    },
    /// Stop, as Ctrl-Z does.
    Suspend,
    /// End.
    Quit,
}

impl Top {
    /// A screen on which nothing was seen yet.
    pub(super) fn new(server: &str) -> Self {
        Self {
            server: server.to_owned(),
            view: View::Waits,
            inside: None,
            mode: Mode::Browsing,
            filter: String::new(),
            sort: Sort::Longest,
            selected: None,
            place: 0,
            paused: false,
            sight: None,
            seen_at: None,
            trouble: None,
            said: None,
            rates: VecDeque::new(),
            waited: Waited::default(),
            span: Span::Lately,
            heard: Heard::default(),
            deaf: None,
            unable: None,
        }
    }

    /// What the next look is to show.
    pub(super) fn wanted(&self) -> Wanted {
        match (&self.inside, self.view) {
            (Some(name), _) => Wanted::Lock(name.clone()),
            (None, View::Waits) => Wanted::Waits,
            (None, View::Locks) => Wanted::Locks,
            (None, View::Sessions) => Wanted::Sessions,
            (None, View::Events) => Wanted::Events,
        }
    }

    /// Whether somebody is to listen to what happens.
    pub(super) fn listens(&self) -> bool {
        self.view == View::Events && !self.paused
    }

    /// Takes something that has happened.
    pub(super) fn hear(&mut self, event: &Event) {
        self.heard.take(event);
        self.settle();
    }

    /// Nobody listens from now on.
    pub(super) fn hear_no_more(&mut self) {
        self.deaf = None;
        self.heard.pause();
    }

    /// Nobody listens, for this reason, though somebody should.
    pub(super) fn is_deaf(&mut self, why: String) {
        self.heard.pause();
        self.deaf = Some(why);
    }

    /// Somebody listens.
    pub(super) fn is_listening(&mut self) {
        self.deaf = None;
    }

    /// What was to be broken may not be: nor may the next, as far as is known.
    pub(super) fn is_unable(&mut self, why: String) {
        self.say(why.clone());
        self.unable = Some(why);
    }

    /// Whether nothing new is asked for.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// How old that is what is shown; none: nothing is.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        self.seen_at.map(|seen| now.saturating_duration_since(seen))
    }

    /// Takes what a look has shown.
    pub(super) fn see(&mut self, seen: Result<Sight, String>, now: Instant) {
        match seen {
            Err(why) => self.trouble = Some(why),
            // Somebody has gone on to another list meanwhile.
            Ok(sight) if sight.list.answers() != self.wanted() => {}
            Ok(sight) => {
                if let Some(before) = &self.sight {
                    self.rates.extend(rate(&before.server, &sight.server));
                    while self.rates.len() > RATES_MAX {
                        self.rates.pop_front();
                    }
                }
                if let Some(waited) = &sight.waited {
                    self.waited.see(sight.server.uptime_ms, waited.clone());
                }
                self.sight = Some(sight);
                (self.seen_at, self.trouble) = (Some(now), None);
                self.settle();
            }
        }
    }

    /// Shows what came of something.
    pub(super) fn say(&mut self, words: String) {
        self.said = Some(words);
    }

    /// The list, if it is the one that is to be shown.
    pub(super) fn list(&self) -> Option<&List> {
        let list = &self.sight.as_ref()?.list;
        (list.answers() == self.wanted()).then_some(list)
    }

    /// The rows that are shown.
    pub(super) fn rows(&self) -> Vec<Row> {
        match self.list() {
            None => Vec::new(),
            Some(List::Events) => {
                let mut rows = self.heard.rows();
                keep(&mut rows, &self.filter);
                rows
            }
            Some(list) => {
                let outlooks = self.sight.as_ref().map_or(&[][..], |sight| &sight.outlooks);
                rows(list, outlooks, &self.filter, self.sort)
            }
        }
    }

    /// Which of them is selected.
    pub(super) fn place(&self, rows: &[Row]) -> usize {
        let same = self.selected.as_ref().and_then(|key| rows.iter().position(|it| it.key == *key));
        same.unwrap_or(self.place).min(rows.len().saturating_sub(1))
    }

    /// The grant of the selected row, if that has one.
    fn grant(&self) -> Option<Grant> {
        let rows = self.rows();
        let place = self.place(&rows);
        rows.into_iter().nth(place).and_then(|row| row.grant)
    }

    /// The lock that could be broken.
    pub(super) fn selected_lock(&self) -> Option<String> {
        self.grant().map(|grant| grant.lock)
    }

    /// Why the selected grant cannot be broken; none: it is not known that it cannot.
    pub(super) fn bar(&self) -> Option<String> {
        match self.sight.as_ref()?.breakable.as_ref() {
            Some((name, false)) if self.selected_lock().as_ref() == Some(name) => {
                Some(format!("no rule lets you break {}", visible::quoted(name)))
            }
            _ => self.unable.as_ref().map(|why| format!("{why}; b asks again")),
        }
    }

    /// Takes a key.
    pub(super) fn press(&mut self, key: KeyEvent) -> Order {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_control => return Order::Quit,
            KeyCode::Char('z') if is_control => return Order::Suspend,
            _ => {}
        }
        match &mut self.mode {
            Mode::Browsing => self.browse(key.code),
            Mode::Help => {
                self.mode = Mode::Browsing;
                Order::Nothing
            }
            Mode::Filtering => {
                self.write_filter(key.code);
                Order::Nothing
            }
            Mode::Breaking(dialog) => {
                let answer = dialog.press(key);
                let Dialog { grant, reason, .. } = dialog.clone();
                if answer != Answer::Open {
                    self.mode = Mode::Browsing;
                }
                match answer {
                    Answer::Open | Answer::No => Order::Nothing,
                    Answer::Yes => Order::Break { name: grant.lock, token: grant.token, reason },
                }
            }
        }
    }

    fn browse(&mut self, key: KeyCode) -> Order {
        self.said = None;
        match key {
            KeyCode::Char('q') => return Order::Quit,
            KeyCode::Char('1') => return self.show(View::Waits),
            KeyCode::Char('2') => return self.show(View::Locks),
            KeyCode::Char('3') => return self.show(View::Sessions),
            KeyCode::Char('4') => return self.show(View::Events),
            KeyCode::Tab => {
                return self.show(match self.view {
                    View::Waits => View::Locks,
                    View::Locks => View::Sessions,
                    View::Sessions => View::Events,
                    View::Events => View::Waits,
                });
            }
            KeyCode::Enter => return self.look_inside(),
            KeyCode::Esc | KeyCode::Backspace => return self.go_back(),
            KeyCode::Char('b') => self.ask_to_break(),
            KeyCode::Char('p') => {
                self.paused = !self.paused;
                return if self.paused { Order::Nothing } else { Order::Look };
            }
            KeyCode::Char('r') => return Order::Look,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                self.settle();
            }
            KeyCode::Char('/') => self.mode = Mode::Filtering,
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Up | KeyCode::Char('k') => self.go(|place, _| place.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(|place, _| place + 1),
            KeyCode::PageUp => self.go(|place, _| place.saturating_sub(PAGE)),
            KeyCode::PageDown => self.go(|place, _| place + PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.go(|_, _| 0),
            KeyCode::End | KeyCode::Char('G') => self.go(|_, rows| rows),
            _ => {}
        }
        Order::Nothing
    }

    fn write_filter(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.mode = Mode::Browsing,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Browsing;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() + letter.len_utf8() <= FILTER_LEN_MAX => {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.settle();
    }

    fn show(&mut self, view: View) -> Order {
        if self.view != view || self.inside.is_some() {
            // The newest event is the last, and stays in sight.
            let place = if view == View::Events { usize::MAX } else { 0 };
            (self.view, self.inside, self.selected, self.place) = (view, None, None, place);
        }
        Order::Look
    }

    fn look_inside(&mut self) -> Order {
        let rows = self.rows();
        let lock = rows.get(self.place(&rows)).and_then(|row| row.lock.clone());
        match lock {
            Some(lock) if self.inside.is_none() => {
                (self.inside, self.selected, self.place) = (Some(lock), None, 0);
                self.filter.clear();
                Order::Look
            }
            _ => Order::Nothing,
        }
    }

    /// Out of the lock that is looked into, with it selected; or else the filter goes.
    fn go_back(&mut self) -> Order {
        if let Some(name) = self.inside.take() {
            if self.view == View::Events {
                self.place = usize::MAX;
            } else {
                self.selected = Some(name);
            }
            return Order::Look;
        }
        self.filter.clear();
        Order::Nothing
    }

    fn ask_to_break(&mut self) {
        if let Some(why) = self.bar() {
            // Somebody may have changed the rules meanwhile: the next time it is asked again.
            self.unable = None;
            return self.say(why);
        }
        match self.grant() {
            Some(grant) => {
                let others = self.others(&grant);
                self.mode = Mode::Breaking(Dialog::new(grant, others));
            }
            None => self.say(self.why_nothing_to_break().to_owned()),
        }
    }

    /// Other locks with its token, among those that are shown: what was asked for at once has one.
    fn others(&self, grant: &Grant) -> Vec<String> {
        let is_other = |lock: &&LockStatus| {
            lock.name.as_str() != grant.lock
                && lock.holders.iter().any(|holder| holder.token == grant.token)
        };
        let locks = self.list().map(List::locks).unwrap_or_default();
        locks.iter().filter(is_other).map(|lock| lock.name.to_string()).collect()
    }

    fn why_nothing_to_break(&self) -> &'static str {
        match (&self.inside, self.view) {
            (None, View::Sessions) => "a session is nothing to break: b ends grants, see 2 locks",
            (None, View::Events) => "an event is nothing to break: Enter looks into its lock",
            _ => "nobody holds that: nothing to break",
        }
    }

    fn go(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let rows = self.rows();
        self.place = to(self.place(&rows), rows.len()).min(rows.len().saturating_sub(1));
        self.selected = rows.get(self.place).map(|row| row.key.clone());
        if self.wanted() == Wanted::Events && self.place + 1 >= rows.len() {
            // Whoever is at the end stays there.
            (self.selected, self.place) = (None, usize::MAX);
        }
    }

    /// Keeps the selection where it is, or next to where it was.
    fn settle(&mut self) {
        if self.selected.is_some() {
            let rows = self.rows();
            self.place = self.place(&rows);
            if !rows.is_empty() {
                self.selected = rows.get(self.place).map(|row| row.key.clone());
            }
        }
    }
}

/// Grants a second between two looks at the same run.
fn rate(before: &ServerStatus, after: &ServerStatus) -> Option<u64> {
    let ms = after.uptime_ms.checked_sub(before.uptime_ms).filter(|ms| *ms > 0)?;
    let grants = after.grants.checked_sub(before.grants)?;
    (before.epoch == after.epoch).then(|| grants.saturating_mul(1000) / ms)
}
