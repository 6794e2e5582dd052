//! A lock that is held.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::types::{FencingToken, LockName, LostReason};

use super::error::Error;
use super::lease::Standing;
use super::shared::{Ending, Failure, Hold, Shared};

/// How sure a holder may be of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// The lock is held.
    Held,
    /// The lock is held still, but the coordinator has not answered for two thirds of the ttl, or
    /// there is no connection to it, or it has crashed and not confirmed the lock since. Time to come
    /// to an end, or to hope.
    Jeopardy,
    /// The lock is not held any more. Final.
    Lost(LostReason),
}

/// A lock, or several of one request, held from when this came into being until it is released,
/// dropped, or lost.
///
/// Dropping it releases the lock without waiting for anything, and works outside a runtime too.
///
/// A holder can lose its lock while it looks the other way: if its process or its machine stands
/// still for longer than the lease, another gets it. [`lost`](Self::lost) and
/// [`is_held`](Self::is_held) tell as soon as this side can know, but between asking and acting
/// there is always a gap. What must never go wrong is safe only if the protected resource compares
/// [`token`](Self::token)s and refuses those smaller than one it has seen.
pub struct LockGuard {
    /// What the driver says about it.
    hold: Arc<Hold>,
    /// The connection. A guard keeps it open, whatever becomes of the client.
    shared: Arc<Shared>,
    /// The token of the grant.
    token: FencingToken,
    /// The locks, in the order in which they were asked for; never empty.
    names: Box<[LockName]>,
    /// Who wants to know when the lock is free, if dropped.
    freed: Option<oneshot::Sender<Result<(), Failure>>>,
    /// Whether the lock was given back already, so that dropping does nothing.
    given_back: bool,
}

impl LockGuard {
    pub(super) fn new(
        hold: Arc<Hold>,
        shared: Arc<Shared>,
        token: FencingToken,
        names: Box<[LockName]>,
    ) -> Self {
        Self { hold, shared, token, names, freed: None, given_back: false }
    }

    /// The fencing token: greater than that of every grant before, of whatever lock. Give it to the
    /// resource with every write.
    pub fn token(&self) -> FencingToken {
        self.token
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
                Standing::Sure => HoldState::Held,
                Standing::Doubtful => HoldState::Jeopardy,
                Standing::Lapsed => HoldState::Lost(LostReason::Expired),
            }
        } else {
            HoldState::Lost(self.hold.lost_reason().unwrap_or(LostReason::Expired))
        }
    }

    /// Until when the lock is held if nothing more is heard of the coordinator. Moves on with every
    /// answer to a keep-alive; not later than now if the lock is lost.
    pub fn valid_until(&self) -> Instant {
        let now = Instant::now();
        if !self.is_held() {
            return now;
        }
        let lease = self.shared.lease.believed_until();
        let until = self.hold.doubted_until().map_or(lease, |doubted| doubted.min(lease));
        now + until.since(self.shared.now())
    }

    /// Resolves when the lock is lost, and tells why; never, if it is released first.
    ///
    /// The future does not borrow the guard, so it can be waited for next to the work.
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

    /// Gives the lock back, and waits until it is free; if the connection is lost meanwhile, over the
    /// next one, but not longer than the lease.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] if it was lost before; [`Error::Unavailable`] and the like if the answer did
    /// not come: then the lock is free at the latest when its lease ends.
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

    /// Wants `freed` to be told when the lock is free, if the guard is dropped.
    pub(super) fn tell_when_freed(&mut self, freed: oneshot::Sender<Result<(), Failure>>) {
        self.freed = Some(freed);
    }

    /// What the driver says about it.
    pub(super) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// The error for when the lock was lost.
    pub(super) fn lost_error(&self) -> Error {
        lost_error(&self.hold, &self.names, self.token)
    }

    fn error(&self, failure: Failure) -> Error {
        match failure {
            Failure::Rejected(rejection) => Error::rejected(rejection),
            Failure::Lost(reason) => {
                self.hold.lose(reason);
                match self.names.first() {
                    Some(name) => Error::Lost { name: name.clone(), token: self.token, reason },
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
        if self.hold.is_alive(&self.shared) {
            self.hold.give_back();
        }
        if let Some(reason) = self.hold.lost_reason()
            && let Some(answer) = answer.take()
        {
            let _ = answer.send(Err(Failure::Lost(reason)));
        }
        // Even what is lost is sent: the guard can know of a loss before the driver does. If there
        // is no driver any more, nothing is held either.
        let request = self.hold.id();
        let _ = self.shared.endings.send(Ending::Release { request, answer });
    }
}

/// The error for the loss of `hold`.
pub(super) fn lost_error(hold: &Hold, names: &[LockName], token: FencingToken) -> Error {
    match names.first() {
        Some(name) => Error::Lost {
            name: name.clone(),
            token,
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
            .field("token", &self.token)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
