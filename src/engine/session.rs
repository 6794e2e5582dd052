//! Sessions: their connections and their leases (rules S1 to S6).

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arena::{Arena, RequestKey, SessionKey, is_mostly_empty};
use super::event::Command;
use super::row::Row;
use super::{EndReason, Rejection, RequestEvent};
use crate::engine::seed::Seed;
use crate::types::{
    ConnectionId, FencingToken, Generation, Identity, LostReason, Mark, Origin, RejectionCode,
    RequestId, SessionId, Timestamp, Ttl,
};

/// A client's continuous presence. Owns what it holds and awaits.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Session {
    /// Its name.
    pub(super) id: SessionId,
    /// Counts its connections; only the latest is listened to (rule S2).
    pub(super) generation: Generation,
    /// The connection it has now.
    pub(super) connection: Option<ConnectionId>,
    /// Where its latest connection comes from, for people.
    pub(super) peer: Option<SocketAddr>,
    /// Its identity, for people.
    pub(super) identity: Identity,
    /// When it was opened, for people.
    pub(super) since: Timestamp,
    /// Length of its lease.
    pub(super) ttl: Ttl,
    /// How long it outlives a broken connection; none: as long as its lease (rule S4).
    pub(super) linger: Option<Duration>,
    /// When it ends if nothing is heard. While a connection is attached: last heard + ttl.
    pub(super) ends: Timestamp,
    /// When its entry among the deadlines comes up. Never after `ends`, often before: a renewal
    /// moves `ends` only, and the entry is put off when it comes up.
    pub(super) wakes: Timestamp,
    /// Its live requests, in the order of their ids.
    pub(super) requests: Row<RequestId, RequestKey>,
    /// The greatest request id it has used (rule R1).
    pub(super) latest_request: RequestId,
    /// How its latest finished requests ended, oldest first (rule R1).
    finished: VecDeque<(RequestId, Outcome)>,
    /// How many of its requests hold.
    pub(super) held: usize,
    /// How many claims its requests have.
    pub(super) claims: usize,
    /// It was opened anew after a crash, and nothing was heard from it yet. For all we know, its
    /// client has not heard of that either (rule G2).
    pub(super) is_reopened: bool,
    /// Counts those who were opened in a grace period; none if it was not.
    pub(super) newcomer: Option<u64>,
    /// Commands of its client that came before it could be welcomed, which waits for the disk (rule
    /// G1). None: it was welcomed.
    pub(super) unheard: Option<Vec<Command>>,
    /// Whether it is yet to be noted in queues that it went away, or came back (rule S8).
    pub(super) moving: Moving,
    /// It lost its connection by a crash of the coordinator, and has none yet.
    pub(super) is_awaited: bool,
    /// What there is about it if no connection is to keep it (rule S11). Then it counts as awaited for ever.
    pub(super) unattended: Option<Box<Unattended>>,
    /// It has ended; what it held passes on when that is on record (rule G1).
    pub(super) is_over: bool,
    /// Its grants are counted instead of told, and so many were; none: they are told.
    #[serde(skip)]
    pub(super) untold: Option<u64>,
}

/// What there is about a session that nobody attends.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Unattended {
    /// Whoever shows this is its holder.
    pub(super) mark: Mark,
    /// For how long it holds; none: until it is given back.
    pub(super) term: Option<Duration>,
    /// Whether that is counted from its grant. Else its session's `ends` is exact.
    pub(super) is_from_grant: bool,
}

/// Whether a session has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has.
    Present,
    /// It has none: it keeps its places, and is granted nothing (rule S8).
    Away,
}

/// Whether a session's going or coming is yet to be noted in queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Moving {
    /// It is noted.
    No,
    /// It is being noted.
    Once,
    /// It went or came again meanwhile.
    Again,
}

/// How a request ended, for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Its holder released it.
    Released(FencingToken),
    /// Its client gave it up.
    Cancelled,
    /// Its holder lost it.
    Lost(FencingToken, LostReason),
    /// It was answered *no*.
    Rejected(RejectionCode),
}

impl From<Outcome> for RequestEvent {
    /// What is told to whoever asks again.
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Released(token) => Self::Released { token },
            Outcome::Cancelled => Self::Cancelled,
            Outcome::Lost(token, reason) => Self::Lost { token, reason },
            Outcome::Rejected(code) => Self::Rejected(Rejection::AsBefore(code)),
        }
    }
}

/// What a new session is made of.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: SessionId,
    pub(super) generation: Generation,
    pub(super) connection: Option<ConnectionId>,
    pub(super) peer: Option<SocketAddr>,
    pub(super) identity: Identity,
    pub(super) ttl: Ttl,
    pub(super) linger: Option<Duration>,
}

