//! The client for programs without an async runtime: the same names, and calls that wait.
//!
//! A thread of its own keeps the lease alive, however long the program works or sleeps. Who waits does that
//! itself meanwhile, so an answer wakes nobody but the one it is for. Whoever waits thus keeps the session going for
//! all: a thread that a debugger stops there, alone, stops the keep-alive too, and the lease ends.
//!
//! It is not for async code. There every call is refused with [`Error::InvalidRequest`], because it would block other
//! tasks.
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

mod background;
mod guard;
mod look;
mod request;

use std::sync::Arc;
use std::time::Duration;

use crate::types::{Epoch, SessionId, Ttl};
use crate::wire::LockStatus;

use super::{Error, Servers};
use background::Background;

pub use guard::{ConvertError, LockGuard, Upgrade};
pub use look::{Events, Leaders, Observer, Watch};
pub use request::{LockAllRequest, LockRequest, Owner, Semaphore};

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
