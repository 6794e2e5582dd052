//! Owners: threads of control within a client, which hold and wait separately.

use std::sync::Arc;

use super::error::Error;
use super::guard::LockGuard;
use super::request::{LockAllRequest, LockRequest, unless_busy};
use super::shared::Shared;

/// One thread of control, as the coordinator sees it: a task, a thread, a job, which does one thing
/// after the other. Made by [`Client::owner`](super::Client::owner); clones are the same owner.
///
/// What is asked for without an owner is a matter of its own, as with a mutex: who holds a lock and
/// asks for it again waits for itself. The coordinator cannot know that, for somebody else in the
/// program may be about to release. With an owner it does know who waits for whom, and answers at
/// once what would otherwise never be answered:
///
/// - asking for what the owner holds already, in a way that leaves no room, is
///   [`Error::Rejected`] with [`RejectionCode::AlreadyHeld`](crate::types::RejectionCode::AlreadyHeld);
/// - a request that would have to wait for somebody who waits, perhaps by way of others, for what this
///   owner holds, is [`Error::Deadlock`]. It says who waits for whom. Nobody else is touched: whoever
///   hears it gives back what it holds, so that the others can go on, and begins anew.
///
/// For this to be right, an owner must give back what it holds only after it has got what it asked for,
/// or has given that up: it must not be used by two tasks at a time, of which one could release what
/// the other waits for. Make an owner for each.
///
/// Deadlocks are found between the owners of all clients of a coordinator. Locks that are asked for
/// together, with [`lock_all`](Self::lock_all), do not deadlock in the first place.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// use coordinator::Error;
///
/// let owner = client.owner();
/// loop {
///     let left = owner.lock("forks/1").await?;
///     match owner.lock("forks/2").await {
///         Ok(right) => break drop((left, right)),
///         // Others wait for the left one, and we would wait for them.
///         Err(Error::Deadlock { .. }) => left.release().await?,
///         Err(error) => return Err(error),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Owner {
    /// Whom to ask.
    shared: Arc<Shared>,
    /// Its number within the client, from 1.
    number: u64,
}

impl Owner {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), number: shared.next_owner() }
    }

    /// Its number, by which others see it: in [`Error::Deadlock`] and in what a lock's
    /// [status](super::Client::status) says. Different from that of every other owner of the client.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// A request for the lock `name`; see [`Client::lock`](super::Client::lock).
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest::new(Arc::clone(&self.shared), self.number, name.as_ref())
    }

    /// Takes the lock `name` alone if it is free now; see [`Client::try_lock`](super::Client::try_lock).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Rejected`] with `AlreadyHeld` if it is this owner who holds it.
    pub async fn try_lock(&self, name: impl AsRef<str>) -> Result<Option<LockGuard>, Error> {
        unless_busy(self.lock(name)).await
    }

    /// A request for all the locks `names` together; see [`Client::lock_all`](super::Client::lock_all).
    pub fn lock_all<Names>(&self, names: Names) -> LockAllRequest
    where
        Names: IntoIterator<Item: AsRef<str>>,
    {
        LockAllRequest::new(Arc::clone(&self.shared), self.number, names)
    }
}