impl Session {
    pub(super) fn open(opening: Opening, now: Timestamp) -> Self {
        let ends = now.after(opening.ttl.length());
        Self {
            id: opening.id,
            generation: opening.generation,
            connection: opening.connection,
            peer: opening.peer,
            identity: opening.identity,
            since: now,
            ttl: opening.ttl,
            linger: opening.linger,
            ends,
            wakes: ends,
            requests: Row::EMPTY,
            latest_request: RequestId::new(0),
            finished: VecDeque::new(),
            held: 0,
            claims: 0,
            is_reopened: false,
            newcomer: None,
            unheard: None,
            moving: Moving::No,
            is_awaited: false,
            unattended: None,
            is_over: false,
            untold: None,
        }
    }

    /// Something was heard from its client.
    pub(super) fn renew(&mut self, now: Timestamp) {
        self.ends = now.after(self.ttl.length());
    }

    /// Nobody attends it: it ends when it is to.
    pub(super) fn attend_not(&mut self, unattended: Unattended, ends: Timestamp) {
        self.unattended = Some(Box::new(unattended));
        (self.is_awaited, self.ends, self.wakes) = (true, ends, ends);
    }

    /// Whether its lease has not begun: its client is there and waits for its Welcome, or it waits for a
    /// lock unattended.
    pub(super) fn is_kept_waiting(&self) -> bool {
        let is_unwelcomed = self.unheard.is_some() && self.connection.is_some();
        is_unwelcomed || self.unattended.is_some() && self.held == 0
    }

    /// Whether its client is there, or would be but for us.
    pub(super) fn presence(&self) -> Presence {
        let is_present = self.connection.is_some() || self.is_awaited;
        if is_present { Presence::Present } else { Presence::Away }
    }

    /// Whether it has a connection, or needs none.
    pub(super) fn is_there(&self) -> bool {
        self.connection.is_some() || self.unattended.is_some()
    }

    /// Whether it ends some time, if nothing is heard of it.
    pub(super) fn has_end(&self) -> bool {
        self.unattended.as_deref().is_none_or(|it| it.term.is_some())
    }

    /// Its connection broke: it lingers, but never longer than its lease.
    pub(super) fn detach(&mut self, now: Timestamp) {
        self.connection = None;
        if let Some(linger) = self.linger {
            self.ends = self.ends.min(now.after(linger));
        }
    }

    /// Why it ends now: nothing was heard for its ttl, or it lingered as long as it was to.
    pub(super) fn end_reason(&self) -> EndReason {
        match (self.connection, self.linger) {
            (None, Some(_)) => EndReason::Disconnected,
            _ => EndReason::Expired,
        }
    }

    /// Remembers how a request ended, and forgets the oldest of more than `max`.
    pub(super) fn remember(&mut self, request: RequestId, outcome: Outcome, max: usize) {
        while self.finished.len() >= max.max(1) {
            self.finished.pop_front();
        }
        self.finished.push_back((request, outcome));
    }

    /// How its latest requests ended, oldest first.
    pub(super) fn finished(&self) -> impl Iterator<Item = (RequestId, Outcome)> {
        self.finished.iter().copied()
    }

    /// How a request ended, if that is remembered.
    pub(super) fn outcome(&self, request: RequestId) -> Option<Outcome> {
        // From the latest: who asks again does so soon.
        self.finished.iter().rev().find(|(id, _)| *id == request).map(|(_, outcome)| *outcome)
    }
}

/// All sessions, found by id and by connection.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Sessions {
    arena: Arena<SessionKey, Session>,
    #[serde(skip)]
    by_id: HashMap<SessionId, SessionKey, Seed>,
    /// The session of each connection that has one. Invariant: agrees with `Session::connection`.
    #[serde(skip)]
    by_connection: HashMap<ConnectionId, SessionKey, Seed>,
    /// How many of those that are not over come from each address that is known. None has 0.
    #[serde(skip)]
    by_origin: HashMap<Origin, usize, Seed>,
    /// The one that was found last: whoever speaks says several things at a time. Only where to look
    /// first, it may be any or none.
    #[serde(skip)]
    found: Cell<Option<SessionKey>>,
}

