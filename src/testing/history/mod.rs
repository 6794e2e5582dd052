//! The history checker: the clients' observations, recorded as they happened, and judged.
//!
//! A *log* has the actions and answers of each client. Each entry has two times: that of the
//! referee, one clock for all, and that of the client's own clock, for the reader of a complaint.
//! [`Log::check`] decides, from nothing but that:
//!
//! - at no moment two believed in holds that exclude each other, and no more permits were out than
//!   there are;
//! - a later grant has a greater token, and holds that exclude each other come in the order of
//!   their tokens;
//! - first come, first served, among requests of which it is known who came first;
//! - belief ended before a release was said, and by the time a loss was told;
//! - every request and release has one answer, and none that was refused is granted;
//! - a fenced resource never goes back, and refuses nobody who comes in order.
//!
//! Tokens give the order, so all of it is sorting and one look at each entry: O(n log n).
//!
//! Nothing here knows the coordinator: the same checker judges a simulation in one thread and
//! processes on a real network.

mod check;
#[cfg(test)]
mod tests;
mod violation;

use std::sync::Arc;

pub(crate) use check::Figures;
pub(crate) use violation::Violation;

/// A request, by its client and a number that the client gives no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestName {
    /// Whose it is.
    pub(crate) client: u64,
    /// Which of its requests.
    pub(crate) number: u64,
}

/// How a lock is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Alone.
    Exclusive,
    /// With others who share.
    Shared,
    /// So many of so many.
    Permits {
        /// How many are wanted.
        take: u32,
        /// How many there are.
        of: u32,
    },
}

/// A lock and how it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The lock.
    pub(crate) lock: Arc<str>,
    /// How.
    pub(crate) how: How,
}

/// Something that a client did or was told.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// It asks for locks.
    Invoked {
        /// What it wants.
        wanted: Vec<Wanted>,
        /// Whether it may go before others: it converts what the client holds.
        goes_first: bool,
    },
    /// It hears that it waits. From now on it is known to have come.
    Queued,
    /// It has lost its place in line, as after too long an absence: others may come before it.
    PlaceLost,
    /// It hears that it holds, and believes it.
    Granted {
        /// The fencing token.
        token: u64,
    },
    /// It believes no more that it holds.
    BeliefEnded,
    /// It hears that it holds nothing and will not: refused, cancelled, timed out.
    Refused,
    /// It gives back what it holds.
    ReleaseInvoked,
    /// It hears what became of that.
    ReleaseAnswered,
    /// It hears that it holds no more, or finds out by itself.
    Lost,
    /// Nobody waits for any answer to it any more: it was given up, or its client is no more.
    Abandoned,
    /// It uses a resource that looks at tokens.
    Wrote {
        /// The resource.
        resource: Arc<str>,
        /// The token that was shown.
        token: u64,
        /// Whether the resource accepted it.
        accepted: bool,
    },
}

/// An entry of the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// When, in microseconds of the referee's clock.
    pub(crate) at: u64,
    /// When, in microseconds of the client's own clock.
    pub(crate) local: u64,
    /// Which request it is about.
    pub(crate) request: RequestName,
    /// What happened.
    pub(crate) what: What,
}

/// What happened, in the order in which it was written down. Entries of one client are in order of
/// time; those of different clients may come from different threads, and are put into order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    entries: Vec<Entry>,
}

impl Log {
    /// Writes something down.
    pub(crate) fn note(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Adds what somebody else wrote down.
    pub(crate) fn append(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Judges everything.
    ///
    /// # Errors
    ///
    /// All that could not be, in the order in which it was found.
    pub(crate) fn check(mut self) -> Result<Figures, Vec<Violation>> {
        self.entries.sort_by_key(|entry| entry.at);
        check::check(&self.entries)
    }
}
