//! The source of connections.

use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time;

use super::race::{HEAD_START, connect_first};
use crate::client::servers::{Server, Servers};
#[cfg(feature = "tls")]
use crate::tls::Dialed;
use crate::types::{Credential, ServerAddress};

/// A connection that is being made.
pub(crate) type Connecting<Io> = Pin<Box<dyn Future<Output = io::Result<Io>> + Send + 'static>>;

/// Where a connection is to go first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whither<'a> {
    /// Where the latest was welcome.
    Back,
    /// Where the leader is said to be.
    To(&'a ServerAddress),
    /// Not where there is a connection that does not answer.
    Elsewhere,
}

/// Makes connections to one coordinator.
pub(crate) trait Connector: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// How many servers it can connect to; 0: it can make no other connection.
    fn servers(&self) -> usize {
        1
    }

    /// Begins to make one. If there is none soon, it goes to any of the others.
    fn connect(&mut self, whither: Whither<'_>) -> Connecting<Self::Io>;

    /// The latest one is welcome: that was the right place.
    fn welcomed(&mut self) {}

    /// The server that the latest one goes to, if that can be one of several.
    fn peer(&self) -> Option<String> {
        None
    }

    /// The credential that each connection begins with, if there is one.
    fn credential(&self) -> Option<&Credential> {
        None
    }
}

/// Connects over TCP, to the first of the servers that answers. Their names are looked up each time:
/// they may have moved.
///
/// A server that answered, but did not welcome us, is the last one to be tried the next time. One
/// that did is the first. A hint goes before all of them, once; they are tried beside it.
#[derive(Clone, Debug)]
pub(in crate::client) struct Dial {
    /// The servers, in their order.
    servers: Servers,
    /// Index of the one that is tried first.
    first: usize,
    /// Where the latest connection goes to.
    reached: Arc<Mutex<Reached>>,
}

/// Where a connection goes to.
#[derive(Debug, Default)]
struct Reached {
    /// The server; none before the first connection.
    server: Option<Server>,
    /// Whether there is something to learn from it: it may still welcome us, or not.
    is_news: bool,
    /// Those that were tried before it, and what is wrong with them.
    failed: Vec<(String, String)>,
    /// Whether one was named by another at any time: so there are several.
    was_hinted: bool,
}

impl Reached {
    /// The latest connection goes to `server`; with others something is wrong.
    fn arrive(&mut self, server: Server, failed: Vec<(String, String)>, is_hinted: bool) {
        self.server = Some(server);
        self.is_news = true;
        self.failed = failed;
        self.was_hinted |= is_hinted;
    }
}

impl Dial {
    pub(in crate::client) fn new(servers: Servers) -> Self {
        Self { servers, first: 0, reached: Arc::default() }
    }

    /// Where the latest connection goes to, of the servers that were named; once for each connection.
    fn learn(&self) -> Option<usize> {
        let mut reached = locked(&self.reached);
        let server = reached.server.as_ref().filter(|_| reached.is_news);
        let place = server.and_then(|server| self.servers.place_of(server));
        reached.is_news = false;
        place
    }

    /// The place of the latest connection, among the servers that were named.
    fn here(&self) -> Option<usize> {
        self.servers.place_of(locked(&self.reached).server.as_ref()?)
    }

    /// Those that were tried before the one that was reached, and what is wrong with them.
    pub(in crate::client) fn failed(&self) -> Vec<(String, String)> {
        locked(&self.reached).failed.clone()
    }

    /// All servers that are tried, in their order.
    fn candidates(&self, whither: Whither<'_>) -> Vec<Server> {
        let count = self.servers.len();
        let (first, hinted) = match whither {
            Whither::Back => (self.first, None),
            Whither::To(leader) => (self.first, Some(self.servers.another(leader))),
            Whither::Elsewhere => (self.here().map_or(self.first, |here| here + 1), None),
        };
        let named = (0..count).filter_map(|place| self.servers.server((first + place) % count));
        let others = named.filter(|server| hinted.as_ref() != Some(server)).cloned();
        hinted.clone().into_iter().chain(others).collect()
    }
}

/// Where a server is. Its name is looked up each time.
async fn addresses(server: &Server) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host(&server.address).await?.collect())
}

/// Nobody panics while holding it, and what it protects is whole at any time.
fn locked(reached: &Mutex<Reached>) -> MutexGuard<'_, Reached> {
    reached.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection over TCP, encrypted or not.
#[cfg(feature = "tls")]
type Stream = Dialed<TcpStream>;
/// A connection over TCP.
#[cfg(not(feature = "tls"))]
type Stream = TcpStream;

impl Connector for Dial {
    type Io = Stream;

    fn servers(&self) -> usize {
        self.servers.len()
    }

