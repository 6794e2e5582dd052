//! Deadlocks: owners who wait for each other in a circle (rule R7).
//!
//! An owner gives back what it holds only when all that it asked for is granted. So the question
//! about a request that begins to wait is: *if its owner never gave anything back, would the request
//! itself never be granted?* Then it never will be, and is rejected; nobody else is touched. If not,
//! nobody waits for ever because of it, for there was no deadlock before.
//!
//! The answer is found from the owner outwards. What it holds is *pinned*. A waiter that does not fit
//! beside what is pinned is *stuck*, and so is everybody behind it in the queue, for nobody overtakes
//! (rule R3), and in its other queues (rule R5). The owner of a stuck request is pinned in turn. Each
//! step follows from the ones before, and remembers from which: if the request that is asked about
//! turns out to be stuck, the way back is the cycle.
//!
//! That is exact for every mode, as all modes are shares of a capacity: shared holders pin a share
//! that other shared claims fit beside, permits pin no more than they take.
//!
//! *Cost.* None for a request whose owner has nothing else, and so for all requests without an owner.
//! Otherwise it grows with those who depend on the owner, and not with the length of queues: a waiter
//! without an owner and with one claim holds nothing that others could wait for, so only the others,
//! the *entangled*, are visited. [`STEPS_MAX`] bounds it; beyond that the request waits.
//!
//! In a grace period, holders and waiters come back one by one, and nothing is decided; at its end
//! all are asked about, the latest first.
//!
//! R. C. Holt, *Some Deadlock Properties of Computer Systems* (1972), calls the method reduction.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use super::arena::{ClaimKey, LockKey, OwnerKey, RequestKey};
use super::lock::{ClaimNode, share};
use super::request::State;
use super::session::Outcome;
use super::{CYCLE_TOLD_MAX, CycleLink, LockTable, News, Rejection};
use crate::types::{FencingToken, Ticket};

/// So many claims are looked at for one request: about a millisecond. Whoever builds a circle that is
/// larger waits in it until a timeout ends.
pub const STEPS_MAX: usize = 16_384;

impl<S: BuildHasher + Clone> LockTable<S> {
    /// An owner that holds a lock already must leave itself room for more of it: it would wait for
    /// itself.
    pub(super) fn check_own_holds(&self, request: RequestKey) -> Result<(), Rejection> {
        let Some(owner) = self.requests[request].owner else { return Ok(()) };
        if self.owners[owner].requests.len() == 1 {
            return Ok(());
        }
        for claim in self.claims_of(request) {
            let ClaimNode { lock: key, mode, .. } = self.claims[claim];
            let lock = &self.locks[key];
            let converted = self.converted_share(request, key);
            if share(mode) + lock.taken() - converted <= lock.shape.capacity() {
                continue;
            }
            let (held, token) = self.held_by(owner, key);
            if let Some(token) = token
                && share(mode) + held - converted > lock.shape.capacity()
            {
                return Err(Rejection::AlreadyHeld { lock: lock.name.clone(), token });
            }
        }
        Ok(())
    }

