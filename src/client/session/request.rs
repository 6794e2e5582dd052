//! Requests: builders for one lock, or for several together.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Mode, OwnerId, Wait};

use super::guard::LockGuard;
use super::terms::Terms;
use crate::client::error::Error;
use crate::client::shared::Shared;

/// A request for a lock, made by [`Client::lock`](crate::Client::lock). Nothing is sent before it
/// is awaited; dropping the future takes the request back.
///
/// It waits for ever unless told otherwise, also through lost connections and restarts of the
/// coordinator, and asks for the lock alone.
///
/// # Errors
///
/// Awaiting it gives
///
/// - [`Error::Busy`] if it would not wait;
/// - [`Error::TimedOut`] if it waited long enough;
/// - [`Error::Deadlock`] if it would have waited for ever;
/// - [`Error::InvalidRequest`] if its settings are impossible;
/// - others if there is trouble with the coordinator.
///
/// # Cancel safety
///
/// If the future is dropped before it is done, the request is cancelled: it leaves its place in line, and
/// what was granted meanwhile is given back. To wait for something else in between, keep the future (by
/// `&mut`, in `select!`) instead of making another.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// use std::time::Duration;
///
/// let guard = client
///     .lock("orders/42")
///     .timeout(Duration::from_secs(5))
///     .note("nightly export")
///     .on_queued(|position| println!("{position} in line"))
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing unless awaited"]
pub struct LockRequest {
    /// Terms so far.
    terms: Terms,
}

impl LockRequest {
    pub(in crate::client) fn new(shared: Arc<Shared>, owner: OwnerId, name: &str) -> Self {
        let mut terms = Terms::new(shared, owner);
        terms.claim(name, Mode::Exclusive);
        Self { terms }
    }

    /// Wants to hold the lock together with other shared holders.
    pub fn shared(mut self) -> Self {
        self.terms.mode(Mode::Shared);
        self
    }

    /// Wants to hold the lock alone, as without this.
    pub fn exclusive(mut self) -> Self {
        self.terms.mode(Mode::Exclusive);
        self
    }

    /// Wants `take` of `of` permits of a semaphore. Waits until nobody holds the lock otherwise, with
    /// another `of` or without permits.
    pub fn permits(mut self, take: u32, of: u32) -> Self {
        let name = self.terms.last_name();
        if let Some(mode) = self.terms.permits(&name, take, of) {
            self.terms.mode(mode);
        }
        self
    }

    /// Shows `value` as the note.
    pub(in crate::client) fn value(mut self, value: String) -> Self {
        self.terms.note(value, "value");
        self
    }
}

/// A request for several locks, made by [`Client::lock_all`](crate::Client::lock_all): all of them or
/// none. Nothing is sent before it is awaited; dropping the future takes the request back.
///
/// It is one request with one place in line. It waits until it can have all its locks, holds none
/// of them meanwhile, and is overtaken in none of their queues. The result is one guard with one
/// token. So several locks that are always asked for together cannot deadlock, in whatever order
/// they are named.
///
/// It may name 1 to 64 different locks, each exclusive, shared or some permits. It waits for ever
/// unless told otherwise, also through lost connections and restarts of the coordinator.
///
/// # Errors
///
/// As for [`LockRequest`].
///
/// # Cancel safety
///
/// If the future is dropped before it is done, the request is cancelled: it leaves its place in line, and
/// what was granted meanwhile is given back. To wait for something else in between, keep the future (by
/// `&mut`, in `select!`) instead of making another.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// let guard = client
///     .lock_all(["accounts/7", "accounts/9"])
///     .shared("rates")
///     .permits("uplink", 1, 4)
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing unless awaited"]
pub struct LockAllRequest {
    /// Terms so far.
    terms: Terms,
}

impl LockAllRequest {
    pub(in crate::client) fn new<Names>(shared: Arc<Shared>, owner: OwnerId, names: Names) -> Self
    where
        Names: IntoIterator<Item: AsRef<str>>,
    {
        let mut terms = Terms::new(shared, owner);
        for name in names {
            terms.claim(name.as_ref(), Mode::Exclusive);
        }
        Self { terms }
    }

    /// Wants the lock `name` as well, alone.
    pub fn exclusive(mut self, name: impl AsRef<str>) -> Self {
        self.terms.claim(name.as_ref(), Mode::Exclusive);
        self
    }

    /// Wants the lock `name` as well, together with other shared holders.
    pub fn shared(mut self, name: impl AsRef<str>) -> Self {
        self.terms.claim(name.as_ref(), Mode::Shared);
        self
    }

    /// Wants `take` of `of` permits of the semaphore `name` as well. Waits until nobody holds that
    /// otherwise, with another `of` or without permits.
    pub fn permits(mut self, name: impl AsRef<str>, take: u32, of: u32) -> Self {
        let name = name.as_ref();
        if let Some(mode) = self.terms.permits(name, take, of) {
            self.terms.claim(name, mode);
        }
        self
    }
}

