//! The lock table: where events arrive, time passes, and sessions come and go. What happens to
//! requests is in `grant.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::mem;
use std::net::SocketAddr;

use super::arena::{LockKey, RequestKey, SessionKey};
use super::event::{Attach, Command, Event};
use super::lock::{ClaimArena, Locks};
use super::request::{Requests, State};
use super::session::{Opening, Outcome, Session, Sessions};
use super::tokens::Tokens;
use super::{Effect, EndReason, News, Rejection, Start};
use crate::types::{
    ConnectionId, Epoch, FencingToken, Generation, Limits, LockName, LostReason, RequestId, Secret,
    SessionId, Timestamp,
};

/// All locks, all who hold them and all who wait, and the rules by which they change.
///
/// # Examples
///
/// ```
/// use std::hash::RandomState;
/// use coordinator::engine::{Attach, Durable, Effect, Event, LockTable, Start};
/// use coordinator::types::*;
///
/// let durable = Durable { epoch: Epoch::new(1), tokens_below: FencingToken::new(1 << 20) };
/// let start = Start { durable, first_token: FencingToken::new(1), plausible: durable };
/// let mut table = LockTable::new(Limits::default(), start, RandomState::new());
/// let mut effects = Vec::new();
/// let hello = Event::Attach {
///     connection: ConnectionId::new(1),
///     peer: None,
///     attach: Attach::Open {
///         session: SessionId::new(7),
///         secret: Secret::new(8),
///         ttl: Ttl::default(),
///         linger: None,
///         identity: Identity::default(),
///     },
///     epoch_seen: Epoch::new(0),
///     token_seen: FencingToken::new(0),
/// };
/// table.handle(hello, Timestamp::from_micros(0), &mut effects);
/// assert!(matches!(effects[..], [Effect::Welcome { .. }]));
/// assert_eq!(table.next_deadline(), Some(Timestamp::from_micros(10_000_000)));
/// ```
#[derive(Debug)]
pub struct LockTable<S> {
    /// How much of everything there may be.
    pub(super) limits: Limits,
    /// Who is there.
    pub(super) sessions: Sessions<S>,
    /// What they want and have.
    pub(super) requests: Requests<S>,
    /// The requests' claims, each in one lock's queue or among its holders.
    pub(super) claims: ClaimArena,
    /// What is wanted and had.
    pub(super) locks: Locks<S>,
    /// The counter behind the fencing tokens.
    pub(super) tokens: Tokens,
    /// When each session is to be looked at, at the latest. Invariant: (`wakes`, key) of each.
    pub(super) leases: BTreeSet<(Timestamp, SessionKey)>,
    /// When waiting requests stop waiting and lock delays end. Only what may still come is here.
    pub(super) timeouts: BTreeSet<(Timestamp, Due)>,
    /// Locks that something left, whose queue is to be looked at before the event is over.
    pub(super) unsettled: VecDeque<LockKey>,
    /// Whether a request could have been granted had there been a token.
    pub(super) starved: bool,
    /// Whether nothing new is accepted.
    pub(super) draining: bool,
    /// The latest moment that was told. Never goes back.
    pub(super) now: Timestamp,
    /// What is to be done about the event at hand: the caller's own buffer, while it is handled.
    pub(super) effects: Vec<Effect>,
    /// How many requests hold. The others wait.
    pub(super) held: usize,
    /// How many grants there were.
    pub(super) grants: u64,
    /// How many leases ended because nothing was heard.
    expired: u64,
}

/// What a moment among the timeouts is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A waiting request stops waiting.
    Timeout(RequestKey),
    /// A lock that was lost may be granted again.
    Delay(LockKey),
}

/// How much of everything there is now, and was since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sessions alive, with a connection or without.
    pub sessions: usize,
    /// Locks held, waited for or delayed.
    pub locks: usize,
    /// Requests that hold.
    pub held: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Grants since the start.
    pub grants: u64,
    /// Leases that ended because nothing was heard, since the start.
    pub expired: u64,
    /// The latest token given.
    pub last_token: FencingToken,
    /// Whether nothing new is accepted.
    pub draining: bool,
}

impl<S: BuildHasher + Clone> LockTable<S> {
    /// An empty table. `hasher` should be seeded where clients choose the names; the rules do not
    /// depend on it.
    pub fn new(limits: Limits, start: Start, hasher: S) -> Self {
        Self {
            limits,
            sessions: Sessions::new(hasher.clone()),
            requests: Requests::new(hasher.clone()),
            claims: ClaimArena::new(),
            locks: Locks::new(hasher),
            tokens: Tokens::new(start),
            leases: BTreeSet::new(),
            timeouts: BTreeSet::new(),
            unsettled: VecDeque::new(),
            starved: false,
            draining: false,
            now: Timestamp::default(),
            effects: Vec::new(),
            held: 0,
            grants: 0,
            expired: 0,
        }
    }

