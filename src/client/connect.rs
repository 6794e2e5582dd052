//! How a connection to a coordinator comes to be: the first attempts, the driver, the welcome.

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::sleep;

use crate::clock::{BootClock, Clock};
use crate::types::IDENTITY_LEN_MAX;

use super::core::{Core, Introduction, Purpose, Reconnect, Welcome};
#[cfg(test)]
use super::driver::Whither;
use super::driver::{Connector, CredentialInClear, Driver, Ways};
use super::error::Error;
use super::lease::LeaseCell;
use super::process::{Own, Process};
use super::search::{Next, Search, another_seed};
use super::servers::Servers;
use super::shared::{COMMANDS_MAX, SESSION_EVENTS_MAX, Shared};
use super::within::within;

/// How long [`Client::connect`](super::Client::connect) tries, unless told otherwise.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// What was opened: the way to its driver, and how it was welcomed.
pub(super) type Opened = (Arc<Shared>, Welcome);

/// How to connect.
#[derive(Clone)]
pub(super) struct Opening {
    /// How long to try.
    pub(super) timeout: Duration,
    /// The clock by which leases are counted.
    pub(super) clock: Arc<dyn Clock>,
    /// Seed of the pauses between attempts to connect; none: another for each client.
    pub(super) seed: Option<u64>,
}

impl Default for Opening {
    fn default() -> Self {
        Self { timeout: CONNECT_TIMEOUT_DEFAULT, clock: Arc::new(BootClock), seed: None }
    }
}

impl Opening {
    /// One that may take as long as `timeout`.
    pub(super) fn with_timeout(timeout: Duration) -> Self {
        Self { timeout, ..Self::default() }
    }

    /// Opens a connection with whichever of the servers answers first; of a cluster, with its leader.
    pub(super) async fn open(
        &self,
        servers: &Servers,
        introduction: Introduction,
        purpose: Purpose,
    ) -> Result<Opened, Error> {
        let mut search = Search::new(servers, self.timeout);
        let opened = within(self.timeout, servers.name(), async {
            loop {
                let start = (introduction.clone(), purpose);
                let share = search.share();
                let attempt = self.open_once(start, servers, &mut search);
                let error = match within(share, servers.name(), attempt).await {
                    Err(error) if search.goes_on_after(&error) => error,
                    outcome => return outcome,
                };
                match search.after(error) {
                    Next::Try => {}
                    Next::TryAfter(pause) => sleep(pause).await,
                    Next::GiveUp(error) => return Err(error),
                }
            }
        });
        match opened.await {
            Err(error) if error.is_timeout() => Err(search.timed_out(error)),
            outcome => outcome,
        }
    }

    async fn open_once(
        &self,
        start: (Introduction, Purpose),
        servers: &Servers,
        search: &mut Search,
    ) -> Result<Opened, Error> {
        let server = servers.name();
        let stream = search.connect().await.map_err(|error| not_connected(server, error))?;
        let started = self.start(start, stream, search.dial.clone(), server, on_runtime).await;
        // Of several servers it is told which one does not follow the protocol.
        let peer = search.dial.peer().map_or_else(|| Arc::clone(server), Arc::from);
        started.map_err(|error| match error {
            // One from before there were credentials does not know the message.
            Error::Protocol { message, .. } if servers.shown_credential().is_some() => {
                let message = if message.contains("TLS") {
                    message
                } else {
                    format!("{message} (perhaps it is too old for credentials)")
                };
                Error::Protocol { server: peer, message }
            }
            Error::Protocol { message, .. } => Error::Protocol { server: peer, message },
            error => error,
        })
    }

    /// Opens a connection over what `connector` makes.
    #[cfg(test)]
    pub(super) async fn open_over<C: Connector>(
        &self,
        start: (Introduction, Purpose),
        mut connector: C,
        server: &Arc<str>,
        spawn: impl FnOnce(Driver<C>),
    ) -> Result<Opened, Error> {
        let io =
            connector.connect(Whither::Back).await.map_err(|e| Error::unavailable(server, e))?;
        self.start(start, io, connector, server, spawn).await
    }

