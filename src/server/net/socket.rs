//! What a session reads from and writes to.

use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::tls::Accepted;

/// A stream that can say whether there is something to read, which costs less than to try.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Pending if there is nothing to read; then the task is woken once there is. Else to read tells more.
    fn poll_readable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// What stands before an address for such a connection to it.
    fn scheme(&self) -> &'static str {
        ""
    }

    /// What is written from now on is the last, and each write has all that is left: a farewell of the stream's own
    /// may go along with it.
    fn ends(&mut self) {}
}

impl Socket for TcpStream {
    #[inline]
    fn poll_readable(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(task).map(drop)
    }
}

impl Socket for DuplexStream {}

#[cfg(feature = "tls")]
impl<S: Socket> Socket for Accepted<S> {
    #[inline]
    fn poll_readable(&mut self, task: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Plain(stream) => stream.poll_readable(task),
            // What was read may be decrypted already.
            Self::Shaking(_) | Self::Up(_) | Self::Ending(_) | Self::Failed => Poll::Ready(()),
        }
    }

    fn scheme(&self) -> &'static str {
        if matches!(self, Self::Plain(_)) { "" } else { "tls://" }
    }

    fn ends(&mut self) {
        Self::ends(self);
    }
}
