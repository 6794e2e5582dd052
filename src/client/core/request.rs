//! The state of a request until it is over.

use std::sync::Arc;
use std::time::Duration;

use crate::types::{FencingToken, LostReason, RequestId, Seal, Timestamp};
use crate::wire::{self, ClientMessage, Extra, SealedTicket, Wait};

use super::Ask;

/// A request that is not over.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The request, to ask for it again over another connection.
    pub(super) ask: Arc<Ask>,
    /// When it has waited as long as it would. None: it waits for ever, or not at all.
    pub(super) deadline: Option<Timestamp>,
    /// Its place in line, for a run of the coordinator that does not know it; from its latest
    /// `Queued`.
    pub(super) ticket: Option<SealedTicket>,
    /// Where it stands.
    pub(super) state: State,
}

/// Where a request stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// Neither granted nor refused.
    Waiting,
    /// Granted while the lease was not believed in: held only once the server confirms the lease.
    Unconfirmed(Grant),
    /// Granted, told to its owner and, while the lease is believed in, held.
    Held {
        /// By what.
        grant: Grant,
        /// The server has restarted since, and has not confirmed this yet: until when it is believed
        /// in all the same (rule G3).
        doubted: Option<Timestamp>,
    },
    /// Given back. Not held any more.
    Releasing {
        /// The token that was released.
        token: FencingToken,
        /// Whether the application asked, and so waits for the answer.
        asked: bool,
        /// Why it was lost before the release got there, if it was.
        lost: Option<LostReason>,
        /// Whether it was reclaimed before, which may have been refused.
        reclaimed: bool,
        /// Whether this was said over an earlier connection already, and may have been done then.
        repeated: bool,
    },
    /// Cancel was sent. Whatever comes but `Cancelled` has crossed it and means nothing.
    Cancelling,
}

/// What proves a hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    /// Its token.
    pub(super) token: FencingToken,
    /// Its seal.
    pub(super) seal: Seal,
    /// When we first heard of it: not before it was made.
    pub(super) since: Timestamp,
}

impl Request {
    /// A request that is made at `now`.
    pub(super) fn new(ask: Arc<Ask>, now: Timestamp) -> Self {
        let deadline = match ask.wait {
            Wait::AtMost(timeout) => Some(now.after(timeout)),
            Wait::Forever | Wait::Never => None,
        };
        Self { ask, deadline, ticket: None, state: State::Waiting }
    }

    /// Whether it would not wait.
    pub(super) fn is_try(&self) -> bool {
        matches!(self.ask.wait, Wait::Never)
    }

    /// Whether it has waited as long as it would.
    pub(super) fn is_timed_out(&self, now: Timestamp) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= now)
    }

    /// The request, for the first time or again: then for as long as it still would wait.
    pub(super) fn message(&self, request: RequestId, now: Timestamp) -> ClientMessage {
        let Ask {
            owner,
            converts,
            wait,
            progress,
            lock_delay_ms,
            at_least_ms,
            supersedes,
            ref note,
            ref claims,
        } = *self.ask;
        let (note, claims) = (note.clone(), claims.clone());
        let wait = match self.deadline {
            Some(deadline) => Wait::AtMost(deadline.since(now).max(Duration::from_millis(1))),
            None => wait,
        };
        let ticket = self.ticket;
        let request = wire::Request {
            request,
            owner,
            converts,
            wait,
            progress,
            lock_delay_ms,
            note,
            ticket,
            claims,
        };
        let supersede = supersedes.then_some(Extra::Supersede);
        let extras: Vec<Extra> = at_least(at_least_ms).into_iter().chain(supersede).collect();
        if extras.is_empty() {
            // Understood by every version.
            return ClientMessage::Request(request);
        }
        ClientMessage::RequestWith { request: Box::new(request), extras }
    }

    /// Asks a coordinator that has crashed for what it granted before.
    pub(super) fn reclaim(
        &self,
        request: RequestId,
        grant: Grant,
        now: Timestamp,
    ) -> ClientMessage {
        let Ask { owner, lock_delay_ms, at_least_ms, ref note, ref claims, .. } = *self.ask;
        let (note, claims) = (note.clone(), claims.clone());
        let (token, seal) = (grant.token, grant.seal);
        let reclaim = wire::Reclaim { request, token, seal, owner, lock_delay_ms, note, claims };
        let left = grant.since.after(Duration::from_millis(at_least_ms)).since(now);
        match at_least(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)) {
            None => ClientMessage::Reclaim(reclaim),
            Some(extra) => {
                ClientMessage::ReclaimWith { reclaim: Box::new(reclaim), extras: vec![extra] }
            }
        }
    }
}

/// For how long the locks are to be kept, if they are.
fn at_least(ms: u64) -> Option<Extra> {
    (ms > 0).then_some(Extra::AtLeast { ms })
}
