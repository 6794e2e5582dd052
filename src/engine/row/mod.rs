//! Rows in order, in which a place is found without walking there (an index over a linked list).
//!
//! The requests of a session stand in the order of their ids, holders in that of their tokens, and
//! waiters in that of their tickets. Nearly all newcomers go last, which costs nothing. But after a
//! crash they return in any order. Messages also name an id or a token that may be anywhere, or
//! nowhere, in a row of tens of thousands.
//!
//! So a long row has *marks*: a search tree of some of its things, by their order. A search begins
//! at the mark before, and walks from there. Marks cut a row into stretches. Each has a count of
//! its things *at most*: arrivals are counted, departures are not. A stretch of more than
//! [`STRETCH_LEN_MAX`] is cut in two, by a walk over a half of it, so that no walk is ever longer.
//! A row that was never that long has no marks, and costs a look at its length.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::arena::{Arena, Chain, Key, Linked};

/// A stretch that is cut is cut behind so many.
const MARK_EVERY: u32 = 64;
/// No more than this stand from a mark to the next, nor before the first: nobody walks further.
pub(super) const STRETCH_LEN_MAX: u32 = 2 * MARK_EVERY;

/// Some of the things in a long row, by what the row is ordered by.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "O: Serialize, K: Serialize",
    deserialize = "O: Ord + Deserialize<'de>, K: Deserialize<'de>"
))]
pub(super) struct Marks<O, K> {
    /// The marks, each at the beginning of a stretch. Invariant: each is of a thing in the row.
    marks: BTreeMap<O, Mark<K>>,
    /// At most so many stand before the first.
    before: u32,
}

/// A thing that can be found without walking.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Mark<K> {
    /// The thing.
    key: K,
    /// At most so many stand from it to before the next one that is marked.
    len: u32,
}

impl<O: Ord + Copy, K: Key> Marks<O, K> {
    /// Of a row of so many.
    fn of_row(len: u32) -> Self {
        Self { marks: BTreeMap::new(), before: len }
    }

    /// The last marked thing before a place. Of things of the same order, none is passed.
    fn last_before(&self, order: O) -> Option<K> {
        self.marks.range(..order).next_back().map(|(_, mark)| mark.key)
    }

    /// The thing of this order came into the stretch before it. Says where that begins if it has to be
    /// cut: at a mark, or the head of the row.
    fn count(&mut self, order: O, head: Option<K>) -> Option<K> {
        let stretch = self.marks.range_mut(..order).next_back().map(|(_, mark)| mark);
        let (begins, len) = match stretch {
            Some(mark) => (Some(mark.key), &mut mark.len),
            None => (head, &mut self.before),
        };
        *len += 1;
        begins.filter(|_| *len > STRETCH_LEN_MAX)
    }

    /// Cuts the stretch that begins with the thing `first`, which is marked or the head of the row.
    fn cut<T: Linked<K, R>, R>(&mut self, arena: &Arena<K, T>, first: K, order: impl Fn(&T) -> O) {
        let begins = order(&arena[first]);
        let is_marked = self.marks.get(&begins).is_some_and(|mark| mark.key == first);
        let end = if is_marked {
            self.marks.range(begins..).nth(1).map(|(_, mark)| mark.key)
        } else {
            self.marks.first_key_value().map(|(_, mark)| mark.key)
        };
        let (mut at, mut walked) = (Some(first), 0);
        while walked < MARK_EVERY
            && let Some(key) = at.filter(|key| Some(*key) != end)
        {
            at = arena[key].links().next();
            walked += 1;
        }
        let stretch = self.marks.get_mut(&begins).filter(|mark| mark.key == first);
        let len = stretch.map_or(&mut self.before, |mark| &mut mark.len);
        let left = *len - walked;
        *len = walked;
        if let Some(key) = at.filter(|key| Some(*key) != end) {
            self.marks.insert(order(&arena[key]), Mark { key, len: left });
        }
    }

    /// A thing is about to leave the row. If it is marked, the next one is instead; but not at the head,
    /// where everybody begins without a mark, and where most things leave.
    fn leave<T: Linked<K, R>, R>(
        &mut self,
        arena: &Arena<K, T>,
        key: K,
        is_head: bool,
        order: impl Fn(&T) -> O,
    ) {
        if is_head {
            if let Some(first) = self.marks.first_entry().filter(|first| first.get().key == key) {
                self.before = first.remove().len - 1;
            }
            return;
        }
        let own = order(&arena[key]);
        let Some(mark) = self.marks.get(&own).copied().filter(|mark| mark.key == key) else {
            return;
        };
        self.marks.remove(&own);
        if let Some(next) = arena[key].links().next() {
            // If that is marked already, nothing is left of this stretch.
            let len = mark.len - 1;
            self.marks.entry(order(&arena[next])).or_insert(Mark { key: next, len });
        }
    }
}

/// A thing takes its place in a row. Says who is right behind it.
pub(super) fn add<T: Linked<K, R>, O: Ord + Copy, K: Key, R>(
    chain: &mut Chain<K, R>,
    marks: &mut Option<Box<Marks<O, K>>>,
    arena: &mut Arena<K, T>,
    key: K,
    order: impl Fn(&T) -> O,
) -> Option<K> {
    let own = order(&arena[key]);
    let next = seek(chain, marks.as_deref(), arena, own, &order);
    match next {
        Some(next) => chain.insert_before(arena, key, next),
        None => chain.push_back(arena, key),
    }
    if marks.is_some() || chain.len() > STRETCH_LEN_MAX as usize {
        mark(chain, marks, arena, own, order);
    }
    next
}

