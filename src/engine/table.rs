//! The lock table: where events arrive, time passes, and sessions end. Sessions begin in
//! `attach.rs`. Requests live in `grant.rs`, `convert.rs` and `revoke.rs`, and wait in `place.rs`.
//! Deadlocks are found in `deadlock.rs`. Restarts are in `grace.rs`, `forfeit.rs` and
//! `snapshot.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arena::{LockKey, RequestKey, SessionKey};
use super::claim::ClaimArena;
use super::deferred::{Deferred, REFILE_STEPS};
use super::event::Event;
use super::lock::Locks;
use super::owner::Owners;
use super::pause::Kept;
use super::records::{AfterRecord, PendingForfeit, Record};
use super::request::{Requests, State};
use super::request_event::Listening;
use super::session::{Outcome, Session, Sessions};
use super::tally::Tally;
use super::tokens::Tokens;
use super::{Effect, EndReason, Forfeit, Happening, News, Rejection, Start};
use crate::engine::seed::Seed;
use crate::types::{
    ConnectionId, Epoch, FencingToken, Limits, LockName, LostReason, RequestId, SessionId,
    Timestamp,
};

/// All locks, all who hold them and all who wait, and the rules by which they change.
///
/// # Examples
///
/// ```
/// use coordinator::engine::{Attach, Durable, Effect, Event, LockTable, Past, Seed, Snapshot, Start};
/// use coordinator::types::*;
///
/// let durable = Durable {
///     epoch: Epoch::new(1),
///     tokens_below: FencingToken::new(1 << 20),
///     ttl_max: Some(Ttl::default()),
///     settled: Epoch::new(1),
/// };
/// let first_token = FencingToken::new(1);
/// let past = Past { snapshot: Some(Snapshot::default()), ..Past::default() };
/// let start = Start { durable, first_token, plausible: durable, past };
/// let now = Timestamp::from_micros(0);
/// let mut table = LockTable::new(Limits::default(), start, Seed::default(), now);
/// let mut effects = Vec::new();
/// let hello = Event::Attach {
///     connection: ConnectionId::new(1),
///     peer: None,
///     attach: Attach::Open {
///         session: SessionId::new(7),
///         ttl: Ttl::default(),
///         linger: None,
///         identity: Identity::default(),
///     },
///     epoch_seen: Epoch::new(0),
///     token_seen: FencingToken::new(0),
/// };
/// table.handle(&hello, now, &mut effects);
/// assert!(matches!(effects[..], [Effect::Welcome { .. }]));
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub struct LockTable {
    /// The limits: bounds on everything that clients can cause.
    pub(super) limits: Limits,
    /// Who is there.
    pub(super) sessions: Sessions,
    /// Who asks, within a session.
    pub(super) owners: Owners,
    /// What they want and have.
    pub(super) requests: Requests,
    /// The requests' claims, each in one lock's queue or among its holders.
    pub(super) claims: ClaimArena,
    /// What is wanted and had.
    pub(super) locks: Locks,
    /// How many of those are kept, or will be.
    pub(super) kept: Kept,
    /// The counter behind the fencing tokens.
    pub(super) tokens: Tokens,
    /// When each session is to be looked at, at the latest. Invariant: (`wakes`, key) of each.
    pub(super) leases: BTreeSet<(Timestamp, SessionKey)>,
    /// When waiting requests stop waiting and lock delays end. Only what may still come is here.
    pub(super) timeouts: BTreeSet<(Timestamp, Due)>,
    /// Locks that something left, whose queue is to be looked at before the event is over.
    pub(super) unsettled: VecDeque<LockKey>,
    /// Whether a request could have been granted had there been a token, or no grace period.
    pub(super) starved: bool,
    /// What is put off, and how much was done.
    pub(super) deferred: Deferred,
    /// Until when earlier holders may reclaim and nobody else is granted (rule G2).
    pub(super) grace_until: Option<Timestamp>,
    /// Who and what may not reclaim. Empty outside the grace period.
    pub(super) forfeited: BTreeSet<Forfeit>,
    /// What is to happen when it is on record, in the order of the records.
    pub(super) pending_forfeits: VecDeque<PendingForfeit>,
    /// What is on record, or on its way there. Those of earlier runs are one.
    pub(super) records: VecDeque<Record>,
    /// How many they are. Invariant: the sum of their counts, and no more than `RECORDS_MAX`.
    pub(super) record_count: usize,
    /// The number of the next record.
    pub(super) next_record: u64,
    /// Sessions that wait for the disk to be welcomed.
    pub(super) unwelcomed: Vec<SessionId>,
    /// How many requests began to wait in this run.
    pub(super) arrivals: u64,
    /// Where the tokens of this run begin: all others were granted by earlier ones.
    pub(super) first_token: FencingToken,
    /// Where the epochs of this run begin. A client's later one moves it on, within the run.
    pub(super) first_epoch: Epoch,
    /// In the grace period, proofs count of this run and later ones only (rule G4).
    pub(super) proofs_from: Epoch,
    /// From which run on proofs count when the grace period has ended: this one, if it began with a
    /// crash, for then all that is held was sealed in it; after an orderly stop it was not.
    pub(super) settles: Option<Epoch>,
    /// Who opened a session in this grace period, in the order in which they came: they hold nothing,
    /// and make room for those who were there before. Empty outside the grace period.
    pub(super) newcomers: BTreeSet<(u64, SessionKey)>,
    /// Runs that may have been between this one and the one whose table it goes on with: none, unless
    /// that is an old copy (rule J9).
    pub(super) unknown_runs: Range<Epoch>,
    /// Whether nothing new is accepted.
    pub(super) draining: bool,
    /// The latest moment that was told. Never goes back.
    pub(super) now: Timestamp,
    /// Whatever clients had said by this moment was told: a lease that ended by then is over (rule
    /// T4). Never goes back, and never after `now`.
    pub(super) heard: Timestamp,
    /// What is to be done about the event at hand: the caller's own buffer, while it is handled.
    #[serde(skip)]
    pub(super) effects: Vec<Effect>,
    /// What somebody wants to hear of.
    #[serde(skip)]
    pub(super) listening: Listening,
    /// Grants that were counted instead of told, of sessions that are over.
    #[serde(skip)]
    pub(super) untold_of_ended: u64,
    /// The watched locks whose holders changed by the event at hand.
    #[serde(skip)]
    pub(super) changed: Vec<LockName>,
    /// How many requests hold. The others wait.
    pub(super) held: usize,
    /// How many grants there were.
    pub(super) grants: u64,
    /// How many leases ended because nothing was heard.
    pub(super) expired: u64,
    /// What else is counted.
    #[serde(skip)]
    pub(super) tally: Tally,
}

