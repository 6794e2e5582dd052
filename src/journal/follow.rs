//! Log compaction: makes checkpoints beside the writer, by an ordinary recovery in the background.
//! So recovery is exercised all day.
//!
//! ```text
//!   Writer: … 3 closed ──▶ writes 4 ─────────────────────▶ told of the checkpoint: 3 is gone
//!                │ Task                                        ▲ Made
//!   a thread:    └▶ checkpoint of 3, its records ──▶ checkpoint of 4, complete ──▶ removes 3
//! ```
//!
//! The segment that is written meanwhile is not touched. Appending and the checkpoint are not in
//! each other's way.

use std::io::{Read, Write};

use super::Distance;
use super::chain::{Chain, read_header};
use super::checkpoint::{self, Target};
use super::disk::Disk;
use super::error::{Failure, Void};
use super::header::Header;
use super::machine::Machine;
use super::sweep::sweep;

/// A checkpoint to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The segments that nobody writes any more.
    closed: Chain,
    /// The one that is to go on from the checkpoint.
    target: Target,
    /// Whether it is to survive a power cut.
    distance: Distance,
}

/// A checkpoint that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The segment that goes on from it.
    pub(super) segment: u64,
    /// How that begins.
    pub(super) header: Header,
    /// How long the checkpoint is.
    pub bytes: u64,
}

/// Why no checkpoint was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMade {
    /// The segments cannot be read again. A journal that cannot be replayed is of no use: it is to
    /// be begun anew.
    #[error("the journal cannot be followed: {0}")]
    Unread(#[from] Void),
    /// It could not be written. The journal is as good as before.
    #[error("no checkpoint could be written: {0}")]
    Unwritten(#[from] Failure),
}

impl Task {
    /// That of having a checkpoint of all but the last segment; none if there is no other.
    pub(super) fn new(mut chain: Chain, distance: Distance) -> Option<Self> {
        let last = chain.links.pop()?;
        let target = Target { segment: last.segment, first: last.first, run: last.run };
        (!chain.links.is_empty()).then_some(Self { closed: chain, target, distance })
    }
}

/// All that a journal has by now, for who reads it beside its writer.
#[derive(Clone, Debug)]
pub struct Stretch(pub(super) Chain);

/// A machine that goes no further than to a record.
struct Until<M>(M, u64);

impl<M: Machine> Machine for Until<M> {
    fn apply(&mut self, number: u64, record: &[u8]) -> Result<(), String> {
        if number < self.1 { self.0.apply(number, record) } else { Ok(()) }
    }

    fn checkpoint(&self, to: &mut dyn Write) -> std::io::Result<()> {
        self.0.checkpoint(to)
    }
}

impl Stretch {
    /// The number of the first record that it does not have.
    pub fn next(&self) -> u64 {
        self.0.last().next
    }

    /// Makes a machine of all that came before the record `until`. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// If a checkpoint was made meanwhile, and what it makes up for is gone; or what is there cannot be read.
    pub fn replay<D, M>(
        &self,
        disk: &D,
        until: u64,
        restore: impl FnOnce(&Header, Option<&mut dyn Read>) -> Result<M, String>,
    ) -> Result<M, Void>
    where
        D: Disk,
        M: Machine,
    {
        if self.0.header.first > until {
            return Err(Void::SegmentMissing { segment: self.0.header.segment.saturating_sub(1) });
        }
        let restore = |header: &Header, from: Option<&mut dyn Read>| {
            restore(header, from).map(|machine| Until(machine, until))
        };
        self.0.replay(disk, restore).map(|Until(machine, _)| machine)
    }
}

/// Replays what is closed, writes the checkpoint, and removes what it makes up for. Blocks for as
/// long as that takes; to be done on a thread of its own, one at a time.
///
/// # Errors
///
/// [`NotMade`]; then nothing was removed.
pub fn compact<D, M>(
    disk: &D,
    task: &Task,
    restore: impl FnOnce(&Header, Option<&mut dyn Read>) -> Result<M, String>,
) -> Result<Made, NotMade>
where
    D: Disk,
    M: Machine,
{
    let machine = task.closed.replay(disk, restore)?;
    let Target { segment, .. } = task.target;
    let header = read_header(disk, segment)?;
    let mut fill = |to: &mut dyn Write| machine.checkpoint(to);
    let bytes = checkpoint::write(disk, task.target, task.distance, &mut fill)?;
    // What could not be removed is in nobody's way, and goes with the next one.
    let _ = sweep(disk, segment, u64::MAX);
    Ok(Made { segment, header, bytes })
}