    /// Takes note of `event` at the moment `now`, and appends to `effects` what is to be done about
    /// it. What was due by then happens first. A `now` before that of an earlier event counts as
    /// that event's.
    pub fn handle(&mut self, event: Event, now: Timestamp, effects: &mut Vec<Effect>) {
        mem::swap(&mut self.effects, effects);
        self.now = self.now.max(now);
        self.expire_due();
        match event {
            Event::Attach { connection, peer, attach, epoch_seen, token_seen } => {
                if !self.tokens.seen(epoch_seen, token_seen) {
                    self.refuse(connection, Rejection::ImplausibleToken);
                } else if self.sessions.of_connection(connection).is_none() {
                    self.attach(connection, peer, attach);
                }
            }
            Event::Command { connection, command } => {
                if let Some(session) = self.sessions.of_connection(connection) {
                    self.sessions[session].renew(self.now);
                    self.command(session, connection, command);
                }
            }
            Event::Disconnect { connection } => self.disconnect(connection),
            Event::Revoke { connection, query_id, name, token } => {
                self.revoke(connection, query_id, name, token);
            }
            Event::Persisted(durable) => {
                self.tokens.persisted(durable);
                self.feed_the_starved();
            }
            Event::Drain => self.drain(),
            Event::Tick => {}
        }
        self.effects.extend(self.tokens.wanted().map(Effect::Persist));
        mem::swap(&mut self.effects, effects);
        #[cfg(test)]
        self.assert_invariants();
    }

