//! Places with keys, and chains through them.
//!
//! The engine's things point at each other: a claim at its lock and its request, a request at its
//! session. Rust's references cannot do that, so each kind of thing lives in an [`Arena`] and is
//! pointed at by a key of four bytes. Things in a row (the queue of a lock, the requests of a
//! session) are linked through keys that they carry themselves, a [`Chain`]: leaving from the
//! middle costs the same as from the front, and no row needs memory of its own. A thing can stand in
//! rows of several kinds at once, with links for each; a type without values names the kind.
//!
//! A key is valid as long as the thing it was given for lives; following a key of something dead is
//! a mistake of the engine's own and panics.

use std::iter;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

use slab::Slab;

/// The key of a thing in an [`Arena`]. `Option` of it is no larger.
pub(super) trait Key: Copy + Eq {
    fn from_index(index: usize) -> Self;
    fn index(self) -> usize;
}

/// Makes a type of keys.
macro_rules! key_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) struct $name(NonZeroU32);

        impl Key for $name {
            fn from_index(index: usize) -> Self {
                Self(place(index))
            }

            fn index(self) -> usize {
                self.0.get() as usize - 1
            }
        }
    };
}

/// One more than the index, so that zero is free to mean "none".
fn place(index: usize) -> NonZeroU32 {
    match u32::try_from(index + 1).ok().and_then(NonZeroU32::new) {
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

/// Things of one kind, each at a place of its own that its key names. Places are used again.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Arena<K, T> {
    /// The places.
    slab: Slab<T>,
    /// Removals until it is looked at again whether most places stand empty.
    until_trim: usize,
    /// Which keys name the places.
    key: PhantomData<K>,
}

impl<K: Key, T> Arena<K, T> {
    pub(super) fn new() -> Self {
        Self { slab: Slab::new(), until_trim: PLACES_KEPT, key: PhantomData }
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slab.capacity()
    }

    pub(super) fn insert(&mut self, thing: T) -> K {
        K::from_index(self.slab.insert(thing))
    }

    /// The thing of a key that may be one of something dead, or of what has its place now.
    pub(super) fn get(&self, key: K) -> Option<&T> {
        self.slab.get(key.index())
    }

    /// Takes the thing out. Gives memory back when most of it stands empty, at a cost that is
    /// small for each of the removals it took to get there.
    pub(super) fn remove(&mut self, key: K) -> T {
        let thing = self.slab.remove(key.index());
        self.until_trim -= 1;
        if self.slab.is_empty() && self.slab.capacity() > PLACES_KEPT {
            self.slab = Slab::new();
            self.until_trim = PLACES_KEPT;
        } else if self.until_trim == 0 {
            if self.slab.capacity() > PLACES_KEPT && self.slab.len() < self.slab.capacity() / 4 {
                self.slab.shrink_to_fit();
            }
            // Soon enough for what is left, and seldom enough for what has to be walked.
            let (len, places) = (self.slab.len(), self.slab.capacity());
            self.until_trim = (len / 2).max(places / 64).max(PLACES_KEPT);
        }
        thing
    }

    /// The things at and after place `from`, with their places.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = (usize, &T)> {
        self.places_from(from).filter_map(|(place, thing)| Some((place, thing?)))
    }

    /// All places at and after `from`, and what is there.
    pub(super) fn places_from(&self, from: usize) -> impl Iterator<Item = (usize, Option<&T>)> {
        // A slab can only be walked from its beginning; a page must not cost more for being late.
        (from..self.slab.capacity()).map(|place| (place, self.slab.get(place)))
    }

    /// Nothing is at or after this place.
    pub(super) fn places_end(&self) -> usize {
        self.slab.capacity()
    }

    /// The key of the thing at a place, if there is one.
    pub(super) fn at_place(&self, place: usize) -> Option<K> {
        self.slab.contains(place).then(|| K::from_index(place))
    }

    /// All keys, in the order of their places.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> {
        self.slab.iter().map(|(index, _)| K::from_index(index))
    }
}

#[cfg(test)]
thread_local! {
    /// How many things were looked at by their keys, on this thread: what bounds on work are held
    /// against, whoever counted steps and whoever forgot to.
    pub(super) static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl<K: Key, T> Index<K> for Arena<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        &self.slab[key.index()]
    }
}

impl<K: Key, T> IndexMut<K> for Arena<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        #[cfg(test)]
        LOOKS.set(LOOKS.get() + 1);
        &mut self.slab[key.index()]
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
#[derive(Clone, Copy, Debug)]
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
#[derive(Clone, Copy, Debug)]
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
