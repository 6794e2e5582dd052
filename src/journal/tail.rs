//! Records that were appended and are not written yet: memory only, so appending costs no system
//! call.

use std::mem;

use super::error::Failure;
use super::frame::{BATCH_BYTES_MAX, HEAD_BYTES, Key, Kind, RECORD_BYTES_MAX, put};
use super::reader::SYNCED_BYTES;
use super::{Distance, Epochs, Run};

/// Largest buffer that is kept to be filled again.
const SPARE_BYTES_MAX: usize = 1024 * 1024;
/// How long a mark is that says what is synced: each batch begins with one at
/// [`Distance::Machine`].
pub(super) const MARK_BYTES: usize = HEAD_BYTES + SYNCED_BYTES;

/// The end of the journal, in memory.
#[derive(Debug)]
pub struct Tail {
    /// The key of sums.
    key: Key,
    /// How much is left free at the beginning of a batch, for a mark.
    reserved: usize,
    /// Records that wait.
    batch: Batch,
    /// A buffer that was written, to be filled again.
    spare: Vec<u8>,
}

/// Records that are written together.
#[derive(Debug)]
pub struct Batch {
    /// Room for a mark, if there is one, then frames.
    pub(super) bytes: Vec<u8>,
    /// The number of the first record.
    pub(super) first: u64,
    /// The number of the record that comes after the last.
    pub(super) next: u64,
    /// The epochs that count after it, if that changed.
    pub(super) epochs: Option<Epochs>,
    /// Something was left out: the batch must not be written.
    pub(super) failure: Option<Failure>,
}

impl Tail {
    /// That of a run whose next record has this number.
    pub fn new(run: &Run, next: u64) -> Self {
        let reserved = match run.distance {
            Distance::Process => 0,
            Distance::Machine => MARK_BYTES,
        };
        let batch = Batch::new(Vec::new(), reserved, next);
        Self { key: Key::of_run(run.id), reserved, batch, spare: Vec::new() }
    }

    /// Puts a record at the end. Says its number.
    pub fn append(&mut self, record: &[u8]) -> u64 {
        let number = self.batch.next;
        self.batch.next += 1;
        if record.len() > RECORD_BYTES_MAX {
            self.batch.leave_out(Failure::RecordTooLong { bytes: record.len() });
        } else if self.batch.bytes.len() + HEAD_BYTES + record.len() > BATCH_BYTES_MAX {
            self.batch.leave_out(Failure::Behind);
        } else {
            put(&mut self.batch.bytes, self.key, Kind::Record, number, record);
        }
        number
    }

    /// From here on these epochs count.
    pub fn epochs(&mut self, epochs: Epochs) {
        self.batch.epochs = Some(epochs);
        put(&mut self.batch.bytes, self.key, Kind::Epochs, self.batch.next, &epochs.to_bytes());
    }

    /// The number of the record that comes next.
    pub fn next(&self) -> u64 {
        self.batch.next
    }

    /// How much waits, in bytes.
    pub fn bytes(&self) -> usize {
        self.batch.bytes.len() - self.reserved
    }

    /// All that waits, to be written by [`Writer::write`](super::Writer::write).
    pub fn take(&mut self) -> Batch {
        let next = Batch::new(mem::take(&mut self.spare), self.reserved, self.batch.next);
        mem::replace(&mut self.batch, next)
    }

    /// A batch was written: its buffer is used again.
    pub fn give_back(&mut self, batch: Batch) {
        if batch.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare = batch.bytes;
        }
    }
}

impl Batch {
    fn new(mut bytes: Vec<u8>, reserved: usize, next: u64) -> Self {
        bytes.clear();
        bytes.resize(reserved, 0);
        Self { bytes, first: next, next, epochs: None, failure: None }
    }

    /// The first that went wrong is what counts.
    fn leave_out(&mut self, why: Failure) {
        self.failure.get_or_insert(why);
    }
}
