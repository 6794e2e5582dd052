//! Subscribers to events: connections that hear of everything that happens to requests.
//!
//! An event is rendered once, however many hear of it. Each subscriber costs the Coordinator one
//! more reference count. There are never many. When all places are taken, the next subscriber takes
//! the place of another. That is the one heard of longest ago, from the address that has the most.
//! So idle subscribers keep nobody out, and no address keeps out another.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::types::{Claim, ConnectionId, LockName, Origin, Timestamp};

/// Most connections that may have subscribed at a time.
pub(super) const SUBSCRIBERS_MAX: usize = 64;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// By connection.
    all: BTreeMap<ConnectionId, Subscriber>,
}

/// One of them.
#[derive(Debug)]
struct Subscriber {
    /// The lock that it wants to hear of; none: all.
    lock: Option<LockName>,
    /// Where it comes from, if that is known.
    origin: Option<Origin>,
    /// When it said the last thing that counts: that it is there.
    heard: Timestamp,
}

impl Subscribers {
    /// A connection wants to hear of requests that claim `lock`, or of all. It takes the place of what
    /// it wanted before. Says who has to leave for it.
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        origin: Option<Origin>,
        lock: Option<LockName>,
        now: Timestamp,
    ) -> Option<ConnectionId> {
        let is_new = self.all.insert(connection, Subscriber { lock, origin, heard: now }).is_none();
        let leaves = (is_new && self.all.len() > SUBSCRIBERS_MAX)
            .then(|| self.least_missed(connection))
            .flatten();
        if let Some(leaves) = leaves {
            self.all.remove(&leaves);
        }
        leaves
    }

    /// Of those of the address that has the most, the one that was heard of longest ago; of two, the
    /// one that came first. Not `newcomer`.
    fn least_missed(&self, newcomer: ConnectionId) -> Option<ConnectionId> {
        let mut counts = BTreeMap::<Option<Origin>, usize>::new();
        for subscriber in self.all.values() {
            *counts.entry(subscriber.origin).or_default() += 1;
        }
        let others = self.all.iter().filter(|(connection, _)| **connection != newcomer);
        let rank =
            |subscriber: &Subscriber| (Reverse(counts[&subscriber.origin]), subscriber.heard);
        others.min_by_key(|(_, it)| rank(it)).map(|(connection, _)| *connection)
    }

    /// A connection has said that it is there.
    pub(super) fn heard(&mut self, connection: ConnectionId, now: Timestamp) {
        if let Some(subscriber) = self.all.get_mut(&connection) {
            subscriber.heard = now;
        }
    }

    /// The one lock that a connection wants to hear of.
    pub(super) fn named_by(&self, connection: ConnectionId) -> Option<&LockName> {
        self.all.get(&connection)?.lock.as_ref()
    }

    /// A connection hears of nothing any more.
    pub(super) fn end(&mut self, connection: ConnectionId) {
        self.all.remove(&connection);
    }

    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Who wants to hear of a request with these claims.
    pub(super) fn of(&self, claims: &[Claim]) -> impl Iterator<Item = ConnectionId> {
        let is_meant = |lock: &LockName| claims.iter().any(|claim| claim.name == *lock);
        let hears = move |it: &Subscriber| it.lock.as_ref().is_none_or(is_meant);
        self.all.iter().filter(move |(_, it)| hears(it)).map(|(connection, _)| *connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mode;

    fn lock(name: &str) -> LockName {
        LockName::new(name).unwrap()
    }

    fn connection(number: usize) -> ConnectionId {
        ConnectionId::new(number as u64)
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_micros(secs * 1_000_000)
    }

    /// The one of this number comes from 10.0.0.`from`, at a moment; who leaves for it.
    fn come(
        subscribers: &mut Subscribers,
        number: usize,
        from: u8,
        now: Timestamp,
    ) -> Option<ConnectionId> {
        let origin = Origin::Address([10, 0, 0, from].into());
        subscribers.subscribe(connection(number), Some(origin), None, now)
    }

    #[test]
    fn each_hears_of_the_locks_it_asked_for() {
        let mut subscribers = Subscribers::default();
        for (number, name) in [(1, None), (2, Some("a")), (3, Some("b"))] {
            subscribers.subscribe(connection(number), None, name.map(lock), at(0));
        }
        let who = |names: &[&str]| {
            let claim = |name: &&str| Claim { name: lock(name), mode: Mode::Exclusive };
            let claims: Vec<Claim> = names.iter().map(claim).collect();
            subscribers.of(&claims).map(ConnectionId::number).collect::<Vec<_>>()
        };
        assert_eq!(who(&["a"]), [1, 2]);
        assert_eq!(who(&["c", "b", "a"]), [1, 2, 3]);
        assert_eq!(who(&[]), [1]);
    }

    #[test]
    fn when_all_places_are_taken_the_next_takes_that_of_who_was_heard_of_longest_ago() {
        let mut subscribers = Subscribers::default();
        for number in 0..SUBSCRIBERS_MAX {
            assert_eq!(come(&mut subscribers, number, 1, at(0)), None);
        }
        for number in (0..SUBSCRIBERS_MAX).filter(|number| *number != 7) {
            subscribers.heard(connection(number), at(10));
        }
        // Who asks for something else has its place already.
        assert_eq!(come(&mut subscribers, 5, 1, at(10)), None);
        assert_eq!(come(&mut subscribers, 64, 1, at(11)), Some(connection(7)));
        assert_eq!(subscribers.of(&[]).count(), SUBSCRIBERS_MAX);
        subscribers.end(connection(1));
        assert_eq!(come(&mut subscribers, 65, 1, at(12)), None);
    }

    #[test]
    fn an_address_that_has_the_most_places_makes_room_and_no_other() {
        let mut subscribers = Subscribers::default();
        come(&mut subscribers, 0, 2, at(0));
        for number in 1..SUBSCRIBERS_MAX {
            come(&mut subscribers, number, 1, at(1));
        }
        // The one of host 2 was heard of longest ago, but host 1 has all the others.
        for number in 64..200 {
            assert_ne!(come(&mut subscribers, number, 1, at(2)), Some(connection(0)));
        }
        for number in 200..231 {
            let leaves = come(&mut subscribers, number, 3, at(3)).unwrap();
            assert!((64..200).contains(&leaves.number()), "{leaves}");
        }
    }
}
