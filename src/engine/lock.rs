//! Locks in use, found by name.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::arena::{Arena, Chain, ClaimKey, LockKey, QueueKey, is_mostly_empty};
use super::claim::{ClaimArena, ClaimNode};
use super::owner::Hold;
use super::pause::Delay;
use super::queue::{NOBODY, ServiceQueue, WaiterFlags};
use super::request::Requests;
use super::row::{self, Marks};
use super::session::Presence;
use super::shape::{Shape, fits, held_share};
use super::sorted;
use crate::engine::seed::Seed;
use crate::types::{FencingToken, LockName, Mode};

/// A lock that is held, waited for, or delayed. Others do not exist.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Lock {
    /// Its name, kept here only.
    pub(super) name: LockName,
    /// The name's hash, so that it is computed once.
    #[serde(skip)]
    hash: u64,
    /// Its use by its holders, the same for all (rule R4). While nobody holds it, that says
    /// nothing.
    pub(super) shape: Shape,
    /// How much of the shape's capacity its holders have. Invariant: the sum of their shares, and
    /// never more than the capacity.
    taken: u32,
    /// How much of that those of its holders have that have an owner. Others wait for nothing.
    owned: u32,
    /// The claims that hold it, in the order of their tokens.
    pub(super) holders: Chain<ClaimKey>,
    /// The claims that wait for it, in the order in which they came; none: nobody waits.
    queue: Option<QueueKey>,
    /// Why and until when it is not granted though it has room (rule S7). Nearly all locks have none.
    pub(super) delay: Option<Box<Delay>>,
    /// Whether it is among those to be settled before the event at hand is over.
    pub(super) is_unsettled: bool,
    /// Whether somebody wants to hear whenever its holders change.
    #[serde(skip)]
    pub(super) is_watched: bool,
    /// Whether its holders are so many that some of them are marked, in `Locks::marks`.
    is_marked: bool,
}

impl Lock {
    /// Whether a holder in `mode` could join the holders there are.
    pub(super) fn has_room_for(&self, mode: Mode) -> bool {
        self.has_room_instead(mode, 0)
    }

    /// Whether a holder in `mode` could join the holders there are, if this share were given back.
    pub(super) fn has_room_instead(&self, mode: Mode, share: u64) -> bool {
        self.delay.is_none() && self.fits_instead(mode, share)
    }

    /// Whether a holder in `mode` fits together with the holders there are, if this share were given
    /// back; whatever the lock is delayed for.
    pub(super) fn fits_instead(&self, mode: Mode, given_back: u64) -> bool {
        fits(mode, self.shape, self.taken() - given_back)
    }

    /// How much of its capacity its holders have.
    pub(super) fn taken(&self) -> u64 {
        self.taken.into()
    }

    /// Whether somebody waits for it.
    pub(super) fn is_waited_for(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether there is no reason to keep it.
    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_none() && self.delay.is_none()
    }

    /// How much of its capacity those of its holders have that have an owner.
    pub(super) fn owned(&self) -> u64 {
        self.owned.into()
    }

    /// One of its holders that has an owner came or goes.
    pub(super) fn change_owned(&mut self, mode: Mode, hold: Hold) {
        match hold {
            Hold::Begins => self.owned += held_share(mode),
            Hold::Ends => self.owned -= held_share(mode),
        }
    }

    #[cfg(test)]
    pub(super) fn taken_and_capacity(&self) -> (u64, u64) {
        (self.taken(), self.shape.capacity())
    }
}

/// All locks in use, found by name.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Locks {
    arena: Arena<LockKey, Lock>,
    /// The queues of those for which somebody waits.
    queues: Arena<QueueKey, ServiceQueue>,
    /// Keys by the hash of the name; the name itself is in the lock.
    #[serde(skip)]
    by_name: HashTable<LockKey>,
    /// The names of those that somebody watches, in use or not.
    #[serde(skip)]
    watched: HashSet<LockName, Seed>,
    /// The marks among the holders of those that have many. Invariant: agrees with `Lock::is_marked`.
    #[serde(with = "sorted")]
    marks: HashMap<LockKey, HolderMarks, Seed>,
    #[serde(skip)]
    seed: Seed,
}

/// Some of the holders of a lock, by their tokens.
type HolderMarks = Box<Marks<Option<FencingToken>, ClaimKey>>;

/// Nearly all locks have no marks, and are not looked up.
fn take_marks(
    marks: &mut HashMap<LockKey, HolderMarks, Seed>,
    is_marked: bool,
    key: LockKey,
) -> Option<HolderMarks> {
    if is_marked { marks.remove(&key) } else { None }
}

