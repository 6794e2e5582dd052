//! A lock service: named locks over TCP, first come, first served, with a fencing token in every grant.
//!
//! *Events go in, effects come out, and the shell does nothing but carry them* (functional core,
//! imperative shell).
//!
//! ```text
//!             bytes              ClientMessage            Event
//!  client ──────────▶ Session ──────────────▶ Coordinator ───────▶ ┌─────────────┐
//!  library            (actor,                 (actor, one,         │  LockTable  │  pure: no clock,
//!         ◀────────── one per ◀────────────── owns the table) ◀─── │  (engine)   │  no I/O, no actix
//!             bytes   socket)  ServerMessage               Effects └─────────────┘
//! ```
//!
//! Each TCP connection is an actor that forwards its client's messages to the one Coordinator
//! actor. The Coordinator owns the service queues and sends grants back. The mailboxes do the
//! sequencing.
//!
//! | room | holds | may import |
//! |---|---|---|
//! | [`types`] | names, ids, times, modes, codes, limits | std, serde |
//! | [`engine`] | the lock table: all rules about locks | types |
//! | [`wire`] | the messages and their frames | types, serde, bytes, bincode, tokio-util |
//! | [`access`] | who may do what: principals, proofs, rules | types |
//! | [`cluster`] | who of several coordinators leads, and what it may say | types |
//! | [`election`] | who leads, carried out: a thread, and etcd as the arbiter | types, cluster, etcd, clock |
//! | [`etcd`] | a client of etcd: values are read and swapped | tonic, prost |
//! | [`journal`] | a write-ahead log: records, segments, recovery | std, rustix, siphasher |
//! | [`redis`] | the Redis dialect: requests, commands, scripts, answers | types, ring |
//! | [`server`] | the actors, the listener, the state store; one of several | types, engine, wire, access, journal, redis, election, actix, tokio |
//! | [`json`] | what programs are told | types, wire |
//! | [`http`] | the page, its API, probes and metrics | types, wire, access, json, `server::Looker`, axum, hyper |
//! | [`client`] | the client library: sessions, guards, beliefs | types, wire, tokio |
//! | `cli`, `main` | arguments to calls, answers to text | server, client |
//!
//! Nothing imports a room below it in this table. With no features, only the first three are built,
//! without tokio and actix; the features `client` and `server` add the others.
//!
//! `docs/architecture.md` follows a request through all of them, and `docs/glossary.md` explains
//! the words.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[cfg(all(feature = "server", not(unix)))]
compile_error!(
    "the coordinator and its command line are for Unix systems: they rely on file modes, process groups \
     and signals; the client library can be built here, with `default-features = false, features = \
     [\"client\"]`"
);

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "client")]
pub mod client;
#[cfg(any(feature = "client", feature = "server"))]
mod clock;
#[cfg(feature = "cluster")]
pub mod cluster;
#[cfg(feature = "cluster")]
pub mod election;
pub mod engine;
#[cfg(feature = "cluster")]
pub mod etcd;
#[cfg(all(feature = "http", unix))]
pub mod http;
#[cfg(feature = "server")]
pub mod journal;
#[cfg(all(feature = "http", unix))]
pub mod json;
#[cfg(feature = "redis-api")]
pub mod redis;
#[cfg(all(feature = "server", unix))]
pub mod server;
#[cfg(test)]
mod testing;
#[cfg(feature = "tls")]
pub mod tls;
pub mod types;
pub mod wire;

pub use types::{Credential, FenceGuard};

#[cfg(feature = "client")]
pub use client::{
    Client, ClientBuilder, ConvertError, EachFailed, Error, Event, Events, Happened, HoldState,
    Leader, Leaders, Leadership, LockAllRequest, LockGuard, LockRequest, LockState, NoLeader,
    Observer, Owner, Semaphore, Servers, SessionEvent, SessionEvents, SessionKey, Unwelcomed,
    Upgrade, Watch, blocking,
};

#[cfg(all(feature = "client", feature = "tls"))]
pub use tls::TlsOptions;

/// The Rust examples of the README, compiled.
#[cfg(all(doctest, feature = "client"))]
#[doc = include_str!("../README.md")]
struct Readme;
