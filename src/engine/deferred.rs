//! Deferred work: what events have put off, and how much they did. The rules are in `catch_up.rs`.

use std::collections::{BTreeSet, VecDeque};
use std::mem;

use serde::{Deserialize, Serialize};

use super::arena::{LockKey, RequestKey};
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
    /// Locks that something left, whose queue is to be looked at before the event is over.
    unsettled: VecDeque<LockKey>,
    /// Whether a request could have been granted had there been a token, or no grace period.
    is_starved: bool,
    /// Steps taken since the table began.
    steps: u64,
    /// The value of `steps` at which the slice of the event at hand is spent.
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
    /// Whether queues are not looked at, for what waits in them may not be allowed any more.
    is_withholding: bool,
}

impl Deferred {
    /// Nothing is put off, and nothing was done.
    pub(super) const NOTHING: Self = Self {
        unsettled: VecDeque::new(),
        is_starved: false,
        steps: 0,
        slice_end: SLICE_STEPS_MAX,
        suspects: BTreeSet::new(),
        only_wait: BTreeSet::new(),
        is_anyone_told: false,
        moved: VecDeque::new(),
        sweep: None,
        is_withholding: false,
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

    /// A lock's queue is to be looked at before the event is over.
    pub(super) fn settle_later(&mut self, lock: LockKey) {
        self.unsettled.push_back(lock);
    }

    /// A lock's queue is to be looked at before all others: its turn goes on.
    pub(super) fn settle_first(&mut self, lock: LockKey) {
        self.unsettled.push_front(lock);
    }

    /// The next lock whose queue is to be looked at, unless the event at hand is to do no more.
    pub(super) fn next_unsettled(&mut self) -> Option<LockKey> {
        if self.unsettled.is_empty() || self.is_spent() || self.is_withholding {
            return None;
        }
        self.unsettled.pop_front()
    }

    /// Whether there is a lock whose queue is to be looked at.
    pub(super) fn has_unsettled(&self) -> bool {
        !self.unsettled.is_empty()
    }

    /// No queue is looked at from now on.
    pub(super) fn withhold(&mut self) {
        self.is_withholding = true;
    }

    /// They are looked at again.
    pub(super) fn withhold_no_more(&mut self) {
        self.is_withholding = false;
    }

    /// Whether queues are not looked at.
    pub(super) fn withholds(&self) -> bool {
        self.is_withholding
    }

    /// A request could be granted, if there were a token, and no grace period.
    pub(super) fn starve(&mut self) {
        self.is_starved = true;
    }

    /// Whether a request could have been granted since this was asked the last time.
    pub(super) fn take_starved(&mut self) -> bool {
        mem::take(&mut self.is_starved)
    }

    #[cfg(test)]
    pub(super) fn is_starved(&self) -> bool {
        self.is_starved
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

    /// All locks are to be looked at, from the first place on.
    pub(super) fn begin_sweep(&mut self) {
        self.sweep = Some(0);
    }

    /// The place of the next lock to look at, if all are being looked at.
    pub(super) fn next_to_sweep(&self) -> Option<usize> {
        self.sweep
    }

    /// The lock at a place is being looked at. No lock has a place at or after `end`.
    pub(super) fn swept(&mut self, place: usize, end: usize) {
        self.sweep = (place + 1 < end).then_some(place + 1);
    }

    /// A request is yet to be asked about.
    pub(super) fn suspect(&mut self, ticket: Ticket, request: RequestKey) {
        self.suspects.insert((ticket, request));
    }

    /// A request was asked about, and only waits for others that wait for ever.
    pub(super) fn only_waits(&mut self, ticket: Ticket, request: RequestKey) {
        self.only_wait.insert((ticket, request));
    }

    /// A request need not be asked about any more.
    pub(super) fn clear(&mut self, ticket: Ticket, request: RequestKey) {
        self.suspects.remove(&(ticket, request));
        self.only_wait.remove(&(ticket, request));
    }

    /// Somebody is told of a deadlock: whoever only waits for others is to be asked about again.
    pub(super) fn somebody_is_told(&mut self) {
        self.is_anyone_told = true;
    }

    /// Who is to be asked about next, the latest first, unless the event at hand is to do no more.
    pub(super) fn next_suspect(&mut self) -> Option<(Ticket, RequestKey)> {
        while !self.is_spent() {
            if let Some(suspect) = self.suspects.pop_last() {
                return Some(suspect);
            }
            let again = mem::take(&mut self.only_wait);
            if again.is_empty() || !mem::take(&mut self.is_anyone_told) {
                return None;
            }
            self.suspects = again;
        }
        None
    }
}
