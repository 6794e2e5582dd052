//! Passing over who is away: queues hear of sessions that go and come, and who is granted meanwhile
//! (rule S8).

use super::LockTable;
use super::arena::{ClaimKey, OwnerKey, RequestKey, SessionKey};
use super::claim::ClaimNode;
use super::session::{Moving, Presence};
use crate::types::RequestId;

/// What it costs to look who is the next in line of a lock now, in steps.
const SETTLE_STEPS: u64 = 2;

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
    /// It gives back what it is granted sooner or later, so they lose nothing by it. An exception
    /// is one whose owner waits for something else as well. Of those who are away, one might have
    /// to wait for it when it is back, and it for that one. So such a request waits with them.
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
