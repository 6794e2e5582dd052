//! Deadlock detection: owners who wait for each other in a cycle (rule R7).
//!
//! An owner gives back its locks only when all that it asked for is granted. Everybody else does so
//! sooner or later. The engine therefore lets everybody go on, in thought (graph reduction). *Grant
//! what can be granted, in the order of the queues. Let those give back who have all they asked
//! for. Repeat until nothing changes. The remaining owners wait for ever.* The order of grants does
//! not matter: two grants could hinder each other only at the head of the same queue. The result is
//! exact for every mode, as all modes are shares of a capacity. The source is R. C. Holt, *Some
//! Deadlock Properties of Computer Systems* (1972).
//!
//! The question is asked about a request that begins to wait, and about a conversion, which goes
//! ahead of the waiters. Nobody waited for ever before it. If anybody does now, its owner does too,
//! and the request is rejected. Nobody else is touched.
//!
//! *Cost.* There is none for a request whose owner has nothing else, and so for all requests
//! without an owner. Otherwise it grows with those who *depend* on the owner. They wait for its
//! locks or behind it, and others wait in turn for theirs or behind them. Nobody else is looked at,
//! because they go on whatever the owner does. Most waiters of a queue hold nothing and want
//! nothing else. Only the *entangled* are visited, however long the queue is. [`STEPS_MAX`] bounds
//! it all. Beyond that the request waits.
//!
//! A disconnected waiter counts as waiting at its place, because it may return. Passing it over
//! closes no cycle: only an owner that waits for nothing else does so (`passing.rs`), and it gives
//! everything back.
//!
//! In a grace period, holders and waiters return one by one, and nothing is decided. After it all
//! are asked about, the latest first, a slice at a time (`catch_up.rs`). Some may then be in no
//! cycle themselves, but wait for one. They are left over too, but nobody has to be told for their
//! sake.

mod cycle;
mod inquiry;
#[cfg(test)]
mod tests;

use self::inquiry::Inquiry;
use super::arena::{LockKey, OwnerKey, RequestKey};
use super::claim::ClaimNode;
use super::request::State;
use super::shape::{Shape, fits, share};
use super::{LockTable, Rejection};
use crate::types::{CycleLink, FencingToken};

/// So many claims are looked at for one question: less than a millisecond, whatever is stored. Whoever
/// builds a circle that is larger waits in it until a timeout ends.
pub const STEPS_MAX: usize = 16_384;

/// What is known after a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// It goes on some day, as far as so many steps tell.
    GoesOn,
    /// It waits for ever, for others that wait for themselves.
    WaitsForOthers,
    /// It waits for ever, for itself, over these.
    WaitsForItself(Vec<CycleLink>),
}

impl LockTable {
    /// An owner that holds a lock already must leave itself room for more of it: it would wait for
    /// itself.
    pub(super) fn check_own_holds(&self, request: RequestKey) -> Result<(), Rejection> {
        let Some(owner) = self.requests[request].owner() else { return Ok(()) };
        if self.owners[owner].requests.len() == 1 {
            return Ok(());
        }
        for claim in self.claims_of(request) {
            let ClaimNode { lock: key, mode, .. } = self.claims[claim];
            let lock = &self.locks[key];
            let converted = self.converted_share(request, key);
            if lock.fits_instead(mode, converted) {
                continue;
            }
            let (held, token) = self.held_by(owner, key, self.requests[request].partner());
            if let Some(token) = token
                && !fits(mode, lock.shape, held)
            {
                return Err(Rejection::AlreadyHeld { lock: lock.name.clone(), token });
            }
        }
        Ok(())
    }

