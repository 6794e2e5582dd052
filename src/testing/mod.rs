//! The test house: what tests several rooms at once, and what such tests share. Never part of a build.
//!
//! | place | is about |
//! |---|---|
//! | `simulation` | the rules of both sides in virtual time: faults by the thousand |
//! | `network_simulation` | the whole of it, actors, wire and clients, on a network that is none |
//! | `history` | what clients saw, judged; `tests/it` judges the real programs with it |
//! | `dialect` | what simulated clients of the Redis dialect say, in either simulation |
//! | `fuzz` | corpora, mutations, seeds, and campaigns that say how a failure is replayed |
//!
//! Each run of any of them is a function of one number. Tests of one room stand in that room, in
//! its `tests`.

#[cfg(all(feature = "client", feature = "server"))]
mod dialect;
#[cfg(feature = "codec")]
pub(crate) mod fuzz;
pub(crate) mod history;
#[cfg(all(feature = "client", feature = "server"))]
mod network_simulation;
#[cfg(all(feature = "client", feature = "server", feature = "redis-api"))]
mod simulation;
