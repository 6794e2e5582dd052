//! The counters of the shell, for `status`. They are outside the actors, because the listener and
//! the sessions count, and may live on threads of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access::Verb;
use crate::server::chatter::Chatter;
use crate::server::keeping::Keeping;
use crate::server::ledger::Ledger;
use crate::server::places::Inside;
use crate::server::role::Roles;
use crate::server::upkeep::Upkeep;
use crate::types::{GoodbyeCode, Histogram};

/// Counts since the start, and the connections of now.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections open now, let in or not.
    pub(super) connections: AtomicUsize,
    /// Those that are let in: what the limits on connections look at.
    inside: Mutex<Inside>,
    /// Since when the state cannot be saved, if it cannot, and why.
    unsaved_since: Mutex<Option<(Instant, String)>>,
    /// Since when the data directory is not where it was, if it is not.
    gone_since: Mutex<Option<Instant>>,
    /// Rings when the last connection is gone: what a stopping server waits for.
    pub(super) none_left: Notify,
    /// Bounds the log lines that peers cause.
    pub(super) chatter: Chatter,
    /// How it is with the journal.
    pub(super) keeping: Arc<Keeping>,
    /// How it stands among several.
    pub(super) roles: Roles,
    /// What is told of reloads and certificates.
    pub(super) upkeep: Arc<Upkeep>,
    /// Accounts of the memory that connections take, together and each.
    pub(super) ledger: Arc<Ledger>,
    /// Connections closed because they broke the protocol.
    pub(super) protocol_errors: Count,
    /// Connections closed because their client did not read.
    pub(super) slow_readers: Count,
    /// Connections closed because they did not say Hello in time.
    pub(super) handshake_timeouts: Count,
    /// TLS handshakes that waited, for there were too many with their address.
    pub(super) handshakes_delayed: Count,
    /// Connections turned away because there were too many.
    pub(super) connections_refused: Count,
    /// Connections that broke.
    pub(super) broken: Count,
    /// Connections that were said Goodbye to, by `GoodbyeCode::ALL`.
    closed: [Count; GoodbyeCode::ALL.len()],
    /// Who has proven nobody. Counted here, whether it leads or stands by, so that it never is fewer.
    pub(super) unproven: Count,
    /// Who was told that no rule allows it, by `Verb::ALL`; likewise.
    denials: [Count; Verb::ALL.len()],
    /// Events that those who listen were not told, for they did not read.
    pub(super) events_missed: Count,
    /// Commits of the state that did not succeed.
    pub(super) commit_failures: Count,
    /// How long the others took.
    commits: Mutex<Histogram>,
}

impl Counters {
    /// Counters of a server whose connections together may have so many bytes unread.
    pub(super) fn new(unread_bytes_max: usize) -> Self {
        Self { ledger: Arc::new(Ledger::new(unread_bytes_max)), ..Self::default() }
    }

    /// The same, of one whose journal is this.
    pub(super) fn keeping(self, keeping: Arc<Keeping>) -> Self {
        Self { keeping, ..self }
    }

    /// Those that are let in.
    pub(super) fn inside(&self) -> MutexGuard<'_, Inside> {
        locked(&self.inside)
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }

    /// A connection is said Goodbye to.
    pub(super) fn closed(&self, code: GoodbyeCode) {
        let place = GoodbyeCode::ALL.iter().position(|known| *known == code);
        if let Some(count) = place.and_then(|place| self.closed.get(place)) {
            count.add_one();
        }
    }

    /// How many connections were said Goodbye to, for each reason.
    pub(super) fn closed_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        GoodbyeCode::ALL.iter().map(|code| code.name()).zip(self.closed.iter().map(Count::total))
    }

    /// Something was denied.
    pub(super) fn denied(&self, verb: Verb) {
        let place = Verb::ALL.iter().position(|known| *known == verb);
        if let Some(count) = place.and_then(|place| self.denials.get(place)) {
            count.add_one();
        }
    }

    /// How often that was, for each verb.
    pub(super) fn denials(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Verb::ALL.map(Verb::as_str).into_iter().zip(self.denials.iter().map(Count::total))
    }

    /// A commit has succeeded, and took so long.
    pub(super) fn committed(&self, took: Duration) {
        locked(&self.commits).note_length(took);
    }

    /// How long commits took that succeeded.
    pub(super) fn commits(&self) -> Histogram {
        locked(&self.commits).clone()
    }

    /// For how long the state could not be saved by now, if it cannot.
    pub(super) fn unsaved(&self) -> Option<Duration> {
        let failing = locked(&self.unsaved_since).as_ref().map(|(since, _)| since.elapsed());
        let gone = locked(&self.gone_since).map(|since| since.elapsed());
        // At least something: zero says that all is well.
        failing.max(gone).map(|unsaved| unsaved.max(Duration::from_millis(1)))
    }

    /// Why the last commit failed, if it did.
    pub(super) fn why_unsaved(&self) -> Option<String> {
        locked(&self.unsaved_since).as_ref().map(|(_, why)| why.clone())
    }

    /// The state cannot be saved. Says whether that is news.
    pub(super) fn saving_failed(&self, why: &str) -> bool {
        let mut unsaved = locked(&self.unsaved_since);
        let since = unsaved.as_ref().map(|(since, _)| *since);
        *unsaved = Some((since.unwrap_or_else(Instant::now), why.to_owned()));
        since.is_none()
    }

    /// The state is saved; says for how long it could not be, if it could not.
    pub(super) fn saved(&self) -> Option<Duration> {
        locked(&self.unsaved_since).take().map(|(since, _)| since.elapsed())
    }

    /// The data directory is where it was, or not. Says whether that is news.
    pub(super) fn directory_is(&self, whereabouts: Whereabouts) -> bool {
        let mut gone = locked(&self.gone_since);
        let was_gone = gone.is_some();
        match whereabouts {
            Whereabouts::Here => *gone = None,
            Whereabouts::Gone => *gone = gone.or_else(|| Some(Instant::now())),
        }
        was_gone != gone.is_some()
    }

    /// Waits until no connection is open.
    pub(super) async fn none_left(&self) {
        while self.connections() > 0 {
            self.none_left.notified().await;
        }
    }
}

/// Where the data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Where it was opened.
    Here,
    /// Deleted, or something else is in its place.
    Gone,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nobody panics while it is locked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Counts one more.
    pub(super) fn add_one(&self) {
        self.add(1);
    }

    /// Counts so many more.
    pub(super) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The number so far.
    pub(super) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
