//! Frames between a leader and a standby that follows it: what they say, and how they are proved.
//!
//! ```text
//!   standby ◀── magic, format, nonce ──────────── leader
//!           ─── nonce ──────────────────────────▶
//!           ═══ Follow ═════════════════════════▶   each frame with a MAC from here on
//!           ◀══ Making …, Accepted, Part …, Records …, Check
//!           ═══ Acknowledged, Checked ══════════▶
//! ```
//!
//! The key of a connection is made of the key of the cluster and both nonces. A MAC is of the direction, the
//! number of the frame, and its content. So no frame can be forged, repeated, left out, or sent back. What is
//! said can be read by whoever reads the network.
//!
//! Never here: a socket, a lock table. No length is believed beyond [`FRAME_BYTES_MAX`].

use std::hash::Hasher;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use siphasher::sip128::{Hasher128, SipHasher24};
use subtle::ConstantTimeEq;

use crate::cluster::{Mark, RunId};
use crate::journal::{Epochs, RECORD_BYTES_MAX};
use crate::server::durable::StateKey;

/// How a leader begins.
pub(in crate::server) const MAGIC: [u8; 8] = *b"CRDFOLLW";
/// The version of all this. The first had no `Making`.
pub(in crate::server) const FORMAT: u32 = 2;
/// What a leader says in its place that has no room: it is there, and whoever wants to follow is to come again.
pub(in crate::server) const FULL: u32 = u32::MAX;
/// What the leader says first: magic, format, nonce.
pub(in crate::server) const GREETING_BYTES: usize = 8 + 4 + NONCE_BYTES;
/// A number that nobody has used before.
pub(in crate::server) const NONCE_BYTES: usize = 16;
/// A part of a checkpoint, and about as much of records.
pub(in crate::server) const PART_BYTES: usize = 256 * 1024;
/// The longest content of a frame: a record beside others.
pub(in crate::server) const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + 2 * PART_BYTES;
/// Length, kind, MAC.
const HEAD_BYTES: usize = 4 + 1 + 16;
/// A text has so many bytes at most.
const WHY_BYTES_MAX: usize = 512;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum FrameError {
    /// Longer than any is.
    #[error("a frame claims {0} bytes")]
    TooLong(usize),
    /// Somebody else's, or not the next one.
    #[error("its proof is wrong: do both have the same etcd and cluster?")]
    Forged,
    /// It says nothing that is known here.
    #[error("it cannot be read")]
    Unreadable,
}

/// Who says a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Side {
    Leader,
    Standby,
}

/// The key of one connection.
#[derive(Clone)]
pub(in crate::server) struct LinkKey([u8; 16]);

impl LinkKey {
    pub(in crate::server) fn of(
        key: StateKey,
        leader: [u8; NONCE_BYTES],
        standby: [u8; NONCE_BYTES],
    ) -> Self {
        let mut hasher = SipHasher24::new_with_key(&key.reveal().to_le_bytes());
        hasher.write(b"follow");
        hasher.write(&leader);
        hasher.write(&standby);
        Self(hasher.finish128().as_bytes())
    }

    fn mac(&self, side: Side, number: u64, kind: u8, content: &[u8]) -> [u8; 16] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write(&[side as u8, kind]);
        hasher.write(&number.to_le_bytes());
        hasher.write(content);
        hasher.finish128().as_bytes()
    }
}

/// What one side says.
pub(in crate::server) struct Sealing {
    key: LinkKey,
    side: Side,
    number: u64,
}

impl Sealing {
    pub(in crate::server) fn new(key: LinkKey, side: Side) -> Self {
        Self { key, side, number: 0 }
    }

    /// Puts a frame at the end of `to`.
    pub(in crate::server) fn put(&mut self, (kind, content): (u8, &[u8]), to: &mut BytesMut) {
        let mac = self.key.mac(self.side, self.number, kind, content);
        self.number += 1;
        to.reserve(HEAD_BYTES + content.len());
        to.put_u32_le(u32::try_from(content.len()).unwrap_or(u32::MAX));
        to.put_u8(kind);
        to.put_slice(&mac);
        to.put_slice(content);
    }
}

