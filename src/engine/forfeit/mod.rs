//! Forfeits (tombstones): losses that are on record before the lock passes on (rule G1).
//!
//! After a crash, clients reclaim their locks. A client whose session had ended, or whose grant had
//! been revoked, must not: another may have had the lock meanwhile. That end is therefore written
//! down first (write-ahead), and only then does the lock pass on. Until then it is *in limbo*:
//! held, by nobody.
//!
//! *Bounded.* A record is of use for as long as its client may believe in a lease. A million
//! sessions that end in that time would be a million records. No more than [`RECORDS_MAX`](super::RECORDS_MAX) are
//! kept. Then the older half is folded into one, which says up to which token nothing may be
//! reclaimed. Exclusion is as before. A crash in that time costs the holds that are older than
//! that.

use super::arena::SessionKey;
use super::delay::Parting;
use super::records::{AfterRecord, Folded};
use super::{Effect, Forfeit, LockTable};
use crate::types::{ConnectionId, FencingToken, Timestamp};

/// No revocation is added to so much that waits for the disk already.
pub const REVOCATIONS_WAITING_MAX: usize = 1 << 14;

impl LockTable {
    /// Has a forfeit written down, and something done then.
    pub(super) fn record(&mut self, forfeit: Forfeit, then: AfterRecord) {
        self.forget_old_records();
        if self.records.is_full() {
            self.fold_records();
        }
        let up_to = match (forfeit, &then) {
            (Forfeit::Grant(token) | Forfeit::UpTo(token), _) => token,
            (Forfeit::Session(_), AfterRecord::Session(session)) => self.latest_held_by(*session),
            (Forfeit::Session(_), AfterRecord::Nothing | AfterRecord::Revoke { .. }) => {
                self.tokens.latest()
            }
        };
        self.write_down(forfeit, up_to, self.now.after(self.longest_belief()), then);
    }

    fn write_down(
        &mut self,
        forfeit: Forfeit,
        up_to: FencingToken,
        useful_until: Timestamp,
        then: AfterRecord,
    ) {
        let number = self.records.add(forfeit, up_to, useful_until, then);
        self.effects.push(Effect::Record { number, forfeit });
    }

    /// Takes over the records of earlier runs. How long their leases were is not known any more, nor
    /// which tokens they are about, but that they are of those runs.
    pub(super) fn remember_earlier_records(&mut self, count: usize, last: u64, until: Timestamp) {
        let up_to = FencingToken::new(self.this_run.first_token().number().saturating_sub(1));
        self.records.add_earlier(count, last, up_to, until);
    }

    /// One record says what the older half of them did, and is of use for as long as any of those.
    fn fold_records(&mut self) {
        let Some(Folded { useful_until, up_to, below }) = self.records.fold() else { return };
        // In this order: they are not forgotten before it is on record.
        self.write_down(Forfeit::UpTo(up_to), up_to, useful_until, AfterRecord::Nothing);
        self.effects.push(Effect::ForgetRecords { below });
    }

    /// The greatest token of what a session holds.
    fn latest_held_by(&self, session: SessionKey) -> FencingToken {
        let held = self.sessions[session].requests.iter(&self.requests.arena);
        let tokens = held.filter_map(|request| self.requests[request].token());
        tokens.max().unwrap_or_default()
    }

    /// Whether so much waits for the disk that no revocation may be added: of those there can be any
    /// number, even of one grant.
    pub(super) fn is_disk_behind(&self) -> bool {
        self.records.pending() >= REVOCATIONS_WAITING_MAX
    }

    /// The oldest forfeits are on record: does what waited for that.
    pub(super) fn recorded(&mut self, count: usize) {
        for _ in 0..count {
            match self.records.recorded() {
                Some(AfterRecord::Nothing) => {}
                Some(AfterRecord::Session(session)) => self.pass_on(session),
                Some(AfterRecord::Revoke { connection, query_id, name, token }) => {
                    self.grace.forfeit(Forfeit::Grant(token));
                    self.revoke(connection, query_id, name, token);
                }
                None => return,
            }
        }
    }

    /// What a session that is over held becomes free.
    fn pass_on(&mut self, session: SessionKey) {
        while let Some(request) = self.sessions[session].requests.head() {
            self.delay_locks(request, Parting::Lost);
            self.take_out(request);
        }
        self.sessions.forget(session);
        self.settle();
    }

    /// Asks for all that is on its way to the disk once more: nobody knows whether the run before got
    /// it there. Operators who asked for some of that are gone, and others may have their connections'
    /// numbers.
    pub(super) fn record_again(&mut self) {
        for then in self.records.to_happen_mut() {
            if let AfterRecord::Revoke { connection, .. } = then {
                *connection = ConnectionId::default();
            }
        }
        let again = self.records.on_their_way();
        let again = again.map(|(number, forfeit)| Effect::Record { number, forfeit });
        self.effects.extend(again);
    }

    fn forget_old_records(&mut self) {
        let below = self.records.forget_old(self.now);
        self.effects.extend(below.map(|below| Effect::ForgetRecords { below }));
    }
}

#[cfg(test)]
mod tests;
