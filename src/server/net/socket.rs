//! What a session reads from and writes to.
//!
//! Who asks a stream as a future has it ask for a wake-up first, each time. A session knows mostly that there
//! is something to read, or that a short answer will be taken. So it tries at once, and asks only where
//! that fails. [`Socket::poll_readable`] is the one place where it asks while all goes well.

use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest};
use tokio::net::TcpStream;

#[cfg(feature = "tls")]
use crate::tls::Accepted;

/// Whether the system says each time that something has come, and not only when there was nothing before
/// (epoll, kqueue).
const TELLS_OF_MORE: bool = cfg!(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple"
));

/// A stream that can say whether there is something to read, and that can be tried.
pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + 'static {
    /// Reads what is there, as far as `buffer` has room, and says how much. None: to poll it tells more.
    fn read_at_once(&mut self, _: &mut BytesMut) -> Option<io::Result<usize>> {
        None
    }

    /// Writes what it takes, and says how much: nothing is to be flushed then. None: to poll it tells more.
    fn write_at_once(&mut self, _: &[u8]) -> Option<usize> {
        None
    }

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
    fn read_at_once(&mut self, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
        let room = buffer.capacity() - buffer.len();
        let mut read = None;
        // Less than there is room for is all that there was: that is not to be tried again before the system
        // says that there is more. What it has said since is not forgotten.
        let tried = self.try_io(Interest::READABLE, || {
            let taken = self.try_read_buf(buffer)?;
            read = Some(taken);
            if TELLS_OF_MORE && (1..room).contains(&taken) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match (read, tried) {
            (Some(read), _) => Some(Ok(read)),
            // Told here, for a socket tells once that it was reset.
            (None, Err(why)) if why.kind() != io::ErrorKind::WouldBlock => Some(Err(why)),
            (None, _) => None,
        }
    }

    #[inline]
    fn write_at_once(&mut self, bytes: &[u8]) -> Option<usize> {
        self.try_write(bytes).ok()
    }

    #[inline]
    fn poll_readable(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.poll_read_ready(task).map(drop)
    }
}

impl Socket for DuplexStream {}

#[cfg(feature = "tls")]
impl<S: Socket> Socket for Accepted<S> {
    #[inline]
    fn read_at_once(&mut self, buffer: &mut BytesMut) -> Option<io::Result<usize>> {
        match self {
            Self::Plain(stream) => stream.read_at_once(buffer),
            Self::Shaking(_) | Self::Up(_) | Self::Ending(_) | Self::Failed => None,
        }
    }

    #[inline]
    fn write_at_once(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Plain(stream) => stream.write_at_once(bytes),
            Self::Shaking(_) | Self::Up(_) | Self::Ending(_) | Self::Failed => None,
        }
    }

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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::super::outbox::Outbox;
    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, theirs)
    }

    fn read(socket: &mut TcpStream, buffer: &mut BytesMut) -> usize {
        socket.read_at_once(buffer).unwrap().unwrap()
    }

    async fn is_waited_for(socket: &mut TcpStream) -> bool {
        poll_fn(|task| Poll::Ready(socket.poll_readable(task).is_pending())).await
    }

    #[tokio::test]
    async fn what_is_there_is_read_at_once_and_what_is_not_is_waited_for() {
        let (mut ours, mut theirs) = pair().await;
        let mut buffer = BytesMut::with_capacity(64);
        assert!(ours.read_at_once(&mut buffer).is_none());
        for part in [&b"first"[..], b"second"] {
            theirs.write_all(part).await.unwrap();
            poll_fn(|task| ours.poll_readable(task)).await;
            assert_eq!(read(&mut ours, &mut buffer), part.len());
            assert_eq!(buffer, part);
            buffer.clear();
            assert!(is_waited_for(&mut ours).await);
            assert!(ours.read_at_once(&mut buffer).is_none());
        }
        drop(theirs);
        poll_fn(|task| ours.poll_readable(task)).await;
        assert_eq!(read(&mut ours, &mut buffer), 0);
    }

    #[tokio::test]
    async fn a_reset_is_told_and_is_no_end() {
        let (mut ours, theirs) = pair().await;
        ours.write_all(b"unread").await.unwrap();
        theirs.readable().await.unwrap();
        drop(theirs);
        poll_fn(|task| ours.poll_readable(task)).await;
        let read = ours.read_at_once(&mut BytesMut::with_capacity(16)).unwrap();
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_buffer_that_is_full_leaves_more_to_be_read() {
        let (mut ours, mut theirs) = pair().await;
        let mut buffer = BytesMut::with_capacity(16);
        let said = vec![7; buffer.capacity() + 1];
        theirs.write_all(&said).await.unwrap();
        poll_fn(|task| ours.poll_readable(task)).await;
        assert_eq!(read(&mut ours, &mut buffer), said.len() - 1);
        assert!(!is_waited_for(&mut ours).await);
    }

    #[tokio::test]
    async fn what_a_socket_takes_in_part_is_said_once_and_in_order() {
        let (mut ours, mut theirs) = pair().await;
        ours.writable().await.unwrap();
        let (mut outbox, mut said) = (Outbox::default(), Vec::new());
        for number in 0_u8.. {
            let frames: Vec<u8> = (number..=u8::MAX).cycle().take(100_003).collect();
            said.extend_from_slice(&frames);
            if !outbox.say(&mut ours, Waker::noop(), &frames) {
                break;
            }
        }
        assert_eq!(outbox.written(), (said.len() - outbox.len()) as u64);
        said.extend_from_slice(b"behind");
        assert!(!outbox.say(&mut ours, Waker::noop(), b"behind"));
        let mut read = vec![0; said.len()];
        let writing = poll_fn(|task| outbox.poll_write(&mut ours, task));
        let (written, was_read) = tokio::join!(writing, theirs.read_exact(&mut read));
        written.unwrap();
        was_read.unwrap();
        assert!(read == said, "what was read is not what was said");
    }
}
