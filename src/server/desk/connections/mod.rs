//! The connections, as far as the Coordinator cares: their purposes, and their batches of a turn.
//!
//! Messages of a turn come together in one batch for each connection; a turn ends with a delivery
//! for each that has one. A connection that was told Goodbye is forgotten then, so all later
//! messages of its client are ignored.
//!
//! Never here: a means of sending. A delivery only names its way.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use foldhash::fast::RandomState;
use log::error;
use slab::Slab;

use super::guest::Guest;
use super::inspect::Budget;
use super::render;
use super::turn::{Deliver, Delivery, Handled, More, Promise, Way};
use crate::access::Proof;
use crate::server::slots;
use crate::types::{ConnectionId, GoodbyeCode, Identity, RejectionCode, SessionId};
use crate::wire::{ServerMessage, ShownLock, encode_frame};

/// Most bytes, in memory, that one turn may have for one connection. They are room for an answer to
/// each of the 65,536 requests that a session may have. Whoever has more coming is closed, as one
/// that does not read.
pub(in crate::server) const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of events that one turn may have for one connection, and most that may be unwritten when
/// another is put into its outbox.
pub(in crate::server) const EVENTS_BYTES_MAX: usize = 256 * 1024;
/// Reasons of a connection that are kept while what they are for is not done.
const REASONS_MAX: usize = 64;
/// Buffers for frames that are kept when there is nothing to say.
const FRAMES_KEPT_MAX: usize = 256;

/// All connections that were not said Goodbye to.
#[derive(Default)]
pub(in crate::server) struct Connections {
    /// By number.
    known: Known,
    /// Those with a batch in the making, each once, in the order of their first message, and where they were found:
    /// who spoke.
    answered: Vec<(ConnectionId, usize)>,
    /// The same: who hears of what others said, and whoever else is told something.
    told: Vec<(ConnectionId, usize)>,
    /// Memory of frames that were said, for those that are next.
    spare: Vec<BytesMut>,
    /// The connection that speaks now, if any does.
    speaker: Option<ConnectionId>,
    /// Set once every connection was said Goodbye to: why, for those that come after all.
    closed: Option<(GoodbyeCode, String)>,
    /// Those that hear nothing more but their Goodbye.
    departing: Vec<Connection>,
}

/// One connection.
pub(in crate::server) struct Connection {
    /// Its number.
    id: ConnectionId,
    /// Where its deliveries go.
    way: Way,
    /// Where it comes from, for people.
    pub(in crate::server) peer: Option<SocketAddr>,
    /// Its purpose.
    role: Role,
    /// Name that an observer gives itself, for the log.
    observer_identity: Option<Identity>,
    /// What it has shown before its Hello, where that is asked for.
    proof: Option<Box<Proof>>,
    /// Who that has proven it to be, where there is an access file.
    guest: Option<Box<Guest>>,
    /// Why it takes locks away, by the query, until that is done.
    reasons: Vec<(u64, String)>,
    /// Whether it speaks another dialect than the messages of `wire`.
    is_other: bool,
    /// Whether its Hello was answered. Until then it is not read on. It cannot say more than the
    /// one read that brought the Hello, however long the answer has to wait for the disk.
    is_greeted: bool,
    /// Its batch in this turn. What goes past [`BATCH_BYTES_MAX`] is not kept.
    batch: Deliver,
    /// How long the frames of events in it are together.
    event_bytes: usize,
    /// Room left in the batch for pages.
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
    /// A new one, that says nothing yet; or that came too late, and hears only Goodbye. `is_other`: it speaks another
    /// dialect than the messages of `wire`. There is no Hello then: it is listened to at once.
    pub(super) fn insert(
        &mut self,
        connection: ConnectionId,
        (way, is_other): (Way, bool),
        peer: Option<SocketAddr>,
        out: &mut Vec<Delivery>,
    ) {
        if let Some((code, why)) = &self.closed {
            return out.push(last_word(way, connection, (*code, why), is_other));
        }
        let new = Connection {
            id: connection,
            way,
            peer,
            role: Role::Unknown,
            observer_identity: None,
            proof: None,
            guest: None,
            reasons: Vec::new(),
            is_other,
            is_greeted: is_other,
            batch: Deliver::default(),
            event_bytes: 0,
            budget: Budget::of_a_turn(),
        };
        self.known.insert(new);
    }

