//! Events, written down and heard again: what stands in the records of the journal (rules J1, J3).
//!
//! A record holds the events of one turn, each with its moment, one behind the other. Numbers have
//! variable length. The effects are not written: they follow from the events (event sourcing).

use std::io::{self, Read, Write};
use std::mem;

use bincode::Options;
use foldhash::fast::SeedableRandomState;
#[cfg(feature = "cluster")]
use {
    siphasher::sip128::{Hasher128, SipHasher24},
    std::hash::Hasher,
};

use crate::engine::{Effect, Event, LockTable, Seed};
#[cfg(feature = "cluster")]
use crate::journal::{Disk, Stretch};
use crate::journal::{Machine, RECORD_BYTES_MAX};
use crate::types::Timestamp;

/// The version of what the engine makes of events. It changes whenever the same events could lead
/// to another table, or are written otherwise. A journal of before is then void, and one upgrades
/// by an orderly restart, which has its snapshot.
pub(in crate::server) const RULES: u32 = 5;

/// Sessions and requests of a table that is compared in full.
#[cfg(feature = "cluster")]
const DIGESTED_MAX: usize = 1024;

fn encoding() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding()
}

/// What one turn brought to the engine. As any beginning of it is the end of some shorter turn, one that
/// is longer than a record may be is written as several.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Events, each with its moment.
    bytes: Vec<u8>,
    /// Where each part ends that is as long as it gets.
    ends: Vec<usize>,
}

/// From this length on a part takes no more events. Two such parts are a record, and no event is nearly
/// as long as one.
const PART_BYTES: usize = RECORD_BYTES_MAX / 2;

impl Record {
    /// Puts an event at the end.
    ///
    /// # Panics
    ///
    /// Never: memory takes whatever there is to be written.
    pub(in crate::server) fn write(&mut self, event: &Event, now: Timestamp) {
        if let Err(error) = encoding().serialize_into(&mut self.bytes, &(now, event)) {
            unreachable!("an event is plain data: {error}");
        }
        if self.bytes.len() - self.ends.last().copied().unwrap_or(0) >= PART_BYTES {
            self.ends.push(self.bytes.len());
        }
    }

    /// All that was put into it, in parts that are no longer than a record may be.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.ends.iter().copied().chain([self.bytes.len()]);
        let parts = ends.scan(0, |from, end| self.bytes.get(mem::replace(from, end)..end));
        parts.filter(|part| !part.is_empty())
    }

    /// Forgets all of it, and keeps what memory an ordinary turn takes.
    pub(in crate::server) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(PART_BYTES);
        self.ends.clear();
    }
}

/// A table that hears events once more.
pub(in crate::server) struct Replay {
    /// The table that it made.
    table: LockTable,
    /// Effects of the replay, which were told before.
    effects: Vec<Effect>,
    /// How many events it heard.
    pub(in crate::server) events: u64,
}

impl Replay {
    /// One that begins with a checkpoint.
    pub(in crate::server) fn from(checkpoint: Option<&mut dyn Read>) -> Result<Self, String> {
        let checkpoint = checkpoint.ok_or("it has no checkpoint")?;
        let image = encoding().deserialize_from(checkpoint).map_err(|error| error.to_string())?;
        let table = LockTable::from_image(image, Seed::from(SeedableRandomState::random()));
        Ok(Self { table, effects: Vec::new(), events: 0 })
    }

    /// The table, as it is by now.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn table(&self) -> &LockTable {
        &self.table
    }

    /// The table, as it was when the last event was written.
    pub(in crate::server) fn into_table(self) -> LockTable {
        self.table
    }
}

impl Machine for Replay {
    fn apply(&mut self, _: u64, mut record: &[u8]) -> Result<(), String> {
        while !record.is_empty() {
            let (now, event): (Timestamp, Event) =
                encoding().deserialize_from(&mut record).map_err(|error| error.to_string())?;
            self.table.step(&event, now, &mut self.effects);
            self.effects.clear();
            self.events += 1;
        }
        Ok(())
    }

    fn checkpoint(&self, to: &mut dyn Write) -> io::Result<()> {
        checkpoint(&self.table, to)
    }
}

/// What tells two tables apart that should be the same: how much of everything there is, the last token, and
/// of a small table all of it. A large one would keep others waiting.
#[cfg(feature = "cluster")]
pub(in crate::server) fn digest(table: &LockTable) -> [u8; 16] {
    let counts = table.counts();
    let mut hasher = SipHasher24::new();
    let of = [counts.sessions, counts.locks, counts.held, counts.waiting, counts.contended];
    for count in of {
        hasher.write(&count.to_le_bytes());
    }
    hasher.write(&counts.last_token.number().to_le_bytes());
    if counts.sessions + counts.held + counts.waiting <= DIGESTED_MAX {
        // Memory takes whatever there is to be written.
        let image = encoding().serialize(&table.image()).unwrap_or_default();
        hasher.write(&image);
    }
    hasher.finish128().as_bytes()
}

/// A checkpoint of what a journal says before a record; or why there is none.
#[cfg(feature = "cluster")]
pub(in crate::server) fn checkpoint_of<D: Disk>(
    disk: &D,
    journal: &Stretch,
    until: u64,
) -> Result<Vec<u8>, String> {
    let replay = journal.replay(disk, until, |_, checkpoint| Replay::from(checkpoint));
    let mut bytes = Vec::new();
    let replay = replay.map_err(|void| void.to_string())?;
    replay.checkpoint(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Writes a table down, so that events can follow.
pub(crate) fn checkpoint(table: &LockTable, to: &mut dyn Write) -> io::Result<()> {
    encoding().serialize_into(to, &table.image()).map_err(io::Error::other)
}
