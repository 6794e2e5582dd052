//! How long a request waits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::millis_up;

/// How long a request waits that cannot be granted at once (rule R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Wait until it can.
    Forever,
    /// Wait this long at most, from when the coordinator handles the request; then the answer is
    /// `TimedOut`. Written down in milliseconds, rounded up.
    AtMost(#[serde(with = "millis_up")] Duration),
    /// Do not wait: the answer is `Busy`.
    Never,
}

impl Wait {
    /// As long as `timeout`; zero is not to wait.
    pub fn at_most(timeout: Duration) -> Self {
        if timeout.is_zero() { Self::Never } else { Self::AtMost(timeout) }
    }

    /// The same, of a number of milliseconds; zero is a timeout that has passed.
    pub const fn millis(ms: u64) -> Self {
        Self::AtMost(Duration::from_millis(ms))
    }

    /// How long that is at most, as it is written down: who hears it again, from a journal, waits as
    /// long. None for ever, and for not at all.
    pub fn length(self) -> Option<Duration> {
        match self {
            Self::AtMost(length) => {
                let millis = u64::from(length.subsec_nanos()).div_ceil(1_000_000);
                Some(
                    Duration::from_secs(length.as_secs())
                        .saturating_add(Duration::from_millis(millis)),
                )
            }
            Self::Forever | Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_written_in_milliseconds_and_a_little_is_never_nothing() {
        for (nanos, ms) in [(0, 0), (1, 1), (999_999, 1), (1_000_000, 1), (1_000_001, 2)] {
            let written = bincode::serialize(&Wait::AtMost(Duration::from_nanos(nanos))).unwrap();
            let again: Wait = bincode::deserialize(&written).unwrap();
            assert_eq!(again, Wait::millis(ms));
            assert_eq!(again.length(), Wait::AtMost(Duration::from_nanos(nanos)).length());
            assert_eq!(written, bincode::serialize(&(1_u32, ms)).unwrap());
        }
    }

    #[test]
    fn the_longest_timeout_comes_back() {
        let written = bincode::serialize(&Wait::millis(u64::MAX)).unwrap();
        assert_eq!(bincode::deserialize::<Wait>(&written).unwrap(), Wait::millis(u64::MAX));
        assert!(bincode::serialize(&Wait::AtMost(Duration::MAX)).is_ok());
    }

    #[test]
    fn no_time_is_not_to_wait() {
        assert_eq!(Wait::at_most(Duration::ZERO), Wait::Never);
        assert_eq!(Wait::at_most(Duration::from_nanos(1)), Wait::AtMost(Duration::from_nanos(1)));
    }
}
