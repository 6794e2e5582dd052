//! Places with keys, and chains through them.
//!
//! The engine's things point at each other: a claim at its lock and its request, a request at its
//! session. Rust's references cannot do that, so each kind of thing lives in an [`Arena`] and is
//! pointed at by a key of four bytes. Things in a row (the queue of a lock, the requests of a
//! session) carry their links themselves: a [`Chain`], or intrusive linked list. Leaving from the
//! middle costs the same as from the front, and no row needs memory of its own. A thing can stand
//! in rows of several kinds at once, with links for each; a type without values names the kind.
//!
//! A key is valid as long as its thing lives. Following a stale key is a mistake of the engine's
//! own and panics.

use std::iter;
use std::marker::PhantomData;
use std::mem;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// The key of a thing in an [`Arena`]. `Option` of it is no larger.
pub(super) trait Key: Copy + Eq {
    fn from_index(index: usize) -> Self;
    fn index(self) -> usize;
}

/// Makes a type of keys.
macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub(super) struct $name(NonZeroU32);

        impl Key for $name {
            fn from_index(index: usize) -> Self {
                Self(place(index))
            }

            fn index(self) -> usize {
                self.0.get() as usize
            }
        }
    };
}

/// The index itself: nothing is ever at place 0, so that zero is free to mean "none".
fn place(index: usize) -> NonZeroU32 {
    match u32::try_from(index).ok().and_then(NonZeroU32::new) {
        Some(place) => place,
        None => unreachable!("limits keep arenas far below 2^32 places"),
    }
}

key_type! {
    /// Of a session.
    SessionKey
}
key_type! {
    /// Of an owner of live requests.
    OwnerKey
}
key_type! {
    /// Of a live request.
    RequestKey
}
key_type! {
    /// Of a claim of a live request.
    ClaimKey
}
key_type! {
    /// Of a lock in use.
    LockKey
}
key_type! {
    /// Of the queue of a lock for which somebody waits.
    QueueKey
}

/// Fewer places than this are never given back.
const PLACES_KEPT: usize = 1024;

/// A map is mostly empty if less than one in so many of its places is used. What it shrinks to lies in
/// memory that the allocator keeps afterwards: so there are few steps, and great ones. A place in a
/// map takes a fiftieth of what a lock does.
const MOSTLY_EMPTY: usize = 256;

/// Whether a map that was large stands mostly empty, so that memory should be given back. Looking
/// costs nothing; giving back is paid for by the removals that led here.
pub(super) fn is_mostly_empty(len: usize, places: usize) -> bool {
    places > PLACES_KEPT && len < places / MOSTLY_EMPTY
}

/// Things of one kind, each at a place of its own that its key names. Places are used again, the one
/// that became free last first.
///
/// The places of things are part of what is written down of an arena, and depend only on what came
/// and went. An arena that is read again goes on in the same way (rule J3).
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Arena<K, T> {
    /// The places; nothing is ever at the first one, so that a key is the index of its place.
    places: Vec<Place<T>>,
    /// The first free place; that behind all places if none is.
    free: usize,
    /// How many places are taken.
    len: usize,
    /// Removals until it is looked at again whether most places stand empty.
    until_trim: usize,
    /// Which keys name the places.
    key: PhantomData<K>,
}

/// A place in an [`Arena`].
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
enum Place<T> {
    /// Nothing is there.
    Free {
        /// The next one that is free.
        next: usize,
    },
    /// This is there.
    Taken(T),
}

impl<T> Place<T> {
    fn thing(&self) -> Option<&T> {
        match self {
            Self::Free { .. } => None,
            Self::Taken(thing) => Some(thing),
        }
    }
}

