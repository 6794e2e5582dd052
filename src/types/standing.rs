//! The state of a session at the coordinator.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::millis;

/// The state, at the coordinator, of the session that a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It is new, or the connection is an observer's.
    Opened,
    /// Everything: it holds and awaits what it did.
    Resumed,
    /// Nothing but that it was: the coordinator has crashed, and what the session held is to be
    /// reclaimed (rule G2).
    Reopened {
        /// What is left of the grace period, in which that can be. Written down in milliseconds.
        #[serde(with = "millis")]
        grace: Duration,
    },
}
