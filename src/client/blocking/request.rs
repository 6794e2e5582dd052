//! Requests, for blocking code.

use std::sync::Arc;
use std::time::Duration;

use super::{Background, Error, LockGuard};
use crate::client;
use crate::types::OwnerId;

/// A request for a lock; see [`crate::LockRequest`].
#[derive(Debug)]
#[must_use = "a request does nothing unless acquired"]
pub struct LockRequest {
    /// The request proper.
    inner: client::LockRequest,
    /// Its thread.
    background: Arc<Background>,
    /// Whether it calls the program while it waits.
    calls_back: bool,
}

impl LockRequest {
    /// Wants to hold the lock together with other shared holders.
    pub fn shared(self) -> Self {
        self.map(client::LockRequest::shared)
    }

    /// Wants to hold the lock alone, as without this.
    pub fn exclusive(self) -> Self {
        self.map(client::LockRequest::exclusive)
    }

    /// Wants `take` of `of` permits of a semaphore.
    pub fn permits(self, take: u32, of: u32) -> Self {
        self.map(|inner| inner.permits(take, of))
    }
}

/// A request for several locks, all of them or none; see [`crate::LockAllRequest`].
#[derive(Debug)]
#[must_use = "a request does nothing unless acquired"]
pub struct LockAllRequest {
    /// The request proper.
    inner: client::LockAllRequest,
    /// Its thread.
    background: Arc<Background>,
    /// Whether it calls the program while it waits.
    calls_back: bool,
}

impl LockAllRequest {
    /// Wants the lock `name` as well, alone.
    pub fn exclusive(self, name: impl AsRef<str>) -> Self {
        self.map(|inner| inner.exclusive(name))
    }

    /// Wants the lock `name` as well, together with other shared holders.
    pub fn shared(self, name: impl AsRef<str>) -> Self {
        self.map(|inner| inner.shared(name))
    }

    /// Wants `take` of `of` permits of the semaphore `name` as well.
    pub fn permits(self, name: impl AsRef<str>, take: u32, of: u32) -> Self {
        self.map(|inner| inner.permits(name, take, of))
    }
}

/// The settings of every request, for one lock or for several.
macro_rules! common_terms {
    ($request:ident) => {
        impl $request {
            pub(super) fn new(inner: client::$request, background: &Arc<Background>) -> Self {
                Self { inner, background: Arc::clone(background), calls_back: false }
            }

            /// Waits this long at most; zero is not to wait.
            pub fn timeout(self, timeout: Duration) -> Self {
                self.map(|inner| inner.timeout(timeout))
            }

            /// Does not wait; what cannot be had at once is [`Error::Busy`].
            pub fn nonblocking(self) -> Self {
                self.map(client::$request::nonblocking)
            }

            /// Says what it is wanted for, to whoever waits or looks.
            pub fn note(self, note: impl Into<String>) -> Self {
                self.map(|inner| inner.note(note))
            }

            /// Sets a lock delay, 60 s at most: if the lock is lost, it stays free for this time
            /// before the next client gets it.
            pub fn lock_delay(self, delay: Duration) -> Self {
                self.map(|inner| inner.lock_delay(delay))
            }

            /// Sets a minimum hold time, 7 days at most, which counts from the grant. Nobody else
            /// is granted the lock until then, even if it is released earlier or the client is
            /// gone. See [`crate::LockRequest::at_least`].
            pub fn at_least(self, length: Duration) -> Self {
                self.map(|inner| inner.at_least(length))
            }

            /// Newest first, one pending: ends older requests that wait and have said this, too, and is
            /// ended by newer ones. See [`crate::LockRequest::supersede`].
            pub fn supersede(self) -> Self {
                self.map(|inner| inner.supersede())
            }

            /// Calls `on_queued` with the request's place in line whenever it is another, on the
            /// thread that waits.
            pub fn on_queued(self, on_queued: impl FnMut(u64) + Send + 'static) -> Self {
                Self { calls_back: true, ..self.map(|inner| inner.on_queued(on_queued)) }
            }

            /// Asks, and waits for the grant.
            ///
            /// # Errors
            ///
            /// As for [`crate::LockRequest`].
            pub fn acquire(self) -> Result<LockGuard, Error> {
                let work = self.inner.into_future();
                let guard = if self.calls_back {
                    self.background.wait_aside(work)?
                } else {
                    self.background.wait(work)?
                };
                Ok(LockGuard::new(guard, &self.background))
            }

            fn map(self, change: impl FnOnce(client::$request) -> client::$request) -> Self {
                Self { inner: change(self.inner), ..self }
            }
        }
    };
}

common_terms!(LockRequest);
common_terms!(LockAllRequest);

/// One thread of control, as the coordinator sees it; see [`crate::Owner`].
#[derive(Clone, Debug)]
pub struct Owner {
    /// The owner proper.
    inner: client::Owner,
    /// Its thread.
    background: Arc<Background>,
}

impl Owner {
    pub(super) fn new(inner: client::Owner, background: &Arc<Background>) -> Self {
        Self { inner, background: Arc::clone(background) }
    }

    /// Its id, by which others see it.
    pub fn id(&self) -> OwnerId {
        OwnerId::new(self.inner.id().number())
    }

    /// A request for the lock `name`; [`LockRequest::acquire`] makes it.
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest::new(self.inner.lock(name), &self.background)
    }

    /// Takes the lock `name` alone if it is free now; `None` if it is not.
    ///
    /// # Errors
    ///
    /// As [`crate::Owner::try_lock`].
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
}

/// A semaphore; see [`crate::Semaphore`]. Who wants to say more than how many permits, asks for them
/// with [`Client::lock`](super::Client::lock) and [`LockRequest::permits`].
#[derive(Clone, Debug)]
pub struct Semaphore {
    /// The semaphore proper.
    inner: client::Semaphore,
    /// Its thread.
    background: Arc<Background>,
}

impl Semaphore {
    pub(super) fn new(inner: client::Semaphore, background: &Arc<Background>) -> Self {
        Self { inner, background: Arc::clone(background) }
    }

    /// Waits for one permit.
    ///
    /// # Errors
    ///
    /// As for [`crate::LockRequest`].
    pub fn acquire(&self) -> Result<LockGuard, Error> {
        self.acquire_many(1)
    }

    /// Waits for this number of permits, all or none.
    ///
    /// # Errors
    ///
    /// As for [`crate::LockRequest`].
    pub fn acquire_many(&self, permits: u32) -> Result<LockGuard, Error> {
        let guard = self.background.wait(self.inner.acquire_many(permits).into_future())?;
        Ok(LockGuard::new(guard, &self.background))
    }

    /// Takes one permit if there is one now and nobody waits; `None` if not.
    ///
    /// # Errors
    ///
    /// As [`crate::Semaphore::try_acquire`].
    pub fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        let guard = self.background.wait(self.inner.try_acquire())?;
        Ok(guard.map(|guard| LockGuard::new(guard, &self.background)))
    }
}
