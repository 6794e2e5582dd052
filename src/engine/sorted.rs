//! Maps in the order of their keys: what is the same is written down in the same way.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<K, V, S, Ser>(
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

pub(super) fn deserialize<'de, K, V, S, D>(deserializer: D) -> Result<HashMap<K, V, S>, D::Error>
where
    K: Hash + Eq + Deserialize<'de>,
    V: Deserialize<'de>,
    S: BuildHasher + Default,
    D: Deserializer<'de>,
{
    HashMap::deserialize(deserializer)
}
