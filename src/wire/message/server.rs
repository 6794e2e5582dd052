//! The messages of the server.

use serde::{Deserialize, Serialize};

use crate::types::{
    Claim, Cycle, Epoch, FencingToken, Generation, GoodbyeCode, Identity, LostReason,
    RejectionCode, RequestId, Seal, Secret, SessionId,
};

use super::lists::event_claims;
use super::{
    ClusterStatus, JournalStatus, LockStatus, Outlook, SealedTicket, ServerStatus, SessionStatus,
    Standing, WaitedStatus,
};
use crate::types::list::list;

/// The messages of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ServerMessage {
    /// The connection is for this session now. The first message, unless it is `Goodbye`.
    Welcome {
        /// The version of the protocol that will be spoken.
        protocol: u32,
        /// Name and version of the server, for people.
        server: String,
        /// The run of the coordinator.
        epoch: Epoch,
        /// The session's id; 0 for an observer.
        session: SessionId,
        /// The proof by which a later connection resumes this session; 0 for an observer.
        secret: Secret,
        /// How many connections the session has had, this one included.
        generation: Generation,
        /// Length of the lease in milliseconds.
        ttl_ms: u32,
        /// The state of the session at the server.
        standing: Standing,
    },
    /// The request's locks are held from now until `Release`, `Cancel`, `Lost` or the end of the
    /// session.
    Grant {
        /// The request.
        request: RequestId,
        /// Greater than that of any grant before, of whatever lock (rule F1).
        token: FencingToken,
        /// Proves to a later run of the coordinator that this grant was made (rule G4).
        seal: Seal,
    },
    /// The request waits. Sent when it begins to, and again when its place changes, to requests that
    /// ask for progress.
    Queued {
        /// The request.
        request: RequestId,
        /// Its place, 1 for the next in line. For several locks: the worst of its places.
        position: u64,
        /// Keeps its place over a crash of the coordinator.
        ticket: SealedTicket,
    },
    /// The request's locks are free, as asked.
    Released {
        /// The request.
        request: RequestId,
    },
    /// The request is given up: it holds nothing and never will.
    Cancelled {
        /// The request.
        request: RequestId,
    },
    /// The request's locks are no longer its holder's, who did not ask for that.
    Lost {
        /// The request.
        request: RequestId,
        /// The token of its grant.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// No.
    Rejected {
        /// The request, release or query that is meant.
        request: RequestId,
        /// Why.
        code: RejectionCode,
        /// Why, in a sentence for people.
        message: String,
        /// For `Busy` and `TimedOut`: the lock that stood in the way.
        lock: Option<Box<LockStatus>>,
        /// For `Deadlock`: who waits for whom, the first 64, as far as 8192 bytes go. The first is the request that
        /// is meant. Empty otherwise.
        cycle: Cycle,
    },
    /// The lease is renewed.
    KeptAlive {
        /// From `KeepAlive`.
        sequence: u64,
    },
    /// The last message: the connection will be closed now.
    Goodbye {
        /// Why.
        code: GoodbyeCode,
        /// For a refused Hello: why; otherwise [`RejectionCode::NONE`].
        rejection: RejectionCode,
        /// Why, in a sentence for people.
        message: String,
    },
    /// The coordinator as a whole.
    ServerStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The status.
        status: Box<ServerStatus>,
    },
    /// A page of locks.
    LockStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The locks.
        #[serde(deserialize_with = "list")]
        locks: Vec<LockStatus>,
        /// Where the next page begins; none after the last.
        next: Option<u64>,
    },
    /// A page of sessions.
    SessionStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The sessions.
        #[serde(deserialize_with = "list")]
        sessions: Vec<SessionStatus>,
        /// Where the next page begins; none after the last.
        next: Option<u64>,
    },
    /// The lock was taken away.
    Revoked {
        /// From `Revoke`.
        query_id: u64,
    },
    /// Events will be told from now on.
    Subscribed {
        /// From `Subscribe`.
        query_id: u64,
    },
    /// Something happened to a request.
    Event {
        /// When, by the server's wall clock, in milliseconds since 1970-01-01 UTC. For people.
        at_ms: u64,
        /// The session's id.
        session: SessionId,
        /// The session's identity.
        identity: Identity,
        /// The request.
        request: RequestId,
        /// The locks it claims.
        #[serde(deserialize_with = "event_claims")]
        claims: Vec<Claim>,
        /// The kind of event.
        what: Happening,
    },
    /// Some events are left out here, because the client did not read fast enough.
    Missed {
        /// How many.
        count: u64,
    },
    /// Until when locks are not to be had.
    Outlook {
        /// From `Inspect`.
        query_id: u64,
        /// The locks of which something is known.
        #[serde(deserialize_with = "list")]
        locks: Vec<Outlook>,
        /// Where the next page begins; none after the last.
        next: Option<u64>,
    },
    /// The journal, and how this run began.
    JournalStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The status.
        status: Box<JournalStatus>,
    },
    /// The cluster that the coordinator leads.
    ClusterStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The status; none: there are no others.
        status: Option<Box<ClusterStatus>>,
    },
    /// For how long grants were waited for.
    WaitedStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The status.
        status: Box<WaitedStatus>,
    },
    /// What whoever asks may do with a lock. Nothing is denied by it.
    Rights {
        /// From `Inspect`.
        query_id: u64,
        /// The verbs, as an access file has them: of `lock`, `share`, `see` and `break`.
        #[serde(deserialize_with = "list")]
        verbs: Vec<String>,
    },
}