    /// How much of a lock an owner holds, and the latest token with which it does.
    fn held_by(&self, owner: OwnerKey, lock: LockKey) -> (u64, Option<FencingToken>) {
        let holders = &self.locks[lock].holders;
        let requests = &self.owners[owner].requests;
        let (mut held, mut latest) = (0, None);
        let mut add = |request: RequestKey, share: u64| {
            if let State::Held { token } = self.requests[request].state
                && share > 0
            {
                held += share;
                latest = latest.max(Some(token));
            }
        };
        // Whichever are fewer.
        if holders.len() <= requests.len() {
            for claim in holders.iter(&self.claims) {
                let ClaimNode { request, mode, .. } = self.claims[claim];
                if self.requests[request].owner == Some(owner) {
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

    /// Who would wait for whom for ever, if this request, which has just entered its queues, waited
    /// in them; none if nobody would.
    pub(super) fn find_deadlock(&self, request: RequestKey) -> Option<Vec<CycleLink>> {
        if self.grace_until.is_some() || self.is_alone(request) {
            return None;
        }
        let mut inquiry = Inquiry::new(self, request);
        inquiry.run().then(|| inquiry.cycle())
    }

    /// Whether its owner has nothing else.
    fn is_alone(&self, request: RequestKey) -> bool {
        self.requests[request].owner.is_none_or(|owner| self.owners[owner].requests.len() == 1)
    }

    /// In the grace period everybody came back in any order. Whoever waits for itself now is told,
    /// the latest first, as if they had come in the order of their tickets.
    pub(super) fn break_deadlocks(&mut self) {
        let waits = |key: &RequestKey| !self.requests[*key].is_held() && !self.is_alone(*key);
        let mut suspects: Vec<(Ticket, RequestKey)> =
            self.requests.keys().filter(waits).map(|k| (self.requests[k].ticket, k)).collect();
        suspects.sort_unstable();
        for (_, request) in suspects.into_iter().rev() {
            if let Some(cycle) = self.find_deadlock(request) {
                let rejection = Rejection::Deadlock { cycle };
                let outcome = Outcome::Rejected(rejection.code());
                self.finish(request, outcome, News::Rejected(rejection));
            }
        }
    }
}

/// Who gives back, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// An owner of several requests, perhaps.
    Owner(OwnerKey),
    /// A request that is an owner of its own.
    Alone(RequestKey),
}

/// Why a request is stuck.
#[derive(Clone, Copy, Debug)]
struct Stuck {
    /// Where.
    lock: LockKey,
    /// Because of whom: a holder that is pinned, or a waiter ahead.
    behind: RequestKey,
}

/// What is pinned of a lock.
#[derive(Clone, Debug, Default)]
struct Pinned {
    /// How much.
    share: u64,
    /// By whom, the first two: one of them may be what the waiter in question converts.
    by: Vec<RequestKey>,
    /// From here on everybody in the queue is stuck, by the queue's order.
    stuck_from: Option<(bool, Ticket)>,
    /// Whether it waits to be looked at.
    is_open: bool,
}

/// The question about one request.
struct Inquiry<'a, S> {
    table: &'a LockTable<S>,
    /// The request that is asked about.
    suspect: RequestKey,
    /// Who gives nothing back, and because of which stuck request; none: it is the suspect's owner.
    pinned: HashMap<Who, Option<RequestKey>, S>,
    /// The requests that are never granted.
    stuck: HashMap<RequestKey, Stuck, S>,
    /// What is known of locks.
    locks: HashMap<LockKey, Pinned, S>,
    /// The locks to look at.
    open: VecDeque<LockKey>,
    /// How many claims may still be looked at.
    steps_left: usize,
}

impl<'a, S: BuildHasher + Clone> Inquiry<'a, S> {
    fn new(table: &'a LockTable<S>, suspect: RequestKey) -> Self {
        let hasher = table.locks.hasher();
        Self {
            table,
            suspect,
            pinned: HashMap::with_hasher(hasher.clone()),
            stuck: HashMap::with_hasher(hasher.clone()),
            locks: HashMap::with_hasher(hasher),
            open: VecDeque::new(),
            steps_left: STEPS_MAX,
        }
    }

    /// Whether the suspect is stuck.
    fn run(&mut self) -> bool {
        self.pin(self.who(self.suspect), None);
        while let Some(lock) = self.open.pop_front() {
            self.look_at(lock);
            if self.stuck.contains_key(&self.suspect) {
                return true;
            }
            if self.steps_left == 0 {
                return false;
            }
        }
        false
    }

    fn who(&self, request: RequestKey) -> Who {
        self.table.requests[request].owner.map_or(Who::Alone(request), Who::Owner)
    }

    /// Takes a step; false if none is left.
    fn step(&mut self) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        self.steps_left > 0
    }

    /// Somebody gives nothing back: what it holds is pinned, and the queues that it is in are to be
    /// looked at, for what it is granted there stays pinned too.
    fn pin(&mut self, who: Who, because: Option<RequestKey>) {
        if self.pinned.contains_key(&who) {
            return;
        }
        self.pinned.insert(who, because);
        let table = self.table;
        match who {
            Who::Alone(request) => self.pin_claims(request),
            Who::Owner(owner) => {
                for request in table.owners[owner].requests.iter(&table.requests.arena) {
                    self.pin_claims(request);
                }
            }
        }
    }

    fn pin_claims(&mut self, request: RequestKey) {
        let table = self.table;
        let is_held = table.requests[request].is_held();
        for claim in table.claims_of(request) {
            if !self.step() {
                return;
            }
            let ClaimNode { lock, mode, .. } = table.claims[claim];
            let known = self.locks.entry(lock).or_default();
            if is_held {
                known.share += share(mode);
                if known.by.len() < 2 {
                    known.by.push(request);
                }
            }
            if !std::mem::replace(&mut known.is_open, true) {
                self.open.push_back(lock);
            }
        }
    }

    /// A request is never granted, so its owner gives nothing back, and it keeps its places in
    /// queues.
    fn mark_stuck(&mut self, request: RequestKey, why: Stuck) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.stuck.entry(request) {
            entry.insert(why);
            self.pin(self.who(request), Some(request));
            // If it was pinned before, its other queues were not yet looked at as those of a stuck one.
            for claim in self.table.claims_of(request) {
                let lock = self.table.claims[claim].lock;
                let known = self.locks.entry(lock).or_default();
                if lock != why.lock && !std::mem::replace(&mut known.is_open, true) {
                    self.open.push_back(lock);
                }
            }
        }
    }

