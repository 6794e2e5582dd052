//! The client for programs without an async runtime: the same names, and calls that wait.
//!
//! A thread of its own keeps the lease alive, however long the program works or sleeps. Not for use
//! within async code: there every call is refused with [`Error::InvalidRequest`], because it would
//! keep other tasks from running.
//!
//! # Examples
//!
//! ```no_run
//! use coordinator::blocking::Client;
//!
//! # fn main() -> Result<(), coordinator::Error> {
//! let client = Client::connect("127.0.0.1:5625")?;
//! let guard = client.lock("orders/42").acquire()?;
//! println!("held, token {}", guard.token());
//! guard.release()?;
//! # Ok(()) }
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::types::{Epoch, FencingToken, LockName, LostReason, SessionId, Ttl};
use crate::wire::{LockStatus, ServerStatus, SessionStatus};

use super::connect::CONNECT_TIMEOUT_DEFAULT;
use super::{Error, HoldState};

/// How long the end of the last handle waits for its goodbye to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The thread that does what must go on while the program does something else.
#[derive(Debug)]
struct Background {
    /// Taken only when dropped.
    runtime: Option<Runtime>,
}

impl Background {
    fn start() -> Result<Arc<Self>, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("coordinator-client")
            .enable_all()
            .build()
            .map_err(|error| Error::invalid("cannot start the client's thread", error))?;
        Ok(Arc::new(Self { runtime: Some(runtime) }))
    }

    /// Waits for `work`.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if Handle::try_current().is_ok() {
            let why = "this thread runs async code, use coordinator::Client there";
            return Err(Error::invalid("cannot block here", why));
        }
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => Err(Error::Closed),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if Handle::try_current().is_ok() {
            // Waiting is not allowed here; what is left to say is said as the thread ends.
            runtime.shutdown_background();
        } else {
            // The thread says goodbye before it ends, so that a program's last lock is not left to
            // its lease.
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

/// A session with a coordinator; see [`crate::Client`].
#[derive(Clone, Debug)]
pub struct Client {
    /// The client proper. Dropped before its thread.
    inner: super::Client,
    /// Its thread.
    background: Arc<Background>,
}

impl Client {
    /// Opens a session with the coordinator at `server`; see [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect(server: impl AsRef<str>) -> Result<Self, Error> {
        Self::builder().connect(server)
    }

    /// A client with other settings than the usual.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A request for the lock `name`; [`LockRequest::acquire`] makes it.
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest { inner: self.inner.lock(name), background: Arc::clone(&self.background) }
    }

    /// Takes the lock `name` alone if it is free now; `None` if it is not.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::try_lock`].
    pub fn try_lock(&self, name: impl AsRef<str>) -> Result<Option<LockGuard>, Error> {
        let guard = self.background.wait(self.inner.try_lock(name))?;
        Ok(guard.map(|inner| LockGuard { inner, background: Arc::clone(&self.background) }))
    }

    /// The session, as others see it.
    pub fn session(&self) -> SessionId {
        self.inner.session()
    }

    /// The run of the coordinator.
    pub fn epoch(&self) -> Epoch {
        self.inner.epoch()
    }

    /// The length of the session's lease.
    pub fn ttl(&self) -> Ttl {
        self.inner.ttl()
    }

    /// Ends the session and frees everything it holds; see [`crate::Client::close`].
    ///
    /// # Errors
    ///
    /// If the coordinator could not be told.
    pub fn close(self) -> Result<(), Error> {
        self.background.wait(self.inner.close())
    }
}

/// Settings of a [`Client`]; see [`crate::ClientBuilder`].
#[derive(Clone, Debug, Default)]
#[must_use = "settings do nothing until connect is called"]
pub struct ClientBuilder {
    /// The settings.
    inner: super::ClientBuilder,
}

impl ClientBuilder {
    /// The length of the lease, 2 s to 1 h.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { inner: self.inner.ttl(ttl) }
    }

    /// How long the session outlives a connection that was lost; see
    /// [`crate::ClientBuilder::linger`] for what a short one gives up.
    pub fn linger(self, linger: Duration) -> Self {
        Self { inner: self.inner.linger(linger) }
    }

    /// Who this is, shown to whoever waits or looks.
    pub fn identity(self, identity: impl Into<String>) -> Self {
        Self { inner: self.inner.identity(identity) }
    }

    /// How long connecting may take; 5 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { inner: self.inner.connect_timeout(timeout) }
    }

    /// Opens a session with the coordinator at `server`.
    ///
    /// # Errors
    ///
    /// As [`crate::ClientBuilder::connect`].
    pub fn connect(self, server: impl AsRef<str>) -> Result<Client, Error> {
        let background = Background::start()?;
        let inner = background.wait(self.inner.connect(server))?;
        Ok(Client { inner, background })
    }
}

/// A request for a lock; see [`crate::LockRequest`].
#[derive(Debug)]
#[must_use = "a request does nothing unless acquired"]
pub struct LockRequest {
    /// The request proper.
    inner: super::LockRequest,
    /// Its thread.
    background: Arc<Background>,
}

impl LockRequest {
    /// Wants to hold the lock together with other shared holders.
    pub fn shared(self) -> Self {
        self.map(super::LockRequest::shared)
    }

    /// Wants to hold the lock alone, as without this.
    pub fn exclusive(self) -> Self {
        self.map(super::LockRequest::exclusive)
    }

