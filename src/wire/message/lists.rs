//! Claims and modes, read as far as they may be.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use smallvec::SmallVec;

use super::{CLAIMS_KEPT_MAX, Mode, RawClaim};
use crate::types::Claim;
use crate::types::list::Bounded;

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

/// Reads a note. Most are empty, and that is seen before anything is copied.
pub(super) fn note<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text)
}

/// Reads text that is kept.
struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    #[inline]
    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// Reads a mode of a server's saying: one that cannot be is an error of its own.
pub(super) fn mode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mode, D::Error> {
    Mode::deserialize(deserializer)?.checked().map_err(D::Error::custom)
}