impl<K: Key, T> Arena<K, T> {
    pub(super) fn new() -> Self {
        let places = vec![Place::Free { next: 0 }];
        Self { places, free: 1, len: 0, until_trim: PLACES_KEPT, key: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.capacity()
    }

    pub(super) fn insert(&mut self, thing: T) -> K {
        let at = self.free;
        if let Some(place) = self.places.get_mut(at) {
            let Place::Free { next } = mem::replace(place, Place::Taken(thing)) else { taken() };
            self.free = next;
        } else {
            self.places.push(Place::Taken(thing));
            self.free = self.places.len();
        }
        self.len += 1;
        K::from_index(at)
    }

    /// The thing of a key that may be one of something dead, or of what has its place now.
    pub(super) fn get(&self, key: K) -> Option<&T> {
        self.places.get(key.index())?.thing()
    }

    /// Takes the thing out. Gives memory back when most of it stands empty, at a cost that is
    /// small for each of the removals it took to get there.
    pub(super) fn remove(&mut self, key: K) -> T {
        let next = self.free;
        let place = &mut self.places[key.index()];
        let Place::Taken(thing) = mem::replace(place, Place::Free { next }) else { dead() };
        self.free = key.index();
        self.len -= 1;
        self.until_trim -= 1;
        if self.until_trim == 0 || self.len == 0 {
            self.trim();
        }
        thing
    }

    fn trim(&mut self) {
        let places = self.places.len();
        if self.len == 0 && places > PLACES_KEPT {
            *self = Self::new();
        } else if self.until_trim == 0 {
            if places > PLACES_KEPT && self.len < places / 4 {
                self.give_back();
            }
            // Soon enough for what is left, and seldom enough for what has to be walked.
            let places = self.places.len();
            self.until_trim = (self.len / 2).max(places / 64).max(PLACES_KEPT);
        }
    }

    /// Gives back the places behind the last one that is taken.
    fn give_back(&mut self) {
        let taken = self.places.iter().rposition(|place| place.thing().is_some());
        self.places.truncate(taken.unwrap_or(0) + 1);
        self.places.shrink_to_fit();
        self.free = self.places.len();
        for (at, place) in self.places.iter_mut().enumerate().skip(1).rev() {
            if let Place::Free { next } = place {
                *next = mem::replace(&mut self.free, at);
            }
        }
    }

    /// The things at and after place `from`, with their places.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &T)> {
        self.places_from(from).filter_map(|(place, thing)| Some((place, thing?)))
    }

    /// All places at and after `from`, and what is there.
    pub(super) fn places_from(&self, from: usize) -> impl Iterator<Item = (usize, Option<&T>)> {
        (from..self.places.len()).map(|at| (at, self.places[at].thing()))
    }

    /// Nothing is at or after this place.
    pub(super) fn places_end(&self) -> usize {
        self.places.len()
    }

    /// The key of the thing at a place, if there is one.
    pub(super) fn at_place(&self, place: usize) -> Option<K> {
        self.places.get(place)?.thing().map(|_| K::from_index(place))
    }

    /// All keys, in the order of their places.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter_from(0).map(|(at, _)| K::from_index(at))
    }
}

/// A place that is free is taken.
#[cold]
fn taken() -> ! {
    unreachable!("free places name free places")
}

/// A key was followed to a place where nothing is.
#[cold]
#[track_caller]
fn dead() -> ! {
    unreachable!("a key is kept no longer than its thing")
}

#[cfg(test)]
thread_local! {
    /// How many things were looked at by their keys, on this thread. Bounds on work are held
    /// against it, whoever counted steps and whoever forgot to.
    pub(super) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl<K: Key, T> Index<K> for Arena<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        match &self.places[key.index()] {
            Place::Taken(thing) => thing,
            Place::Free { .. } => dead(),
        }
    }
}

impl<K: Key, T> IndexMut<K> for Arena<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        match &mut self.places[key.index()] {
            Place::Taken(thing) => thing,
            Place::Free { .. } => dead(),
        }
    }
}

/// How many looks something takes.
#[cfg(test)]
pub(super) mod looks {
    pub(in crate::engine) fn of<T>(work: impl FnOnce() -> T) -> (T, u64) {
        let before = super::LOOKS.get();
        let done = work();
        (done, super::LOOKS.get() - before)
    }
}

/// The neighbours of a thing in its [`Chain`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Links<K> {
    prev: Option<K>,
    next: Option<K>,
}

impl<K> Links<K> {
    /// Of a thing that is in no chain yet.
    pub(super) const NONE: Self = Self { prev: None, next: None };

    /// Who comes after it.
    pub(super) fn next(&self) -> Option<K>
    where
        K: Copy,
    {
        self.next
    }

    /// Who comes before it.
    pub(super) fn prev(&self) -> Option<K>
    where
        K: Copy,
    {
        self.prev
    }
}

/// A thing that can be in a chain of the kind `R`, one at a time.
pub(super) trait Linked<K, R = ()> {
    fn links(&self) -> &Links<K>;
    fn links_mut(&mut self) -> &mut Links<K>;
}

/// Things of one arena in a row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(bound(serialize = "K: Serialize", deserialize = "K: Deserialize<'de>"))]
pub(super) struct Chain<K, R = ()> {
    head: Option<K>,
    tail: Option<K>,
    len: u32,
    /// Which kind of row it is.
    row: PhantomData<R>,
}

impl<K: Key, R> Chain<K, R> {
    pub(super) const EMPTY: Self = Self { head: None, tail: None, len: 0, row: PhantomData };

    pub(super) fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn head(&self) -> Option<K> {
        self.head
    }

    pub(super) fn tail(&self) -> Option<K> {
        self.tail
    }

    pub(super) fn push_back<T: Linked<K, R>>(&mut self, arena: &mut Arena<K, T>, key: K) {
        *arena[key].links_mut() = Links { prev: self.tail, next: None };
        match self.tail {
            Some(tail) => arena[tail].links_mut().next = Some(key),
            None => self.head = Some(key),
        }
        self.tail = Some(key);
        self.len += 1;
    }

