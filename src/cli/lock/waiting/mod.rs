//! Messages to a waiting user: the holder of the lock, since when, and one's place; and that the
//! coordinator does not answer, and answers again.
//!
//! On a terminal, after a second, always on the same line. Elsewhere, in the log of a job, a line
//! after a second, another when something has changed, and one now and then. The question who holds
//! the lock goes out rarely, on a connection of its own, and its failure is not told. Nothing here
//! waits until it can be read: see `aside`.

use std::cell::OnceCell;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coordinator::wire::{LockStatus, Mode};
use coordinator::{Client, Observer, Servers};
use tokio::time::{MissedTickBehavior, interval};

use super::plan::Plan;
use crate::cli::process::terminal;
use crate::cli::text::aside;
use crate::cli::text::outlook;
use crate::cli::text::visible;
use crate::cli::text::words;
use coordinator::types::FencingToken;

/// How long to wait before saying anything, and between updates.
const TICK: Duration = Duration::from_secs(1);
/// How old what is shown on a terminal may be before the coordinator is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long the coordinator may take to say who holds the lock, before we say what we know.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The least time between two lines where lines stay.
const LINES_APART: Duration = Duration::from_secs(10);
/// After so long a line comes again though nothing has changed.
const LINES_AGAIN: Duration = Duration::from_secs(300);

/// A place in line, as the coordinator last told it; 0 before it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Arc<AtomicU64>);

impl Place {
    /// It is `position` now.
    pub(crate) fn set(&self, position: u64) {
        self.0.store(position, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who waits, and for what.
pub(crate) struct Waiter<'a> {
    /// Where the coordinator is.
    pub(crate) servers: &'a Servers,
    /// The locks.
    pub(crate) locks: &'a [&'a str],
    /// How they are wanted: who wants another size than is in use waits for all of its holders.
    pub(crate) mode: Mode,
    /// The place in line.
    pub(crate) place: &'a Place,
    /// The session, once there is one.
    pub(crate) client: &'a OnceCell<Client>,
    /// When its answers are overdue.
    pub(crate) plan: Plan,
}

/// Who holds a lock, and when that was seen.
struct Seen {
    /// The lock, if one of those that are awaited is held.
    lock: Option<LockStatus>,
    /// Why one of them is kept though nobody holds it, if one is.
    kept: Option<String>,
    /// When.
    at: Instant,
}

/// A question that is on its way, with the connection that it goes over.
type Look<'a> = Pin<Box<dyn Future<Output = (Option<Observer>, Found)> + 'a>>;

/// The first of the locks that is held, or why one is kept though nobody holds it.
type Found = (Option<LockStatus>, Option<String>);

/// Tells who is waited for, for as long as it is polled.
pub(crate) async fn tell(waiter: Waiter<'_>) -> ! {
    let mut telling = Telling::new(&waiter);
    let mut looking: Option<Look<'_>> = None;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let answer = async {
            match &mut looking {
                Some(look) => look.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = ticks.tick() => {}
            (observer, (lock, kept)) = answer => {
                looking = None;
                telling.observer = observer.filter(|_| telling.is_watched);
                telling.seen = Some(Seen { lock, kept, at: Instant::now() });
            }
        }
        let now = Instant::now();
        telling.listen(now);
        if looking.is_none() && telling.wants_to_look(now) {
            telling.asked_at = Some(now);
            telling.place_asked = waiter.place.now();
            looking = Some(Box::pin(look(telling.observer.take(), waiter.servers, waiter.locks)));
        }
        if !telling.is_watched {
            telling.due(now).iter().for_each(|line| aside::tell(line));
        } else if telling.is_known(now) || telling.silent_since.is_some() {
            telling.line.show(&telling.text(now));
        }
    }
}