    fn connect(&mut self, whither: Whither<'_>) -> Connecting<Stream> {
        if let Some(place) = self.learn() {
            self.first = (place + 1) % self.servers.len().max(1);
        }
        let candidates = self.candidates(whither);
        let is_hinted = matches!(whither, Whither::To(_));
        let (servers, reached) = (self.servers.clone(), Arc::clone(&self.reached));
        Box::pin(async move {
            // A name that was named for a reason is not overtaken because others need no looking up.
            let hinted = match candidates.first().filter(|_| is_hinted) {
                Some(server) => time::timeout(HEAD_START, addresses(server)).await.ok(),
                None => None,
            };
            let hinted = hinted.and_then(Result::ok);
            let lookup = |place: usize| {
                let known = hinted.clone().filter(|_| place == 0);
                let server = candidates.get(place).cloned();
                async move {
                    match (known, server) {
                        (Some(known), _) => Ok(known),
                        (None, Some(server)) => addresses(&server).await,
                        (None, None) => Ok(Vec::new()),
                    }
                }
            };
            let connected = connect_first(candidates.len(), lookup, TcpStream::connect).await;
            let (place, stream, failures) =
                connected.map_err(|failures| failures.of(&candidates))?;
            let failed = failures.told(&candidates);
            let Some(server) = candidates.into_iter().nth(place) else {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            };
            locked(&reached).arrive(server.clone(), failed, is_hinted);
            keep_secret(&servers, &server, &stream)?;
            // What is sent is sent at once.
            stream.set_nodelay(true)?;
            secured(stream, servers, server).await
        })
    }

    fn welcomed(&mut self) {
        if let Some(place) = self.learn() {
            self.first = place;
        }
    }

    fn peer(&self) -> Option<String> {
        let reached = locked(&self.reached);
        let is_one_of_several = self.servers.len() > 1 || reached.was_hinted;
        reached.server.as_ref().filter(|_| is_one_of_several).map(ToString::to_string)
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
fn keep_secret(servers: &Servers, server: &Server, stream: &TcpStream) -> io::Result<()> {
    let peer = stream.peer_addr()?;
    if server.is_secure
        || peer.ip().to_canonical().is_loopback()
        || !servers.keeps_credential_secret()
    {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, CredentialInClear { peer }))
}

/// The connection to one of the servers, encrypted if it is that server's.
#[cfg(feature = "tls")]
async fn secured(stream: TcpStream, servers: Servers, server: Server) -> io::Result<Stream> {
    if server.is_secure {
        servers.tls_options().secure(stream, server.host()).await
    } else {
        Ok(Dialed::Plain(stream))
    }
}

/// The connection to one of the servers.
#[cfg(not(feature = "tls"))]
#[expect(clippy::unused_async, reason = "there is something to wait for where TLS is")]
async fn secured(stream: TcpStream, _: Servers, _: Server) -> io::Result<Stream> {
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

    fn servers(&self) -> usize {
        0
    }

    fn connect(&mut self, _: Whither<'_>) -> Connecting<Io> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The servers that are tried, in their order.
    fn order(dial: &Dial, whither: Whither<'_>) -> Vec<String> {
        dial.candidates(whither).iter().map(|server| server.address.clone()).collect()
    }

    #[test]
    fn the_next_connection_goes_back_or_to_the_leader_or_elsewhere_and_then_to_any_other() {
        let servers = Servers::from("a:1,b:1,c:1");
        let mut dial = Dial::new(servers.clone());
        assert_eq!(order(&dial, Whither::Back), ["a:1", "b:1", "c:1"]);
        locked(&dial.reached).arrive(servers.server(1).unwrap().clone(), Vec::new(), false);
        dial.welcomed();
        assert_eq!(order(&dial, Whither::Back), ["b:1", "c:1", "a:1"]);
        assert_eq!(order(&dial, Whither::Elsewhere), ["c:1", "a:1", "b:1"]);
        let (known, unknown) = ("c:1".parse().unwrap(), "d:1".parse().unwrap());
        assert_eq!(order(&dial, Whither::To(&known)), ["c:1", "b:1", "a:1"]);
        assert_eq!(order(&dial, Whither::To(&unknown)), ["d:1", "b:1", "c:1", "a:1"]);
    }

    #[tokio::test]
    async fn who_answers_and_does_not_welcome_us_is_the_last_the_next_time() {
        let servers = Servers::from("a:1,b:1,c:1");
        let mut dial = Dial::new(servers.clone());
        locked(&dial.reached).arrive(servers.server(0).unwrap().clone(), Vec::new(), false);
        drop(dial.connect(Whither::Back));
        assert_eq!(order(&dial, Whither::Back), ["b:1", "c:1", "a:1"]);
        // One that was named by another is not remembered.
        let other = servers.another(&"d:1".parse().unwrap());
        locked(&dial.reached).arrive(other, Vec::new(), true);
        dial.welcomed();
        assert_eq!(order(&dial, Whither::Back), ["b:1", "c:1", "a:1"]);
        assert_eq!(dial.peer().as_deref(), Some("d:1"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn with_tls_a_server_that_is_named_is_reached_by_tls_and_has_to_be_that_host() {
        let dial = Dial::new(Servers::from("tls://a:1,tls://b:1"));
        let leader = "d.internal:1".parse().unwrap();
        let first = dial.candidates(Whither::To(&leader)).remove(0);
        assert_eq!((first.is_secure, first.host()), (true, "d.internal"));
    }
}
