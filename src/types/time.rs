//! Moments and lengths of time. Nothing here reads a clock.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Shortest lease that can be asked for.
pub const TTL_MIN: Duration = Duration::from_secs(2);
/// Longest lease that an operator may allow.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Longest lease that can be asked for, unless the operator allows others: after a crash, everybody
/// waits for the longest.
pub const TTL_MAX_DEFAULT: Duration = Duration::from_secs(600);
/// Lease of a session that does not ask for another.
pub const TTL_DEFAULT: Duration = Duration::from_secs(10);
/// Longest pause before a lock is granted anew after an involuntary loss (rule S7).
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// Longest time for which a lock is kept from its grant on (rule S9).
pub const AT_LEAST_MAX: Duration = Duration::from_secs(7 * 86_400);

/// A moment: microseconds since an origin that only its reader's own clock knows.
///
/// Two machines' timestamps cannot be compared; nothing puts one on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// One more than the microseconds, so that there is room for none: an `Option` of it is no larger.
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// The moment `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(micros))
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0.get() - 1
    }

    /// The moment `length` later; the last of all moments if there is no such.
    #[must_use]
    pub fn after(self, length: Duration) -> Self {
        Self(self.0.saturating_add(micros(length)))
    }

    /// The moment `length` earlier; the origin if that is later.
    #[must_use]
    pub fn before(self, length: Duration) -> Self {
        Self::from_micros(self.as_micros().saturating_sub(micros(length)))
    }

    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::from_micros(0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timestamp").field(&self.as_micros()).finish()
    }
}

/// A length in whole microseconds, or as many as there can be.
fn micros(length: Duration) -> u64 {
    // Not by `Duration::as_micros`, which multiplies 128 bits: a lease is renewed with every message.
    length.as_secs().saturating_mul(1_000_000).saturating_add(length.subsec_micros().into())
}

/// Why a length was refused as a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a ttl of {asked:?} is not between {TTL_MIN:?} and {TTL_MAX:?}")]
pub struct TtlError {
    /// What was asked for.
    pub asked: Duration,
}

/// Length of a lease, within [`TTL_MIN`] and [`TTL_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Duration", into = "Duration")]
pub struct Ttl(Duration);

impl Ttl {
    /// The longest that a client may ask for, unless the operator says otherwise.
    pub const ALLOWED_DEFAULT: Self = Self(TTL_MAX_DEFAULT);

    /// Takes `length` as the length of a lease.
    ///
    /// # Errors
    ///
    /// If it is shorter than [`TTL_MIN`] or longer than [`TTL_MAX`].
    pub fn new(length: Duration) -> Result<Self, TtlError> {
        if (TTL_MIN..=TTL_MAX).contains(&length) {
            Ok(Self(length))
        } else {
            Err(TtlError { asked: length })
        }
    }

    /// The length itself.
    pub const fn length(self) -> Duration {
        self.0
    }

    /// The length in whole milliseconds, as the wire has it.
    pub fn as_millis(self) -> u32 {
        u32::try_from(self.0.as_millis()).unwrap_or(u32::MAX)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = TtlError;
    fn try_from(length: Duration) -> Result<Self, TtlError> {
        Self::new(length)
    }
}

impl From<Ttl> for Duration {
    fn from(ttl: Ttl) -> Self {
        ttl.length()
    }
}

impl Default for Ttl {
    fn default() -> Self {
        Self(TTL_DEFAULT)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Lengths of time, written down as the milliseconds that have passed in them.
pub(super) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::types) fn serialize<S: Serializer>(
        length: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
    }

    pub(in crate::types) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

/// The same, rounded up, so that a little is never nothing.
pub(super) mod millis_up {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(in crate::types) fn serialize<S: Serializer>(
        length: &Duration,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let millis = length.as_nanos().div_ceil(1_000_000);
        serializer.serialize_u64(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    pub(in crate::types) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Duration, D::Error> {
        super::millis::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_between_2_seconds_and_an_hour() {
        let nearly = Duration::from_millis(1);
        assert!(Ttl::new(TTL_MIN).is_ok());
        assert!(Ttl::new(TTL_MAX).is_ok());
        assert!(Ttl::new(TTL_MIN.saturating_sub(nearly)).is_err());
        assert!(Ttl::new(TTL_MAX + nearly).is_err());
        assert_eq!(Ttl::default().as_millis(), 10_000);
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        let last = Timestamp::from_micros(u64::MAX);
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(Timestamp::default().since(last), Duration::ZERO);
    }
}
