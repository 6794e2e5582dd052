//! A wait-for cycle: who waits for whom, all round (deadlock).

use std::fmt;

use serde::de::{Deserializer, Error};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use super::list::list;
use super::{FencingToken, Identity, LockName, OwnerId, RequestId, SessionId};

/// One link of a wait-for cycle: it waits for a lock, for as long as the next one in the cycle does
/// not give it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CycleLink {
    /// The session's id.
    pub session: SessionId,
    /// The session's identity.
    pub identity: Identity,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: OwnerId,
    /// The request that waits.
    pub request: RequestId,
    /// The lock that it waits for.
    pub lock: LockName,
    /// The token with which the next one in the cycle holds that lock; none: it holds it not, but is
    /// ahead in line for it.
    #[serde(serialize_with = "zero_for_none")]
    pub held_with: Option<FencingToken>,
}

#[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
fn zero_for_none<S: Serializer>(
    token: &Option<FencingToken>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    token.unwrap_or_default().serialize(serializer)
}

/// Who waits for whom, the first few. The first is the request that was not granted, and each waits
/// for the next. Empty if nobody does.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Cycle {
    /// Those that are told of. The last waits for the first, unless there are more.
    pub links: Vec<CycleLink>,
    /// Whether there may be more, which are left out.
    pub is_cut: bool,
}

impl fmt::Debug for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rest = self.is_cut.then_some(format_args!("…"));
        f.debug_list().entries(&self.links).entries(rest).finish()
    }
}

/// A link as it is written down, or what stands in place of the rest: one without a lock.
#[derive(Default, Serialize, Deserialize)]
struct Listed {
    /// As in [`CycleLink`].
    session: SessionId,
    /// As in [`CycleLink`].
    identity: Identity,
    /// As in [`CycleLink`].
    owner: OwnerId,
    /// As in [`CycleLink`].
    request: RequestId,
    /// The name of a lock, or nothing.
    lock: Box<str>,
    /// As in [`CycleLink`]; 0 for none.
    held_with: FencingToken,
}

impl Serialize for Cycle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let count = self.links.len() + usize::from(self.is_cut);
        let mut list = serializer.serialize_seq(Some(count))?;
        self.links.iter().try_for_each(|link| list.serialize_element(link))?;
        if self.is_cut {
            list.serialize_element(&Listed::default())?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Cycle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut listed: Vec<Listed> = list(deserializer)?;
        let is_cut = listed.pop_if(|last| last.lock.is_empty()).is_some();
        let link = |listed: Listed| {
            let Listed { session, identity, owner, request, lock, held_with } = listed;
            let lock = LockName::new(lock)?;
            let held_with = (held_with != FencingToken::default()).then_some(held_with);
            Ok(CycleLink { session, identity, owner, request, lock, held_with })
        };
        let links: Result<_, super::TextError> = listed.into_iter().map(link).collect();
        let links =
            links.map_err(|why| D::Error::custom(format_args!("invalid lock name: {why}")))?;
        Ok(Self { links, is_cut })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(lock: &str, held_with: u64) -> CycleLink {
        CycleLink {
            session: SessionId(1),
            identity: Identity::new("ann").unwrap(),
            owner: OwnerId(2),
            request: RequestId(3),
            lock: LockName::new(lock).unwrap(),
            held_with: (held_with > 0).then_some(FencingToken(held_with)),
        }
    }

    #[test]
    fn a_cycle_comes_back_with_what_stands_for_the_rest() {
        for (count, is_cut) in [(0, false), (0, true), (2, false), (2, true)] {
            let links = vec![link("a", 7), link("b", 0)][..count].to_vec();
            let cycle = Cycle { links, is_cut };
            let written = bincode::serialize(&cycle).unwrap();
            assert_eq!(bincode::deserialize::<Cycle>(&written).unwrap(), cycle);
        }
    }

    #[test]
    fn only_the_last_link_can_stand_for_the_rest() {
        let written = bincode::serialize(&[Listed::default(), Listed::default()][..]).unwrap();
        let why = bincode::deserialize::<Cycle>(&written).unwrap_err().to_string();
        assert_eq!(why, "invalid lock name: it is empty");
    }
}