/// What was told so far, and what is known that was not.
struct Telling<'a> {
    /// Who waits.
    waiter: &'a Waiter<'a>,
    /// Whether remarks have a reader who sees them come and go.
    is_watched: bool,
    /// A connection to look over; kept where it is needed all the time.
    observer: Option<Observer>,
    /// When the coordinator was last asked who holds the lock.
    asked_at: Option<Instant>,
    /// The place in line at that time.
    place_asked: u64,
    /// What it said.
    seen: Option<Seen>,
    /// When a line was last told that stays.
    told_at: Option<Instant>,
    /// The place that it named.
    place_told: u64,
    /// The holder that it named, by its token.
    token_told: Option<FencingToken>,
    /// Since when the coordinator has been silent, if it is.
    silent_since: Option<Instant>,
    /// Whether that was told.
    silence_told: bool,
    /// The line in place; gone from the terminal with this.
    line: Line,
}

impl<'a> Telling<'a> {
    fn new(waiter: &'a Waiter<'a>) -> Self {
        Self {
            waiter,
            is_watched: terminal::is_watched(),
            observer: None,
            asked_at: None,
            place_asked: 0,
            seen: None,
            told_at: None,
            place_told: 0,
            token_told: None,
            silent_since: None,
            silence_told: false,
            line: Line::default(),
        }
    }

    /// The lines that stay, once it is time for them.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let is_silent = self.silent_since.is_some();
        let mut lines = Vec::new();
        match (self.silence_told, is_silent) {
            (false, true) => lines.push(self.text(now)),
            (true, false) => {
                lines.push(format!("{} answers again", self.waiter.servers));
                // Who holds the lock may be another by now.
                (self.told_at, self.asked_at) = (None, None);
            }
            (false, false) if self.is_due(now) && self.is_known(now) => {
                lines.push(self.text(now));
                self.told_at = Some(now);
                self.place_told = self.waiter.place.now();
                self.token_told = self.token();
            }
            _ => {}
        }
        self.silence_told = is_silent;
        lines
    }

    /// Notes whether the coordinator is silent, for longer than a keep-alive may take.
    fn listen(&mut self, now: Instant) {
        let Some(client) = self.waiter.client.get() else { return };
        let silence = self.waiter.plan.silence(now, client.valid_until());
        if silence < self.waiter.plan.ttl.length() / 2 {
            self.silent_since = None;
        } else if self.silent_since.is_none() {
            self.silent_since = now.checked_sub(silence);
        }
    }

    fn wants_to_look(&self, now: Instant) -> bool {
        let Some(asked_at) = self.asked_at else {
            // A line that stays is about a place in line, not about connecting.
            return self.is_watched || self.waiter.place.now() > 0;
        };
        if self.silent_since.is_some() || now < asked_at + TICK {
            return false;
        }
        if self.is_watched {
            return now >= asked_at + LOOK_AGAIN || self.waiter.place.now() != self.place_asked;
        }
        // As soon as there is something to tell, and what is known is older than that.
        self.is_due(now) && self.told_at.is_some_and(|told_at| asked_at <= told_at)
    }

    /// Whether it is time for a line that stays.
    fn is_due(&self, now: Instant) -> bool {
        let Some(told_at) = self.told_at else { return true };
        let has_changed =
            self.waiter.place.now() != self.place_told || self.token() != self.token_told;
        now >= told_at + LINES_AGAIN || (has_changed && now >= told_at + LINES_APART)
    }

    /// Whether there is something to show: what was asked was answered, or will not be soon. For lines
    /// that stay it must have been asked since the last one.
    fn is_known(&self, now: Instant) -> bool {
        let Some(asked_at) = self.asked_at else { return false };
        let is_news = self.is_watched || self.told_at.is_none_or(|told_at| asked_at > told_at);
        is_news
            && (self.seen.as_ref().is_some_and(|seen| self.is_watched || seen.at >= asked_at)
                || now >= asked_at + LOOK_MAX)
    }

    fn token(&self) -> Option<FencingToken> {
        Some(self.seen.as_ref()?.lock.as_ref()?.holders.first()?.token)
    }

    fn text(&self, now: Instant) -> String {
        let Waiter { locks, mode, servers, place, client, .. } = self.waiter;
        if let Some(since) = self.silent_since {
            let kept = client.get().map(|client| client.valid_until().duration_since(now));
            return silence_text(
                locks,
                &servers.to_string(),
                now.duration_since(since),
                kept.unwrap_or_default(),
            );
        }
        let lock = self.seen.as_ref().and_then(|seen| seen.lock.as_ref());
        let since = self.seen.as_ref().map_or(Duration::ZERO, |seen| now.duration_since(seen.at));
        let kept = self.seen.as_ref().and_then(|seen| seen.kept.as_deref());
        text(locks, *mode, lock, kept, place.now(), since)
    }
}

