//! What keeps a lock from being granted though it has room: for a while after its holder was lost (rule
//! S7).

use std::hash::BuildHasher;
use std::time::Duration;

use super::LockTable;
use super::arena::{LockKey, RequestKey};
use super::request::State;
use super::table::Due;
use crate::types::{FencingToken, Identity, SessionId, Timestamp};

/// Why and until when a lock is not granted, though it has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Until when.
    pub until: Timestamp,
    /// Whose hold it follows.
    pub session: SessionId,
    /// Who that is, or was.
    pub identity: Identity,
    /// The token of that hold.
    pub token: FencingToken,
    /// When that was granted.
    pub since: Timestamp,
    /// What its holder asked for.
    pub length: Duration,
}

/// All that keeps a lock from being granted. Never without either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Delay {
    /// A holder was lost that had asked for a lock delay: of several, the pause that ends last.
    pub(super) lost: Option<Pause>,
}

impl Delay {
    /// When it ends.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.lost.as_ref().map(|pause| pause.until)
    }

    /// Whether there is none.
    pub(super) fn is_none(&self) -> bool {
        self.until().is_none()
    }
}

impl<S: BuildHasher + Clone> LockTable<S> {
    /// Before a request loses its locks: they are not granted anew before its delay (rule S7).
    pub(super) fn delay_locks(&mut self, request: RequestKey) {
        let delay = self.delay_after_loss(request);
        if !delay.is_none() {
            self.each_claim(self.requests[request].first, |table, _, lock| {
                table.delay_lock(lock, delay.clone());
            });
        }
    }

    /// What would keep the locks of a request from being granted if it were lost now.
    pub(super) fn delay_after_loss(&self, request: RequestKey) -> Delay {
        let length = self.requests[request].more().lock_delay;
        let until = self.now.after(length);
        Delay { lost: if length.is_zero() { None } else { self.pause(request, until, length) } }
    }

    fn pause(&self, request: RequestKey, until: Timestamp, length: Duration) -> Option<Pause> {
        let live = &self.requests[request];
        let State::Held { token } = live.state else { return None };
        let session = &self.sessions[live.session];
        let (identity, since) = (session.identity.clone(), live.since);
        Some(Pause { until, session: session.id, identity, token, since, length })
    }

    /// A lock is not granted anew before then; if it was delayed for longer already, that holds.
    pub(super) fn delay_lock(&mut self, key: LockKey, new: Delay) {
        let before = self.locks[key].delay.as_ref().and_then(|delay| delay.until());
        let delay = self.locks[key].delay.get_or_insert_default();
        put_later(&mut delay.lost, new.lost);
        let until = delay.until();
        self.reschedule_delay(key, before, until);
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
            self.timeouts.remove(&(before, Due::Delay(key)));
        }
        if let Some(until) = until {
            self.timeouts.insert((until, Due::Delay(key)));
        }
    }
}

/// Of two pauses, the one that ends later.
fn put_later(pause: &mut Option<Pause>, other: Option<Pause>) {
    if pause.as_ref().map(|pause| pause.until) < other.as_ref().map(|pause| pause.until) {
        *pause = other;
    }
}