impl Sessions {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            arena: Arena::new(),
            by_id: HashMap::with_hasher(seed.clone()),
            by_connection: HashMap::with_hasher(seed.clone()),
            by_origin: HashMap::with_hasher(seed),
            found: Cell::new(None),
        }
    }

    /// Finds all of them anew, by `seed`.
    pub(super) fn index(&mut self, seed: Seed) {
        let arena = mem::replace(&mut self.arena, Arena::new());
        *self = Self { arena, ..Self::new(seed) };
        let living: Vec<SessionKey> = self.keys().collect();
        for key in living {
            let Session { id, connection, peer, .. } = self.arena[key];
            self.count(peer, 1);
            self.by_id.insert(id, key);
            if let Some(connection) = connection {
                self.by_connection.insert(connection, key);
            }
        }
    }

    /// How many are not over.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many of them have a connection.
    pub(super) fn connected(&self) -> usize {
        self.by_connection.len()
    }

    pub(super) fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.find_with(|session| session.id == id, || self.by_id.get(&id).copied())
    }

    pub(super) fn of_connection(&self, connection: ConnectionId) -> Option<SessionKey> {
        self.find_with(
            |session| session.connection == Some(connection),
            || self.by_connection.get(&connection).copied(),
        )
    }

    /// The one that is not over and `is_meant`: looks at the one that was found last, then `look_up`.
    fn find_with(
        &self,
        is_meant: impl FnOnce(&Session) -> bool,
        look_up: impl FnOnce() -> Option<SessionKey>,
    ) -> Option<SessionKey> {
        if let Some(key) = self.found.get()
            && let Some(session) = self.arena.get(key)
            && !session.is_over
            && is_meant(session)
        {
            return Some(key);
        }
        let found = look_up();
        self.found.set(found);
        found
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        let (id, connection, peer) = (session.id, session.connection, session.peer);
        self.count(peer, 1);
        let key = self.arena.insert(session);
        self.by_id.insert(id, key);
        if let Some(connection) = connection {
            self.by_connection.insert(connection, key);
        }
        key
    }

    /// The session is over: it cannot be found any more. It still has what it held.
    pub(super) fn end(&mut self, key: SessionKey) {
        let session = &mut self.arena[key];
        session.is_over = true;
        let peer = session.peer;
        self.by_id.remove(&session.id);
        if let Some(connection) = session.connection.take() {
            self.by_connection.remove(&connection);
        }
        trim(&mut self.by_id);
        trim(&mut self.by_connection);
        self.count(peer, -1);
    }

    /// How many that are not over come from there.
    pub(super) fn from(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).copied().unwrap_or(0)
    }

    /// The session's client comes from another place now.
    pub(super) fn moved(&mut self, key: SessionKey, peer: Option<SocketAddr>) {
        let before = mem::replace(&mut self.arena[key].peer, peer);
        self.count(before, -1);
        self.count(peer, 1);
    }

    /// There is one more or one less from there.
    fn count(&mut self, peer: Option<SocketAddr>, change: isize) {
        let Some(origin) = peer.map(|peer| Origin::of(peer.ip())) else { return };
        let count = self.by_origin.entry(origin).or_insert(0);
        *count = count.saturating_add_signed(change);
        if *count == 0 {
            self.by_origin.remove(&origin);
            trim(&mut self.by_origin);
        }
    }

    /// Forgets a session that is over and has nothing any more.
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.arena.remove(key);
    }

    /// All that are not over.
    pub(super) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.arena.keys().filter(|key| !self.arena[*key].is_over)
    }

    /// Gives the session another connection; says which it had.
    pub(super) fn attach(
        &mut self,
        key: SessionKey,
        connection: ConnectionId,
    ) -> Option<ConnectionId> {
        let session = &mut self.arena[key];
        session.is_awaited = false;
        let before = session.connection.replace(connection);
        if let Some(before) = before {
            self.by_connection.remove(&before);
        }
        self.by_connection.insert(connection, key);
        before
    }

    /// A connection is no more, and that is not its client's doing.
    pub(super) fn let_go(&mut self, connection: ConnectionId) {
        if let Some(key) = self.by_connection.remove(&connection) {
            let session = &mut self.arena[key];
            (session.connection, session.is_awaited) = (None, true);
        }
    }

    /// The connection ended. Says whose it was.
    pub(super) fn detach(
        &mut self,
        connection: ConnectionId,
        now: Timestamp,
    ) -> Option<SessionKey> {
        let key = self.by_connection.remove(&connection)?;
        self.arena[key].detach(now);
        Some(key)
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> [usize; 3] {
        [self.arena.places(), self.by_id.capacity(), self.by_connection.capacity()]
    }

    #[cfg(test)]
    pub(super) fn iter_all(&self) -> impl Iterator<Item = (usize, &Session)> {
        self.arena.iter_from(0)
    }

    /// All places at and after one, and who is there and not over.
    pub(super) fn places_from(
        &self,
        from: usize,
    ) -> impl Iterator<Item = (usize, Option<&Session>)> {
        let places = self.arena.places_from(from);
        places.map(|(place, session)| (place, session.filter(|session| !session.is_over)))
    }

    /// Those at and after a place that are not over.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &Session)> {
        self.arena.iter_from(from).filter(|(_, session)| !session.is_over)
    }
}

/// Gives memory back when a map that was large stands mostly empty.
fn trim<K: Eq + std::hash::Hash, V>(map: &mut HashMap<K, V, Seed>) {
    if is_mostly_empty(map.len(), map.capacity()) {
        map.shrink_to(map.len() * 2);
    }
}

impl std::ops::Index<SessionKey> for Sessions {
    type Output = Session;
    fn index(&self, key: SessionKey) -> &Session {
        &self.arena[key]
    }
}

impl std::ops::IndexMut<SessionKey> for Sessions {
    fn index_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.arena[key]
    }
}
