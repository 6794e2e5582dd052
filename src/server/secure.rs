//! Whether connections are encrypted, and what becomes of those of TCP.
//!
//! Without the feature `tls` this room knows that they are not, and nothing else changes.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpStream;

use crate::access::CertificateName;
#[cfg(feature = "tls")]
use crate::tls::{Accepted, ServerTls, is_of_tls};

/// A TCP connection, encrypted or not.
#[cfg(feature = "tls")]
pub(crate) type Stream = Accepted<TcpStream>;
/// A TCP connection.
#[cfg(not(feature = "tls"))]
pub(crate) type Stream = TcpStream;

/// What connections are encrypted with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secure {
    /// This; none: they are used as they are.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ServerTls>,
}

/// Those of the lock port and of the HTTP port. A connection is wrapped on the thread where it is used.
#[cfg(feature = "tls")]
impl Secure {
    /// A connection to the lock port. Its certificate's names go to `certified`. If its handshake has to wait for
    /// others with its address, `crowded` is called.
    pub(crate) fn for_locks(
        &self,
        stream: TcpStream,
        certified: Certified,
        crowded: impl FnOnce() + Send + 'static,
    ) -> Stream {
        match &self.tls {
            None => Accepted::Plain(stream),
            Some(tls) => tls.accept_for_locks(stream, certified.0, crowded),
        }
    }

    /// A connection to the HTTP port, likewise.
    #[cfg(feature = "http")]
    pub(crate) fn for_http(
        &self,
        stream: TcpStream,
        certified: Certified,
        crowded: impl FnOnce() + Send + 'static,
    ) -> Stream {
        match &self.tls {
            None => Accepted::Plain(stream),
            Some(tls) => tls.accept_for_http(stream, certified.0, crowded),
        }
    }
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_self, reason = "there is a choice where TLS is")]
impl Secure {
    /// A connection to the lock port.
    pub(crate) fn for_locks(
        &self,
        stream: TcpStream,
        _: Certified,
        _: impl FnOnce() + Send + 'static,
    ) -> Stream {
        stream
    }

    /// A connection to the HTTP port.
    #[cfg(feature = "http")]
    pub(crate) fn for_http(
        &self,
        stream: TcpStream,
        _: Certified,
        _: impl FnOnce() + Send + 'static,
    ) -> Stream {
        stream
    }
}

/// Waits until something can be said over a connection that was accepted.
#[cfg(all(feature = "cluster", feature = "tls"))]
pub(crate) async fn shaken(stream: &mut Stream) -> io::Result<()> {
    stream.shaken().await
}

/// Waits until something can be said over a connection that was accepted.
#[cfg(all(feature = "cluster", not(feature = "tls")))]
pub(crate) async fn shaken(_: &mut Stream) -> io::Result<()> {
    Ok(())
}

/// The names in a connection's certificate, which its handshake finds out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Certified(Arc<OnceLock<Vec<String>>>);

impl Certified {
    /// Those that could name somebody; none before the handshake, and without a certificate.
    pub(crate) fn names(&self) -> Vec<CertificateName> {
        let names = self.0.get().into_iter().flatten();
        names.filter_map(|name| CertificateName::new(name).ok()).collect()
    }
}

/// Whether a connection broke because its peer does not speak TLS as it should.
#[cfg(feature = "tls")]
pub(in crate::server) fn is_refusal(why: &io::Error) -> bool {
    is_of_tls(why)
}

/// Whether a connection broke because its peer does not speak TLS as it should.
#[cfg(not(feature = "tls"))]
pub(in crate::server) fn is_refusal(_: &io::Error) -> bool {
    false
}
