//! Stable codes, on which scripts and other languages match. A number never changes its meaning,
//! and new ones are appended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Makes an enum of codes with their numbers and names, and the way back from a number.
macro_rules! code_type {
    ($(#[$doc:meta])* $name:ident, $unknown:literal { $($(#[$vdoc:meta])* $variant:ident = $number:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u16", into = "u16")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            #[doc = $unknown]
            Unknown(u16),
        }

        impl $name {
            /// All codes that this version knows.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$variant => $number,)+
                    Self::Unknown(number) => number,
                }
            }

            /// The code with this number.
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    number => Self::Unknown(number),
                }
            }

            /// The name in JSON and logs.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                    Self::Unknown(_) => "Unknown",
                }
            }
        }

        impl From<u16> for $name {
            fn from(number: u16) -> Self {
                Self::from_number(number)
            }
        }

        impl From<$name> for u16 {
            fn from(code: $name) -> Self {
                code.number()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Unknown(number) => write!(f, "Unknown({number})"),
                    known => f.write_str(known.name()),
                }
            }
        }
    };
}

code_type! {
    /// Why a well-formed request was answered *no*.
    RejectionCode, "A code of a newer version." {
        /// The lock is held, or others wait for it, and the request would not wait.
        Busy = 1,
        /// The request waited as long as it was willing to.
        TimedOut = 2,
        /// The request does not hold what it would release, or not with this token (rule R8).
        NotHolder = 3,
        /// The lock name is empty, too long or holds a control character or a line end.
        InvalidLockName = 4,
        /// The note is too long or holds a control character or a line end.
        InvalidNote = 5,
        /// The identity is too long or holds a control character or a line end.
        InvalidIdentity = 6,
        /// The ttl is shorter or longer than a lease may be.
        InvalidTtl = 7,
        /// Permits of 0, or more than there are.
        InvalidPermits = 8,
        /// The lock is in use with another number of permits, or as a plain lock. Of an earlier version.
        PermitsDiffer = 9,
        /// No claim at all, more than 64, or one lock claimed twice.
        InvalidClaims = 10,
        /// The lock delay is longer than 60 s.
        InvalidLockDelay = 11,
        /// The request id was used before for something else.
        RequestIdReused = 12,
        /// The request id is lower than one already seen, and its answer is no longer remembered.
        RequestForgotten = 13,
        /// The coordinator has as many sessions as it may.
        TooManySessions = 14,
        /// The session would claim more locks at a time, held or awaited, than it may.
        TooManyClaims = 15,
        /// As many requests wait for the lock as may.
        TooManyWaiters = 16,
        /// No session with this id and secret lives here (any more).
        UnknownSession = 17,
        /// A later connection of the session was there first (rule S2).
        StaleGeneration = 18,
        /// The coordinator is about to stop; ask again soon.
        Draining = 19,
        /// The coordinator cannot grant now: its fencing tokens are not durable (rule F2).
        Unavailable = 20,
        /// The lock is not held with this token, so there is nothing to revoke (rule R11).
        NoSuchGrant = 21,
        /// The connection has no session; it can only look.
        SessionNeeded = 22,
        /// This version knows the message but cannot do it.
        Unsupported = 23,
        /// The token or epoch the client presents is so far ahead that it cannot be true (rule F3).
        ImplausibleToken = 24,
        /// The coordinator has just restarted and waits for those who held locks before; a request
        /// that would not wait cannot be decided yet (rule G2).
        Grace = 25,
        /// There is nothing to reclaim any more: the grace period is over, or never was (rule G3).
        NoGrace = 26,
        /// The seal is not that of such a grant (rule G4).
        SealMismatch = 27,
        /// The request's owner holds the lock already, in a way that leaves no room (rule R7).
        AlreadyHeld = 28,
        /// To wait would be for ever: everybody in a cycle of owners would wait for the next (rule
        /// R7).
        Deadlock = 29,
        /// The connection would watch more locks than one may.
        TooManyWatches = 30,
        /// The request to be converted claims other locks, is another owner's, or is being
        /// converted.
        NotConvertible = 31,
        /// The lock is to be kept for longer than 7 days from its grant on.
        InvalidAtLeast = 32,
        /// As many locks are kept for as long as was asked for, or will be, as may.
        TooManyKept = 33,
        /// A newer request came that is to have its place (rule S10).
        Superseded = 34,
        /// Whoever asks does so more often than it may; ask again soon.
        SlowDown = 35,
        /// Nothing that was shown proves who this is, or two things prove different ones (rule A3).
        Unauthenticated = 36,
        /// No rule allows this to whoever asks (rule A4).
        Forbidden = 37,
    }
}

impl RejectionCode {
    /// Stands where nothing was rejected.
    pub const NONE: Self = Self::Unknown(0);
}

code_type! {
    /// Why a grant ended without its holder's releasing it.
    LostReason, "A reason of a newer version." {
        /// The session's lease ended: nothing was heard from its client for the ttl. A client also says so
        /// when the coordinator does not know its session, as after a loss of its state.
        Expired = 1,
        /// An operator took the lock away (rule R11).
        Revoked = 2,
        /// The connection ended, and the session with it.
        Disconnected = 3,
        /// The coordinator stopped.
        Stopped = 4,
        /// The coordinator restarted, and the lock was not reclaimed in time (rule G3).
        NotReclaimed = 5,
        /// The coordinator restarted, and somebody reclaimed the lock with a later token (rule G3).
        Conflict = 6,
        /// The process that held it has forked, and this is the other one. Only a client says so.
        Forked = 7,
        /// The coordinator refuses its client, as after a change of the access rules. Only a client says so,
        /// and the end of its session has the coordinator's words.
        Refused = 8,
    }
}

code_type! {
    /// Why one end closes a connection.
    GoodbyeCode, "A reason of a newer version." {
        /// The session is over because its client said so.
        Done = 1,
        /// A frame that is not of this protocol: malformed, truncated, too long, out of order.
        ProtocolError = 2,
        /// The client speaks a version of the protocol that this coordinator does not.
        UnsupportedVersion = 3,
        /// No Hello came in time.
        HandshakeTimeout = 4,
        /// An observer asked nothing for too long.
        IdleTimeout = 5,
        /// The coordinator has as many connections as it may.
        TooManyConnections = 6,
        /// The Hello was refused; the rejection code says why.
        Refused = 7,
        /// The session's lease ended.
        SessionExpired = 8,
        /// The session has a newer connection.
        Superseded = 9,
        /// The client does not read what it is sent.
        SlowReader = 10,
        /// The coordinator stops.
        Draining = 11,
        /// Another coordinator of the cluster leads, or none does for the moment. The message is the
        /// [address](super::ServerAddress) of the one that leads; empty if none is known.
        NotLeader = 12,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_from_its_number() {
        for code in RejectionCode::ALL {
            assert_eq!(RejectionCode::from_number(code.number()), *code);
        }
        for reason in LostReason::ALL {
            assert_eq!(LostReason::from_number(reason.number()), *reason);
        }
        for code in GoodbyeCode::ALL {
            assert_eq!(GoodbyeCode::from_number(code.number()), *code);
        }
    }

    #[test]
    fn a_code_of_a_newer_version_survives() {
        assert_eq!(RejectionCode::from_number(9999), RejectionCode::Unknown(9999));
        assert_eq!(RejectionCode::Unknown(9999).number(), 9999);
        assert_eq!(RejectionCode::Unknown(9999).to_string(), "Unknown(9999)");
    }
}
