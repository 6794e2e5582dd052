//! The load generator: connections that ask and release, and what they measure.
//!
//! The one idea: *a [`Peer`] knows how to speak, everything else is the same for all*. `coordinator
//! bench` speaks the wire's protocol over bare sockets, because the client library's own costs
//! would blur the figures. `benches/peers` includes this directory and speaks other services'
//! protocols, so the same loop measures them all.
//!
//! ```text
//!            ┌──────────── control: warm-up, measuring, over ────────────┐
//!   Plan ──▶ │  thread ─ Player ─ Link ──▶ server                        │ ──▶ Outcome
//!            │         ├ Player ─ Link ──▶ server     Checks, Crowd      │
//!            │  thread ─ Player ─ Link ──▶ server     (shared by all)    │
//!            └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Never here: text for people, flags, and anything of the client library. Nothing here waits for
//! one connection before it serves another. No pair is left out because the server was slow (no
//! coordinated omission). In the open loop, latency counts from when a pair was to begin.
//!
//! `docs/performance.md` explains the figures.

mod checks;
mod control;
mod crowd;
mod error;
mod link;
mod outcome;
mod pace;
mod plan;
mod player;
mod run;
mod tally;
#[cfg(test)]
mod tests;
pub(crate) mod usage;

pub(crate) use control::{Progress, measure};
pub(crate) use error::Error;
pub(crate) use link::Coordinator;
pub(crate) use outcome::{Latency, Outcome};
pub(crate) use plan::{Connections, Extent, Locks, Plan, Priority, Rhythm};

/// A service that grants locks, as a load generator sees it.
pub(crate) trait Peer: Clone + Send + 'static {
    /// A connection to it.
    type Link: Link + 'static;

    /// Opens the connection with this number. It may leave its greeting to the first turn, so that
    /// greeting and request travel together.
    async fn connect(&self, number: usize) -> Result<Self::Link, Error>;
}

/// A connection that has a few locks of its own to ask for: its slots.
pub(crate) trait Link {
    /// Does what greeting is left to do.
    async fn greet(&mut self) -> Result<(), Error>;

    /// Asks for all its slots' locks, or gives them back, or both: in one write if the protocol
    /// allows it. Tells `hear` of every answer when it comes, and returns after the last.
    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error>;

    /// Keeps the session alive while nothing is asked. Only ever ends with an error, and loses
    /// nothing if it is dropped.
    async fn keep_alive(&mut self) -> Result<(), Error>;

    /// Says goodbye, if the protocol has a word for it.
    async fn leave(self) -> Result<(), Error>;
}

/// What a connection says in one turn, for all of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Asks for the locks.
    Acquire,
    /// Gives the locks back.
    Release,
    /// Gives the locks back, and asks for them again.
    Exchange,
    /// Gives the locks back and says goodbye.
    ReleaseAndLeave,
}

/// What a connection hears about one of its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The lock is held.
    Granted {
        /// Which of the connection's locks.
        slot: usize,
        /// The fencing token, if the service has such.
        token: Option<u64>,
    },
    /// The lock is free, as asked.
    Released,
}
