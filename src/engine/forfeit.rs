//! On record before it passes on (rule G1).
//!
//! After a crash, clients reclaim what they held. One whose session had ended, or whose grant had
//! been revoked, must not: somebody else may have had the lock meanwhile. So that end is written
//! down first, and only then does the lock pass on. Until then it is *in limbo*: held, by nobody.

use std::hash::BuildHasher;

use super::arena::SessionKey;
use super::{Effect, Forfeit, LockTable};
use crate::types::{ConnectionId, FencingToken, LockName};

/// What is to happen when it is on record.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum Limbo {
    /// Nothing yet: another record of the same end follows.
    Nothing,
    /// What the session held passes on.
    Session(SessionKey),
    /// A grant is revoked.
    Revoke {
        /// Who is to be answered.
        connection: ConnectionId,
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: LockName,
        /// The token of the grant.
        token: FencingToken,
    },
}

impl<S: BuildHasher + Clone> LockTable<S> {
    /// Has a forfeit written down, and something done then.
    pub(super) fn record(&mut self, forfeit: Forfeit, then: Limbo) {
        self.forget_old_records();
        let number = self.next_record;
        self.next_record += 1;
        self.remember_record(number);
        self.in_limbo.push_back(then);
        self.effects.push(Effect::Record { number, forfeit });
    }

    /// The oldest forfeits are on record: does what waited for that.
    pub(super) fn recorded(&mut self, count: usize) {
        for _ in 0..count {
            match self.in_limbo.pop_front() {
                Some(Limbo::Nothing) => {}
                Some(Limbo::Session(session)) => self.pass_on(session),
                Some(Limbo::Revoke { connection, query_id, name, token }) => {
                    if self.grace_until.is_some() {
                        self.forfeited.insert(Forfeit::Grant(token));
                    }
                    self.revoke(connection, query_id, name, token);
                }
                None => return,
            }
        }
    }

    /// What a session that is over held becomes free.
    fn pass_on(&mut self, session: SessionKey) {
        while let Some(request) = self.sessions[session].requests.head() {
            self.delay_locks(request);
            self.take_out(request);
        }
        self.sessions.forget(session);
        self.settle();
    }

    /// A record is of use as long as its client might believe in a lease: the longest that there is
    /// now, whatever comes later.
    pub(super) fn remember_record(&mut self, number: u64) {
        let useful_until = self.now.after(self.longest_belief());
        self.records.push_back((useful_until, number));
    }

    fn forget_old_records(&mut self) {
        let mut below = None;
        while let Some(&(useful_until, number)) = self.records.front() {
            if self.now <= useful_until {
                break;
            }
            self.records.pop_front();
            below = Some(number + 1);
        }
        self.effects.extend(below.map(|below| Effect::ForgetRecords { below }));
    }
}
