//! A lock service: named locks over TCP, first come first served, a fencing token in every grant.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod engine;
pub mod types;
pub mod wire;
