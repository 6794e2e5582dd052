//! The snapshot in the data directory: a file of its own, as it can be large. It is written and
//! read in pieces. Its length and checksum stand in the state. A file that the state does not name
//! is none.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use log::warn;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::directory::Directory;
use super::everything::Everything;
use super::store::StoreError;
use crate::engine::Snapshot;
use crate::wire::read_state;

/// The file.
pub(super) const SNAPSHOT_NAME: &str = "snapshot";
/// The first byte of a snapshot: changes with what snapshots are made of.
pub(crate) const SNAPSHOT_FORMAT: u8 = 7;
/// How much is written or read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// What the file has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// How many bytes.
    bytes: u64,
    /// Their checksum.
    sum: u64,
}

/// Takes a checksum of what goes through. It is to find faults, not forgeries.
struct Summed<T> {
    /// Where it goes to, or comes from.
    inner: T,
    /// Has taken in all that went through.
    hasher: SipHasher13,
    /// How much that was.
    bytes: u64,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hasher: SipHasher13::new(), bytes: 0 }
    }

    fn take_in(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.bytes += bytes.len() as u64;
    }

    fn mark(&self) -> Mark {
        Mark { bytes: self.bytes, sum: self.hasher.finish() }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.take_in(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the snapshot, synced, in the place of the one before, and says what the state has to say
/// of it.
pub(super) fn write(directory: &Directory, everything: &Everything) -> Result<Mark, StoreError> {
    let failed = |source| directory.failed(SNAPSHOT_NAME, source);
    let written = directory.replace(SNAPSHOT_NAME, |file| {
        let mut writer = BufWriter::with_capacity(PIECE_BYTES, Summed::new(file));
        writer.write_all(&[SNAPSHOT_FORMAT]).map_err(failed)?;
        let written = everything.write(&mut writer);
        written.map_err(|error| StoreError::Other(format!("the snapshot: {error}")))?;
        let summed = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(summed.mark())
    });
    written.map(|(mark, _)| mark)
}

/// Reads the snapshot that has this mark.
///
/// None if another version wrote it, as after an upgrade that changed its parts. The stop then
/// counts as a crash, which costs a grace period, and no lock.
pub(super) fn read(directory: &Directory, mark: Mark) -> Result<Option<Snapshot>, StoreError> {
    let failed = |source| directory.failed(SNAPSHOT_NAME, source);
    let damaged = |why: String| directory.damaged(SNAPSHOT_NAME, why);
    let Some(file) = directory.open_file(SNAPSHOT_NAME).map_err(failed)? else {
        return Err(damaged("it is missing".into()));
    };
    // First all of it is checked, then it is read: nothing in it is believed before.
    let found = sum(&file).map_err(failed)?;
    if found != mark {
        return Err(damaged(if found.bytes == mark.bytes {
            "its checksum is wrong".into()
        } else {
            format!("it has {} bytes, not {}", found.bytes, mark.bytes)
        }));
    }
    let mut reader = BufReader::with_capacity(PIECE_BYTES, &file);
    reader.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut format = [0];
    reader.read_exact(&mut format).map_err(failed)?;
    if format != [SNAPSHOT_FORMAT] {
        let [found] = format;
        warn!(
            "the snapshot of the last stop has format {found}, this version knows \
             {SNAPSHOT_FORMAT}: continuing as after a crash"
        );
        return Ok(None);
    }
    read_state(&mut reader).map(Some).map_err(|error| damaged(error.to_string()))
}

fn sum(mut file: &File) -> io::Result<Mark> {
    let mut summed = Summed::new(io::sink());
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(summed.mark()),
            Ok(read) => summed.take_in(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
