//! Frames on a stream of bytes.
//!
//! Decoding takes *all* complete messages that a read brought, as one batch, so that they can be
//! handed on as one. The length field is believed only up to the limit of the moment:
//! [`HELLO_LEN_MAX`] until a server's codec is told that the Hello was accepted.

use std::error::Error;
use std::io;
use std::marker::PhantomData;

use bytes::BytesMut;
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LengthDelimitedCodecError};

use super::format::{self, FRAME_LEN_MAX, FormatError, HELLO_LEN_MAX};
use super::{ClientMessage, ServerMessage};

/// Why a stream of bytes is not, or no longer, one of messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The connection failed.
    #[error("connection failed: {0}")]
    Io(#[from] io::Error),
    /// The length field claims more than is allowed at this point. What speaks another protocol
    /// usually ends here, its first four bytes taken for a length.
    #[error("a frame of {claimed} bytes, {max} are allowed here")]
    FrameTooLong {
        /// What the length field says.
        claimed: u32,
        /// What is allowed.
        max: usize,
    },
    /// A frame that holds no message.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
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
    /// Finds the frames.
    frames: LengthDelimitedCodec,
    /// What ended the stream of messages, kept until the messages before it were handed on.
    failed: Option<CodecError>,
    /// What goes which way.
    direction: PhantomData<fn(Out) -> In>,
}

/// The codec of a server's end of a connection.
pub type ServerCodec = Codec<ClientMessage, ServerMessage>;
/// The codec of a client's end of a connection.
pub type ClientCodec = Codec<ServerMessage, ClientMessage>;

fn frames(max: usize) -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .little_endian()
        .length_field_type::<u32>()
        .max_frame_length(max)
        .new_codec()
}

impl ServerCodec {
    /// For a connection that has yet to say Hello: frames up to [`HELLO_LEN_MAX`].
    pub fn before_hello() -> Self {
        Self { frames: frames(HELLO_LEN_MAX), failed: None, direction: PhantomData }
    }

    /// Accepts frames up to [`FRAME_LEN_MAX`] from now on.
    pub fn hello_accepted(&mut self) {
        self.frames.set_max_frame_length(FRAME_LEN_MAX);
    }
}

impl ClientCodec {
    /// For a connection to a server.
    pub fn new() -> Self {
        Self { frames: frames(FRAME_LEN_MAX), failed: None, direction: PhantomData }
    }
}

impl Default for ClientCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl<In: DeserializeOwned, Out> Decoder for Codec<In, Out> {
    type Item = Vec<In>;
    type Error = CodecError;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<In>>, CodecError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let mut batch = Vec::new();
        loop {
            match self.next(buffer) {
                Ok(Some(message)) => batch.push(message),
                Ok(None) if batch.is_empty() => return Ok(None),
                Ok(None) => return Ok(Some(batch)),
                Err(error) if batch.is_empty() => return Err(error),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(Some(batch));
                }
            }
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<In>>, CodecError> {
        match self.decode(buffer)? {
            Some(batch) => Ok(Some(batch)),
            None if buffer.is_empty() => Ok(None),
            None => Err(CodecError::Truncated),
        }
    }
}

impl<In: DeserializeOwned, Out> Codec<In, Out> {
    /// The next complete message in `buffer`.
    fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<In>, CodecError> {
        match self.frames.decode(buffer) {
            Ok(Some(frame)) => Ok(Some(format::decode(&frame)?)),
            Ok(None) => Ok(None),
            Err(error)
                if error
                    .get_ref()
                    .is_some_and(<dyn Error + Send + Sync>::is::<LengthDelimitedCodecError>) =>
            {
                let claimed = buffer.first_chunk().map_or(0, |field| u32::from_le_bytes(*field));
                Err(CodecError::FrameTooLong { claimed, max: self.frames.max_frame_length() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl<In, Out: Serialize> Encoder<Out> for Codec<In, Out> {
    type Error = CodecError;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> Result<(), CodecError> {
        Ok(format::encode_frame(&message, buffer)?)
    }
}
