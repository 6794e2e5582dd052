//! A server's side of a connection: plain, or TLS.
//!
//! Whoever reads first drives the handshake (lazy handshake). So a session is the same for both, and the
//! time it gives a client for its Hello covers the handshake, too.
//!
//! Handshakes take turns (`turnstile.rs`): whatever comes, sessions that are there have half of their thread.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::Accept;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::turnstile::Turns;
use super::words;

/// The most that waits encrypted for a peer that does not read. What waits before that is counted where it
/// lies.
const ENCRYPTED_BYTES_MAX: usize = 16 * 1024;

/// A connection that was accepted.
pub(crate) enum Accepted<S> {
    /// Its bytes are as they are sent.
    Plain(S),
    /// Its handshake is not over.
    Shaking(Box<Shaking<S>>),
    /// It is encrypted.
    Up(Box<TlsStream<S>>),
    /// Its handshake failed.
    Failed,
}

/// A handshake.
pub(crate) struct Shaking<S> {
    /// What is left of it.
    accept: Accept<S>,
    /// When it is to go on.
    turns: Turns,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Accepted<S> {
    /// A connection over `stream`; by TLS, if there is a configuration for that.
    pub(crate) fn new(stream: S, config: Option<Arc<ServerConfig>>) -> Self {
        match config {
            None => Self::Plain(stream),
            Some(config) => {
                let accept = TlsAcceptor::from(config).accept(stream);
                Self::Shaking(Box::new(Shaking { accept, turns: Turns::default() }))
            }
        }
    }

    /// Goes on with the handshake. It is over once this is ready.
    fn poll_shake(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Shaking(shaking) = self else { return Poll::Ready(Ok(())) };
        ready!(shaking.turns.poll_turn(task));
        let begun = Instant::now();
        let shaken = Pin::new(&mut shaking.accept).poll(task);
        Turns::took(begun.elapsed());
        match ready!(shaken) {
            Ok(mut stream) => {
                stream.get_mut().1.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
                *self = Self::Up(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *self = Self::Failed;
                Poll::Ready(words::or_end(Err(words::of_client(error))))
            }
        }
    }

    /// Reads what came encrypted, once the handshake is over. Apart from the way of plain bytes, which costs
    /// nothing more for it.
    fn poll_decrypt(
        &mut self,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_shake(task))?;
        match self {
            Self::Up(stream) => {
                let read = ready!(Pin::new(stream).poll_read(task, buffer));
                Poll::Ready(words::or_end(read.map_err(words::of_client)))
            }
            Self::Plain(_) | Self::Shaking(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(task, buffer),
            by_tls => by_tls.poll_decrypt(task, buffer),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(task, bytes),
            Self::Up(stream) => Pin::new(stream).poll_write(task, bytes),
            // Nothing is said to somebody whose handshake is not over: it is not gone on with for that.
            Self::Shaking(_) | Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(task),
            Self::Up(stream) => Pin::new(stream).poll_flush(task),
            Self::Shaking(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Up(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Shaking(shaking) => match shaking.accept.get_mut() {
                Some(stream) => Pin::new(stream).poll_shutdown(task),
                None => Poll::Ready(Ok(())),
            },
            Self::Failed => Poll::Ready(Ok(())),
        }
    }
}