/// What one side hears.
pub(in crate::server) struct Opening {
    key: LinkKey,
    /// Who speaks.
    side: Side,
    number: u64,
}

impl Opening {
    pub(in crate::server) fn new(key: LinkKey, side: Side) -> Self {
        Self { key, side, number: 0 }
    }

    /// Takes a frame from the beginning of `from`; none: it is not all there yet.
    pub(in crate::server) fn take(
        &mut self,
        from: &mut BytesMut,
    ) -> Result<Option<(u8, Bytes)>, FrameError> {
        let Some(mut head) = from.get(..HEAD_BYTES) else { return Ok(None) };
        let (length, kind) = (head.get_u32_le() as usize, head.get_u8());
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        if from.len() < HEAD_BYTES + length {
            from.reserve(HEAD_BYTES + length - from.len());
            return Ok(None);
        }
        let mut mac = [0; 16];
        mac.copy_from_slice(head);
        from.advance(HEAD_BYTES);
        let content = from.split_to(length).freeze();
        let expected = self.key.mac(self.side, self.number, kind, &content);
        self.number += 1;
        if bool::from(expected.ct_eq(&mac)) {
            Ok(Some((kind, content)))
        } else {
            Err(FrameError::Forged)
        }
    }
}

/// What tells two tables apart that should be the same.
pub(in crate::server) type Digest = [u8; 16];

/// What a leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum ToStandby {
    /// A checkpoint of so many bytes follows, and then what came behind it.
    Accepted { term: u64, position: u64, bytes: u64, epochs: Epochs },
    /// Not now; soon.
    Wait,
    /// A checkpoint is being made.
    Making,
    /// Not this one.
    Refused { why: String },
    /// A part of the checkpoint.
    Part(Bytes),
    /// Records that belong to a later position.
    More(Bytes),
    /// Records up to a position; none: it still leads.
    Records { position: u64, records: Bytes },
    /// What its table is like at a position.
    Check { position: u64, digest: Digest },
}

/// What a standby says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) enum ToLeader {
    /// It wants to follow the leader of this term.
    Follow { term: u64, run: RunId, rules: u32 },
    /// It has kept all up to here.
    Acknowledged { position: u64 },
    /// What its table is like at a position.
    Checked { position: u64, digest: Digest },
}

impl ToStandby {
    /// How much memory it takes, about.
    pub(in crate::server) fn bytes(&self) -> usize {
        let content = match self {
            Self::Part(bytes) | Self::More(bytes) | Self::Records { records: bytes, .. } => {
                bytes.len()
            }
            Self::Accepted { .. }
            | Self::Wait
            | Self::Making
            | Self::Refused { .. }
            | Self::Check { .. } => 0,
        };
        content + size_of::<Self>()
    }

    /// Its kind, and its content.
    pub(in crate::server) fn encode(&self) -> (u8, Bytes) {
        let mut to = BytesMut::new();
        let kind = match self {
            Self::Accepted { term, position, bytes, epochs: Epochs { ordered, confirmed } } => {
                for number in [term, position, bytes, ordered, confirmed] {
                    to.put_u64_le(*number);
                }
                1
            }
            Self::Wait => 2,
            Self::Making => 8,
            Self::Refused { why } => {
                to.put_slice(why.as_bytes());
                3
            }
            Self::Part(bytes) => return (4, bytes.clone()),
            Self::More(records) => return (5, records.clone()),
            Self::Records { position, records } => {
                to.put_u64_le(*position);
                to.put_slice(records);
                6
            }
            Self::Check { position, digest } => {
                to.put_u64_le(*position);
                to.put_slice(digest);
                7
            }
        };
        (kind, to.freeze())
    }

