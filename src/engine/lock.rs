//! Locks in use, and the claims that hold them or wait for them.

use std::hash::BuildHasher;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::arena::{Arena, Chain, ClaimKey, Linked, Links, LockKey, RequestKey};
use crate::types::{LockName, Mode, Timestamp};

/// A lock that is held, waited for, or delayed. Others do not exist.
#[derive(Debug)]
pub(super) struct Lock {
    /// Its name, kept here only.
    pub(super) name: LockName,
    /// The name's hash, so that it is computed once.
    hash: u64,
    /// What it is used as. Fixed while it is in use (rule R4).
    pub(super) shape: Shape,
    /// How much of the shape's capacity its holders have. Invariant: the sum of their shares, and
    /// never more than the capacity.
    taken: u64,
    /// The claims that hold it, in the order of their grants.
    pub(super) holders: Chain<ClaimKey>,
    /// The claims that wait for it, in the order in which they came.
    pub(super) queue: ServiceQueue,
    /// Not granted before this moment, after a holder was lost (rule S7).
    pub(super) delayed_until: Option<Timestamp>,
    /// Whether it is among those to be settled before the event at hand is over.
    pub(super) is_unsettled: bool,
}

/// What a lock is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Held by one, or shared.
    Plain,
    /// A number of permits.
    Semaphore { of: u32 },
}

/// Room for more shared holders than there can be requests, and for one exclusive one.
const PLAIN_CAPACITY: u64 = 1 << 32;

impl Shape {
    /// What a claim in this mode makes of a lock.
    pub(super) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive | Mode::Shared => Self::Plain,
            Mode::Permits { of, .. } => Self::Semaphore { of },
        }
    }

    fn capacity(self) -> u64 {
        match self {
            Self::Plain => PLAIN_CAPACITY,
            Self::Semaphore { of } => u64::from(of),
        }
    }
}

/// How much of a lock's capacity a holder in this mode has. That is all there is to modes:
/// exclusive takes everything, shared next to nothing, permits what they say.
fn share(mode: Mode) -> u64 {
    match mode {
        Mode::Exclusive => PLAIN_CAPACITY,
        Mode::Shared => 1,
        Mode::Permits { take, .. } => u64::from(take),
    }
}

/// One claim of a live request: in the queue of its lock, or among its holders.
#[derive(Debug)]
pub(super) struct ClaimNode {
    /// The lock.
    pub(super) lock: LockKey,
    /// The request.
    pub(super) request: RequestKey,
    /// How the lock is wanted or held.
    pub(super) mode: Mode,
    /// Its last known place in the queue, from 1; 0 when it has none.
    pub(super) place: u32,
    /// The next claim of the same request.
    pub(super) sibling: Option<ClaimKey>,
    /// Its neighbours in the queue or among the holders.
    links: Links<ClaimKey>,
}

impl ClaimNode {
    pub(super) fn new(lock: LockKey, request: RequestKey, mode: Mode) -> Self {
        Self { lock, request, mode, place: 0, sibling: None, links: Links::NONE }
    }

    /// Whether it is in its lock's queue.
    pub(super) fn is_queued(&self) -> bool {
        self.place != 0
    }

    /// Who comes after it in the queue or among the holders.
    pub(super) fn next(&self) -> Option<ClaimKey> {
        self.links.next()
    }
}

