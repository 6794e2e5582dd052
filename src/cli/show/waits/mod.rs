//! `coordinator status --waits`: who waits for whom, as a tree.
//!
//! ```text
//! ci-7 (ann@build7, pid 8123, 10.0.0.7)
//! └─ holds "deploy" for 4m12s  token 1881  note "deploy v2.3"
//!    ├─ 1st in line: bob@build8:12 for 3m58s
//!    │  └─ holds "migrations" for 4m  token 1880
//!    │     └─ 1st in line: eve@build9:7 for 2m
//!    └─ 2nd in line: eve@build9:7 for 3s
//! ```
//!
//! At the roots stand those who hold something and wait for nothing: whoever wants things to move
//! has to look there. A hold and a wait belong together if they are of one owner: requests of a
//! session with the same owner number. Without one, each request is an owner of its own, and holds
//! nothing while it waits.
//!
//! Each lock is drawn once. A remark says where it would come again, which is also how a circle
//! ends. (No circle lasts for ever, but the pages of a long list are not of one moment.) The
//! drawing is bounded, and omitted lines are counted.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;

use coordinator::types::{OwnerId, RequestId, SessionId};
use coordinator::wire::{Holder, LockStatus, Outlook, Waiter};
use serde_json::{Value, json};

use super::json;
use super::seen::Seen;
use crate::cli::text::outlook::{after_whom, why_kept};
use crate::cli::text::visible;
use crate::cli::text::words;

/// Most waiters of a lock that are drawn.
const WAITERS_MAX: usize = 20;
/// Most lines that are drawn, but for remarks on what is left out.
const LINES_MAX: usize = 1_000;
/// How far the tree may branch: from a holder over those who wait for it and hold something, and so on.
const DEPTH_MAX: usize = 32;
/// Fellow holders of a lock that are named.
const FELLOWS_MAX: usize = 3;

/// What the branches are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Where the locale can show them.
    Unicode,
    /// Elsewhere.
    Ascii,
}

impl Lines {
    /// What the user's locale can show, by the variables that say so.
    pub(crate) fn of_the_locale() -> Self {
        let said = |name| env::var(name).ok().filter(|text| !text.is_empty());
        Self::of(["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(said))
    }

    fn of(locale: Option<String>) -> Self {
        let charset = locale.unwrap_or_default().to_uppercase().replace('-', "");
        if charset.contains("UTF8") { Self::Unicode } else { Self::Ascii }
    }

    /// Before a thing, and before what hangs on it, if others follow it.
    fn not_last(self) -> (&'static str, &'static str) {
        match self {
            Self::Unicode => ("├─ ", "│  "),
            Self::Ascii => ("|- ", "|  "),
        }
    }

    /// The same if it is the last.
    fn last(self) -> (&'static str, &'static str) {
        match self {
            Self::Unicode => ("└─ ", "   "),
            Self::Ascii => ("`- ", "   "),
        }
    }
}

/// Who gives nothing back before all it asked for is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// Those requests of a session that say so.
    Owner(SessionId, OwnerId),
    /// A request alone.
    Request(SessionId, RequestId),
}

impl Who {
    fn of(session: SessionId, owner: OwnerId, request: RequestId) -> Self {
        match owner {
            OwnerId::NONE => Self::Request(session, request),
            owner => Self::Owner(session, owner),
        }
    }

    fn holds(holder: &Holder) -> Self {
        Self::of(holder.session, holder.owner, holder.request)
    }

    fn waits(waiter: &Waiter) -> Self {
        Self::of(waiter.session, waiter.owner, waiter.request)
    }
}

/// Who waits for whom, as far as locks tell that somebody waits for.
struct Graph<'a> {
    /// The locks that somebody waits for, by name.
    locks: BTreeMap<&'a str, &'a LockStatus>,
    /// Holds of everybody.
    held: BTreeMap<Who, Vec<(&'a LockStatus, &'a Holder)>>,
    /// Claims that everybody waits for.
    awaited: BTreeMap<Who, Vec<&'a str>>,
}

