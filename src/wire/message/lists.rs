//! Lists, read without trusting what they say of their length.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use smallvec::{Array, SmallVec};

use super::{CLAIMS_KEPT_MAX, Mode, PREALLOCATED_MAX, RawClaim};
use crate::types::Claim;

/// Reads the claims of a request: [`CLAIMS_KEPT_MAX`] at most are kept.
pub(super) fn claims<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<SmallVec<[RawClaim; 1]>, D::Error> {
    deserializer.deserialize_seq(Bounded { kept_max: CLAIMS_KEPT_MAX, list: PhantomData })
}

/// Reads the claims of a request that something happened to: no more either.
pub(super) fn event_claims<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Claim>, D::Error> {
    let list = Bounded::<[Claim; 0]> { kept_max: CLAIMS_KEPT_MAX, list: PhantomData };
    let claims = deserializer.deserialize_seq(list)?.into_vec();
    claims.iter().try_for_each(|it| it.mode.checked().map(drop)).map_err(D::Error::custom)?;
    Ok(claims)
}

/// Reads a mode of a server's saying: one that cannot be is an error of its own.
pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    Mode::deserialize(deserializer)?.checked().map_err(D::Error::custom)
}

/// Reads a list of anything else: all of it, as far as there are bytes.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Bounded::<[T; 0]> { kept_max: usize::MAX, list: PhantomData };
    Ok(deserializer.deserialize_seq(list)?.into_vec())
}

/// Reads a list without trusting the number of elements that stands before it: memory is taken for
/// [`PREALLOCATED_MAX`] at first, for more only as they come.
pub(in crate::wire) struct Bounded<A> {
    /// Elements beyond this are read and dropped.
    pub(in crate::wire) kept_max: usize,
    /// What the list is of, and for how many of them no memory is taken at all.
    pub(in crate::wire) list: PhantomData<A>,
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
