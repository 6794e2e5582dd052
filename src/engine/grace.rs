//! The grace period after a crash: holders reclaim their locks, waiters return to their places, and
//! nobody else is granted anything (rules G2, G3). Also the account (reconciliation) after any
//! broken connection, which brings both sides to the same view (rule S3).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::iter;
use std::time::Duration;

use super::arena::{ClaimKey, LockKey, RequestKey, SessionKey};
use super::claim::ClaimNode;
use super::deadlines::Due;
use super::event::{Extras, Place, Reclaim, Request};
use super::request::{Live, State};
use super::session::Outcome;
use super::shape::share;
use super::{Durable, LockTable, Past, Rejection, RequestEvent, Snapshot};
use crate::engine::seed::Seed;
use crate::types::{
    Account, FencingToken, Held, LostReason, Mode, RequestId, TTL_MAX, Ticket, Timestamp, Ttl,
    Wait, lease,
};

/// So many holders are counted for a reclaim at most, from either end. With more in its way that
/// would have to go, and more that would stay, nothing is given back. Of clients that keep the
/// rules, no two hold what does not fit together.
pub(super) const HOLDERS_COUNTED_MAX: usize = 1_024;

impl LockTable {
    /// Takes over from the run before.
    pub(super) fn begin(&mut self, durable: Durable, past: Past, now: Timestamp) {
        let Past { snapshot, forfeits, next_record } = past;
        let on_record = forfeits.len();
        self.records.go_on_from(next_record);
        // A stop in the middle of a grace period cuts it short for nobody.
        let needs_grace = snapshot.as_ref().map_or(durable.ttl_max.is_some(), Snapshot::in_grace);
        if needs_grace {
            self.grace.forfeit_all(forfeits);
            self.set_grace(now.after(self.longest_belief()));
        }
        if let Some(last) = next_record.checked_sub(1) {
            // How long their leases were is not known any more, and there may have been longer ones
            // than any that is on disk now.
            self.remember_earlier_records(on_record, last, now.after(lease::grace(TTL_MAX)));
        }
        if let Some(snapshot) = snapshot {
            self.restore(snapshot);
        }
    }

    /// For how long after its last word to us any client may believe in a lease.
    pub(super) fn longest_belief(&self) -> Duration {
        lease::grace(self.tokens.ttl_max().map_or(Duration::ZERO, Ttl::length))
    }

    /// The grace period lasts until then, whatever it was before.
    pub(super) fn set_grace(&mut self, until: Timestamp) {
        if let Some(before) = self.grace.last_until(until) {
            self.deadlines.remove(before, Due::Grace);
        }
        self.deadlines.add(until, Due::Grace);
    }

    /// Whoever did not come back is not coming. Everything is as always now.
    pub(super) fn end_grace(&mut self) {
        if let Some(until) = self.grace.end() {
            self.deadlines.remove(until, Due::Grace);
        }
        self.this_run.forget_newcomers();
        if let Some(run) = self.this_run.settles() {
            // Holders of today have shown an older seal in this run, and were given a new one; or
            // they were granted their locks in this run.
            self.tokens.settle(run);
        }
        self.relax_longest_lease();
        self.break_deadlocks();
        self.deferred.starve();
        self.retry_starved();
    }

    /// Only sessions that live now can still believe in a lease: after the next crash, nobody needs
    /// to wait for longer ones.
    pub(super) fn relax_longest_lease(&mut self) {
        let longest = self.sessions.iter_from(0).map(|(_, session)| session.ttl).max();
        self.tokens.relax(longest);
    }

