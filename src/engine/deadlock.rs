//! Deadlocks: owners who wait for each other in a circle (rule R7).
//!
//! An owner gives back what it holds only when all that it asked for is granted. Everybody else does
//! so sooner or later. So whether anybody waits for ever can be found by letting that happen, in
//! thought: *grant what can be granted, in the order of the queues; let those give back who have all
//! they asked for; again, until nothing changes. Whoever is left over waits for ever.* The order does
//! not matter, for nothing that could be granted is kept from it by another grant: both would have to
//! stand at the head of the same queue. That is exact for every mode, as all modes are shares of a
//! capacity. R. C. Holt, *Some Deadlock Properties of Computer Systems* (1972), calls it reduction.
//!
//! It is asked about a request that begins to wait, and about a conversion, which goes ahead of those
//! who wait. Nobody waited for ever before it, so if anybody does now, its owner does too, and the
//! request is rejected; nobody else is touched.
//!
//! *Cost.* None for a request whose owner has nothing else, and so for all requests without an owner.
//! Otherwise it grows with those who *depend* on the owner: who wait for what it holds, or behind it,
//! and who in turn wait for what they hold, or behind them. All others need not be looked at: they go
//! on whatever the owner does. Of those in a queue, most hold nothing and want nothing else; only the
//! *entangled* are visited, however long the queue is. [`STEPS_MAX`] bounds it all; beyond that the
//! request waits.
//!
//! In a grace period, holders and waiters come back one by one, and nothing is decided; at its end
//! all are asked about, the latest first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use super::arena::{ClaimKey, LockKey, OwnerKey, RequestKey};
use super::lock::{ClaimNode, share};
use super::request::State;
use super::session::Outcome;
use super::{CYCLE_TOLD_MAX, CycleLink, LockTable, News, Rejection};
use crate::types::{FencingToken, Ticket};

/// So many claims are looked at for one request: less than a millisecond. Whoever builds a circle that is
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
            let (held, token) = self.held_by(owner, key, self.requests[request].partner);
            if let Some(token) = token
                && share(mode) + held > lock.shape.capacity()
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

    /// Who waits for whom for ever because of this request, which has just entered its queues; none
    /// if nobody does.
    pub(super) fn find_deadlock(&self, request: RequestKey) -> Option<Vec<CycleLink>> {
        if self.grace_until.is_some() || self.is_alone(request) {
            return None;
        }
        let owner = self.requests[request].owner?;
        let mut inquiry = Inquiry::new(self);
        let is_left_over = inquiry.run(Who::Owner(owner));
        is_left_over.then(|| inquiry.cycle(Who::Owner(owner), request))
    }

    /// Whether its owner has nothing else.
    fn is_alone(&self, request: RequestKey) -> bool {
        self.requests[request].owner.is_none_or(|owner| self.owners[owner].requests.len() == 1)
    }

    /// Whether its owner has nothing else, and it is for one lock: then nobody waits for anything
    /// else because of it.
    fn has_nothing_else(&self, request: RequestKey) -> bool {
        let first = self.requests[request].first;
        self.is_alone(request) && first.is_some_and(|first| self.claims[first].sibling.is_none())
    }

    /// Whether those in a lock's queue who are not entangled matter: one of them might not fit beside
    /// what is taken.
    fn all_matter(&self, lock: LockKey, taken: u64) -> bool {
        let lock = &self.locks[lock];
        taken > 0 && taken + lock.queue.share_max() > lock.shape.capacity()
    }

    /// The next of the entangled after any claim in a queue.
    fn next_entangled(&self, claim: ClaimKey) -> Option<ClaimKey> {
        let ClaimNode { lock, request, .. } = self.claims[claim];
        if self.is_entangled(request) {
            return self.claims[claim].next_entangled();
        }
        let is_behind =
            |other: &ClaimKey| self.rank(self.claims[*other].request) > self.rank(request);
        self.locks[lock].queue.entangled().iter(&self.claims).find(is_behind)
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

/// What is known of an owner that depends on the one in question.
#[derive(Clone, Copy, Debug, Default)]
struct Dependent {
    /// How many of its requests are not granted.
    waiting: usize,
}

/// What is known of a lock that dependents hold or wait for.
#[derive(Clone, Debug, Default)]
struct Known {
    /// How much of it dependents have, and did not give back.
    taken: u64,
    /// The requests that have it.
    by: Vec<RequestKey>,
    /// The first dependent in its queue. Everybody of the entangled behind it is one too.
    first: Option<ClaimKey>,
    /// How far its queue was granted: the first claim that was not, none at the end.
    next: Option<ClaimKey>,
    /// Whether `next` is known.
    is_begun: bool,
    /// Whether `next` was counted among the claims of its request that are next in line.
    is_counted: bool,
    /// Whether it is to be looked at.
    is_open: bool,
}

/// What is known of a dependent's request.
#[derive(Clone, Copy, Debug, Default)]
struct Thought {
    /// How many of its claims are next in line.
    next_in: usize,
    /// Whether it was granted, in thought.
    granted: bool,
    /// Whether it was converted, in thought.
    converted: bool,
}

/// Why one owner waits for another.
#[derive(Clone, Copy, Debug)]
struct Edge {
    /// Who waits.
    from: Who,
    /// The request by which it waits.
    request: RequestKey,
    /// Where.
    lock: LockKey,
    /// Because of which request of the other.
    behind: RequestKey,
}

/// The question whether an owner waits for ever.
struct Inquiry<'a, S> {
    table: &'a LockTable<S>,
    /// The owner, and those who depend on it.
    dependents: HashMap<Who, Dependent, S>,
    /// Their requests, as far as there is something to say.
    thoughts: HashMap<RequestKey, Thought, S>,
    /// What they hold and wait for.
    locks: HashMap<LockKey, Known, S>,
    /// The locks to look at.
    open: VecDeque<LockKey>,
    /// How many claims may still be looked at.
    steps_left: usize,
}

