//! The place of a waiting request in the queues of all its locks, and the messages about it. After
//! a crash, a ticket names the place.

use std::mem;

use super::arena::{LockKey, RequestKey};
use super::claim::ClaimNode;
use super::deadlines::Due;
use super::queue::WaiterFlags;
use super::request::{Live, Rank, State};
use super::session::Outcome;
use super::session::Presence;
use super::{LockTable, Rejection, RequestEvent};
use crate::types::{Ticket, Timestamp};

/// Changes of place are told to this many at the head of a queue. A waiter further back hears its
/// place when it enters, and again when it gets here. So a grant costs the same however long the
/// queue is (rule R9).
pub const PLACES_TOLD_MAX: usize = 64;

impl LockTable {
    /// A queue has a limit. Who comes back to its place was let in before, and finds room where a
    /// newcomer stands.
    pub(super) fn check_room_to_wait(
        &self,
        request: RequestKey,
        kept: Option<Ticket>,
    ) -> Result<(), Rejection> {
        let mut locks = self.claims_of(request).map(|claim| self.claims[claim].lock);
        let has_room = |lock: LockKey| {
            !self.is_full(lock) || (kept.is_some() && self.last_newcomer(lock).is_some())
        };
        locks.find(|lock| !has_room(*lock)).map_or(Ok(()), |full| Err(self.too_many_waiters(full)))
    }

    fn is_full(&self, lock: LockKey) -> bool {
        self.locks.queue(lock).len() >= self.limits.waiters_per_lock_max
    }

    fn too_many_waiters(&self, lock: LockKey) -> Rejection {
        let max = self.limits.waiters_per_lock_max;
        Rejection::TooManyWaiters { lock: self.locks[lock].name.clone(), max }
    }

    /// The last in a lock's queue, if it began to wait in this run: if it did not, nobody did.
    fn last_newcomer(&self, lock: LockKey) -> Option<RequestKey> {
        let last = self.locks.queue(lock).tail()?;
        let request = self.claims[last].request;
        let live = &self.requests[request];
        let is_earlier = live.is_conversion() || self.this_run.is_later_than(live.ticket());
        (!is_earlier).then_some(request)
    }

    /// Where a request that comes back finds no room, the last of those who are new makes some.
    pub(super) fn displace_waiters(&mut self, request: RequestKey) {
        self.each_claim(self.requests[request].first, |table, _, lock| {
            while table.is_full(lock)
                && let Some(newcomer) = table.last_newcomer(lock)
            {
                let rejection = table.too_many_waiters(lock);
                let outcome = Outcome::Rejected(rejection.code());
                table.finish(newcomer, outcome, RequestEvent::Rejected(rejection));
            }
        });
    }

    /// Puts a request into the queues of all its locks, at the place that its ticket says: at the end,
    /// for tickets grow. But in a grace period some come back late, and a conversion goes first, behind
    /// other conversions.
    pub(super) fn wait_in_queues(
        &mut self,
        request: RequestKey,
        ticket: Ticket,
        deadline: Option<Timestamp>,
    ) {
        if let State::Waiting { ticket: has, deadline: ends, .. } =
            &mut self.requests[request].state
        {
            (*has, *ends) = (ticket, deadline);
        }
        let flags = self.flags(request);
        let Live { first, session, .. } = self.requests[request];
        let presence = self.sessions[session].presence();
        self.each_claim(first, |table, claim, lock| {
            let Self { locks, claims, requests, .. } = table;
            if locks.enter_queue(lock, claims, requests, claim, flags) {
                // The places behind it have changed.
                table.unsettle(lock);
            }
            if presence == Presence::Away {
                let Self { locks, claims, requests, .. } = table;
                locks.mark(lock, claims, requests, claim, presence);
            }
        });
        if let Some(at) = deadline {
            self.deadlines.add(at, Due::Timeout(request));
        }
        self.waits_for_more(request);
        if !self.may_grant() {
            self.deferred.starve();
        }
        if self.grace.is_on() {
            self.suspect(request);
        }
    }

