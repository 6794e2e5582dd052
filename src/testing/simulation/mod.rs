#![allow(clippy::print_stdout, reason = "a simulation says how far it came, and what happened")]
//! Deterministic simulation testing of the whole service, in one thread and in virtual time. The
//! rules on both sides are those of production, and everything between them is simulated. So hours
//! pass in seconds, and each second of them can be replayed.
//!
//! The one idea: *a run is a function of its seed*. The next event is the earliest of a heap, and
//! chance has one source. No runtime, no socket and no clock has a say.
//!
//! ```text
//!            ┌─ production ──┐   messages    ┌──────── production ────────┐
//!   person ─▶│ client::core  │──── wire ────▶│ desk: turns, parse, table, │◀──▶ disk
//!   (wants)◀─│ (beliefs)     │◀─── wire ─────│ render, seal, start        │
//!            └───────────────┘               └────────────────────────────┘
//!                 └────────────▶ referee: what clients saw ◀───── faults
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `time` | the heap, and clocks that run at different rates |
//! | `network`, `disk` | ways that are slow or lose, commits that take time or fail |
//! | `journal` | the journal on a disk with a page cache, and what must wait for it |
//! | `person`, `errand`, `wants` | a client's core, what it is told, and what its owner wants |
//! | `stranger`, `strangers` | clients of the Redis dialect, in every third world |
//! | `site` | the coordinator: running, standing still, stopping, crashed |
//! | `operator` | who looks on, and takes locks away |
//! | `world` | who is told what, when |
//! | `faults` | what goes wrong |
//! | `ruling` | the access file: what it forbids, and what follows from that |
//! | `referee`, `tally` | what was seen, and whether it may be; how often |
//!
//! The clients' answers are judged, and each start: after a crash of the process it goes on with the
//! same table, without a grace period, unless the journal was given up before. No two believe in conflicting holds at a time, nobody is
//! overtaken, tokens only grow, and everything has one answer. No believed hold is lost without a
//! cause. After the faults everybody is served, and at last nothing is left.
//!
//! `docs/testing.md` says how to replay a run. The actors, the frames and the driver are not in here.

mod disk;
mod errand;
mod faults;
mod journal;
mod network;
mod operator;
mod person;
mod referee;
mod ruling;
mod site;
mod stranger;
mod strangers;
mod tally;
mod tests;
mod time;
mod wants;
mod world;

use crate::redis::Words;
use crate::types::Timestamp;
use crate::wire::{ClientMessage, ServerMessage};

/// Something that is to happen.
#[derive(Debug)]
enum Event {
    /// What a client sent arrives at the coordinator; none: that it closed the connection.
    Up { wire: usize, lost: u32, words: Option<Vec<ClientMessage>> },
    /// What the coordinator sent arrives at a client; none: that it closed the connection.
    Down { wire: usize, lost: u32, words: Option<Vec<ServerMessage>> },
    /// A client process begins.
    Born { machine: usize },
    /// An attempt to connect comes to its end, whichever.
    Dialed { machine: usize, number: u64 },
    /// A client's timer goes off.
    Alarm { machine: usize },
    /// Somebody who uses a client does something.
    Turn { machine: usize },
    /// A machine that stood still goes on.
    Wake { machine: usize },
    /// Somebody who uses the Redis dialect does something.
    StrangerTurn { stranger: usize },
    /// What it said arrives at the coordinator; none: that it closed the connection.
    StrangerUp { link: usize, lost: u32, words: Option<Vec<Words>> },
    /// What it is answered arrives; none: that the connection is closed.
    StrangerDown { link: usize, lost: u32, bytes: Option<Vec<u8>> },
    /// The coordinator's timer goes off.
    Ring { run: u64 },
    /// The coordinator has looked at its sockets since a turn had done enough.
    GoOn { run: u64 },
    /// Everything that could be read at this moment of its clock is submitted to the coordinator.
    AllHeard { run: u64, at: Timestamp },
    /// A commit comes to its end.
    Commit { run: u64 },
    /// The coordinator writes down what it has put off.
    Flush { run: u64 },
    /// A thread of the coordinator has written to the journal.
    Written { run: u64 },
    /// Another one has made a checkpoint of it.
    Made { run: u64 },
    /// The coordinator looks after its journal.
    LookAfter { run: u64 },
    /// The coordinator stood still, and goes on.
    SiteWakes { run: u64 },
    /// The coordinator is killed, if it is still the same.
    Kill { run: u64 },
    /// The coordinator begins anew.
    SiteStarts,
    /// Something goes wrong.
    Fault,
    /// Nothing goes wrong any more.
    Peace,
    /// Everything must have come to its end.
    End,
}
