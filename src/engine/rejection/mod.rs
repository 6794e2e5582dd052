//! The engine's legitimate *no*, with its stable code and its sentence.

mod said;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use crate::types::{
    CLAIMS_MAX, ClaimsError, CycleLink, FencingToken, Generation, IDENTITY_LEN_MAX, Identity,
    LockName, Mode, NOTE_LEN_MAX, Origin, PermitsError, RejectionCode, RequestId, SessionId,
    TextError, Ttl, TtlError,
};

/// Of a longer cycle, no more is told.
pub const CYCLE_TOLD_MAX: usize = 64;

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
    /// More looks than the operator allows at a time.
    SlowDown,
    /// It is not allowed any more.
    Forbidden,
}

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
            Self::SlowDown => RejectionCode::SlowDown,
            Self::Forbidden => RejectionCode::Forbidden,
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
            Self::SlowDown => f.write_str("others look just now; ask again in a moment"),
            Self::Forbidden => f.write_str(said::FORBIDDEN),
        }
    }
}
