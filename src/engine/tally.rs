//! What happened since this run began, counted: for people and alerts. Nothing is decided by it, and it
//! is no part of what is written down of a table.

use crate::types::Histogram;

/// What happened since this run began.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// For how long requests waited that were granted; those at once for no time.
    pub waits: Histogram,
    /// For how long what was granted was held, once it is over.
    pub holds: Histogram,
    /// Grants to requests that had waited in a queue.
    pub queued: u64,
    /// New grants to requests that converted others.
    pub converted: u64,
    /// Grants of an earlier run, given back to who showed them.
    pub reclaimed: u64,
    /// Grants that their holders gave back.
    pub releases: u64,
    /// Requests that their clients gave up, waiting or held.
    pub cancellations: u64,
    /// How often the coordinator itself stood still (rule T3).
    pub stalls: u64,
}
