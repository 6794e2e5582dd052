//! Owners within a session (rule R7). An owner is one thread of control: it keeps its locks until
//! all that it asked for is granted. A request without an owner is one of its own, and needs
//! nothing of this.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::arena::{Arena, Chain, LockKey, OwnerKey, RequestKey, SessionKey, is_mostly_empty};
use crate::engine::seed::Seed;
use crate::types::{FencingToken, OwnerId};

/// What an owner of no more requests than this holds is looked for among them.
pub(super) const REQUESTS_LOOKED_THROUGH_MAX: usize = 32;

/// The row of the requests of an owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByOwner;

/// An owner of live requests. Others do not exist.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Owner {
    /// In which session.
    session: SessionKey,
    /// Its name there. 0: it has none, and is there because one of its requests converts another.
    pub(super) id: OwnerId,
    /// Its live requests; those that wait first.
    pub(super) requests: Chain<RequestKey, ByOwner>,
    /// How many of its requests are in queues.
    pub(super) waiting: usize,
    /// Its holdings, if it ever had too many requests to look through.
    pub(super) holdings: Option<Box<Holdings>>,
}

impl Owner {
    fn new(session: SessionKey, id: OwnerId) -> Self {
        Self { session, id, requests: Chain::EMPTY, waiting: 0, holdings: None }
    }

    /// Whether it has no name: it has one request, and perhaps another that converts that.
    pub(super) fn is_unnamed(&self) -> bool {
        self.id == OwnerId::default()
    }
}

/// What an owner of many requests holds, by lock.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Holdings {
    /// How much it has of each lock.
    shares: BTreeMap<LockKey, u64>,
    /// The tokens with which it has them.
    tokens: BTreeSet<(LockKey, FencingToken)>,
}

impl Holdings {
    /// The owner holds so much of a lock with this token.
    pub(super) fn add(&mut self, lock: LockKey, token: FencingToken, share: u64) {
        *self.shares.entry(lock).or_default() += share;
        self.tokens.insert((lock, token));
    }

    /// The owner does not hold that any more.
    pub(super) fn remove(&mut self, lock: LockKey, token: FencingToken, share: u64) {
        self.tokens.remove(&(lock, token));
        if let Some(held) = self.shares.get_mut(&lock) {
            *held -= share;
            if *held == 0 {
                self.shares.remove(&lock);
            }
        }
    }

    /// How much the owner has of a lock.
    pub(super) fn share_of(&self, lock: LockKey) -> u64 {
        self.shares.get(&lock).copied().unwrap_or(0)
    }

    /// The tokens with which it has it, the latest first.
    pub(super) fn tokens_of(&self, lock: LockKey) -> impl Iterator<Item = FencingToken> {
        let (least, greatest) = (FencingToken::new(0), FencingToken::new(u64::MAX));
        self.tokens.range((lock, least)..=(lock, greatest)).rev().map(|(_, token)| *token)
    }
}

/// What happens to what an owner's request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is granted, or the request that holds it becomes an owner's.
    Begins,
    /// It is given back or taken away.
    Ends,
}

/// All owners, found by session and number.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Owners {
    arena: Arena<OwnerKey, Owner>,
    /// Those with a name.
    #[serde(skip)]
    by_id: HashMap<(SessionKey, OwnerId), OwnerKey, Seed>,
}

impl Owners {
    pub(super) fn new(seed: Seed) -> Self {
        Self { arena: Arena::new(), by_id: HashMap::with_hasher(seed) }
    }

    /// Finds all of them anew, by `seed`.
    pub(super) fn index(&mut self, seed: Seed) {
        self.by_id = HashMap::with_hasher(seed);
        let Self { arena, by_id } = self;
        let named = arena.keys().filter(|key| !arena[*key].is_unnamed());
        by_id.extend(named.map(|key| ((arena[key].session, arena[key].id), key)));
    }

    /// The owner of this name; none for the name 0, which nobody has.
    pub(super) fn find_or_add(&mut self, session: SessionKey, id: OwnerId) -> Option<OwnerKey> {
        if id == OwnerId::default() {
            return None;
        }
        let Self { arena, by_id } = self;
        let add = || arena.insert(Owner::new(session, id));
        Some(*by_id.entry((session, id)).or_insert_with(add))
    }

    /// An owner without a name.
    pub(super) fn add_unnamed(&mut self, session: SessionKey) -> OwnerKey {
        self.arena.insert(Owner::new(session, OwnerId::default()))
    }

    /// Forgets an owner that has nothing any more.
    pub(super) fn forget_if_idle(&mut self, key: OwnerKey) {
        if !self.arena[key].requests.is_empty() {
            return;
        }
        let Owner { session, id, .. } = self.arena.remove(key);
        if id != OwnerId::default() {
            self.by_id.remove(&(session, id));
            if is_mostly_empty(self.by_id.len(), self.by_id.capacity()) {
                self.by_id.shrink_to(self.by_id.len() * 2);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = OwnerKey> {
        self.arena.keys()
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> [usize; 2] {
        [self.arena.places(), self.by_id.capacity()]
    }

    #[cfg(test)]
    pub(super) fn named(&self) -> usize {
        self.by_id.len()
    }
}

impl std::ops::Index<OwnerKey> for Owners {
    type Output = Owner;
    fn index(&self, key: OwnerKey) -> &Owner {
        &self.arena[key]
    }
}

impl std::ops::IndexMut<OwnerKey> for Owners {
    fn index_mut(&mut self, key: OwnerKey) -> &mut Owner {
        &mut self.arena[key]
    }
}
