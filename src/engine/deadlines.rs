//! Deadlines: what time alone brings about.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::arena::{LockKey, RequestKey, SessionKey};
use crate::types::Timestamp;

/// All moments at which something is to happen, the earliest first.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Deadlines {
    /// When each session is to be looked at, at the latest. Invariant: (`wakes`, key) of each.
    leases: BTreeSet<(Timestamp, SessionKey)>,
    /// When waiting requests stop waiting and lock delays end. Only what may still come is here.
    timeouts: BTreeSet<(Timestamp, Due)>,
}

/// What a moment among the timeouts is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Due {
    /// A waiting request stops waiting.
    Timeout(RequestKey),
    /// A lock that was lost, or kept, may be granted again.
    Delay(LockKey),
    /// The grace period is over.
    Grace,
}

impl Deadlines {
    /// The earliest of all.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let lease = self.next_lease();
        let timeout = self.timeouts.first().map(|(at, _)| *at);
        [lease, timeout].into_iter().flatten().min()
    }

    /// The earliest at which a session is to be looked at.
    pub(super) fn next_lease(&self) -> Option<Timestamp> {
        self.leases.first().map(|(at, _)| *at)
    }

    /// Whether any session is to be looked at.
    pub(super) fn has_leases(&self) -> bool {
        !self.leases.is_empty()
    }

    /// The session that is to be looked at first, if that is due at `now`.
    pub(super) fn lease_due(&self, now: Timestamp) -> Option<SessionKey> {
        self.leases.first().filter(|(at, _)| *at <= now).map(|(_, session)| *session)
    }

    /// A session is to be looked at at this moment.
    pub(super) fn add_lease(&mut self, at: Timestamp, session: SessionKey) {
        self.leases.insert((at, session));
    }

    /// A session is not to be looked at then.
    pub(super) fn remove_lease(&mut self, at: Timestamp, session: SessionKey) {
        self.leases.remove(&(at, session));
    }

    /// The earliest timeout, if it is due at `now`.
    pub(super) fn timeout_due(&self, now: Timestamp) -> Option<(Timestamp, Due)> {
        self.timeouts.first().filter(|(at, _)| *at <= now).copied()
    }

    /// Something is to happen at this moment.
    pub(super) fn add(&mut self, at: Timestamp, due: Due) {
        self.timeouts.insert((at, due));
    }

    /// It is not to happen then, or has happened.
    pub(super) fn remove(&mut self, at: Timestamp, due: Due) {
        self.timeouts.remove(&(at, due));
    }

    #[cfg(test)]
    pub(super) fn leases(&self) -> &BTreeSet<(Timestamp, SessionKey)> {
        &self.leases
    }

    #[cfg(test)]
    pub(super) fn timeouts(&self) -> &BTreeSet<(Timestamp, Due)> {
        &self.timeouts
    }
}