    /// A client comes back for what it held before the crash (rule G3).
    pub(super) fn reclaim(&mut self, session: SessionKey, reclaim: &Reclaim) {
        let (id, token) = (reclaim.id, reclaim.token);
        if let Some(live) = self.requests.find(session, id) {
            let event = match self.requests[live].state {
                State::Held { token: held } if held == token => RequestEvent::Granted { token },
                State::Held { .. } | State::Waiting { .. } => {
                    RequestEvent::Rejected(Rejection::RequestIdReused)
                }
            };
            return self.tell(session, id, event);
        }
        if let Some(outcome) = self.sessions[session].outcome(id) {
            // What is over is not revived by asking again.
            return self.tell(session, id, outcome.into());
        }
        let is_of_earlier_run =
            token < self.this_run.first_token() && self.this_run.still_counts(reclaim.sealed_in);
        let is_forfeited = self.grace.is_forfeited(token);
        if !self.grace.is_on() || !is_of_earlier_run || is_forfeited {
            return self.tell(session, id, RequestEvent::Rejected(Rejection::NoGrace));
        }
        let latest = self.sessions[session].latest_request;
        self.sessions[session].latest_request = latest.max(id);
        let request = Request {
            owner: reclaim.owner,
            wait: Wait::Never,
            lock_delay: reclaim.lock_delay,
            extras: Extras { at_least: reclaim.at_least, ..Extras::default() }.of_few(),
            note: reclaim.note.clone(),
            ..Request::new(id, reclaim.claims.clone())
        };
        let key = self.put_in(session, &request);
        if self.make_room(key, token) {
            self.hold(key, token);
            self.tally.reclaimed += 1;
            self.tell(session, id, RequestEvent::Granted { token });
            self.tenure_began(key, token);
        } else {
            let reason = LostReason::Conflict;
            self.finish(key, Outcome::Lost(token, reason), RequestEvent::Lost { token, reason });
        }
        self.settle();
    }

    /// Makes room for a reclaim in all its locks, if only lesser tokens are in the way: those lose.
    fn make_room(&mut self, request: RequestKey, reclaimed: FencingToken) -> bool {
        let Some(losers) = self.find_losers(request, reclaimed) else { return false };
        for (token, loser) in losers {
            let reason = LostReason::Conflict;
            self.finish(loser, Outcome::Lost(token, reason), RequestEvent::Lost { token, reason });
        }
        true
    }

    /// The holders that have to go for a reclaim to have all its locks; none if it cannot, as one of
    /// them is not less. They are looked for only if they go: so looking is paid for by themselves.
    fn find_losers(
        &self,
        request: RequestKey,
        reclaimed: FencingToken,
    ) -> Option<BTreeSet<(FencingToken, RequestKey)>> {
        let mut left = HOLDERS_COUNTED_MAX;
        let mut claims = self.claims_of(request);
        if !claims.all(|claim| self.has_room_without_lesser(claim, reclaimed, &mut left)) {
            return None;
        }
        let mut losers = BTreeSet::new();
        // What is free of each lock once they are gone.
        let mut given_back: HashMap<LockKey, u64, Seed> = HashMap::with_hasher(self.locks.seed());
        for claim in self.claims_of(request) {
            let ClaimNode { lock: key, mode, .. } = self.claims[claim];
            // Those who lose another lock anyway go first, for they are gone already.
            let mut next = self.locks[key].holders.head();
            while let Some(holder) = next
                && !self.fits_without(key, mode, given_back.get(&key).copied().unwrap_or(0))
            {
                let ClaimNode { request: loser, .. } = self.claims[holder];
                next = self.claims[holder].next();
                if let Some(token) = self.requests[loser].token()
                    && losers.insert((token, loser))
                {
                    for lost in self.claims_of(loser) {
                        let ClaimNode { lock, mode, .. } = self.claims[lost];
                        *given_back.entry(lock).or_default() += share(mode);
                    }
                }
            }
        }
        Some(losers)
    }

    /// Whether a lock has room for a reclaim in this mode once so much is given back. A lock delay is
    /// for others; whoever held it beside the one that was lost still does.
    fn fits_without(&self, lock: LockKey, mode: Mode, given_back: u64) -> bool {
        self.locks[lock].fits_instead(mode, given_back)
    }