    /// What queues have to know of a request.
    fn flags(&self, request: RequestKey) -> WaiterFlags {
        let live = &self.requests[request];
        let (told, converts) = (live.is_told(), live.is_conversion());
        let is_pair = converts && self.is_pair(request);
        let (entangled, supersedes) = (self.is_entangled(request), live.supersedes());
        WaiterFlags { told, entangled, converts, is_pair, supersedes }
    }

    /// Whether others may wait for something else than the lock because of it. The same as long as a
    /// request waits.
    pub(super) fn is_entangled(&self, request: RequestKey) -> bool {
        let live = &self.requests[request];
        live.owner().is_some()
            || live.first.is_some_and(|first| self.claims[first].sibling.is_some())
    }

    /// Whether a request waits in the queues of its locks.
    pub(super) fn is_in_queues(&self, request: RequestKey) -> bool {
        let first = self.requests[request].first;
        first.is_some_and(|first| self.claims[first].is_queued())
    }

    /// Where a request stands in queues.
    pub(super) fn rank(&self, request: RequestKey) -> Rank {
        self.requests.rank(request)
    }

    /// A request waits no longer, in any queue.
    pub(super) fn leave_queues(&mut self, request: RequestKey) {
        self.forget_timeout(request);
        self.suspect_no_more(request);
        let live = &self.requests[request];
        let (first, owner) = (live.first, live.owner());
        if let Some(owner) = owner
            && self.is_in_queues(request)
        {
            self.waits_for_less(request, owner);
        }
        let flags = self.flags(request);
        self.each_claim(first, |table, claim, lock| {
            if table.claims[claim].is_queued() {
                let Self { locks, claims, requests, .. } = table;
                locks.leave_queue(lock, claims, requests, claim, flags);
                table.unsettle(lock);
            }
        });
    }

    fn forget_timeout(&mut self, request: RequestKey) {
        if let State::Waiting { deadline: Some(at), .. } = self.requests[request].state {
            self.deadlines.remove(at, Due::Timeout(request));
        }
    }

    /// Counts the first places of a queue in which nobody is told of changes, and so nobody did.
    pub(super) fn count_places(&mut self, lock: LockKey) {
        if self.locks.queue(lock).has_listeners() {
            return;
        }
        let mut next = self.locks.queue(lock).head();
        for place in (1..).take(PLACES_TOLD_MAX) {
            let Some(claim) = next else { return };
            self.claims[claim].place = place;
            next = self.claims[claim].next();
        }
    }

    /// Tells those at the head of a queue their places, if they changed.
    pub(super) fn tell_places(&mut self, lock: LockKey) {
        if !self.locks.queue(lock).has_listeners() {
            return;
        }
        let mut next = self.locks.queue(lock).head();
        for place in (1..).take(PLACES_TOLD_MAX) {
            let Some(claim) = next else { return };
            let ClaimNode { request, .. } = self.claims[claim];
            if mem::replace(&mut self.claims[claim].place, place) != place
                && self.requests[request].is_told()
            {
                self.tell_place(request);
            }
            next = self.claims[claim].next();
        }
    }

    /// The worst of a waiting request's places.
    pub(super) fn worst_place(&self, request: RequestKey) -> u32 {
        self.claims_of(request).map(|claim| self.claims[claim].place).max().unwrap_or(0)
    }

    /// Tells a waiting request its place, if it changed.
    pub(super) fn tell_place(&mut self, request: RequestKey) {
        let position = self.worst_place(request);
        let Live { session, id, state, .. } = &mut self.requests[request];
        if let State::Waiting { ticket, told, .. } = state
            && mem::replace(told, position) != position
        {
            let (session, id, ticket) = (*session, *id, *ticket);
            self.tell(session, id, RequestEvent::Queued { position, ticket });
        }
    }
}
