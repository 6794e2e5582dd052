//! The queue of a lock: its waiters, first come first served (FIFO, rule R3).

use serde::{Deserialize, Serialize};

use super::arena::ClaimKey;
use super::away::Away;
use super::claim::{ClaimArena, ClaimNode, Entangled};
use super::request::{Rank, Requests};
use super::row::Row;
use super::session::Presence;
use super::shape::{Shape, share};

/// What a queue has to know of a claim's request.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is counted by itself")]
pub(super) struct WaiterFlags {
    /// Whether it is told its place.
    pub(super) told: bool,
    /// Whether it is entangled.
    pub(super) entangled: bool,
    /// Whether it is to take the place of what is held, and so goes first.
    pub(super) converts: bool,
    /// Whether it does that for an owner that has nothing else, of no other lock.
    pub(super) is_pair: bool,
    /// Whether a newer one of its kind ends it.
    pub(super) supersedes: bool,
}

/// The claims that wait for one lock, served first come first served (rule R3).
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ServiceQueue {
    /// The claims, in the order of their ranks: in which they came, mostly.
    claims: Row<Rank, ClaimKey>,
    /// The entangled among them, in the same order.
    entangled: Row<Rank, ClaimKey, Entangled>,
    /// Those of them that are of sessions that are away.
    away: Away,
    /// How many of them are of requests that are told their place.
    told: u32,
    /// How many of them are of conversions. Those stand first.
    conversions: u32,
    /// How many of those are of owners that have nothing else, of no other lock.
    pairs: u32,
    /// No claim in it wants more than this. Lowered only when it is empty.
    share_max: u64,
    /// The shape that every claim in it wants; none: they differ, or did since it was empty.
    shape: Option<Shape>,
    /// The one that the next of its kind ends (rule S10). Invariant: in it is no other of them.
    superseding: Option<ClaimKey>,
}

/// That of all locks for which nobody waits.
pub(super) static NOBODY: ServiceQueue = ServiceQueue::EMPTY;

