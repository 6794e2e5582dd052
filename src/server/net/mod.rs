//! The network: accepting, places for connections, and the actor of each. Only this room knows
//! sockets.
//!
//! Never here: a rule about locks.

pub(super) mod hosts;
pub(super) mod listener;
mod outbox;
pub(super) mod pace;
pub(super) mod place;
#[cfg(feature = "redis-api")]
pub(super) mod redis;
pub(super) mod session;
pub(super) mod socket;
pub(super) mod visits;
