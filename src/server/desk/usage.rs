//! How much each principal has and does, against the quotas of the access file.
//!
//! Counts are kept by name, so that they outlive the reading of other rules. Connections count themselves:
//! each has a [`Seat`]. Sessions are counted by their ids, for they outlive connections and runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use foldhash::fast::RandomState;

use crate::access::{Principal, PrincipalName};
use crate::types::{SessionId, Timestamp};

/// What may be asked for at once: the requests of a second.
const BURST_NANOS: u64 = 1_000_000_000;

/// Of all principals that had a connection or a session.
#[derive(Debug, Default)]
pub(super) struct Usages {
    /// By name. There are no more than the access file has, or had.
    by_name: HashMap<PrincipalName, Arc<Usage>, RandomState>,
    /// Whose each session is.
    of_session: HashMap<SessionId, Arc<Usage>, RandomState>,
}

/// Of one of them.
#[derive(Debug)]
struct Usage {
    /// Whose it is.
    name: PrincipalName,
    /// Connections.
    connections: AtomicU32,
    /// Sessions, those included that have no connection.
    sessions: AtomicU32,
    /// When all requests so far would be due if they came evenly, in nanoseconds.
    due: AtomicU64,
}

/// One connection of a principal, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Usage>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// As many as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// How many.
    pub(super) max: u32,
}

impl Usages {
    fn of(&mut self, name: &PrincipalName) -> &Arc<Usage> {
        self.by_name.entry(name.clone()).or_insert_with(|| {
            let (connections, sessions, due) = Default::default();
            Arc::new(Usage { name: name.clone(), connections, sessions, due })
        })
    }

    /// Whose a session is; none if that is not known.
    pub(super) fn owner(&self, session: SessionId) -> Option<&PrincipalName> {
        self.of_session.get(&session).map(|usage| &usage.name)
    }

    /// Takes a connection of a principal.
    pub(super) fn sit(&mut self, principal: &Principal) -> Result<Seat, Full> {
        let usage = self.of(&principal.name);
        within(&usage.connections, principal.quotas.connections_max)?;
        Ok(self.stand(principal))
    }

    /// Takes one that takes the place of another, or is over at once: it counts, and is not one too many.
    pub(super) fn stand(&mut self, principal: &Principal) -> Seat {
        let usage = self.of(&principal.name);
        usage.connections.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(usage))
    }

    /// Whether a principal may open another session.
    pub(super) fn may_open(&mut self, principal: &Principal) -> Result<(), Full> {
        within(&self.of(&principal.name).sessions, principal.quotas.sessions_max)
    }

    /// A session of a principal is there, new or from before.
    pub(super) fn opened(&mut self, session: SessionId, name: &PrincipalName) {
        let usage = Arc::clone(self.of(name));
        usage.sessions.fetch_add(1, Ordering::Relaxed);
        if let Some(before) = self.of_session.insert(session, usage) {
            before.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A session is over.
    pub(super) fn ended(&mut self, session: SessionId) {
        if let Some(usage) = self.of_session.remove(&session) {
            usage.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Seat {
    /// Counts a request. Says whether its principal may make it now (generic cell rate algorithm).
    pub(super) fn may_request(&self, principal: &Principal, now: Timestamp) -> bool {
        let Some(rate) = principal.quotas.requests_per_second else { return true };
        let interval = BURST_NANOS / u64::from(rate.max(1));
        let now = now.as_micros().saturating_mul(1_000);
        let due = self.0.due.load(Ordering::Relaxed).max(now).saturating_add(interval);
        let may = due - now <= BURST_NANOS.max(interval);
        if may {
            self.0.due.store(due, Ordering::Relaxed);
        }
        may
    }
}

fn within(count: &AtomicU32, max: Option<u32>) -> Result<(), Full> {
    match max {
        Some(max) if count.load(Ordering::Relaxed) >= max => Err(Full { max }),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Quotas, Rules};

    fn principal(quotas: Quotas) -> Principal {
        let name = PrincipalName::new("billing").unwrap();
        Principal { name, rules: Rules::default(), quotas }
    }

    #[test]
    fn a_principal_has_as_many_connections_and_sessions_as_allowed_and_not_one_more() {
        let quotas =
            Quotas { connections_max: Some(2), sessions_max: Some(2), ..Quotas::default() };
        let (mut usages, billing) = (Usages::default(), principal(quotas));
        let first = usages.sit(&billing).unwrap();
        let _second = usages.sit(&billing).unwrap();
        assert_eq!(usages.sit(&billing).unwrap_err(), Full { max: 2 });
        drop(first);
        let _third = usages.sit(&billing).unwrap();
        for session in [1, 2] {
            usages.may_open(&billing).unwrap();
            usages.opened(SessionId(session), &billing.name);
        }
        assert_eq!(usages.may_open(&billing), Err(Full { max: 2 }));
        // One that is opened again is one still.
        usages.opened(SessionId(2), &billing.name);
        usages.ended(SessionId(2));
        assert_eq!(usages.may_open(&billing), Ok(()));
        usages.ended(SessionId(7));
    }

    #[test]
    fn a_principal_asks_as_often_as_allowed_and_not_once_more() {
        let quotas = Quotas { requests_per_second: Some(100), ..Quotas::default() };
        let (mut usages, billing) = (Usages::default(), principal(quotas));
        let (seat, other) = (usages.sit(&billing).unwrap(), usages.sit(&billing).unwrap());
        let at = |millis: u64| Timestamp::from_micros(5_000_000 + millis * 1_000);
        let asked = (0..150).filter(|_| seat.may_request(&billing, at(0))).count();
        assert_eq!(asked, 100);
        assert!(!other.may_request(&billing, at(0)), "another connection is no way round");
        assert!(other.may_request(&billing, at(10)) && !seat.may_request(&billing, at(10)));
        for rate in [3, 600_000] {
            let name = PrincipalName::new("fast").unwrap();
            let quotas = Quotas { requests_per_second: Some(rate), ..Quotas::default() };
            let fast = Principal { name, ..principal(quotas) };
            let seat = Usages::default().sit(&fast).unwrap();
            let asked = (0..2 * rate).filter(|_| seat.may_request(&fast, at(0))).count();
            // To a thousandth: an interval is whole nanoseconds.
            assert!(asked.abs_diff(rate as usize) <= rate as usize / 1_000, "{rate}: {asked}");
        }
        let unbounded = principal(Quotas::default());
        assert!((0..10_000).all(|_| seat.may_request(&unbounded, at(10))));
    }
}
