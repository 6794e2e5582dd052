//! Sessions: who is there, by which connection, until when (rules S1 to S6).

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Duration;

use super::EndReason;
use super::arena::{Arena, Chain, RequestKey, SessionKey};
use crate::types::{
    ConnectionId, FencingToken, Generation, Identity, LostReason, RejectionCode, RequestId, Secret,
    SessionId, Timestamp, Ttl,
};

/// A client's continuous presence. Owns what it holds and awaits.
#[derive(Debug)]
pub(super) struct Session {
    /// Its name.
    pub(super) id: SessionId,
    /// What a later connection must know.
    secret: Secret,
    /// Counts its connections; only the latest is listened to (rule S2).
    pub(super) generation: Generation,
    /// The connection it has now.
    pub(super) connection: Option<ConnectionId>,
    /// Where its latest connection comes from, for people.
    pub(super) peer: Option<SocketAddr>,
    /// Who it is, for people.
    pub(super) identity: Identity,
    /// When it was opened, for people.
    pub(super) since: Timestamp,
    /// Length of its lease.
    pub(super) ttl: Ttl,
    /// How long it outlives a broken connection; none: as long as its lease (rule S4).
    linger: Option<Duration>,
    /// When it ends if nothing is heard. While a connection is attached: last heard + ttl.
    pub(super) ends: Timestamp,
    /// When its entry among the deadlines comes up. Never after `ends`, often before: a renewal
    /// moves `ends` only, and the entry is put off when it comes up.
    pub(super) wakes: Timestamp,
    /// Its live requests, oldest first.
    pub(super) requests: Chain<RequestKey>,
    /// The greatest request id it has used (rule R1).
    pub(super) latest_request: RequestId,
    /// How its latest finished requests ended, oldest first (rule R1).
    finished: VecDeque<(RequestId, Outcome)>,
}

/// How a request ended, for whoever asks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What a new session is made of.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: SessionId,
    pub(super) secret: Secret,
    pub(super) connection: ConnectionId,
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
            secret: opening.secret,
            generation: Generation::new(1),
            connection: Some(opening.connection),
            peer: opening.peer,
            identity: opening.identity,
            since: now,
            ttl: opening.ttl,
            linger: opening.linger,
            ends,
            wakes: ends,
            requests: Chain::EMPTY,
            latest_request: RequestId::new(0),
            finished: VecDeque::new(),
        }
    }

    pub(super) fn knows(&self, secret: Secret) -> bool {
        self.secret.matches(secret)
    }

    /// Something was heard from its client.
    pub(super) fn renew(&mut self, now: Timestamp) {
        self.ends = now.after(self.ttl.length());
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

    /// How a request ended, if that is remembered.
    pub(super) fn outcome(&self, request: RequestId) -> Option<Outcome> {
        // From the latest: who asks again does so soon.
        self.finished.iter().rev().find(|(id, _)| *id == request).map(|(_, outcome)| *outcome)
    }
}

/// All sessions, found by id and by connection.
#[derive(Debug)]
pub(super) struct Sessions<S> {
    arena: Arena<SessionKey, Session>,
    by_id: HashMap<SessionId, SessionKey, S>,
    /// The session of each connection that has one. Invariant: agrees with `Session::connection`.
    by_connection: HashMap<ConnectionId, SessionKey, S>,
}

impl<S: BuildHasher + Clone> Sessions<S> {
    pub(super) fn new(hasher: S) -> Self {
        Self {
            arena: Arena::new(),
            by_id: HashMap::with_hasher(hasher.clone()),
            by_connection: HashMap::with_hasher(hasher),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn find(&self, id: SessionId) -> Option<SessionKey> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn of_connection(&self, connection: ConnectionId) -> Option<SessionKey> {
        self.by_connection.get(&connection).copied()
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionKey {
        let (id, connection) = (session.id, session.connection);
        let key = self.arena.insert(session);
        self.by_id.insert(id, key);
        if let Some(connection) = connection {
            self.by_connection.insert(connection, key);
        }
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Session {
        let session = self.arena.remove(key);
        self.by_id.remove(&session.id);
        if let Some(connection) = session.connection {
            self.by_connection.remove(&connection);
        }
        trim(&mut self.by_id);
        trim(&mut self.by_connection);
        session
    }

    /// Gives the session another connection; says which it had.
    pub(super) fn attach(
        &mut self,
        key: SessionKey,
        connection: ConnectionId,
    ) -> Option<ConnectionId> {
        let before = self.arena[key].connection.replace(connection);
        if let Some(before) = before {
            self.by_connection.remove(&before);
        }
        self.by_connection.insert(connection, key);
        before
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

    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &Session)> {
        self.arena.iter_from(from)
    }
}

/// Gives memory back when a map that was large stands mostly empty. Looking costs nothing; doing it
/// is paid for by the removals that led here, as the next time is at half the size at the earliest.
fn trim<K: Eq + std::hash::Hash, V, S: BuildHasher>(map: &mut HashMap<K, V, S>) {
    if map.capacity() > 1024 && map.len() < map.capacity() / 8 {
        map.shrink_to(map.len() * 2);
    }
}

impl<S> std::ops::Index<SessionKey> for Sessions<S> {
    type Output = Session;
    fn index(&self, key: SessionKey) -> &Session {
        &self.arena[key]
    }
}

impl<S> std::ops::IndexMut<SessionKey> for Sessions<S> {
    fn index_mut(&mut self, key: SessionKey) -> &mut Session {
        &mut self.arena[key]
    }
}
