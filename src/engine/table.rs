//! The lock table: where events arrive, time passes, and sessions end. Sessions begin in
//! `attach.rs`. Requests live in `grant.rs`, `convert.rs` and `revoke.rs`, and wait in `place.rs`.
//! Deadlocks are found in `deadlock.rs`. Restarts are in `grace.rs`, `forfeit.rs` and
//! `snapshot.rs`.

use std::mem;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::arena::{RequestKey, SessionKey};
use super::claim::ClaimArena;
use super::deadlines::{Deadlines, Due};
use super::deferred::{Deferred, REFILE_STEPS};
use super::event::Event;
use super::grace_period::GracePeriod;
use super::lock::Locks;
use super::owner::Owners;
use super::pause::Kept;
use super::records::{AfterRecord, Records};
use super::request::{Requests, State};
use super::request_event::Audience;
use super::session::{Outcome, Session, Sessions};
use super::tally::Tally;
use super::this_run::ThisRun;
use super::tokens::Tokens;
use super::{Effect, EndReason, Forfeit, Rejection, RequestEvent, Start};
use crate::engine::seed::Seed;
use crate::types::{
    ConnectionId, Epoch, FencingToken, Limits, LockName, LostReason, RequestId, SessionId,
    Timestamp,
};

/// All locks, all who hold them and all who wait, and the rules by which they change.
///
/// An image of a table has all fields in their order, without a name. To move one, here or in what
/// they hold, changes the format of the journal's checkpoints (its `rules`).
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
    /// Sessions, with their leases.
    pub(super) sessions: Sessions,
    /// Owners of requests, within a session.
    pub(super) owners: Owners,
    /// Requests, which wait or hold.
    pub(super) requests: Requests,
    /// The requests' claims, each in one lock's queue or among its holders.
    pub(super) claims: ClaimArena,
    /// Locks in use, by name.
    pub(super) locks: Locks,
    /// How many of those are kept, or will be.
    pub(super) kept: Kept,
    /// The counter behind the fencing tokens.
    pub(super) tokens: Tokens,
    /// When leases, timeouts, delays and the grace period end.
    pub(super) deadlines: Deadlines,
    /// Deferred work, and the steps done so far.
    pub(super) deferred: Deferred,
    /// The grace period, if there is one, and who may not reclaim in it.
    pub(super) grace: GracePeriod,
    /// Forfeits that are on record, and those on their way there.
    pub(super) records: Records,
    /// Sessions that wait for the disk to be welcomed.
    pub(super) unwelcomed: Vec<SessionId>,
    /// Where this run begins, what it counts, and which proofs of earlier ones count.
    pub(super) this_run: ThisRun,
    /// Whether nothing new is accepted.
    pub(super) draining: bool,
    /// The latest moment that was told. Never goes back.
    pub(super) now: Timestamp,
    /// The moment by which everything that clients had said was told: a lease that ended by then is
    /// over (rule T4). Never goes back, and never after `now`.
    pub(super) heard: Timestamp,
    /// Effects of the event at hand: the caller's own buffer, while it is handled.
    #[serde(skip)]
    pub(super) effects: Vec<Effect>,
    /// Watchers and listeners.
    #[serde(skip)]
    pub(super) audience: Audience,
    /// How many requests hold. The others wait.
    pub(super) held: usize,
    /// How many grants there were.
    pub(super) grants: u64,
    /// How many leases ended because nothing was heard.
    pub(super) expired: u64,
    /// Counts of everything else.
    #[serde(skip)]
    pub(super) tally: Tally,
}

/// The shell promises to call [`LockTable::handle`] at least this often while there are sessions, or
/// some may come back from before a crash. If it comes later than that by more than `STALL_MIN`, the
/// coordinator itself stood still, and nobody could be heard (rule T3).
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A shorter stall is not one: a quarter of the shortest lease.
const STALL_MIN: Duration = Duration::from_millis(500);

