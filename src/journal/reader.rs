//! Reads the frames of a file, one after the other, in bounded memory.

use std::io;

use super::disk::DiskFile;
use super::frame::{HEAD_BYTES, Head, Key, Kind};

/// How much is read at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// The next thing in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A frame that is as it was written; [`Frames::payload`] has the rest of it.
    Frame(Kind, u64),
    /// Nothing: the last frame ended where the file ends.
    End,
    /// A frame that the file's end cuts short.
    Short,
    /// Something that is not as it was written.
    Bad,
}

/// A file, and where in it the next frame begins.
#[derive(Debug)]
pub(super) struct Frames<F> {
    /// The file.
    file: F,
    /// The key of its sums.
    key: Key,
    /// How long the file was when it was opened: what comes later is not looked at.
    length: u64,
    /// Bytes that were read and not yet passed.
    buffer: Vec<u8>,
    /// How much of the buffer was passed.
    passed: usize,
    /// Where in the file the next frame begins.
    offset: u64,
    /// How long the payload of the last frame is; it ends where the next one begins.
    payload: usize,
}

impl<F: DiskFile> Frames<F> {
    /// Begins at the beginning of a file.
    pub(super) fn new(file: F, key: Key, length: u64) -> Self {
        Self { file, key, length, buffer: Vec::new(), passed: 0, offset: 0, payload: 0 }
    }

    /// Sums are taken under another key from here on.
    pub(super) fn set_key(&mut self, key: Key) {
        self.key = key;
    }

    /// Nothing from `length` on is looked at.
    pub(super) fn cut(&mut self, length: u64) {
        self.length = self.length.min(length);
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The file.
    pub(super) fn file(&self) -> &F {
        &self.file
    }

    /// Bytes that are no frame, such as those before the first one; none if there are not so many.
    pub(super) fn bytes<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let Some(bytes) = self.peek(N)? else { return Ok(None) };
        let bytes = bytes.first_chunk().copied();
        self.pass(N);
        Ok(bytes)
    }

    /// The next frame, if it is one. After anything else, the place stays where it is.
    pub(super) fn step(&mut self) -> io::Result<Step> {
        self.payload = 0;
        if self.offset >= self.length {
            return Ok(Step::End);
        }
        let key = self.key;
        let Some(head) = self.peek(HEAD_BYTES)? else { return Ok(Step::Short) };
        let Some(head) = Head::read(head, key) else { return Ok(Step::Bad) };
        let Some(all) = self.peek(HEAD_BYTES + head.length)? else { return Ok(Step::Short) };
        let payload = all.get(HEAD_BYTES..HEAD_BYTES + head.length).unwrap_or_default();
        if !head.verifies(payload) {
            return Ok(Step::Bad);
        }
        self.pass(HEAD_BYTES + head.length);
        self.payload = head.length;
        Ok(Step::Frame(head.kind, head.number))
    }

    /// The payload of the frame that was read last.
    pub(super) fn payload(&self) -> &[u8] {
        self.buffer.get(self.passed - self.payload..self.passed).unwrap_or_default()
    }

    fn pass(&mut self, bytes: usize) {
        self.passed += bytes;
        self.offset += bytes as u64;
    }

    /// The next bytes, `bytes` of them at least; none if the file ends before. Takes memory for
    /// what is there only.
    fn peek(&mut self, bytes: usize) -> io::Result<Option<&[u8]>> {
        if self.length.saturating_sub(self.offset) < bytes as u64 {
            return Ok(None);
        }
        if self.buffer.len() - self.passed < bytes {
            self.buffer.drain(..self.passed);
            self.passed = 0;
        }
        while self.buffer.len() < bytes {
            let filled = self.buffer.len();
            self.buffer.resize(filled + PIECE_BYTES, 0);
            let read = self.file.read_at(&mut self.buffer[filled..], self.offset + filled as u64);
            let read = match read {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.buffer.truncate(filled);
                    continue;
                }
                other => other,
            };
            self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
            if read? == 0 {
                return Ok(None);
            }
        }
        Ok(self.buffer.get(self.passed..))
    }

    /// Where behind this place a mark stands that was written when all before it was synced.
    pub(super) fn synced_behind(&mut self) -> io::Result<Option<u64>> {
        let word = super::frame::word(Kind::Synced, SYNCED_BYTES);
        let all = HEAD_BYTES + SYNCED_BYTES;
        let (key, mut place) = (self.key, self.offset);
        while let Some(bytes) = self.peek(all)? {
            let last = bytes.len() - all;
            let found = (0..=last).find(|&at| bytes[at..].starts_with(&word));
            let at = found.unwrap_or(last);
            let candidate = &bytes[at..at + all];
            if is_mark(candidate, key, place + at as u64) {
                return Ok(Some(place + at as u64));
            }
            self.pass(at + 1);
            place = self.offset;
        }
        Ok(None)
    }
}

/// How long the payload of [`Kind::Synced`] is: the last record that is synced, and the mark's
/// place.
pub(super) const SYNCED_BYTES: usize = 16;

fn is_mark(bytes: &[u8], key: Key, offset: u64) -> bool {
    let Some((head, payload)) = bytes.split_at_checked(HEAD_BYTES) else { return false };
    let Some(head) = Head::read(head, key) else { return false };
    let is_here = payload.get(8..) == Some(&offset.to_le_bytes());
    head.kind == Kind::Synced && head.verifies(payload) && is_here
}
