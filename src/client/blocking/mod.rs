//! The client for programs without an async runtime: the same names, and calls that wait.
//!
//! A thread of its own keeps the lease alive, however long the program works or sleeps. It is not
//! for async code. There every call is refused with [`Error::InvalidRequest`], because it would
//! block other tasks.
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

mod guard;
mod look;
mod request;

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::types::{Epoch, SessionId, Ttl};
use crate::wire::LockStatus;

use super::process::Process;
use super::{Error, Servers};

pub use guard::{ConvertError, LockGuard, Upgrade};
pub use look::{Events, Leaders, Observer, Watch};
pub use request::{LockAllRequest, LockRequest, Owner, Semaphore};

/// How long the end of the last handle waits for its goodbye to be sent.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);

/// The thread that does what must go on while the program does something else.
#[derive(Debug)]
struct Background {
    /// Taken only when dropped.
    runtime: Option<Runtime>,
    /// Its process: one that forked from it has no such thread.
    process: Process,
}

impl Background {
    fn start() -> Result<Arc<Self>, Error> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("coordinator-client")
            .enable_all()
            .build()
            .map_err(|error| Error::invalid("cannot start the client's thread", error))?;
        Ok(Arc::new(Self { runtime: Some(runtime), process: Process::this() }))
    }

    /// Waits for `work`.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime()?.block_on(work)
    }

    /// The runtime, for those who may wait.
    fn runtime(&self) -> Result<&Runtime, Error> {
        if self.is_anothers() {
            return Err(Error::Forked);
        }
        if Handle::try_current().is_ok() {
            let why = "this thread runs async code; use coordinator::Client instead";
            return Err(Error::invalid("cannot block here", why));
        }
        self.runtime.as_ref().ok_or(Error::Closed)
    }
}

impl Background {
    /// Whether this process forked from the one that has the thread.
    fn is_anothers(&self) -> bool {
        self.process.is_another()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.is_anothers() {
            // There is no thread to wait for, and what it has is not ours to close.
            return mem::forget(runtime);
        }
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
    /// Opens a session with the coordinator at `servers`; see [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect(servers: impl Into<Servers>) -> Result<Self, Error> {
        Self::builder().connect(servers)
    }

    /// A client with other settings than the usual.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A request for the lock `name`; [`LockRequest::acquire`] makes it.
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest::new(self.inner.lock(name), &self.background)
    }

    /// Takes the lock `name` alone if it is free now; `None` if it is not.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::try_lock`].
    pub fn try_lock(&self, name: impl AsRef<str>) -> Result<Option<LockGuard>, Error> {
        let guard = self.background.wait(self.inner.try_lock(name))?;
        Ok(guard.map(|guard| LockGuard::new(guard, &self.background)))
    }

    /// A request for all the locks `names` together; [`LockAllRequest::acquire`] makes it.
    pub fn lock_all<Names>(&self, names: Names) -> LockAllRequest
    where
        Names: IntoIterator<Item: AsRef<str>>,
    {
        LockAllRequest::new(self.inner.lock_all(names), &self.background)
    }

    /// Somebody new within this client, a thread for example; see [`crate::Client::owner`].
    pub fn owner(&self) -> Owner {
        Owner::new(self.inner.owner(), &self.background)
    }

    /// The semaphore `name`, with this number of permits.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Semaphore {
        Semaphore::new(self.inner.semaphore(name, permits), &self.background)
    }

    /// Stands for election: a request for the lock `name`, whose holder leads; see
    /// [`crate::Client::elect`].
    pub fn elect(&self, name: impl AsRef<str>, value: impl Into<String>) -> LockRequest {
        LockRequest::new(self.inner.elect(name, value), &self.background)
    }

    /// The leaders of the election `name`, from now on.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::observe`].
    pub fn observe(&self, name: impl AsRef<str>) -> Result<Leaders, Error> {
        Ok(Leaders::new(self.background.wait(self.inner.observe(name))?, &self.background))
    }

    /// Watches the lock `name` from now on.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::watch`].
    pub fn watch(&self, name: impl AsRef<str>) -> Result<Watch, Error> {
        Ok(Watch::new(self.background.wait(self.inner.watch(name))?, &self.background))
    }

    /// The lock `name` as it is now; `None` if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// As [`crate::Client::status`].
    pub fn status(&self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        self.background.wait(self.inner.status(name))
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

    /// The identity of this client, shown to waiters and observers.
    pub fn identity(self, identity: impl Into<String>) -> Self {
        Self { inner: self.inner.identity(identity) }
    }

    /// How long connecting may take; 5 s by default.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { inner: self.inner.connect_timeout(timeout) }
    }

    /// Opens a session with the coordinator at `servers`.
    ///
    /// # Errors
    ///
    /// As [`crate::ClientBuilder::connect`].
    pub fn connect(self, servers: impl Into<Servers>) -> Result<Client, Error> {
        let background = Background::start()?;
        let inner = background.wait(self.inner.connect(servers))?;
        Ok(Client { inner, background })
    }
}
