//! What was seen, as rows of a table: cells for people, and what can be done to each.

use std::cmp::Reverse;

use coordinator::types::FencingToken;
use coordinator::wire::{After, Holder, LockStatus, Outlook, Pause, SessionStatus};

use super::columns::{Column, grouped};
use super::look::List;
use crate::cli::text::outlook::{why, why_kept};
use crate::cli::text::visible;
use crate::cli::text::words;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// What it is about, the same in each look: the selection stays on it.
    pub(super) key: String,
    /// One cell for each column.
    pub(super) cells: Vec<String>,
    /// The lock that can be looked into here, if there is one.
    pub(super) lock: Option<String>,
    /// The grant that can be broken here, if there is one.
    pub(super) grant: Option<Grant>,
}

/// A grant as somebody saw it who may break it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Its lock.
    pub(super) lock: String,
    /// Its token: nobody newer is hit.
    pub(super) token: FencingToken,
    /// Who has it, and for how long, in words.
    pub(super) whose: String,
}

/// In which order rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    /// The worst first: who has waited, held or been here longest.
    Longest,
    /// The longest queues first.
    Queue,
    /// By name.
    Name,
}

impl Sort {
    /// The order that comes after this one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Longest => Self::Queue,
            Self::Queue => Self::Name,
            Self::Name => Self::Longest,
        }
    }

    /// What the rows are sorted by.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Longest => "longest",
            Self::Queue => "most waiting",
            Self::Name => "name",
        }
    }
}

const WAITS: &[Column] = &[
    Column::text("LOCK"),
    Column::text("HELD BY"),
    Column::number("HELD", 2),
    Column::number("WAITING", 1),
    Column::number("LONGEST", 0),
    Column::number("TOKEN", 3),
    Column::optional("NOTE", 4),
];
const LOCKS: &[Column] = &[
    Column::text("LOCK"),
    Column::text("HELD BY"),
    Column::number("HELD", 0),
    Column::number("WAITING", 2),
    Column::optional("MODE", 3),
    Column::number("TOKEN", 1),
    Column::optional("NOTE", 4),
];
const SESSIONS: &[Column] = &[
    Column::text("SESSION OF"),
    Column::optional("FROM", 2),
    Column::number("HOLDS", 0),
    Column::number("WAITS", 0),
    Column::number("AGE", 3),
    Column::number("LEASE LEFT", 1),
];
pub(super) const EVENTS: &[Column] = &[
    Column::text("TIME"),
    Column::text("EVENT"),
    Column::text("WHO"),
    Column::text("LOCKS"),
    Column::optional("MORE", 1),
];
const ONE_LOCK: &[Column] = &[
    Column::text("PLACE"),
    Column::text("WHO"),
    Column::number("FOR", 0),
    Column::optional("MODE", 3),
    Column::number("TOKEN", 1),
    Column::optional("NOTE", 4),
];

/// The columns of a list.
pub(super) fn columns(list: &List) -> &'static [Column] {
    match list {
        List::Waits(_) => WAITS,
        List::Locks(_) => LOCKS,
        List::Sessions(_) => SESSIONS,
        List::Events => EVENTS,
        List::Lock(..) => ONE_LOCK,
        List::TooMany(_) => &[],
    }
}

/// The rows of a list, those that contain the filter, in this order.
pub(super) fn rows(list: &List, outlooks: &[Outlook], filter: &str, sort: Sort) -> Vec<Row> {
    let outlook = |lock: &LockStatus| outlooks.iter().find(|outlook| outlook.name == lock.name);
    let mut rows = match list {
        List::Waits(locks) => of_locks(locks, sort, |lock| waits(lock, outlook(lock))),
        List::Locks(locks) => of_locks(locks, sort, |lock| locked(lock, outlook(lock))),
        List::Sessions(sessions) => of_sessions(sessions, sort),
        // In the order in which they hold and wait, which is what one wants to know.
        List::Lock(_, lock) => {
            lock.as_ref().map(|lock| of_one_lock(lock, outlook(lock))).unwrap_or_default()
        }
        List::Events | List::TooMany(_) => Vec::new(),
    };
    keep(&mut rows, filter);
    rows
}

/// Keeps those with the filter in them.
pub(super) fn keep(rows: &mut Vec<Row>, filter: &str) {
    if !filter.is_empty() {
        let filter = filter.to_lowercase();
        rows.retain(|row| row.cells.iter().any(|cell| cell.to_lowercase().contains(&filter)));
    }
}

fn of_locks(locks: &[LockStatus], sort: Sort, row: impl Fn(&LockStatus) -> Row) -> Vec<Row> {
    let mut locks: Vec<&LockStatus> = locks.iter().collect();
    let longest = |lock: &LockStatus| {
        let waited = lock.waiters.iter().map(|it| it.waiting_ms).max();
        let held = lock.holders.iter().map(|it| it.held_ms).max();
        Reverse((waited.unwrap_or(0), held.unwrap_or(0)))
    };
    locks.sort_by(|one, other| one.name.cmp(&other.name));
    match sort {
        Sort::Longest => locks.sort_by_key(|lock| longest(lock)),
        Sort::Queue => locks.sort_by_key(|lock| (Reverse(lock.waiter_count), longest(lock))),
        Sort::Name => {}
    }
    locks.into_iter().map(row).collect()
}