/// What a moment among the timeouts is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Due {
    /// A waiting request stops waiting.
    Timeout(RequestKey),
    /// A lock that was lost, or kept, may be granted again.
    Delay(LockKey),
    /// The grace period is over.
    Grace,
}

/// The shell promises to call [`LockTable::handle`] at least this often while there are sessions, or
/// some may come back from before a crash. If it comes later than that by more than `STALL_MIN`, the
/// coordinator itself stood still, and nobody could be heard (rule T3).
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A shorter stall is not one: a quarter of the shortest lease.
const STALL_MIN: Duration = Duration::from_millis(500);

/// How much of everything there is now, and was since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sessions alive, with a connection or without.
    pub sessions: usize,
    /// Those of them that have a connection.
    pub connected: usize,
    /// Locks held, waited for or delayed.
    pub locks: usize,
    /// Requests that hold.
    pub held: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Locks that somebody waits for.
    pub contended: usize,
    /// Tokens that can be given before the disk has to be heard of again.
    pub tokens_left: u64,
    /// Grants since the start.
    pub grants: u64,
    /// Leases that ended because nothing was heard, since the start.
    pub expired: u64,
    /// The latest token given.
    pub last_token: FencingToken,
    /// Whether nothing new is accepted.
    pub draining: bool,
}

impl LockTable {
    /// A table as the run before left it. The rules do not depend on the seed, see [`Seed`].
    pub fn new(limits: Limits, start: Start, seed: Seed, now: Timestamp) -> Self {
        let mut table = Self {
            limits,
            sessions: Sessions::new(seed.clone()),
            requests: Requests::new(seed.clone()),
            claims: ClaimArena::new(),
            locks: Locks::new(seed.clone()),
            kept: Kept::new(seed.clone()),
            owners: Owners::new(seed),
            tokens: Tokens::new(&start),
            leases: BTreeSet::new(),
            timeouts: BTreeSet::new(),
            unsettled: VecDeque::new(),
            starved: false,
            deferred: Deferred::NOTHING,
            grace_until: None,
            forfeited: BTreeSet::new(),
            pending_forfeits: VecDeque::new(),
            records: VecDeque::new(),
            record_count: 0,
            next_record: 0,
            unwelcomed: Vec::new(),
            arrivals: 0,
            first_token: start.first_token,
            first_epoch: start.durable.epoch,
            proofs_from: start.durable.settled,
            settles: start.past.snapshot.is_none().then_some(start.durable.epoch),
            newcomers: BTreeSet::new(),
            unknown_runs: Range::default(),
            draining: false,
            now,
            heard: now,
            effects: Vec::new(),
            listening: Listening::Nothing,
            untold_of_ended: 0,
            changed: Vec::new(),
            held: 0,
            grants: 0,
            expired: 0,
            tally: Tally::default(),
        };
        table.begin(start.durable, start.past, now);
        table
    }

