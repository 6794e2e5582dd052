//! The checkpoint: all state at one moment, in a file of its own beside the segment that goes on
//! from it.
//!
//! It is written under another name and has its own only when it is complete. Its content belongs
//! to one segment of one run: its sums are taken under that run, and its first frame names the
//! segment.

use std::io::{self, Read, Write};

use super::Distance;
use super::disk::{Disk, DiskFile, write_all};
use super::error::{Failure, Void};
use super::frame::{Fields, Key, Kind, put};
use super::header::{CHECKPOINT_MAGIC, FORMAT, checkpoint_name, new_name, preamble};
use super::reader::{Frames, Step};

/// How much of it is checked, read and written at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// The segment that a checkpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its number.
    pub(super) segment: u64,
    /// Its first record, which comes after all that is in the checkpoint.
    pub(super) first: u64,
    /// The run that writes it.
    pub(super) run: u128,
}

/// A function that writes all state into a checkpoint; it is called once.
pub type Fill<'a> = &'a mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// Cuts what is written to it into checked chunks.
struct Chunks<'a, F> {
    /// Where they go.
    file: &'a F,
    /// How far the file is written.
    offset: u64,
    /// The key of its sums.
    key: Key,
    /// How many chunks there are.
    count: u64,
    /// How much was written to this, all chunks together.
    bytes: u64,
    /// The chunk that is not full yet.
    chunk: Vec<u8>,
}

impl<F: DiskFile> Chunks<'_, F> {
    fn frame(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(payload.len() + super::frame::HEAD_BYTES);
        put(&mut bytes, self.key, kind, self.count, payload);
        write_all(self.file, &bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.frame(Kind::Chunk, &chunk)?;
        self.count += 1;
        self.chunk = chunk;
        self.chunk.clear();
        Ok(())
    }
}

impl<F: DiskFile> Write for Chunks<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        self.bytes += taken as u64;
        if self.chunk.len() == CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a checkpoint, and gives it its name when it is complete. Says how long the file is.
pub(super) fn write<D: Disk>(
    disk: &D,
    target: Target,
    distance: Distance,
    content: Fill<'_>,
) -> Result<u64, Failure> {
    let name = checkpoint_name(target.segment);
    let new = new_name(&name);
    let written = write_new(disk, &new, target, distance, content).and_then(|bytes| {
        disk.rename(&new, &name).map_err(Failure::file("renamed", &new))?;
        if distance == Distance::Machine {
            disk.sync().map_err(Failure::file("kept", &name))?;
        }
        Ok(bytes)
    });
    if written.is_err() {
        // A disk that is full needs the room; and it is the other failure that counts.
        let _ = disk.remove(&new);
    }
    written
}

fn write_new<D: Disk>(
    disk: &D,
    new: &str,
    target: Target,
    distance: Distance,
    content: Fill<'_>,
) -> Result<u64, Failure> {
    let failed = || Failure::file("written", new);
    disk.remove(new).map_err(Failure::file("removed", new))?;
    let file = disk.create(new).map_err(Failure::file("made", new))?;
    let begin = preamble(CHECKPOINT_MAGIC);
    write_all(&file, &begin, 0).map_err(failed())?;
    let (key, offset) = (Key::of_run(target.run), begin.len() as u64);
    let mut chunks = Chunks { file: &file, offset, key, count: 0, bytes: 0, chunk: Vec::new() };
    let head = [target.segment.to_le_bytes(), target.first.to_le_bytes()].concat();
    chunks.frame(Kind::CheckpointHead, &head).map_err(failed())?;
    content(&mut chunks).map_err(failed())?;
    chunks.end_chunk().map_err(failed())?;
    let bytes = chunks.bytes.to_le_bytes();
    chunks.frame(Kind::CheckpointEnd, &bytes).map_err(failed())?;
    let bytes = chunks.offset;
    if distance == Distance::Machine {
        file.sync().map_err(Failure::file("synced", new))?;
    }
    Ok(bytes)
}

/// Reads a checkpoint, chunk by chunk; each is checked before anything of it is seen.
pub(super) struct Reader<F> {
    /// The file, behind its first frame.
    frames: Frames<F>,
    /// The number of the next chunk.
    next: u64,
    /// How much was read.
    bytes: u64,
    /// How much of the last chunk was not passed on yet.
    rest: usize,
    /// Whether the end was read, and was right.
    is_whole: bool,
}

/// Opens the checkpoint of a segment; none if there is none.
pub(super) fn open<D: Disk>(disk: &D, target: Target) -> Result<Option<Reader<D::File>>, Void> {
    let name = checkpoint_name(target.segment);
    let unreadable = |error: io::Error| Void::unreadable(&name, &error);
    let damaged = || Void::CheckpointDamaged { segment: target.segment };
    let file = match disk.open(&name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let facts = file.facts().map_err(unreadable)?;
    if facts.is_exposed {
        return Err(Void::Exposed { file: name });
    }
    let mut frames = Frames::new(file, Key::of_run(target.run), facts.bytes);
    let magic = frames.bytes::<8>().map_err(unreadable)?.ok_or_else(damaged)?;
    let format = frames.bytes::<4>().map_err(unreadable)?.ok_or_else(damaged)?;
    if magic != CHECKPOINT_MAGIC {
        return Err(damaged());
    }
    let found = u32::from_le_bytes(format);
    if found != FORMAT {
        return Err(Void::Format { file: name, found });
    }
    if frames.step().map_err(unreadable)? != Step::Frame(Kind::CheckpointHead, 0) {
        return Err(damaged());
    }
    let mut fields = Fields(frames.payload());
    let says = (fields.u64(), fields.u64(), fields.end());
    if says != (Some(target.segment), Some(target.first), Some(())) {
        return Err(damaged());
    }
    Ok(Some(Reader { frames, next: 0, bytes: 0, rest: 0, is_whole: false }))
}

/// Whether the segment has a checkpoint that is as it was written, and how long it is.
pub(super) fn check<D: Disk>(disk: &D, target: Target) -> Result<Option<u64>, Void> {
    let Some(mut reader) = open(disk, target)? else { return Ok(None) };
    let damaged = |_| Void::CheckpointDamaged { segment: target.segment };
    io::copy(&mut reader, &mut io::sink()).map_err(damaged)?;
    Ok(Some(reader.frames.offset()))
}

impl<F: DiskFile> Reader<F> {
    /// Whether all of it was read, and was as it was written.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn step(&mut self) -> io::Result<()> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a checkpoint is damaged");
        match self.frames.step()? {
            Step::Frame(Kind::Chunk, number) if number == self.next => {
                self.rest = self.frames.payload().len();
                self.bytes += self.rest as u64;
                self.next += 1;
                Ok(())
            }
            Step::Frame(Kind::CheckpointEnd, number)
                if number == self.next && self.frames.payload() == self.bytes.to_le_bytes() =>
            {
                if self.frames.step()? != Step::End {
                    return Err(damaged());
                }
                self.is_whole = true;
                Ok(())
            }
            Step::Frame(..) | Step::End | Step::Short | Step::Bad => Err(damaged()),
        }
    }
}

impl<F: DiskFile> Read for Reader<F> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.rest == 0 && !self.is_whole {
            self.step()?;
        }
        let chunk = self.frames.payload();
        let from = chunk.len() - self.rest.min(chunk.len());
        let chunk = chunk.get(from..).unwrap_or_default();
        let read = chunk.len().min(to.len());
        to.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        self.rest -= read;
        Ok(read)
    }
}
