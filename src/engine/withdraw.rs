//! Withdrawal: a request that waits is not allowed any more. Whether it is, the engine is told.
//!
//! There may be millions that wait, and when rules change, whoever knows them looks through all of them, in
//! slices. Meanwhile the table *withholds*: queues are put off, so nobody is granted anything that it has
//! waited for. That is a deferral like any other, and changes no answer (`catch_up.rs`): a lock whose queue
//! is put off has a waiter at its head, and later requests stand behind it.

use super::event::Command;
use super::session::Outcome;
use super::{LockTable, Rejection, RequestEvent};
use crate::types::{RequestId, SessionId};

impl LockTable {
    /// Takes a request out of its queues, whether its session has a connection or not. What is held stays.
    pub(super) fn withdraw(&mut self, session: SessionId, request: RequestId) {
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
            self.finish_and_leave(request, outcome, RequestEvent::Rejected(rejection));
            self.settle();
        }
    }

    /// Goes on with what was put off while it was withheld.
    pub(super) fn proceed(&mut self) {
        if self.deferred.withholds() {
            self.deferred.withhold_no_more();
            self.welcome_the_covered();
            self.go_on();
        }
    }

    /// Whether what waits is granted nothing now, for it is yet to be looked through.
    pub fn is_withholding(&self) -> bool {
        self.deferred.withholds()
    }
}