/// Says whether there are any.
fn put_marks(
    marks: &mut HashMap<LockKey, HolderMarks, Seed>,
    of_lock: Option<HolderMarks>,
    key: LockKey,
) -> bool {
    of_lock.map(|of_lock| marks.insert(key, of_lock)).is_some()
}

/// What holders stand in the order of.
fn token_in(requests: &Requests) -> impl Fn(&ClaimNode) -> Option<FencingToken> {
    |node| requests[node.request].token()
}

impl Locks {
    pub(super) fn new(seed: Seed) -> Self {
        let watched = HashSet::with_hasher(seed.clone());
        let marks = HashMap::with_hasher(seed.clone());
        let (arena, queues) = (Arena::new(), Arena::new());
        Self { arena, queues, by_name: HashTable::new(), watched, marks, seed }
    }

    /// Finds all of them anew, by `seed`.
    pub(super) fn index(&mut self, seed: Seed) {
        let keys: Vec<LockKey> = self.arena.keys().collect();
        self.by_name.reserve(keys.len(), |key| self.arena[*key].hash);
        for key in keys {
            let hash = seed.hash_one(self.arena[key].name.as_str());
            self.arena[key].hash = hash;
            self.by_name.insert_unique(hash, key, |key| self.arena[*key].hash);
        }
        self.seed = seed;
    }

    /// Somebody wants to hear whenever the holders of this lock change.
    pub(super) fn watch(&mut self, name: LockName) {
        if let Some(key) = self.find(name.as_str()) {
            self.arena[key].is_watched = true;
        }
        self.watched.insert(name);
    }

    /// Nobody wants to hear of this lock any more.
    pub(super) fn unwatch(&mut self, name: &LockName) {
        if let Some(key) = self.find(name.as_str()) {
            self.arena[key].is_watched = false;
        }
        self.watched.remove(name);
    }

    /// What makes maps of things that clients choose safe.
    pub(super) fn seed(&self) -> Seed {
        self.seed.clone()
    }

    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<LockKey> {
        let hash = self.seed.hash_one(name);
        self.by_name.find(hash, |key| self.arena[*key].name.as_str() == name).copied()
    }

