//! The settings of a client, and its first connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(test)]
use crate::clock::Clock;
use crate::types::{Credential, Identity, Ttl};

use super::handle::Client;
use super::terms::millis_up;
use crate::client::connect::{Opening, default_identity, on_runtime};
use crate::client::core::{Introduction, Purpose};
#[cfg(test)]
use crate::client::driver::Connector;
#[cfg(all(test, feature = "server"))]
use crate::client::driver::Driver;
use crate::client::driver::Once;
use crate::client::error::Error;
use crate::client::servers::Servers;
use crate::client::within::within;

/// What errors call the server of a test.
#[cfg(test)]
const SERVER_OF_TESTS: &str = "the server of a test";

impl Client {
    /// Opens a session with the coordinator at `servers`. That is a `host:port`, or a host for the
    /// port 5625, or [several](Servers) that are tried in this order. [`Client::builder`] has the
    /// settings.
    ///
    /// Of all addresses of a name, IPv6 and IPv4, the first that answers is taken. Names are looked
    /// up anew for each connection.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if none answers there, [`Error::Protocol`] if only something else does,
    /// [`Error::Rejected`] and [`Error::Draining`] if it does not want us. The first connection is
    /// tried once, with each server.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O and time enabled, as tokio does.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, no session stays: one that was opened already is closed.
    pub async fn connect(servers: impl Into<Servers>) -> Result<Self, Error> {
        Self::builder().connect(servers).await
    }

    /// A client with other settings than the usual.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }
}

/// Settings of a [`Client`].
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), coordinator::Error> {
/// use std::time::Duration;
///
/// let client = coordinator::Client::builder()
///     .ttl(Duration::from_secs(30))
///     .identity("nightly-export")
///     .connect("locks.internal")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
#[must_use = "settings do nothing until connect is called"]
pub struct ClientBuilder {
    /// The lease to ask for; none: the coordinator's default.
    ttl: Option<Duration>,
    /// How long the session outlives a lost connection; none: its lease.
    linger: Option<Duration>,
    /// Identity of the session; none: user@host:pid.
    identity: Option<String>,
    /// What proves who this is; none: what the servers come with.
    credential: Option<Credential>,
    /// How to connect.
    opening: Opening,
}

impl ClientBuilder {
    /// The length of the lease, 2 s to 1 h. Its locks go to others this long after the coordinator
    /// last heard of this client. A short one frees the locks of the dead sooner, a long one
    /// outlasts longer pauses. The coordinator's default is 10 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long the session outlives a connection that was lost; its lease, unless this is shorter.
    ///
    /// Zero frees the locks the moment the connection ends. That relies on the holder's having
    /// ended too: one that was only cut off may still be at work when the next begins. It is told of
    /// its loss as soon as it sees the end of the connection, or its lease.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = Some(linger);
        self
    }

    /// The identity of this client, shown to waiters and observers: up to 128 bytes without control
    /// characters. `user@host:pid` by default. It proves nothing.
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = Some(identity.into());
        self
    }

    /// The credential that proves who this is, where the coordinator has an access file: as
    /// [`Servers::credential`], which is for observers, too.
    pub fn credential(mut self, credential: Credential) -> Self {
        self.credential = Some(credential);
        self
    }

    /// How long connecting may take, the coordinator's welcome included, and the answer to a look; 5 s by
    /// default. Later, to
    /// connect anew, the first attempt takes a sixth of the ttl at most, and each one after it twice
    /// that, up to this.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.opening.timeout = timeout;
        self
    }

    /// Counts leases by `clock`.
    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.opening.clock = clock;
        self
    }

    /// Draws the pauses between attempts to connect from `seed`.
    #[cfg(all(test, feature = "server"))]
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.opening.seed = Some(seed);
        self
    }

    /// Opens a session with the coordinator at `servers`. That is a `host:port`, or a host for the
    /// port 5625, or [several](Servers) that are tried in this order.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`], and [`Error::InvalidRequest`] if a setting is not possible.
    ///
    /// # Cancel safety
    ///
    /// As [`Client::connect`].
    pub async fn connect(self, servers: impl Into<Servers>) -> Result<Client, Error> {
        let mut servers = servers.into().checked()?;
        if let Some(credential) = &self.credential {
            servers = servers.credential(credential.clone());
        }
        let opened = self.opening.open(&servers, self.introduction()?, Purpose::Session).await?;
        Ok(Client::new(opened))
    }

    /// Opens a session over `io`, whatever that is. There is no other connection when it is lost: the
    /// session ends with it.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::connect`].
    pub async fn connect_with<Io>(self, io: Io) -> Result<Client, Error>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server: Arc<str> = "the other end of the stream".into();
        let start = (self.introduction()?, Purpose::Session);
        let once = Once::new(self.credential);
        let opened = self.opening.start(start, io, once, &server, on_runtime);
        Ok(Client::new(within(self.opening.timeout, &server, opened).await?))
    }

    /// Opens a session over what `connector` makes.
    #[cfg(test)]
    pub(in crate::client) async fn connect_by<C: Connector>(
        self,
        connector: C,
    ) -> Result<Client, Error> {
        let server = SERVER_OF_TESTS.into();
        let start = (self.introduction()?, Purpose::Session);
        let opened = self.opening.open_over(start, connector, &server, on_runtime);
        Ok(Client::new(opened.await?))
    }

    /// Opens a session over what `connector` makes; the driver lives and dies with the `LocalSet` where
    /// this is called.
    #[cfg(all(test, feature = "server"))]
    pub(crate) async fn connect_locally<C: Connector>(self, connector: C) -> Result<Client, Error> {
        let here = |driver: Driver<C>| drop(tokio::task::spawn_local(driver.run()));
        let server = SERVER_OF_TESTS.into();
        let start = (self.introduction()?, Purpose::Session);
        let opened = self.opening.open_over(start, connector, &server, here);
        Ok(Client::new(within(self.opening.timeout, &server, opened).await?))
    }

    /// The settings as the Hello has them.
    fn introduction(&self) -> Result<Introduction, Error> {
        let ttl = self.ttl.map(Ttl::new).transpose();
        let ttl = ttl.map_err(|error| Error::InvalidRequest { message: error.to_string() })?;
        let identity = match &self.identity {
            Some(identity) => Identity::new(identity.as_str())
                .map_err(|error| Error::invalid("invalid identity", error))?
                .to_string(),
            None => default_identity(),
        };
        let linger_ms = self.linger.map(|l| millis_up(l).try_into().unwrap_or(u32::MAX));
        Ok(Introduction { ttl, linger_ms, identity })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("ttl", &self.ttl)
            .field("linger", &self.linger)
            .field("identity", &self.identity)
            .field("credential", &self.credential)
            .field("connect_timeout", &self.opening.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IDENTITY_LEN_MAX;

    #[tokio::test]
    async fn impossible_settings_are_told_before_anything_is_sent() {
        let short = Client::builder().ttl(Duration::from_secs(1)).connect("127.0.0.1:1").await;
        assert!(matches!(short, Err(Error::InvalidRequest { .. })));
        let long = "i".repeat(IDENTITY_LEN_MAX + 1);
        let long = Client::builder().identity(long).connect("127.0.0.1:1").await;
        assert!(matches!(long, Err(Error::InvalidRequest { .. })));
    }
}