impl Linked<ClaimKey> for ClaimNode {
    fn links(&self) -> &Links<ClaimKey> {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links<ClaimKey> {
        &mut self.links
    }
}

/// Claims by key.
pub(super) type ClaimArena = Arena<ClaimKey, ClaimNode>;

/// The claims that wait for one lock, served first come first served (rule R3).
#[derive(Debug)]
pub(super) struct ServiceQueue {
    /// The claims, in the order in which they came.
    claims: Chain<ClaimKey>,
    /// How many of them are of requests that are told their place.
    told: u32,
}

impl ServiceQueue {
    fn new() -> Self {
        Self { claims: Chain::EMPTY, told: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn head(&self) -> Option<ClaimKey> {
        self.claims.head()
    }

    pub(super) fn iter(&self, arena: &ClaimArena) -> impl Iterator<Item = ClaimKey> {
        self.claims.iter(arena)
    }

    pub(super) fn iter_back(&self, arena: &ClaimArena) -> impl Iterator<Item = ClaimKey> {
        self.claims.iter_back(arena)
    }

    /// Whether anybody in it is told of changes.
    pub(super) fn has_listeners(&self) -> bool {
        self.told > 0
    }

    pub(super) fn enter(&mut self, arena: &mut ClaimArena, claim: ClaimKey, told: bool) {
        self.claims.push_back(arena, claim);
        self.told += u32::from(told);
        arena[claim].place = u32::try_from(self.claims.len()).unwrap_or(u32::MAX);
    }

    /// Enters before a claim that is in the queue already, for who was here earlier.
    pub(super) fn enter_before(
        &mut self,
        arena: &mut ClaimArena,
        claim: ClaimKey,
        told: bool,
        next: ClaimKey,
    ) {
        self.claims.insert_before(arena, claim, next);
        self.told += u32::from(told);
        // Only a bound until the places are told; but not zero, for it is in the queue.
        arena[claim].place = arena[next].place;
    }

    pub(super) fn leave(&mut self, arena: &mut ClaimArena, claim: ClaimKey, told: bool) {
        self.claims.remove(arena, claim);
        self.told -= u32::from(told);
        arena[claim].place = 0;
    }
}

impl Lock {
    /// Whether a holder in `mode` could join the holders there are.
    pub(super) fn has_room_for(&self, mode: Mode) -> bool {
        self.delayed_until.is_none() && self.fits(mode)
    }

    /// Whether a holder in `mode` fits together with the holders there are.
    pub(super) fn fits(&self, mode: Mode) -> bool {
        self.shape == Shape::of(mode) && self.taken + share(mode) <= self.shape.capacity()
    }

    /// The claim becomes one of the holders.
    pub(super) fn add_holder(&mut self, arena: &mut ClaimArena, claim: ClaimKey) {
        self.taken += share(arena[claim].mode);
        self.holders.push_back(arena, claim);
    }

    /// The claim holds it no more.
    pub(super) fn remove_holder(&mut self, arena: &mut ClaimArena, claim: ClaimKey) {
        self.taken -= share(arena[claim].mode);
        self.holders.remove(arena, claim);
    }

    /// Whether there is no reason to keep it.
    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.queue.is_empty() && self.delayed_until.is_none()
    }

    #[cfg(test)]
    pub(super) fn taken_and_capacity(&self) -> (u64, u64) {
        (self.taken, self.shape.capacity())
    }
}

/// All locks in use, found by name.
#[derive(Debug)]
pub(super) struct Locks<S> {
    arena: Arena<LockKey, Lock>,
    /// Keys by the hash of the name; the name itself is in the lock.
    by_name: HashTable<LockKey>,
    hasher: S,
}

impl<S: BuildHasher> Locks<S> {
    pub(super) fn new(hasher: S) -> Self {
        Self { arena: Arena::new(), by_name: HashTable::new(), hasher }
    }

    pub(super) fn len(&self) -> usize {
        self.arena.len()
    }

    pub(super) fn find(&self, name: &str) -> Option<LockKey> {
        let hash = self.hasher.hash_one(name);
        self.by_name.find(hash, |key| self.arena[*key].name.as_str() == name).copied()
    }

    /// The lock of this name; if it was free, it is in use as `shape` from now on.
    pub(super) fn find_or_use(&mut self, name: LockName, shape: Shape) -> LockKey {
        let Self { arena, by_name, hasher } = self;
        let hash = hasher.hash_one(name.as_str());
        let found = by_name.entry(hash, |key| arena[*key].name == name, |key| arena[*key].hash);
        match found {
            Entry::Occupied(entry) => {
                let key = *entry.get();
                let lock = &mut arena[key];
                if lock.holders.is_empty() && lock.queue.is_empty() {
                    // It is only delayed: nobody uses it as anything.
                    lock.shape = shape;
                }
                key
            }
            Entry::Vacant(entry) => {
                let key = arena.insert(Lock {
                    name,
                    hash,
                    shape,
                    taken: 0,
                    holders: Chain::EMPTY,
                    queue: ServiceQueue::new(),
                    delayed_until: None,
                    is_unsettled: false,
                });
                entry.insert(key);
                key
            }
        }
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
        if self.by_name.capacity() > 1024 && self.by_name.len() < self.by_name.capacity() / 8 {
            let arena = &self.arena;
            self.by_name.shrink_to(self.by_name.len() * 2, |key| arena[*key].hash);
        }
    }

    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &Lock)> {
        self.arena.iter_from(from)
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.by_name.capacity().max(self.arena.places())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = LockKey> {
        self.arena.keys()
    }
}

impl<S> std::ops::Index<LockKey> for Locks<S> {
    type Output = Lock;
    fn index(&self, key: LockKey) -> &Lock {
        &self.arena[key]
    }
}

impl<S> std::ops::IndexMut<LockKey> for Locks<S> {
    fn index_mut(&mut self, key: LockKey) -> &mut Lock {
        &mut self.arena[key]
    }
}