fn of_sessions(sessions: &[SessionStatus], sort: Sort) -> Vec<Row> {
    let mut sessions: Vec<&SessionStatus> = sessions.iter().collect();
    sessions.sort_by(|one, other| {
        (one.identity.as_str(), one.session).cmp(&(other.identity.as_str(), other.session))
    });
    match sort {
        Sort::Longest => sessions.sort_by_key(|it| Reverse(it.age_ms)),
        Sort::Queue => sessions.sort_by_key(|it| Reverse((it.waiting, it.held))),
        Sort::Name => {}
    }
    sessions.into_iter().map(session).collect()
}

fn waits(lock: &LockStatus, outlook: Option<&Outlook>) -> Row {
    let grant = first_grant(lock, outlook);
    let longest = lock.waiters.iter().map(|it| it.waiting_ms).max();
    let cells = vec![
        visible::cell(&lock.name),
        held_by(lock, outlook),
        lock.holders.first().map_or_else(String::new, |it| words::millis(it.held_ms)),
        grouped(lock.waiter_count),
        longest.map_or_else(String::new, words::millis),
        grant.as_ref().map_or_else(String::new, |it| it.token.to_string()),
        lock.holders.first().map_or_else(String::new, |it| note(&it.note)),
    ];
    let name = lock.name.to_string();
    Row { key: name.clone(), cells, lock: Some(name), grant }
}

fn locked(lock: &LockStatus, outlook: Option<&Outlook>) -> Row {
    let grant = first_grant(lock, outlook);
    let cells = vec![
        visible::cell(&lock.name),
        held_by(lock, outlook),
        lock.holders.first().map_or_else(String::new, |it| words::millis(it.held_ms)),
        grouped(lock.waiter_count),
        lock.holders.first().and_then(|it| words::mode(it.mode)).unwrap_or_default(),
        grant.as_ref().map_or_else(String::new, |it| it.token.to_string()),
        lock.holders.first().map_or_else(String::new, |it| note(&it.note)),
    ];
    let name = lock.name.to_string();
    Row { key: name.clone(), cells, lock: Some(name), grant }
}

fn session(it: &SessionStatus) -> Row {
    let away = if it.connected { "" } else { " (disconnected)" };
    let cells = vec![
        format!("{}{away}", visible::cell(&it.identity)),
        visible::cell(&it.peer),
        grouped(it.held),
        grouped(it.waiting),
        words::millis(it.age_ms),
        words::lease_left(it.lease_left_ms),
    ];
    Row { key: it.session.to_string(), cells, lock: None, grant: None }
}

fn of_one_lock(lock: &LockStatus, outlook: Option<&Outlook>) -> Vec<Row> {
    let holders = lock.holders.iter().map(|it| {
        let away = if it.connected { "" } else { " (disconnected)" };
        let cells = vec![
            "holds".to_owned(),
            format!("{}{away}", words::who(&it.identity, &it.peer)),
            words::millis(it.held_ms),
            words::mode(it.mode).unwrap_or_default(),
            it.token.to_string(),
            note(&it.note),
        ];
        let key = format!("token {}", it.token);
        Row { key, cells, lock: None, grant: Some(grant(lock, it)) }
    });
    let waiters = (1..).zip(&lock.waiters).map(|(place, it)| {
        let cells = vec![
            words::ordinal(place),
            words::who(&it.identity, &it.peer),
            words::millis(it.waiting_ms),
            words::mode(it.mode).unwrap_or_default(),
            String::new(),
            note(&it.note),
        ];
        let key = format!("{} {}", it.session, it.request);
        Row { key, cells, lock: None, grant: None }
    });
    let pauses = outlook.into_iter().flat_map(|outlook| &outlook.pauses).map(|it| {
        let cells = vec![
            "kept".to_owned(),
            words::who(&it.identity, ""),
            words::millis(it.granted_ms),
            String::new(),
            it.token.to_string(),
            why(it).unwrap_or_default(),
        ];
        Row { key: format!("kept {}", it.token), cells, lock: None, grant: kept(lock, it) }
    });
    holders.chain(pauses).chain(waiters).collect()
}

/// Who holds it: the first, and how many others; or why nobody does.
fn held_by(lock: &LockStatus, outlook: Option<&Outlook>) -> String {
    let Some(first) = lock.holders.first() else {
        return outlook.and_then(why_kept).unwrap_or_else(|| "nobody yet".to_owned());
    };
    let away = if first.connected { "" } else { " (disconnected)" };
    let others = lock.holder_count.saturating_sub(1);
    let more = if others > 0 { format!(" +{}", grouped(others)) } else { String::new() };
    format!("{}{away}{more}", words::who(&first.identity, &first.peer))
}

fn note(note: &str) -> String {
    if note.is_empty() { String::new() } else { visible::cell(note) }
}

fn first_grant(lock: &LockStatus, outlook: Option<&Outlook>) -> Option<Grant> {
    let held = lock.holders.first().map(|holder| grant(lock, holder));
    held.or_else(|| outlook?.pauses.iter().find_map(|pause| kept(lock, pause)))
}

/// A grant that is over and still keeps the lock: that can be ended, too. What follows a loss ends by itself.
fn kept(lock: &LockStatus, pause: &Pause) -> Option<Grant> {
    let whose = format!("nobody; kept after {}", words::who(&pause.identity, ""));
    let grant = Grant { lock: lock.name.to_string(), token: pause.token, whose };
    (pause.after == After::Grant).then_some(grant)
}

fn grant(lock: &LockStatus, holder: &Holder) -> Grant {
    let (who, held) = (words::who(&holder.identity, &holder.peer), words::millis(holder.held_ms));
    let whose = format!("{who} for {held}");
    Grant { lock: lock.name.to_string(), token: holder.token, whose }
}
