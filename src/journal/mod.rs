//! The journal, a write-ahead log: events are written before anybody is told their result. A crash
//! then is an orderly stop that nobody ordered.
//!
//! The one idea: *complete or void*. Records are numbered and checked. A journal is used only if
//! everything that was ever said certainly follows from it. Otherwise it is as if there were none.
//!
//! ```text
//!   append ──▶ Tail (memory) ──▶ Writer ──▶ 00000003.log ─┐ long ──▶ 00000004.log
//!                                  │                      │
//!                                  │ Task     compact ◀───┴ replays 3, writes 00000004.checkpoint,
//!                                  └──────▶ (a thread)      removes 3
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `frame`, `reader` | a number, a length, two sums: all that stands in a file |
//! | `header`, `checkpoint` | how segments begin, and what they go on from |
//! | `tail`, `writer` | memory, then the disk; what happens when the disk fails |
//! | `recover`, `chain` | what is there, and whether it may be used |
//! | `follow` | checkpoints, made by replaying, away from the one who writes |
//! | `disk`, `directory`, `place` | what is asked of a system |
//!
//! # Who it is for
//!
//! The coordinator, whose setting [`Distance`] is: `server::Config` names it. The rest is public for
//! programs that read a journal without being the coordinator, such as a standby or a tool that
//! looks at what was recovered. They have to know the content of records, which is not public, so
//! they are of the same version. Code that only wants locks needs nothing of this.
//!
//! # How it is used
//!
//! The decider appends each event, and holds back the answers. At the end of a turn, or of all
//! turns of one poll, it calls [`Journal::flush`]. Then all answers may leave, in their order. An
//! error says that the journal is off: go on without, say so, and begin anew with a checkpoint when
//! the disk is well. If it is [`Broken::Stuck`], grant nothing until [`Journal::make_void`]
//! succeeds.
//!
//! At [`Distance::Machine`] a flush waits for the disk. A caller that must not wait takes the two
//! halves apart ([`Journal::into_parts`]). The [`Tail`] stays and takes new records. The [`Writer`]
//! lives on a thread and is handed one [`Batch`] after the other. The effects of a batch are told
//! when [`Writer::write`] has returned its last number. While one is synced the next one grows:
//! that is group commit.
//!
//! After a flush, [`Writer::due`] may have a checkpoint to be made. A thread makes it by
//! [`compact`], and the writer hears how it went: [`Writer::checkpointed`],
//! [`Writer::not_checkpointed`].
//!
//! ```
//! use coordinator::journal::{
//!     Bounds, Directory, Distance, Epochs, Expected, Journal, Machine, Place, Recovered, Run,
//!     recover,
//! };
//! use std::io::{Read, Write};
//!
//! /// A number, and records that are added to it.
//! struct Sum(u64);
//!
//! impl Machine for Sum {
//!     fn apply(&mut self, _: u64, record: &[u8]) -> Result<(), String> {
//!         let record = record.try_into().map_err(|_| "it has not 8 bytes")?;
//!         self.0 += u64::from_le_bytes(record);
//!         Ok(())
//!     }
//!
//!     fn checkpoint(&self, to: &mut dyn Write) -> std::io::Result<()> {
//!         to.write_all(&self.0.to_le_bytes())
//!     }
//! }
//!
//! fn restore(checkpoint: Option<&mut dyn Read>) -> Result<Sum, String> {
//!     let mut bytes = [0; 8];
//!     if let Some(checkpoint) = checkpoint {
//!         checkpoint.read_exact(&mut bytes).map_err(|error| error.to_string())?;
//!     }
//!     Ok(Sum(u64::from_le_bytes(bytes)))
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let data = tempfile::tempdir()?;
//! let disk = Directory::open(&std::fs::File::open(data.path())?)?;
//! let (place, rules) = (Place::here(), 1);
//! let run = |id| Run {
//!     id,
//!     place,
//!     rules,
//!     distance: Distance::Machine,
//!     epochs: Epochs { ordered: 7, confirmed: 7 },
//!     settings: Vec::new(),
//! };
//! let mut journal = Journal::new(disk.clone(), run(1), Bounds::default());
//! journal.begin(None)?;
//! for number in [20_u64, 21] {
//!     journal.append(&number.to_le_bytes());
//! }
//! assert_eq!(journal.flush()?, 2);
//! drop(journal); // a crash
//!
//! let Recovered::Whole(whole) = recover(&disk, &Expected { place, rules, epoch: 7 }) else {
//!     panic!("nothing was cut, and nothing is an old copy");
//! };
//! let sum = whole.replay(&disk, |_, checkpoint| restore(checkpoint))?;
//! assert_eq!(sum.0, 41);
//! let mut journal = Journal::new(disk, run(2), Bounds::default());
//! journal.go_on(&whole)?;
//! assert_eq!(journal.append(&1_u64.to_le_bytes()), 3);
//! # Ok(())
//! # }
//! ```
//!
//! Invariants, as absences:
//! - Nothing here knows the content of a record, reads a clock, draws random numbers, or logs.
//! - No record is reported as written before it is as far as the distance demands.
//! - No length is believed that was not checked, and no file is read whole into memory.
//! - No record is applied of a journal that was not checked to its end.
//! - No file is removed before its replacement is complete.
//! - No error is forgotten: after one, nothing is written until a journal is begun anew.
//!
//! `docs/journal.md` has the format, the decisions of a recovery and the promises.