    /// What it is for; none if it is not known (any more).
    pub(super) fn role(&self, connection: ConnectionId) -> Option<&Role> {
        self.known.get(connection).map(|known| &known.role)
    }

    /// Where it comes from, if that is known.
    pub(super) fn peer(&self, connection: ConnectionId) -> Option<SocketAddr> {
        self.known.get(connection)?.peer
    }

    /// An observer says who it is.
    pub(super) fn name_observer(&mut self, connection: ConnectionId, identity: Identity) {
        if let Some(known) = self.known.get_mut(connection) {
            known.observer_identity = Some(identity);
        }
    }

    /// Who it says to be, if it is an observer, or of another dialect and let in.
    pub(super) fn observer_identity(&self, connection: ConnectionId) -> Option<&Identity> {
        self.known.get(connection)?.observer_identity.as_ref()
    }

    /// Whether it speaks another dialect.
    #[cfg(feature = "redis-api")]
    pub(super) fn is_other(&self, connection: ConnectionId) -> bool {
        self.known.get(connection).is_some_and(|known| known.is_other)
    }

    /// Nobody is there any more who says to be anything.
    #[cfg(feature = "redis-api")]
    pub(super) fn unname_observer(&mut self, connection: ConnectionId) {
        if let Some(known) = self.known.get_mut(connection) {
            known.observer_identity = None;
        }
    }

    /// It shows what may prove who it is.
    pub(super) fn prove(&mut self, connection: ConnectionId, proof: Box<Proof>) {
        if let Some(known) = self.known.get_mut(connection) {
            known.proof = Some(proof);
        }
    }

    /// What it has shown.
    pub(super) fn take_proof(&mut self, connection: ConnectionId) -> Option<Box<Proof>> {
        self.known.get_mut(connection)?.proof.take()
    }

    /// It has proven who it is.
    pub(super) fn receive_guest(&mut self, connection: ConnectionId, guest: Box<Guest>) {
        if let Some(known) = self.known.get_mut(connection) {
            known.guest = Some(guest);
        }
    }

    /// Who it has proven to be; none before its Hello, and where nobody is asked.
    pub(super) fn guest(&self, connection: ConnectionId) -> Option<&Guest> {
        self.known.get(connection)?.guest.as_deref()
    }

    /// The same, to be changed.
    pub(super) fn guest_mut(&mut self, connection: ConnectionId) -> Option<&mut Guest> {
        self.known.get_mut(connection)?.guest.as_deref_mut()
    }

    /// Why it wants a lock taken away. Of too many that are not done yet, the earliest is forgotten.
    pub(super) fn keep_reason(&mut self, connection: ConnectionId, query_id: u64, reason: String) {
        if let Some(known) = self.known.get_mut(connection) {
            if known.reasons.len() >= REASONS_MAX {
                known.reasons.remove(0);
            }
            known.reasons.push((query_id, reason));
        }
    }

    /// Why it wanted that.
    pub(super) fn take_reason(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
    ) -> Option<String> {
        let reasons = &mut self.known.get_mut(connection)?.reasons;
        let place = reasons.iter().position(|(query, _)| *query == query_id)?;
        Some(reasons.remove(place).1)
    }

    /// Those that have proven who they are, in the order in which they came.
    pub(super) fn with_guests(&self) -> Vec<ConnectionId> {
        let known = self.known.slab.iter().map(|(_, known)| known);
        let mut all: Vec<_> = known.filter(|it| it.guest.is_some()).map(|it| it.id).collect();
        all.sort_unstable();
        all
    }

    /// Says what it is for, and gives it; none if it is not known (any more).
    pub(super) fn assume(&mut self, connection: ConnectionId, role: Role) -> Option<&Connection> {
        let known = self.known.get_mut(connection)?;
        known.role = role;
        Some(known)
    }

