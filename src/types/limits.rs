//! The limits: bounds on everything that clients can cause.

use serde::{Deserialize, Serialize};

use super::Ttl;

/// Bounds that keep one client, or all of them, from using up the coordinator.
///
/// Going past one is a rejection. After a crash the limits hold as well, and former clients come
/// first. Returning sessions and waiters take the places of new ones, the latest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Longest lease that a client may ask for; at least the default of a lease counts as allowed. It
    /// bounds how long everybody waits after a crash. Leases that were granted before it was lowered
    /// are honoured as they are.
    pub ttl_max: Ttl,
    /// Most sessions alive at a time.
    pub sessions_max: usize,
    /// Most of them from one address, as [`Origin`](super::Origin) has it; none: three quarters.
    pub sessions_per_address_max: Option<usize>,
    /// Most locks that one session may claim at a time, held and awaited together. Each lock of a
    /// request counts.
    pub claims_per_session_max: usize,
    /// Maximum number of requests waiting for one lock.
    pub waiters_per_lock_max: usize,
    /// Most locks that are kept at a time after their holders are gone. It includes those whose
    /// holder or waiter has asked for it. Three quarters of them for those from one address. They
    /// go on over an orderly stop, and then nobody knows where they came from.
    pub kept_locks_max: usize,
    /// How many finished requests of a session are remembered, so that repeating one is answered
    /// as it was the first time (rule R1). A client with no more unanswered messages than this on
    /// their way can never be told `RequestForgotten`.
    pub finished_remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ttl_max: Ttl::ALLOWED_DEFAULT,
            sessions_max: 100_000,
            sessions_per_address_max: None,
            claims_per_session_max: 65_536,
            waiters_per_lock_max: 1_000_000,
            kept_locks_max: 65_536,
            finished_remembered: 256,
        }
    }
}
