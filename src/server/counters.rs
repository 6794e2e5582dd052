//! What the shell counts, for `status`. Kept outside the actors, because both the listener and the
//! sessions count, which may live on threads of their own.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::chatter::Chatter;
use super::ledger::Ledger;

/// Counts since the start, and the connections of now.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections open now: what the limit on connections looks at.
    connections: AtomicUsize,
    /// Since when the state cannot be saved, if it cannot, and why.
    unsaved_since: Mutex<Option<(Instant, String)>>,
    /// Since when the data directory is not where it was, if it is not.
    gone_since: Mutex<Option<Instant>>,
    /// Rings when the last connection is gone: what a stopping server waits for.
    none_left: Notify,
    /// Bounds the log lines that peers cause.
    pub(super) chatter: Chatter,
    /// What lies here for all connections together, and from them.
    pub(super) ledger: Arc<Ledger>,
    /// Connections closed because they broke the protocol.
    pub(super) protocol_errors: Count,
    /// Connections closed because their client did not read.
    pub(super) slow_readers: Count,
    /// Connections closed because they did not say Hello in time.
    pub(super) handshake_timeouts: Count,
    /// Connections refused because there were too many.
    pub(super) connections_refused: Count,
}

impl Counters {
    /// Counters of a server whose connections together may have so many bytes unread.
    pub(super) fn new(unread_bytes_max: usize) -> Self {
        Self { ledger: Arc::new(Ledger::new(unread_bytes_max)), ..Self::default() }
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
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
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number so far.
    pub(super) fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One connection's place among those allowed: taken when it is made, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Counters>);

impl Place {
    /// Takes a place, unless `max` are taken.
    pub(super) fn take(counters: &Arc<Counters>, max: usize) -> Option<Self> {
        let one_more = |taken| (taken < max).then_some(taken + 1);
        let connections = &counters.connections;
        connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Self(Arc::clone(counters)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let were = self.0.connections.fetch_sub(1, Ordering::AcqRel);
        if were == 1 {
            self.0.none_left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_allowed_and_not_one_more() {
        let counters = Arc::new(Counters::default());
        let first = Place::take(&counters, 2).unwrap();
        let _second = Place::take(&counters, 2).unwrap();
        assert!(Place::take(&counters, 2).is_none());
        drop(first);
        assert!(Place::take(&counters, 2).is_some());
    }
}
