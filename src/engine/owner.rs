//! Owners: who asks, within a session (rule R7). An owner is one thread of control: it has what it
//! holds until all that it asked for is granted. A request without an owner is one of its own, and
//! needs nothing of this.

use std::collections::HashMap;
use std::hash::BuildHasher;

use super::arena::{Arena, Chain, OwnerKey, RequestKey, SessionKey, is_mostly_empty};
use crate::types::OwnerId;

/// The row of the requests of an owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByOwner;

/// An owner of live requests. Others do not exist.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Owner {
    /// In which session.
    session: SessionKey,
    /// Its name there. 0: it has none, and is there because one of its requests converts another.
    pub(super) id: OwnerId,
    /// Its live requests.
    pub(super) requests: Chain<RequestKey, ByOwner>,
}

/// All owners, found by session and number.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Owners<S> {
    arena: Arena<OwnerKey, Owner>,
    /// Those with a name.
    by_id: HashMap<(SessionKey, OwnerId), OwnerKey, S>,
}

impl<S: BuildHasher> Owners<S> {
    pub(super) fn new(hasher: S) -> Self {
        Self { arena: Arena::new(), by_id: HashMap::with_hasher(hasher) }
    }

    /// The owner of this name; none for the name 0, which nobody has.
    pub(super) fn find_or_add(&mut self, session: SessionKey, id: OwnerId) -> Option<OwnerKey> {
        if id == OwnerId::default() {
            return None;
        }
        let Self { arena, by_id } = self;
        let add = || arena.insert(Owner { session, id, requests: Chain::EMPTY });
        Some(*by_id.entry((session, id)).or_insert_with(add))
    }

    /// An owner without a name.
    pub(super) fn add_unnamed(&mut self, session: SessionKey) -> OwnerKey {
        let id = OwnerId::default();
        self.arena.insert(Owner { session, id, requests: Chain::EMPTY })
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

impl<S> std::ops::Index<OwnerKey> for Owners<S> {
    type Output = Owner;
    fn index(&self, key: OwnerKey) -> &Owner {
        &self.arena[key]
    }
}

impl<S> std::ops::IndexMut<OwnerKey> for Owners<S> {
    fn index_mut(&mut self, key: OwnerKey) -> &mut Owner {
        &mut self.arena[key]
    }
}
