//! Watchers of locks and listeners to events, beside the clients concerned (rule R10). While there
//! are none, they cost a look or two.

use std::mem;
use std::time::Duration;

use super::arena::{LockKey, RequestKey, SessionKey};
use super::claim::ClaimNode;
use super::event::Request;
use super::request::Live;
use super::request_event::{Happened, LONG_TENURE, Listening, RequestEvent, Tenure};
use super::session::Session;
use super::{Effect, LockTable};
use crate::types::{Claim, FencingToken, LockName, RequestId, SessionId};

impl LockTable {
    /// What somebody wants to hear of, as [`Effect::Happened`].
    pub fn listen(&mut self, listening: Listening) {
        self.audience.listening = listening;
    }

    /// From now on, those who listen to tenures hear of none of this session but long ones; its grants
    /// are counted instead.
    pub fn hush(&mut self, session: SessionId) {
        if let Some(key) = self.sessions.find(session) {
            self.sessions[key].untold.get_or_insert(0);
        }
    }

    /// Ends that; says how many grants of this session were counted instead of told.
    pub fn unhush(&mut self, session: SessionId) -> u64 {
        let key = self.sessions.find(session);
        key.and_then(|key| self.sessions[key].untold.take()).unwrap_or(0)
    }

    /// The same for those that ended meanwhile, all together.
    pub fn take_untold_of_ended(&mut self) -> u64 {
        mem::take(&mut self.audience.untold_of_ended)
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
        self.audience.note_change(self.locks[lock].name.clone());
    }

    /// Tells those who watch, once for each lock.
    pub(super) fn tell_watchers(&mut self) {
        if self.audience.has_changes() {
            let changed = self.audience.take_changes();
            self.effects.extend(changed.map(|lock| Effect::HoldersChanged { lock }));
        }
    }

    /// A request was granted: its tenure begins.
    pub(super) fn tenure_began(&mut self, request: RequestKey, token: FencingToken) {
        if self.audience.listening == Listening::Nothing {
            return;
        }
        let live = &mut self.requests[request];
        let untold = &mut self.sessions[live.session].untold;
        live.is_noted = untold.is_none();
        if let Some(untold) = untold {
            *untold += 1;
        }
        if live.is_noted || self.audience.listening == Listening::Everything {
            let tenure = Tenure { token, lasted: Duration::ZERO, is_noted: live.is_noted };
            self.tell_happened(request, RequestEvent::Granted { token }, Some(tenure));
        }
    }

    /// Something else happened to a live request.
    pub(super) fn happened(&mut self, request: RequestKey, what: impl FnOnce() -> RequestEvent) {
        let live = &self.requests[request];
        let is_told = match self.audience.listening {
            Listening::Nothing => false,
            Listening::Tenures => live.is_held() && self.is_noted(live),
            Listening::Everything => true,
        };
        if is_told {
            let end = |token| {
                let lasted = self.now.since(live.since);
                Tenure { token, lasted, is_noted: self.is_noted(live) }
            };
            let tenure = live.token().map(end);
            self.tell_happened(request, what(), tenure);
        }
    }

    /// Whether those hear of the end of a tenure who listen to tenures only.
    fn is_noted(&self, live: &Live) -> bool {
        live.is_noted || self.now.since(live.since) >= LONG_TENURE
    }

    /// Tells those who listen of a live request.
    #[cold]
    fn tell_happened(&mut self, request: RequestKey, what: RequestEvent, tenure: Option<Tenure>) {
        let Live { session, id, .. } = self.requests[request];
        let claims = self.claims_of(request).map(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            Claim { name: self.locks[lock].name.clone(), mode }
        });
        let claims = claims.collect();
        self.happened_to(session, id, claims, what, tenure);
    }

    /// Something happened to a request that is not live.
    pub(super) fn let_hear(
        &mut self,
        session: SessionKey,
        request: &Request,
        what: impl FnOnce() -> RequestEvent,
    ) {
        if self.audience.listening == Listening::Everything {
            let claims = request.claims.as_slice().to_vec();
            self.happened_to(session, request.id, claims, what(), None);
        }
    }

    /// Tells those who listen.
    fn happened_to(
        &mut self,
        session: SessionKey,
        request: RequestId,
        claims: Vec<Claim>,
        what: RequestEvent,
        tenure: Option<Tenure>,
    ) {
        let Session { id, peer, ref identity, .. } = self.sessions[session];
        let identity = identity.clone();
        let happened = Happened { session: id, identity, peer, request, claims, what, tenure };
        self.effects.push(Effect::Happened(Box::new(happened)));
    }
}
