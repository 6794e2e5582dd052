//! A lock service: named locks over TCP, first come first served, a fencing token in every grant.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod clock;
pub mod types;
pub mod wire;

#[cfg(feature = "client")]
pub use client::{
    Client, ClientBuilder, Error, HoldState, LockGuard, LockRequest, Observer, blocking,
};