    /// What it may still have in pages in this turn; none if it is not known (any more).
    pub(super) fn budget(&mut self, connection: ConnectionId) -> Option<&mut Budget> {
        self.known.get_mut(connection).map(|known| &mut known.budget)
    }

    /// Puts a message into its batch.
    pub(super) fn tell(&mut self, connection: ConnectionId, message: &ServerMessage) {
        if let Some(batched) = self.touch(connection)
            && batched.batch.bytes <= BATCH_BYTES_MAX
        {
            // One that is left out counts, too: the connection has been touched.
            let len = batched.batch.append(message, connection).max(1);
            batched.has_room_for(len);
        }
    }

    /// Takes memory of frames that were said, for those that are next.
    pub(super) fn reuse(&mut self, spare: &mut Vec<BytesMut>) {
        spare.truncate(FRAMES_KEPT_MAX.saturating_sub(self.spare.len()));
        self.spare.append(spare);
    }

    /// Puts a lock that it watches into its batch, behind all messages. `bytes` is its part of what the
    /// lock takes, which others are shown too.
    pub(super) fn show(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        lock: ShownLock,
        bytes: usize,
    ) {
        if let Some(batched) = self.touch(connection)
            && batched.has_room_for(size_of::<(u64, ShownLock)>() + bytes)
        {
            batched.batch.shown.push((query_id, lock));
        }
    }

    /// Puts the frame of an event into its batch, behind everything else, as far as there is room for
    /// events in an outbox. `bytes` is its part of what the frame takes, which others are told too.
    pub(super) fn tell_event(&mut self, connection: ConnectionId, frame: &Bytes, bytes: usize) {
        let Some(batched) = self.touch(connection) else { return };
        if batched.batch.missed > 0 || batched.event_bytes + frame.len() > EVENTS_BYTES_MAX {
            batched.batch.missed += 1;
        } else if batched.has_room_for(size_of::<Bytes>() + bytes) {
            batched.event_bytes += frame.len();
            batched.batch.events.push(frame.clone());
        }
    }

    /// One that is not told Goodbye yet, with a batch in the making.
    fn touch(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        let place = self.known.place(connection)?;
        let known = self.known.slab.get_mut(place)?;
        if matches!(known.role, Role::Gone) {
            return None;
        }
        if known.is_untouched() {
            if let Some(spare) = self.spare.pop() {
                known.batch.frames = spare;
            }
            if self.speaker == Some(connection) {
                self.answered.push((connection, place));
            } else {
                self.told.push((connection, place));
            }
        }
        Some(known)
    }

    /// From now on, what comes of anything comes of what this one says.
    pub(super) fn speaks(&mut self, connection: ConnectionId) {
        self.speaker = Some(connection);
    }

    /// Puts a Goodbye into its batch, which makes that the last.
    pub(super) fn dismiss(&mut self, connection: ConnectionId, goodbye: &ServerMessage) {
        if self.known.get(connection).is_some_and(|known| known.is_other) {
            self.tell_other(connection, &farewell(goodbye), Promise::None);
            return self.part_from_other(connection);
        }
        self.tell(connection, goodbye);
        self.assume(connection, Role::Gone);
    }

    /// Puts an answer of another dialect into its batch.
    pub(super) fn tell_other(&mut self, connection: ConnectionId, answer: &[u8], promise: Promise) {
        if let Some(batched) = self.touch(connection)
            && batched.has_room_for(answer.len())
        {
            batched.batch.frames.extend_from_slice(answer);
            #[cfg(feature = "redis-api")]
            if batched.batch.handled == Handled::Waits {
                // That is what it has waited for.
                batched.batch.handled = Handled::Unsaid;
            }
            if promise == Promise::Recorded {
                batched.batch.promise = promise;
            }
        }
    }

    /// It has proven who it is: what is put into its batch next says so to its session.
    #[cfg(feature = "redis-api")]
    pub(super) fn welcome_other(&mut self, connection: ConnectionId) {
        if let Some(known) = self.known.get_mut(connection) {
            known.batch.welcomes = true;
        }
    }

