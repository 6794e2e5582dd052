//! Frames on a stream of bytes.
//!
//! Decoding takes *all* complete messages that a read brought, as one batch, so that they can be
//! handed on as one. The length field is believed only up to the limit of the moment:
//! [`HELLO_LEN_MAX`] until a server's codec is told that the Hello was accepted.
//!
//! The codec remembers nothing but that limit. A frame leaves the buffer when its message is handed
//! on, so an undecodable one stays there. The messages before it go first, and then every further
//! call returns the same error.

use std::io;
use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use serde::Serialize;
use tokio_util::codec::{Decoder, Encoder};

use super::format::{self, FRAME_LEN_MAX, FormatError, HELLO_LEN_MAX};
use super::usual::Incoming;
use super::{ClientMessage, PROTOCOL, ServerMessage};

/// Most messages in one batch. The shortest message is 8 bytes on the wire and over a hundred in
/// memory. Without a bound, a full buffer would grow to many times its size at once.
pub(super) const BATCH_LEN_MAX: usize = 512;

/// The number of Hello among the client's messages; the version follows it, in every version.
const HELLO_INDEX: u32 = 0;

/// What a TLS alert begins with, which whoever speaks TLS sends to whoever does not. No frame is as long as
/// that would be for its length.
const TLS_ALERT: [u8; 4] = [0x15, 0x03, 0x03, 0x00];
/// How an answer by HTTP begins.
const HTTP_ANSWER: [u8; 4] = *b"HTTP";

/// Why a stream of bytes is not, or no longer, one of messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The length field claims more than is allowed at this point. A peer with another protocol
    /// usually ends here, with its first four bytes taken for a length.
    #[error("a frame of {claimed} bytes; at most {max} are allowed here")]
    FrameTooLong {
        /// The value of the length field.
        claimed: u32,
        /// The longest frame that is allowed.
        max: usize,
    },
    /// A Hello of a version of the protocol that has another Hello than ours.
    #[error("version {protocol} of the protocol; only version {PROTOCOL} is supported here")]
    UnsupportedVersion {
        /// The version it names.
        protocol: u32,
    },
    /// A frame that holds no message.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The peer speaks TLS: it answers with an alert of that.
    #[error("it speaks TLS: write tls:// before its address")]
    Tls,
    /// The peer speaks HTTP.
    #[error("it speaks HTTP: a coordinator's locks are on another port than its page")]
    Http,
}

impl CodecError {
    /// Whether the peer broke the protocol, rather than the connection itself failing.
    pub fn is_protocol_error(&self) -> bool {
        !matches!(self, Self::Io(_))
    }
}

/// Reads messages of type `In` in batches, writes messages of type `Out`.
#[derive(Debug)]
pub struct Codec<In, Out> {
    /// Longest frame that is read at this point, in bytes after the length field.
    frame_len_max: usize,
    /// What goes which way.
    direction: PhantomData<fn(Out) -> In>,
}

/// The codec of a server's end of a connection.
pub type ServerCodec = Codec<ClientMessage, ServerMessage>;
/// The codec of a client's end of a connection.
pub type ClientCodec = Codec<ServerMessage, ClientMessage>;

impl ServerCodec {
    /// For a connection that has yet to say Hello: frames up to [`HELLO_LEN_MAX`].
    pub fn before_hello() -> Self {
        Self { frame_len_max: HELLO_LEN_MAX, direction: PhantomData }
    }

    /// Accepts frames up to [`FRAME_LEN_MAX`] from now on.
    pub fn hello_accepted(&mut self) {
        self.frame_len_max = FRAME_LEN_MAX;
    }
}

impl ClientCodec {
    /// For a connection to a server.
    pub fn new() -> Self {
        Self { frame_len_max: FRAME_LEN_MAX, direction: PhantomData }
    }
}