impl<'a> Graph<'a> {
    fn of(locks: &'a [LockStatus]) -> Self {
        let (mut held, mut awaited) = (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        let awaited_locks = || locks.iter().filter(|lock| !lock.waiters.is_empty());
        for lock in awaited_locks() {
            for holder in &lock.holders {
                held.entry(Who::holds(holder)).or_default().push((lock, holder));
            }
            for waiter in &lock.waiters {
                awaited.entry(Who::waits(waiter)).or_default().push(lock.name.as_str());
            }
        }
        let locks = awaited_locks().map(|lock| (lock.name.as_str(), lock)).collect();
        Self { locks, held, awaited }
    }

    /// What someone holds, for which others wait.
    fn held_by(&self, who: Who) -> &[(&'a LockStatus, &'a Holder)] {
        self.held.get(&who).map_or(&[], Vec::as_slice)
    }
}

/// The tree, each line with its end.
pub(crate) fn tree(locks: &[LockStatus], outlooks: &[Outlook], lines: Lines) -> String {
    let graph = Graph::of(locks);
    if graph.locks.is_empty() {
        return "nobody waits\n".to_owned();
    }
    let mut drawing = Drawing {
        graph: &graph,
        outlooks,
        lines,
        text: String::new(),
        lines_left: LINES_MAX,
        drawn: BTreeSet::new(),
        path: Vec::new(),
    };
    drawing.roots();
    drawing.text
}

/// A tree in the making.
struct Drawing<'a> {
    /// The graph that is drawn.
    graph: &'a Graph<'a>,
    /// Why nobody holds some of them.
    outlooks: &'a [Outlook],
    /// With what.
    lines: Lines,
    /// The text so far.
    text: String,
    /// How much more there may be.
    lines_left: usize,
    /// The locks that are there.
    drawn: BTreeSet<&'a str>,
    /// Those of them that the present place hangs on.
    path: Vec<&'a str>,
}

impl<'a> Drawing<'a> {
    fn roots(&mut self) {
        let graph = self.graph;
        // First come those who hold and do not wait. Then come locks that nobody holds (yet, or not
        // before a delay is over). Last is the rest of circles and of lists that were cut short.
        for (name, lock) in &graph.locks {
            let is_free = |holder: &&Holder| !graph.awaited.contains_key(&Who::holds(holder));
            if !self.drawn.contains(name)
                && let Some(holder) = lock.holders.iter().find(is_free)
            {
                self.root(holder);
            }
        }
        for (name, lock) in &graph.locks {
            if self.drawn.contains(name) {
                continue;
            }
            match lock.holders.first() {
                Some(holder) => self.root(holder),
                None if self.line("", &self.held_by_nobody(name)) => {
                    self.drawn.insert(name);
                    self.waiters(lock, "");
                }
                None => {}
            }
        }
        let left = graph.locks.len() - self.drawn.len();
        if left > 0 {
            let what = words::count(left as u64, "more lock");
            let _infallible = writeln!(self.text, "… and {what} with waiters");
        }
    }

    /// `nobody holds "x": kept for 4s more: …`.
    fn held_by_nobody(&self, name: &str) -> String {
        let mut text = format!("nobody holds {}", visible::quoted(name));
        let outlook = self.outlooks.iter().find(|outlook| outlook.name.as_str() == name);
        if let Some(outlook) = outlook
            && let (Some(why), Some(whom)) = (why_kept(outlook), after_whom(outlook, "  "))
        {
            let _infallible = write!(text, ": {why}, {whom}");
        }
        text
    }

    /// Someone at the root, with all that others wait for.
    fn root(&mut self, holder: &'a Holder) {
        let who = Who::holds(holder);
        let mut name = named(&holder.identity, &holder.peer, holder.owner);
        if let Some(locks) = self.graph.awaited.get(&who) {
            let _infallible =
                write!(name, ", who waits for {}", words::names(locks.iter().copied()));
        }
        if self.line("", &name) {
            self.held(who, "");
        }
    }

    /// What someone holds, with those who wait for it.
    fn held(&mut self, who: Who, before: &str) {
        let held = self.graph.held_by(who);
        for (i, (lock, holder)) in held.iter().enumerate() {
            let (branch, trunk) = self.branch(i + 1 == held.len());
            let text = held_line(lock, holder);
            let name = lock.name.as_str();
            if self.drawn.contains(name) {
                let where_ = if self.path.contains(&name) { "a cycle" } else { "see above" };
                self.line(&format!("{before}{branch}"), &format!("{text}  ({where_})"));
            } else if self.line(&format!("{before}{branch}"), &text) {
                self.drawn.insert(name);
                self.path.push(name);
                self.waiters(lock, &format!("{before}{trunk}"));
                self.path.pop();
            }
        }
    }

