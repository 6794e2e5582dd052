//! Lock conversion (upgrade, downgrade): a held request gives way to another one for the same locks
//! in other modes.
//!
//! An upgrade from shared to exclusive is granted as soon as the other holders have left. The new
//! request stands before all waiters, and the converted one is held meanwhile. A downgrade from
//! exclusive to shared is granted at once, under the same token. Both are ordinary requests: they
//! wait, time out, are cancelled, repeated and found in a deadlock. Two shared holders that both
//! upgrade are a deadlock.
//!
//! Two requests are *partners* while one waits to convert the other. Nearly all requests have none.
//! The code for those that have one is `#[cold]`, out of the way of all others.

use super::arena::{LockKey, RequestKey, SessionKey};
use super::claim::ClaimNode;
use super::event::Request;
use super::owner::Hold;
use super::request::Live;
use super::session::Outcome;
use super::shape::{Shape, share};
use super::{LockTable, Rejection, RequestEvent};
use crate::types::{FencingToken, Mode, OwnerId, RequestId, Ticket, Timestamp};

impl LockTable {
    /// The request that `request` wants to convert, if it wants to, and if it can.
    pub(super) fn find_converted(
        &self,
        session: SessionKey,
        request: &Request,
    ) -> Result<Option<RequestKey>, Rejection> {
        let Some(converts) = request.converts else { return Ok(None) };
        let Some(converted) = self.requests.find(session, converts) else {
            return Err(Rejection::NothingToConvert { converts });
        };
        let live = &self.requests[converted];
        if !live.is_held() {
            return Err(Rejection::NothingToConvert { converts });
        }
        let claims = request.claims.as_slice();
        let claims_it = |claim| {
            let ClaimNode { lock, .. } = self.claims[claim];
            claims.iter().any(|asked| asked.name == self.locks[lock].name)
        };
        let as_many = self.claims_of(converted).count() == claims.len();
        let is_same = as_many && self.claims_of(converted).all(claims_it);
        if !is_same || request.owner != self.owner_of(converted) || live.partner().is_some() {
            return Err(Rejection::NotConvertible { converts });
        }
        Ok(Some(converted))
    }

    /// Who asked for a request, within its session.
    pub(super) fn owner_of(&self, request: RequestKey) -> OwnerId {
        let owner = self.requests[request].owner();
        owner.map_or(OwnerId::default(), |owner| self.owners[owner].id)
    }

    /// Makes a request and the one that it converts partners, of one owner. The held one is not
    /// given back before the other is granted.
    pub(super) fn pair(&mut self, request: RequestKey, converted: RequestKey) {
        if self.requests[converted].owner().is_none() {
            let owner = self.owners.add_unnamed(self.requests[request].session);
            for key in [converted, request] {
                self.requests[key].more_mut().owner = Some(owner);
                self.owners[owner].requests.push_back(&mut self.requests.arena, key);
            }
            self.change_holdings(owner, converted, Hold::Begins);
        } else if self.requests[request].owner().is_none() {
            // The converted one has an owner without a name, for it was to be converted before.
            let owner = self.requests[converted].owner();
            self.requests[request].more_mut().owner = owner;
            if let Some(owner) = owner {
                self.owners[owner].requests.push_back(&mut self.requests.arena, request);
            }
        }
        self.requests[request].more_mut().partner = Some(converted);
        self.requests[converted].more_mut().partner = Some(request);
    }

    /// Whether a request converts for an owner that has nothing else, of no other lock. The same as long
    /// as it waits.
    pub(super) fn is_pair(&self, request: RequestKey) -> bool {
        let live = &self.requests[request];
        live.is_conversion()
            && live.owner().is_some_and(|owner| self.owners[owner].is_unnamed())
            && live.first.is_some_and(|first| self.claims[first].sibling.is_none())
    }

