//! The file of the small durable state: a base, and behind it the changes since (a log with
//! checksums).
//!
//! ```text
//!  magic, format, base │ change 1 │ change 1 │ change 2 │ change 2 │ …
//!                 └ length, number, checksum, records, zeros up to the next page
//! ```
//!
//! The base holds everything and is written with the file, which then atomically takes the place of
//! the one before. It is there as it was written, or it is damaged. Changes that are committed
//! together are one piece with a number. It is written twice in one go, each time on pages of its
//! own, so a fault in one page costs nothing. Only the end may be broken (a torn write), where a
//! crash cut short a piece that nobody was told of. A gap in the numbers means that the file is
//! damaged.
//!
//! After an orderly stop the base stands alone, and not a single byte may differ.

use std::hash::Hasher;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use super::key::StateKey;
use super::snapshot::Mark;
use super::store::{Change, StoreError, Stored};
use crate::engine::{Durable, Forfeit};
use crate::types::{Epoch, FencingToken, Ttl};
use crate::wire::{FormatError, decode_state, encode_state};

/// How the file begins.
const MAGIC: &[u8; 8] = b"CRDSTATE";
/// Says what is in the file, so that a later version can tell.
pub(super) const FORMAT: u32 = 1;
/// Magic and format.
const HEADER_BYTES: usize = 12;
/// Pieces begin at multiples of this: what disks lose, they lose in pages.
pub(super) const PAGE_BYTES: usize = 4096;
/// Of a piece, before its records: length, number, checksum.
const HEAD_BYTES: usize = 4 + 8 + 8;

/// What is kept, but for the snapshot itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Kept {
    /// All but the snapshot, which stands in a file of its own.
    pub(super) stored: Stored,
    /// Description of that file, if there is one.
    pub(super) snapshot: Option<Mark>,
}

/// A line of the file: a change, in a form that is the same in every version of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Record {
    /// [`Change::Durable`].
    Numbers { epoch: u64, tokens_below: u64, ttl_max_ms: Option<u64>, settled: u64 },
    /// [`Change::Key`].
    Key(StateKey),
    /// [`Change::Forfeit`].
    Forfeit { number: u64, forfeit: Forfeit },
    /// [`Change::ForgetForfeits`].
    ForgetForfeits { below: u64 },
    /// What the snapshot has to be; none if there is none any more.
    Snapshot(Option<Mark>),
}

/// Why bytes are not a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Another version wrote them.
    Format(u32),
    /// They are not what was written.
    Damage(String),
}

/// What was read.
#[derive(Debug, PartialEq)]
pub(super) struct Read {
    /// The state.
    pub(super) kept: Kept,
    /// How many pages are broken, at the end or where a copy stands beside them.
    pub(super) broken_pages: usize,
}

impl Record {
    /// The record of a change. Of a snapshot it says that there is none: only who wrote it knows more.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::Durable(durable) => Self::Numbers {
                epoch: durable.epoch.number(),
                tokens_below: durable.tokens_below.number(),
                ttl_max_ms: durable.ttl_max.map(|ttl| ttl.as_millis().into()),
                settled: durable.settled.number(),
            },
            Change::Key(key) => Self::Key(*key),
            Change::Forfeit { number, forfeit } => {
                Self::Forfeit { number: *number, forfeit: *forfeit }
            }
            Change::ForgetForfeits { below } => Self::ForgetForfeits { below: *below },
            Change::SaveSnapshot(_) | Change::DropSnapshot => Self::Snapshot(None),
        }
    }
}

impl Kept {
    /// Takes note of a record.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        match *record {
            Record::Numbers { epoch, tokens_below, ttl_max_ms, settled } => {
                let ttl = |ms| Ttl::new(Duration::from_millis(ms));
                self.stored.durable = Some(Durable {
                    epoch: Epoch::new(epoch),
                    tokens_below: FencingToken::new(tokens_below),
                    ttl_max: ttl_max_ms.map(ttl).transpose().map_err(|error| error.to_string())?,
                    settled: Epoch::new(settled),
                });
            }
            Record::Key(key) => self.stored.key = Some(key),
            Record::Forfeit { number, forfeit } => {
                self.stored.forfeits.insert(number, forfeit);
            }
            Record::ForgetForfeits { below } => {
                self.stored.forfeits = self.stored.forfeits.split_off(&below);
            }
            Record::Snapshot(mark) => self.snapshot = mark,
        }
        Ok(())
    }

    /// A whole file that says this.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, StoreError> {
        let Stored { durable, key, forfeits, .. } = &self.stored;
        let changes = durable.map(Change::Durable).into_iter().chain(key.map(Change::Key));
        let mut records: Vec<Record> = changes.map(|change| Record::of(&change)).collect();
        let forfeits = forfeits.iter();
        records.extend(forfeits.map(|(&number, &forfeit)| Record::Forfeit { number, forfeit }));
        records.push(Record::Snapshot(self.snapshot));
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(piece(0, HEADER_BYTES, &records)?);
        Ok(bytes)
    }
}

