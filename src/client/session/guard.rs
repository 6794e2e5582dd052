//! Guards: held locks (RAII).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::types::{FencingToken, LockName, LostReason, RequestId};

use crate::client::core::Ask;
use crate::client::error::Error;
use crate::client::lease::Belief;
use crate::client::shared::{Ending, Failure, Hold, Shared};

/// How sure a holder may be of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// The lock is held.
    Held,
    /// The lock is still held, but in doubt (jeopardy): the coordinator has not answered for two
    /// thirds of the ttl, or has crashed and not confirmed the lock for as long. Finish up: the lock
    /// may be lost soon.
    Jeopardy,
    /// The lock is not held any more. Final.
    Lost(LostReason),
}

/// A lock, or several of one request, held from when this came into being until it is released,
/// dropped, or lost.
///
/// Dropping it releases the lock without waiting for anything, and works outside a runtime too.
///
/// A holder can lose its lock without noticing. If its process or its machine stands still for
/// longer than the lease, another client gets it. [`lost`](Self::lost) and
/// [`is_held`](Self::is_held) tell as soon as this side can know, but between asking and acting
/// there is always a gap. A critical resource is safe only if it compares [`token`](Self::token)s
/// and refuses those smaller than one it has seen.
pub struct LockGuard {
    /// The hold, as the driver tells it.
    hold: Arc<Hold>,
    /// The connection. A guard keeps it open, whatever becomes of the client.
    shared: Arc<Shared>,
    /// The request that was granted; after a conversion, the one that converted it.
    request: RequestId,
    /// The request.
    ask: Arc<Ask>,
    /// The locks, in the order in which they were asked for; never empty.
    names: Box<[LockName]>,
    /// The caller that wants to know when the lock is free, if dropped.
    freed: Option<oneshot::Sender<Result<(), Failure>>>,
    /// Whether the lock was given back already, so that dropping does nothing.
    given_back: bool,
}

impl LockGuard {
    /// The guard of a `request` that was granted, unless what it holds is over already.
    pub(in crate::client) fn begin(
        hold: Arc<Hold>,
        shared: Arc<Shared>,
        request: RequestId,
        ask: Arc<Ask>,
        names: Box<[LockName]>,
    ) -> Result<Self, Error> {
        let guard = Self { hold, shared, request, ask, names, freed: None, given_back: false };
        if guard.is_held() { Ok(guard) } else { Err(guard.lost_error()) }
    }

    /// It is held by another request from here on, which has taken the place of the one before.
    pub(in crate::client) fn continue_as(&mut self, request: RequestId, ask: Arc<Ask>) {
        (self.request, self.ask) = (request, ask);
    }

    /// The fencing token: greater than that of every grant before, of whatever lock. Give it to the
    /// resource with every write.
    pub fn token(&self) -> FencingToken {
        self.hold.token()
    }

