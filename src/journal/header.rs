//! Names and headers of the journal's files.

use super::disk::Facts;
use super::frame::{Fields, Key, Kind, put};
use super::{Distance, Epochs, Place, Run};

/// How a segment begins.
pub(super) const LOG_MAGIC: [u8; 8] = *b"CRDJRNAL";
/// How a checkpoint begins.
pub(super) const CHECKPOINT_MAGIC: [u8; 8] = *b"CRDCHECK";
/// Says what is in the files, so that another version can tell.
pub const FORMAT: u32 = 1;
/// Longest settings in a header.
pub const SETTINGS_BYTES_MAX: usize = 64 * 1024;

/// The greatest number of a segment.
const SEGMENT_MAX: u64 = u32::MAX as u64;

/// The file of a segment.
pub(super) fn log_name(segment: u64) -> String {
    format!("{segment:08}.log")
}

/// The file of the checkpoint that a segment goes on from.
pub(super) fn checkpoint_name(segment: u64) -> String {
    format!("{segment:08}.checkpoint")
}

/// A file that is not complete yet.
pub(super) fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// The kind of a file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// A segment.
    Log(u64),
    /// A checkpoint.
    Checkpoint(u64),
    /// One that was never completed.
    New(u64),
}

impl Named {
    /// The kind of a file with this name; none if it is none of ours.
    pub(super) fn of(name: &str) -> Option<Self> {
        let (digits, kind) = name.split_once('.')?;
        let segment: u64 = digits.parse().ok().filter(|&number| number <= SEGMENT_MAX)?;
        let (log, checkpoint) = (log_name(segment), checkpoint_name(segment));
        match kind {
            "log" if name == log => Some(Self::Log(segment)),
            "checkpoint" if name == checkpoint => Some(Self::Checkpoint(segment)),
            _ if name == new_name(&log) || name == new_name(&checkpoint) => {
                Some(Self::New(segment))
            }
            _ => None,
        }
    }

    /// The number in it.
    pub(super) fn segment(self) -> u64 {
        match self {
            Self::Log(segment) | Self::Checkpoint(segment) | Self::New(segment) => segment,
        }
    }
}

/// The state that a segment goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Nothing: there was no state.
    Nothing,
    /// A checkpoint, which was complete before the segment was there.
    Checkpoint,
    /// The end of the segment before, which this run wrote. A checkpoint may come later.
    Segment(u128),
}

/// How a segment begins: who wrote it, where, and what it goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its number: names are not believed.
    pub(super) segment: u64,
    /// The state that it goes on from.
    pub(super) origin: Origin,
    /// The number of its first record.
    pub first: u64,
    /// The version of the rules that its records follow from.
    pub rules: u32,
    /// How far records were before anything that follows from them was said.
    pub distance: Distance,
    /// The epochs that count until a record says otherwise.
    pub epochs: Epochs,
    /// The run that wrote it: what its sums are taken under.
    pub run: u128,
    /// Where it was written.
    pub place: Place,
    /// The file that it was written to: a copy is another one.
    pub(super) inode: u64,
    /// When that file was made, where the file system tells.
    pub(super) born: Option<u64>,
    /// The settings of the engine, as bytes that mean nothing here.
    pub settings: Vec<u8>,
}

impl Header {
    /// That of a segment which `run` writes to a file of these facts.
    pub(super) fn new(run: &Run, segment: u64, origin: Origin, first: u64, facts: Facts) -> Self {
        Self {
            segment,
            origin,
            first,
            rules: run.rules,
            distance: run.distance,
            epochs: run.epochs,
            run: run.id,
            place: run.place,
            inode: facts.inode,
            born: facts.born,
            settings: run.settings.clone(),
        }
    }

    /// The beginning of the segment.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let option = |number: Option<u128>| {
            let mut bytes = vec![u8::from(number.is_some())];
            bytes.extend(number.unwrap_or(0).to_le_bytes());
            bytes
        };
        let (origin, predecessor) = match self.origin {
            Origin::Nothing => (0, 0),
            Origin::Checkpoint => (1, 0),
            Origin::Segment(run) => (2, run),
        };
        let mut payload = Vec::with_capacity(256 + self.settings.len());
        payload.extend(self.rules.to_le_bytes());
        payload.push(match self.distance {
            Distance::Process => 0,
            Distance::Machine => 1,
        });
        payload.extend(self.segment.to_le_bytes());
        payload.push(origin);
        payload.extend(predecessor.to_le_bytes());
        payload.extend(self.epochs.to_bytes());
        payload.extend(self.run.to_le_bytes());
        payload.extend(option(self.place.boot));
        payload.extend(option(self.place.machine));
        payload.extend(self.inode.to_le_bytes());
        payload.extend(option(self.born.map(u128::from)));
        payload.extend_from_slice(&self.settings);
        let mut bytes = preamble(LOG_MAGIC);
        put(&mut bytes, Key::HEADER, Kind::Header, self.first, &payload);
        bytes
    }

    /// The one that this payload says.
    pub(super) fn read(first: u64, payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let rules = fields.u32()?;
        let distance = match fields.u8()? {
            0 => Distance::Process,
            1 => Distance::Machine,
            _ => return None,
        };
        let segment = fields.u64()?;
        let origin = match (fields.u8()?, fields.u128()?) {
            (0, 0) => Origin::Nothing,
            (1, 0) => Origin::Checkpoint,
            (2, run) => Origin::Segment(run),
            _ => return None,
        };
        let epochs = Epochs::read(&mut fields)?;
        let run = fields.u128()?;
        let place = Place { boot: fields.perhaps()?.0, machine: fields.perhaps()?.0 };
        let inode = fields.u64()?;
        let born = fields.perhaps()?.0.map(u64::try_from).transpose().ok()?;
        let settings = fields.rest().to_vec();
        if settings.len() > SETTINGS_BYTES_MAX {
            return None;
        }
        Some(Self {
            segment,
            origin,
            first,
            rules,
            distance,
            epochs,
            run,
            place,
            inode,
            born,
            settings,
        })
    }
}

/// The first bytes of a file.
pub(super) fn preamble(magic: [u8; 8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes
}

impl Epochs {
    /// As they stand in a file.
    pub(super) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ordered.to_le_bytes());
        bytes[8..].copy_from_slice(&self.confirmed.to_le_bytes());
        bytes
    }

    /// Those that come next.
    pub(super) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { ordered: fields.u64()?, confirmed: fields.u64()? })
    }
}

/// The last frame of a segment that has a successor: its number, and the run that writes it.
pub(super) fn closed_payload(successor: u64, run: u128) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&successor.to_le_bytes());
    bytes[8..].copy_from_slice(&run.to_le_bytes());
    bytes
}