    /// The lock of this name; if it was free, it is in use from now on.
    pub(super) fn find_or_use(&mut self, name: &LockName) -> LockKey {
        let Self { arena, by_name, watched, seed, .. } = self;
        let hash = seed.hash_one(name.as_str());
        let found = by_name.entry(hash, |key| arena[*key].name == *name, |key| arena[*key].hash);
        match found {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let is_watched = !watched.is_empty() && watched.contains(name);
                let key = arena.insert(Lock {
                    name: name.clone(),
                    hash,
                    shape: Shape::Plain,
                    taken: 0,
                    owned: 0,
                    holders: Chain::EMPTY,
                    queue: None,
                    delay: None,
                    is_unsettled: false,
                    is_watched,
                    is_marked: false,
                });
                entry.insert(key);
                key
            }
        }
    }

    /// A waiter for a lock.
    pub(super) fn queue(&self, key: LockKey) -> &ServiceQueue {
        self.queue_of(&self.arena[key])
    }

    /// A waiter for a lock.
    pub(super) fn queue_of(&self, lock: &Lock) -> &ServiceQueue {
        lock.queue.map_or(&NOBODY, |queue| &self.queues[queue])
    }

    /// A claim enters the queue of its lock. Says whether others stand behind it.
    pub(super) fn enter_queue(
        &mut self,
        key: LockKey,
        claims: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        flags: WaiterFlags,
    ) -> bool {
        let Self { arena, queues, .. } = self;
        let new = || queues.insert(ServiceQueue::EMPTY);
        let queue = *arena[key].queue.get_or_insert_with(new);
        queues[queue].enter(claims, requests, claim, flags)
    }

    /// How many locks somebody waits for.
    pub(super) fn contended(&self) -> usize {
        self.queues.len()
    }

    /// All places of queues at and after one, and the claim at the head of each: none where it is vacant.
    pub(super) fn queue_heads_from(
        &self,
        from: usize,
    ) -> impl Iterator<Item = (usize, Option<ClaimKey>)> {
        self.queues
            .places_from(from)
            .map(|(place, queue)| (place, queue.and_then(ServiceQueue::head)))
    }

    /// The next in line for a lock: the first in its queue who is not away.
    pub(super) fn first_present(
        &self,
        key: LockKey,
        claims: &ClaimArena,
        requests: &Requests,
    ) -> Option<ClaimKey> {
        self.queue(key).first_present(claims, requests)
    }

    /// A claim in the queue of its lock is of a session that went or came. Says whether somebody else
    /// may be the next in line now.
    pub(super) fn mark(
        &mut self,
        key: LockKey,
        claims: &ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        presence: Presence,
    ) -> bool {
        let Self { arena, queues, .. } = self;
        let Some(queue) = arena[key].queue else { return false };
        queues[queue].mark(claims, requests, claim, presence)
    }

    /// A claim leaves the queue of its lock, in which it is.
    pub(super) fn leave_queue(
        &mut self,
        key: LockKey,
        claims: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        flags: WaiterFlags,
    ) {
        let Self { arena, queues, .. } = self;
        let Some(queue) = arena[key].queue else { return };
        queues[queue].leave(claims, requests, claim, flags);
        if queues[queue].is_empty() {
            queues.remove(queue);
            arena[key].queue = None;
        }
    }

    /// A claim, of a request that holds, becomes one of the holders of its lock.
    pub(super) fn add_holder(
        &mut self,
        key: LockKey,
        claims: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
    ) {
        let lock = &mut self.arena[key];
        let mode = claims[claim].mode;
        lock.taken += held_share(mode);
        if lock.holders.is_empty() {
            lock.shape = Shape::of(mode);
            return lock.holders.push_back(claims, claim);
        }
        let marks = &mut take_marks(&mut self.marks, lock.is_marked, key);
        row::add(&mut lock.holders, marks, claims, claim, token_in(requests));
        lock.is_marked = put_marks(&mut self.marks, marks.take(), key);
    }

    /// A claim, of a request that still holds, is one of the holders of its lock no more.
    pub(super) fn remove_holder(
        &mut self,
        key: LockKey,
        claims: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
    ) {
        let lock = &mut self.arena[key];
        lock.taken -= held_share(claims[claim].mode);
        if !lock.is_marked {
            return lock.holders.remove(claims, claim);
        }
        let marks = &mut take_marks(&mut self.marks, lock.is_marked, key);
        row::remove(&mut lock.holders, marks, claims, claim, token_in(requests));
        lock.is_marked = put_marks(&mut self.marks, marks.take(), key);
    }

    /// The first of a lock's holders whose token is not less than this one; none: all are less.
    pub(super) fn seek_holder(
        &self,
        key: LockKey,
        claims: &ClaimArena,
        requests: &Requests,
        token: FencingToken,
    ) -> Option<ClaimKey> {
        let lock = &self.arena[key];
        let marks = if lock.is_marked { self.marks.get(&key) } else { None };
        row::seek(&lock.holders, marks.map(|it| &**it), claims, Some(token), token_in(requests))
    }

    /// Forgets a lock that is idle.
    pub(super) fn forget_if_idle(&mut self, key: LockKey) {
        if !self.arena[key].is_idle() {
            return;
        }
        let lock = self.arena.remove(key);
        if let Ok(entry) = self.by_name.find_entry(lock.hash, |other| *other == key) {
            entry.remove();
        }
        if is_mostly_empty(self.by_name.len(), self.by_name.capacity()) {
            let arena = &self.arena;
            self.by_name.shrink_to(self.by_name.len() * 2, |key| arena[*key].hash);
        }
    }

    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &Lock)> {
        self.arena.iter_from(from)
    }

    /// No lock has a place at or after this one.
    pub(super) fn places_end(&self) -> usize {
        self.arena.places_end()
    }

    /// The lock at a place, if there is one.
    pub(super) fn at_place(&self, place: usize) -> Option<LockKey> {
        self.arena.at_place(place)
    }

    pub(super) fn places_from(&self, from: usize) -> impl Iterator<Item = (usize, Option<&Lock>)> {
        self.arena.places_from(from)
    }

    #[cfg(test)]
    pub(super) fn invariant_holders(&self, key: LockKey, claims: &ClaimArena, requests: &Requests) {
        let (lock, marks) = (&self.arena[key], self.marks.get(&key));
        assert_eq!(lock.is_marked, marks.is_some(), "{}: whether it has marks", lock.name);
        row::invariant(&lock.holders, marks.map(|it| &**it), claims, token_in(requests));
    }

    #[cfg(test)]
    pub(super) fn is_marked(&self, key: LockKey) -> bool {
        self.arena[key].is_marked
    }

    #[cfg(test)]
    pub(super) fn marked(&self) -> usize {
        self.marks.len()
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> [usize; 3] {
        [self.arena.places(), self.queues.places(), self.by_name.capacity()]
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = LockKey> {
        self.arena.keys()
    }
}

impl std::ops::Index<LockKey> for Locks {
    type Output = Lock;
    fn index(&self, key: LockKey) -> &Lock {
        &self.arena[key]
    }
}

impl std::ops::IndexMut<LockKey> for Locks {
    fn index_mut(&mut self, key: LockKey) -> &mut Lock {
        &mut self.arena[key]
    }
}