    /// What was put into its batch is the last.
    pub(super) fn part_from_other(&mut self, connection: ConnectionId) {
        if let Some(known) = self.touch(connection) {
            known.batch.is_last = true;
            known.role = Role::Gone;
        }
    }

    /// Puts a Welcome into its batch, which makes that say that the Hello is handled.
    pub(super) fn greet(&mut self, connection: ConnectionId, welcome: &ServerMessage) {
        self.tell(connection, welcome);
        if let Some(known) = self.known.get_mut(connection) {
            known.is_greeted = true;
        }
        self.acknowledge(connection);
    }

    /// Has its batch, empty though it may be, say that all it submitted is handled.
    pub(super) fn acknowledge(&mut self, connection: ConnectionId) {
        self.say_handled(connection, Handled::All);
    }

    /// Has its batch, empty though it may be, say that it waits in line, and is not heard before that is over.
    #[cfg(feature = "redis-api")]
    pub(super) fn wait(&mut self, connection: ConnectionId) {
        self.say_handled(connection, Handled::Waits);
    }

    fn say_handled(&mut self, connection: ConnectionId, handled: Handled) {
        let Some(place) = self.known.place(connection) else { return };
        let Some(known) = self.known.slab.get_mut(place).filter(|known| known.is_greeted) else {
            return;
        };
        if known.is_untouched() {
            self.answered.push((connection, place));
        }
        known.batch.handled = handled;
    }

    /// Delivers the batches of a turn. First come those who did not speak, because they have waited
    /// for what they hear. Then come the answers, in the order of the questions. So the next holder
    /// is written to before who released.
    ///
    /// Of pages it may have more once nothing that it said is left to do (`has_more_to_do`).
    /// However many turns its questions take, they are answered with as much as one.
    pub(super) fn deliver(
        &mut self,
        has_more_to_do: impl Fn(ConnectionId) -> bool,
        out: &mut Vec<Delivery>,
    ) {
        self.speaker = None;
        for (connection, place) in self.told.drain(..).chain(self.answered.drain(..)) {
            self.known.found.set(place);
            let Some(known) = self.known.get_mut(connection) else { continue };
            if !has_more_to_do(connection) {
                known.budget = Budget::of_a_turn();
            }
            let more = if matches!(known.role, Role::Gone) { More::Never } else { More::Perhaps };
            out.push(known.take_batch(more));
            if more == More::Never {
                self.known.remove(connection);
            }
        }
    }

    /// Forgets one that ended, after saying what this turn has for it, and that all it submitted is
    /// handled; gives what it was for.
    pub(super) fn remove(
        &mut self,
        connection: ConnectionId,
        out: &mut Vec<Delivery>,
    ) -> Option<Role> {
        let mut known = self.known.remove(connection)?;
        known.batch.handled = Handled::All;
        out.push(known.take_batch(More::Never));
        Some(known.role)
    }

    /// Nobody says anything more, and all hear of that by [`Connections::close_all`]. Those that still come are not
    /// shown a table that is gone: they hear at once that it is over here.
    pub(super) fn depart(&mut self) {
        self.departing.extend(self.known.take_all());
        self.closed.get_or_insert((GoodbyeCode::NotLeader, String::new()));
    }

