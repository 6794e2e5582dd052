//! Holdings of owners: what they have of each lock, kept for those with many requests.

use super::LockTable;
use super::arena::{OwnerKey, RequestKey};
use super::claim::ClaimNode;
use super::owner::{Hold, Holdings, Owner, REQUESTS_LOOKED_THROUGH_MAX};
use super::request::Live;
use super::shape::share;

impl LockTable {
    /// From now on it is kept what the owner holds, if it has too many requests to look through.
    pub(super) fn note_holdings_of_many(&mut self, owner: OwnerKey) {
        let Owner { requests, holdings, .. } = &self.owners[owner];
        if requests.len() <= REQUESTS_LOOKED_THROUGH_MAX || holdings.is_some() {
            return;
        }
        self.owners[owner].holdings = Some(Box::new(self.holdings_of(owner)));
    }

    /// What an owner holds, looked for among its requests.
    #[cold]
    pub(super) fn holdings_of(&self, owner: OwnerKey) -> Holdings {
        let mut holdings = Holdings::default();
        for request in self.owners[owner].requests.iter(&self.requests.arena) {
            let Some(token) = self.requests[request].token() else { continue };
            for claim in self.claims_of(request) {
                let ClaimNode { lock, mode, .. } = self.claims[claim];
                holdings.add(lock, token, share(mode));
            }
        }
        holdings
    }

    /// A request of an owner begins to hold, or ends: that is noted with its locks, and where it is kept
    /// what owners hold.
    pub(super) fn change_holdings(&mut self, owner: OwnerKey, request: RequestKey, hold: Hold) {
        let Live { first, .. } = self.requests[request];
        let Some(token) = self.requests[request].token() else { return };
        self.each_claim(first, |table, claim, lock| {
            let mode = table.claims[claim].mode;
            table.locks[lock].change_owned(mode, hold);
            let Some(holdings) = table.owners[owner].holdings.as_deref_mut() else { return };
            match hold {
                Hold::Begins => holdings.add(lock, token, share(mode)),
                Hold::Ends => holdings.remove(lock, token, share(mode)),
            }
        });
    }
}