    /// The name of the lock; of the first one, if there are several.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", LockName::as_str)
    }

    /// The names of all locks held by this, in the order in which they were asked for.
    pub fn names(&self) -> &[LockName] {
        &self.names
    }

    /// Whether the lock is held now, by the client's own clock: true only as long as no one else
    /// can have it. Once false, always false.
    pub fn is_held(&self) -> bool {
        self.hold.is_alive(&self.shared)
    }

    /// How sure the holder may be, now.
    pub fn state(&self) -> HoldState {
        if self.is_held() {
            match self.hold.standing(&self.shared) {
                Belief::Sure => HoldState::Held,
                Belief::Doubtful => HoldState::Jeopardy,
                Belief::Lapsed => HoldState::Lost(LostReason::Expired),
            }
        } else {
            HoldState::Lost(self.hold.lost_reason().unwrap_or(LostReason::Expired))
        }
    }

    /// Until when the lock is held if nothing more is heard of the coordinator. Moves on with every
    /// answer to a keep-alive; not later than now if the lock is lost.
    pub fn valid_until(&self) -> Instant {
        Instant::now() + self.left()
    }

    /// For how long the lock is held, by the client's own clock, if nothing more is heard of the
    /// coordinator; zero if it is lost.
    pub(crate) fn left(&self) -> Duration {
        if !self.is_held() {
            return Duration::ZERO;
        }
        let lease = self.shared.lease.believed_until();
        let until = self.hold.doubted_until().map_or(lease, |doubted| doubted.min(lease));
        until.since(self.shared.now())
    }

    /// Resolves when the lock is lost, and tells why; never, if it is released first.
    ///
    /// The future does not borrow the guard, so it can run beside the work. It lasts for as long as
    /// the lock is held, in whatever mode.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by the future, whether it is done or dropped before; another tells the same.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn work() {}
    /// # async fn example(guard: coordinator::LockGuard) -> Result<(), coordinator::Error> {
    /// tokio::select! {
    ///     reason = guard.lost() => eprintln!("stopped, the lock is lost: {reason}"),
    ///     () = work() => guard.release().await?,
    /// }
    /// # Ok(()) }
    /// ```
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + 'static + use<> {
        let hold = Arc::clone(&self.hold);
        async move { hold.until_lost().await }
    }

    /// Gives the lock back, and waits until it is free. If the connection is lost meanwhile, it
    /// goes on over the next one, but not longer than the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if it was lost before. [`Error::Unavailable`] and the like if the answer did
    /// not come. Then the lock is free when its lease ends, at the latest.
    ///
    /// # Cancel safety
    ///
    /// The lock is given back also if this is dropped before it is done, even before it is polled.
    /// Only the moment is then unknown.
    pub async fn release(mut self) -> Result<(), Error> {
        let (answer, outcome) = oneshot::channel();
        self.freed = Some(answer);
        self.give_back();
        // The guard lives until the answer is there, and with it the connection.
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(self.error(failure)),
            Err(_) => Err(self.shared.end()),
        }
    }

    /// Gives the lock back as if it had never been granted: for work that was not even begun. It is not
    /// kept for as long as was asked for with [`at_least`](crate::LockRequest::at_least). Waits for
    /// nothing.
    pub fn cancel(mut self) {
        if self.hold.is_alive(&self.shared) {
            self.hold.give_back();
        }
        self.given_back = true;
        self.shared.end_request(Ending::Cancel(self.request));
    }

    /// Wants `freed` to be told when the lock is free, if the guard is dropped.
    pub(in crate::client) fn tell_when_freed(
        &mut self,
        freed: oneshot::Sender<Result<(), Failure>>,
    ) {
        self.freed = Some(freed);
    }

    /// What the driver says about it.
    pub(in crate::client) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// What it asked for.
    pub(in crate::client) fn ask(&self) -> Arc<Ask> {
        Arc::clone(&self.ask)
    }

    /// The request by which it is held.
    pub(in crate::client) fn request(&self) -> RequestId {
        self.request
    }

    /// The connection.
    pub(in crate::client) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// The error for when the lock was lost.
    pub(in crate::client) fn lost_error(&self) -> Error {
        lost_error(&self.hold, &self.names)
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Rejected(rejection) => Error::rejected(rejection),
            Failure::Lost(reason) => {
                self.hold.lose(reason);
                match self.names.first() {
                    Some(name) => Error::Lost { name: name.clone(), token: self.token(), reason },
                    None => Error::Closed,
                }
            }
            Failure::Ended(error) => error,
        }
    }

    /// Stops believing, then asks the driver to send the release (rule R8).
    fn give_back(&mut self) {
        if std::mem::replace(&mut self.given_back, true) {
            return;
        }
        let mut answer = self.freed.take();
        let is_given_back = self.hold.is_alive(&self.shared) && self.hold.give_back();
        if !is_given_back
            && let Some(reason) = self.hold.lost_reason()
            && let Some(answer) = answer.take()
        {
            let _ = answer.send(Err(Failure::Lost(reason)));
        }
        // Even what is lost is sent: the guard can know of a loss before the driver does.
        self.shared.end_request(Ending::Release { request: self.request, answer });
    }
}

/// The error for the loss of `hold`.
pub(in crate::client) fn lost_error(hold: &Hold, names: &[LockName]) -> Error {
    match names.first() {
        Some(name) => Error::Lost {
            name: name.clone(),
            token: hold.token(),
            reason: hold.lost_reason().unwrap_or(LostReason::Expired),
        },
        None => Error::Closed,
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("names", &self.names)
            .field("token", &self.token())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