impl<'a, S: BuildHasher + Clone> Inquiry<'a, S> {
    fn new(table: &'a LockTable<S>) -> Self {
        let hasher = table.locks.hasher();
        Self {
            table,
            dependents: HashMap::with_hasher(hasher.clone()),
            thoughts: HashMap::with_hasher(hasher.clone()),
            locks: HashMap::with_hasher(hasher),
            open: VecDeque::new(),
            steps_left: STEPS_MAX,
        }
    }

    /// Whether the owner waits for ever, as far as can be said with so many steps.
    fn run(&mut self, owner: Who) -> bool {
        self.find_dependents(owner);
        while self.dependents[&owner].waiting > 0
            && let Some(lock) = self.open.pop_front()
        {
            self.grant_in(lock);
        }
        self.steps_left > 0 && self.dependents[&owner].waiting > 0
    }

    /// Takes a step; false if none is left.
    fn step(&mut self) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        self.steps_left > 0
    }

    fn who(&self, request: RequestKey) -> Who {
        self.table.requests[request].owner.map_or(Who::Alone(request), Who::Owner)
    }

    fn requests_of(&self, who: Who) -> Vec<RequestKey> {
        match who {
            Who::Alone(request) => vec![request],
            Who::Owner(owner) => {
                self.table.owners[owner].requests.iter(&self.table.requests.arena).collect()
            }
        }
    }

    /// Finds everybody who might wait for the owner, over however many others.
    fn find_dependents(&mut self, owner: Who) {
        let mut found = VecDeque::from([owner]);
        self.dependents.insert(owner, Dependent::default());
        while let Some(who) = found.pop_front() {
            for request in self.requests_of(who) {
                let is_held = self.table.requests[request].is_held();
                if !is_held && let Some(dependent) = self.dependents.get_mut(&who) {
                    dependent.waiting += 1;
                }
                for claim in self.table.claims_of(request) {
                    if !self.step() {
                        return;
                    }
                    self.note(claim, is_held);
                    self.find_those_behind(claim, is_held, &mut found);
                }
            }
        }
    }

    /// A dependent holds this claim, or waits with it.
    fn note(&mut self, claim: ClaimKey, is_held: bool) {
        let ClaimNode { lock, request, mode, .. } = self.table.claims[claim];
        let known = self.locks.entry(lock).or_default();
        if is_held {
            known.taken += share(mode);
            known.by.push(request);
        }
        self.reopen(lock);
    }

    /// Those of the entangled who wait for a claim's lock, all if it is held, else those behind it,
    /// are dependents too.
    fn find_those_behind(&mut self, claim: ClaimKey, is_held: bool, found: &mut VecDeque<Who>) {
        let table = self.table;
        let rank = |claim: ClaimKey| table.rank(table.claims[claim].request);
        let lock = table.claims[claim].lock;
        let first = if is_held { table.locks[lock].queue.entangled().head() } else { Some(claim) };
        let Some(first) = first else { return };
        let Some(known) = self.locks.get_mut(&lock) else { return };
        let found_before = known.first;
        if found_before.is_some_and(|before| rank(before) <= rank(first)) {
            return;
        }
        known.first = Some(first);
        let mut next = Some(first);
        while let Some(claim) = next.filter(|next| Some(*next) != found_before)
            && self.step()
        {
            let ClaimNode { request, .. } = table.claims[claim];
            let who = self.who(request);
            if !table.has_nothing_else(request)
                && let Entry::Vacant(entry) = self.dependents.entry(who)
            {
                entry.insert(Dependent::default());
                found.push_back(who);
            }
            next = table.claims[claim].next_entangled();
        }
    }

    /// Grants in a lock's queue what can be granted.
    fn grant_in(&mut self, lock: LockKey) {
        let table = self.table;
        let capacity = table.locks[lock].shape.capacity();
        if let Some(known) = self.locks.get_mut(&lock) {
            known.is_open = false;
            if !std::mem::replace(&mut known.is_begun, true) {
                // All who stand before the first dependent are granted.
                let all_matter = table.all_matter(lock, known.taken);
                known.next = if all_matter { table.locks[lock].queue.head() } else { known.first };
            }
        }
        while self.step()
            && let Some(&Known { next: Some(claim), taken, .. }) = self.locks.get(&lock)
        {
            let ClaimNode { request, mode, .. } = table.claims[claim];
            let is_granted = self.thoughts.get(&request).is_some_and(|thought| thought.granted);
            if !self.dependents.contains_key(&self.who(request)) {
                // It gives back what it is granted, before anybody behind it is.
                if taken + share(mode) > capacity {
                    return;
                }
            } else if !is_granted {
                self.count_next(lock, request);
                if !self.is_next_with_room(request) {
                    return;
                }
                self.grant(request);
            }
            let Some(known) = self.locks.get_mut(&lock) else { return };
            known.next = if table.all_matter(lock, known.taken) {
                table.claims[claim].next()
            } else {
                table.next_entangled(claim)
            };
            known.is_counted = false;
        }
    }

    /// A request's claim is the next in line.
    fn count_next(&mut self, lock: LockKey, request: RequestKey) {
        let Some(known) = self.locks.get_mut(&lock) else { return };
        if !std::mem::replace(&mut known.is_counted, true) {
            self.thoughts.entry(request).or_default().next_in += 1;
        }
    }

    /// Whether a request is the next in line for all that it claims, and there is room.
    fn is_next_with_room(&self, request: RequestKey) -> bool {
        let table = self.table;
        let next_in = self.thoughts.get(&request).map_or(0, |thought| thought.next_in);
        let converted = table.requests[request].partner;
        let fits = |claim: ClaimKey| {
            let ClaimNode { lock, mode, .. } = table.claims[claim];
            let taken = self.locks.get(&lock).map_or(0, |known| known.taken);
            let free_for_it = converted.map_or(0, |converted| table.share_of(converted, lock));
            taken - free_for_it + share(mode) <= table.locks[lock].shape.capacity()
        };
        next_in == table.claims_of(request).count() && table.claims_of(request).all(fits)
    }

    /// Grants a request; its owner gives everything back if that was all it waited for.
    fn grant(&mut self, request: RequestKey) {
        let who = self.who(request);
        self.thoughts.entry(request).or_default().granted = true;
        for claim in self.table.claims_of(request) {
            let ClaimNode { lock, mode, .. } = self.table.claims[claim];
            let known = self.locks.entry(lock).or_default();
            known.taken += share(mode);
            known.by.push(request);
            self.reopen(lock);
        }
        if let Some(converted) = self.table.requests[request].partner {
            self.thoughts.entry(converted).or_default().converted = true;
            self.give_back(converted);
        }
        let Some(dependent) = self.dependents.get_mut(&who) else { return };
        dependent.waiting -= 1;
        if dependent.waiting == 0 {
            for request in self.requests_of(who) {
                if !self.thoughts.get(&request).is_some_and(|thought| thought.converted) {
                    self.give_back(request);
                }
            }
        }
    }

    fn give_back(&mut self, request: RequestKey) {
        for claim in self.table.claims_of(request) {
            self.step();
            let ClaimNode { lock, mode, .. } = self.table.claims[claim];
            if let Some(known) = self.locks.get_mut(&lock) {
                known.taken -= share(mode);
            }
            self.reopen(lock);
        }
    }

    fn reopen(&mut self, lock: LockKey) {
        if let Some(known) = self.locks.get_mut(&lock)
            && !std::mem::replace(&mut known.is_open, true)
        {
            self.open.push_back(lock);
        }
    }

    /// The shortest way from a left-over owner over others back to itself. It begins with `suspect`,
    /// or, if that could be granted, with another request of its owner that could not be.
    fn cycle(&self, owner: Who, suspect: RequestKey) -> Vec<CycleLink> {
        let is_granted = |request: &RequestKey| {
            self.table.requests[*request].is_held()
                || self.thoughts.get(request).is_some_and(|thought| thought.granted)
        };
        let others = self.requests_of(owner).into_iter().filter(|request| *request != suspect);
        let first = [suspect].into_iter().chain(others).find(|request| !is_granted(request));
        let mut came_by: HashMap<Who, Edge, S> = HashMap::with_hasher(self.table.locks.hasher());
        let mut to_visit = VecDeque::from([(owner, Vec::from_iter(first))]);
        while let Some((who, waiting)) = to_visit.pop_front() {
            for edge in waiting.into_iter().flat_map(|request| self.edges(who, request)) {
                let other = self.who(edge.behind);
                if other == owner {
                    return self.way(edge, owner, &came_by);
                }
                if let Entry::Vacant(entry) = came_by.entry(other) {
                    entry.insert(edge);
                    let mut waiting = self.requests_of(other);
                    waiting.retain(|request| !is_granted(request));
                    to_visit.push_back((other, waiting));
                }
            }
        }
        // Somebody else waits for ever, and the owner for them.
        let first = first.into_iter().flat_map(|request| self.edges(owner, request)).next();
        first.into_iter().map(|edge| self.link(edge)).collect()
    }

    /// For whom a left-over request waits: whoever is next in line before it, else those who have
    /// what it wants.
    fn edges(&self, from: Who, request: RequestKey) -> Vec<Edge> {
        let mut edges = Vec::new();
        let converted = self.table.requests[request].partner;
        for claim in self.table.claims_of(request) {
            let lock = self.table.claims[claim].lock;
            let Some(known) = self.locks.get(&lock) else { continue };
            let next = known.next.map(|next| self.table.claims[next].request);
            match next.filter(|next| *next != request && self.table.is_entangled(*next)) {
                Some(behind) => edges.push(Edge { from, request, lock, behind }),
                None => edges.extend(
                    known
                        .by
                        .iter()
                        .filter(|by| Some(**by) != converted && self.keeps(**by))
                        .map(|behind| Edge { from, request, lock, behind: *behind }),
                ),
            }
        }
        edges
    }

    /// Whether what a request holds, or was granted in thought, is not given back.
    fn keeps(&self, request: RequestKey) -> bool {
        let is_converted = self.thoughts.get(&request).is_some_and(|thought| thought.converted);
        let waits = |dependent: &Dependent| dependent.waiting > 0;
        !is_converted && self.dependents.get(&self.who(request)).is_some_and(waits)
    }

    /// The links from the owner to the one that the last edge closes the circle from.
    fn way(&self, last: Edge, owner: Who, came_by: &HashMap<Who, Edge, S>) -> Vec<CycleLink> {
        let mut edges = vec![last];
        let mut at = last.from;
        while at != owner
            && let Some(&edge) = came_by.get(&at)
        {
            edges.push(edge);
            at = edge.from;
        }
        edges.into_iter().rev().take(CYCLE_TOLD_MAX).map(|edge| self.link(edge)).collect()
    }

    fn link(&self, edge: Edge) -> CycleLink {
        let table = self.table;
        let live = &table.requests[edge.request];
        let session = &table.sessions[live.session];
        // Of one that waits to convert what it holds, that it holds it is what matters.
        let behind = &table.requests[edge.behind];
        let holds = if behind.is_held() { Some(edge.behind) } else { behind.partner };
        let held_with = match holds.map(|held| table.requests[held].state) {
            Some(State::Held { token }) => Some(token),
            Some(State::Waiting { .. }) | None => None,
        };
        CycleLink {
            session: session.id,
            identity: session.identity.clone(),
            owner: table.owner_of(edge.request),
            request: live.id,
            lock: table.locks[edge.lock].name.clone(),
            held_with,
        }
    }
}

#[cfg(test)]
mod tests;