    /// Says Goodbye to all of them, and to those that still come.
    pub(super) fn close_all(&mut self, code: GoodbyeCode, why: &str, out: &mut Vec<Delivery>) {
        self.closed = Some((code, why.to_owned()));
        let mut known = mem::take(&mut self.departing);
        known.extend(self.known.take_all());
        // In the order in which they came, and not in one that is another each time.
        known.sort_unstable_by_key(|known| known.id);
        let word = |known: &Connection| last_word(known.way, known.id, (code, why), known.is_other);
        out.extend(known.iter().map(word));
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

    #[inline]
    fn place(&self, connection: ConnectionId) -> Option<usize> {
        let found = self.found.get();
        if self.slab.get(found).is_some_and(|known| known.id == connection) {
            return Some(found);
        }
        self.look_up(connection)
    }

    /// Apart, so that what is found at once is found without a call.
    #[inline(never)]
    fn look_up(&self, connection: ConnectionId) -> Option<usize> {
        let place = *self.places.get(&connection)?;
        self.found.set(place);
        Some(place)
    }

    #[inline]
    fn get(&self, connection: ConnectionId) -> Option<&Connection> {
        self.slab.get(self.place(connection)?)
    }

    #[inline]
    fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut Connection> {
        let place = self.place(connection)?;
        self.slab.get_mut(place)
    }

    fn remove(&mut self, connection: ConnectionId) -> Option<Connection> {
        let place = self.places.remove(&connection)?;
        let known = self.slab.try_remove(place);
        if slots::is_deserted(&self.slab) {
            self.give_back();
        }
        known
    }

    /// Gives back the memory of a crowd that has gone: those who stay move together.
    #[cold]
    fn give_back(&mut self) {
        let places = &mut self.places;
        self.slab.compact(|known, _, place| {
            places.insert(known.id, place);
            true
        });
        self.slab.shrink_to_fit();
        self.places.shrink_to(2 * self.slab.len());
    }

    fn take_all(&mut self) -> Vec<Connection> {
        self.places.clear();
        self.slab.drain().collect()
    }
}

impl Connection {
    /// Whether this turn has nothing for it so far.
    fn is_untouched(&self) -> bool {
        self.batch.bytes == 0 && self.batch.handled == Handled::Unsaid
    }

    /// Takes room for so many bytes in the batch. Once there is none, there is none for what is shorter
    /// either, for nothing may be left out in between; and nothing is kept.
    #[inline]
    fn has_room_for(&mut self, bytes: usize) -> bool {
        self.batch.bytes = self.batch.bytes.saturating_add(bytes);
        let has_room = self.batch.bytes <= BATCH_BYTES_MAX;
        if !has_room {
            self.overflow();
        }
        has_room
    }

    #[cold]
    fn overflow(&mut self) {
        let handled = self.batch.handled;
        self.batch = Deliver { bytes: usize::MAX, handled, ..Deliver::default() };
    }

    /// What the turn has for it.
    fn take_batch(&mut self, more: More) -> Delivery {
        self.event_bytes = 0;
        Delivery { way: self.way, deliver: mem::take(&mut self.batch), more }
    }
}

impl Deliver {
    /// Puts a message behind those that it has. Says how many bytes it takes.
    fn append(&mut self, message: &ServerMessage, connection: ConnectionId) -> usize {
        let before = self.frames.len();
        match message {
            ServerMessage::Welcome { .. } => self.welcomes = true,
            ServerMessage::Goodbye { .. } => self.is_last = true,
            _ => {}
        }
        if let Err(unwritable) = encode_frame(message, &mut self.frames) {
            error!(connection:%; "an answer was left out: {unwritable}");
        }
        self.frames.len() - before
    }
}

/// The last word for those who speak the dialect of Redis: an error, which needs no question.
fn farewell(goodbye: &ServerMessage) -> Vec<u8> {
    match goodbye {
        ServerMessage::Goodbye { rejection: RejectionCode::Unauthenticated, .. } => {
            b"-WRONGPASS invalid username-password pair or user is disabled.\r\n".to_vec()
        }
        ServerMessage::Goodbye { message, .. } => {
            format!("-COORDINATOR {}\r\n", message.replace(['\r', '\n'], " ")).into_bytes()
        }
        other => format!("-COORDINATOR {}\r\n", other.name()).into_bytes(),
    }
}

fn last_word(
    way: Way,
    id: ConnectionId,
    (code, why): (GoodbyeCode, &str),
    is_other: bool,
) -> Delivery {
    let (mut deliver, goodbye) = (Deliver::default(), render::goodbye(code, why));
    if is_other {
        deliver.frames.extend_from_slice(&farewell(&goodbye));
        deliver.is_last = true;
    } else {
        let _ = deliver.append(&goodbye, id);
    }
    Delivery { way, deliver, more: More::Never }
}

#[cfg(test)]
mod tests;
