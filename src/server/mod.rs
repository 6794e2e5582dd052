//! The coordinator on a network: actors round the [engine](crate::engine).
//!
//! The one idea: *the mailbox does the sequencing*. Every TCP connection is an actor, and forwards
//! what its client says to one other actor, which owns the table of locks. That one handles one
//! message at a time and sends the outcome back (single writer). Deciding takes no mutex and no
//! condition variable, and has no race.
//!
//! ```text
//!   Listener ──makes──▶ Session ──Submit──▶ Coordinator ──events──▶ LockTable
//!   (accepts)           (one per    ◀─Deliver─ (one)    ◀─effects── (pure)
//!                        connection)             │ ▲
//!                                        orders  ▼ │  Committed
//!                                             commit task ──▶ StateStore
//! ```
//!
//! | place | is about |
//! |---|---|
//! | `desk/` | turns: events in, effects out, one batch for each connection; parsing, rendering, watches, events, proofs |
//! | `net/` | accepting, places for connections, and the actor of each: bytes, handshake, bounds, closing |
//! | `durable/` | the store and its files, the commit task, and where a run begins |
//! | `coordinator`, `messages` | the one actor that all sessions speak to: a mailbox and a timer round the desk |
//! | `gate`, `barrier` | the only way out of it, and the wait until everything is heard |
//! | `ledger`, `counters`, `places` | bytes that lie unread, over all connections; counts; places for connections |
//! | `looker`, `incumbent`, `role`, `upkeep` | how other threads ask how things are, and whom; how it stands in its cluster; reloads and certificates, which they tell |
//! | `run`, `phase` | bound, serving, stopping, gone |
//! | `replica`, `threshold` | a standby that follows a leader, and what waits until it has |
//! | `candidate` | one of several: it stands by until it leads, and again when it leads no more |
//! | `audit` | who was let in or refused, denied what, took which lock from whom: a file of its own |
//! | `log_lines`, `fields`, `chatter` | the story in log lines, and how much of it one peer can fill |
//!
//! *A restart.* Several things outlive a run. The counters, the key of proofs and the forfeits
//! (tombstones) are on disk before they matter. The events are in the journal (a write-ahead log).
//! Clients keep their sealed grants, and show them after a crash without one. The snapshot of an
//! orderly stop has everything at once.
//!
//! ```text
//!   orderly stop ──▶ Goodbye to all, snapshot saved ──▶ start: taken over, nothing moved
//!   crash ─────────▶ (nothing)                      ──▶ start: grace period, clients reclaim
//!   ephemeral stop ▶ waiters answered, holders finish ▶ start: knows nothing, nobody holds
//! ```
//!
//! Once the snapshot is taken, the Coordinator decides nothing any more: it would be lost. Later
//! messages of clients stay unanswered, and clients repeat them to the next run (idempotent
//! requests).
//!
//! Invariants, as absences:
//! - Only `desk` touches the table.
//! - No rule about locks is here.
//! - Nothing waits for a disk or a peer while others could go on.
//! - No queue grows with the messages that a peer sends or does not read (backpressure). Each has a
//!   bound, and going past it closes that peer's connection and nobody else's. Unread events are
//!   left out instead, and their number is told. All queues together have a bound as well, past
//!   which the fullest are closed.
//! - No signal is handled, and nothing reads flags or the environment: the command line does.
//!
//! `docs/architecture.md` follows a request from end to end.

mod audit;
mod barrier;
#[cfg(feature = "cluster")]
mod candidate;
mod chatter;
mod config;
mod coordinator;
mod counters;
mod desk;
mod durable;
mod error;
mod fields;
mod gate;
mod inbox;
mod incumbent;
mod keeping;
mod lease;
mod ledger;
mod log_lines;
mod looker;
mod messages;
mod net;
mod phase;
mod places;
#[cfg(feature = "cluster")]
mod replica;
mod role;
mod run;
mod secure;
mod slots;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod threshold;
mod upkeep;

pub use audit::Audit;
#[cfg(feature = "access")]
pub use audit::{AuditPlace, AuditWriter};
#[cfg(feature = "cluster")]
pub use candidate::Candidate;
pub use config::{Config, Data, LOCK_PORT, LostState, MESSAGES_PER_SECOND_MIN, StaleState};
pub use desk::figures::{Contention, Figures, Told};
pub use desk::{Errand, Unentitled, Who};
pub use durable::{StoreError, check_data};
pub use error::ServerError;
pub use looker::{Counted, Looker, LooksLimits, Readiness};
pub use role::Role;
pub use run::{Server, ServerHandle, Spawned, spawn};
#[cfg(feature = "http")]
pub(crate) use secure::{Certified, Secure};
pub use upkeep::{Expires, Kept};
#[cfg(all(test, feature = "client"))]
pub(crate) use {
    desk::{
        Before, Desk,
        turn::{Delivery, More, Promise, Turn, Way},
        witness::{Granted, Witness},
    },
    durable::{
        Change, MemoryStore, StateKey, StateStore,
        chronicle::{Chronicle, Flushed, Ground, Job, Medium},
        persist::{Disk, summary},
        replay::{Record, checkpoint},
        start::begin_after,
        store::Stored,
    },
    keeping::Beginning,
    net::listener::Listener,
    net::socket::Socket,
    run::{Bound, before::table_before},
};
