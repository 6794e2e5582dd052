//! The outputs of the engine: everything that it wants done.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Durable, Happened};
use crate::types::{
    CLAIMS_MAX, ClaimsError, ConnectionId, FencingToken, Generation, IDENTITY_LEN_MAX, Identity,
    LockName, LostReason, Mode, NOTE_LEN_MAX, Origin, OwnerId, PermitsError, RejectionCode,
    RequestId, SessionId, TextError, Ticket, Ttl, TtlError,
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
    /// Tell a session's client the news of one of its requests.
    Tell {
        /// Where; none while the session has no connection. What is not told now is told again when
        /// the request is repeated (rule R1).
        connection: Option<ConnectionId>,
        /// Whose request.
        session: SessionId,
        /// Which request.
        request: RequestId,
        /// The kind of event.
        news: News,
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
    /// Tell the operator that the lock was taken away.
    Revoked {
        /// The operator's connection.
        connection: ConnectionId,
        /// From the question.
        query_id: u64,
        /// The lock, for the log.
        lock: LockName,
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

/// What happened to a request, for those who listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It came.
    Requested,
    /// It waits.
    Queued {
        /// Its place, 1 for the next in line.
        position: u32,
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
    Rejected(Rejection),
}

/// One link of a wait-for cycle: it waits for a lock, for as long as the next one in the cycle does
/// not give it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CycleLink {
    /// Whose request it is.
    pub session: SessionId,
    /// Who that is.
    pub identity: Identity,
    /// Who asks, within the session.
    pub owner: OwnerId,
    /// The request that waits.
    pub request: RequestId,
    /// The lock that it waits for.
    pub lock: LockName,
    /// The token with which the next one in the cycle holds that lock; none: it is ahead in line.
    pub held_with: Option<FencingToken>,
}

/// The state, at the coordinator, of the session that a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is new.
    Opened,
    /// Everything: it holds and awaits what it did.
    Resumed,
    /// Nothing but that it was: the coordinator has crashed, and what the session held is to be
    /// reclaimed within this time (rule G2).
    Reopened {
        /// What is left of the grace period.
        grace: Duration,
    },
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

/// The kinds of events of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It holds its locks.
    Granted {
        /// Greater than that of any grant before.
        token: FencingToken,
    },
    /// It waits.
    Queued {
        /// Its place, 1 for the next in line.
        position: u32,
        /// What keeps its place over a crash.
        ticket: Ticket,
    },
    /// It holds nothing any more, as asked.
    Released,
    /// It is given up: it holds nothing and never will.
    Cancelled,
    /// It holds nothing any more, and nobody asked for that.
    Lost {
        /// The token of its grant.
        token: FencingToken,
        /// Why.
        reason: LostReason,
    },
    /// No.
    Rejected(Rejection),
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

/// A legitimate *no*: what was wrong with a well-formed message, or with its moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The lock is not free and the request would not wait.
    Busy {
        /// The first lock that stood in the way.
        lock: LockName,
    },
    /// The lock is held as something else (rule R4), and the request would not wait.
    HeldOtherwise {
        /// The first lock that stood in the way.
        lock: LockName,
        /// How many permits it has now; none: it is a plain lock.
        of: Option<u32>,
        /// What was asked for.
        asked: Mode,
    },
    /// The request waited as long as it would.
    TimedOut {
        /// The first lock that stood in the way.
        lock: LockName,
        /// How long it waited.
        waited: Duration,
    },
    /// The request does not hold anything with this token.
    NotHolder {
        /// The token of the release.
        token: FencingToken,
    },
    /// Not a lock name.
    LockName(TextError),
    /// Not a note.
    Note(TextError),
    /// Not an identity.
    Identity(TextError),
    /// Not a ttl.
    Ttl(TtlError),
    /// A longer lease than the operator allows.
    TtlNotAllowed {
        /// What was asked for.
        asked: Ttl,
        /// The longest that is allowed.
        max: Ttl,
    },
    /// Not a number of permits.
    Permits(PermitsError),
    /// Not a list of claims.
    Claims(ClaimsError),
    /// Not a lock delay.
    LockDelay {
        /// What was asked for.
        asked: Duration,
    },
    /// Not a length for which a lock can be kept.
    AtLeast {
        /// What was asked for.
        asked: Duration,
    },
    /// The request id lives, and asked for something else.
    RequestIdReused,
    /// The request id is not new, and how it ended is forgotten.
    RequestForgotten {
        /// The greatest id seen.
        latest: RequestId,
    },
    /// What was answered to the same request before.
    AsBefore(RejectionCode),
    /// No more sessions.
    TooManySessions {
        /// How many there may be.
        max: usize,
    },
    /// No more sessions from this address.
    TooManySessionsThere {
        /// Where from.
        origin: Origin,
        /// How many there may be.
        max: usize,
    },
    /// No more claims in this session.
    TooManyClaims {
        /// How many there may be.
        max: usize,
    },
    /// No more waiters for this lock.
    TooManyWaiters {
        /// The lock.
        lock: LockName,
        /// How many there may be.
        max: usize,
    },
    /// No more locks that are kept.
    TooManyKept {
        /// How many there may be.
        max: usize,
    },
    /// No more locks that are kept for those from this address.
    TooManyKeptThere {
        /// Where from.
        origin: Origin,
        /// How many there may be.
        max: usize,
    },
    /// No session with this id and secret.
    UnknownSession,
    /// A later connection of the session was here first.
    StaleGeneration {
        /// The generation of the latest.
        latest: Generation,
    },
    /// The coordinator is about to stop.
    Draining,
    /// No durable fencing token is left.
    Unavailable,
    /// Too much waits to be put on record.
    DiskBehind,
    /// A newer request for the lock came that is to have its place (rule S10).
    Superseded {
        /// The first lock that both want.
        lock: LockName,
        /// Whose that is.
        session: SessionId,
        /// Who that is.
        identity: Identity,
    },
    /// Nobody holds the lock with this token.
    NoSuchGrant {
        /// The lock.
        lock: LockName,
        /// The token.
        token: FencingToken,
    },
    /// The connection has no session.
    SessionNeeded,
    /// A token or an epoch from too far ahead.
    ImplausibleToken,
    /// The coordinator has just restarted, and cannot decide yet.
    Grace {
        /// For how long.
        left: Duration,
    },
    /// Nothing can be reclaimed.
    NoGrace,
    /// The seal is not that of such a grant.
    SealMismatch,
    /// The owner holds the lock already, and leaves itself no room.
    AlreadyHeld {
        /// The lock.
        lock: LockName,
        /// The token with which it is held.
        token: FencingToken,
    },
    /// Everybody in a cycle would wait for the next.
    Deadlock {
        /// Who waits for whom, the first [`CYCLE_TOLD_MAX`]. The first is the request that is
        /// rejected; the last waits for it. Never empty.
        cycle: Vec<CycleLink>,
    },
    /// What was to be converted is not held (any more).
    NothingToConvert {
        /// The request that was to be converted.
        converts: RequestId,
    },
    /// What is to be converted cannot be, by this.
    NotConvertible {
        /// The request that was to be converted.
        converts: RequestId,
    },
    /// No more watches on this connection.
    TooManyWatches {
        /// How many there may be.
        max: usize,
    },
}

/// Of a longer cycle, no more is told.
pub const CYCLE_TOLD_MAX: usize = 64;

impl Rejection {
    /// The stable code.
    pub fn code(&self) -> RejectionCode {
        match self {
            Self::Busy { .. } | Self::HeldOtherwise { .. } => RejectionCode::Busy,
            Self::TimedOut { .. } => RejectionCode::TimedOut,
            Self::NotHolder { .. } | Self::NothingToConvert { .. } => RejectionCode::NotHolder,
            Self::LockName(_) => RejectionCode::InvalidLockName,
            Self::Note(_) => RejectionCode::InvalidNote,
            Self::Identity(_) => RejectionCode::InvalidIdentity,
            Self::Ttl(_) | Self::TtlNotAllowed { .. } => RejectionCode::InvalidTtl,
            Self::Permits(_) => RejectionCode::InvalidPermits,
            Self::Claims(_) => RejectionCode::InvalidClaims,
            Self::LockDelay { .. } => RejectionCode::InvalidLockDelay,
            Self::AtLeast { .. } => RejectionCode::InvalidAtLeast,
            Self::TooManyKept { .. } | Self::TooManyKeptThere { .. } => RejectionCode::TooManyKept,
            Self::RequestIdReused => RejectionCode::RequestIdReused,
            Self::RequestForgotten { .. } => RejectionCode::RequestForgotten,
            Self::AsBefore(code) => *code,
            Self::TooManySessions { .. } | Self::TooManySessionsThere { .. } => {
                RejectionCode::TooManySessions
            }
            Self::TooManyClaims { .. } => RejectionCode::TooManyClaims,
            Self::TooManyWaiters { .. } => RejectionCode::TooManyWaiters,
            Self::UnknownSession => RejectionCode::UnknownSession,
            Self::StaleGeneration { .. } => RejectionCode::StaleGeneration,
            Self::Draining => RejectionCode::Draining,
            Self::Unavailable | Self::DiskBehind => RejectionCode::Unavailable,
            Self::NoSuchGrant { .. } => RejectionCode::NoSuchGrant,
            Self::Superseded { .. } => RejectionCode::Superseded,
            Self::SessionNeeded => RejectionCode::SessionNeeded,
            Self::ImplausibleToken => RejectionCode::ImplausibleToken,
            Self::Grace { .. } => RejectionCode::Grace,
            Self::NoGrace => RejectionCode::NoGrace,
            Self::SealMismatch => RejectionCode::SealMismatch,
            Self::NotConvertible { .. } => RejectionCode::NotConvertible,
            Self::AlreadyHeld { .. } => RejectionCode::AlreadyHeld,
            Self::Deadlock { .. } => RejectionCode::Deadlock,
            Self::TooManyWatches { .. } => RejectionCode::TooManyWatches,
        }
    }

    /// Who would wait for whom, if that is why; empty otherwise.
    pub fn cycle(&self) -> &[CycleLink] {
        match self {
            Self::Deadlock { cycle } => cycle,
            _ => &[],
        }
    }

    /// The lock that stood in the way, if one did.
    pub fn blocking_lock(&self) -> Option<&LockName> {
        match self {
            Self::Busy { lock }
            | Self::HeldOtherwise { lock, .. }
            | Self::TimedOut { lock, .. } => Some(lock),
            _ => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { lock } => write!(f, "{lock:?} is busy"),
            Self::HeldOtherwise { lock, of: Some(of), asked } => {
                write!(f, "{lock:?} is in use as a semaphore of {of}; you asked for {asked}")
            }
            Self::HeldOtherwise { lock, of: None, asked } => {
                write!(f, "{lock:?} is in use as a plain lock; you asked for {asked}")
            }
            Self::TimedOut { lock, waited } => {
                write!(f, "{lock:?} is still busy after {waited:.1?}")
            }
            Self::NotHolder { token } => {
                write!(f, "the request holds nothing with token {token}")
            }
            Self::LockName(error) => write!(f, "invalid lock name: {error}"),
            Self::Note(error) => write!(f, "invalid note (at most {NOTE_LEN_MAX} bytes): {error}"),
            Self::Identity(error) => {
                write!(f, "invalid identity (at most {IDENTITY_LEN_MAX} bytes): {error}")
            }
            Self::Ttl(error) => error.fmt(f),
            Self::TtlNotAllowed { asked, max } => write!(
                f,
                "a ttl of {asked} is longer than the {max} that this coordinator allows (its ttl-max)"
            ),
            Self::Permits(error) => error.fmt(f),
            Self::Claims(error) => write!(f, "a request claims 1 to {CLAIMS_MAX} locks: {error}"),
            Self::LockDelay { asked } => said::lock_delay(*asked, f),
            Self::AtLeast { asked } => said::at_least(*asked, f),
            Self::TooManyKept { max } => said::kept(*max, None, f),
            Self::TooManyKeptThere { origin, max } => said::kept(*max, Some(*origin), f),
            Self::RequestIdReused => f.write_str(said::ID_REUSED),
            Self::RequestForgotten { latest } => said::forgotten(*latest, f),
            Self::AsBefore(code) => write!(f, "{code}, as answered before"),
            Self::TooManySessions { max } => write!(f, "{max} sessions are alive, the limit"),
            Self::TooManySessionsThere { origin, max } => {
                write!(f, "{max} sessions from {origin} are alive, the limit for one address")
            }
            Self::TooManyClaims { max } => {
                write!(f, "the session would hold and wait for more than {max} locks, the limit")
            }
            Self::TooManyWaiters { lock, max } => {
                write!(f, "{max} requests wait for {lock:?}, the limit")
            }
            Self::UnknownSession => f.write_str(said::UNKNOWN_SESSION),
            Self::StaleGeneration { latest } => said::stale(*latest, f),
            Self::Draining => f.write_str("the coordinator is shutting down; retry soon"),
            Self::Unavailable => f.write_str(said::NO_TOKEN),
            Self::DiskBehind => f.write_str(said::DISK_BEHIND),
            Self::Superseded { lock, session, identity } => {
                said::superseded(lock, *session, identity, f)
            }
            Self::NoSuchGrant { lock, token } => {
                write!(f, "nobody holds {lock:?} with token {token}")
            }
            Self::SessionNeeded => f.write_str(said::SESSION_NEEDED),
            Self::ImplausibleToken => said::implausible(f),
            Self::Grace { left } => write!(
                f,
                "the coordinator is recovering: for {left:.1?} more, only previous holders can \
                reclaim"
            ),
            Self::NoGrace => f.write_str(said::NO_GRACE),
            Self::SealMismatch => f.write_str("the seal (MAC) does not match such a grant"),
            Self::AlreadyHeld { lock, token } => {
                write!(f, "the same owner already holds {lock:?}, with token {token}")
            }
            Self::NothingToConvert { converts } => {
                write!(f, "request {converts} holds no lock (any more), so it cannot be converted")
            }
            Self::NotConvertible { converts } => write!(
                f,
                "request {converts} has other locks or another owner, or is already being converted"
            ),
            Self::Deadlock { cycle } => said::cycle(cycle, f),
            Self::TooManyWatches { max } => {
                write!(f, "the connection watches {max} locks, the limit")
            }
        }
    }
}

mod said;
#[cfg(test)]
mod tests;
