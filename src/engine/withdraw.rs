//! Withdrawal: a request that waits is not allowed any more. Whether it is, the engine is told.

use super::event::Command;
use super::session::Outcome;
use super::{LockTable, Rejection, RequestEvent};
use crate::types::{RequestId, SessionId};

impl LockTable {
    /// Takes a request out of its queues, whether its session has a connection or not. What is held stays.
    ///
    /// Nobody is granted anything by that yet. Of several that are withdrawn, one might be granted what
    /// another leaves; so queues are looked at by the next event that is none of these, which is due at once.
    pub(super) fn withdraw(&mut self, session: SessionId, request: RequestId) {
        #[cfg(test)]
        (self.deferred.is_withholding = true);
        let Some(session) = self.sessions.find(session) else { return };
        for command in self.sessions[session].unheard.iter_mut().flatten() {
            if matches!(command, Command::Request(asked) if asked.id == request) {
                *command = Command::Unparsed { request, rejection: Rejection::Forbidden };
            }
        }
        let Some(request) = self.requests.find(session, request) else { return };
        if !self.requests[request].is_held() {
            let rejection = Rejection::Forbidden;
            let outcome = Outcome::Rejected(rejection.code());
            self.finish(request, outcome, RequestEvent::Rejected(rejection));
        }
    }
}
