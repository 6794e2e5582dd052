//! Opening a session: the settings, the first connection, the welcome.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time;

use crate::clock::{BootClock, Clock};
use crate::types::{IDENTITY_LEN_MAX, Identity, Ttl};

use super::core::{Core, Introduction, Reconnect};
use super::driver::{Connector, Dial, Driver, Once, Ways};
use super::error::Error;
use super::handle::Client;
use super::lease::LeaseCell;
use super::process::{Own, Process};
use super::servers::Servers;
use super::shared::{COMMANDS_MAX, Shared};
use super::terms::millis_up;

/// The port on which coordinators listen for lock clients: L-O-C-K on a keypad.
pub const PORT_DEFAULT: u16 = 5625;
/// How long [`Client::connect`] tries, unless told otherwise.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What errors call the server of a test.
#[cfg(test)]
const SERVER_OF_TESTS: &str = "the server of a test";

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
#[derive(Clone)]
#[must_use = "settings do nothing until connect is called"]
pub struct ClientBuilder {
    /// The lease to ask for; none: the coordinator's default.
    ttl: Option<Duration>,
    /// How long the session outlives a lost connection; none: its lease.
    linger: Option<Duration>,
    /// Who the session is; none: user@host:pid.
    identity: Option<String>,
    /// How long to try.
    connect_timeout: Duration,
    /// The clock by which leases are counted.
    clock: Arc<dyn Clock>,
    /// What the pauses between attempts to connect are drawn from; none: another for each client.
    seed: Option<u64>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            ttl: None,
            linger: None,
            identity: None,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            clock: Arc::new(BootClock),
            seed: None,
        }
    }
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

    /// How long connecting may take, the coordinator's welcome included; 5 s by default. Later, to
    /// connect anew, the first attempt takes a sixth of the ttl at most, and each one after it twice
    /// that, up to this.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Counts leases by `clock`.
    #[cfg(test)]
    pub(crate) fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Draws the pauses between attempts to connect from `seed`.
    #[cfg(all(test, feature = "server"))]
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Opens a session with the coordinator at `servers`. That is a `host:port`, or a host for the
    /// port 5625, or [several](Servers) that are tried in this order.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`], and [`Error::InvalidRequest`] if a setting is not possible.
    pub async fn connect(self, servers: impl Into<Servers>) -> Result<Client, Error> {
        let servers = servers.into().checked()?;
        let introduction = self.introduction()?;
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        within(self.connect_timeout, servers.name(), async {
            let mut dial = Dial::new(servers.clone());
            for _ in 1..count {
                let attempt = self.connect_once(&mut dial, &introduction, &servers);
                match within(self.connect_timeout / count, servers.name(), attempt).await {
                    Err(error) if error.is_retryable() => {}
                    outcome => return outcome,
                }
            }
            // The last one has all the time that is left.
            self.connect_once(&mut dial, &introduction, &servers).await
        })
        .await
    }

    /// Opens a session with whichever of the servers answers first.
    async fn connect_once(
        &self,
        dial: &mut Dial,
        introduction: &Introduction,
        servers: &Servers,
    ) -> Result<Client, Error> {
        let server = servers.name();
        let stream = dial.connect().await.map_err(|error| Error::unavailable(server, error))?;
        let (introduction, connector) = (introduction.clone(), dial.clone());
        self.start(introduction, stream, connector, server, Some(servers), on_runtime).await
    }

    /// Opens a session over `io`, whatever that is. There is no other connection when it is lost: the
    /// session ends with it.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    pub async fn connect_with<Io>(self, io: Io) -> Result<Client, Error>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server: Arc<str> = "the other end of the stream".into();
        let introduction = self.introduction()?;
        let start = self.start(introduction, io, Once::new(), &server, None, on_runtime);
        within(self.connect_timeout, &server, start).await
    }

    /// Opens a session over what `connector` makes.
    #[cfg(test)]
    pub(super) async fn connect_by<C: Connector>(self, connector: C) -> Result<Client, Error> {
        self.connect_on(on_runtime, connector).await
    }

    /// Opens a session over what `connector` makes; the driver lives and dies with the `LocalSet` where
    /// this is called.
    #[cfg(all(test, feature = "server"))]
    pub(crate) async fn connect_locally<C: Connector>(self, connector: C) -> Result<Client, Error> {
        let here = |driver: Driver<C>| drop(tokio::task::spawn_local(driver.run()));
        within(self.connect_timeout, &SERVER_OF_TESTS.into(), self.connect_on(here, connector))
            .await
    }

    #[cfg(test)]
    async fn connect_on<C: Connector>(
        self,
        spawn: impl FnOnce(Driver<C>),
        mut connector: C,
    ) -> Result<Client, Error> {
        let server = SERVER_OF_TESTS.into();
        let io = connector.connect().await.map_err(|e| Error::unavailable(&server, e))?;
        let introduction = self.introduction()?;
        self.start(introduction, io, connector, &server, None, spawn).await
    }

    /// Has the driver spawned and waits for the welcome. Dropped before, it ends the driver again.
    async fn start<C: Connector>(
        &self,
        introduction: Introduction,
        io: C::Io,
        connector: C,
        server: &Arc<str>,
        servers: Option<&Servers>,
        spawn: impl FnOnce(Driver<C>),
    ) -> Result<Client, Error> {
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let (endings, endings_in) = mpsc::unbounded_channel();
        let (welcome, welcome_seen) = watch::channel(None);
        let shared = Arc::new(Shared {
            commands: Own::new(commands),
            endings: Own::new(endings),
            lease: Arc::new(LeaseCell::default()),
            clock: Arc::clone(&self.clock),
            server: Arc::clone(server),
            welcome: Own::new(welcome_seen),
            end: Arc::new(OnceLock::new()),
            owners: AtomicU64::new(0),
            process: Process::this(),
            onlookers: servers.map(|servers| (servers.clone(), self.connect_timeout)),
        });
        let (ready, is_ready) = oneshot::channel();
        let ways = Ways { commands: commands_in, endings: endings_in, ready, welcome };
        let reconnect = connector.can_connect().then(|| Reconnect {
            attempt_max: self.connect_timeout,
            // Seeded by the operating system, once per thread, and another each time.
            seed: self.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish()),
        });
        let core = Core::new(introduction, reconnect, self.clock.now());
        spawn(Driver::new(io, connector, core, &shared, ways));
        match is_ready.await {
            Ok(welcome) => Ok(Client::new(shared, welcome)),
            Err(_) => Err(shared.end()),
        }
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
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

