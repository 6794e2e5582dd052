//! A server's side of a connection: plain, or TLS.
//!
//! Whoever reads first waits for the handshake, which is made elsewhere (`handshakes.rs`). So a session is the
//! same for both, and the time it gives a client for its Hello covers the handshake, too.

use std::io::{self, Write};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use super::movable::Movable;
use super::words;

/// The most that waits encrypted for a peer that does not read. What waits before that is counted where it
/// lies.
const ENCRYPTED_BYTES_MAX: usize = 16 * 1024;

/// A connection that was accepted.
pub(crate) enum Accepted<S> {
    /// Its bytes are as they are sent.
    Plain(S),
    /// Its handshake is not over.
    Shaking(Shaking<S>),
    /// It is encrypted.
    Up(Encrypted<S>),
    /// The same, and what is written next is the last.
    Ending(Encrypted<S>),
    /// Its handshake failed.
    Failed,
}

/// A connection by TLS.
type Encrypted<S> = Box<TlsStream<Movable<S>>>;

/// A handshake.
pub(crate) struct Shaking<S> {
    /// Its end.
    over: Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>,
    /// Where the names in the peer's certificate go.
    certified: Arc<OnceLock<Vec<String>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Accepted<S> {
    /// A connection by TLS, once its handshake is over. The names in the peer's certificate go to `certified`
    /// when that is verified: `dns:NAME` and `uri:NAME`.
    pub(super) fn shaking(
        over: impl Future<Output = io::Result<Encrypted<S>>> + Send + 'static,
        certified: Arc<OnceLock<Vec<String>>>,
    ) -> Self {
        Self::Shaking(Shaking { over: Box::pin(over), certified })
    }

    /// Waits for the end of the handshake, for who has something to say first.
    #[cfg(feature = "cluster")]
    pub(crate) async fn shaken(&mut self) -> io::Result<()> {
        std::future::poll_fn(|task| self.poll_shake(task)).await
    }

    /// Waits for the end of the handshake.
    fn poll_shake(&mut self, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self::Shaking(shaking) = self else { return Poll::Ready(Ok(())) };
        match ready!(shaking.over.as_mut().poll(task)) {
            Ok(mut stream) => {
                stream.get_mut().1.set_buffer_limit(Some(ENCRYPTED_BYTES_MAX));
                let names = names_in(stream.get_ref().1.peer_certificates());
                // Nobody else has set it: a connection has one handshake.
                let _first = shaking.certified.set(names);
                *self = Self::Up(stream);
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                *self = Self::Failed;
                Poll::Ready(words::or_end(Err(words::of_client(error))))
            }
        }
    }

    /// What is written from now on is the last, and each write has all that is left: the farewell of TLS goes along
    /// with its end.
    pub(crate) fn ends(&mut self) {
        *self = match mem::replace(self, Self::Failed) {
            Self::Up(stream) => Self::Ending(stream),
            other => other,
        };
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
            Self::Up(stream) | Self::Ending(stream) => {
                let read = ready!(Pin::new(stream).poll_read(task, buffer));
                Poll::Ready(words::or_end(read.map_err(words::of_client)))
            }
            Self::Plain(_) | Self::Shaking(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }
}

/// Writes the last bytes, and the farewell (`close_notify`) behind them, at once if the socket takes them.
fn poll_write_last<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut Encrypted<S>,
    task: &mut Context<'_>,
    bytes: &[u8],
) -> Poll<io::Result<usize>> {
    if stream.get_ref().1.wants_write() {
        // Behind this there is room.
        ready!(Pin::new(&mut *stream).poll_flush(task))?;
    }
    let tls = stream.get_mut().1;
    let taken = tls.writer().write(bytes)?;
    if taken == bytes.len() {
        tls.send_close_notify();
    }
    match Pin::new(stream).poll_flush(task) {
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        // What the socket has not taken is flushed later.
        Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
    }
}

/// The names that a verified certificate proves (subject alternative names).
fn names_in(chain: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let Some(certificate) = chain.and_then(<[_]>::first) else { return Vec::new() };
    let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Vec::new() };
    let hosts = certificate.valid_dns_names().map(|name| format!("dns:{name}"));
    let uris = certificate.valid_uri_names().map(|name| format!("uri:{name}"));
    hosts.chain(uris).collect()
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
            Self::Ending(stream) => poll_write_last(stream, task, bytes),
            // Nothing is said to somebody whose handshake is not over: it is not waited for with that.
            Self::Shaking(_) | Self::Failed => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(task),
            Self::Up(stream) | Self::Ending(stream) => Pin::new(stream).poll_flush(task),
            Self::Shaking(_) | Self::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Up(stream) | Self::Ending(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Shaking(_) | Self::Failed => {
                // The handshake is given up, and the connection with it.
                *this = Self::Failed;
                Poll::Ready(Ok(()))
            }
        }
    }
}
