//! Pauses of a lock that has room. One is a lock delay after its holder was lost (rule S7), the
//! other a minimum hold time that its holder asked for (rule S9).
//!
//! A kept lock may outlive its client, so their number is bounded. The bound is checked when the
//! lock is asked for. The kept lock has its place from then on, and nobody hears of a limit when
//! the work is done.

use std::time::Duration;

use super::arena::{LockKey, RequestKey, SessionKey};
use super::deadlines::Due;
use super::event::Extras;
use super::pause::{Delay, Keep, Pause};
use super::request::State;
use super::{Effect, LockTable, Rejection};
use crate::types::{ConnectionId, FencingToken, LockName, Origin, Timestamp};

/// How a holder parts from its locks, if not without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// It gave them back, or said goodbye.
    Released,
    /// Its session was over without a goodbye.
    Lost,
    /// An operator took them away.
    Revoked,
}

impl LockTable {
    /// Whether a request may leave so many locks behind.
    pub(super) fn check_room_to_keep(
        &self,
        session: SessionKey,
        new: usize,
        at_least: Duration,
    ) -> Result<(), Rejection> {
        if at_least.is_zero() {
            return Ok(());
        }
        let max = self.limits.kept_locks_max;
        if self.kept.count() + new > max {
            return Err(Rejection::TooManyKept { max });
        }
        // Many honest clients may come from one address, but it is not to take all.
        let max = max - max / 4;
        match self.origin_of(session) {
            Some(origin) if self.kept.from(origin) + new > max => {
                Err(Rejection::TooManyKeptThere { origin, max })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A new request, with all its claims, wants something besides.
    #[cold]
    pub(super) fn note_extras(&mut self, request: RequestKey, extras: Extras) {
        let Extras { at_least, supersede } = extras;
        self.requests[request].more_mut().supersede = supersede;
        if !at_least.is_zero() {
            self.note_keep(request, at_least);
        }
    }

    fn note_keep(&mut self, request: RequestKey, at_least: Duration) {
        let origin = self.origin_of(self.requests[request].session);
        let count = self.claims_of(request).count();
        self.requests[request].more_mut().keep = Some(Box::new(Keep { at_least, origin }));
        self.kept.add(origin, count);
    }

    /// A request that wanted its locks kept is over; those that are kept are counted for themselves.
    #[cold]
    pub(super) fn forget_keep(&mut self, request: RequestKey) {
        let count = self.claims_of(request).count();
        if let Some(keep) = self.requests[request].more_mut().keep.take() {
            self.kept.remove(keep.origin, count);
        }
    }

    fn origin_of(&self, session: SessionKey) -> Option<Origin> {
        self.sessions[session].peer.map(|peer| Origin::of(peer.ip()))
    }

    /// Before a request gives its locks back. They are not granted anew before it has had them for
    /// as long as it asked for (rule S9).
    pub(super) fn keep_locks(&mut self, request: RequestKey) {
        if self.requests[request].more().keep.is_some() {
            self.delay_locks(request, Parting::Released);
        }
    }

    /// Before a request parts from its locks: they are not granted anew before its delay (rules S7, S9).
    pub(super) fn delay_locks(&mut self, request: RequestKey, parting: Parting) {
        let delay = self.delay_after(request, parting);
        if !delay.is_none() {
            self.each_claim(self.requests[request].first, |table, _, lock| {
                table.delay_lock(lock, delay.clone());
            });
        }
    }

    /// What would keep the locks of a request from being granted if it parted from them now.
    pub(super) fn delay_after(&self, request: RequestKey, parting: Parting) -> Delay {
        let live = &self.requests[request];
        let more = live.more();
        let delay = match parting {
            Parting::Released => Duration::ZERO,
            Parting::Lost | Parting::Revoked => more.lock_delay,
        };
        let at_least = match (parting, &more.keep) {
            // Who takes it away wants it to be free.
            (Parting::Revoked, _) | (_, None) => Duration::ZERO,
            (Parting::Released | Parting::Lost, Some(keep)) => keep.at_least,
        };
        Delay {
            lost: self.pause(request, self.now.after(delay), delay),
            kept: self.pause(request, live.since.after(at_least), at_least),
        }
    }

    /// A pause after a request's hold, if that ends in the future.
    fn pause(&self, request: RequestKey, until: Timestamp, length: Duration) -> Option<Pause> {
        let live = &self.requests[request];
        let State::Held { token } = live.state else { return None };
        let session = &self.sessions[live.session];
        let (identity, since) = (session.identity.clone(), live.since);
        let origin = live.more().keep.as_ref().and_then(|keep| keep.origin);
        let pause = Pause { until, session: session.id, identity, origin, token, since, length };
        (until > self.now).then_some(pause)
    }

    /// A lock is not granted anew before then; if it was delayed for longer already, that holds.
    pub(super) fn delay_lock(&mut self, key: LockKey, new: Delay) {
        let before = self.locks[key].delay.as_ref().and_then(|delay| delay.until());
        let delay = self.locks[key].delay.get_or_insert_default();
        put_later(&mut delay.lost, new.lost);
        let origin = new.kept.as_ref().map(|kept| kept.origin);
        let was = delay.kept.as_ref().map(|kept| kept.origin);
        if put_later(&mut delay.kept, new.kept) {
            if let Some(origin) = was {
                self.kept.remove(origin, 1);
            }
            if let Some(origin) = origin {
                self.kept.add(origin, 1);
            }
        }
        let until = delay.until();
        self.reschedule_delay(key, before, until);
    }

    /// A lock's delay is over, and that was not to come any more.
    pub(super) fn end_delay(&mut self, key: LockKey) {
        if let Some(kept) = self.locks[key].delay.take().and_then(|delay| delay.kept) {
            self.kept.remove(kept.origin, 1);
        }
        self.unsettle(key);
    }

    /// An operator ends what a lock is kept for, after the hold with this token. A lock delay goes on.
    /// Says whether there was such a thing.
    pub(super) fn end_keeping(
        &mut self,
        connection: ConnectionId,
        query_id: u64,
        name: &LockName,
        token: FencingToken,
    ) -> bool {
        let Some(key) = self.locks.find(name.as_str()) else { return false };
        let Some(delay) = &mut self.locks[key].delay else { return false };
        let before = delay.until();
        let Some(kept) = delay.kept.take_if(|kept| kept.token == token) else { return false };
        let until = delay.until();
        if until.is_none() {
            self.locks[key].delay = None;
        }
        self.reschedule_delay(key, before, until);
        self.kept.remove(kept.origin, 1);
        let (lock, holder, identity) = (name.clone(), kept.session, kept.identity);
        self.effects.push(Effect::Revoked {
            connection,
            query_id,
            lock,
            others: Vec::new(),
            token,
            holder,
            identity,
        });
        self.unsettle(key);
        self.settle();
        true
    }

    /// The end of a lock's delay is at another moment than before.
    fn reschedule_delay(
        &mut self,
        key: LockKey,
        before: Option<Timestamp>,
        until: Option<Timestamp>,
    ) {
        if before == until {
            return;
        }
        if let Some(before) = before {
            self.deadlines.remove(before, Due::Delay(key));
        }
        if let Some(until) = until {
            self.deadlines.add(until, Due::Delay(key));
        }
    }
}

/// Of two pauses, the one that ends later. Says whether that is the other.
fn put_later(pause: &mut Option<Pause>, other: Option<Pause>) -> bool {
    let is_later =
        pause.as_ref().map(|pause| pause.until) < other.as_ref().map(|pause| pause.until);
    if is_later {
        *pause = other;
    }
    is_later
}
