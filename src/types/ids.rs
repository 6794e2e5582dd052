//! Ids. Each is a type of its own (newtype), so none can be mistaken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What every plain number type gets: construction, the number back, and its decimal form.
macro_rules! number_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(
            /// The number: each means something.
            pub u64,
        );

        impl $name {
            /// Takes the number as it is.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself.
            pub const fn number(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number_type! {
    /// Names a request within its session. Chosen by the client, from 1 upwards, each greater than
    /// the one before, so that a repeated request is recognised after a reconnect (rule R1).
    RequestId
}

number_type! {
    /// Names an owner within a session (rule R7). 0: the request is an owner of its own.
    OwnerId
}

number_type! {
    /// Names a connection within one run of the coordinator. Never used twice in a run. 0: none.
    ConnectionId
}

number_type! {
    /// Counts the connections of a session; only the latest is listened to (rule S2).
    Generation
}

number_type! {
    /// One run of the coordinator. Durable, and only grows.
    Epoch
}

impl Generation {
    /// One that is so many connections later; the last of all if there is no such.
    #[must_use]
    pub const fn leap(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl OwnerId {
    /// That of a request which is an owner of its own.
    pub const NONE: Self = Self(0);
}

/// No fencing token is greater: one survives as a JSON number, and positive as an i64.
pub const FENCING_TOKEN_MAX: u64 = (1 << 53) - 1;

number_type! {
    /// The number in every grant, greater than that of any grant before it, for whatever lock
    /// (rule F1). A resource that remembers the greatest token it has seen can refuse a holder
    /// whose lease has ended without its knowing.
    ///
    /// See Martin Kleppmann, *How to do distributed locking* (2016); Mike Burrows, *The Chubby lock
    /// service* (2006), section 2.4, calls it a sequencer.
    FencingToken
}

/// Where a waiting request stands among all that ever waited: earlier ones first. Keeps a request's
/// place over a restart of the coordinator (rule G2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Ticket {
    /// The run in which the request began to wait.
    pub epoch: u64,
    /// How many began to wait in that run before it, and one.
    pub arrival: u64,
}

/// Names a session: 128 random bits. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(
    /// The number: each is a name.
    pub u128,
);

impl SessionId {
    /// Takes the number as it is.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The number itself.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_id_has_always_32_digits() {
        assert_eq!(SessionId::new(0x2a).to_string(), format!("{:0>32}", "2a"));
    }
}