impl ServiceQueue {
    pub(super) const EMPTY: Self = Self {
        claims: Row::EMPTY,
        entangled: Row::EMPTY,
        away: Away::NOBODY,
        told: 0,
        conversions: 0,
        pairs: 0,
        share_max: 0,
        shape: None,
        superseding: None,
    };

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.claims.len()
    }

    pub(super) fn head(&self) -> Option<ClaimKey> {
        self.claims.head()
    }

    /// The first who is not away.
    pub(super) fn first_present(
        &self,
        arena: &ClaimArena,
        requests: &Requests,
    ) -> Option<ClaimKey> {
        let head = self.head()?;
        if self.away.is_empty() {
            return Some(head);
        }
        self.away.first_present(arena, requests, head)
    }

    /// Whether anybody in it is away.
    pub(super) fn has_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// Somebody in it goes or comes. Says whether the next in line may be another one now.
    pub(super) fn mark(
        &mut self,
        arena: &ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        presence: Presence,
    ) -> bool {
        let is_away = self.away.contains(arena, requests, claim);
        if is_away == (presence == Presence::Away) {
            return false;
        }
        let before = self.first_present(arena, requests);
        match presence {
            Presence::Away => self.away.go(arena, requests, claim),
            Presence::Present => self.away.come_back(arena, requests, claim),
        }
        before != self.first_present(arena, requests)
    }

    pub(super) fn tail(&self) -> Option<ClaimKey> {
        self.claims.tail()
    }

    pub(super) fn iter(&self, arena: &ClaimArena) -> impl Iterator<Item = ClaimKey> {
        self.claims.iter(arena)
    }

    /// The entangled.
    pub(super) fn entangled(&self) -> &Row<Rank, ClaimKey, Entangled> {
        &self.entangled
    }

    /// Whether any claim in it fits beside others who have this much of the lock and use it as
    /// `shape`. It is told without a look at each, as far as that is possible.
    pub(super) fn all_fit(&self, shape: Shape, taken: u64) -> bool {
        let fits = taken + self.share_max <= shape.capacity() && self.shape == Some(shape);
        fits || taken == 0 || self.is_empty()
    }

    /// The one that the next of its kind ends.
    pub(super) fn superseding(&self) -> Option<ClaimKey> {
        self.superseding
    }

    #[cfg(test)]
    pub(super) fn share_max(&self) -> u64 {
        self.share_max
    }

    /// Whether each conversion in it is of an owner that has nothing else, of no other lock.
    pub(super) fn converts_pairs_only(&self) -> bool {
        self.conversions == self.pairs
    }

    /// Whether anybody in it is told of changes.
    pub(super) fn has_listeners(&self) -> bool {
        self.told > 0
    }

    /// A claim enters at the place that its ticket, or its right to go first, gives it. Says whether
    /// others stand behind it.
    pub(super) fn enter(
        &mut self,
        arena: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        flags: WaiterFlags,
    ) -> bool {
        let rank = |node: &ClaimNode| requests.rank(node.request);
        let next = self.claims.add(arena, claim, rank);
        self.conversions += u32::from(flags.converts);
        self.pairs += u32::from(flags.is_pair);
        arena[claim].place = match next {
            None => u32::try_from(self.claims.len()).unwrap_or(u32::MAX),
            Some(next) if flags.converts && !requests[arena[next].request].is_conversion() => {
                self.conversions
            }
            // Only a bound until the places are told; but not zero, for it is in the queue.
            Some(next) => arena[next].place,
        };
        if flags.entangled {
            self.entangled.add(arena, claim, rank);
        }
        if self.has_away() {
            self.away.come_back(arena, requests, claim);
        }
        self.told += u32::from(flags.told);
        let mode = arena[claim].mode;
        self.share_max = self.share_max.max(share(mode));
        if flags.supersedes {
            self.superseding = Some(claim);
        }
        let is_first = self.claims.len() == 1;
        let is_same = is_first || self.shape == Some(Shape::of(mode));
        self.shape = is_same.then_some(Shape::of(mode));
        next.is_some()
    }

    pub(super) fn leave(
        &mut self,
        arena: &mut ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
        flags: WaiterFlags,
    ) {
        if self.has_away() {
            self.away.leave(arena, requests, claim);
        }
        let rank = |node: &ClaimNode| requests.rank(node.request);
        self.claims.remove(arena, claim, rank);
        if flags.entangled {
            self.entangled.remove(arena, claim, rank);
        }
        if self.superseding == Some(claim) {
            self.superseding = None;
        }
        self.told -= u32::from(flags.told);
        self.conversions -= u32::from(flags.converts);
        self.pairs -= u32::from(flags.is_pair);
        arena[claim].place = 0;
        if self.claims.is_empty() {
            self.share_max = 0;
        }
    }

    #[cfg(test)]
    pub(super) fn pairs(&self) -> usize {
        self.pairs as usize
    }

    #[cfg(test)]
    pub(super) fn invariant(&self, arena: &ClaimArena, requests: &Requests) {
        let rank = |node: &ClaimNode| requests.rank(node.request);
        self.claims.invariant(arena, rank);
        self.entangled.invariant(arena, rank);
        let supersedes = |claim: &ClaimKey| requests[arena[*claim].request].supersedes();
        let superseding: Vec<ClaimKey> = self.claims.iter(arena).filter(supersedes).collect();
        assert_eq!(superseding, Vec::from_iter(self.superseding), "who supersedes others");
        if let Some(shape) = self.shape {
            let is_same = |claim: ClaimKey| Shape::of(arena[claim].mode) == shape;
            assert!(self.claims.iter(arena).all(is_same), "claims in a queue differ");
        }
        let converts = |claim: &ClaimKey| requests[arena[*claim].request].is_conversion();
        let conversions = self.claims.iter(arena).filter(converts).count();
        assert_eq!(conversions, self.conversions as usize, "conversions in a queue");
    }

    /// Those who are away.
    #[cfg(test)]
    pub(super) fn away(&self, arena: &ClaimArena, requests: &Requests) -> Vec<ClaimKey> {
        self.away.invariant(arena, requests, self.claims.iter(arena))
    }
}
