//! The two messages that nearly every read of a busy server brings, read without bincode: a request for one
//! lock, and a release.
//!
//! It is a shortcut and no second opinion. What looks in any way different, or wrong, is left to
//! [`decode`](super::decode), which has the say. A test compares the two.

use serde::de::DeserializeOwned;
use smallvec::smallvec;
use smol_str::SmolStr;

use super::{ClientMessage, Mode, RawClaim, Request, ServerMessage, Wait};
use crate::types::{FencingToken, OwnerId, RequestId};

/// A message that comes in frames.
pub trait Incoming: DeserializeOwned {
    /// The message that is all of `payload`, if it is one of those that can be read at a glance.
    fn usual(payload: &[u8]) -> Option<Self>;
}

/// Their numbers among the client's messages.
const REQUEST: u32 = 1;
const RELEASE: u32 = 2;

impl Incoming for ClientMessage {
    #[inline]
    fn usual(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        match fields.u32()? {
            REQUEST => request(fields).map(Self::Request),
            RELEASE => {
                let request = RequestId(fields.u64()?);
                let token = FencingToken(fields.u64()?);
                fields.0.is_empty().then_some(Self::Release { request, token })
            }
            _ => None,
        }
    }
}

impl Incoming for ServerMessage {
    #[inline]
    fn usual(_: &[u8]) -> Option<Self> {
        None
    }
}

/// A request for one lock, without conversion, note and ticket.
#[inline]
fn request(mut fields: Fields<'_>) -> Option<Request> {
    let request = RequestId(fields.u64()?);
    let owner = OwnerId(fields.u64()?);
    fields.nothing()?;
    let wait = match fields.u32()? {
        0 => Wait::Forever,
        1 => Wait::millis(fields.u64()?),
        2 => Wait::Never,
        _ => return None,
    };
    let [progress @ (0 | 1)] = fields.take()? else { return None };
    let lock_delay_ms = fields.u32()?;
    let (0, (), 1) = (fields.u64()?, fields.nothing()?, fields.u64()?) else { return None };
    let len = usize::try_from(fields.u64()?).ok()?;
    let (name, mode) = fields.0.split_at_checked(len)?;
    let mode = match u32::from_le_bytes(mode.try_into().ok()?) {
        0 => Mode::Exclusive,
        1 => Mode::Shared,
        _ => return None,
    };
    let name = text(name)?;
    Some(Request {
        request,
        owner,
        converts: None,
        wait,
        progress: progress == 1,
        lock_delay_ms,
        note: String::new(),
        ticket: None,
        claims: smallvec![RawClaim { name, mode }],
    })
}

/// Bytes that few names are longer than, at a place where they can be looked at eight at a time.
#[repr(align(8))]
struct Short([u8; 32]);

/// The text that these bytes are. Where there is room, zeros stand behind it, which change nothing about it:
/// then all of it is looked at in large pieces, and nothing byte by byte.
#[inline]
fn text(bytes: &[u8]) -> Option<SmolStr> {
    let mut short = Short([0; 32]);
    let text = match short.0.get_mut(..bytes.len()) {
        Some(room) => {
            room.copy_from_slice(bytes);
            str::from_utf8(&short.0).ok()?.get(..bytes.len())?
        }
        None => str::from_utf8(bytes).ok()?,
    };
    Some(SmolStr::new(text))
}

/// Fields of a message that are not read yet.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    #[inline]
    fn take<const LEN: usize>(&mut self) -> Option<[u8; LEN]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    #[inline]
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    #[inline]
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// An option that has nothing in it.
    #[inline]
    fn nothing(&mut self) -> Option<()> {
        (self.take()? == [0]).then_some(())
    }
}
