//! Deferred work: the work that one event may cause is bounded, whatever is stored.
//!
//! An event does at once the work that its answer needs. Its other consequences are done in
//! *slices*: as far as [`SLICE_STEPS_MAX`] allows now, and the rest by the next events. Examples
//! are a queue of thousands that can be granted, thousands of leases that end together, and the
//! deadlock questions at the end of a grace period. Another is a session with thousands of waiting
//! requests that comes or goes. Until all is done, [`LockTable::next_deadline`] is now, so the
//! caller comes back with a tick as soon as it has listened to its clients once more.
//!
//! Deferring changes no answer. A lock that is still unsettled has a waiter at the head of its
//! queue, so later requests stand behind it (rule R3). A dead session that is still in the table is
//! granted nothing (rule S6).
//!
//! A *step* is a look at one claim, place or entry: about a tenth of a microsecond.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use serde::{Deserialize, Serialize};

use super::arena::{LockKey, RequestKey};
use super::deadlock::Answer;
use super::session::Outcome;
use super::{LockTable, News, Rejection};
use crate::types::{RequestId, SessionId, Ticket};

/// Steps after which an event puts off what need not be done at once. What it must do, it does however
/// many it took: a request has at most 64 claims, and a question at most
/// [`STEPS_MAX`](super::STEPS_MAX) steps. Only the end of a session goes on to its last claim,
/// of which `Limits::claims_per_session_max` bounds the number.
pub const SLICE_STEPS_MAX: u64 = 4_096;

/// What an entry among the deadlines costs that comes up, in steps.
pub(super) const REFILE_STEPS: u64 = 4;

/// What is put off, and what was done.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Deferred {
    /// Steps taken since the table began.
    steps: u64,
    /// What `steps` is when the slice of the event at hand is spent.
    slice_end: u64,
    /// Requests of owners that began to wait when nothing could be decided about deadlocks: each is
    /// yet to be asked about, the latest first.
    suspects: BTreeSet<(Ticket, RequestKey)>,
    /// Those that were asked about, and wait for others that wait for ever.
    only_wait: BTreeSet<(Ticket, RequestKey)>,
    /// Whether anybody was told of a deadlock since `only_wait` was asked about.
    is_anyone_told: bool,
    /// Sessions that went away or came back, of whose requests that is yet to be noted in queues, and
    /// from which request on.
    moved: VecDeque<(SessionId, RequestId)>,
    /// The place of the next lock to look at, while all are looked at: somebody may be granted.
    sweep: Option<usize>,
}

impl Deferred {
    /// Nothing is put off, and nothing was done.
    pub(super) const NOTHING: Self = Self {
        steps: 0,
        slice_end: SLICE_STEPS_MAX,
        suspects: BTreeSet::new(),
        only_wait: BTreeSet::new(),
        is_anyone_told: false,
        moved: VecDeque::new(),
        sweep: None,
    };

    /// Steps taken since the table began.
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// So many steps were taken.
    pub(super) fn charge(&mut self, steps: u64) {
        self.steps += steps;
    }

    /// An event begins.
    pub(super) fn begin(&mut self) {
        self.steps += 1;
        self.slice_end = self.steps + SLICE_STEPS_MAX;
    }

    /// Whether the event at hand has to put off what it can.
    pub(super) fn is_spent(&self) -> bool {
        self.steps >= self.slice_end
    }

    /// Whether somebody is yet to be asked about.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty() || !self.only_wait.is_empty()
    }

    /// Somebody is to be noted in queues as gone or back, from this request on.
    pub(super) fn mark_later(&mut self, session: SessionId, from: RequestId) {
        self.moved.push_back((session, from));
    }

    /// Whether somebody is yet to be noted in queues as gone or back.
    pub(super) fn has_moved(&self) -> bool {
        !self.moved.is_empty()
    }

    /// Who is to be noted next, unless the event at hand is to do no more.
    pub(super) fn next_moved(&mut self) -> Option<(SessionId, RequestId)> {
        if self.is_spent() { None } else { self.moved.pop_front() }
    }

    /// Whether all locks are being looked at.
    pub(super) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }
}

