//! Guards, for blocking code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::types::{FencingToken, LockName, LostReason, Mode, Wait};

use super::background::Unawaited;
use super::{Background, Error};
use crate::client;
use crate::client::session::convert::convert;
use client::HoldState;

/// A lock that is held; see [`crate::LockGuard`].
#[derive(Debug)]
pub struct LockGuard {
    /// The guard proper. Dropped before its thread.
    inner: client::LockGuard,
    /// The release, if this is dropped.
    unawaited: Unawaited,
    /// Its thread.
    background: Arc<Background>,
}

#[allow(clippy::result_large_err, reason = "the guard comes back in it")]
impl LockGuard {
    pub(super) fn new(inner: client::LockGuard, background: &Arc<Background>) -> Self {
        Self { inner, unawaited: Unawaited::new(background), background: Arc::clone(background) }
    }

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

    /// Waits for the loss of the lock, no longer than `at_most`. `None` if it is still held then.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] within async code.
    pub fn wait_lost(&self, at_most: Duration) -> Result<Option<LostReason>, Error> {
        if self.background.is_anothers() {
            return Ok(Some(LostReason::Forked));
        }
        let lost = self.inner.lost();
        self.background.wait(async { Ok(tokio::time::timeout(at_most, lost).await.ok()) })
    }

    /// Gives the lock back, and waits until it is free.
    ///
    /// # Errors
    ///
    /// As [`crate::LockGuard::release`].
    pub fn release(mut self) -> Result<(), Error> {
        if self.background.is_anothers() {
            return Err(self.inner.lost_error());
        }
        self.unawaited.is_awaited();
        self.background.wait(self.inner.release())
    }

    /// Gives the lock back as if it had never been granted: see [`crate::LockGuard::cancel`].
    pub fn cancel(self) {
        if !self.background.is_anothers() {
            self.inner.cancel();
        }
    }

    /// Wants to hold alone what is held together with others; [`Upgrade::acquire`] asks. See
    /// [`crate::LockGuard::upgrade`].
    pub fn upgrade(self) -> Upgrade {
        Upgrade { guard: self, wait: Wait::Forever }
    }

    /// Lets other shared holders in to what is held alone.
    ///
    /// # Errors
    ///
    /// As [`crate::LockGuard::downgrade`].
    pub fn downgrade(self) -> Result<Self, ConvertError> {
        self.convert(client::LockGuard::downgrade)
    }

    /// Waits for a conversion. Where that is not possible, nothing is asked.
    fn convert<Conversion>(
        mut self,
        start: impl FnOnce(client::LockGuard) -> Conversion,
    ) -> Result<Self, ConvertError>
    where
        Conversion: IntoFuture<Output = Result<client::LockGuard, client::ConvertError>>,
    {
        let background = Arc::clone(&self.background);
        let turns = match background.turns() {
            Ok(turns) => turns,
            Err(Error::Forked) => {
                let error = self.inner.lost_error();
                return Err(ConvertError { guard: self, error });
            }
            Err(error) => return Err(ConvertError { guard: self, error }),
        };
        self.unawaited.is_awaited();
        match turns.wait(start(self.inner).into_future()) {
            Ok(guard) => Ok(Self::new(guard, &background)),
            Err(client::ConvertError { guard, error }) => {
                Err(ConvertError { guard: Self::new(guard, &background), error })
            }
        }
    }
}

/// A guard that is to hold its locks alone; see [`crate::Upgrade`].
#[derive(Debug)]
#[must_use = "an upgrade does nothing unless acquired, and releases the guard if dropped"]
pub struct Upgrade {
    /// What is held meanwhile.
    guard: LockGuard,
    /// How long to wait for other holders.
    wait: Wait,
}

#[allow(clippy::result_large_err, reason = "the guard comes back in it")]
impl Upgrade {
    /// Waits this long at most for the other holders; zero is not to wait.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.wait = Wait::at_most(timeout);
        self
    }

    /// Does not wait; if there are other holders, [`Error::Busy`].
    pub fn nonblocking(mut self) -> Self {
        self.wait = Wait::Never;
        self
    }

    /// Asks, and waits for the grant.
    ///
    /// # Errors
    ///
    /// As for [`crate::LockGuard::upgrade`].
    pub fn acquire(self) -> Result<LockGuard, ConvertError> {
        let wait = self.wait;
        self.guard.convert(|guard| convert(guard, Mode::Exclusive, wait))
    }
}

/// Why a guard was not converted, and the guard; see [`crate::ConvertError`].
pub type ConvertError = client::ConvertError<LockGuard>;