impl ServerMessage {
    /// Which look it answers, if it is only that.
    pub fn query_id(&self) -> Option<u64> {
        match *self {
            Self::ServerStatus { query_id, .. }
            | Self::LockStatus { query_id, .. }
            | Self::SessionStatus { query_id, .. }
            | Self::Revoked { query_id }
            | Self::Subscribed { query_id }
            | Self::Outlook { query_id, .. }
            | Self::JournalStatus { query_id, .. }
            | Self::ClusterStatus { query_id, .. }
            | Self::WaitedStatus { query_id, .. }
            | Self::Rights { query_id, .. } => Some(query_id),
            Self::Welcome { .. }
            | Self::Grant { .. }
            | Self::Queued { .. }
            | Self::Released { .. }
            | Self::Cancelled { .. }
            | Self::Lost { .. }
            | Self::Rejected { .. }
            | Self::KeptAlive { .. }
            | Self::Goodbye { .. }
            | Self::Event { .. }
            | Self::Missed { .. } => None,
        }
    }

    /// Its name, for errors.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Welcome { .. } => "Welcome",
            Self::Grant { .. } => "Grant",
            Self::Queued { .. } => "Queued",
            Self::Released { .. } => "Released",
            Self::Cancelled { .. } => "Cancelled",
            Self::Lost { .. } => "Lost",
            Self::Rejected { .. } => "Rejected",
            Self::KeptAlive { .. } => "KeptAlive",
            Self::Goodbye { .. } => "Goodbye",
            Self::ServerStatus { .. } => "ServerStatus",
            Self::LockStatus { .. } => "LockStatus",
            Self::SessionStatus { .. } => "SessionStatus",
            Self::Revoked { .. } => "Revoked",
            Self::Subscribed { .. } => "Subscribed",
            Self::Event { .. } => "Event",
            Self::Missed { .. } => "Missed",
            Self::Outlook { .. } => "Outlook",
            Self::JournalStatus { .. } => "JournalStatus",
            Self::ClusterStatus { .. } => "ClusterStatus",
            Self::WaitedStatus { .. } => "WaitedStatus",
            Self::Rights { .. } => "Rights",
        }
    }
}

/// The kinds of events of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Happening {
    /// It came.
    Requested,
    /// It waits.
    Queued {
        /// Its place, 1 for the next in line. For several locks: the worst of its places.
        position: u64,
    },
    /// It holds its locks.
    Granted {
        /// The token.
        token: FencingToken,
    },
    /// It gave its locks back, or its session said goodbye.
    Released {
        /// The token.
        token: FencingToken,
    },
    /// It was given up.
    Cancelled,
    /// It holds its locks no more, and nobody asked for that.
    Lost {
        /// The token.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// It was answered *no*.
    Rejected {
        /// Why.
        code: RejectionCode,
        /// Why, in a sentence for people.
        message: String,
    },
}