    /// How much of a lock an owner holds, and the latest token with which it does, not counting what
    /// is to be converted.
    fn held_by(
        &self,
        owner: OwnerKey,
        lock: LockKey,
        converted: Option<RequestKey>,
    ) -> (u64, Option<FencingToken>) {
        if let Some(holdings) = &self.owners[owner].holdings {
            let without = converted.and_then(|converted| self.requests[converted].token());
            let share = converted.map_or(0, |converted| self.share_of(converted, lock));
            let latest = holdings.tokens_of(lock).find(|token| Some(*token) != without);
            return (holdings.share_of(lock) - share, latest);
        }
        let holders = &self.locks[lock].holders;
        let requests = &self.owners[owner].requests;
        let (mut held, mut latest) = (0, None);
        let mut add = |request: RequestKey, share: u64| {
            if let State::Held { token } = self.requests[request].state
                && share > 0
                && Some(request) != converted
            {
                held += share;
                latest = latest.max(Some(token));
            }
        };
        // Whichever are fewer.
        if holders.len() <= requests.len() {
            for claim in holders.iter(&self.claims) {
                let ClaimNode { request, mode, .. } = self.claims[claim];
                if self.requests[request].owner() == Some(owner) {
                    add(request, share(mode));
                }
            }
        } else {
            for request in requests.iter(&self.requests.arena) {
                add(request, self.share_of(request, lock));
            }
        }
        (held, latest)
    }

    /// Who waits for whom for ever because of this request, which has just entered its queues; none
    /// if nobody does.
    pub(super) fn find_deadlock(&mut self, request: RequestKey) -> Option<Vec<CycleLink>> {
        match self.ask(request) {
            Answer::WaitsForItself(cycle) => Some(cycle),
            Answer::WaitsForOthers => {
                self.ask_again(request);
                None
            }
            Answer::GoesOn => None,
        }
    }

    /// Asks whether a request's owner waits for ever, as far as [`STEPS_MAX`] steps tell.
    pub(super) fn ask(&mut self, request: RequestKey) -> Answer {
        if self.goes_on_anyway(request) {
            return Answer::GoesOn;
        }
        let Some(mut inquiry) = self.inquiry(request) else { return Answer::GoesOn };
        let owner = inquiry.who(request);
        let answer = if !inquiry.run(owner) {
            Answer::GoesOn
        } else if let Some(cycle) = inquiry.cycle(owner, request) {
            Answer::WaitsForItself(cycle)
        } else if inquiry.steps_left > 0 {
            Answer::WaitsForOthers
        } else {
            Answer::GoesOn
        };
        let steps = STEPS_MAX - inquiry.steps_left;
        self.deferred.charge(steps as u64);
        answer
    }

    /// Whether it can be told without a question that a conversion goes on. Everybody before it
    /// converts for an owner that has nothing else. There is room for any of them beside all who
    /// might keep what they have. Then each is granted in its turn, and gives back. So thousands
    /// may convert permits of one semaphore, and none of them costs more than the first.
    fn goes_on_anyway(&self, request: RequestKey) -> bool {
        if !self.is_pair(request) {
            return false;
        }
        let Some(first) = self.requests[request].first else { return false };
        let key = self.claims[first].lock;
        let (lock, queue) = (&self.locks[key], self.locks.queue(key));
        queue.converts_pairs_only() && queue.all_fit(lock.shape, lock.owned())
    }

    #[cfg(test)]
    pub(super) fn waits_for_ever(&self, request: RequestKey) -> bool {
        let inquiry = self.inquiry(request);
        inquiry.is_some_and(|mut inquiry| inquiry.run(inquiry.who(request)))
    }

    /// The question whether a request's owner waits for ever; none where that is out of the question.
    fn inquiry(&self, request: RequestKey) -> Option<Inquiry<'_>> {
        let may_wait = !self.grace.is_on() && !self.is_alone(request);
        may_wait.then(|| Inquiry::new(self))
    }

    /// Whether its owner has nothing else.
    fn is_alone(&self, request: RequestKey) -> bool {
        self.requests[request].owner().is_none_or(|owner| self.owners[owner].requests.len() == 1)
    }

    /// Whether its owner has nothing else, and it is for one lock: then nobody waits for anything
    /// else because of it.
    fn has_nothing_else(&self, request: RequestKey) -> bool {
        let first = self.requests[request].first;
        self.is_alone(request) && first.is_some_and(|first| self.claims[first].sibling.is_none())
    }

    /// Whether those in a lock's queue who are not entangled matter. One of them might not fit
    /// beside those who have this much of it and use it as `shape`.
    fn all_matter(&self, lock: LockKey, shape: Shape, taken: u64) -> bool {
        !self.locks.queue(lock).all_fit(shape, taken)
    }
}