/// Counts a thing that came into a long row, and cuts the stretch that is too long for it.
#[cold]
fn mark<T: Linked<K, R>, O: Ord + Copy, K: Key, R>(
    chain: &Chain<K, R>,
    marks: &mut Option<Box<Marks<O, K>>>,
    arena: &Arena<K, T>,
    own: O,
    order: impl Fn(&T) -> O,
) {
    let marks = marks.get_or_insert_with(|| Box::new(Marks::of_row(STRETCH_LEN_MAX)));
    if let Some(first) = marks.count(own, chain.head()) {
        marks.cut(arena, first, order);
    }
}

/// A thing leaves its row.
pub(super) fn remove<T: Linked<K, R>, O: Ord + Copy, K: Key, R>(
    chain: &mut Chain<K, R>,
    marks: &mut Option<Box<Marks<O, K>>>,
    arena: &mut Arena<K, T>,
    key: K,
    order: impl Fn(&T) -> O,
) {
    if let Some(marks) = marks {
        marks.leave(arena, key, chain.head() == Some(key), order);
    }
    chain.remove(arena, key);
    if chain.is_empty() {
        *marks = None;
    }
}

/// The first in a row that does not stand before this place; none: everybody does.
pub(super) fn seek<T: Linked<K, R>, O: Ord + Copy, K: Key, R>(
    chain: &Chain<K, R>,
    marks: Option<&Marks<O, K>>,
    arena: &Arena<K, T>,
    place: O,
    order: impl Fn(&T) -> O,
) -> Option<K> {
    // Nearly everything comes last.
    if chain.tail().is_none_or(|tail| order(&arena[tail]) < place) {
        return None;
    }
    let mut at = marks.and_then(|marks| marks.last_before(place)).or(chain.head());
    while let Some(key) = at
        && order(&arena[key]) < place
    {
        at = arena[key].links().next();
    }
    at
}

/// Things of one arena in order, with marks of its own.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
#[serde(bound(
    serialize = "O: Serialize, K: Serialize",
    deserialize = "O: Ord + Deserialize<'de>, K: Deserialize<'de>"
))]
pub(super) struct Row<O, K, R = ()> {
    /// The things.
    chain: Chain<K, R>,
    /// Some of them, if they are many.
    marks: Option<Box<Marks<O, K>>>,
}

impl<O: Ord + Copy, K: Key, R> Row<O, K, R> {
    pub(super) const EMPTY: Self = Self { chain: Chain::EMPTY, marks: None };

    pub(super) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.chain.len()
    }

    pub(super) fn head(&self) -> Option<K> {
        self.chain.head()
    }

    pub(super) fn tail(&self) -> Option<K> {
        self.chain.tail()
    }

    /// The keys in the row, first to last.
    pub(super) fn iter<T: Linked<K, R>>(&self, arena: &Arena<K, T>) -> impl Iterator<Item = K> {
        self.chain.iter(arena)
    }

    /// A thing takes its place. Says who is right behind it.
    pub(super) fn add<T: Linked<K, R>>(
        &mut self,
        arena: &mut Arena<K, T>,
        key: K,
        order: impl Fn(&T) -> O,
    ) -> Option<K> {
        add(&mut self.chain, &mut self.marks, arena, key, order)
    }

    /// A thing that is in this row leaves it.
    pub(super) fn remove<T: Linked<K, R>>(
        &mut self,
        arena: &mut Arena<K, T>,
        key: K,
        order: impl Fn(&T) -> O,
    ) {
        remove(&mut self.chain, &mut self.marks, arena, key, order);
    }

    /// The first that does not stand before this place; none: everybody does.
    pub(super) fn seek<T: Linked<K, R>>(
        &self,
        arena: &Arena<K, T>,
        place: O,
        order: impl Fn(&T) -> O,
    ) -> Option<K> {
        seek(&self.chain, self.marks.as_deref(), arena, place, order)
    }

    #[cfg(test)]
    pub(super) fn invariant<T: Linked<K, R>>(&self, arena: &Arena<K, T>, order: impl Fn(&T) -> O)
    where
        O: std::fmt::Debug,
    {
        invariant(&self.chain, self.marks.as_deref(), arena, order);
    }
}

/// Panics if a row is in no order, or a mark or a count is wrong.
#[cfg(test)]
pub(super) fn invariant<T: Linked<K, R>, O: Ord + Copy + std::fmt::Debug, K: Key, R>(
    chain: &Chain<K, R>,
    marks: Option<&Marks<O, K>>,
    arena: &Arena<K, T>,
    order: impl Fn(&T) -> O,
) {
    let keys: Vec<K> = chain.iter(arena).collect();
    let orders: Vec<O> = keys.iter().map(|key| order(&arena[*key])).collect();
    assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?} is no order");
    let Some(marks) = marks else {
        assert!(keys.len() <= STRETCH_LEN_MAX as usize, "{} and no mark", keys.len());
        return;
    };
    assert!(!keys.is_empty(), "marks of nothing");
    let (mut len, mut at_most, mut found) = (0, marks.before, 0);
    for (key, order) in keys.iter().zip(orders) {
        if let Some(mark) = marks.marks.get(&order) {
            assert!(mark.key == *key, "a mark of something else");
            assert!(len <= at_most, "{len} in a stretch of {at_most}");
            (len, at_most, found) = (0, mark.len, found + 1);
        }
        len += 1;
        assert!(at_most <= STRETCH_LEN_MAX, "a stretch of {at_most}");
    }
    assert!(len <= at_most, "{len} in a stretch of {at_most}");
    assert_eq!(found, marks.marks.len(), "marks, and marks of things in the row");
}

#[cfg(test)]
mod tests;
