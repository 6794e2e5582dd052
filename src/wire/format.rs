//! The one file that knows bincode.

use std::io;

use bincode::{BincodeRead, Deserializer, Options};
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde::de::{DeserializeOwned, Visitor};

/// Longest frame, in bytes after the length field.
pub const FRAME_LEN_MAX: usize = 64 * 1024;
/// Longest frame before the first message was accepted, in bytes after the length field.
pub const HELLO_LEN_MAX: usize = 1024;

/// Why bytes are not a message, or a message not bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are not of a message of this protocol.
    #[error("malformed message: {0}")]
    Malformed(#[source] bincode::Error),
    /// The message has no form in bytes.
    #[error("message cannot be written: {0}")]
    Unwritable(#[source] bincode::Error),
    /// The message would be longer than a frame may be.
    #[error("a message of {len} bytes, a frame has at most {FRAME_LEN_MAX}")]
    TooLong {
        /// What it would need.
        len: usize,
    },
}

/// Without a limit of bincode's, which would be counted down with every field. Reading ends with
/// the bytes that there are, and no length in them is believed (see `message/lists.rs`).
fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_no_limit()
        .reject_trailing_bytes()
}

/// Reads one message from the whole of `payload`.
///
/// # Errors
///
/// [`FormatError::Malformed`] if the bytes are not exactly one message.
#[inline]
pub fn decode<M: DeserializeOwned>(payload: &[u8]) -> Result<M, FormatError> {
    // Not by bincode's own door, which would move the message for each thing that could still be wrong.
    let mut rest = Unread(payload);
    match M::deserialize(&mut Deserializer::with_bincode_read(&mut rest, options())) {
        Ok(message) if rest.0.is_empty() => Ok(message),
        Ok(_) => Err(trailing(rest.0.len())),
        Err(error) => Err(FormatError::Malformed(error)),
    }
}

#[cold]
fn trailing(len: usize) -> FormatError {
    let why = format!("{len} bytes remain behind the message");
    FormatError::Malformed(Box::new(bincode::ErrorKind::Custom(why)))
}

/// Bytes that are not read yet.
struct Unread<'a>(&'a [u8]);

impl<'a> Unread<'a> {
    #[inline]
    fn next(&mut self, len: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(ended)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cold]
fn ended() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

impl io::Read for &mut Unread<'_> {
    #[inline]
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.read_exact(out).map(|()| out.len())
    }

    #[inline]
    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(self.next(out.len())?);
        Ok(())
    }
}

impl<'a> BincodeRead<'a> for &mut Unread<'a> {
    #[inline]
    fn forward_read_str<V: Visitor<'a>>(
        &mut self,
        length: usize,
        visitor: V,
    ) -> bincode::Result<V::Value> {
        if length == 0 {
            // Most notes are, and need no look at their signs.
            return visitor.visit_borrowed_str("");
        }
        let text = str::from_utf8(self.next(length)?);
        visitor.visit_borrowed_str(text.map_err(bincode::ErrorKind::InvalidUtf8Encoding)?)
    }

    fn get_byte_buffer(&mut self, length: usize) -> bincode::Result<Vec<u8>> {
        Ok(self.next(length)?.to_vec())
    }

    fn forward_read_bytes<V: Visitor<'a>>(
        &mut self,
        length: usize,
        visitor: V,
    ) -> bincode::Result<V::Value> {
        visitor.visit_borrowed_bytes(self.next(length)?)
    }
}

