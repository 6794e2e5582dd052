//! How a run goes on with the table of one that crashed, as a replay has left it (rules J4, J8).
//!
//! Every connection broke at once, and nobody is to blame: leases begin anew, in full; holders hold and
//! waiters wait, each at its place, and count as present although they have yet to come back (rule S8).
//! All that is held is known, so no grace period is needed; one that was going on begins anew.

use std::hash::BuildHasher;

use super::arena::SessionKey;
use super::{EndReason, LockTable, Run};

impl<S: BuildHasher + Clone> LockTable<S> {
    /// Another run goes on with this table.
    pub(super) fn go_on_in(&mut self, run: &Run) {
        self.limits = run.limits;
        self.tokens.go_on_in(run);
        self.draining = false;
        (self.grants, self.expired) = (0, 0);
        let sessions: Vec<SessionKey> = self.sessions.keys().collect();
        for key in sessions {
            self.lose_connection(key);
        }
        if self.grace_until.is_some() {
            // Who was about to reclaim comes once more, and from further away.
            self.set_grace(self.now.after(self.longest_belief()));
        }
        self.record_again();
        if self.may_grant() {
            self.retry_starved();
        }
        self.go_on();
    }

    /// The process that a session's client was connected to is gone: it has its whole lease to come
    /// back, whatever it said of connections that break.
    fn lose_connection(&mut self, key: SessionKey) {
        let connection = self.sessions[key].connection;
        if self.sessions[key].unheard.is_some() {
            // It was not welcomed, so its client knows of none.
            return self.end_session(key, EndReason::Disconnected);
        }
        if let Some(connection) = connection {
            self.sessions.let_go(connection);
        }
        self.sessions[key].renew(self.now);
    }
}