impl LockTable {
    /// Steps taken since the table began: what the work of an event is measured in.
    pub fn steps(&self) -> u64 {
        self.deferred.steps()
    }

    /// Whether something is put off.
    pub(super) fn has_deferred(&self) -> bool {
        let questions = self.deferred.has_suspects() && self.grace_until.is_none();
        let work = self.deferred.is_sweeping() || self.deferred.has_moved();
        questions || work || !self.unsettled.is_empty()
    }

    /// Does some of what was put off.
    pub(super) fn go_on(&mut self) {
        self.mark_moved();
        self.settle();
        self.sweep_on();
        if self.grace_until.is_none() {
            self.break_deadlocks();
        }
    }

    /// Somebody may be granted again: whoever waited for nothing else is.
    pub(super) fn retry_starved(&mut self) {
        if mem::take(&mut self.starved) {
            self.deferred.sweep = Some(0);
            self.sweep_on();
        }
    }

    /// Looks at the next locks, each once.
    fn sweep_on(&mut self) {
        while let Some(place) = self.deferred.sweep {
            if self.deferred.is_spent() {
                return;
            }
            self.deferred.charge(1);
            self.deferred.sweep = (place + 1 < self.locks.places_end()).then_some(place + 1);
            if let Some(lock) = self.locks.at_place(place) {
                self.unsettle(lock);
                self.settle();
            }
        }
    }

    /// A request begins to wait that cannot be asked about now.
    pub(super) fn suspect(&mut self, request: RequestKey) {
        if self.requests[request].owner().is_some() {
            self.deferred.suspects.insert((self.requests[request].ticket(), request));
        }
    }

    /// A request begins to wait, and only waits for others that wait for ever: if these are told, it
    /// may wait for itself as well.
    pub(super) fn ask_again(&mut self, request: RequestKey) {
        if self.deferred.has_suspects() {
            self.deferred.only_wait.insert((self.requests[request].ticket(), request));
        }
    }

    /// A request waits no longer.
    pub(super) fn suspect_no_more(&mut self, request: RequestKey) {
        if self.deferred.has_suspects() {
            let entry = (self.requests[request].ticket(), request);
            self.deferred.suspects.remove(&entry);
            self.deferred.only_wait.remove(&entry);
        }
    }

    /// In the grace period everybody came back in any order. Whoever waits for itself now is told,
    /// the latest first, as if they had come in the order of their tickets. Whoever only waits for
    /// others that do is asked again when they were told: it may wait for itself as well.
    pub(super) fn break_deadlocks(&mut self) {
        while !self.deferred.is_spent() {
            let Some((ticket, request)) = self.deferred.suspects.pop_last() else {
                let again = mem::take(&mut self.deferred.only_wait);
                if again.is_empty() || !mem::take(&mut self.deferred.is_anyone_told) {
                    return;
                }
                self.deferred.suspects = again;
                continue;
            };
            self.deferred.charge(1);
            match self.ask(request) {
                Answer::WaitsForItself(cycle) => {
                    self.deferred.is_anyone_told = true;
                    let rejection = Rejection::Deadlock { cycle };
                    let outcome = Outcome::Rejected(rejection.code());
                    self.finish(request, outcome, News::Rejected(rejection));
                    self.settle();
                }
                Answer::WaitsForOthers => {
                    self.deferred.only_wait.insert((ticket, request));
                }
                Answer::GoesOn => {}
            }
        }
    }

    /// Puts a lock back at the front of those that are to be settled: its turn goes on.
    pub(super) fn put_off(&mut self, lock: LockKey) {
        if !mem::replace(&mut self.locks[lock].is_unsettled, true) {
            self.unsettled.push_front(lock);
        }
    }
}
