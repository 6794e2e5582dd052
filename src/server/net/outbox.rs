//! What is said to a peer, and its socket has not taken yet: the same for every kind of connection.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::socket::Socket;

/// An empty outbox with more memory than this gives it back.
const BYTES_KEPT: usize = 4 * 1024;

/// Bytes for a socket, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// What the socket has not taken.
    bytes: BytesMut,
    /// Whether something was written that is yet to be flushed.
    is_unflushed: bool,
    /// Bytes that it has taken so far, to see whether the peer reads.
    written: u64,
}

impl Outbox {
    /// Bytes that the socket has taken so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether there is nothing to write, and nothing to flush.
    pub(super) fn is_written(&self) -> bool {
        self.bytes.is_empty() && !self.is_unflushed
    }

    /// Writes all of it.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        task: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(stream);
        while !self.bytes.is_empty() {
            let written = ready!(stream.as_mut().poll_write(task, &self.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_unflushed = true;
            self.written += written as u64;
            if written == self.bytes.len() {
                // Unlike `advance`, this leaves the room in front to be used again.
                self.bytes.clear();
            } else {
                self.bytes.advance(written);
            }
        }
        if self.is_unflushed {
            ready!(stream.poll_flush(task))?;
            self.is_unflushed = false;
            if self.bytes.capacity() > BYTES_KEPT {
                self.bytes = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes `frames` behind what waits, now as far as the socket takes them. Says whether nothing waits then.
    /// Else the connection is woken by the socket or at once, and sees to the rest.
    pub(super) fn say(&mut self, stream: &mut impl Socket, waker: &Waker, frames: &[u8]) -> bool {
        // A delivery may say nothing, and only that something was handled.
        let is_next = self.is_written() && !frames.is_empty();
        let taken = if is_next { stream.write_at_once(frames) } else { None };
        let written = match taken {
            Some(taken) => {
                self.written += taken as u64;
                if taken == frames.len() {
                    // As nearly always.
                    return true;
                }
                waker.wake_by_ref();
                taken
            }
            None if is_next => self.try_write(stream, waker, frames),
            None => 0,
        };
        self.bytes.extend_from_slice(&frames[written..]);
        self.bytes.is_empty()
    }

    fn try_write(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        waker: &Waker,
        frames: &[u8],
    ) -> usize {
        let (mut task, mut stream) = (Context::from_waker(waker), Pin::new(stream));
        let written = match stream.as_mut().poll_write(&mut task, frames) {
            Poll::Ready(Ok(written)) => written,
            // The connection meets the error again, and is to end of it.
            Poll::Ready(Err(_)) => 0,
            // The socket wakes the connection.
            Poll::Pending => return 0,
        };
        self.written += written as u64;
        self.is_unflushed = !matches!(stream.poll_flush(&mut task), Poll::Ready(Ok(())));
        if written < frames.len() || self.is_unflushed {
            waker.wake_by_ref();
        }
        written
    }
}

impl Deref for Outbox {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Outbox {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}
