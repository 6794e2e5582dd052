//! Frames: everything in a file of the journal, but for its first bytes, is one.
//!
//! ```text
//!  │ kind 1, length 3 │ number 8 │ sum of these 4 │ sum of all 8 │ payload … │
//! ```
//!
//! The head has a checksum of its own, so that no unverified length is believed. A flipped bit in a
//! length would look like a torn write at the end, and drop every later record. Sums are
//! SipHash-1-3 under the number of the run that wrote the frame. So no client can choose a lock
//! name that looks like a frame, and no frame of another run verifies. Sums find faults. They are
//! no MAC.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Longest record, in bytes. The longest message of a client is a sixteenth of it.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes that wait to be written. A client that is answered nothing asks for little more, so
/// only a disk that hangs reaches this.
pub const BATCH_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Of a frame, before its payload.
pub(super) const HEAD_BYTES: usize = 24;
/// How the word of a head is divided: the length stands in the bits below.
const KIND_SHIFT: u32 = 24;

/// The kind of a frame. The numbers stand in files: none changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first of a segment: who wrote it.
    Header = 1,
    /// A record. The only kind that takes a number; all others name that of the record to come.
    Record = 2,
    /// From here on these epochs count.
    Epochs = 3,
    /// All that stands before it in this file is synced.
    Synced = 4,
    /// The last of a segment, names the next one.
    Closed = 5,
    /// The first of a checkpoint: whose it is.
    CheckpointHead = 6,
    /// A part of a checkpoint.
    Chunk = 7,
    /// The last of a checkpoint: how long it is.
    CheckpointEnd = 8,
}

impl Kind {
    fn of(byte: u32) -> Option<Self> {
        Some(match byte {
            1 => Self::Header,
            2 => Self::Record,
            3 => Self::Epochs,
            4 => Self::Synced,
            5 => Self::Closed,
            6 => Self::CheckpointHead,
            7 => Self::Chunk,
            8 => Self::CheckpointEnd,
            _ => return None,
        })
    }
}

/// The key of sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64, u64);

impl Key {
    /// Headers are read before it is known who wrote them.
    pub(super) const HEADER: Self = Self(0x6865_6164_6572, 0x6a6f_7572_6e61);

    /// That of a run.
    #[expect(clippy::cast_possible_truncation, reason = "it is cut in two")]
    pub(super) fn of_run(run: u128) -> Self {
        Self(run as u64, (run >> 64) as u64)
    }

    /// Has taken in what a head says.
    fn hasher(self, word: u32, number: u64) -> SipHasher13 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        // In one piece of whole words: half as dear as in two.
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&u64::from(word).to_le_bytes());
        bytes[8..].copy_from_slice(&number.to_le_bytes());
        hasher.write(&bytes);
        hasher
    }
}

/// How the first bytes of a frame of this kind and length look: what a search compares first.
#[expect(clippy::cast_possible_truncation, reason = "lengths are bounded before")]
pub(super) fn word(kind: Kind, length: usize) -> [u8; 4] {
    debug_assert!(length <= RECORD_BYTES_MAX);
    ((kind as u32) << KIND_SHIFT | length as u32).to_le_bytes()
}

/// Puts a frame at the end of `to`. The payload has [`RECORD_BYTES_MAX`] bytes at most.
pub(super) fn put(to: &mut Vec<u8>, key: Key, kind: Kind, number: u64, payload: &[u8]) {
    to.extend_from_slice(&head(key, kind, number, payload));
    to.extend_from_slice(payload);
}

/// The head of a frame with this payload.
#[expect(clippy::cast_possible_truncation, reason = "a part of the sum is enough for a head")]
pub(super) fn head(key: Key, kind: Kind, number: u64, payload: &[u8]) -> [u8; HEAD_BYTES] {
    let word = word(kind, payload.len());
    let mut hasher = key.hasher(u32::from_le_bytes(word), number);
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&word);
    head[4..12].copy_from_slice(&number.to_le_bytes());
    head[12..16].copy_from_slice(&(hasher.finish() as u32).to_le_bytes());
    hasher.write(payload);
    head[16..].copy_from_slice(&hasher.finish().to_le_bytes());
    head
}

/// A head that says what was written.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The kind of the frame.
    pub(super) kind: Kind,
    /// How long its payload is: [`RECORD_BYTES_MAX`] at most.
    pub(super) length: usize,
    /// Its own number, or that of the record to come.
    pub(super) number: u64,
    /// The sum of all of it.
    sum: u64,
    /// Goes on with the payload.
    hasher: SipHasher13,
}

impl Head {
    /// The one that these bytes are, if they are one.
    #[expect(clippy::cast_possible_truncation, reason = "a part of the sum is enough for a head")]
    pub(super) fn read(bytes: &[u8], key: Key) -> Option<Self> {
        let (word, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (head_sum, rest) = rest.split_first_chunk()?;
        let (sum, _) = rest.split_first_chunk()?;
        let (word, number) = (u32::from_le_bytes(*word), u64::from_le_bytes(*number));
        let hasher = key.hasher(word, number);
        if hasher.finish() as u32 != u32::from_le_bytes(*head_sum) {
            return None;
        }
        let length = (word & ((1 << KIND_SHIFT) - 1)) as usize;
        if length > RECORD_BYTES_MAX {
            return None;
        }
        let sum = u64::from_le_bytes(*sum);
        Some(Self { kind: Kind::of(word >> KIND_SHIFT)?, length, number, sum, hasher })
    }

    /// Whether this is the payload that was written.
    pub(super) fn verifies(&self, payload: &[u8]) -> bool {
        let mut hasher = self.hasher;
        hasher.write(payload);
        hasher.finish() == self.sum
    }
}

/// A number that is there, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Perhaps(pub(super) Option<u128>);

/// Takes fields from the front of a payload; none where it is too short.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Option<u128> {
        self.bytes().map(u128::from_le_bytes)
    }

    /// A byte that says whether there is one, and the number.
    pub(super) fn perhaps(&mut self) -> Option<Perhaps> {
        let (is_there, number) = (self.u8()?, self.u128()?);
        match is_there {
            0 => Some(Perhaps(None)),
            1 => Some(Perhaps(Some(number))),
            _ => None,
        }
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// That nothing is left.
    pub(super) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
