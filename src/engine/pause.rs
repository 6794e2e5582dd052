//! Pauses of a lock that has room, and how many of them there are.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sorted;
use crate::engine::seed::Seed;
use crate::types::{FencingToken, Identity, Origin, SessionId, Timestamp};

/// Why and until when a lock is not granted, though it has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Until when.
    pub until: Timestamp,
    /// The session whose hold it follows.
    pub session: SessionId,
    /// Identity of that session.
    pub identity: Identity,
    /// Where that came from, as far as is known: no address may have all that can be kept.
    pub origin: Option<Origin>,
    /// The token of that hold.
    pub token: FencingToken,
    /// When that was granted.
    pub since: Timestamp,
    /// Length that its holder asked for.
    pub length: Duration,
}

/// All that keeps a lock from being granted. Never without either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Delay {
    /// A holder was lost that had asked for a lock delay: of several, the pause that ends last.
    pub(super) lost: Option<Pause>,
    /// A holder is gone that had asked to keep it for longer: of several, the pause that ends last.
    pub(super) kept: Option<Pause>,
}

impl Delay {
    /// When it ends.
    pub(super) fn until(&self) -> Option<Timestamp> {
        let until = |pause: &Option<Pause>| pause.as_ref().map(|pause| pause.until);
        until(&self.lost).max(until(&self.kept))
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.until().is_none()
    }
}

/// What a request asked to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keep {
    /// For how long from the grant on.
    pub(super) at_least: Duration,
    /// Where it came from: its claims are counted there as long as it lives.
    pub(super) origin: Option<Origin>,
}

/// How many locks are kept, or will be: claims of live requests that asked for it count, too.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Kept {
    /// All of them.
    count: usize,
    /// Those of which it is known where they came from. Never zero.
    #[serde(with = "sorted")]
    by_origin: HashMap<Origin, usize, Seed>,
}

impl Kept {
    pub(super) fn new(seed: Seed) -> Self {
        Self { count: 0, by_origin: HashMap::with_hasher(seed) }
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them came from there.
    pub(super) fn from(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).copied().unwrap_or(0)
    }

    /// So many more from there are kept, or will be.
    pub(super) fn add(&mut self, origin: Option<Origin>, count: usize) {
        self.count += count;
        if let Some(origin) = origin {
            *self.by_origin.entry(origin).or_default() += count;
        }
    }

    /// So many from there are not kept any more.
    pub(super) fn remove(&mut self, origin: Option<Origin>, count: usize) {
        self.count -= count;
        let Some(origin) = origin else { return };
        let left = self.from(origin) - count;
        if left > 0 {
            self.by_origin.insert(origin, left);
        } else {
            self.by_origin.remove(&origin);
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.count, self.by_origin.values().sum())
    }
}
