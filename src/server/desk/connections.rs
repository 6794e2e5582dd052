//! The connections, as far as the Coordinator cares: what each is for, and what a turn has for it.
//!
//! Messages of a turn come together in one batch for each connection; a turn ends with the delivery
//! of all batches. A connection that was said Goodbye to is forgotten then, which is how whatever its
//! client says later is ignored.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use foldhash::fast::RandomState;
use slab::Slab;

use super::inspect::Budget;
use super::render;
use super::weight;
use crate::server::ledger::Share;
use crate::server::messages::{Connect, Deliver, Handled};
use crate::server::net::session::EVENTS_BYTES_MAX;
use crate::types::{ConnectionId, GoodbyeCode, Identity, SessionId};
use crate::wire::{ServerMessage, ShownLock};

/// Most bytes, in memory, that one turn may have for one connection: room for an answer to each of the
/// 65,536 requests that a session may have. Whoever has more coming is closed, as one that does not read.
pub(in crate::server) const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

/// All connections that were not said Goodbye to.
#[derive(Default)]
pub(in crate::server) struct Connections {
    /// By number.
    known: Known,
    /// Those with a batch in the making, each once, in the order of their first message.
    touched: Vec<ConnectionId>,
    /// Set once every connection was said Goodbye to: why, for those that come after all.
    closed: Option<GoodbyeCode>,
}

/// One connection.
pub(in crate::server) struct Connection {
    /// Its number.
    id: ConnectionId,
    /// Where its answers go.
    session: Recipient<Deliver>,
    /// Where what it is given is counted.
    share: Arc<Share>,
    /// Where it comes from, for people.
    pub(in crate::server) peer: Option<SocketAddr>,
    /// What it is for.
    role: Role,
    /// What an observer calls itself, for the log.
    observer_identity: Option<Identity>,
    /// Whether its Hello was answered. Until then it is not read on, so it cannot say more than the
    /// one read that brought the Hello, however long the answer has to wait for the disk.
    is_greeted: bool,
    /// What this turn has for it.
    batch: Vec<ServerMessage>,
    /// The locks of this turn that it watches, each with the query that is answered.
    shown: Vec<(u64, ShownLock)>,
    /// The frames of the events of this turn that it wants to hear of.
    events: Vec<Bytes>,
    /// How long those frames are together.
    event_bytes: usize,
    /// Events of this turn that were left out behind them.
    missed: u64,
    /// Bytes in memory that all of this takes. What goes past [`BATCH_BYTES_MAX`] is not kept.
    bytes: usize,
    /// What the batch says besides.
    handled: Handled,
    /// What the batch may still hold of pages.
    budget: Budget,
}

/// What a connection is for.
pub(in crate::server) enum Role {
    /// It has not said.
    Unknown,
    /// To look, and to revoke.
    Observer,
    /// A session.
    Session {
        /// Which.
        id: SessionId,
        /// Goes into the log.
        identity: Identity,
    },
    /// It is told Goodbye in this turn.
    Gone,
}

impl Connections {
    /// A new one, that says nothing yet.
    pub(in crate::server) fn insert(&mut self, connect: Connect) {
        let Connect { connection, peer, session, share } = connect;
        if let Some(code) = self.closed {
            return say_last(&session, code);
        }
        let new = Connection {
            id: connection,
            session,
            share,
            peer,
            role: Role::Unknown,
            observer_identity: None,
            is_greeted: false,
            batch: Vec::new(),
            shown: Vec::new(),
            events: Vec::new(),
            event_bytes: 0,
            missed: 0,
            bytes: 0,
            handled: Handled::Unsaid,
            budget: Budget::of_a_turn(),
        };
        self.known.insert(new);
    }

    /// What it is for; none if it is not known (any more).
    pub(in crate::server) fn role(&self, connection: ConnectionId) -> Option<&Role> {
        self.known.get(connection).map(|known| &known.role)
    }

    /// Where it comes from, if that is known.
    pub(in crate::server) fn peer(&self, connection: ConnectionId) -> Option<SocketAddr> {
        self.known.get(connection)?.peer
    }

    /// An observer says who it is.
    pub(in crate::server) fn name_observer(
        &mut self,
        connection: ConnectionId,
        identity: Identity,
    ) {
        if let Some(known) = self.known.get_mut(connection) {
            known.observer_identity = Some(identity);
        }
    }

    /// Who it says to be, if it is an observer.
    pub(in crate::server) fn observer_identity(
        &self,
        connection: ConnectionId,
    ) -> Option<&Identity> {
        self.known.get(connection)?.observer_identity.as_ref()
    }

    /// Says what it is for, and gives it; none if it is not known (any more).
    pub(in crate::server) fn assume(
        &mut self,
        connection: ConnectionId,
        role: Role,
    ) -> Option<&Connection> {
        let known = self.known.get_mut(connection)?;
        known.role = role;
        Some(known)
    }