/// The line on the terminal; gone when dropped.
#[derive(Default)]
struct Line {
    /// Whether anything was shown.
    shown: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        let width = terminal::width().saturating_sub(1);
        aside::show_in_place(&text.chars().take(width).collect::<String>());
        self.shown = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            aside::show_in_place("");
        }
    }
}

/// The first of the locks that is not to be had, and the connection if it can be used again.
async fn look(
    observer: Option<Observer>,
    servers: &Servers,
    locks: &[&str],
) -> (Option<Observer>, Found) {
    let observer = match observer {
        Some(observer) => Some(observer),
        None => Observer::connect(servers).await.ok(),
    };
    let Some(observer) = observer else { return (None, (None, None)) };
    for lock in locks {
        match observer.lock(lock).await {
            Ok(Some(seen)) if !seen.holders.is_empty() => {
                return (Some(observer), (Some(seen), None));
            }
            Ok(Some(_)) => match observer.outlook(lock).await {
                Ok(outlook) => {
                    if let Some(kept) = outlook.as_ref().and_then(outlook::why_kept) {
                        return (Some(observer), (None, Some(kept)));
                    }
                }
                Err(_) => return (None, (None, None)),
            },
            Ok(None) => {}
            Err(_) => return (None, (None, None)),
        }
    }
    (Some(observer), (None, None))
}

/// `waiting for "deploy": no answer from locks:5625 for 12s, trying again; place kept for 3s more`.
fn silence_text(locks: &[&str], server: &str, silence: Duration, kept: Duration) -> String {
    let place = match kept.as_secs() {
        0 => "the place in line may be lost".to_owned(),
        _ => format!("place kept for {} more", words::length(kept)),
    };
    let (names, silence) = (words::names(locks.iter().copied()), words::length(silence));
    format!("waiting for {names}: no answer from {server} for {silence}, trying again; {place}")
}

/// `waiting for "deploy": held by ci-7 for 4m12s, you are 3rd in line`.
fn text(
    locks: &[&str],
    mode: Mode,
    seen: Option<&LockStatus>,
    kept: Option<&str>,
    place: u64,
    since: Duration,
) -> String {
    let mut text = format!("waiting for {}", words::names(locks.iter().copied()));
    let mut separator = ": ";
    if let Some((lock, holder)) = seen.and_then(|lock| Some((lock, lock.holders.first()?))) {
        let held = words::length(Duration::from_millis(holder.held_ms) + since);
        let who = words::who_in_short(&holder.identity);
        let which = if locks.len() > 1 {
            format!("{} ", visible::quoted(&lock.name))
        } else {
            String::new()
        };
        let (now, wanted) = (words::used_as(holder.mode), words::used_as(mode));
        let how = if now == wanted { String::new() } else { format!(" as {now}, not {wanted},") };
        let _infallible = write!(text, ": {which}held{how} by {who} for {held}");
        separator = ", ";
    } else if let Some(kept) = kept {
        let _infallible = write!(text, ": {kept}");
        separator = ", ";
    }
    if place > 0 {
        let _infallible = write!(text, "{separator}you are {} in line", words::ordinal(place));
    }
    text
}

#[cfg(test)]
mod tests;