/// Where drivers live: on the runtime, whatever thread made them.
fn on_runtime<C: Connector>(driver: Driver<C>) {
    tokio::spawn(driver.run());
}

/// `work`, unless it takes longer than `timeout`.
pub(super) async fn within<T>(
    timeout: Duration,
    server: &Arc<str>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    time::timeout(timeout, work).await.unwrap_or_else(|_| {
        let why = format!("no answer within {timeout:?}");
        Err(Error::unavailable(server, io::Error::new(io::ErrorKind::TimedOut, why)))
    })
}

/// `user@host:pid`, cut to what an identity may be.
pub(super) fn default_identity() -> String {
    // In many containers there is no name for whom processes belong to.
    #[cfg(unix)]
    let number = || format!("uid{}", rustix::process::getuid().as_raw());
    #[cfg(not(unix))]
    let number = || "unknown".to_owned();
    let user = whoami::username().unwrap_or_else(|_| number());
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let pid = format!(":{}", std::process::id());
    let mut identity: String =
        format!("{user}@{host}").chars().filter(|c| !c.is_control()).collect();
    let mut len = identity.len().min(IDENTITY_LEN_MAX - pid.len());
    while !identity.is_char_boundary(len) {
        len -= 1;
    }
    identity.truncate(len);
    identity + &pid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_identity_is_one() {
        let identity = default_identity();
        assert!(identity.contains('@'));
        Identity::new(identity).unwrap();
    }

    #[tokio::test]
    async fn impossible_settings_are_told_before_anything_is_sent() {
        let short = Client::builder().ttl(Duration::from_secs(1)).connect("127.0.0.1:1").await;
        assert!(matches!(short, Err(Error::InvalidRequest { .. })));
        let long = "i".repeat(IDENTITY_LEN_MAX + 1);
        let long = Client::builder().identity(long).connect("127.0.0.1:1").await;
        assert!(matches!(long, Err(Error::InvalidRequest { .. })));
    }
}
