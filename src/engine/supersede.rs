//! Newest first, one pending (last writer wins, rule S10). A superseding request ends older ones
//! that wait for one of its locks and said the same. Holders, and waiters without that word, stay.
//!
//! Each queue has one such waiter at most, the newest, and knows it. A request therefore finds
//! those that it ends without a walk, no more than it has claims. It is decided as if they were
//! gone. If it is refused, they are where they were, and nothing has happened. If it is granted or
//! waits, they are answered.

use super::arena::{RequestKey, SessionKey};
use super::event::{Extras, Request, Supersede};
use super::request::{Live, State};
use super::session::Outcome;
use super::{LockTable, Rejection, RequestEvent};
use crate::types::LockName;

impl LockTable {
    /// Admits a request that wants something besides, which few do, or leaves no trace of it.
    #[cold]
    pub(super) fn admit_with(
        &mut self,
        session: SessionKey,
        request: &Request,
        extras: Extras,
    ) -> Result<(), Rejection> {
        self.check_room_to_keep(session, request.claims.as_slice().len(), extras.at_least)?;
        match extras.supersede {
            Supersede::Nobody => self.admit(session, request),
            Supersede::Older => self.supersede(session, request),
        }
    }

    /// Admits a request, and ends the older ones whose places it takes the sense of.
    fn supersede(&mut self, session: SessionKey, request: &Request) -> Result<(), Rejection> {
        let older = self.find_older(request)?;
        let in_doubt = self.deferred.has_suspects();
        for (waiter, _) in &older {
            self.leave_queues(*waiter);
        }
        let admitted = self.admit(session, request);
        for (waiter, lock) in older {
            if admitted.is_ok() {
                self.end_older(waiter, lock, session);
            } else {
                self.put_back(waiter);
                if in_doubt {
                    self.suspect(waiter);
                }
            }
        }
        admitted
    }

    /// Who waits in the queues that a request would enter, and ends by it; each once, with the lock.
    /// In a grace period some come back late: if one of them finds a newer one, it is the older.
    fn find_older(&self, request: &Request) -> Result<Vec<(RequestKey, LockName)>, Rejection> {
        let kept = self.place_kept(request.place);
        let mut older: Vec<(RequestKey, LockName)> = Vec::new();
        for claim in request.claims.as_slice() {
            let Some(lock) = self.locks.find(claim.name.as_str()) else { continue };
            let Some(waiter) = self.locks.queue(lock).superseding() else { continue };
            let waiter = self.claims[waiter].request;
            let Live { session, .. } = self.requests[waiter];
            if kept.is_some_and(|kept| kept < self.requests[waiter].ticket()) {
                return Err(self.superseded_by(session, claim.name.clone()));
            }
            if older.iter().all(|(other, _)| *other != waiter) {
                older.push((waiter, claim.name.clone()));
            }
        }
        Ok(older)
    }

    fn end_older(&mut self, waiter: RequestKey, lock: LockName, by: SessionKey) {
        let rejection = self.superseded_by(by, lock);
        let outcome = Outcome::Rejected(rejection.code());
        self.finish(waiter, outcome, RequestEvent::Rejected(rejection));
    }

    fn superseded_by(&self, newer: SessionKey, lock: LockName) -> Rejection {
        let newer = &self.sessions[newer];
        Rejection::Superseded { lock, session: newer.id, identity: newer.identity.clone() }
    }

    /// One that has left its queues is in them again, where it was.
    fn put_back(&mut self, waiter: RequestKey) {
        if let State::Waiting { ticket, deadline, .. } = self.requests[waiter].state {
            self.wait_in_queues(waiter, ticket, deadline);
        }
    }
}
