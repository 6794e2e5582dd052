//! The watches: found by the lock when its holders change, and by the connection when that ends.
//!
//! A watch belongs to a connection, not to a session: a returning client watches anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use foldhash::fast::RandomState;

use crate::engine::Rejection;
use crate::types::{ConnectionId, LockName};

/// Most locks that one connection may watch.
pub(super) const WATCHES_PER_CONNECTION_MAX: usize = 1024;

/// All watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// Of each watched lock, in use or not: the connections, each with the query that is answered.
    by_lock: HashMap<LockName, BTreeMap<ConnectionId, u64>, RandomState>,
    /// The locks of each connection that watches any.
    by_connection: HashMap<ConnectionId, BTreeSet<LockName>, RandomState>,
}

impl Watches {
    /// A connection watches a lock, and is answered as `query_id` from now on.
    pub(super) fn watch(
        &mut self,
        connection: ConnectionId,
        lock: LockName,
        query_id: u64,
    ) -> Result<(), Rejection> {
        let max = WATCHES_PER_CONNECTION_MAX;
        let locks = self.by_connection.entry(connection).or_default();
        if locks.len() >= max && !locks.contains(&lock) {
            return Err(Rejection::TooManyWatches { max });
        }
        locks.insert(lock.clone());
        self.by_lock.entry(lock).or_default().insert(connection, query_id);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_connection.values().map(BTreeSet::len).sum()
    }

    /// Who watches a lock, with the query that is answered.
    pub(super) fn of(&self, lock: &LockName) -> impl Iterator<Item = (ConnectionId, u64)> {
        let watchers = self.by_lock.get(lock).into_iter().flatten();
        watchers.map(|(connection, query_id)| (*connection, *query_id))
    }

    /// Those that a connection watches and does not see, each with the query that is answered.
    pub(super) fn not_seen(
        &self,
        connection: ConnectionId,
        sees: impl Fn(&LockName) -> bool,
    ) -> Vec<(LockName, u64)> {
        let locks = self.by_connection.get(&connection).into_iter().flatten();
        let query = |lock| self.by_lock.get(lock)?.get(&connection).copied();
        let not_seen = locks.filter(|lock| !sees(lock));
        not_seen.filter_map(|lock| Some((lock.clone(), query(lock)?))).collect()
    }

    /// A connection watches a lock no more. Says whether nobody watches it now who did.
    pub(super) fn unwatch(&mut self, connection: ConnectionId, lock: &LockName) -> bool {
        let Some(locks) = self.by_connection.get_mut(&connection) else { return false };
        if !locks.remove(lock) {
            return false;
        }
        if locks.is_empty() {
            self.by_connection.remove(&connection);
        }
        self.leave(connection, lock)
    }

    /// A connection watches nothing any more. Gives the locks that nobody watches now.
    pub(super) fn end(&mut self, connection: ConnectionId) -> Vec<LockName> {
        let locks = self.by_connection.remove(&connection).unwrap_or_default();
        locks.into_iter().filter(|lock| self.leave(connection, lock)).collect()
    }