    pub(in crate::server) fn decode((kind, mut content): (u8, Bytes)) -> Result<Self, FrameError> {
        let decoded = match kind {
            1 => Self::Accepted {
                term: number(&mut content)?,
                position: number(&mut content)?,
                bytes: number(&mut content)?,
                epochs: Epochs { ordered: number(&mut content)?, confirmed: number(&mut content)? },
            },
            2 => Self::Wait,
            8 => Self::Making,
            3 => {
                let why = content.split_to(content.len().min(WHY_BYTES_MAX));
                Self::Refused { why: String::from_utf8_lossy(&why).into_owned() }
            }
            4 => return Ok(Self::Part(content)),
            5 => return Ok(Self::More(content)),
            6 => return Ok(Self::Records { position: number(&mut content)?, records: content }),
            7 => Self::Check { position: number(&mut content)?, digest: bytes(&mut content)? },
            _ => return Err(FrameError::Unreadable),
        };
        if content.is_empty() { Ok(decoded) } else { Err(FrameError::Unreadable) }
    }
}

impl ToLeader {
    /// Its kind, and its content.
    pub(in crate::server) fn encode(&self) -> (u8, Bytes) {
        let mut to = BytesMut::new();
        let kind = match self {
            Self::Follow { term, run: RunId(Mark { process, attempt }), rules } => {
                to.put_u64_le(*term);
                to.put_u128_le(*process);
                to.put_u64_le(*attempt);
                to.put_u32_le(*rules);
                1
            }
            Self::Acknowledged { position } => {
                to.put_u64_le(*position);
                2
            }
            Self::Checked { position, digest } => {
                to.put_u64_le(*position);
                to.put_slice(digest);
                3
            }
        };
        (kind, to.freeze())
    }

    pub(in crate::server) fn decode((kind, mut content): (u8, Bytes)) -> Result<Self, FrameError> {
        let decoded = match kind {
            1 => {
                let term = number(&mut content)?;
                let process = u128::from_le_bytes(bytes(&mut content)?);
                let attempt = number(&mut content)?;
                let rules = u32::from_le_bytes(bytes(&mut content)?);
                Self::Follow { term, run: RunId(Mark { process, attempt }), rules }
            }
            2 => Self::Acknowledged { position: number(&mut content)? },
            3 => Self::Checked { position: number(&mut content)?, digest: bytes(&mut content)? },
            _ => return Err(FrameError::Unreadable),
        };
        if content.is_empty() { Ok(decoded) } else { Err(FrameError::Unreadable) }
    }
}

/// Puts a record behind others.
pub(in crate::server) fn put_record(record: &[u8], to: &mut BytesMut) {
    to.put_u32_le(u32::try_from(record.len()).unwrap_or(u32::MAX));
    to.put_slice(record);
}

/// The records of a frame, one after the other.
pub(in crate::server) fn records(
    mut bytes: &[u8],
) -> impl Iterator<Item = Result<&[u8], FrameError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let record = bytes
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((record, rest)) = record else {
            bytes = &[];
            return Some(Err(FrameError::Unreadable));
        };
        bytes = rest;
        Some(Ok(record))
    })
}

fn number(from: &mut Bytes) -> Result<u64, FrameError> {
    bytes(from).map(u64::from_le_bytes)
}

