//! Lists, read without trusting what they say of their length.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use smallvec::{Array, SmallVec};

use super::CLAIMS_MAX;

/// Elements for which memory is taken on the word of a list's length alone: enough for every
/// request that is allowed, and one more.
pub(crate) const PREALLOCATED_MAX: usize = CLAIMS_MAX + 1;

/// Reads all of a list, as far as there are bytes.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Bounded::<[T; 0]> { kept_max: usize::MAX, list: PhantomData };
    Ok(deserializer.deserialize_seq(list)?.into_vec())
}

/// Reads a list without trusting the number of elements that stands before it. Memory is taken for
/// [`PREALLOCATED_MAX`] at first, for more only as they come.
pub(crate) struct Bounded<A> {
    /// Elements beyond this are read and dropped.
    pub(crate) kept_max: usize,
    /// What the list is of, and for how many of them no memory is taken at all.
    pub(crate) list: PhantomData<A>,
}

impl<'de, A: Array<Item: Deserialize<'de>>> Visitor<'de> for Bounded<A> {
    type Value = SmallVec<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<SmallVec<A>, S::Error> {
        let expected = seq.size_hint().unwrap_or(0);
        let mut kept = SmallVec::with_capacity(expected.min(self.kept_max).min(PREALLOCATED_MAX));
        while let Some(element) = seq.next_element()? {
            if kept.len() < self.kept_max {
                kept.push(element);
            }
        }
        Ok(kept)
    }
}