    /// Has the driver spawned and waits for the welcome. Dropped before, it ends the driver again.
    pub(super) async fn start<C: Connector>(
        &self,
        (introduction, purpose): (Introduction, Purpose),
        io: C::Io,
        connector: C,
        server: &Arc<str>,
        spawn: impl FnOnce(Driver<C>),
    ) -> Result<Opened, Error> {
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let (endings, endings_in) = mpsc::unbounded_channel();
        let (welcome, welcome_seen) = watch::channel(None);
        let (events, _) = broadcast::channel(SESSION_EVENTS_MAX);
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
            session_events: events.downgrade(),
            answer_max: self.timeout,
        });
        let (ready, is_ready) = oneshot::channel();
        let ways = Ways { commands: commands_in, endings: endings_in, ready, welcome, events };
        let servers = match purpose {
            Purpose::Session | Purpose::Look => connector.servers(),
            Purpose::End { .. } => 0,
        };
        let reconnect = (servers > 0).then(|| Reconnect {
            attempt_max: self.timeout,
            seed: self.seed.unwrap_or_else(another_seed),
            servers,
        });
        let core = Core::begin(introduction, reconnect, purpose, self.clock.now());
        spawn(Driver::new(io, connector, core, &shared, ways));
        match is_ready.await {
            Ok(welcome) => Ok((shared, welcome)),
            Err(_) => Err(shared.end()),
        }
    }
}

/// Why there is no connection: because of the server, or because it would not be safe.
fn not_connected(server: &Arc<str>, error: io::Error) -> Error {
    match error.get_ref().and_then(|why| why.downcast_ref::<CredentialInClear>()) {
        Some(why) => Error::invalid("the credential was not sent", why),
        None => Error::unavailable(server, error),
    }
}

/// Where drivers live: on the runtime, whatever thread made them.
pub(super) fn on_runtime<C: Connector>(driver: Driver<C>) {
    tokio::spawn(driver.run());
}

/// Who this is, if nothing was said about it.
pub(super) fn default_introduction() -> Introduction {
    Introduction { identity: default_identity(), ..Introduction::default() }
}

/// `user@host:pid`, cut to what an identity may be.
pub(super) fn default_identity() -> String {
    // In many containers there is no name for whom processes belong to.
    #[cfg(unix)]
    let number = || format!("uid{}", rustix::process::getuid().as_raw());
    #[cfg(not(unix))]
    let number = || "unknown".to_owned();
    let user = whoami::username().unwrap_or_else(|_| number());
    let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
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
    use bytes::BytesMut;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::client::Client;
    use crate::types::{Credential, GoodbyeCode, Identity, RejectionCode};
    use crate::wire::{ServerMessage, encode_frame};

    #[test]
    fn the_default_identity_is_one() {
        let identity = default_identity();
        assert!(identity.contains('@'));
        Identity::new(identity).unwrap();
    }

    /// A server that hears something, and says goodbye as one does that does not know the message.
    async fn old_server() -> (String, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = vec![0; 1024];
            let len = stream.read(&mut heard).await.unwrap();
            heard.truncate(len);
            let goodbye = ServerMessage::Goodbye {
                code: GoodbyeCode::ProtocolError,
                rejection: RejectionCode::NONE,
                message: "malformed message".to_owned(),
            };
            let mut frame = BytesMut::new();
            encode_frame(&goodbye, &mut frame).unwrap();
            stream.write_all(&frame).await.unwrap();
            heard
        });
        (address, served)
    }

    #[tokio::test]
    async fn a_credential_is_the_first_that_is_said_and_an_old_server_is_told_from_a_stranger() {
        let credential = Credential::from_random([7; 32]);
        let (address, served) = old_server().await;
        let servers = Servers::from(address).credential(credential.clone());
        let told = Client::connect(servers).await.unwrap_err().to_string();
        assert!(told.contains("too old for credentials"), "{told}");
        let heard = served.await.unwrap();
        assert_eq!(heard[4..8], 15_u32.to_le_bytes(), "Authenticate");
        assert!(heard.windows(78).any(|bytes| bytes == credential.reveal().as_bytes()));
        let (address, _served) = old_server().await;
        let told = Client::connect(address).await.unwrap_err().to_string();
        assert!(!told.contains("credentials"), "{told}");
    }
}
