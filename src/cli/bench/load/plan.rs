//! The plan of a measurement, as plain data.

use std::num::NonZeroU32;
use std::time::Duration;

use coordinator::types::Mode;

/// A measurement.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Number of concurrent connections.
    pub(crate) connections: usize,
    /// How many threads serve them: one is enough for a server on one core, and disturbs it least.
    pub(crate) threads: usize,
    /// Who contends with whom.
    pub(crate) locks: Locks,
    /// How the locks are held.
    pub(crate) mode: Mode,
    /// When a connection asks.
    pub(crate) rhythm: Rhythm,
    /// How long a connection lasts.
    pub(crate) keep: Connections,
    /// Whether others on this machine come first.
    pub(crate) priority: Priority,
    /// How long everything goes on before anything is measured.
    pub(crate) warmup: Duration,
    /// How much is measured.
    pub(crate) extent: Extent,
    /// Begins the name of every lock, so that two measurements do not meet.
    pub(crate) prefix: String,
}

/// Who contends with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Locks {
    /// Nobody: each connection has locks of its own.
    Own,
    /// Everybody: there is one lock.
    Same,
}

/// When a connection asks. A *pair* is a request that is granted, and its release.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rhythm {
    /// When the answer before has come: a closed loop, with one message on its way.
    Steps,
    /// The same, but so many pairs per write: the release of what was granted last, and the
    /// next request.
    Batches(NonZeroU32),
    /// Whether the answer before has come or not. This many pairs begin in each second, over all
    /// connections, and latency counts from when a pair was to begin.
    Rate(f64),
}

/// How long a connection lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connections {
    /// As long as the measurement.
    Kept,
    /// For one pair.
    PerIteration,
}

/// Who comes first where there are fewer processors than want one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// Nobody.
    Usual,
    /// Everybody else, as far as they can use them: whoever asks is as if on another machine.
    Lowest,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What is done in this time.
    For(Duration),
    /// So many pairs, rounded up to whole writes.
    Pairs(u64),
}

impl Plan {
    /// How many locks a connection asks for at a time.
    pub(crate) fn slots(&self) -> usize {
        match self.rhythm {
            Rhythm::Steps | Rhythm::Rate(_) => 1,
            Rhythm::Batches(depth) => usize::try_from(depth.get()).unwrap_or(usize::MAX),
        }
    }

    /// How many locks there are.
    pub(crate) fn lock_count(&self) -> usize {
        match self.locks {
            Locks::Own => self.connections * self.slots(),
            Locks::Same => 1,
        }
    }

    /// Which lock is in this slot of this connection.
    pub(crate) fn lock(&self, connection: usize, slot: usize) -> usize {
        match self.locks {
            Locks::Own => connection * self.slots() + slot,
            Locks::Same => 0,
        }
    }

    /// The name of a lock. All names are of the same length, so that all frames are.
    pub(crate) fn lock_name(&self, lock: usize) -> String {
        format!("{}-{lock:06}", self.prefix)
    }

    /// Whether all that happens is that one connection hands the lock over to another.
    pub(crate) fn is_handed_over(&self) -> bool {
        self.locks == Locks::Same && self.mode == Mode::Exclusive && self.connections > 1
    }
}
