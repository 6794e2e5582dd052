//! The image of the whole table, byte by byte: with the moments, and with the place of each thing.
//!
//! A table that is read from it is the same (deterministic replay). The same events lead to the
//! same effects, in the same steps, and to the same image again (rule J3). A
//! [`Snapshot`](super::Snapshot) holds less: the next run takes it in as if its clients had just
//! said it. Events of the journal can follow an image only.
//!
//! Three things are not in it. Maps of names and numbers follow from the rest. Watchers and
//! listeners are gone with their process. The seed of the hashers is drawn anew.

use serde::Serialize;

use super::LockTable;
use crate::engine::seed::Seed;

impl LockTable {
    /// What [`LockTable::from_image`] makes the same table of, once it is deserialized.
    pub fn image(&self) -> impl Serialize {
        self
    }

    /// The table that was written down, in use again: what is found anew from the rest is found, by
    /// `seed`.
    #[must_use]
    pub fn from_image(mut image: Self, seed: Seed) -> Self {
        image.sessions.index(seed.clone());
        image.owners.index(seed.clone());
        image.requests.index(seed.clone());
        image.locks.index(seed);
        image
    }
}

#[cfg(test)]
pub(super) mod tests;