/// The settings of every request, for one lock or for several.
macro_rules! common_terms {
    ($request:ident) => {
        impl $request {
            /// Waits this long at most, rounded up to a millisecond; then [`Error::TimedOut`]. Zero
            /// is not to wait.
            ///
            /// The time is measured by the coordinator, so the answer is definite: after it the
            /// request is not in line any more. While there is no connection it is measured here, and
            /// ends in [`Error::Unavailable`].
            pub fn timeout(mut self, timeout: Duration) -> Self {
                self.terms.wait(Wait::at_most(timeout));
                self
            }

            /// Does not wait; what cannot be had at once is [`Error::Busy`]. After a crash of the
            /// coordinator it cannot be known for a while; then [`Error::Rejected`] with
            /// [`RejectionCode::Grace`](crate::types::RejectionCode::Grace), and if it cannot be
            /// reached [`Error::Unavailable`].
            pub fn nonblocking(mut self) -> Self {
                self.terms.wait(Wait::Never);
                self
            }

            /// Says what it is wanted for, to whoever waits or looks: up to 255 bytes without control
            /// characters.
            pub fn note(mut self, note: impl Into<String>) -> Self {
                self.terms.note(note.into(), "note");
                self
            }

            /// Sets a lock delay, 60 s at most: if the lock is lost, it stays free for this time
            /// before the next client gets it. For resources that cannot check tokens.
            pub fn lock_delay(mut self, delay: Duration) -> Self {
                self.terms.lock_delay(delay);
                self
            }

            /// Sets a minimum hold time, 7 days at most, which counts from the grant. Nobody else
            /// is granted the lock until then, even if it is released earlier or the client is
            /// gone. For jobs that are to run once in a period, on whichever machine comes first. A
            /// crash of the coordinator forgets it, unless the holder outlives that.
            ///
            /// [`LockGuard::cancel`] gives it back without that.
            ///
            /// # Errors
            ///
            /// Awaiting the request gives [`Error::Rejected`] with
            /// [`RejectionCode::TooManyKept`](crate::types::RejectionCode::TooManyKept) if as many locks
            /// are kept as may.
            pub fn at_least(mut self, length: Duration) -> Self {
                self.terms.at_least(length);
                self
            }

            /// Newest first, one pending (last writer wins). If it is granted or waits, it ends
            /// older waiters for one of its locks that also said this. While it waits, a newer one
            /// ends it. Holders are let be, and so are waiters that have not said this. For
            /// deploys: of those that wait, only the newest is worth doing.
            ///
            /// # Errors
            ///
            /// Awaiting the request gives [`Error::Rejected`] with
            /// [`RejectionCode::Superseded`](crate::types::RejectionCode::Superseded) if a newer one came.
            pub fn supersede(mut self) -> Self {
                self.terms.supersede();
                self
            }

            /// Calls `on_queued` with the request's place in line, 1 for the next, whenever it is
            /// another; for several locks, the worst of its places. Places that came while nobody
            /// polled are left out.
            pub fn on_queued(mut self, on_queued: impl FnMut(u64) + Send + 'static) -> Self {
                self.terms.on_queued(Box::new(on_queued));
                self
            }

            /// Runs `work` while it is held, then releases it. If it is lost, the future that `work`
            /// gave is dropped where it stands.
            ///
            /// `work` gets the guard itself, and may release it early. If it gives the guard away,
            /// this waits until it is released there.
            ///
            /// # Errors
            ///
            /// As awaiting the request, and [`Error::Lost`] if it was lost before `work` was done.
            ///
            /// # Cancel safety
            ///
            /// If this is dropped before it is done, the request is cancelled, or `work` is dropped where it stands
            /// and the lock is given back.
            ///
            /// # Examples
            ///
            /// ```no_run
            /// # async fn write_report(token: coordinator::types::FencingToken) {}
            /// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
            /// let request = client.lock("report");
            /// request.run(|guard| async move { write_report(guard.token()).await }).await?;
            /// # Ok(()) }
            /// ```
            pub async fn run<Work, Done>(self, work: Work) -> Result<Done::Output, Error>
            where
                Work: FnOnce(LockGuard) -> Done,
                Done: Future,
            {
                self.terms.run(work).await
            }
        }

        impl IntoFuture for $request {
            type Output = Result<LockGuard, Error>;
            type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.terms.acquire())
            }
        }

        impl fmt::Debug for $request {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($request)).field(&self.terms).finish()
            }
        }
    };
}

common_terms!(LockRequest);
common_terms!(LockAllRequest);

/// A guard, or none if the lock is busy.
pub(in crate::client) async fn unless_busy(
    request: LockRequest,
) -> Result<Option<LockGuard>, Error> {
    match request.nonblocking().await {
        Ok(guard) => Ok(Some(guard)),
        Err(Error::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
