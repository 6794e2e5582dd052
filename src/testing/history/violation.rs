//! Violations, in words.

use std::fmt;
use std::sync::Arc;

use super::{How, RequestName};

/// A hold as its client believed in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    /// Which request's.
    pub(crate) request: RequestName,
    /// The fencing token.
    pub(crate) token: u64,
    /// How it held the lock in question.
    pub(crate) how: How,
    /// From when on it was believed in, by the referee's clock and the client's own.
    pub(crate) from: (u64, u64),
    /// Until when; none: to the end of the log.
    pub(crate) until: Option<(u64, u64)>,
}

/// Something that could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Two believed at a time in holds that exclude each other.
    TwoHolders { lock: Arc<str>, one: Hold, other: Hold },
    /// More permits were out than there are.
    TooManyPermits { lock: Arc<str>, taken: u64, of: u64, last: Hold },
    /// A lock was used as two kinds of thing at a time.
    KindsMixed { lock: Arc<str>, one: Hold, other: Hold },
    /// A grant was heard before another was asked for, yet has the greater token.
    TokenNotGreater { earlier: RequestName, earlier_token: u64, later: RequestName, token: u64 },
    /// Two requests have the same token.
    TokenTwice { one: RequestName, other: RequestName, token: u64 },
    /// A request was known to wait before another came, and was granted after it.
    Overtaken { lock: Arc<str>, first: RequestName, known_at: u64, by: RequestName, came_at: u64 },
    /// A request was granted under two tokens.
    GrantedTwice { request: RequestName, token: u64, again: u64 },
    /// A request was granted after it was over.
    GrantedAfterEnd { request: RequestName, token: u64, at: u64 },
    /// A release was said, or a loss was told, and the client still believed.
    StillBelieved { hold: RequestName, at: u64, what: &'static str },
    /// Something was told of a request in a state in which that cannot be.
    OutOfPlace { request: RequestName, at: u64, what: &'static str, state: &'static str },
    /// Nobody ever answered.
    Unanswered { request: RequestName, since: u64, what: &'static str },
    /// A resource took a write with an older token than one before.
    WentBack { resource: Arc<str>, by: RequestName, token: u64, seen: u64, at: u64 },
    /// A resource refused a write though no newer token had been there.
    RefusedInOrder { resource: Arc<str>, by: RequestName, token: u64, at: u64 },
    /// The time of a client's own clock went back.
    ClockWentBack { client: u64, at: u64 },
}

/// Microseconds as seconds.
fn seconds(micros: u64) -> impl fmt::Display {
    struct Seconds(u64);
    impl fmt::Display for Seconds {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{}.{:06} s", self.0 / 1_000_000, self.0 % 1_000_000)
        }
    }
    Seconds(micros)
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request {} of client {}", self.number, self.client)
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusively"),
            Self::Shared => f.write_str("shared"),
            Self::Permits { take, of } => write!(f, "with {take} of {of} permits"),
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, token, how, from, until } = self;
        write!(f, "{request} ({how}, token {token}) believed from {}", seconds(from.0))?;
        match until {
            Some(until) => {
                write!(f, " until {}", seconds(until.0))?;
                write!(f, " (by its own clock {} until {})", seconds(from.1), seconds(until.1))
            }
            None => f.write_str(" to the end"),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TwoHolders { lock, one, other } => {
                write!(f, "two holders of {lock:?}: {one}; {other}")
            }
            Self::TooManyPermits { lock, taken, of, last } => {
                write!(f, "{taken} of {of} permits of {lock:?} are out since {last}")
            }
            Self::KindsMixed { lock, one, other } => {
                write!(f, "{lock:?} is two kinds of lock at a time: {one}; {other}")
            }
            Self::TokenNotGreater { earlier, earlier_token, later, token } => write!(
                f,
                "{later} came after {earlier} had heard of token {earlier_token}, and got {token}"
            ),
            Self::TokenTwice { one, other, token } => {
                write!(f, "{one} and {other} were both granted token {token}")
            }
            Self::Overtaken { lock, first, known_at, by, came_at } => write!(
                f,
                "{first} waited for {lock:?}, and knew at {}; {by} came at {} and overtook it",
                seconds(*known_at),
                seconds(*came_at)
            ),
            Self::GrantedTwice { request, token, again } => {
                write!(f, "{request} was granted token {token}, and then {again}")
            }
            Self::GrantedAfterEnd { request, token, at } => {
                write!(f, "{request} was over, and was granted token {token} at {}", seconds(*at))
            }
            Self::StillBelieved { hold, at, what } => {
                write!(f, "{hold} still believed in its hold when {what} at {}", seconds(*at))
            }
            Self::OutOfPlace { request, at, what, state } => {
                write!(f, "{request} {what} at {}, when it {state}", seconds(*at))
            }
            Self::Unanswered { request, since, what } => {
                write!(f, "{what} of {request} at {} was never answered", seconds(*since))
            }
            Self::WentBack { resource, by, token, seen, at } => write!(
                f,
                "{resource:?} took token {token} of {by} at {}, after it had seen {seen}",
                seconds(*at)
            ),
            Self::RefusedInOrder { resource, by, token, at } => write!(
                f,
                "{resource:?} refused token {token} of {by} at {}, and had seen none greater",
                seconds(*at)
            ),
            Self::ClockWentBack { client, at } => {
                write!(f, "the clock of client {client} went back at {}", seconds(*at))
            }
        }
    }
}