    /// Those in line for a lock, each with what it holds.
    fn waiters(&mut self, lock: &'a LockStatus, before: &str) {
        let shown = lock.waiters.len().min(WAITERS_MAX);
        let more = lock.waiter_count.max(lock.waiters.len() as u64) - shown as u64;
        for (i, waiter) in lock.waiters[..shown].iter().enumerate() {
            let (branch, trunk) = self.branch(i + 1 == shown && more == 0);
            let text = format!("{} in line: {}", words::ordinal(i as u64 + 1), waiting(waiter));
            let who = Who::waits(waiter);
            let holds_any = !self.graph.held_by(who).is_empty();
            if !self.line(&format!("{before}{branch}"), &text) {
                return;
            }
            let under = format!("{before}{trunk}");
            if holds_any && self.path.len() >= DEPTH_MAX {
                let (last, _) = self.lines.last();
                self.line(&format!("{under}{last}"), "… and so on");
            } else if holds_any {
                self.held(who, &under);
            }
        }
        if more > 0 {
            let (last, _) = self.lines.last();
            self.line(&format!("{before}{last}"), &format!("… and {more} more"));
        }
    }

    fn branch(&self, is_last: bool) -> (&'static str, &'static str) {
        if is_last { self.lines.last() } else { self.lines.not_last() }
    }

    /// Draws a line, if there is room for one more.
    fn line(&mut self, before: &str, text: &str) -> bool {
        let Some(left) = self.lines_left.checked_sub(1) else { return false };
        self.lines_left = left;
        self.text.push_str(before);
        self.text.push_str(text);
        self.text.push('\n');
        true
    }
}

fn named(identity: &str, peer: &str, owner: OwnerId) -> String {
    let who = words::who(identity, peer);
    if owner == OwnerId::NONE { who } else { format!("{who} owner {owner}") }
}

/// `holds "deploy" for 4m12s  token 1881`.
fn held_line(lock: &LockStatus, holder: &Holder) -> String {
    let held = words::millis(holder.held_ms);
    let mut text =
        format!("holds {} for {held}  token {}", visible::quoted(&lock.name), holder.token);
    push_more(&mut text, words::mode(holder.mode), &holder.note);
    let others = lock.holders.iter().filter(|other| other.token != holder.token);
    let others: Vec<_> = others.map(|other| words::who_in_short(&other.identity)).collect();
    let (shown, all) = (others.len().min(FELLOWS_MAX), lock.holder_count.saturating_sub(1));
    if shown > 0 {
        let _infallible = write!(text, "  with {}", others[..shown].join(", "));
        if all > shown as u64 {
            let _infallible = write!(text, " and {} more", all - shown as u64);
        }
    }
    text
}

/// `bob@build8:12 for 3m58s`.
fn waiting(waiter: &Waiter) -> String {
    let who = named(&waiter.identity, &waiter.peer, waiter.owner);
    let mut text = format!("{who} for {}", words::millis(waiter.waiting_ms));
    push_more(&mut text, words::mode(waiter.mode), &waiter.note);
    text
}

fn push_more(text: &mut String, mode: Option<String>, note: &str) {
    if let Some(mode) = mode {
        let _infallible = write!(text, "  {mode}");
    }
    if !note.is_empty() {
        let _infallible = write!(text, "  note {}", visible::quoted(note));
    }
}

/// The same for programs: the locks that somebody waits for, and of each waiter what it holds of them.
pub(crate) fn as_json(seen: &Seen) -> Value {
    let graph = Graph::of(&seen.locks);
    let mut all = json::seen(seen);
    let Some(locks) = all["locks"].as_array_mut() else { return all };
    for (lock, told) in seen.locks.iter().zip(locks) {
        for (at, waiter) in lock.waiters.iter().enumerate() {
            let held = graph.held_by(Who::waits(waiter));
            let names: Vec<&str> = held.iter().map(|(lock, _)| lock.name.as_str()).collect();
            told["waiters"][at]["holds"] = json!(names);
        }
    }
    all
}

#[cfg(test)]
mod tests;
