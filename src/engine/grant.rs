//! The life of a request: it is granted or waits, is released, cancelled, times out.
//!
//! Every change goes the same way. A request is put in or taken out, and its locks become
//! *unsettled*. Then [`LockTable::settle`] grants from the heads of their queues as far as
//! possible. A grant of several locks unsettles the others, so it cascades. A queue whose head did
//! not change is not looked at.

use std::iter;
use std::mem;

use super::arena::{ClaimKey, LockKey, RequestKey, SessionKey};
use super::claim::ClaimNode;
use super::effect::Effect;
use super::event::{Place, Request};
use super::owner::Hold;
use super::request::{Live, State};
use super::session::{Outcome, Session};
use super::shape::Shape;
use super::{LockTable, Rejection, RequestEvent};
use crate::types::{Claim, FencingToken, LockName, Mode, RequestId, SessionId, Wait};

impl LockTable {
    /// Takes a request in: it is granted, waits or is rejected, and that is told (rules R1 to R6).
    #[inline(always)]
    #[expect(
        clippy::inline_always,
        reason = "the hot one of its two callers is 20 instructions shorter"
    )]
    pub(super) fn request(&mut self, session: SessionKey, request: &Request) {
        let id = request.id;
        if id <= self.sessions[session].latest_request {
            return self.request_again(session, request);
        }
        self.sessions[session].latest_request = id;
        self.let_hear(session, request, || RequestEvent::Requested);
        if let Err(rejection) = self.enter(session, request) {
            let outcome = Outcome::Rejected(rejection.code());
            self.sessions[session].remember(id, outcome, self.limits.finished_remembered);
            self.let_hear(session, request, || RequestEvent::Rejected(rejection.clone()));
            self.tell(session, id, RequestEvent::Rejected(rejection));
        }
        self.settle();
    }

    /// The same request once more changes nothing and is answered the same (rule R1).
    fn request_again(&mut self, session: SessionKey, request: &Request) {
        let event = match self.requests.find(session, request.id) {
            Some(live) if !self.claims_the_same(live, request) => {
                RequestEvent::Rejected(Rejection::RequestIdReused)
            }
            Some(live) => match self.requests[live].state {
                State::Held { token } => RequestEvent::Granted { token },
                State::Waiting { .. } => {
                    self.requests[live].forget_told();
                    self.each_claim(self.requests[live].first, |table, _, lock| {
                        table.count_places(lock);
                    });
                    return self.tell_place(live);
                }
            },
            None => {
                let Session { latest_request: latest, .. } = self.sessions[session];
                let outcome = self.sessions[session].outcome(request.id);
                let forgotten = RequestEvent::Rejected(Rejection::RequestForgotten { latest });
                outcome.map_or(forgotten, RequestEvent::from)
            }
        };
        self.tell(session, request.id, event);
    }

    fn claims_the_same(&self, live: RequestKey, request: &Request) -> bool {
        let mut others = request.claims.as_slice().iter();
        let same = self.claims_of(live).all(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            others.next().is_some_and(|o| o.name == self.locks[lock].name && o.mode == mode)
        });
        same && others.next().is_none()
    }

    /// Grants a new request or lets it wait, or leaves no trace of it.
    fn enter(&mut self, session: SessionKey, request: &Request) -> Result<(), Rejection> {
        let max = self.limits.claims_per_session_max;
        if self.draining {
            return Err(Rejection::Draining);
        }
        if self.sessions[session].claims + request.claims.as_slice().len() > max {
            return Err(Rejection::TooManyClaims { max });
        }
        match request.extras.as_deref() {
            None => self.admit(session, request),
            Some(extras) => self.admit_with(session, request, *extras),
        }
    }

    /// Grants a request for which there is room, or lets it wait, or leaves no trace of it.
    pub(super) fn admit(
        &mut self,
        session: SessionKey,
        request: &Request,
    ) -> Result<(), Rejection> {
        let converted = self.find_converted(session, request)?;
        let key = self.put_in(session, request);
        if let Some(converted) = converted {
            self.pair(key, converted);
        }
        let placed = self.grant_or_enqueue(key, request.wait, request.place);
        if placed.is_err() {
            self.take_out(key);
        }
        placed
    }

    /// Makes a request live, with its claims, in no queue yet.
    pub(super) fn put_in(&mut self, session: SessionKey, request: &Request) -> RequestKey {
        let owner = self.owners.find_or_add(session, request.owner);
        let Request { id, progress, lock_delay, ref note, ref claims, .. } = *request;
        let mut live = Live::new(session, id, progress, self.now);
        if owner.is_some() || !lock_delay.is_zero() || !note.is_empty() {
            let more = live.more_mut();
            (more.owner, more.lock_delay, more.note) = (owner, lock_delay, Some(note.clone()));
        }
        let key = self.requests.insert(live);
        let of_session = &mut self.sessions[session];
        of_session.requests.add(&mut self.requests.arena, key, |live| live.id);
        of_session.claims += claims.as_slice().len();
        if let Some(owner) = owner {
            self.owners[owner].requests.push_back(&mut self.requests.arena, key);
            self.note_holdings_of_many(owner);
        }
        let mut last: Option<ClaimKey> = None;
        for Claim { name, mode } in claims.as_slice() {
            let lock = self.locks.find_or_use(name);
            let node = self.claims.insert(ClaimNode::new(lock, key, *mode));
            match last.replace(node) {
                Some(last) => self.claims[last].sibling = Some(node),
                None => self.requests[key].first = Some(node),
            }
        }
        if let Some(extras) = request.extras.as_deref() {
            self.note_extras(key, *extras);
        }
        key
    }

    /// Decides about a request that was just put in.
    fn grant_or_enqueue(
        &mut self,
        request: RequestKey,
        wait: Wait,
        place: Option<Place>,
    ) -> Result<(), Rejection> {
        let kept = self.place_kept(place);
        let has_more = self.requests[request].has_more();
        if has_more {
            if self.token_kept(request).is_some() {
                self.grant(request);
                return Ok(());
            }
            self.check_own_holds(request)?;
        }
        let obstacle = self.obstacle(request);
        let deadline = match (obstacle, wait) {
            (None, _) if self.may_grant() => {
                if has_more {
                    self.check_place_ahead(request)?;
                }
                self.grant(request);
                return Ok(());
            }
            (_, Wait::Never) if self.grace.is_on() => {
                let left = self.grace.left(self.now).unwrap_or_default();
                return Err(Rejection::Grace { left });
            }
            (None, Wait::Never) => return Err(Rejection::Unavailable),
            (Some(lock), Wait::Never) => return Err(self.busy(request, lock)),
            (_, wait @ (Wait::Forever | Wait::AtMost(_))) => {
                wait.length().map(|length| self.now.after(length))
            }
        };
        self.check_room_to_wait(request, kept)?;
        if kept.is_some() {
            self.displace_waiters(request);
        }
        let ticket = self.ticket(kept);
        self.wait_in_queues(request, ticket, deadline);
        if let Some(cycle) = self.find_deadlock(request) {
            return Err(Rejection::Deadlock { cycle });
        }
        self.tell_place(request);
        let position = self.worst_place(request);
        self.happened(request, || RequestEvent::Queued { position, ticket });
        Ok(())
    }

    /// That a request would not wait for this lock.
    fn busy(&self, request: RequestKey, key: LockKey) -> Rejection {
        let (held, lock) = (&self.locks[key], self.locks[key].name.clone());
        let is_held = held.taken() > self.converted_share(request, key);
        let asked = self.claims_of(request).map(|claim| &self.claims[claim]);
        let asked = asked.filter(|node| node.lock == key).map(|node| node.mode).next();
        match asked.filter(|asked| is_held && Shape::of(*asked) != held.shape) {
            Some(asked) => Rejection::HeldOtherwise { lock, of: held.shape.permits(), asked },
            None => Rejection::Busy { lock },
        }
    }

    /// The first lock that keeps a request from being granted: it has no room, or others came
    /// first (rule R3) and are there (rule S8). Works alike for a request that is in no queue yet.
    pub(super) fn obstacle(&self, request: RequestKey) -> Option<LockKey> {
        let live = &self.requests[request];
        let (is_conversion, partner) = (live.is_conversion(), live.partner());
        self.claims_from(live.first).find_map(|claim| {
            let ClaimNode { lock: key, mode, .. } = self.claims[claim];
            let lock = &self.locks[key];
            let queue = self.locks.queue(key);
            let is_next = match queue.head() {
                // In no queue yet: only a conversion would stand before others.
                Some(head) if !self.claims[claim].is_queued() => {
                    let head = &self.requests[self.claims[head].request];
                    is_conversion && !head.is_conversion()
                }
                Some(head) => head == claim,
                None => true,
            } || (queue.has_away() && self.passes_the_away(claim));
            let converted = partner.map_or(0, |converted| self.share_of(converted, key));
            let has_room = lock.has_room_instead(mode, converted);
            (!is_next || !has_room).then_some(key)
        })
    }

    /// A request that is in no queue holds all it claims from now on. Says whether in the place of another.
    fn grant(&mut self, request: RequestKey) -> bool {
        let live = &self.requests[request];
        let Live { session, id, since: asked, .. } = *live;
        let has_more = live.has_more();
        let kept = if has_more { self.token_kept(request) } else { None };
        let token = kept.unwrap_or_else(|| self.tokens.take());
        let since = if has_more { self.give_way_to(request) } else { None };
        self.hold(request, token);
        match (kept, since) {
            (Some(_), Some(since)) => self.go_on_holding(request, since),
            (_, since) => {
                self.grants += 1;
                self.tally.waits.note(self.micros_since(asked));
                self.tally.converted += u64::from(since.is_some());
            }
        }
        self.tell(session, id, RequestEvent::Granted { token });
        self.tenure_began(request, token);
        since.is_some()
    }

    /// Makes a request that is in no queue the holder of all it claims.
    pub(super) fn hold(&mut self, request: RequestKey, token: FencingToken) {
        let live = &mut self.requests[request];
        live.state = State::Held { token };
        live.since = self.now;
        let Live { session, first, .. } = *live;
        let owner = live.owner();
        self.each_claim(first, |table, claim, lock| {
            table.locks.add_holder(lock, &mut table.claims, &table.requests, claim);
            table.holders_changed(lock);
        });
        self.sessions[session].held += 1;
        self.held += 1;
        if let Some(owner) = owner {
            self.change_holdings(owner, request, Hold::Begins);
        }
    }

    /// Whether all locks of a request have room for it.
    pub(super) fn has_room(&self, request: RequestKey) -> bool {
        self.claims_of(request).all(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            self.locks[lock].has_room_for(mode)
        })
    }

    /// Takes a request out of everything. Its locks are unsettled; nothing is told of it. What waited
    /// to convert it is rejected.
    pub(super) fn take_out(&mut self, request: RequestKey) {
        let live = &self.requests[request];
        let Live { session, id, first, since, .. } = *live;
        let (is_held, partner, has_more) = (live.is_held(), live.partner(), live.has_more());
        if is_held {
            self.tally.holds.note(self.micros_since(since));
        } else {
            self.leave_queues(request);
        }
        if has_more {
            self.take_out_more(request);
        }
        let mut gone = 0;
        self.each_claim(first, |table, claim, lock| {
            if is_held {
                table.locks.remove_holder(lock, &mut table.claims, &table.requests, claim);
                table.holders_changed(lock);
            }
            table.claims.remove(claim);
            gone += 1;
            table.unsettle(lock);
        });
        let Session { held, claims, requests, .. } = &mut self.sessions[session];
        *held -= usize::from(is_held);
        *claims -= gone;
        requests.remove(&mut self.requests.arena, request, |live| live.id);
        self.held -= usize::from(is_held);
        self.requests.remove(request);
        if let Some(partner) = partner {
            self.part_from(partner, id);
        }
    }

    /// Takes a request out of what few requests are in.
    #[cold]
    fn take_out_more(&mut self, request: RequestKey) {
        if self.requests[request].more().keep.is_some() {
            self.forget_keep(request);
        }
        if let Some(owner) = self.requests[request].owner() {
            self.change_holdings(owner, request, Hold::Ends);
            self.owners[owner].requests.remove(&mut self.requests.arena, request);
            self.owners.forget_if_idle(owner);
        }
    }

    /// Takes a request out, remembers how it ended, and tells.
    pub(super) fn finish(&mut self, request: RequestKey, outcome: Outcome, event: RequestEvent) {
        let Live { session: key, id, .. } = self.requests[request];
        let Session { id: session, connection, is_over, .. } = self.sessions[key];
        // Of one that is over, everybody has heard how its requests ended.
        if !is_over {
            self.happened(request, || event.clone());
            self.sessions[key].remember(id, outcome, self.limits.finished_remembered);
            self.effects.push(Effect::Tell { connection, session, request: id, event });
        }
        self.count_end(outcome);
        self.take_out(request);
    }

    /// Takes a request out without a word to its client, who does not know of it any more, or knows
    /// already.
    pub(super) fn drop_silently(&mut self, request: RequestKey) -> Outcome {
        let outcome = match self.requests[request].state {
            State::Held { token } => Outcome::Released(token),
            State::Waiting { .. } => Outcome::Cancelled,
        };
        self.happened(request, || outcome.into());
        self.count_end(outcome);
        self.take_out(request);
        outcome
    }

    /// Counts how a request ends.
    fn count_end(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Released(_) => self.tally.releases += 1,
            Outcome::Cancelled => self.tally.cancellations += 1,
            Outcome::Lost(..) | Outcome::Rejected(_) => {}
        }
    }

    /// A request's locks are given back by their holder (rule R8).
    pub(super) fn release(&mut self, session: SessionKey, id: RequestId, token: FencingToken) {
        let live = self.requests.find(session, id);
        match live.map(|key| (key, self.requests[key].state)) {
            Some((key, State::Held { token: held })) if held == token => {
                self.keep_locks(key);
                self.finish(key, Outcome::Released(token), RequestEvent::Released { token });
                self.settle();
            }
            None if self.sessions[session].outcome(id) == Some(Outcome::Released(token)) => {
                self.tell(session, id, RequestEvent::Released { token });
            }
            _ => self.tell(session, id, RequestEvent::Rejected(Rejection::NotHolder { token })),
        }
    }

    /// A request is given up. Whether it waited, was granted or is over: it holds nothing, and its
    /// client hears so (rule R2).
    pub(super) fn cancel(&mut self, session: SessionKey, id: RequestId) {
        if let Some(key) = self.requests.find(session, id) {
            self.finish(key, Outcome::Cancelled, RequestEvent::Cancelled);
            return self.settle();
        }
        if id > self.sessions[session].latest_request {
            // Given up before it came, it must not be granted when it does.
            self.sessions[session].latest_request = id;
            let max = self.limits.finished_remembered;
            self.sessions[session].remember(id, Outcome::Cancelled, max);
        }
        self.tell(session, id, RequestEvent::Cancelled);
    }

    /// A request has waited as long as it would (rule R6).
    pub(super) fn time_out(&mut self, request: RequestKey) {
        let obstacle = self.obstacle(request).or_else(|| {
            let first = self.requests[request].first?;
            Some(self.claims[first].lock)
        });
        let waited = self.now.since(self.requests[request].since);
        let rejection = match obstacle {
            Some(lock) => Rejection::TimedOut { lock: self.locks[lock].name.clone(), waited },
            None => Rejection::Unavailable,
        };
        let outcome = Outcome::Rejected(rejection.code());
        self.finish_and_leave(request, outcome, RequestEvent::Rejected(rejection));
    }

    /// Notes that something left the lock, or that it may be granted again.
    pub(super) fn unsettle(&mut self, lock: LockKey) {
        if !mem::replace(&mut self.locks[lock].is_unsettled, true) {
            self.deferred.settle_later(lock);
        }
    }

    /// Grants what can be granted, in the order of the queues, and forgets locks that are idle. It
    /// does as much as the event at hand may, and the rest is put off.
    pub(super) fn settle(&mut self) {
        while let Some(lock) = self.deferred.next_unsettled() {
            self.settle_lock(lock);
        }
    }

    /// Kept out of [`LockTable::settle`], which mostly has nothing to do and is asked often.
    #[inline(never)]
    fn settle_lock(&mut self, lock: LockKey) {
        let unsettled = &mut self.locks[lock];
        unsettled.is_unsettled = false;
        if !unsettled.is_waited_for() {
            return self.locks.forget_if_idle(lock);
        }
        self.grant_from_head(lock);
        self.tell_places(lock);
        if !self.locks[lock].is_unsettled {
            self.locks.forget_if_idle(lock);
        }
    }

    /// Whether a session's lease is over, and it is only left to be ended. Such a session is
    /// granted nothing (rule S6), and leaves its queues at its end.
    pub(super) fn is_dead(&self, session: SessionKey) -> bool {
        let session = &self.sessions[session];
        session.ends <= self.heard && !session.is_kept_waiting()
    }

    fn grant_from_head(&mut self, lock: LockKey) {
        while let Some(next) = self.locks.first_present(lock, &self.claims, &self.requests) {
            let request = self.claims[next].request;
            let session = self.requests[request].session;
            if self.obstacle(request).is_some() || self.is_dead(session) || self.is_gone(session) {
                return;
            }
            if self.deferred.is_spent() {
                return self.put_off(lock);
            }
            if !self.may_grant() {
                self.deferred.starve();
                return;
            }
            self.leave_queues(request);
            let is_in_place = self.grant(request);
            self.tally.queued += u64::from(!is_in_place);
        }
    }

    /// Does something to each claim of a request, and its lock, from the `first` on.
    pub(super) fn each_claim(
        &mut self,
        first: Option<ClaimKey>,
        mut change: impl FnMut(&mut Self, ClaimKey, LockKey),
    ) {
        let mut next = first;
        while let Some(claim) = next {
            let ClaimNode { lock, sibling, .. } = self.claims[claim];
            self.deferred.charge(1);
            change(self, claim, lock);
            next = sibling;
        }
    }

    /// The claims of a request, in the order in which they were made.
    pub(super) fn claims_of(&self, request: RequestKey) -> impl Iterator<Item = ClaimKey> {
        self.claims_from(self.requests[request].first)
    }

    /// A claim, and those of its request that were made after it.
    fn claims_from(&self, first: Option<ClaimKey>) -> impl Iterator<Item = ClaimKey> {
        iter::successors(first, |claim| self.claims[*claim].sibling)
    }

    /// The locks of a live request and how it claims them, for those who want to show it.
    pub fn claims(
        &self,
        session: SessionId,
        request: RequestId,
    ) -> impl Iterator<Item = (&LockName, Mode)> {
        let live = self.sessions.find(session).and_then(|key| self.requests.find(key, request));
        self.claims_from(live.and_then(|live| self.requests[live].first)).map(|claim| {
            let ClaimNode { lock, mode, .. } = self.claims[claim];
            (&self.locks[lock].name, mode)
        })
    }
}
