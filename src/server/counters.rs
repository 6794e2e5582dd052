//! What the shell counts, for `status`. Kept outside the actors, because both the listener and the
//! sessions count; plain cells, because all of them live on one thread.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts since the start, and the connections of now.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Connections open now: what the limit on connections looks at.
    connections: Cell<usize>,
    /// Since when the state cannot be saved, if it cannot.
    unsaved_since: Cell<Option<Instant>>,
    /// Rings when the last connection is gone: what a stopping server waits for.
    none_left: Notify,
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
    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// For how long the state could not be saved by now, if it cannot.
    pub(super) fn unsaved(&self) -> Option<Duration> {
        // At least something: zero says that all is well.
        self.unsaved_since.get().map(|since| since.elapsed().max(Duration::from_millis(1)))
    }

    /// The state cannot be saved.
    pub(super) fn saving_failed(&self) {
        self.unsaved_since.set(self.unsaved_since.get().or_else(|| Some(Instant::now())));
    }

    /// The state is saved; says for how long it could not be, if it could not.
    pub(super) fn saved(&self) -> Option<Duration> {
        self.unsaved_since.take().map(|since| since.elapsed())
    }

    /// Waits until no connection is open.
    pub(super) async fn none_left(&self) {
        while self.connections.get() > 0 {
            self.none_left.notified().await;
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Count(Cell<u64>);

impl Count {
    /// Counts one more.
    pub(super) fn add_one(&self) {
        self.0.set(self.0.get() + 1);
    }

    /// The number so far.
    pub(super) fn total(&self) -> u64 {
        self.0.get()
    }
}

/// One connection's place among those allowed: taken when it is made, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Rc<Counters>);

impl Place {
    /// Takes a place, unless `max` are taken.
    pub(super) fn take(counters: &Rc<Counters>, max: usize) -> Option<Self> {
        let taken = counters.connections.get();
        if taken >= max {
            return None;
        }
        counters.connections.set(taken + 1);
        Some(Self(Rc::clone(counters)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.0.connections.get() - 1;
        self.0.connections.set(left);
        if left == 0 {
            self.0.none_left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_allowed_and_not_one_more() {
        let counters = Rc::new(Counters::default());
        let first = Place::take(&counters, 2).unwrap();
        let _second = Place::take(&counters, 2).unwrap();
        assert!(Place::take(&counters, 2).is_none());
        drop(first);
        assert!(Place::take(&counters, 2).is_some());
    }
}
