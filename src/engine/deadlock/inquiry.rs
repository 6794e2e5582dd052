//! The question whether an owner waits for ever: everybody goes on, in thought.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use super::super::LockTable;
use super::super::arena::{ClaimKey, LockKey, OwnerKey, RequestKey};
use super::super::claim::ClaimNode;
use super::super::shape::{Shape, fits, share};
use super::STEPS_MAX;
use crate::engine::seed::Seed;
use crate::types::Mode;

/// Who gives back, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Who {
    /// An owner of several requests, perhaps.
    Owner(OwnerKey),
    /// A request that is an owner of its own.
    Alone(RequestKey),
}

/// What is known of an owner that depends on the one in question.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dependent {
    /// How many of its requests are not granted.
    pub(super) waiting: usize,
}

/// What is known of a lock that dependents hold or wait for.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a step of its own that is taken once")]
pub(super) struct Known {
    /// How much of it dependents have, and did not give back.
    taken: u64,
    /// The use that dependents make of it. While they have nothing of it, that says nothing.
    shape: Shape,
    /// The requests that have it.
    pub(super) by: Vec<RequestKey>,
    /// The first dependent in its queue. Everybody of the entangled behind it is one too.
    first: Option<ClaimKey>,
    /// How far its queue was granted: the first claim that was not, none at the end.
    pub(super) next: Option<ClaimKey>,
    /// The first of the entangled that was not granted: `next` itself, or one behind it.
    next_entangled: Option<ClaimKey>,
    /// Whether `next` is known.
    is_begun: bool,
    /// Whether `next` was counted among the claims of its request that are next in line.
    is_counted: bool,
    /// Whether it is to be looked at.
    is_open: bool,
    /// Whether all who have it were looked at as those for whom somebody waits.
    pub(super) is_told: bool,
}

impl Known {
    const NOTHING: Self = Self {
        taken: 0,
        shape: Shape::Plain,
        by: Vec::new(),
        first: None,
        next: None,
        next_entangled: None,
        is_begun: false,
        is_counted: false,
        is_open: false,
        is_told: false,
    };

    /// One more has it, for which there is room.
    fn add(&mut self, request: RequestKey, mode: Mode) {
        self.taken += share(mode);
        self.shape = Shape::of(mode);
        self.by.push(request);
    }
}

/// What is known of a dependent's request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thought {
    /// How many of its claims are next in line.
    next_in: usize,
    /// Whether it was granted, in thought.
    pub(super) granted: bool,
    /// Whether it was converted, in thought.
    converted: bool,
}

/// The question whether an owner waits for ever.
pub(super) struct Inquiry<'a> {
    pub(super) table: &'a LockTable,
    /// The owner, and those who depend on it.
    pub(super) dependents: HashMap<Who, Dependent, Seed>,
    /// Their requests, as far as there is something to say.
    pub(super) thoughts: HashMap<RequestKey, Thought, Seed>,
    /// Locks that they hold and wait for.
    pub(super) locks: HashMap<LockKey, Known, Seed>,
    /// The locks to look at.
    open: VecDeque<LockKey>,
    /// How many claims may still be looked at.
    pub(super) steps_left: usize,
}

impl<'a> Inquiry<'a> {
    pub(super) fn new(table: &'a LockTable) -> Self {
        let seed = table.locks.seed();
        Self {
            table,
            dependents: HashMap::with_hasher(seed.clone()),
            thoughts: HashMap::with_hasher(seed.clone()),
            locks: HashMap::with_hasher(seed),
            open: VecDeque::new(),
            steps_left: STEPS_MAX,
        }
    }

    /// Whether the owner waits for ever, as far as can be said with so many steps.
    pub(super) fn run(&mut self, owner: Who) -> bool {
        self.find_dependents(owner);
        while self.steps_left > 0
            && self.dependents[&owner].waiting > 0
            && let Some(lock) = self.open.pop_front()
        {
            self.grant_in(lock);
        }
        self.steps_left > 0 && self.dependents[&owner].waiting > 0
    }

    /// Takes a step; false if none is left.
    pub(super) fn step(&mut self) -> bool {
        self.take_steps(1)
    }

