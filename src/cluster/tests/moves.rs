//! What may happen to a cluster.

use std::time::Duration;

use crate::cluster::{Arbiter, RunId, Seat, Version};

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// All that may be said by this node is said.
    Say(usize),
    /// A client asks for the lock.
    Append(usize),
    /// The grace period is over, if its time is.
    EndGrace(usize),
    /// The second begins to follow the first.
    Follow(usize, usize),
    /// A record goes along a link, or a sign of life.
    Stream(usize),
    /// An acknowledgement comes back.
    Acknowledge(usize),
    /// A link breaks; the standby notices, or not yet.
    Cut(usize, Notice),
    /// A proposal comes to the arbiter.
    Arrive(usize),
    /// A question comes to the arbiter.
    Read(usize),
    /// An answer of it comes back.
    Answer(usize),
    /// A node looks at its clock.
    Tick(usize),
    /// A node stands still for so long, and looks at its clock.
    Stall(usize, Duration),
    /// Time passes.
    Pass(Duration),
    /// A node has not heard its leader.
    Silence(usize),
    /// A process crashes, and is started again.
    Crash(usize, Journal),
    /// A process is to stop in order.
    Stop(usize),
    /// A node hears that a run has ended.
    Ended(usize, RunId),
    /// An operator says to a node that whoever is in the seat is lost.
    Lost(usize),
    /// It is proved to a node that another has led of whom the arbiter knows nothing.
    Contradict(usize),
    /// The arbiter goes back to what it was once.
    Restore(Arbiter, Version, Option<Seat>),
}

/// Whether a standby notices that its link is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// At once.
    Now,
    /// Not by this.
    Later,
}

/// What a crash leaves of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Journal {
    /// All: the process died.
    Whole,
    /// Nothing: the machine died.
    Void,
}
