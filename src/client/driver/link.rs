//! The link: a driver's connection, made, in the making, or absent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time;
use tokio_util::codec::FramedRead;

use crate::wire::{self, ClientCodec, ClientMessage, CodecError, FormatError, ServerMessage};

use super::connector::Connecting;
use crate::client::process::Own;

/// No new commands are taken while more than this waits to be written.
const OUTBOX_BYTES_MAX: usize = 256 * 1024;

/// How long the driver stays to see its goodbye arrive.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection, at whatever stage.
pub(super) enum Link<Io> {
    /// There is none.
    Down,
    /// It is being made.
    Dialing(Own<Connecting<Io>>),
    /// It is there.
    Up(Connection<Io>),
}

/// What happens to a link.
pub(super) enum LinkEvent<Io> {
    /// The server said something, or nothing more will come.
    Read(Option<Result<Vec<ServerMessage>, CodecError>>),
    /// Something was written, or never will be.
    Written,
    /// The connection is there, or could not be made.
    Dialed(io::Result<Io>),
}

impl<Io: AsyncRead + AsyncWrite> Link<Io> {
    /// Waits for what happens next. What did not happen yet when this is dropped is not missed.
    pub(super) async fn next(&mut self) -> LinkEvent<Io> {
        match self {
            Self::Down => std::future::pending().await,
            Self::Dialing(connecting) => LinkEvent::Dialed(connecting.as_mut().await),
            Self::Up(connection) => connection.next().await,
        }
    }

    /// Whether more may be put in.
    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Down | Self::Dialing(_) => true,
            Self::Up(connection) => connection.outbox.len() < OUTBOX_BYTES_MAX,
        }
    }

    /// Has `message` written when there is room.
    pub(super) fn put(&mut self, message: &ClientMessage) -> Result<(), FormatError> {
        match self {
            Self::Up(connection) if connection.failure.is_none() => {
                wire::encode_frame(message, &mut connection.outbox)
            }
            Self::Down | Self::Dialing(_) | Self::Up(_) => Ok(()),
        }
    }

    /// Brings the last words out, and waits a moment for the server to have heard them.
    pub(super) async fn farewell(&mut self) -> io::Result<()> {
        match self {
            Self::Up(connection) => {
                let farewell = time::timeout(FAREWELL_TIMEOUT, connection.farewell()).await;
                farewell.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer to goodbye"))
                })
            }
            Self::Down | Self::Dialing(_) => {
                Err(io::Error::new(io::ErrorKind::NotConnected, "there is no connection to it"))
            }
        }
    }

    /// Why nothing more could be written, if so.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        match self {
            Self::Down | Self::Dialing(_) => None,
            Self::Up(connection) => connection.failure.take(),
        }
    }
}

/// A connection that is there.
pub(super) struct Connection<Io> {
    /// Both directions.
    ends: Own<Ends<Io>>,
    /// Bytes to be written.
    outbox: BytesMut,
    /// Why nothing more can be written. What the server said before is still read: it may say why.
    failure: Option<io::Error>,
}

/// Both directions of a connection.
struct Ends<Io> {
    /// Reader of what the server says.
    reader: FramedRead<ReadHalf<Io>, ClientCodec>,
    /// Where we talk.
    writer: WriteHalf<Io>,
}

impl<Io: AsyncRead + AsyncWrite> Connection<Io> {
    pub(super) fn new(io: Io) -> Self {
        let (reader, writer) = tokio::io::split(io);
        let reader = FramedRead::new(reader, ClientCodec::new());
        let ends = Own::new(Ends { reader, writer });
        Self { ends, outbox: BytesMut::new(), failure: None }
    }

    async fn next(&mut self) -> LinkEvent<Io> {
        let may_write = !self.outbox.is_empty();
        let Ends { reader, writer } = &mut *self.ends;
        tokio::select! {
            biased;
            written = writer.write_buf(&mut self.outbox), if may_write => {
                match written {
                    Ok(0) => self.write_failed(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) => self.write_failed(error),
                }
                LinkEvent::Written
            }
            read = reader.next() => LinkEvent::Read(read),
        }
    }

    fn write_failed(&mut self, error: io::Error) {
        self.outbox.clear();
        self.failure = Some(error);
    }

    /// Brings the last words out, and waits for the server to have heard them.
    async fn farewell(&mut self) -> io::Result<()> {
        let Ends { reader, writer } = &mut *self.ends;
        writer.write_all_buf(&mut self.outbox).await?;
        writer.shutdown().await?;
        // The server closes when it has freed everything. Whatever it says before is too late.
        let mut ignored = [0; 1_024];
        while reader.get_mut().read(&mut ignored).await? > 0 {}
        Ok(())
    }

    /// Writes what can be written without waiting.
    pub(super) fn write_what_fits(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while !self.outbox.is_empty() {
            match Pin::new(&mut self.ends.writer).poll_write(&mut context, &self.outbox) {
                Poll::Ready(Ok(written)) if written > 0 => self.outbox.advance(written),
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
    }
}
