//! Deferred work: the work that one event may cause is bounded, whatever is stored.
//!
//! An event does at once the work that its answer needs. Its other consequences are done in
//! *slices*: as far as [`SLICE_STEPS_MAX`](super::SLICE_STEPS_MAX) allows now, and the rest by the
//! next events. Examples are a queue of thousands that can be granted, thousands of leases that end
//! together, and deadlock questions after a grace period. Another is a session with thousands of
//! waiting requests that comes or goes. Until all is done, [`LockTable::next_deadline`] is now. So
//! the caller comes back with a tick as soon as it has listened to its clients once more.
//!
//! Deferring changes no answer. A lock that is still unsettled has a waiter at the head of its
//! queue, so later requests stand behind it (rule R3). A dead session that is still in the table is
//! granted nothing (rule S6).
//!
//! A *step* is a look at one claim, place or entry: about a tenth of a microsecond.

use std::mem;

use super::arena::{LockKey, RequestKey};
use super::deadlock::Answer;
use super::session::Outcome;
use super::{LockTable, Rejection, RequestEvent};

impl LockTable {
    /// Steps taken since the table began: what the work of an event is measured in.
    pub fn steps(&self) -> u64 {
        self.deferred.steps()
    }

    /// Whether something is put off.
    pub(super) fn has_deferred(&self) -> bool {
        let questions = self.deferred.has_suspects() && !self.grace.is_on();
        let queues = self.deferred.is_sweeping() || self.deferred.has_unsettled();
        questions || self.deferred.has_moved() || queues && !self.deferred.withholds()
    }

    /// Does some of what was put off.
    pub(super) fn go_on(&mut self) {
        self.mark_moved();
        self.settle();
        self.sweep_on();
        if !self.grace.is_on() {
            self.break_deadlocks();
        }
    }

    /// Somebody may be granted again: whoever waited for nothing else is.
    pub(super) fn retry_starved(&mut self) {
        if self.deferred.take_starved() {
            self.deferred.begin_sweep();
            self.sweep_on();
        }
    }

    /// Looks at the next locks, each once.
    fn sweep_on(&mut self) {
        while let Some(place) = self.deferred.next_to_sweep() {
            if self.deferred.is_spent() || self.deferred.withholds() {
                return;
            }
            self.deferred.charge(1);
            self.deferred.swept(place, self.locks.places_end());
            if let Some(lock) = self.locks.at_place(place) {
                self.unsettle(lock);
                self.settle();
            }
        }
    }

    /// A request begins to wait that cannot be asked about now.
    pub(super) fn suspect(&mut self, request: RequestKey) {
        if self.requests[request].owner().is_some() {
            self.deferred.suspect(self.requests[request].ticket(), request);
        }
    }

    /// A request begins to wait, and only waits for others that wait for ever: if these are told, it
    /// may wait for itself as well.
    pub(super) fn ask_again(&mut self, request: RequestKey) {
        if self.deferred.has_suspects() {
            self.deferred.only_waits(self.requests[request].ticket(), request);
        }
    }

    /// A request waits no longer.
    pub(super) fn suspect_no_more(&mut self, request: RequestKey) {
        if self.deferred.has_suspects() {
            self.deferred.clear(self.requests[request].ticket(), request);
        }
    }

    /// In the grace period everybody came back in any order. Whoever waits for itself now is told,
    /// the latest first, as if they had come in the order of their tickets. Whoever only waits for
    /// others that do is asked again when they were told: it may wait for itself as well.
    pub(super) fn break_deadlocks(&mut self) {
        while let Some((ticket, request)) = self.deferred.next_suspect() {
            self.deferred.charge(1);
            match self.ask(request) {
                Answer::WaitsForItself(cycle) => {
                    self.deferred.somebody_is_told();
                    let rejection = Rejection::Deadlock { cycle };
                    let outcome = Outcome::Rejected(rejection.code());
                    self.finish(request, outcome, RequestEvent::Rejected(rejection));
                    self.settle();
                }
                Answer::WaitsForOthers => self.deferred.only_waits(ticket, request),
                Answer::GoesOn => {}
            }
        }
    }

    /// Puts a lock back at the front of those that are to be settled: its turn goes on.
    pub(super) fn put_off(&mut self, lock: LockKey) {
        if !mem::replace(&mut self.locks[lock].is_unsettled, true) {
            self.deferred.settle_first(lock);
        }
    }
}
