//! The outputs of the engine: everything that it wants done.

use serde::{Deserialize, Serialize};

use super::Durable;
use super::rejection::Rejection;
use super::request_event::{Happened, RequestEvent};
use crate::types::{
    ConnectionId, FencingToken, Generation, Identity, LockName, RequestId, SessionId, Standing, Ttl,
};

/// Something for the shell to do, in the order in which the engine says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell the connection that it is its session's now.
    Welcome {
        /// The connection.
        connection: ConnectionId,
        /// Its session.
        session: SessionId,
        /// How many connections the session has had.
        generation: Generation,
        /// Length of the lease.
        ttl: Ttl,
        /// The state of the session at the server.
        standing: Standing,
    },
    /// Tell the connection that its Hello is refused, and close it.
    Refused {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        rejection: Rejection,
    },
    /// Tell the connection that a later one has taken its session over, and close it.
    Superseded {
        /// The connection.
        connection: ConnectionId,
    },
    /// Tell the connection that the lease is renewed.
    KeptAlive {
        /// The connection.
        connection: ConnectionId,
        /// From the keep-alive.
        sequence: u64,
    },
    /// Tell a session's client what happened to one of its requests.
    Tell {
        /// Where; none while the session has no connection. What is not told now is told again when
        /// the request is repeated (rule R1).
        connection: Option<ConnectionId>,
        /// Whose request.
        session: SessionId,
        /// Which request.
        request: RequestId,
        /// What happened.
        event: RequestEvent,
    },
    /// The session is over. If it has a connection, tell it and close it.
    Ended {
        /// The session.
        session: SessionId,
        /// Its connection, if there is one.
        connection: Option<ConnectionId>,
        /// Why it ended.
        reason: EndReason,
        /// How many requests held something until now.
        held: usize,
        /// How many waited.
        waiting: usize,
        /// The first lock that was held, for the log.
        lock: Option<LockName>,
    },
    /// A session is over that nobody attended, and so is its request. Nobody is to be told.
    Left {
        /// The session.
        session: SessionId,
    },
    /// Tell the operator that the lock was taken away.
    Revoked {
        /// The operator's connection.
        connection: ConnectionId,
        /// From the question.
        query_id: u64,
        /// The lock, for the log.
        lock: LockName,
        /// The other locks of the same grant, which ends as a whole: for the log.
        others: Vec<LockName>,
        /// The token of the grant that is over.
        token: FencingToken,
        /// Whose it was.
        holder: SessionId,
        /// Who that says to be.
        identity: Identity,
    },
    /// Tell the operator that nothing was taken away.
    NotRevoked {
        /// The operator's connection.
        connection: ConnectionId,
        /// From the question.
        query_id: u64,
        /// Why.
        rejection: Rejection,
    },
    /// Make this durable, then say [`Event::Persisted`](super::Event::Persisted). Until then the
    /// engine goes on with what it has, and stops granting when that is used up.
    Persist(Durable),
    /// Write this down for good, then say [`Event::Recorded`](super::Event::Recorded): after a crash
    /// nothing may be reclaimed by it (rules G1, G3). What it held passes on only then.
    Record {
        /// Counts the records over all runs.
        number: u64,
        /// Who or what has forfeited.
        forfeit: Forfeit,
    },
    /// Records with lower numbers are of no use any more.
    ForgetRecords {
        /// The lowest that is.
        below: u64,
    },
    /// A lock that is watched is held by others than before. Said once for each event.
    HoldersChanged {
        /// The lock.
        lock: LockName,
    },
    /// Something happened to a request. Said only while somebody listens, see
    /// [`LockTable::listen`](super::LockTable::listen).
    Happened(Box<Happened>),
}

/// What a crash must not revive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Forfeit {
    /// A session that ended without a goodbye while it held something.
    Session(SessionId),
    /// A grant that was revoked.
    Grant(FencingToken),
    /// All grants with this token or a lower one: those of many records in one.
    UpTo(FencingToken),
}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its client said so.
    Goodbye,
    /// Nothing was heard for its ttl.
    Expired,
    /// Its connection ended, and its linger with it.
    Disconnected,
    /// It was opened in a grace period, and there is room only for those who were there before.
    Displaced,
}
