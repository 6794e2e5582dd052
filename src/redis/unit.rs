//! Units of time, as commands count.

use std::time::Duration;

/// In which unit times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

impl Unit {
    /// So many of them.
    pub fn length(self, count: u64) -> Duration {
        match self {
            Self::Seconds => Duration::from_secs(count),
            Self::Millis => Duration::from_millis(count),
        }
    }

    /// How many of them there are in a length, the last one counted as a whole, so that what is left is
    /// never told to be nothing.
    pub fn count(self, length: Duration) -> i64 {
        let unit = self.length(1).as_nanos();
        i64::try_from(length.as_nanos().div_ceil(unit)).unwrap_or(i64::MAX)
    }
}
