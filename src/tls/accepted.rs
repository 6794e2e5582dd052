//! A server's side of a connection: plain, or TLS.
//!
//! Whoever reads first drives the handshake (lazy handshake). So a session is the same for both, and the
//! time it gives a client for its Hello covers the handshake, too.
//!
//! A handshake takes a hundred times the work of a message. So handshakes take turns (duty cycle): after a
//! step that took some time, the thread makes no other step for as long. Whatever comes, sessions that
//! are there have half of their thread.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::Accept;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::words;

/// Handshakes rest once they have taken so much time: less cannot be slept.
const WORK_MAX: Duration = Duration::from_millis(1);

thread_local! {
    /// What handshakes have taken on this thread since they rested.
    static WORK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// Until when they rest.
    static RESTS_UNTIL: Cell<Option<Instant>> = const { Cell::new(None) };
}

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
    /// For its turn.
    rest: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Accepted<S> {
    /// A connection over `stream`; by TLS, if there is a configuration for that.
    pub(crate) fn new(stream: S, config: Option<Arc<ServerConfig>>) -> Self {
        match config {
            None => Self::Plain(stream),
            Some(config) => {
                let accept = TlsAcceptor::from(config).accept(stream);
                Self::Shaking(Box::new(Shaking { accept, rest: None }))
            }
        }
    }

    /// Goes on with the handshake. It is over once this is ready.
    fn poll_shake(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Shaking(shaking) = self else { return Poll::Ready(Ok(())) };
        ready!(shaking.poll_turn(task));
        let begun = std::time::Instant::now();
        let shaken = Pin::new(&mut shaking.accept).poll(task);
        took(begun.elapsed());
        match ready!(shaken) {
            Ok(stream) => {
                *self = Self::Up(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *self = Self::Failed;
                Poll::Ready(Err(words::of_client(error)))
            }
        }
    }
}

impl<S> Shaking<S> {
    /// Waits for the turn of this handshake.
    fn poll_turn(&mut self, task: &mut Context<'_>) -> Poll<()> {
        while let Some(until) = RESTS_UNTIL.get().filter(|until| *until > Instant::now()) {
            let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(until)));
            ready!(rest.as_mut().poll(task));
            self.rest = None;
        }
        self.rest = None;
        Poll::Ready(())
    }
}

/// A step of a handshake took so long.
pub(super) fn took(step: Duration) {
    let work = WORK.get() + step;
    if work < WORK_MAX {
        WORK.set(work);
    } else {
        WORK.set(Duration::ZERO);
        RESTS_UNTIL.set(Some(Instant::now() + work));
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Plain(stream) => return Pin::new(stream).poll_read(task, buffer),
                Self::Up(stream) => {
                    let read = ready!(Pin::new(stream).poll_read(task, buffer));
                    return Poll::Ready(read.map_err(words::of_client));
                }
                Self::Failed => return Poll::Ready(Ok(())),
                Self::Shaking(_) => ready!(this.poll_shake(task))?,
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            match this {
                Self::Plain(stream) => return Pin::new(stream).poll_write(task, bytes),
                Self::Up(stream) => return Pin::new(stream).poll_write(task, bytes),
                Self::Failed => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Self::Shaking(_) => ready!(this.poll_shake(task))?,
            }
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