impl Default for ClientCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl<In: Incoming, Out> Decoder for Codec<In, Out> {
    type Item = Vec<In>;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<In>>, CodecError> {
        let mut batch = Vec::with_capacity(frames(buffer));
        let mut rest = &buffer[..];
        let missing = match self.fill(&mut batch, &mut rest) {
            Ok(missing) => missing,
            Err(error) if batch.is_empty() => return Err(error),
            Err(_) => 0,
        };
        if rest.is_empty() {
            // Unlike `advance`, this leaves the room in front to be used again, which is in the caches.
            buffer.clear();
        } else {
            let read = buffer.len() - rest.len();
            buffer.advance(read);
            buffer.reserve(missing);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<In>>, CodecError> {
        match self.decode(buffer)? {
            Some(batch) => Ok(Some(batch)),
            None if buffer.is_empty() => Ok(None),
            None => Err(CodecError::Truncated),
        }
    }
}

/// How many complete frames `bytes` begin with, as far as they go into one batch. Nothing is said of
/// what is in them.
fn frames(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut count = 0;
    while count < BATCH_LEN_MAX
        && let Some((field, frame)) = rest.split_first_chunk()
        && let Ok(len) = usize::try_from(u32::from_le_bytes(*field))
        && let Some(behind) = frame.get(len..)
    {
        rest = behind;
        count += 1;
    }
    count
}

/// What the bytes of a stream begin with.
enum Next<'a> {
    /// A frame, and what stands behind it.
    Frame(&'a [u8], &'a [u8]),
    /// A part of one. So many bytes are yet to come, as far as its length can be read.
    Missing(usize),
}

impl<In: Incoming, Out> Codec<In, Out> {
    /// Moves messages from `rest` to the end of `batch`, until that is full or a frame is not
    /// complete. Says how many bytes are yet to come for that one, as far as can be known.
    fn fill(&self, batch: &mut Vec<In>, rest: &mut &[u8]) -> Result<usize, CodecError> {
        while batch.len() < BATCH_LEN_MAX {
            match self.next(rest)? {
                Next::Frame(payload, behind) => {
                    match In::usual(payload) {
                        Some(message) => batch.push(message),
                        // No `map_err`, which would move the message.
                        None => match format::decode(payload) {
                            Ok(message) => batch.push(message),
                            Err(error) => return Err(self.undecodable(payload, error)),
                        },
                    }
                    *rest = behind;
                }
                Next::Missing(bytes) => return Ok(bytes),
            }
        }
        Ok(0)
    }

    /// What `bytes` begin with.
    fn next<'a>(&self, bytes: &'a [u8]) -> Result<Next<'a>, CodecError> {
        let Some((field, rest)) = bytes.split_first_chunk() else { return Ok(Next::Missing(0)) };
        let claimed = u32::from_le_bytes(*field);
        let max = self.frame_len_max;
        let Some(len) = usize::try_from(claimed).ok().filter(|len| *len <= max) else {
            return Err(match *field {
                TLS_ALERT => CodecError::Tls,
                HTTP_ANSWER => CodecError::Http,
                _ => CodecError::FrameTooLong { claimed, max },
            });
        };
        match rest.split_at_checked(len) {
            Some((payload, behind)) => Ok(Next::Frame(payload, behind)),
            None => Ok(Next::Missing(len - rest.len())),
        }
    }

    #[cold]
    fn undecodable(&self, payload: &[u8], error: FormatError) -> CodecError {
        self.other_version(payload).unwrap_or(CodecError::Format(error))
    }

    /// If `payload`, which is not of this version, is the Hello of another: that.
    fn other_version(&self, payload: &[u8]) -> Option<CodecError> {
        let before_hello = self.frame_len_max == HELLO_LEN_MAX;
        let rest = payload.strip_prefix(&HELLO_INDEX.to_le_bytes())?;
        let protocol = u32::from_le_bytes(*rest.first_chunk()?);
        (before_hello && protocol != PROTOCOL)
            .then_some(CodecError::UnsupportedVersion { protocol })
    }
}

impl<In, Out: Serialize> Encoder<Out> for Codec<In, Out> {
    type Error = CodecError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), CodecError> {
        Ok(format::encode_frame(&message, buffer)?)
    }
}
