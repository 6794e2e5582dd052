//! The backlog: messages that a turn leaves for later turns, because it has done enough.
//!
//! A turn handles messages until it has taken [`TURN_STEPS_MAX`] steps. The rest waits here, and
//! the next turn comes when every socket was polled once more. However many and expensive the
//! messages of one client are, the others are read and answered in between (no head-of-line
//! blocking).
//!
//! The order of connections is *fair queuing*, in the manner of deficit round robin with sparse
//! flows first (Shreedhar, Varghese, *Efficient Fair Queuing using Deficit Round Robin*, 1995; T.
//! Høiland-Jørgensen et al., RFC 8290): a connection is served [`QUANTUM_STEPS`] at a time. One
//! that needed more goes behind all that did not. Every fourth service is for these, so they do not
//! starve either.

use std::collections::{HashMap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use super::parse;
use super::turn::Window;
use crate::server::ledger::Unheard;
use crate::types::ConnectionId;
use crate::wire::ClientMessage;

/// Steps of a turn, about a millisecond: then the sockets are looked at. Only the last message of a
/// turn can take it further.
pub(super) const TURN_STEPS_MAX: u64 = 8_192;
/// Steps for one connection, before it is another's turn.
pub(super) const QUANTUM_STEPS: u64 = TURN_STEPS_MAX / 8;
/// Of so many services one is for those that need many.
const HEAVY_EVERY: u32 = 4;

/// What all connections have waiting.
#[derive(Default)]
pub(super) struct Backlog {
    /// Items that wait, by connection; of one that is being served, none.
    pending: HashMap<ConnectionId, VecDeque<Item>, RandomState>,
    /// Those that have not needed more than a quantum, in the order in which they came.
    sparse: VecDeque<ConnectionId>,
    /// Those that have.
    heavy: VecDeque<ConnectionId>,
    /// Those that have since nothing was waiting: they come back as what they are.
    known_as_heavy: HashSet<ConnectionId, RandomState>,
    /// Counts services.
    services: u32,
}

/// Something of a connection that is left to do.
pub(super) enum Item {
    /// What a read has brought.
    Messages {
        /// In the order in which it is to be handled.
        rest: VecDeque<ClientMessage>,
        /// Whether the session waits for the word that it is.
        window: Window,
        /// Counts it until then.
        _unheard: Unheard,
    },
    /// The connection has ended.
    End,
}

impl Item {
    /// The rest of what one read brought, of which so many are handled already.
    pub(super) fn rest(
        messages: Vec<ClientMessage>,
        handled: usize,
        window: Window,
        unheard: Unheard,
    ) -> Self {
        let mut rest = parse::into_order(messages);
        rest.drain(..handled);
        Self::Messages { rest, window, _unheard: unheard }
    }
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether a connection has something waiting, behind which the next has to stand.
    pub(super) fn holds(&self, connection: ConnectionId) -> bool {
        !self.pending.is_empty() && self.pending.contains_key(&connection)
    }

    /// Those that have something waiting.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnectionId> {
        self.sparse.iter().chain(&self.heavy).copied()
    }

    /// Something more of a connection.
    pub(super) fn push(&mut self, connection: ConnectionId, item: Item) {
        let items = self.pending.entry(connection).or_default();
        if items.is_empty() {
            if self.known_as_heavy.contains(&connection) {
                self.heavy.push_back(connection);
            } else {
                self.sparse.push_back(connection);
            }
        }
        items.push_back(item);
    }

    /// The connection that is served next, with all that it has waiting.
    pub(super) fn next(&mut self) -> Option<(ConnectionId, VecDeque<Item>)> {
        self.services = self.services.wrapping_add(1);
        let (first, second) = if self.services.is_multiple_of(HEAVY_EVERY) {
            (&mut self.heavy, &mut self.sparse)
        } else {
            (&mut self.sparse, &mut self.heavy)
        };
        let connection = first.pop_front().or_else(|| second.pop_front())?;
        Some((connection, self.pending.remove(&connection)?))
    }

    /// A connection was served, and this is left of what it had waiting; it needed so many steps.
    pub(super) fn served(&mut self, connection: ConnectionId, left: VecDeque<Item>, steps: u64) {
        if steps >= QUANTUM_STEPS {
            self.known_as_heavy.insert(connection);
        }
        if !left.is_empty() {
            self.pending.insert(connection, left);
            if self.known_as_heavy.contains(&connection) {
                self.heavy.push_back(connection);
            } else {
                self.sparse.push_front(connection);
            }
        }
        if self.pending.is_empty() {
            self.known_as_heavy.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::server::ledger::Ledger;

    fn said(count: usize) -> Item {
        let messages = vec![ClientMessage::KeepAlive { sequence: 1 }; count];
        Item::rest(messages, 0, Window::Open, Arc::new(Ledger::default()).open().submit(0))
    }

    fn number(served: Option<(ConnectionId, VecDeque<Item>)>) -> u64 {
        served.unwrap().0.number()
    }

    #[test]
    fn who_needs_much_is_served_behind_those_who_need_little_and_every_fourth_time() {
        let mut backlog = Backlog::default();
        let hog = ConnectionId::new(1);
        backlog.push(hog, said(9));
        let (_, left) = backlog.next().unwrap();
        backlog.served(hog, left, QUANTUM_STEPS);
        for number in 2..=7 {
            backlog.push(ConnectionId::new(number), said(1));
        }
        let mut order = Vec::new();
        while let Some((connection, left)) = backlog.next() {
            order.push(connection.number());
            let left = if connection == hog && order.len() < 8 { left } else { VecDeque::new() };
            backlog.served(connection, left, 1);
        }
        assert_eq!(order, [2, 3, 1, 4, 5, 6, 1, 7, 1]);
        assert!(backlog.is_empty());
    }

    #[test]
    fn who_needed_much_comes_back_as_such_until_nothing_is_waiting() {
        let mut backlog = Backlog::default();
        let (hog, other) = (ConnectionId::new(1), ConnectionId::new(2));
        for _ in 0..2 {
            backlog.push(hog, said(1));
            backlog.push(other, said(1));
            assert_eq!(number(backlog.next()), 1, "nothing is known of it");
            backlog.served(hog, VecDeque::new(), QUANTUM_STEPS);
            backlog.push(hog, said(1));
            backlog.push(ConnectionId::new(3), said(1));
            assert_eq!([2, 3, 1], [(); 3].map(|()| number(backlog.next())));
            for connection in [other, ConnectionId::new(3), hog] {
                backlog.served(connection, VecDeque::new(), 1);
            }
            assert!(backlog.is_empty());
            // The services begin anew, for what is counted.
            backlog.services = 0;
        }
    }
}