    /// Whether a claim of a reclaim has room if enough holders with lesser tokens go. Those who
    /// would go are counted from the least on, and those who would stay from the greatest on, until
    /// it is clear. If nothing is left to count with, it has none.
    fn has_room_without_lesser(
        &self,
        claim: ClaimKey,
        reclaimed: FencingToken,
        left: &mut usize,
    ) -> bool {
        let ClaimNode { lock: key, mode, .. } = self.claims[claim];
        let lock = &self.locks[key];
        let token_and_share = |holder: &ClaimKey| {
            let ClaimNode { request, mode, .. } = self.claims[*holder];
            (self.requests[request].token(), share(mode))
        };
        let is_less = |(token, _): &(Option<FencingToken>, u64)| *token < Some(reclaimed);
        let mut going = lock.holders.iter(&self.claims).map(|it| token_and_share(&it));
        let mut staying = lock.holders.iter_back(&self.claims).map(|it| token_and_share(&it));
        let (mut given_back, mut kept) = (0, 0);
        while !self.fits_without(key, mode, given_back) {
            if *left == 0 {
                return false;
            }
            *left -= 1;
            match staying.next().filter(|holder| !is_less(holder)) {
                // Of all others, everything is given back.
                None => return self.fits_without(key, mode, lock.taken() - kept),
                Some((_, share)) => kept += share,
            }
            if !self.fits_without(key, mode, lock.taken() - kept) {
                return false;
            }
            match going.next().filter(is_less) {
                None => return false,
                Some((_, share)) => given_back += share,
            }
        }
        true
    }

    /// How long the grace period still lasts; none if there is none.
    pub fn grace_left(&self) -> Option<Duration> {
        self.grace.left(self.now)
    }

    /// Whether anybody is granted anything now.
    pub(super) fn may_grant(&self) -> bool {
        self.tokens.available() && !self.grace.is_on()
    }

    /// The place of a request that begins to wait now: the one it keeps, if it does; else after all
    /// others.
    pub(super) fn ticket(&mut self, kept: Option<Ticket>) -> Ticket {
        kept.unwrap_or_else(|| {
            let arrival = self.this_run.next_arrival();
            Ticket { epoch: self.epoch().number(), arrival }
        })
    }

    /// The place that a request keeps which was told it by an earlier run: it comes back in the grace
    /// period.
    pub(super) fn place_kept(&self, shown: Option<Place>) -> Option<Ticket> {
        let Place { ticket, told_in } = shown.filter(|_| self.grace.is_on())?;
        (self.this_run.still_counts(told_in) && self.this_run.is_later_than(ticket))
            .then_some(ticket)
    }

    /// Brings both sides to the same view of what a session has (rule S3). Without it a lock can
    /// belong to nobody, when the answer to its request was lost and the client gave up.
    pub(super) fn account(&mut self, session: SessionKey, account: &Account) {
        let held: HashMap<RequestId, FencingToken> =
            account.held.iter().map(|held| (held.request, held.token)).collect();
        let waiting: HashSet<RequestId> = account.waiting.iter().copied().collect();
        // Each of them is listed, or dropped.
        let requests = &self.sessions[session].requests;
        let first = requests.seek(&self.requests.arena, account.from, |live| live.id);
        let live = iter::successors(first, |request| self.requests[*request].next_of_session())
            .take_while(|request| self.requests[*request].id <= account.to);
        // Those that wait first: one may wait to convert what is held.
        let (holding, waits): (Vec<_>, Vec<_>) =
            live.partition(|request| self.requests[*request].is_held());
        for request in waits.into_iter().chain(holding) {
            let Live { id, state, .. } = self.requests[request];
            match state {
                State::Held { token } if held.get(&id) == Some(&token) => continue,
                _ if waiting.contains(&id) => continue,
                State::Held { .. } | State::Waiting { .. } => {}
            }
            // Nobody there knows of it, so nobody is told.
            let outcome = self.drop_silently(request);
            self.sessions[session].remember(id, outcome, self.limits.finished_remembered);
        }
        for &Held { request: id, token } in &account.held {
            let held = self.requests.find(session, id).map(|request| self.requests[request].state);
            if held != Some(State::Held { token }) {
                let reason = match self.sessions[session].outcome(id) {
                    Some(Outcome::Lost(_, reason)) => reason,
                    _ => LostReason::NotReclaimed,
                };
                self.tell(session, id, RequestEvent::Lost { token, reason });
            }
        }
        self.settle();
    }
}