    /// Takes so many steps; false if none is left.
    pub(super) fn take_steps(&mut self, steps: usize) -> bool {
        self.steps_left = self.steps_left.saturating_sub(steps);
        self.steps_left > 0
    }

    pub(super) fn who(&self, request: RequestKey) -> Who {
        self.table.requests[request].owner().map_or(Who::Alone(request), Who::Owner)
    }

    /// The requests of an owner; no more than there are steps left to look at them, and one. Without those
    /// that neither hold nor wait in queues: they are about to end, and in nobody's way.
    pub(super) fn requests_of(&self, who: Who) -> Vec<RequestKey> {
        match who {
            Who::Alone(request) => vec![request],
            Who::Owner(owner) => {
                let requests = self.table.owners[owner].requests.iter(&self.table.requests.arena);
                let counts = |request: &RequestKey| {
                    self.table.requests[*request].is_held() || self.table.is_in_queues(*request)
                };
                requests.take(self.steps_left + 1).filter(counts).collect()
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
        let known = self.locks.entry(lock).or_insert(Known::NOTHING);
        if is_held {
            known.add(request, mode);
        }
        self.reopen(lock);
    }

    /// Those of the entangled who wait for a claim's lock, all if it is held, else those behind it,
    /// are dependents too.
    fn find_those_behind(&mut self, claim: ClaimKey, is_held: bool, found: &mut VecDeque<Who>) {
        let table = self.table;
        let rank = |claim: ClaimKey| table.rank(table.claims[claim].request);
        let lock = table.claims[claim].lock;
        let first = if is_held { table.locks.queue(lock).entangled().head() } else { Some(claim) };
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
        if let Some(known) = self.locks.get_mut(&lock) {
            known.is_open = false;
            if !std::mem::replace(&mut known.is_begun, true) {
                // All who stand before the first dependent are granted.
                let queue = table.locks.queue(lock);
                (known.next, known.next_entangled) =
                    if table.all_matter(lock, known.shape, known.taken) {
                        (queue.head(), queue.entangled().head())
                    } else {
                        (known.first, known.first)
                    };
            }
        }
        while self.step()
            && let Some(&Known { next: Some(claim), shape, taken, .. }) = self.locks.get(&lock)
        {
            let ClaimNode { request, mode, .. } = table.claims[claim];
            let is_granted = self.thoughts.get(&request).is_some_and(|thought| thought.granted);
            if !self.dependents.contains_key(&self.who(request)) {
                // It gives back what it is granted, before anybody behind it is.
                if !fits(mode, shape, taken) {
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
            if known.next_entangled == Some(claim) {
                known.next_entangled = table.claims[claim].next_entangled();
            }
            let all_matter = table.all_matter(lock, known.shape, known.taken);
            known.next = if all_matter { table.claims[claim].next() } else { known.next_entangled };
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

    /// Whether a request is the next in line for all that it claims, and there is room; no if there are
    /// no steps left.
    fn is_next_with_room(&mut self, request: RequestKey) -> bool {
        let table = self.table;
        let claims = table.claims_of(request).count();
        let looks = table.requests[request].partner().map_or(1, |_| claims + 1);
        if !self.take_steps(claims * looks) {
            return false;
        }
        let next_in = self.thoughts.get(&request).map_or(0, |thought| thought.next_in);
        let converted = table.requests[request].partner();
        let fits = |claim: ClaimKey| {
            let ClaimNode { lock, mode, .. } = table.claims[claim];
            let known = self.locks.get(&lock).map(|known| (known.shape, known.taken));
            let free_for_it = converted.map_or(0, |converted| table.share_of(converted, lock));
            known.is_none_or(|(shape, taken)| fits(mode, shape, taken - free_for_it))
        };
        next_in == claims && table.claims_of(request).all(fits)
    }

    /// Grants a request; its owner gives everything back if that was all it waited for.
    fn grant(&mut self, request: RequestKey) {
        let who = self.who(request);
        self.thoughts.entry(request).or_default().granted = true;
        for claim in self.table.claims_of(request) {
            let ClaimNode { lock, mode, .. } = self.table.claims[claim];
            let known = self.locks.entry(lock).or_insert(Known::NOTHING);
            known.add(request, mode);
            self.reopen(lock);
        }
        if let Some(converted) = self.table.requests[request].partner() {
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
}
