//! The source of connections.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};

use super::race::connect_first;
use crate::client::servers::Servers;
#[cfg(feature = "tls")]
use crate::tls::Dialed;
use crate::types::Credential;

/// A connection that is being made.
pub(crate) type Connecting<Io> = Pin<Box<dyn Future<Output = io::Result<Io>> + Send + 'static>>;

/// Makes connections to one coordinator.
pub(crate) trait Connector: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether it can make another.
    fn can_connect(&self) -> bool {
        true
    }

    /// Begins to make one.
    fn connect(&mut self) -> Connecting<Self::Io>;

    /// The latest one is welcome: that was the right place.
    fn welcomed(&mut self) {}

    /// The credential that each connection begins with, if there is one.
    fn credential(&self) -> Option<&Credential> {
        None
    }
}

/// [`Dial::reached`] while there is nothing to learn from it.
const NOWHERE: usize = usize::MAX;

/// Connects over TCP, to the first of the servers that answers. Their names are looked up each time:
/// they may have moved.
///
/// A server that answered, but did not welcome us, is the last one to be tried the next time. One
/// that did is the first.
#[derive(Clone, Debug)]
pub(in crate::client) struct Dial {
    /// The servers, in their order.
    servers: Servers,
    /// Index of the one that is tried first.
    first: usize,
    /// Index of the one that the latest connection goes to, until it is welcome.
    reached: Arc<AtomicUsize>,
}

impl Dial {
    pub(in crate::client) fn new(servers: Servers) -> Self {
        Self { servers, first: 0, reached: Arc::new(AtomicUsize::new(NOWHERE)) }
    }
}

/// A connection over TCP, encrypted or not.
#[cfg(feature = "tls")]
type Stream = Dialed<TcpStream>;
/// A connection over TCP.
#[cfg(not(feature = "tls"))]
type Stream = TcpStream;

impl Connector for Dial {
    type Io = Stream;

    fn connect(&mut self) -> Connecting<Stream> {
        let count = self.servers.len();
        match self.reached.swap(NOWHERE, Ordering::Relaxed) {
            NOWHERE => {}
            reached => self.first = (reached + 1) % count.max(1),
        }
        let (servers, first, reached) = (self.servers.clone(), self.first, self.reached.clone());
        Box::pin(async move {
            let lookup = |number| {
                let address = servers.server(number).map(|server| server.address.clone());
                async move { Ok(lookup_host(address.unwrap_or_default()).await?.collect()) }
            };
            let (number, stream) = connect_first(count, first, lookup, TcpStream::connect).await?;
            reached.store(number, Ordering::Relaxed);
            keep_secret(&servers, number, &stream)?;
            // What is sent is sent at once.
            stream.set_nodelay(true)?;
            secured(stream, servers, number).await
        })
    }

    fn welcomed(&mut self) {
        match self.reached.swap(NOWHERE, Ordering::Relaxed) {
            NOWHERE => {}
            reached => self.first = reached,
        }
    }

    fn credential(&self) -> Option<&Credential> {
        self.servers.shown_credential()
    }
}

/// A credential would be sent where others can read it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{peer} is another machine, and without TLS whoever is in between could read the credential"
)]
pub(in crate::client) struct CredentialInClear {
    /// Where it would have been sent.
    peer: SocketAddr,
}

/// Refuses to show a credential to whoever listens in between.
fn keep_secret(servers: &Servers, number: usize, stream: &TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    let is_secure = servers.server(number).is_some_and(|server| server.is_secure);
    if is_secure || peer.ip().to_canonical().is_loopback() || !servers.keeps_credential_secret() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, CredentialInClear { peer }))
}

/// The connection to one of the servers, encrypted if it is that server's.
#[cfg(feature = "tls")]
async fn secured(stream: TcpStream, servers: Servers, number: usize) -> io::Result<Stream> {
    match servers.server(number).filter(|server| server.is_secure) {
        None => Ok(Dialed::Plain(stream)),
        Some(server) => servers.tls_options().secure(stream, server.host()).await,
    }
}

/// The connection to one of the servers.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "there is something to wait for where TLS is")]
async fn secured(stream: TcpStream, _: Servers, _: usize) -> io::Result<Stream> {
    Ok(stream)
}

/// For a connection that somebody else made, and only once.
#[derive(Debug)]
pub(in crate::client) struct Once<Io> {
    /// Kind of stream.
    io: PhantomData<fn() -> Io>,
    /// The credential that it begins with.
    credential: Option<Credential>,
}

impl<Io> Once<Io> {
    pub(in crate::client) fn new(credential: Option<Credential>) -> Self {
        Self { io: PhantomData, credential }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connector for Once<Io> {
    type Io = Io;

    fn can_connect(&self) -> bool {
        false
    }

    fn connect(&mut self) -> Connecting<Io> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}