    pub(super) fn push_front<T: Linked<K, R>>(&mut self, arena: &mut Arena<K, T>, key: K) {
        match self.head {
            Some(head) => self.insert_before(arena, key, head),
            None => self.push_back(arena, key),
        }
    }

    /// The keys in the row, last to first.
    pub(super) fn iter_back<T: Linked<K, R>>(
        &self,
        arena: &Arena<K, T>,
    ) -> impl Iterator<Item = K> {
        iter::successors(self.tail, |key| arena[*key].links().prev)
    }

    /// Puts `key` right before `next`, which is in this row.
    pub(super) fn insert_before<T: Linked<K, R>>(
        &mut self,
        arena: &mut Arena<K, T>,
        key: K,
        next: K,
    ) {
        let prev = arena[next].links().prev;
        *arena[key].links_mut() = Links { prev, next: Some(next) };
        arena[next].links_mut().prev = Some(key);
        match prev {
            Some(prev) => arena[prev].links_mut().next = Some(key),
            None => self.head = Some(key),
        }
        self.len += 1;
    }

    /// Takes `key` out of the row. It must be in this one.
    pub(super) fn remove<T: Linked<K, R>>(&mut self, arena: &mut Arena<K, T>, key: K) {
        let Links { prev, next } = *arena[key].links();
        match prev {
            Some(prev) => arena[prev].links_mut().next = next,
            None => self.head = next,
        }
        match next {
            Some(next) => arena[next].links_mut().prev = prev,
            None => self.tail = prev,
        }
        *arena[key].links_mut() = Links::NONE;
        self.len -= 1;
    }

    /// The keys in the row, first to last.
    pub(super) fn iter<T: Linked<K, R>>(&self, arena: &Arena<K, T>) -> impl Iterator<Item = K> {
        iter::successors(self.head, |key| arena[*key].links().next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bead(char, Links<ClaimKey>);

    impl Linked<ClaimKey> for Bead {
        fn links(&self) -> &Links<ClaimKey> {
            &self.1
        }
        fn links_mut(&mut self) -> &mut Links<ClaimKey> {
            &mut self.1
        }
    }

    fn text(chain: &Chain<ClaimKey>, arena: &Arena<ClaimKey, Bead>) -> String {
        chain.iter(arena).map(|key| arena[key].0).collect()
    }

    #[test]
    fn a_chain_keeps_its_order_whoever_leaves() {
        let mut arena = Arena::new();
        let mut chain: Chain<ClaimKey> = Chain::EMPTY;
        let keys: Vec<_> = "abcd".chars().map(|c| arena.insert(Bead(c, Links::NONE))).collect();
        for key in &keys {
            chain.push_back(&mut arena, *key);
        }
        assert_eq!((text(&chain, &arena).as_str(), chain.len()), ("abcd", 4));
        chain.remove(&mut arena, keys[1]);
        assert_eq!(text(&chain, &arena), "acd");
        chain.remove(&mut arena, keys[3]);
        assert_eq!(text(&chain, &arena), "ac");
        chain.remove(&mut arena, keys[0]);
        assert_eq!((chain.head(), text(&chain, &arena).as_str()), (Some(keys[2]), "c"));
        chain.remove(&mut arena, keys[2]);
        assert_eq!((chain.is_empty(), chain.len()), (true, 0));
        chain.push_back(&mut arena, keys[1]);
        assert_eq!(text(&chain, &arena), "b");
    }

    #[test]
    fn an_arena_that_was_large_gives_its_memory_back() {
        let mut arena: Arena<ClaimKey, u64> = Arena::new();
        let keys: Vec<_> = (0..100_000).map(|n| arena.insert(n)).collect();
        for key in &keys {
            arena.remove(*key);
        }
        assert!(arena.places() <= PLACES_KEPT, "{} places", arena.places());
    }

    #[test]
    fn an_arena_of_which_the_oldest_are_left_gives_back_most_of_its_memory() {
        let mut arena: Arena<ClaimKey, u64> = Arena::new();
        let keys: Vec<_> = (0..100_000).map(|n| arena.insert(n)).collect();
        for key in keys[10..].iter().rev() {
            arena.remove(*key);
        }
        assert!(arena.places() <= 5_000, "{} places", arena.places());
    }

    #[test]
    fn a_map_is_mostly_empty_if_it_is_large_and_hardly_used() {
        assert!(is_mostly_empty(0, PLACES_KEPT + 1) && is_mostly_empty(15, 4_096));
        assert!(!is_mostly_empty(0, PLACES_KEPT) && !is_mostly_empty(16, 4_096));
    }

    #[test]
    fn an_optional_key_costs_no_more_than_a_key() {
        assert_eq!(size_of::<Option<ClaimKey>>(), 4);
    }
}
