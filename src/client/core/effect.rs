//! Inputs of the core besides the server's messages, and its outputs.

use std::time::Duration;

use smallvec::SmallVec;

use crate::types::{
    Epoch, FencingToken, Generation, GoodbyeCode, LostReason, OwnerId, RejectionCode, RequestId,
    Secret, SessionId, Timestamp, Ttl,
};
use crate::wire::{Cycle, LockStatus, RawClaim, ServerMessage, Wait};

/// What a client tells about itself in its Hello.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introduction {
    /// The lease to ask for; none: the server's default.
    pub(crate) ttl: Option<Ttl>,
    /// How long the session outlives a lost connection, in milliseconds; none: its lease.
    pub(crate) linger_ms: Option<u32>,
    /// Identity of the session.
    pub(crate) identity: String,
}

/// That a client which lost its connection makes another, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconnect {
    /// How long an attempt may take, the Welcome included. The first ones take less.
    pub(crate) attempt_max: Duration,
    /// Any number: clients with different ones do not come back all at once.
    pub(crate) seed: u64,
    /// How many servers there are to come back to. Of several, one leads at a time.
    pub(crate) servers: usize,
}

/// What a request asks for, all but its id.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Owner of the request, within the session; 0: it is an owner of its own.
    pub(crate) owner: OwnerId,
    /// The request whose place it takes, if it converts one.
    pub(crate) converts: Option<RequestId>,
    /// How long to wait if it cannot be granted at once.
    pub(crate) wait: Wait,
    /// Whether to tell the request's place in line.
    pub(crate) progress: bool,
    /// Pause before the locks go to another after an involuntary loss, in milliseconds.
    pub(crate) lock_delay_ms: u32,
    /// For how long from the grant on nobody else gets the locks, even after a release, in milliseconds.
    pub(crate) at_least_ms: u64,
    /// Whether it ends older ones that wait, and newer ones end it while it waits.
    pub(crate) supersedes: bool,
    /// Its purpose.
    pub(crate) note: String,
    /// The locks.
    pub(crate) claims: SmallVec<[RawClaim; 1]>,
}

/// What the server said to be the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// The session.
    pub(crate) session: SessionId,
    /// The run of the coordinator.
    pub(crate) epoch: Epoch,
    /// The length of the lease.
    pub(crate) ttl: Ttl,
    /// Secret that proves to a later connection that it is for this session.
    pub(crate) secret: Secret,
    /// Counts the connections of the session: the greatest that one of them had.
    pub(crate) generation: Generation,
}

/// A *no* from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Why.
    pub(crate) code: RejectionCode,
    /// Why, for people.
    pub(crate) message: String,
    /// The lock that stood in the way.
    pub(crate) lock: Option<Box<LockStatus>>,
    /// Cycle of those who would wait for each other for ever; empty if that is not why.
    pub(crate) cycle: Cycle,
}

/// Why a request or a release did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The server said no.
    Rejected(Rejection),
    /// What was to be released had been lost.
    Lost(LostReason),
    /// There is no connection, and no time to wait for one; [`Core::trouble`] says why.
    Away,
    /// The answer was lost with a connection, and the server remembers it no more.
    Forgotten,
    /// The session is over; [`Core::end`] says why.
    Ended,
}

/// Why the client is at its end, or its connection at that of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The application said goodbye.
    Closed,
    /// The connection ended, or none could be made; only the driver knows how.
    Disconnected,
    /// Nothing was heard from the server for so long.
    Silent(Duration),
    /// The server said goodbye.
    Dismissed {
        /// Why.
        code: GoodbyeCode,
        /// Why it refused the Hello, if it did.
        rejection: RejectionCode,
        /// Why, for people.
        message: String,
    },
    /// The server welcomed us, and leads no more: this is its epoch, and there was a later one.
    Deposed {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The server broke the protocol, in this way.
    Broken(String),
}

/// What the driver has to tell to those who wait, or hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// The session is open.
    Welcomed(Welcome),
    /// The request's locks are held.
    Granted {
        /// The request.
        request: RequestId,
        /// The token of the grant.
        token: FencingToken,
    },
    /// Another request, which is told to be granted next, has converted this one and holds its locks.
    /// This one is over, and there is nothing to tell.
    Replaced {
        /// The request.
        request: RequestId,
    },
    /// The request's place in line changed.
    Queued {
        /// The request.
        request: RequestId,
        /// 1 for the next in line.
        position: u64,
    },
    /// The request is over without a grant.
    Refused {
        /// The request.
        request: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// The release that was asked for is answered.
    Released {
        /// The request.
        request: RequestId,
        /// How it went.
        outcome: Result<(), Refusal>,
    },
    /// The server has not yet confirmed, after a restart, that the request's locks are held.
    /// However long the lease becomes, they are believed in no longer than this.
    Doubted {
        /// The request.
        request: RequestId,
        /// Until when.
        until: Timestamp,
    },
    /// The request's locks are held as long as the lease is believed in, as ever.
    Confirmed {
        /// The request.
        request: RequestId,
    },
    /// The request's locks are no longer held, for good.
    Lost {
        /// The request.
        request: RequestId,
        /// Why.
        reason: LostReason,
    },
    /// What was to be seen. It comes once, or of what lasts again and again.
    Seen {
        /// The look.
        look: u64,
        /// As the server says it.
        answer: Box<ServerMessage>,
    },
    /// Until there is an answer again, what there would have been to hear is missed.
    Interrupted {
        /// The look.
        look: u64,
    },
    /// The look is over without an answer, or without another.
    Unseen {
        /// The look.
        look: u64,
        /// Why.
        refusal: Refusal,
    },
}