mod bounds;
mod chain;
mod checkpoint;
mod directory;
mod disk;
mod error;
mod follow;
mod frame;
mod header;
mod machine;
mod place;
mod reader;
mod recover;
#[cfg(test)]
pub(crate) mod simulated;
mod sweep;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

pub use self::bounds::{Bounds, CHAIN_SEGMENTS_MAX, OVERDUE_TIMES};
pub use self::checkpoint::Fill;
pub use self::directory::{Directory, JOURNAL_NAME};
pub use self::disk::{Disk, DiskFile, Facts};
pub use self::error::{Broken, Failure, Note, Void};
pub use self::follow::{Made, NotMade, Stretch, Task, compact};
pub use self::frame::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
pub use self::header::{FORMAT, Header, SETTINGS_BYTES_MAX};
pub use self::machine::Machine;
pub use self::place::Place;
pub use self::recover::{Expected, Recovered, Whole, recover};
pub use self::tail::{Batch, Tail};
pub use self::writer::Writer;

/// Most files that the directory may have. More than are ever made, and few enough to be looked at.
pub const NAMES_MAX: usize = 1024;

/// How far a record is before anything that follows from it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Written: survives the end of the process, however it comes.
    Process,
    /// Synced: survives a power cut, too.
    Machine,
}

/// The epoch, as the state beside the journal has it.
///
/// It is what tells an old copy. An order to the state goes out after its record is written. So the
/// journal may know of an epoch that the state has not got yet, and never the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The last that the state was told to keep.
    pub ordered: u64,
    /// The last that it is known to have kept.
    pub confirmed: u64,
}

/// The writer of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// A random number that no other run has, and that no client is told: sums are taken under it.
    pub id: u128,
    /// Where it runs.
    pub place: Place,
    /// The version of the rules that it follows.
    pub rules: u32,
    /// How far records are before anything is said.
    pub distance: Distance,
    /// The epochs at the beginning.
    pub epochs: Epochs,
    /// All else that must be the same for records to mean the same: [`SETTINGS_BYTES_MAX`] bytes at
    /// most.
    pub settings: Vec<u8>,
}

/// A journal that is written where it is appended to.
#[derive(Debug)]
pub struct Journal<D: Disk> {
    /// Records that are not written yet.
    tail: Tail,
    /// Writes it.
    writer: Writer<D>,
    /// The run that the tail is made for.
    run: Run,
}

impl<D: Disk> Journal<D> {
    /// One that is off until it is begun, or goes on.
    pub fn new(disk: D, run: Run, bounds: Bounds) -> Self {
        Self { tail: Tail::new(&run, 1), writer: Writer::new(disk, run.clone(), bounds), run }
    }

    /// Begins it with a checkpoint that says all that was appended so far, or with none if nothing
    /// was. An earlier journal goes when the new one is complete.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it could not be written.
    pub fn begin(&mut self, checkpoint: Option<Fill<'_>>) -> Result<(), Broken> {
        let next = self.tail.next();
        self.writer.epochs(self.run.epochs);
        self.writer.begin(next, checkpoint)?;
        self.tail = Tail::new(&self.run, next);
        Ok(())
    }

    /// Goes on from what was recovered and replayed. The epochs of the run must not be behind those
    /// of `whole`. A journal that [is long](Whole::is_long) is better begun anew.
    ///
    /// # Errors
    ///
    /// [`Broken`] if that could not be made as durable as the distance wants it.
    pub fn go_on(&mut self, whole: &Whole) -> Result<(), Broken> {
        self.writer.epochs(self.run.epochs);
        self.writer.go_on(whole)?;
        self.tail = Tail::new(&self.run, whole.next());
        Ok(())
    }

    /// Puts a record at the end, in memory. Says its number. Never fails: [`flush`](Self::flush)
    /// says.
    pub fn append(&mut self, record: &[u8]) -> u64 {
        self.tail.append(record)
    }

    /// From here on these epochs count.
    pub fn epochs(&mut self, epochs: Epochs) {
        self.run.epochs = epochs;
        self.tail.epochs(epochs);
    }

    /// Writes all that was appended. Says the number of the last record of which may be told.
    ///
    /// # Errors
    ///
    /// [`Broken`] if the journal is off, from now on or since before.
    pub fn flush(&mut self) -> Result<u64, Broken> {
        let mut batch = self.tail.take();
        let written = self.writer.write(&mut batch);
        self.tail.give_back(batch);
        written
    }

    /// The writing half.
    pub fn writer(&mut self) -> &mut Writer<D> {
        &mut self.writer
    }

    /// Tries again to have nobody take what is there for a journal.
    ///
    /// # Errors
    ///
    /// [`Broken::Stuck`] if that is not certain.
    pub fn make_void(&mut self) -> Result<(), Broken> {
        self.writer.make_void()
    }

    /// The half that takes records, and the half that writes them.
    pub fn into_parts(self) -> (Tail, Writer<D>) {
        (self.tail, self.writer)
    }
}
