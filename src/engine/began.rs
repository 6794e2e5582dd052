//! How a run goes on with the table of one that crashed, as a replay has left it (rules J4, J8).
//!
//! Every connection broke at once, and no client is to blame. Leases begin anew, in full. Holders
//! hold and waiters wait, each at its place. They count as present although they have yet to return
//! (rule S8). All holds are known, so no grace period is needed. One that was going on begins anew.

use super::arena::SessionKey;
use super::{EndReason, LockTable, Run, Tally};
use crate::types::{Epoch, lease};

impl LockTable {
    /// Another run goes on with this table.
    pub(super) fn go_on_in(&mut self, run: &Run) {
        self.limits = run.limits;
        let before = self.tokens.epoch();
        self.tokens.go_on_in(run);
        // Of runs between the two this table knows nothing: there are none, unless it is an old copy.
        self.this_run.goes_on_after(Epoch::new(before.number() + 1)..self.tokens.epoch());
        self.draining = false;
        (self.grants, self.expired, self.tally) = (0, 0, Tally::default());
        let sessions: Vec<SessionKey> = self.sessions.keys().collect();
        for key in sessions {
            self.lose_connection(key);
        }
        if self.grace.is_on() {
            // Who was about to reclaim comes once more, and from further away.
            self.set_grace(self.now.after(self.longest_belief()));
        }
        self.record_again();
        if self.may_grant() {
            self.retry_starved();
        }
        self.go_on();
    }

    /// A client has shown a proof of a later run, of which this table knows nothing. So the table
    /// is an old copy, and what it says of locks may be wrong (rule J9). Nobody is granted anything
    /// until whoever holds something by such a proof has had the time to reclaim it.
    ///
    /// Said once in a run, and only by who has a proof: nobody else can make the others wait.
    pub(super) fn heed_unknown_run(&mut self, proved_in: Epoch) {
        if !self.this_run.is_unknown(proved_in) {
            return;
        }
        self.this_run.distrusts_its_copy(self.epoch(), self.tokens.latest().next());
        let longest = lease::grace(self.limits.ttl_max.length()).max(self.longest_belief());
        self.set_grace(self.now.after(longest));
    }

    /// The process that a session's client was connected to is gone. The client has its whole lease
    /// to come back, whatever it said of connections that break.
    fn lose_connection(&mut self, key: SessionKey) {
        let connection = self.sessions[key].connection;
        if self.sessions[key].unattended.is_some() {
            return self.lose_waiter(key);
        }
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