    /// When [`LockTable::handle`] is to be called again, at the latest; a [`Event::Tick`] will do.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let lease = self.leases.first().map(|(at, _)| *at);
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        [lease, timeout].into_iter().flatten().min()
    }

    /// This run of the coordinator.
    pub fn epoch(&self) -> Epoch {
        self.tokens.epoch()
    }

    /// How much of everything there is.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            locks: self.locks.len(),
            held: self.held,
            waiting: self.requests.len() - self.held,
            grants: self.grants,
            expired: self.expired,
            last_token: self.tokens.latest(),
            draining: self.draining,
        }
    }

    /// Lets happen what is due. Dead sessions leave first, all of them, so that none is granted what
    /// another leaves (rule S6); then the living are granted what became free, and only then do
    /// those time out who still wait.
    fn expire_due(&mut self) {
        while let Some(&(at, session)) = self.leases.first() {
            if at > self.now {
                break;
            }
            let ends = self.sessions[session].ends;
            if ends > self.now {
                self.reschedule(session, ends);
            } else {
                let reason = self.sessions[session].end_reason();
                self.end_session(session, reason);
            }
        }
        self.settle();
        while let Some(&(at, due)) = self.timeouts.first() {
            if at > self.now {
                break;
            }
            match due {
                Due::Timeout(request) => self.time_out(request),
                Due::Delay(lock) => {
                    self.timeouts.pop_first();
                    self.locks[lock].delayed_until = None;
                    self.unsettle(lock);
                }
            }
            self.settle();
        }
    }

    /// Has the session looked at at `wakes`, not when it was going to be.
    fn reschedule(&mut self, session: SessionKey, wakes: Timestamp) {
        let before = mem::replace(&mut self.sessions[session].wakes, wakes);
        self.leases.remove(&(before, session));
        self.leases.insert((wakes, session));
    }

    fn attach(&mut self, connection: ConnectionId, peer: Option<SocketAddr>, attach: Attach) {
        match attach {
            Attach::Open { session, secret, ttl, linger, identity } => {
                let opening =
                    Opening { id: session, secret, connection, peer, identity, ttl, linger };
                match self.open(opening) {
                    Ok(session) => self.welcome(session, connection),
                    Err(rejection) => self.refuse(connection, rejection),
                }
            }
            Attach::Resume { session, secret, generation } => {
                match self.resume(connection, session, secret, generation) {
                    Ok(session) => {
                        self.sessions[session].peer = peer;
                        self.welcome(session, connection);
                    }
                    Err(rejection) => self.refuse(connection, rejection),
                }
            }
        }
    }

    fn open(&mut self, opening: Opening) -> Result<SessionKey, Rejection> {
        let max = self.limits.sessions_max;
        if self.draining {
            return Err(Rejection::Draining);
        }
        if self.sessions.len() >= max {
            return Err(Rejection::TooManySessions { max });
        }
        assert!(self.sessions.find(opening.id).is_none(), "the shell gave a session id twice");
        let session = self.sessions.insert(Session::open(opening, self.now));
        self.leases.insert((self.sessions[session].wakes, session));
        Ok(session)
    }

    /// Gives a living session a new connection; the one it had is told and closed (rules S1, S2).
    fn resume(
        &mut self,
        connection: ConnectionId,
        id: SessionId,
        secret: Secret,
        generation: Generation,
    ) -> Result<SessionKey, Rejection> {
        let key = self
            .sessions
            .find(id)
            .filter(|key| self.sessions[*key].knows(secret))
            .ok_or(Rejection::UnknownSession)?;
        let latest = self.sessions[key].generation;
        if generation <= latest {
            return Err(Rejection::StaleGeneration { latest });
        }
        self.sessions[key].generation = generation;
        self.sessions[key].renew(self.now);
        if let Some(before) = self.sessions.attach(key, connection) {
            self.effects.push(Effect::Superseded { connection: before });
        }
        Ok(key)
    }

    fn welcome(&mut self, session: SessionKey, connection: ConnectionId) {
        let Session { id, generation, ttl, .. } = self.sessions[session];
        self.effects.push(Effect::Welcome { connection, session: id, generation, ttl });
    }

    fn refuse(&mut self, connection: ConnectionId, rejection: Rejection) {
        self.effects.push(Effect::Refused { connection, rejection });
    }

    fn command(&mut self, session: SessionKey, connection: ConnectionId, command: Command) {
        match command {
            Command::Request(request) => self.request(session, request),
            Command::Release { request, token } => self.release(session, request, token),
            Command::Cancel { request } => self.cancel(session, request),
            Command::KeepAlive { sequence } => {
                self.effects.push(Effect::KeptAlive { connection, sequence });
            }
            Command::Goodbye => {
                self.end_session(session, EndReason::Goodbye);
                self.settle();
            }
            Command::Unparsed { request, rejection } => {
                self.tell(session, request, News::Rejected(rejection));
            }
        }
    }

    /// The end of a connection proves nothing: its session lingers (rule S4).
    fn disconnect(&mut self, connection: ConnectionId) {
        if let Some(session) = self.sessions.detach(connection, self.now) {
            let ends = self.sessions[session].ends;
            if ends < self.sessions[session].wakes {
                self.reschedule(session, ends);
            }
            self.expire_due();
        }
    }

    /// Ends a session in one step: its holds become free, its waiters leave (rule S6). Whoever is
    /// next is found by [`LockTable::settle`], which the caller does not forget.
    fn end_session(&mut self, key: SessionKey, reason: EndReason) {
        let lost = match reason {
            EndReason::Goodbye => None,
            EndReason::Expired => Some(LostReason::Expired),
            EndReason::Disconnected => Some(LostReason::Disconnected),
        };
        let (mut held, mut waiting, mut lock) = (0, 0, None);
        while let Some(request) = self.sessions[key].requests.head() {
            match self.requests[request].state {
                State::Held { token } => {
                    held += 1;
                    lock = lock.or_else(|| self.first_lock(request));
                    if let Some(reason) = lost {
                        self.delay_locks(request);
                        let id = self.requests[request].id;
                        self.tell(key, id, News::Lost { token, reason });
                    }
                }
                State::Waiting { .. } => waiting += 1,
            }
            self.take_out(request);
        }
        self.expired += u64::from(reason == EndReason::Expired);
        let session = self.sessions.remove(key);
        self.leases.remove(&(session.wakes, key));
        let Session { id, connection, .. } = session;
        self.effects.push(Effect::Ended { session: id, connection, reason, held, waiting, lock });
    }

    /// The name of the first lock a request claims.
    fn first_lock(&self, request: RequestKey) -> Option<LockName> {
        let first = self.requests[request].first?;
        Some(self.locks[self.claims[first].lock].name.clone())
    }

    /// Numbers are on disk: whoever waited for nothing else is granted.
    fn feed_the_starved(&mut self) {
        if mem::take(&mut self.starved) {
            let locks: Vec<LockKey> = self.locks.keys().collect();
            for lock in locks {
                self.unsettle(lock);
            }
            self.settle();
        }
    }

    /// Nothing new from now on; those who wait are told at once, those who hold may finish.
    fn drain(&mut self) {
        self.draining = true;
        let waiting: Vec<RequestKey> =
            self.requests.keys().filter(|key| !self.requests[*key].is_held()).collect();
        for request in waiting {
            let outcome = Outcome::Rejected(Rejection::Draining.code());
            self.finish(request, outcome, News::Rejected(Rejection::Draining));
        }
        self.settle();
    }

    /// News for a session's client, told if it has a connection.
    pub(super) fn tell(&mut self, session: SessionKey, request: RequestId, news: News) {
        let Session { id, connection, .. } = self.sessions[session];
        self.effects.push(Effect::Tell { connection, session: id, request, news });
    }
}