fn bytes<const N: usize>(from: &mut Bytes) -> Result<[u8; N], FrameError> {
    if from.len() < N {
        return Err(FrameError::Unreadable);
    }
    let mut bytes = [0; N];
    from.copy_to_slice(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u128) -> LinkKey {
        LinkKey::of(StateKey::new(number), [1; NONCE_BYTES], [2; NONCE_BYTES])
    }

    fn all() -> Vec<ToStandby> {
        let epochs = Epochs { ordered: 9, confirmed: 8 };
        let mut records = BytesMut::new();
        put_record(b"one", &mut records);
        put_record(b"", &mut records);
        let records = records.freeze();
        vec![
            ToStandby::Accepted { term: 7, position: 5, bytes: 3, epochs },
            ToStandby::Wait,
            ToStandby::Making,
            ToStandby::Refused { why: "other rules".to_owned() },
            ToStandby::Part(Bytes::from_static(b"part")),
            ToStandby::More(records.clone()),
            ToStandby::Records { position: u64::MAX, records },
            ToStandby::Check { position: 6, digest: [3; 16] },
        ]
    }

    #[test]
    fn what_is_said_is_heard_in_whatever_pieces_it_comes() {
        let (mut sealing, mut bytes) = (Sealing::new(key(5), Side::Leader), BytesMut::new());
        for message in all() {
            let (kind, content) = message.encode();
            sealing.put((kind, &content), &mut bytes);
        }
        let (mut opening, mut come) = (Opening::new(key(5), Side::Leader), BytesMut::new());
        let mut heard = Vec::new();
        for byte in bytes {
            come.put_u8(byte);
            heard.extend(opening.take(&mut come).unwrap().map(|it| ToStandby::decode(it).unwrap()));
        }
        assert_eq!(heard, all());
        let run = RunId(Mark { process: u128::MAX, attempt: 3 });
        for message in [
            ToLeader::Follow { term: 7, run, rules: 5 },
            ToLeader::Acknowledged { position: 9 },
            ToLeader::Checked { position: 9, digest: [1; 16] },
        ] {
            assert_eq!(ToLeader::decode(message.encode()), Ok(message));
        }
    }

    #[test]
    fn no_frame_is_forged_changed_repeated_left_out_or_sent_back() {
        let mut sealing = Sealing::new(key(5), Side::Leader);
        let mut frames = [BytesMut::new(), BytesMut::new()];
        for frame in &mut frames {
            sealing.put((2, b"content"), frame);
        }
        let [first, second] = frames;
        let take = |key, side, frames: &[&BytesMut]| {
            let mut opening = Opening::new(key, side);
            frames.iter().try_for_each(|frame| opening.take(&mut (*frame).clone()).map(drop))
        };
        let forged = Err(FrameError::Forged);
        assert_eq!(take(key(5), Side::Leader, &[&first, &second]), Ok(()));
        assert_eq!(take(key(5), Side::Leader, &[&first, &first]), forged);
        assert_eq!(take(key(5), Side::Leader, &[&second]), forged);
        assert_eq!(take(key(5), Side::Standby, &[&first]), forged);
        assert_eq!(take(key(6), Side::Leader, &[&first]), forged);
        for at in 4..first.len() {
            let mut changed = first.clone();
            changed[at] ^= 1;
            assert_eq!(take(key(5), Side::Leader, &[&changed]), forged, "byte {at}");
        }
    }

    #[test]
    fn no_length_is_believed_and_what_is_cut_short_is_told() {
        let mut long = BytesMut::new();
        long.put_u32_le(u32::try_from(FRAME_BYTES_MAX + 1).unwrap());
        long.put_slice(&[0; HEAD_BYTES]);
        let told = Opening::new(key(5), Side::Leader).take(&mut long);
        assert_eq!(told, Err(FrameError::TooLong(FRAME_BYTES_MAX + 1)));
        for message in all() {
            let (kind, content) = message.encode();
            if matches!(kind, 1 | 7) {
                for cut in 0..content.len() {
                    let cut = ToStandby::decode((kind, content.slice(..cut)));
                    assert_eq!(cut, Err(FrameError::Unreadable));
                }
            }
        }
        assert_eq!(ToStandby::decode((99, Bytes::new())), Err(FrameError::Unreadable));
        assert_eq!(ToLeader::decode((99, Bytes::new())), Err(FrameError::Unreadable));
        for cut in [&b"\x05\0\0\0four"[..], b"\x01\0\0", b"\xff\xff\xff\xff"] {
            assert!(records(cut).any(|it| it == Err(FrameError::Unreadable)));
        }
    }
}