    /// Wants `take` of `of` permits of a semaphore.
    pub fn permits(self, take: u32, of: u32) -> Self {
        self.map(|inner| inner.permits(take, of))
    }

    /// Waits this long at most; zero is not to wait.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|inner| inner.timeout(timeout))
    }

    /// Does not wait; if the lock cannot be had at once, [`Error::Busy`].
    pub fn nonblocking(self) -> Self {
        self.map(super::LockRequest::nonblocking)
    }

    /// Says what the lock is wanted for, to whoever waits or looks.
    pub fn note(self, note: impl Into<String>) -> Self {
        self.map(|inner| inner.note(note))
    }

    /// If the lock is lost, leaves it free for so long before the next gets it, 60 s at most.
    pub fn lock_delay(self, delay: Duration) -> Self {
        self.map(|inner| inner.lock_delay(delay))
    }

    /// Calls `on_queued` with the request's place in line whenever it is another, on the thread that
    /// waits.
    pub fn on_queued(self, on_queued: impl FnMut(u64) + Send + 'static) -> Self {
        self.map(|inner| inner.on_queued(on_queued))
    }

    /// Asks for the lock and waits for it.
    ///
    /// # Errors
    ///
    /// As for [`crate::LockRequest`].
    pub fn acquire(self) -> Result<LockGuard, Error> {
        let inner = self.background.wait(self.inner.into_future())?;
        Ok(LockGuard { inner, background: self.background })
    }

    fn map(self, change: impl FnOnce(super::LockRequest) -> super::LockRequest) -> Self {
        Self { inner: change(self.inner), background: self.background }
    }
}

/// A lock that is held; see [`crate::LockGuard`].
#[derive(Debug)]
pub struct LockGuard {
    /// The guard proper. Dropped before its thread.
    inner: super::LockGuard,
    /// Its thread.
    background: Arc<Background>,
}

impl LockGuard {
    /// The fencing token, greater than that of every grant before.
    pub fn token(&self) -> FencingToken {
        self.inner.token()
    }

    /// The name of the lock; of the first one, if there are several.
    pub fn name(&self) -> &str {
        self.inner.name()
    }

    /// The names of all locks held by this.
    pub fn names(&self) -> &[LockName] {
        self.inner.names()
    }

    /// Whether the lock is held now, by the client's own clock.
    pub fn is_held(&self) -> bool {
        self.inner.is_held()
    }

    /// How sure the holder may be, now.
    pub fn state(&self) -> HoldState {
        self.inner.state()
    }

    /// Until when the lock is held if nothing more is heard of the coordinator.
    pub fn valid_until(&self) -> Instant {
        self.inner.valid_until()
    }

    /// Waits for the loss of the lock, for `at_most` so long; `None` if it is still held then.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] within async code.
    pub fn wait_lost(&self, at_most: Duration) -> Result<Option<LostReason>, Error> {
        let lost = self.inner.lost();
        self.background.wait(async { Ok(tokio::time::timeout(at_most, lost).await.ok()) })
    }

    /// Gives the lock back, and waits until it is free.
    ///
    /// # Errors
    ///
    /// As [`crate::LockGuard::release`].
    pub fn release(self) -> Result<(), Error> {
        self.background.wait(self.inner.release())
    }
}

/// A connection that only looks, or takes a lock away; see [`crate::Observer`].
#[derive(Debug)]
pub struct Observer {
    /// The observer proper. Dropped before its thread.
    inner: super::Observer,
    /// Its thread.
    background: Arc<Background>,
}

impl Observer {
    /// Connects to the coordinator at `server`. This and every answer may take 5 s.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::connect`].
    pub fn connect(server: impl AsRef<str>) -> Result<Self, Error> {
        Self::connect_timeout(server, CONNECT_TIMEOUT_DEFAULT)
    }

    /// Connects to the coordinator at `server`. This and every answer may take as long as
    /// `timeout`.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::connect`].
    pub fn connect_timeout(server: impl AsRef<str>, timeout: Duration) -> Result<Self, Error> {
        let background = Background::start()?;
        let inner = background.wait(super::Observer::connect_timeout(server, timeout))?;
        Ok(Self { inner, background })
    }

    /// The coordinator as a whole.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn server_status(&mut self) -> Result<ServerStatus, Error> {
        self.background.wait(self.inner.server_status())
    }

    /// All locks in use, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn locks(&mut self) -> Result<Vec<LockStatus>, Error> {
        self.background.wait(self.inner.locks())
    }

    /// The lock `name`; `None` if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::lock`].
    pub fn lock(&mut self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        self.background.wait(self.inner.lock(name))
    }

    /// All sessions, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn sessions(&mut self) -> Result<Vec<SessionStatus>, Error> {
        self.background.wait(self.inner.sessions())
    }

    /// Takes the lock `name` away from whoever holds it with `token`.
    ///
    /// # Errors
    ///
    /// As [`crate::Observer::revoke`].
    pub fn revoke(&mut self, name: impl AsRef<str>, token: FencingToken) -> Result<(), Error> {
        self.background.wait(self.inner.revoke(name, token))
    }

    /// How long the coordinator takes to answer.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub fn ping(&mut self) -> Result<Duration, Error> {
        self.background.wait(self.inner.ping())
    }
}
