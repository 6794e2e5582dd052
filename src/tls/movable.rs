//! A connection on its way from one thread to another.
//!
//! A stream of tokio is watched by the thread that made it, for as long as it lives. A handshake ends on another
//! thread than the one where its connection is used. In between nobody watches it, and it stays the same file: no
//! second descriptor is opened for the move.

use std::io;
use std::mem;
use std::net;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection below TLS.
#[derive(Debug)]
pub(crate) enum Movable<S> {
    /// This thread watches it, and uses it.
    Watched(S),
    /// No thread does.
    Unwatched(net::TcpStream),
    /// It broke when it was to be moved.
    Lost,
}

impl Movable<TcpStream> {
    /// Has this thread watch it no more.
    pub(super) fn unwatch(&mut self) -> io::Result<()> {
        if let Self::Watched(stream) = mem::replace(self, Self::Lost) {
            *self = Self::Unwatched(stream.into_std()?);
        }
        Ok(())
    }

    /// Has this thread watch it from now on.
    pub(super) fn watch(&mut self) -> io::Result<()> {
        if let Self::Unwatched(stream) = mem::replace(self, Self::Lost) {
            *self = Self::Watched(TcpStream::from_std(stream)?);
        }
        Ok(())
    }
}

impl<S: Unpin> Movable<S> {
    /// What is watched here.
    fn watched(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>> {
        match self.get_mut() {
            Self::Watched(stream) => Ok(Pin::new(stream)),
            Self::Unwatched(_) | Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Movable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watched()?.poll_read(task, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Movable<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watched()?.poll_write(task, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watched()?.poll_write_vectored(task, parts)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(self, Self::Watched(stream) if stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_flush(task)
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(task)
    }
}
