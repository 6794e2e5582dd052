//! The link: a driver's connection, made, in the making, or absent.

use std::future::poll_fn;
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
use crate::types::Credential;

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
            Self::Up(connection) => !connection.is_full(),
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
    /// Whether something was written that the stream may still have: one that encrypts keeps what the socket
    /// does not take.
    unflushed: bool,
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
        Self { ends, outbox: BytesMut::new(), unflushed: false, failure: None }
    }

    /// One that begins with a credential, if there is one.
    pub(super) fn begin(io: Io, credential: Option<&Credential>) -> Self {
        let mut connection = Self::new(io);
        if let Some(credential) = credential {
            let shown = ClientMessage::Authenticate { credential: credential.into() };
            // It is far shorter than a frame may be.
            let _fits = wire::encode_frame(&shown, &mut connection.outbox);
        }
        connection
    }

    /// Writes what there is to be written, and waits for what is said. Tells of what was written only if that
    /// makes room: whoever reads is told of what is read, in the same turn.
    async fn next(&mut self) -> LinkEvent<Io> {
        loop {
            let may_write = !self.outbox.is_empty() || self.unflushed;
            let was_full = self.is_full();
            let Ends { reader, writer } = &mut *self.ends;
            let outbox = &mut self.outbox;
            // Says whether there is something to flush.
            let write = async {
                if outbox.is_empty() {
                    return writer.flush().await.map(|()| false);
                }
                if writer.write_buf(outbox).await? == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                let flush =
                    |task: &mut Context<'_>| Poll::Ready(Pin::new(&mut *writer).poll_flush(task));
                match poll_fn(flush).await {
                    Poll::Ready(flushed) => flushed.map(|()| false),
                    Poll::Pending => Ok(true),
                }
            };
            tokio::select! {
                biased;
                written = write, if may_write => {
                    match written {
                        Ok(unflushed) => self.unflushed = unflushed,
                        Err(error) => self.write_failed(error),
                    }
                    if was_full {
                        return LinkEvent::Written;
                    }
                }
                read = reader.next() => return LinkEvent::Read(read),
            }
        }
    }

    /// Whether no more is to be put in.
    fn is_full(&self) -> bool {
        self.outbox.len() >= OUTBOX_BYTES_MAX
    }

    fn write_failed(&mut self, error: io::Error) {
        self.outbox.clear();
        self.unflushed = false;
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
        let _as_far_as_it_goes = Pin::new(&mut self.ends.writer).poll_flush(&mut context);
    }
}

#[cfg(test)]
mod tests {
    use std::task::ready;

    use tokio::io::{DuplexStream, ReadBuf, duplex};

    use super::*;

    /// A stream that takes all that is written, as one that encrypts does, and gives it on when flushed.
    struct Hoards {
        inner: DuplexStream,
        kept: Vec<u8>,
    }

    impl AsyncRead for Hoards {
        fn poll_read(
            mut self: Pin<&mut Self>,
            task: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(task, buffer)
        }
    }

    impl AsyncWrite for Hoards {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.kept.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
            let Self { inner, kept } = self.get_mut();
            while !kept.is_empty() {
                let written = ready!(Pin::new(&mut *inner).poll_write(task, kept))?;
                kept.drain(..written);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(task)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_stream_keeps_goes_out_when_the_peer_reads_though_nothing_else_is_said() {
        let (ours, mut theirs) = duplex(16);
        let mut link = Link::Up(Connection::new(Hoards { inner: ours, kept: Vec::new() }));
        let mut said = BytesMut::new();
        for sequence in 1..=9 {
            let message = ClientMessage::KeepAlive { sequence };
            wire::encode_frame(&message, &mut said).unwrap();
            link.put(&message).unwrap();
        }
        let mut heard = vec![0; said.len()];
        let driven = async {
            loop {
                link.next().await;
            }
        };
        let all = async {
            // Not before all is written that the socket takes.
            time::sleep(Duration::from_millis(1)).await;
            theirs.read_exact(&mut heard).await
        };
        let all = time::timeout(Duration::from_secs(1), all);
        tokio::select! {
            () = driven => {}
            all = all => {
                all.expect("it stays behind").unwrap();
            }
        }
        assert_eq!(heard, said);
    }
}
