//! The whole table, written down as it is: with the moments, and with the place of each thing.
//!
//! Whoever reads it has the same table: told the same events, it says the same effects, takes the same
//! steps, and its image is the same again (rule J3). That is more than a [`Snapshot`](super::Snapshot)
//! holds, which the next run takes in as if its clients had just said it. It is what events can follow.
//!
//! What is not in it: what is found anew from the rest (maps of names and numbers); whom shells
//! want to hear from (watchers, listeners), who are gone with their process; the seed of the hashers.

use std::hash::BuildHasher;

use serde::Serialize;

use super::LockTable;

impl<S: BuildHasher + Clone> LockTable<S> {
    /// What [`LockTable::from_image`] makes the same table of, once it is deserialized.
    pub fn image(&self) -> impl Serialize {
        self
    }

    /// The table that was written down, in use again: what is found anew from the rest is found, by
    /// `hasher`.
    #[must_use]
    pub fn from_image(mut image: Self, hasher: S) -> Self {
        image.sessions.index(hasher.clone());
        image.owners.index(hasher.clone());
        image.requests.index(hasher.clone());
        image.locks.index(hasher);
        image
    }
}

/// Maps in the order of their keys: what is the same is written down in the same way.
pub(super) mod sorted {
    use std::collections::{BTreeMap, HashMap};
    use std::hash::{BuildHasher, Hash};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::engine) fn serialize<K, V, S, Ser>(
        map: &HashMap<K, V, S>,
        serializer: Ser,
    ) -> Result<Ser::Ok, Ser::Error>
    where
        K: Ord + Serialize,
        V: Serialize,
        Ser: Serializer,
    {
        map.iter().collect::<BTreeMap<_, _>>().serialize(serializer)
    }

    pub(in crate::engine) fn deserialize<'de, K, V, S, D>(
        deserializer: D,
    ) -> Result<HashMap<K, V, S>, D::Error>
    where
        K: Hash + Eq + Deserialize<'de>,
        V: Deserialize<'de>,
        S: BuildHasher + Default,
        D: Deserializer<'de>,
    {
        HashMap::deserialize(deserializer)
    }
}

#[cfg(test)]
pub(super) mod tests;
