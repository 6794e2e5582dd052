//! Disconnected waiters: those of a queue whose session has no connection at the moment (*away*,
//! rule S8).
//!
//! They keep their places and are granted nothing until they are back. The waiters behind them are
//! served meanwhile (no head-of-line blocking). The next in line is the first waiter that is *not*
//! away. It must be found without a walk, because a hundred thousand may be away at the head of a
//! queue.
//!
//! The queue keeps *runs*: neighbours that are all away are one entry, with the first and the last
//! of them (interval set). A waiter that goes or returns makes a run longer, cuts it in two, or
//! joins two. A queue without disconnected waiters has no runs, and costs one look.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::arena::ClaimKey;
use super::claim::{ClaimArena, ClaimNode};
use super::request::{Rank, Requests};

/// Those in a queue who are away, in runs.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Away {
    /// By the rank of the first of a run: the last. Invariant: whoever stands between them is away,
    /// and whoever stands beside them is not.
    runs: BTreeMap<Rank, ClaimKey>,
}

impl Away {
    pub(super) const NOBODY: Self = Self { runs: BTreeMap::new() };

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The first who is not away, of a queue that begins with `head`.
    pub(super) fn first_present(
        &self,
        arena: &ClaimArena,
        requests: &Requests,
        head: ClaimKey,
    ) -> Option<ClaimKey> {
        match self.runs.first_key_value() {
            Some((first, last)) if *first == rank(arena, requests, head) => arena[*last].next(),
            Some(_) | None => Some(head),
        }
    }

    /// Whether one in the queue is away.
    pub(super) fn contains(
        &self,
        arena: &ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
    ) -> bool {
        self.run_of(arena, requests, claim).is_some()
    }

    /// The run that one is in: the rank of its first, and its last.
    fn run_of(
        &self,
        arena: &ClaimArena,
        requests: &Requests,
        claim: ClaimKey,
    ) -> Option<(Rank, ClaimKey)> {
        let own = rank(arena, requests, claim);
        let (first, last) = self.runs.range(..=own).next_back()?;
        (own <= rank(arena, requests, *last)).then_some((*first, *last))
    }

    /// One in the queue, who is not away, goes.
    pub(super) fn go(&mut self, arena: &ClaimArena, requests: &Requests, claim: ClaimKey) {
        let own = rank(arena, requests, claim);
        let before = self.runs.range(..own).next_back();
        let joined = before.filter(|(_, last)| arena[**last].next() == Some(claim));
        let first = joined.map_or(own, |(first, _)| *first);
        let next = arena[claim].next().map(|next| rank(arena, requests, next));
        let last = next.and_then(|next| self.runs.remove(&next)).unwrap_or(claim);
        self.runs.insert(first, last);
    }

    /// One in the queue is back, or has just come into it, perhaps among those who are away: it is not
    /// one of them.
    pub(super) fn come_back(&mut self, arena: &ClaimArena, requests: &Requests, claim: ClaimKey) {
        let Some((first, last)) = self.run_of(arena, requests, claim) else { return };
        match arena[claim].prev() {
            Some(prev) if first != rank(arena, requests, claim) => {
                self.runs.insert(first, prev);
            }
            Some(_) | None => {
                self.runs.remove(&first);
            }
        }
        if let Some(next) = arena[claim].next().filter(|_| last != claim) {
            self.runs.insert(rank(arena, requests, next), last);
        }
    }

    /// One is about to leave the queue. Those on both sides of it are one run then.
    pub(super) fn leave(&mut self, arena: &ClaimArena, requests: &Requests, claim: ClaimKey) {
        if !self.contains(arena, requests, claim) {
            self.go(arena, requests, claim);
        }
        let Some((first, last)) = self.run_of(arena, requests, claim) else { return };
        let is_first = first == rank(arena, requests, claim);
        match (arena[claim].prev(), arena[claim].next()) {
            _ if is_first && last == claim => {
                self.runs.remove(&first);
            }
            (_, Some(next)) if is_first => {
                self.runs.remove(&first);
                self.runs.insert(rank(arena, requests, next), last);
            }
            (Some(prev), _) if last == claim => {
                self.runs.insert(first, prev);
            }
            (_, _) => {}
        }
    }

    /// Panics if a run is not one. Says who is away.
    #[cfg(test)]
    pub(super) fn invariant(
        &self,
        arena: &ClaimArena,
        requests: &Requests,
        queue: impl Iterator<Item = ClaimKey>,
    ) -> Vec<ClaimKey> {
        let (mut away, mut runs, mut last) = (Vec::new(), 0, None);
        let mut is_beside = false;
        for claim in queue {
            if let Some(end) = self.runs.get(&rank(arena, requests, claim)) {
                assert!(last.is_none(), "a run in a run");
                assert!(!is_beside, "two runs side by side");
                (runs, last) = (runs + 1, Some(*end));
            }
            is_beside = last.is_some();
            if last.is_some() {
                away.push(claim);
            }
            last = last.filter(|last| *last != claim);
        }
        assert!(last.is_none(), "a run without an end");
        assert_eq!(runs, self.runs.len(), "runs of the queue, and runs that there are");
        away
    }
}

fn rank(arena: &ClaimArena, requests: &Requests, claim: ClaimKey) -> Rank {
    let ClaimNode { request, .. } = arena[claim];
    requests.rank(request)
}

#[cfg(test)]
mod tests;