    /// A conversion goes ahead of those who wait, who may then wait for ever, even if it is granted at
    /// once.
    pub(super) fn check_place_ahead(&mut self, request: RequestKey) -> Result<(), Rejection> {
        if !self.requests[request].is_conversion() {
            return Ok(());
        }
        self.check_conversion(request)
    }

    /// [`LockTable::check_place_ahead`] of one that converts another.
    #[cold]
    fn check_conversion(&mut self, request: RequestKey) -> Result<(), Rejection> {
        self.wait_in_queues(request, Ticket::default(), None);
        let cycle = self.find_deadlock(request);
        self.leave_queues(request);
        cycle.map_or(Ok(()), |cycle| Err(Rejection::Deadlock { cycle }))
    }

    /// What the request that a waiting one converts has of a lock: that is free for its partner.
    pub(super) fn converted_share(&self, request: RequestKey, lock: LockKey) -> u64 {
        let converted = self.requests[request].partner();
        converted.map_or(0, |converted| self.share_of(converted, lock))
    }

    /// How much of a lock's capacity a request claims.
    pub(super) fn share_of(&self, request: RequestKey, lock: LockKey) -> u64 {
        let claims = self.claims_of(request).map(|claim| &self.claims[claim]);
        claims.filter(|node| node.lock == lock).map(|node| share(node.mode)).sum()
    }

    /// The token of what a request converts, if it wants no more of any lock than that has: then
    /// nothing new is granted.
    pub(super) fn token_kept(&self, request: RequestKey) -> Option<FencingToken> {
        let converted = self.requests[request].partner()?;
        self.token_of_more(request, converted)
    }

    /// The token of a request, if it has as much of every lock as another wants.
    #[cold]
    fn token_of_more(&self, request: RequestKey, converted: RequestKey) -> Option<FencingToken> {
        let token = self.requests[converted].token()?;
        let wants_less = |claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            let had = self.share_of(converted, lock);
            // Whoever has all of it may make something else of it: nobody else has anything.
            let is_same =
                self.locks[lock].shape == Shape::of(mode) || had == share(Mode::Exclusive);
            is_same && share(mode) <= had
        };
        self.claims_of(request).all(wants_less).then_some(token)
    }

    /// What a request converts, if it does, ends without a word: its client hears of the grant. Says
    /// since when it was held.
    pub(super) fn give_way_to(&mut self, request: RequestKey) -> Option<Timestamp> {
        let converted = self.requests[request].partner()?;
        Some(self.replace(request, converted))
    }

    /// [`LockTable::give_way_to`] of one that converts another.
    #[cold]
    fn replace(&mut self, request: RequestKey, converted: RequestKey) -> Timestamp {
        self.requests[converted].more_mut().partner = None;
        let Live { session, id, since, .. } = self.requests[converted];
        let replaced = self.requests[converted].token();
        let more = self.requests[request].more_mut();
        (more.partner, more.replaced) = (None, replaced);
        let outcome = self.drop_silently(converted);
        self.sessions[session].remember(id, outcome, self.limits.finished_remembered);
        since
    }

    /// A request that has just taken the place of another goes on holding what that has held since then:
    /// it was not given back.
    #[cold]
    pub(super) fn go_on_holding(&mut self, request: RequestKey, since: Timestamp) {
        self.requests[request].since = since;
        self.tally.holds.take_back(self.micros_since(since));
        self.tally.releases -= 1;
    }

    /// One of two partners, of this id, is gone. A conversion without what it was to convert is
    /// rejected; what is held without its conversion is as it was before.
    pub(super) fn part_from(&mut self, partner: RequestKey, converts: RequestId) {
        let waits = !self.requests[partner].is_held();
        if waits {
            // As what it came: once it converts nothing, its places would be others.
            self.leave_queues(partner);
        }
        self.requests[partner].more_mut().partner = None;
        if waits {
            let rejection = Rejection::NothingToConvert { converts };
            let outcome = Outcome::Rejected(rejection.code());
            self.finish(partner, outcome, RequestEvent::Rejected(rejection));
        }
    }
}