    /// What it may still have in pages in this turn; none if it is not known (any more).
    pub(in crate::server) fn budget(&mut self, connection: ConnectionId) -> Option<&mut Budget> {
        self.known.get_mut(connection).map(|known| &mut known.budget)
    }

    /// Makes room for so many answers in its batch, and no more: most batches are of one.
    pub(in crate::server) fn expect(&mut self, connection: ConnectionId, answers: usize) {
        if let Some(known) = self.known.get_mut(connection) {
            known.batch.reserve_exact(answers);
        }
    }

    /// Puts a message into its batch.
    pub(in crate::server) fn tell(&mut self, connection: ConnectionId, message: ServerMessage) {
        if let Some(batched) = self.touch(connection)
            && batched.has_room_for(size_of::<ServerMessage>() + weight::beside(&message))
        {
            batched.batch.push(message);
        }
    }

    /// Puts a lock that it watches into its batch, behind all messages. `bytes` is its part of what the
    /// lock takes, which others are shown too.
    pub(in crate::server) fn show(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        lock: ShownLock,
        bytes: usize,
    ) {
        if let Some(batched) = self.touch(connection)
            && batched.has_room_for(size_of::<(u64, ShownLock)>() + bytes)
        {
            batched.shown.push((query_id, lock));
        }
    }

    /// Puts the frame of an event into its batch, behind everything else, as far as there is room for
    /// events in an outbox. `bytes` is its part of what the frame takes, which others are told too.
    pub(in crate::server) fn tell_event(
        &mut self,
        connection: ConnectionId,
        frame: &Bytes,
        bytes: usize,
    ) {
        let Some(batched) = self.touch(connection) else { return };
        if batched.missed > 0 || batched.event_bytes + frame.len() > EVENTS_BYTES_MAX {
            batched.missed += 1;
        } else if batched.has_room_for(size_of::<Bytes>() + bytes) {
            batched.event_bytes += frame.len();
            batched.events.push(frame.clone());
        }
    }

    /// One that is not told Goodbye yet, with a batch in the making.
    fn touch(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        let known = self.known.get_mut(connection)?;
        if matches!(known.role, Role::Gone) {
            return None;
        }
        if known.is_untouched() {
            self.touched.push(connection);
        }
        Some(known)
    }

    /// Puts a Goodbye into its batch, which makes that the last.
    pub(in crate::server) fn dismiss(&mut self, connection: ConnectionId, goodbye: ServerMessage) {
        self.tell(connection, goodbye);
        self.assume(connection, Role::Gone);
    }

    /// Puts a Welcome into its batch, which makes that say that the Hello is handled.
    pub(in crate::server) fn greet(&mut self, connection: ConnectionId, welcome: ServerMessage) {
        self.tell(connection, welcome);
        if let Some(known) = self.known.get_mut(connection) {
            known.is_greeted = true;
        }
        self.acknowledge(connection);
    }

    /// Has its batch, empty though it may be, say that all it submitted is handled.
    pub(in crate::server) fn acknowledge(&mut self, connection: ConnectionId) {
        let Some(known) = self.known.get_mut(connection).filter(|known| known.is_greeted) else {
            return;
        };
        if known.is_untouched() {
            self.touched.push(connection);
        }
        known.handled = Handled::All;
    }

    /// Delivers the batches of a turn, the latest first: what others hear comes of what is answered to
    /// who spoke, and they have waited for it. So the next holder is written to before who released.
    ///
    /// Of pages it may have more once nothing that it said is left to do (`has_more_to_do`): however
    /// many turns its questions take, they are answered with as much as one.
    pub(in crate::server) fn deliver(&mut self, has_more_to_do: impl Fn(ConnectionId) -> bool) {
        for connection in self.touched.drain(..).rev() {
            let Some(known) = self.known.get_mut(connection) else { continue };
            if !has_more_to_do(connection) {
                known.budget = Budget::of_a_turn();
            }
            known.deliver();
            if matches!(known.role, Role::Gone) {
                self.known.remove(connection);
            }
        }
    }

    /// Forgets one that ended, after saying what this turn has for it, and that all it submitted is
    /// handled; gives what it was for.
    pub(in crate::server) fn remove(&mut self, connection: ConnectionId) -> Option<Role> {
        let mut known = self.known.remove(connection)?;
        known.handled = Handled::All;
        known.deliver();
        Some(known.role)
    }

    /// Says Goodbye to all of them, and to those that still come.
    pub(in crate::server) fn close_all(&mut self, code: GoodbyeCode) {
        self.closed = Some(code);
        let mut known = self.known.take_all();
        // In the order in which they came, and not in one that is another each time.
        known.sort_unstable_by_key(|known| known.id);
        for Connection { session, .. } in known {
            say_last(&session, code);
        }
    }
}

