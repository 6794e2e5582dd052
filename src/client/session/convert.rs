//! Conversions of a guard: shared to exclusive (upgrade), and back (downgrade).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Mode, RawClaim, Wait};

use super::guard::LockGuard;
use super::terms::ask_for;
use crate::client::core::Ask;
use crate::client::error::Error;

impl LockGuard {
    /// Wants to hold alone what is held together with others: await it, or say first how long to wait.
    ///
    /// It waits for the other holders only, ahead of the queue, and the lock stays shared
    /// meanwhile. On success the guard has a new token, greater than any before. On failure the
    /// guard comes back, holding the same as before. Data that were read under the shared lock are
    /// still valid afterwards.
    ///
    /// Two upgrades of one lock would wait for each other. The second hears [`Error::Deadlock`] at
    /// once, and has to release. A possible writer should therefore rather ask for the lock
    /// exclusively from the start, or release and ask anew.
    ///
    /// Of several locks, all plain ones become exclusive; permits stay what they are. A guard that is
    /// exclusive already is returned as it is.
    ///
    /// # Errors
    ///
    /// Awaiting it gives a [`ConvertError`] with the guard and an error.
    ///
    /// - [`Error::Busy`], [`Error::TimedOut`] or [`Error::Deadlock`], as for any request;
    /// - [`Error::Lost`] if the lock was lost meanwhile;
    /// - [`Error::InvalidRequest`] if it holds nothing but permits;
    /// - others if there is trouble with the coordinator.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # fn is_stale() -> bool { true }
    /// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
    /// let reader = client.lock("config").shared().await?;
    /// if is_stale() {
    ///     match reader.upgrade().await {
    ///         Ok(writer) => writer.release().await?,
    ///         Err(failed) => eprintln!("still only a reader: {}", failed.error),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn upgrade(self) -> Upgrade {
        Upgrade::new(self)
    }

    /// Lets other shared holders in to what is held alone. That is granted at once, and the token stays
    /// the same. Dropping the future releases the guard.
    ///
    /// Of several locks, all plain ones become shared; permits stay what they are. A guard that is
    /// shared already is returned as it is.
    ///
    /// # Errors
    ///
    /// A [`ConvertError`] with the guard, if it was lost, or cannot be shared, or there is trouble with
    /// the coordinator.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the guard is dropped: the lock is given back, in whatever mode
    /// it is held by then.
    pub async fn downgrade(self) -> Result<Self, ConvertError> {
        convert(self, Mode::Shared, Wait::Forever).await
    }
}

/// A guard that is to hold its locks alone, made by [`LockGuard::upgrade`]. Nothing is sent before it is
/// awaited.
///
/// # Cancel safety
///
/// Dropping this, or its future before that is done, drops the guard: the lock is given back, in whatever
/// mode it is held by then.
#[derive(Debug)]
#[must_use = "an upgrade does nothing unless awaited, and releases the guard if dropped"]
pub struct Upgrade {
    /// What is held meanwhile.
    guard: LockGuard,
    /// How long to wait for other holders.
    wait: Wait,
}

impl Upgrade {
    pub(in crate::client) fn new(guard: LockGuard) -> Self {
        Self { guard, wait: Wait::Forever }
    }

    /// Waits this long at most for the other holders; then [`Error::TimedOut`]. Zero is not to wait.
    ///
    /// Without a connection the answer is unknown. The wait then lasts until there is one, or until
    /// the lock is lost, whatever the timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.wait = Wait::at_most(timeout);
        self
    }

    /// Does not wait; if there are other holders, [`Error::Busy`].
    pub fn nonblocking(mut self) -> Self {
        self.wait = Wait::Never;
        self
    }
}

impl IntoFuture for Upgrade {
    type Output = Result<LockGuard, ConvertError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(convert(self.guard, Mode::Exclusive, self.wait))
    }
}

/// Why a guard was not converted, and the guard: it holds what it held, unless it was lost.
///
/// As an [`Error`], with `?`, it drops the guard, which releases the lock.
#[derive(Debug)]
pub struct ConvertError<Guard = LockGuard> {
    /// What is held as before.
    pub guard: Guard,
    /// Why it was not converted.
    pub error: Error,
}

impl<Guard> fmt::Display for ConvertError<Guard> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<Guard: fmt::Debug> std::error::Error for ConvertError<Guard> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<Guard> From<ConvertError<Guard>> for Error {
    fn from(error: ConvertError<Guard>) -> Self {
        error.error
    }
}

/// Has the plain locks of `guard` held in the mode `to`.
pub(in crate::client) async fn convert(
    mut guard: LockGuard,
    to: Mode,
    wait: Wait,
) -> Result<LockGuard, ConvertError> {
    let before = guard.ask();
    let (mut claims, mut plain) = (before.claims.clone(), 0);
    for RawClaim { mode, .. } in &mut claims {
        if let Mode::Exclusive | Mode::Shared = mode {
            *mode = to;
            plain += 1;
        }
    }
    if plain == 0 {
        let error = Error::invalid("cannot convert permits", "only plain locks have two modes");
        return Err(ConvertError { guard, error });
    }
    if !guard.is_held() {
        let error = guard.lost_error();
        return Err(ConvertError { guard, error });
    }
    if claims == before.claims {
        return Ok(guard);
    }
    let converts = Some(guard.request());
    let as_before = (*before).clone();
    // What is held is in nobody's place.
    let supersedes = false;
    let ask = Ask { converts, wait, progress: false, supersedes, claims, ..as_before };
    let ask = Arc::new(ask);
    let (shared, hold) = (guard.shared(), guard.hold());
    // Dropped while it waits, this gives up the conversion first, and then what is held.
    match ask_for(&shared, &ask, &hold, None).await {
        Ok(request) => {
            guard.continue_as(request, ask);
            if guard.is_held() {
                Ok(guard)
            } else {
                let error = guard.lost_error();
                Err(ConvertError { guard, error })
            }
        }
        Err(refused) => {
            let error = refused.error(&hold, guard.names(), wait);
            Err(ConvertError { guard, error })
        }
    }
}
