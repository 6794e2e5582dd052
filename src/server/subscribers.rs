//! Who wants to hear of everything that happens to requests.
//!
//! An event is rendered once, however many hear of it; each of them costs the Coordinator the counting
//! of one more reference. There are never many.

use std::collections::BTreeMap;

use crate::types::{Claim, ConnectionId, LockName};

/// Most connections that may have subscribed at a time.
pub(super) const SUBSCRIBERS_MAX: usize = 64;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// By connection: the lock that it wants to hear of; none: of all.
    all: BTreeMap<ConnectionId, Option<LockName>>,
}

/// As many have subscribed as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Subscribers {
    /// A connection wants to hear of requests that claim `lock`, or of all. It takes the place of what
    /// it wanted before.
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        lock: Option<LockName>,
    ) -> Result<(), TooMany> {
        if self.all.len() >= SUBSCRIBERS_MAX && !self.all.contains_key(&connection) {
            return Err(TooMany);
        }
        self.all.insert(connection, lock);
        Ok(())
    }

    /// A connection hears of nothing any more.
    pub(super) fn end(&mut self, connection: ConnectionId) {
        self.all.remove(&connection);
    }

    /// Whether there is nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Who wants to hear of a request with these claims.
    pub(super) fn of(&self, claims: &[Claim]) -> impl Iterator<Item = ConnectionId> {
        let is_meant = |lock: &LockName| claims.iter().any(|claim| claim.name == *lock);
        let hears = move |lock: &Option<LockName>| lock.as_ref().is_none_or(is_meant);
        self.all.iter().filter(move |(_, lock)| hears(lock)).map(|(connection, _)| *connection)
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

    #[test]
    fn each_hears_of_the_locks_it_asked_for() {
        let mut subscribers = Subscribers::default();
        subscribers.subscribe(connection(1), None).unwrap();
        subscribers.subscribe(connection(2), Some(lock("a"))).unwrap();
        subscribers.subscribe(connection(3), Some(lock("b"))).unwrap();
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
    fn there_are_as_many_subscribers_as_allowed_and_not_one_more() {
        let mut subscribers = Subscribers::default();
        for i in 0..SUBSCRIBERS_MAX {
            subscribers.subscribe(connection(i), None).unwrap();
        }
        assert_eq!(subscribers.subscribe(connection(SUBSCRIBERS_MAX), None), Err(TooMany));
        subscribers.subscribe(connection(0), Some(lock("a"))).unwrap();
        subscribers.end(connection(1));
        subscribers.subscribe(connection(SUBSCRIBERS_MAX), None).unwrap();
    }
}