/// How much of everything there is now, and was since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
            deadlines: Deadlines::default(),
            deferred: Deferred::NOTHING,
            grace: GracePeriod::default(),
            records: Records::default(),
            unwelcomed: Vec::new(),
            this_run: ThisRun::new(
                start.first_token,
                start.durable.epoch,
                start.durable.settled,
                start.past.snapshot.is_none().then_some(start.durable.epoch),
            ),
            draining: false,
            now,
            heard: now,
            effects: Vec::new(),
            audience: Audience::default(),
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
        debug_assert!(self.effects.is_empty(), "what came of an event before is not told");
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
            Event::Withdraw { session, request } => self.withdraw(session, request),
            Event::Withhold => self.deferred.withhold(),
            Event::Proceed => self.proceed(),
            Event::Began(ref run) => self.go_on_in(run),
            Event::Hold(ref hold) => self.hold_unattended(hold),
            Event::Prolong(ref prolong) => self.prolong(prolong),
            Event::Drop { session } => self.drop_unattended(session),
            Event::Tick { heard } => {
                self.heard = self.heard.max(heard.min(self.now));
                self.expire_due();
            }
        }
        self.tell_watchers();
        if let Some(durable) = self.tokens.wanted() {
            self.effects.push(Effect::Persist(durable));
        }
        if effects.is_empty() {
            // What holds them is used again.
            mem::swap(&mut self.effects, effects);
        } else {
            effects.append(&mut self.effects);
        }
    }

    /// When [`Event::Tick`] is to be told, at the latest: by then, or as soon after it as everything is
    /// told that clients had said.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.has_deferred() {
            return Some(self.now);
        }
        let heartbeat = self.expects_somebody().then(|| self.now.after(HEARTBEAT));
        let due = if self.deferred.withholds() {
            self.deadlines.next_lease()
        } else {
            self.deadlines.next()
        };
        [due, heartbeat].into_iter().flatten().min()
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

    /// Lets happen what is due. Dead sessions leave first, all of them, so that none is granted
    /// what another leaves (rule S6). Then the living are granted what became free. Only then do
    /// those time out who still wait.
    fn expire_due(&mut self) {
        while let Some(session) = self.deadlines.lease_due(self.heard) {
            if self.deferred.is_spent() {
                return;
            }
            let is_unattended = self.sessions[session].unattended.is_some();
            if is_unattended {
                self.end_unattended_or_later(session);
            } else if self.sessions[session].is_kept_waiting() {
                self.sessions[session].renew(self.now);
            }
            let ends = self.sessions[session].ends;
            // Also the end of a session that has nothing is work.
            self.deferred.charge(REFILE_STEPS);
            if ends > self.heard {
                self.reschedule(session, ends);
            } else if is_unattended {
                self.expire_unattended(session);
            } else {
                let reason = self.sessions[session].end_reason();
                self.end_session(session, reason);
            }
        }
        self.settle();
        while let Some((at, due)) = self.deadlines.timeout_due(self.heard) {
            // Who might be granted what it waits for does not time out before that is known.
            if self.deferred.is_spent() || self.deferred.withholds() {
                return;
            }
            self.deferred.charge(1);
            match due {
                Due::Timeout(request) => self.time_out(request),
                Due::Delay(lock) => {
                    self.deadlines.remove(at, due);
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
        self.deadlines.has_leases() || self.grace.is_on()
    }

    /// If the coordinator itself stood still, nobody could be heard, and nobody is to blame. Leases
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
        if let Some(until) = self.grace.until() {
            self.set_grace(until.after(late));
        }
    }

    /// Has the session looked at at `wakes`, not when it was going to be.
    pub(super) fn reschedule(&mut self, session: SessionKey, wakes: Timestamp) {
        let before = mem::replace(&mut self.sessions[session].wakes, wakes);
        self.deadlines.remove_lease(before, session);
        self.deadlines.add_lease(wakes, session);
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

    /// Ends a session in one step: it is gone, its waiters leave, its holds become free (rule S6).
    /// That is at once if its client said goodbye, else when it is on record (rule G1). Whoever is
    /// next is found by [`LockTable::settle`], which the caller does not forget.
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
                    self.tell(key, id, RequestEvent::Lost { token, reason });
                    self.happened(request, || RequestEvent::Lost { token, reason });
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
        self.audience.untold_of_ended += untold.unwrap_or_default();
        self.deadlines.remove_lease(wakes, key);
        if let Some(newcomer) = newcomer {
            self.this_run.remove_newcomer(newcomer, key);
        }
        self.sessions.end(key);
        self.grace.forfeit(Forfeit::Session(id));
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
            self.finish_and_leave(request, outcome, RequestEvent::Rejected(Rejection::Draining));
        }
        self.settle();
    }

    /// An event of a request, told to its client if that has a connection.
    pub(super) fn tell(&mut self, session: SessionKey, request: RequestId, event: RequestEvent) {
        let Session { id, connection, .. } = self.sessions[session];
        self.effects.push(Effect::Tell { connection, session: id, request, event });
    }
}