    /// Finds the first in a lock's queue that is stuck; everybody behind it is too.
    fn look_at(&mut self, lock: LockKey) {
        let Some(known) = self.locks.get_mut(&lock) else { return };
        known.is_open = false;
        let (mut taken, mut by, known_from) = (known.share, known.by.clone(), known.stuck_from);
        let queue = &self.table.locks[lock].queue;
        let capacity = self.table.locks[lock].shape.capacity();
        // Those who are not entangled matter only if one of them might not fit.
        let all_matter = |taken: u64| taken > 0 && taken + queue.share_max() > capacity;
        let mut next = if all_matter(taken) { queue.head() } else { queue.entangled().head() };
        while let Some(claim) = next {
            let ClaimNode { request, mode, .. } = self.table.claims[claim];
            let rank = self.table.rank(request);
            if known_from.is_some_and(|from| rank >= from) || !self.step() {
                return;
            }
            let converted =
                self.table.requests[request].partner.filter(|_| self.is_pinned(request));
            let given_back = converted.map_or(0, |held| self.table.share_of(held, lock));
            let ahead = by.iter().copied().find(|one| Some(*one) != converted);
            if self.stuck.contains_key(&request) {
                return self.all_stuck_behind(lock, claim);
            }
            if taken - given_back + share(mode) > capacity
                && let Some(behind) = ahead
            {
                self.mark_stuck(request, Stuck { lock, behind });
                return self.all_stuck_behind(lock, claim);
            }
            if self.is_pinned(request) {
                // It is granted, and keeps what it is granted.
                taken = taken - given_back + share(mode);
                by.retain(|one| Some(*one) != converted);
                by.push(request);
            }
            next = if all_matter(taken) {
                self.table.claims[claim].next()
            } else {
                self.next_entangled(claim)
            };
        }
    }

    fn is_pinned(&self, request: RequestKey) -> bool {
        self.pinned.contains_key(&self.who(request))
    }

    /// The next of the entangled after any claim in a queue.
    fn next_entangled(&self, claim: ClaimKey) -> Option<ClaimKey> {
        let node = &self.table.claims[claim];
        if self.table.is_entangled(node.request) {
            return node.next_entangled();
        }
        let rank = self.table.rank(node.request);
        let entangled = self.table.locks[node.lock].queue.entangled();
        let is_behind =
            |other: &ClaimKey| self.table.rank(self.table.claims[*other].request) > rank;
        entangled.iter(&self.table.claims).find(is_behind)
    }

    /// Nobody behind a stuck claim is granted before it.
    fn all_stuck_behind(&mut self, lock: LockKey, first: ClaimKey) {
        let behind = self.table.claims[first].request;
        let from = self.table.rank(behind);
        let known_from = self.locks.entry(lock).or_default().stuck_from.replace(from);
        let mut next = self.next_entangled(first);
        while let Some(claim) = next {
            let request = self.table.claims[claim].request;
            let rank = self.table.rank(request);
            if known_from.is_some_and(|from| rank >= from) || !self.step() {
                return;
            }
            self.mark_stuck(request, Stuck { lock, behind });
            next = self.next_entangled(claim);
        }
    }

    /// The way back from the suspect, over those because of whom each is stuck, to its own owner.
    fn cycle(&self) -> Vec<CycleLink> {
        let mut cycle = Vec::new();
        let suspects = self.who(self.suspect);
        let mut next = Some(self.suspect);
        while let Some(request) = next
            && cycle.len() < CYCLE_TOLD_MAX
            && let Some(&Stuck { lock, behind }) = self.stuck.get(&request)
        {
            cycle.push(self.link(request, lock, behind));
            let who = self.who(behind);
            next = match self.pinned.get(&who) {
                _ if who == suspects => None,
                _ if self.stuck.contains_key(&behind) => Some(behind),
                Some(because) => *because,
                None => None,
            };
        }
        cycle
    }

    fn link(&self, request: RequestKey, lock: LockKey, behind: RequestKey) -> CycleLink {
        let table = self.table;
        let live = &table.requests[request];
        let session = &table.sessions[live.session];
        // Of one that waits to convert what it holds, that it holds it is what matters.
        let other = &table.requests[behind];
        let holder = if other.is_held() {
            Some(other)
        } else {
            other.partner.map(|held| &table.requests[held])
        };
        let held_with = match holder.map(|held| held.state) {
            Some(State::Held { token }) => Some(token),
            Some(State::Waiting { .. }) | None => None,
        };
        CycleLink {
            session: session.id,
            identity: session.identity.clone(),
            owner: table.owner_of(request),
            request: live.id,
            lock: table.locks[lock].name.clone(),
            held_with,
        }
    }
}

#[cfg(test)]
mod tests;
