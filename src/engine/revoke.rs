//! Revocation by an operator (rule R11): it is put on record, then done.

use super::arena::RequestKey;
use super::delay::Parting;
use super::records::AfterRecord;
use super::request::State;
use super::session::Outcome;
use super::{Effect, Forfeit, LockTable, Rejection, RequestEvent};
use crate::types::{ConnectionId, FencingToken, LockName, LostReason};

impl LockTable {
    /// An operator wants a lock taken away from the holder with this token (rule R11). That is put on
    /// record first; also for what it converted, which whoever did not hear of the grant still has. If
    /// the lock is only kept, that ends at once: a crash forgets it, too.
    pub(super) fn ask_to_revoke(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: LockName,
        token: FencingToken,
    ) {
        let Some(request) = self.holder_with(&name, token) else {
            if self.end_keeping(connection, query_id, &name, token) {
                return;
            }
            let rejection = Rejection::NoSuchGrant { lock: name, token };
            self.effects.push(Effect::NotRevoked { connection, query_id, rejection });
            return;
        };
        if self.is_disk_behind() {
            let rejection = Rejection::DiskBehind;
            self.effects.push(Effect::NotRevoked { connection, query_id, rejection });
            return;
        }
        if let Some(replaced) =
            self.requests[request].more().replaced.filter(|before| *before != token)
        {
            self.record(Forfeit::Grant(replaced), AfterRecord::Nothing);
        }
        let revoke = AfterRecord::Revoke { connection, query_id, name, token };
        self.record(Forfeit::Grant(token), revoke);
    }

    /// It is on record that the lock is taken away, and with it all that this holder's request holds;
    /// unless it ended meanwhile.
    pub(super) fn revoke(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: LockName,
        token: FencingToken,
    ) {
        let Some(request) = self.holder_with(&name, token) else {
            let rejection = Rejection::NoSuchGrant { lock: name, token };
            self.effects.push(Effect::NotRevoked { connection, query_id, rejection });
            return;
        };
        let session = &self.sessions[self.requests[request].session];
        let (holder, identity) = (session.id, session.identity.clone());
        let others = self.granted_together(&name, token).filter(|other| **other != name);
        let others = others.cloned().collect();
        let reason = LostReason::Revoked;
        self.delay_locks(request, Parting::Revoked);
        let lost = RequestEvent::Lost { token, reason };
        self.finish_and_leave(request, Outcome::Lost(token, reason), lost);
        let lock = name;
        self.effects.push(Effect::Revoked {
            connection,
            query_id,
            lock,
            others,
            token,
            holder,
            identity,
        });
        self.settle();
    }

    /// The request that holds the lock with this token.
    pub(super) fn holder_with(&self, name: &LockName, token: FencingToken) -> Option<RequestKey> {
        let lock = self.locks.find(name.as_str())?;
        let claim = self.locks.seek_holder(lock, &self.claims, &self.requests, token)?;
        let request = self.claims[claim].request;
        (self.requests[request].state == State::Held { token }).then_some(request)
    }
}