/// Appends `message` to `buffer` as a frame: its length, then itself. Leaves `buffer` as it was
/// on an error.
///
/// # Errors
///
/// [`FormatError::TooLong`] if the message does not fit a frame.
///
/// # Examples
///
/// ```
/// use bytes::BytesMut;
/// use coordinator::types::RequestId;
/// use coordinator::wire::{ClientMessage, decode, encode_frame};
///
/// let mut buffer = BytesMut::new();
/// let cancel = ClientMessage::Cancel { request: RequestId(7) };
/// encode_frame(&cancel, &mut buffer).unwrap();
/// assert_eq!(&buffer[..], b"\x0c\0\0\0\x03\0\0\0\x07\0\0\0\0\0\0\0");
/// assert_eq!(decode::<ClientMessage>(&buffer[4..]).unwrap(), cancel);
/// ```
pub fn encode_frame<M: Serialize>(message: &M, buffer: &mut BytesMut) -> Result<(), FormatError> {
    // Nearly every message fits, and is then put there in one piece.
    let mut short = Short { bytes: [0; SHORT_LEN_MAX], len: size_of::<u32>() };
    if options().serialize_into(&mut short, message).is_ok() {
        let len = u32::try_from(short.len - size_of::<u32>()).unwrap_or(u32::MAX);
        short.bytes[..size_of::<u32>()].copy_from_slice(&len.to_le_bytes());
        buffer.extend_from_slice(&short.bytes[..short.len]);
        return Ok(());
    }
    encode_long(message, buffer)
}

/// [`encode_frame`] of one that is longer than most.
fn encode_long<M: Serialize>(message: &M, buffer: &mut BytesMut) -> Result<(), FormatError> {
    let start = buffer.len();
    buffer.put_u32_le(0);
    let written = options().serialize_into(Appended(buffer), message);
    let len = buffer.len() - start - size_of::<u32>();
    if let Err(error) = written {
        buffer.truncate(start);
        return Err(FormatError::Unwritable(error));
    }
    if len > FRAME_LEN_MAX {
        buffer.truncate(start);
        return Err(FormatError::TooLong { len });
    }
    let field = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
    buffer[start..start + field.len()].copy_from_slice(&field);
    Ok(())
}

/// Longest frame that is made beside the buffer, with its length field.
const SHORT_LEN_MAX: usize = 64;

/// What is written, as long as there is room.
struct Short {
    /// Room.
    bytes: [u8; SHORT_LEN_MAX],
    /// How much of it is taken.
    len: usize,
}

impl io::Write for &mut Short {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = self.len + bytes.len();
        let room = self.bytes.get_mut(self.len..len).ok_or(io::ErrorKind::WriteZero)?;
        room.copy_from_slice(bytes);
        self.len = len;
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Appends what is written, a field at a time, with nothing in between.
struct Appended<'a>(&'a mut BytesMut);

impl io::Write for Appended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bytes of something that is kept for a later run: not a message, so as long as it is.
///
/// # Errors
///
/// [`FormatError::Unwritable`] if it has no form in bytes.
#[cfg(feature = "server")]
pub(crate) fn encode_state<T: Serialize>(state: &T) -> Result<Vec<u8>, FormatError> {
    options().serialize(state).map_err(FormatError::Unwritable)
}

/// The same, written down as it is made: there is never a copy of the whole.
///
/// # Errors
///
/// [`FormatError::Unwritable`] if it has no form in bytes, or they cannot be written.
#[cfg(feature = "server")]
pub(crate) fn write_state<T: Serialize>(
    state: &T,
    to: &mut dyn io::Write,
) -> Result<(), FormatError> {
    options().serialize_into(to, state).map_err(FormatError::Unwritable)
}

/// Reads what [`write_state`] wrote. To be used on what is known to be just that, by its checksum:
/// lengths are believed.
///
/// # Errors
///
/// [`FormatError::Malformed`] if the bytes are not that, or cannot be read.
#[cfg(feature = "server")]
pub(crate) fn read_state<T: DeserializeOwned>(from: &mut dyn io::Read) -> Result<T, FormatError> {
    options().deserialize_from(from).map_err(FormatError::Malformed)
}

/// Reads what an earlier run has kept, from the whole of `bytes`, and believes no length in them that
/// there are no bytes for.
///
/// # Errors
///
/// [`FormatError::Malformed`] if the bytes are not exactly that.
#[cfg(feature = "server")]
pub(crate) fn decode_state<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    options().deserialize(bytes).map_err(FormatError::Malformed)
}