    /// Takes note of `event` at the moment `now`, and appends to `effects` what is to be done about
    /// it. What is due happens with [`Event::Tick`] only. A `now` before that of an earlier event
    /// counts as that event's.
    pub fn handle(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        self.step(event, now, effects);
        #[cfg(test)]
        self.assert_invariants();
    }

    /// [`LockTable::handle`], without the look at everything that tests take after it.
    pub(crate) fn step(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        mem::swap(&mut self.effects, effects);
        if now > self.now {
            self.notice_stall(now);
            self.now = now;
        }
        self.deferred.begin();
        match *event {
            Event::Attach { connection, peer, ref attach, epoch_seen, token_seen } => {
                if !self.tokens.is_plausible(epoch_seen, token_seen) {
                    self.refuse(connection, Rejection::ImplausibleToken);
                } else if self.sessions.of_connection(connection).is_none() {
                    self.attach(connection, peer, attach);
                    if self.sessions.of_connection(connection).is_some() {
                        self.tokens.pass(epoch_seen, token_seen);
                    }
                }
            }
            Event::Command { connection, ref command } => {
                if let Some(key) = self.sessions.of_connection(connection) {
                    let session = &mut self.sessions[key];
                    session.renew(self.now);
                    session.is_reopened = false;
                    self.hear(key, connection, command);
                }
            }
            Event::Heard { connection } => {
                if let Some(key) = self.sessions.of_connection(connection) {
                    self.sessions[key].renew(self.now);
                }
            }
            Event::Disconnect { connection } => self.disconnect(connection),
            Event::Revoke { connection, query_id, ref name, token } => {
                self.ask_to_revoke(connection, query_id, name.clone(), token);
            }
            Event::Persisted(durable) => {
                self.tokens.persisted(durable);
                self.welcome_the_covered();
                if self.may_grant() {
                    self.retry_starved();
                }
            }
            Event::Recorded { count } => self.recorded(count),
            Event::Drain => self.drain(),
            Event::Began(ref run) => self.go_on_in(run),
            Event::Tick { heard } => {
                self.heard = self.heard.max(heard.min(self.now));
                self.expire_due();
            }
        }
        self.tell_watchers();
        if let Some(durable) = self.tokens.wanted() {
            self.effects.push(Effect::Persist(durable));
        }
        mem::swap(&mut self.effects, effects);
    }

