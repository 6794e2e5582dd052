//! Events of requests: what their clients are told, and what those hear who listen.

use std::net::SocketAddr;
use std::time::Duration;

use super::rejection::Rejection;
use crate::types::{
    Claim, FencingToken, Identity, LockName, LostReason, RequestId, SessionId, Ticket,
};

/// Something that happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestEvent {
    /// It came. Its client knows that and is not told.
    Requested,
    /// It waits.
    Queued {
        /// Its place, 1 for the next in line.
        position: u32,
        /// What keeps its place over a crash.
        ticket: Ticket,
    },
    /// It holds its locks.
    Granted {
        /// Greater than that of any grant before.
        token: FencingToken,
    },
    /// It holds nothing any more, as asked, or because its session said goodbye.
    Released {
        /// The token of its grant.
        token: FencingToken,
    },
    /// It is given up: it holds nothing and never will.
    Cancelled,
    /// It holds nothing any more, and nobody asked for that.
    Lost {
        /// The token of its grant.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// It was answered *no*.
    Rejected(Rejection),
}

/// Those who watch locks and listen to events, beside the clients concerned (rule R10).
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Audience {
    /// Events that somebody wants to hear of.
    pub(super) listening: Listening,
    /// Grants that were counted instead of told, of sessions that are over.
    pub(super) untold_of_ended: u64,
    /// The watched locks whose holders changed by the event at hand.
    changed: Vec<LockName>,
}

impl Audience {
    /// A lock that is watched has changed.
    pub(super) fn note_change(&mut self, lock: LockName) {
        self.changed.push(lock);
    }

    /// Whether a lock that is watched has changed.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Each lock that has changed, once.
    pub(super) fn take_changes(&mut self) -> impl Iterator<Item = LockName> {
        self.changed.sort_unstable();
        self.changed.dedup();
        self.changed.drain(..)
    }
}

/// What those hear who listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listening {
    /// Nobody listens.
    #[default]
    Nothing,
    /// Of grants and of their ends: of each that is not [hushed](super::LockTable::hush), and of the end of
    /// each that was long.
    Tenures,
    /// Of all that happens to requests.
    Everything,
}

/// A hold of this length is told of, however much its session is granted. Such tenures cannot be
/// many, and they are those that somebody asks about later.
pub const LONG_TENURE: Duration = Duration::from_secs(1);

/// Something that happened to a request, for those who listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Session of the request.
    pub session: SessionId,
    /// Identity of that session.
    pub identity: Identity,
    /// Where its latest connection comes from, for the log.
    pub peer: Option<SocketAddr>,
    /// The request.
    pub request: RequestId,
    /// Its claims.
    pub claims: Vec<Claim>,
    /// The event.
    pub what: RequestEvent,
    /// The tenure that began or ended with it, if one did.
    pub tenure: Option<Tenure>,
}

/// For how long a request held its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// The token of its grant.
    pub token: FencingToken,
    /// How long it has lasted; nothing if it has just begun.
    pub lasted: Duration,
    /// Whether those hear of it who listen to tenures only.
    pub is_noted: bool,
}
