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

use super::LockTable;
use super::arena::{ClaimKey, OwnerKey, RequestKey, SessionKey};
use super::lock::{ClaimArena, ClaimNode};
use super::queue::Presence;
use super::request::{Rank, Requests};
use crate::types::RequestId;

/// What it costs to look who is the next in line of a lock now, in steps.
const SETTLE_STEPS: u64 = 2;

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

/// Whether a session's going or coming is yet to be noted in queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Moving {
    /// It is noted.
    No,
    /// It is being noted.
    Once,
    /// It went or came again meanwhile.
    Again,
}

impl LockTable {
    /// A session went away, or came back. That is noted in the queues in which it waits, as far as the
    /// event at hand may, and the rest is put off.
    pub(super) fn went_or_came(&mut self, key: SessionKey) {
        let session = &mut self.sessions[key];
        if session.requests.len() == session.held {
            return;
        }
        if session.moving == Moving::No {
            session.moving = Moving::Once;
            let id = session.id;
            self.deferred.mark_later(id, RequestId::new(0));
        } else {
            session.moving = Moving::Again;
        }
        self.mark_moved();
    }

    /// Whether a session went away, which is yet to be noted in queues: then who is behind it is granted
    /// what it is not.
    pub(super) fn is_gone(&self, session: SessionKey) -> bool {
        self.deferred.has_moved() && self.sessions[session].presence() == Presence::Away
    }

    /// Notes who went or came.
    pub(super) fn mark_moved(&mut self) {
        while let Some((id, from)) = self.deferred.next_moved() {
            self.deferred.charge(1);
            let Some(session) = self.sessions.find(id) else { continue };
            let next = match self.mark_requests(session, from) {
                Some(next) => next,
                None if self.sessions[session].moving == Moving::Again => {
                    self.sessions[session].moving = Moving::Once;
                    RequestId::new(0)
                }
                None => {
                    self.sessions[session].moving = Moving::No;
                    continue;
                }
            };
            self.deferred.mark_later(id, next);
        }
    }

    /// Notes it of a session's requests, from one on. Says where to go on, if that is not all.
    fn mark_requests(&mut self, session: SessionKey, from: RequestId) -> Option<RequestId> {
        let presence = self.sessions[session].presence();
        let requests = &self.sessions[session].requests;
        let mut next = requests.seek(&self.requests.arena, from, |live| live.id);
        while let Some(request) = next {
            if self.deferred.is_spent() {
                return Some(self.requests[request].id);
            }
            self.deferred.charge(1);
            next = self.requests[request].next_of_session();
            if !self.requests[request].is_held() {
                self.mark_claims(request, presence);
            }
        }
        None
    }

    fn mark_claims(&mut self, request: RequestKey, presence: Presence) {
        self.each_claim(self.requests[request].first, |table, claim, lock| {
            let Self { locks, claims, requests, .. } = table;
            if locks.mark(lock, claims, requests, claim, presence) {
                table.deferred.charge(SETTLE_STEPS);
                table.unsettle(lock);
            }
        });
    }

    /// Whether only those stand before a claim who are away, and its request may pass them.
    ///
    /// It gives back what it is granted sooner or later, so they lose nothing by it; but for one whose
    /// owner waits for something else as well. Of those who are away, one might have to wait for it when
    /// it is back, and it for that one: so such a request waits with them.
    #[cold]
    pub(super) fn passes_the_away(&self, claim: ClaimKey) -> bool {
        let ClaimNode { lock, request, .. } = self.claims[claim];
        let next = self.locks.first_present(lock, &self.claims, &self.requests);
        let is_next = match next.map(|next| self.claims[next].request) {
            Some(next) if !self.claims[claim].is_queued() => {
                self.requests[request].is_conversion() && !self.requests[next].is_conversion()
            }
            Some(next) => self.rank(request) <= self.rank(next),
            None => true,
        };
        is_next && self.waits_for_nothing_else(request)
    }

    fn waits_for_nothing_else(&self, request: RequestKey) -> bool {
        let Some(owner) = self.requests[request].owner() else { return true };
        let first = self.requests[request].first;
        let itself = first.is_some_and(|first| self.claims[first].is_queued());
        self.owners[owner].waiting == usize::from(itself)
    }

    /// A request has entered its queues: its owner waits for more.
    pub(super) fn waits_for_more(&mut self, request: RequestKey) {
        let Some(owner) = self.requests[request].owner() else { return };
        let owner = &mut self.owners[owner];
        owner.waiting += 1;
        owner.requests.remove(&mut self.requests.arena, request);
        owner.requests.push_front(&mut self.requests.arena, request);
    }

    /// A request is about to leave its queues. If its owner waits for one other thing still, that may
    /// pass who is away.
    pub(super) fn waits_for_less(&mut self, request: RequestKey, owner: OwnerKey) {
        let owner = &mut self.owners[owner];
        owner.waiting -= 1;
        owner.requests.remove(&mut self.requests.arena, request);
        owner.requests.push_back(&mut self.requests.arena, request);
        if owner.waiting != 1 {
            return;
        }
        let last = owner.requests.head().and_then(|last| self.requests[last].first);
        self.each_claim(last, |table, _, lock| {
            if table.locks.queue(lock).has_away() {
                table.unsettle(lock);
            }
        });
    }
}

#[cfg(test)]
mod tests;
