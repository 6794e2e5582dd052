//! Holders, waiters and events, shown to people and to programs.

pub(super) mod events;
mod journal;
mod json;
pub(super) mod members;
pub(super) mod ping;
mod seen;
pub(super) mod status;
pub(super) mod waits;