/// Changes that are committed together, as they stand behind the base: twice.
pub(super) fn change(number: u64, records: &[Record]) -> Result<Vec<u8>, StoreError> {
    Ok(piece(number, 0, records)?.repeat(2))
}

/// A piece that fills pages, of which `taken` bytes are taken.
fn piece(number: u64, taken: usize, records: &[Record]) -> Result<Vec<u8>, StoreError> {
    let unwritable = |error: FormatError| StoreError::Other(format!("the state: {error}"));
    let mut records = encode_state(&records).map_err(unwritable)?;
    let Ok(length) = u32::try_from(records.len()) else {
        return Err(StoreError::Other("the state is longer than 4 GiB".into()));
    };
    records.resize(padded(records.len(), taken), 0);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + records.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(number.to_le_bytes());
    bytes.extend(sum(length, number, &records).to_le_bytes());
    bytes.extend(records);
    Ok(bytes)
}

/// How long records and the zeros behind them are.
fn padded(length: usize, taken: usize) -> usize {
    (taken + HEAD_BYTES + length).next_multiple_of(PAGE_BYTES) - taken - HEAD_BYTES
}

/// The checksum of a piece. It is to find faults, not forgeries.
fn sum(length: u32, number: u64, padded: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new();
    hasher.write(&length.to_le_bytes());
    hasher.write(&number.to_le_bytes());
    hasher.write(padded);
    hasher.finish()
}

/// A piece that is as it was written.
struct Piece<'a> {
    /// Its place among the changes; 0 for the base.
    number: u64,
    /// Without the zeros.
    records: &'a [u8],
    /// Bytes behind it.
    rest: &'a [u8],
}

impl<'a> Piece<'a> {
    /// The one that `bytes` begin with, if its number is one of `numbers`.
    fn at(bytes: &'a [u8], taken: usize, numbers: RangeInclusive<u64>) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (expected, rest) = rest.split_first_chunk()?;
        let (length, number) = (u32::from_le_bytes(*length), u64::from_le_bytes(*number));
        if !numbers.contains(&number) {
            return None;
        }
        let (padded, rest) = rest.split_at_checked(padded(length as usize, taken))?;
        let is_whole = sum(length, number, padded) == u64::from_le_bytes(*expected);
        is_whole.then_some(Self { number, records: &padded[..length as usize], rest })
    }

    fn apply_to(&self, kept: &mut Kept) -> Result<(), Fault> {
        let records: Vec<Record> =
            decode_state(self.records).map_err(|error| Fault::Damage(error.to_string()))?;
        records.iter().try_for_each(|record| kept.apply(record).map_err(Fault::Damage))
    }
}

/// Reads a whole file.
pub(super) fn read(bytes: &[u8]) -> Result<Read, Fault> {
    let damage = |why: &str| Fault::Damage(why.to_owned());
    let header = bytes.split_at_checked(HEADER_BYTES);
    let cut_short = if bytes.is_empty() { "it is empty" } else { "it is cut short" };
    let (header, rest) = header.ok_or_else(|| damage(cut_short))?;
    let format = header.strip_prefix(MAGIC);
    let format = format.ok_or_else(|| damage("it does not start with the header of a state"))?;
    if format != FORMAT.to_le_bytes() {
        return Err(Fault::Format(u32::from_le_bytes(format.try_into().unwrap_or_default())));
    }
    let base = Piece::at(rest, HEADER_BYTES, 0..=0);
    let base = base.ok_or_else(|| damage("its checksum is wrong"))?;
    let mut kept = Kept::default();
    base.apply_to(&mut kept)?;
    if kept.snapshot.is_some() && !base.rest.is_empty() {
        return Err(damage("there is data after the end of what the last stop wrote"));
    }
    let broken_pages = read_changes(base.rest, &mut kept)?;
    Ok(Read { kept, broken_pages })
}

/// Makes the changes behind the base. Says how many pages are broken without a loss.
fn read_changes(mut rest: &[u8], kept: &mut Kept) -> Result<usize, Fault> {
    let (mut latest, mut broken_pages) = (0, 0);
    while !rest.is_empty() {
        // No piece is shorter than a page. A copy of the latest may follow.
        let greatest = latest + 1 + (rest.len() / PAGE_BYTES) as u64;
        let Some(piece) = Piece::at(rest, 0, latest.max(1)..=greatest) else {
            rest = rest.get(PAGE_BYTES..).unwrap_or_default();
            broken_pages += 1;
            continue;
        };
        if piece.number > latest + 1 {
            return Err(Fault::Damage("a part in the middle is broken".to_owned()));
        }
        if piece.number > latest {
            piece.apply_to(kept)?;
            latest = piece.number;
        }
        rest = piece.rest;
    }
    Ok(broken_pages)
}