    /// Takes a connection from those who watch a lock. Says whether it was the last.
    fn leave(&mut self, connection: ConnectionId, lock: &LockName) -> bool {
        let Some(watchers) = self.by_lock.get_mut(lock) else { return true };
        watchers.remove(&connection);
        let is_last = watchers.is_empty();
        if is_last {
            self.by_lock.remove(lock);
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{CYCLE_TOLD_MAX, PLACES_LOOKED_AT_MAX, STEPS_MAX};

    fn lock(name: &str) -> LockName {
        LockName::new(name).unwrap()
    }

    fn connection(number: u64) -> ConnectionId {
        ConnectionId::new(number)
    }

    #[test]
    fn watchers_are_found_by_lock_and_forgotten_by_connection() {
        let mut watches = Watches::default();
        watches.watch(connection(1), lock("a"), 10).unwrap();
        watches.watch(connection(1), lock("b"), 11).unwrap();
        watches.watch(connection(2), lock("a"), 20).unwrap();
        let of_a = |watches: &Watches| watches.of(&lock("a")).collect::<Vec<_>>();
        assert_eq!(of_a(&watches), [(connection(1), 10), (connection(2), 20)]);
        assert_eq!(watches.end(connection(1)), [lock("b")]);
        assert!(watches.end(connection(1)).is_empty());
        assert_eq!(of_a(&watches), [(connection(2), 20)]);
        assert_eq!(watches.end(connection(2)), [lock("a")]);
        assert!(watches.by_lock.is_empty() && watches.by_connection.is_empty());
    }

    #[test]
    fn a_watch_that_is_given_up_leaves_nothing_and_no_other_watch_ends() {
        let mut watches = Watches::default();
        watches.watch(connection(1), lock("a"), 10).unwrap();
        watches.watch(connection(1), lock("b"), 11).unwrap();
        watches.watch(connection(2), lock("a"), 20).unwrap();
        assert!(!watches.unwatch(connection(1), &lock("a")), "another watches it still");
        assert!(!watches.unwatch(connection(1), &lock("a")), "it is not watched twice");
        assert!(!watches.unwatch(connection(3), &lock("a")), "a stranger watches nothing");
        assert_eq!(watches.of(&lock("a")).collect::<Vec<_>>(), [(connection(2), 20)]);
        assert!(
            watches.unwatch(connection(1), &lock("b"))
                && watches.unwatch(connection(2), &lock("a"))
        );
        assert!(watches.by_lock.is_empty() && watches.by_connection.is_empty());
    }

    #[test]
    fn a_watch_that_is_given_up_makes_room_for_another() {
        let mut watches = Watches::default();
        for i in 0..WATCHES_PER_CONNECTION_MAX * 2 {
            let name = lock(&i.to_string());
            watches.watch(connection(1), name.clone(), 1).unwrap();
            watches.unwatch(connection(1), &name);
        }
    }

    #[test]
    fn a_second_watch_of_a_lock_takes_the_place_of_the_first() {
        let mut watches = Watches::default();
        watches.watch(connection(1), lock("a"), 1).unwrap();
        watches.watch(connection(1), lock("a"), 2).unwrap();
        assert_eq!(watches.of(&lock("a")).collect::<Vec<_>>(), [(connection(1), 2)]);
    }

    #[test]
    fn a_connection_watches_as_many_locks_as_allowed_and_not_one_more() {
        let mut watches = Watches::default();
        let name = |i: usize| lock(&i.to_string());
        for i in 0..WATCHES_PER_CONNECTION_MAX {
            watches.watch(connection(1), name(i), 1).unwrap();
        }
        let max = WATCHES_PER_CONNECTION_MAX;
        let refused = watches.watch(connection(1), name(max), 1);
        assert_eq!(refused, Err(Rejection::TooManyWatches { max }));
        assert_eq!(watches.of(&name(max)).count(), 0);
        watches.watch(connection(1), name(0), 2).unwrap();
        watches.watch(connection(2), name(max), 1).unwrap();
    }

    #[test]
    fn the_limits_are_those_of_the_document() {
        let document = include_str!("../../../docs/protocol.md");
        let row = |what: &str, limit: usize| format!("\n| {what} | {limit} |\n");
        for row in [
            row("locks that one connection may watch", WATCHES_PER_CONNECTION_MAX),
            row(
                "connections that may have subscribed to events",
                crate::server::desk::subscribers::SUBSCRIBERS_MAX,
            ),
            row("links of a cycle that are told", CYCLE_TOLD_MAX),
            row("bytes of a cycle that are told", crate::server::desk::inspect::CYCLE_BYTES_MAX),
            row("claims that are looked at to find a cycle", STEPS_MAX),
            row("places that are looked at for a page of locks or sessions", PLACES_LOOKED_AT_MAX),
        ] {
            assert!(document.contains(&row), "{row}");
        }
    }
}
