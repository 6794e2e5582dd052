//! Claims of live requests: each is in the queue of its lock, or among its holders.

use serde::{Deserialize, Serialize};

use super::arena::{Arena, ClaimKey, Linked, Links, LockKey, RequestKey};
use crate::types::Mode;

/// The row of those in a queue who may make others wait for something else than this lock. They are
/// requests with other claims, or of an owner with other requests. All others are of no interest
/// when it is asked who waits for whom, and a queue may be long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entangled;

/// One claim of a live request: in the queue of its lock, or among its holders.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ClaimNode {
    /// The lock.
    pub(super) lock: LockKey,
    /// The request.
    pub(super) request: RequestKey,
    /// How the lock is wanted or held.
    pub(super) mode: Mode,
    /// Its last known place in the queue, from 1; 0 when it has none.
    pub(super) place: u32,
    /// The next claim of the same request.
    pub(super) sibling: Option<ClaimKey>,
    /// Its neighbours in the queue or among the holders.
    lock_links: Links<ClaimKey>,
    /// Its neighbours among the entangled in the queue.
    entangled_links: Links<ClaimKey>,
}

impl ClaimNode {
    pub(super) fn new(lock: LockKey, request: RequestKey, mode: Mode) -> Self {
        let (lock_links, entangled_links) = (Links::NONE, Links::NONE);
        Self { lock, request, mode, place: 0, sibling: None, lock_links, entangled_links }
    }

    /// Whether it is in its lock's queue.
    pub(super) fn is_queued(&self) -> bool {
        self.place != 0
    }

    /// Who comes after it in the queue or among the holders.
    pub(super) fn next(&self) -> Option<ClaimKey> {
        self.lock_links.next()
    }

    /// Who comes before it in the queue or among the holders.
    pub(super) fn prev(&self) -> Option<ClaimKey> {
        self.lock_links.prev()
    }

    /// Who of the entangled comes after it in the queue, if it is one of them.
    pub(super) fn next_entangled(&self) -> Option<ClaimKey> {
        self.entangled_links.next()
    }
}

impl Linked<ClaimKey, Entangled> for ClaimNode {
    fn links(&self) -> &Links<ClaimKey> {
        &self.entangled_links
    }

    fn links_mut(&mut self) -> &mut Links<ClaimKey> {
        &mut self.entangled_links
    }
}

impl Linked<ClaimKey> for ClaimNode {
    fn links(&self) -> &Links<ClaimKey> {
        &self.lock_links
    }

    fn links_mut(&mut self) -> &mut Links<ClaimKey> {
        &mut self.lock_links
    }
}

/// Claims by key.
pub(super) type ClaimArena = Arena<ClaimKey, ClaimNode>;