    /// When [`Event::Tick`] is to be told, at the latest: by then, or as soon after it as everything is
    /// told that clients had said.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.has_deferred() {
            return Some(self.now);
        }
        let lease = self.leases.first().map(|(at, _)| *at);
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        let heartbeat = self.expects_somebody().then(|| self.now.after(HEARTBEAT));
        [lease, timeout, heartbeat].into_iter().flatten().min()
    }

    /// The latest moment that was told.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// This run of the coordinator.
    pub fn epoch(&self) -> Epoch {
        self.tokens.epoch()
    }

    /// What happened since this run began.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How long ago that was, in microseconds.
    pub(super) fn micros_since(&self, since: Timestamp) -> u64 {
        self.now.as_micros().saturating_sub(since.as_micros())
    }

    /// How much of everything there is.
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            connected: self.sessions.connected(),
            locks: self.locks.len(),
            held: self.held,
            waiting: self.requests.len() - self.held,
            contended: self.locks.contended(),
            tokens_left: self.tokens.left(),
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
            if at > self.heard {
                break;
            }
            if self.deferred.is_spent() {
                return;
            }
            if self.sessions[session].is_kept_waiting() {
                self.sessions[session].renew(self.now);
            }
            let ends = self.sessions[session].ends;
            // Also the end of a session that has nothing is work.
            self.deferred.charge(REFILE_STEPS);
            if ends > self.heard {
                self.reschedule(session, ends);
            } else {
                let reason = self.sessions[session].end_reason();
                self.end_session(session, reason);
            }
        }
        self.settle();
        while let Some(&(at, due)) = self.timeouts.first() {
            if at > self.heard {
                break;
            }
            if self.deferred.is_spent() {
                return;
            }
            self.deferred.charge(1);
            match due {
                Due::Timeout(request) => self.time_out(request),
                Due::Delay(lock) => {
                    self.timeouts.pop_first();
                    self.end_delay(lock);
                }
                Due::Grace => self.end_grace(),
            }
            self.settle();
        }
        self.go_on();
    }

    /// Whether there is anybody who loses something if nothing is heard of it: a session, or one that
    /// may come back in a grace period.
    fn expects_somebody(&self) -> bool {
        !self.leases.is_empty() || self.grace_until.is_some()
    }

    /// If the coordinator itself stood still, nobody could be heard, and nobody is to blame: leases
    /// are longer by that, and a grace period (rule T3).
    fn notice_stall(&mut self, now: Timestamp) {
        let expected = self.now.after(HEARTBEAT);
        if now <= expected.after(STALL_MIN) || !self.expects_somebody() {
            return;
        }
        let late = now.since(expected);
        self.tally.stalls += 1;
        // Only the ends: where an entry comes up too early, it is put off then.
        let sessions: Vec<SessionKey> = self.sessions.keys().collect();
        for session in sessions {
            let ends = self.sessions[session].ends;
            self.sessions[session].ends = ends.after(late);
        }
        if let Some(until) = self.grace_until {
            self.set_grace(until.after(late));
        }
    }

    /// Has the session looked at at `wakes`, not when it was going to be.
    fn reschedule(&mut self, session: SessionKey, wakes: Timestamp) {
        let before = mem::replace(&mut self.sessions[session].wakes, wakes);
        self.leases.remove(&(before, session));
        self.leases.insert((wakes, session));
    }

    /// The end of a connection proves nothing: its session lingers (rule S4).
    fn disconnect(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.detach(connection, self.now) else { return };
        let Session { ends, wakes, linger, .. } = self.sessions[session];
        if linger == Some(Duration::ZERO) {
            // Its client has chosen not to be waited for, and everything that it said is told.
            self.end_session(session, EndReason::Disconnected);
            self.settle();
            return;
        }
        if ends < wakes {
            self.reschedule(session, ends);
        }
        self.went_or_came(session);
        self.settle();
    }

    /// Ends a session in one step: it is gone, its waiters leave, its holds become free (rule S6): at
    /// once if its client said goodbye, else when that is on record (rule G1). Whoever is next is
    /// found by [`LockTable::settle`], which the caller does not forget.
    pub(super) fn end_session(&mut self, key: SessionKey, reason: EndReason) {
        let lost = match reason {
            EndReason::Goodbye => None,
            // Who makes room in a grace period holds nothing.
            EndReason::Expired | EndReason::Displaced => Some(LostReason::Expired),
            EndReason::Disconnected => Some(LostReason::Disconnected),
        };
        let (holding, waiting): (Vec<_>, Vec<_>) = self.sessions[key]
            .requests
            .iter(&self.requests.arena)
            .partition(|request| self.requests[*request].is_held());
        let (held, waiting_count) = (holding.len(), waiting.len());
        // Those that wait go first: one may wait to convert what is held.
        for request in waiting {
            self.drop_silently(request);
        }
        let mut lock = None;
        for request in holding {
            match (self.requests[request].state, lost) {
                (State::Held { token }, Some(reason)) => {
                    lock = lock.or_else(|| self.first_lock(request));
                    let id = self.requests[request].id;
                    self.tell(key, id, News::Lost { token, reason });
                    self.happened(request, || Happening::Lost { token, reason });
                }
                (State::Held { .. }, None) => {
                    self.keep_locks(request);
                    self.drop_silently(request);
                }
                (State::Waiting { .. }, _) => {}
            }
        }
        let waiting = waiting_count;
        self.expired += u64::from(reason == EndReason::Expired);
        let Session { id, connection, wakes, newcomer, untold, .. } = self.sessions[key];
        self.untold_of_ended += untold.unwrap_or_default();
        self.leases.remove(&(wakes, key));
        if let Some(newcomer) = newcomer {
            self.newcomers.remove(&(newcomer, key));
        }
        self.sessions.end(key);
        if self.grace_until.is_some() {
            self.forfeited.insert(Forfeit::Session(id));
        }
        self.effects.push(Effect::Ended { session: id, connection, reason, held, waiting, lock });
        if self.sessions[key].requests.is_empty() {
            self.sessions.forget(key);
        } else {
            self.record(Forfeit::Session(id), AfterRecord::Session(key));
        }
    }

    /// The name of the first lock a request claims.
    fn first_lock(&self, request: RequestKey) -> Option<LockName> {
        let first = self.requests[request].first?;
        Some(self.locks[self.claims[first].lock].name.clone())
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
