//! Those who want to hear of what happens beside the clients whom it concerns: they watch a lock, or
//! listen to everything (rule R10). While there are none, that costs a look or two.

use std::hash::BuildHasher;

use super::arena::{LockKey, RequestKey, SessionKey};
use super::event::Request;
use super::lock::ClaimNode;
use super::request::Live;
use super::session::Outcome;
use super::{Effect, Happening, LockTable, News};
use crate::types::{Claim, LockName, RequestId};

impl<S: BuildHasher + Clone> LockTable<S> {
    /// Whether somebody wants to hear of everything that happens to requests, as
    /// [`Effect::Happened`].
    pub fn listen(&mut self, somebody_listens: bool) {
        self.has_listeners = somebody_listens;
    }

    /// Somebody wants to hear whenever the holders of this lock change, as
    /// [`Effect::HoldersChanged`], until [`LockTable::unwatch`]. The lock may be free.
    pub fn watch(&mut self, lock: LockName) {
        self.locks.watch(lock);
    }

    /// Nobody wants to hear of this lock any more.
    pub fn unwatch(&mut self, lock: &LockName) {
        self.locks.unwatch(lock);
    }

    /// The lock has other holders than before, or has them otherwise.
    pub(super) fn holders_changed(&mut self, lock: LockKey) {
        if self.locks[lock].is_watched {
            self.note_change(lock);
        }
    }

    /// A lock that is watched has changed.
    #[cold]
    fn note_change(&mut self, lock: LockKey) {
        self.changed.push(self.locks[lock].name.clone());
    }

    /// Tells those who watch, once for each lock.
    pub(super) fn tell_watchers(&mut self) {
        if !self.changed.is_empty() {
            self.changed.sort_unstable();
            self.changed.dedup();
            let changed = self.changed.drain(..);
            self.effects.extend(changed.map(|lock| Effect::HoldersChanged { lock }));
        }
    }

    /// Something happened to a live request.
    pub(super) fn happened(&mut self, request: RequestKey, what: impl FnOnce() -> Happening) {
        if !self.has_listeners {
            return;
        }
        let Live { session, id, .. } = self.requests[request];
        let claims = self.claims_of(request).map(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            Claim { name: self.locks[lock].name.clone(), mode }
        });
        let claims = claims.collect();
        self.happened_to(session, id, claims, what());
    }

    /// Something happened to a request that is not live.
    pub(super) fn let_hear(
        &mut self,
        session: SessionKey,
        request: &Request,
        what: impl FnOnce() -> Happening,
    ) {
        if self.has_listeners {
            let claims = request.claims.as_slice().to_vec();
            self.happened_to(session, request.id, claims, what());
        }
    }

    /// Tells those who listen.
    fn happened_to(
        &mut self,
        session: SessionKey,
        request: RequestId,
        claims: Vec<Claim>,
        what: Happening,
    ) {
        let (id, identity) = (self.sessions[session].id, self.sessions[session].identity.clone());
        self.effects.push(Effect::Happened { session: id, identity, request, claims, what });
    }
}

impl Happening {
    /// The end of a request.
    pub(super) fn end(outcome: Outcome, news: &News) -> Self {
        match (outcome, news) {
            (Outcome::Released(token), _) => Self::Released { token },
            (Outcome::Cancelled, _) => Self::Cancelled,
            (Outcome::Lost(token, reason), _) => Self::Lost { token, reason },
            (Outcome::Rejected(_), News::Rejected(rejection)) => Self::Rejected(rejection.clone()),
            (Outcome::Rejected(code), _) => Self::Rejected(super::Rejection::AsBefore(code)),
        }
    }
}