/// The connections themselves, found by number.
#[derive(Default)]
struct Known {
    /// Each at a place of its own.
    slab: Slab<Connection>,
    /// The places.
    places: HashMap<ConnectionId, usize, RandomState>,
    /// The place that was found last, where to look first: who speaks says several things at a time,
    /// and is answered. It may be anyone's, or nobody's.
    found: Cell<usize>,
}

impl Known {
    fn insert(&mut self, new: Connection) {
        self.places.insert(new.id, self.slab.insert(new));
    }

    fn place(&self, connection: ConnectionId) -> Option<usize> {
        let found = self.found.get();
        if self.slab.get(found).is_some_and(|known| known.id == connection) {
            return Some(found);
        }
        let place = *self.places.get(&connection)?;
        self.found.set(place);
        Some(place)
    }

    fn get(&self, connection: ConnectionId) -> Option<&Connection> {
        self.slab.get(self.place(connection)?)
    }

    fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        let place = self.place(connection)?;
        self.slab.get_mut(place)
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Connection> {
        let place = self.places.remove(&connection)?;
        self.slab.try_remove(place)
    }

    fn take_all(&mut self) -> Vec<Connection> {
        self.places.clear();
        self.slab.drain().collect()
    }
}

impl Connection {
    /// Whether this turn has nothing for it so far.
    fn is_untouched(&self) -> bool {
        self.bytes == 0 && self.handled == Handled::Unsaid
    }

    /// Takes room for so many bytes in the batch. Once there is none, there is none for what is shorter
    /// either, for nothing may be left out in between; and nothing is kept.
    #[inline]
    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        let has_room = self.bytes <= BATCH_BYTES_MAX;
        if !has_room {
            self.overflow();
        }
        has_room
    }

    #[cold]
    fn overflow(&mut self) {
        self.bytes = usize::MAX;
        (self.batch, self.shown, self.events) = (Vec::new(), Vec::new(), Vec::new());
    }

    /// Sends what the turn has for it, counted, or has it closed if that is too much.
    fn deliver(&mut self) {
        let deliver = Deliver {
            messages: mem::take(&mut self.batch),
            shown: mem::take(&mut self.shown),
            events: mem::take(&mut self.events),
            missed: mem::take(&mut self.missed),
            bytes: mem::take(&mut self.bytes),
            handled: mem::take(&mut self.handled),
        };
        self.event_bytes = 0;
        if deliver.bytes > BATCH_BYTES_MAX {
            self.share.close();
        } else if !self.share.is_closed() {
            self.share.add(deliver.bytes);
            self.session.do_send(deliver);
        }
    }
}

fn say_last(session: &Recipient<Deliver>, code: GoodbyeCode) {
    let messages = vec![render::goodbye(code, "the coordinator stops")];
    session.do_send(Deliver { messages, ..Deliver::default() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::ledger::Ledger;
    use crate::server::testing::{collector, local, settle};

    /// A message that takes so many bytes.
    fn long(bytes: usize) -> ServerMessage {
        render::goodbye(GoodbyeCode::Done, "x".repeat(bytes - size_of::<ServerMessage>()))
    }

    #[test]
    fn there_is_room_for_an_answer_to_every_request_of_a_session() {
        let answer =
            size_of::<ServerMessage>() + "the coordinator is about to stop; ask again soon".len();
        let requests = crate::types::Limits::default().claims_per_session_max;
        assert!(answer * requests <= BATCH_BYTES_MAX, "{answer} bytes each");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_has_as_much_for_a_connection_as_allowed_and_not_one_byte_more() {
        local(async {
            let ledger = Arc::new(Ledger::default());
            let account = ledger.open();
            let (session, batches) = collector();
            let mut connections = Connections::default();
            let connection = ConnectionId::new(1);
            let share = account.share();
            connections.insert(Connect { connection, peer: None, session, share });
            let half = BATCH_BYTES_MAX / 2;
            for bytes in [half, half] {
                connections.tell(connection, long(bytes));
            }
            connections.deliver(|_| false);
            settle().await;
            assert_eq!(ledger.total(), BATCH_BYTES_MAX);
            assert_eq!(batches.take()[0].messages.len(), 2);
            assert!(!account.is_closed());

            // Nor is what comes behind it kept, or told without what was before.
            for bytes in [half, half + 1, 1000] {
                connections.tell(connection, long(bytes));
            }
            connections.deliver(|_| false);
            settle().await;
            assert!(batches.take().is_empty());
            assert!(account.is_closed());
            assert_eq!(ledger.total(), 0);
        })
        .await;
    }
}
