//! Owners: threads of control within a client, which hold and wait separately.

use std::sync::Arc;

use super::guard::LockGuard;
use super::request::{LockAllRequest, LockRequest, unless_busy};
use crate::client::error::Error;
use crate::client::shared::Shared;
use crate::types::OwnerId;

/// One thread of control, as the coordinator sees it: a task, a thread, a job. Made by
/// [`Client::owner`](crate::Client::owner); clones are the same owner.
///
/// A request without an owner stands alone, as with a mutex: a holder that asks for its lock again
/// waits for itself. The coordinator cannot know that, because another task of the program may be
/// about to release. With an owner it does know who waits for whom (deadlock detection), and
/// answers at once:
///
/// - a request for a lock that the owner holds already, in a mode that leaves no room, is
///   [`Error::Rejected`] with
///   [`RejectionCode::AlreadyHeld`](crate::types::RejectionCode::AlreadyHeld);
/// - a request that would wait for somebody who waits, perhaps by way of others, for a lock of this
///   owner, is [`Error::Deadlock`]. It says who waits for whom. Nobody else is touched. Give the
///   owner's locks back, so that the others can go on, and begin anew.
///
/// For this to be right, an owner must not release a lock while another request of it waits. Give
/// up that request first. So no two tasks should use one owner at a time, because one could release
/// a lock that the other waits for. Make an owner for each.
///
/// Deadlocks are found between the owners of all clients of a coordinator. A request for all locks
/// together, with [`lock_all`](Self::lock_all), cannot deadlock in the first place.
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
    /// Its id within the client, from 1.
    id: OwnerId,
}

impl Owner {
    pub(in crate::client) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), id: shared.next_owner() }
    }

    /// Its number, by which others see it: in [`Error::Deadlock`] and in what a lock's
    /// [status](crate::Client::status) says. Different from that of every other owner of the client.
    pub fn id(&self) -> OwnerId {
        self.id
    }

    /// A request for the lock `name`; see [`Client::lock`](crate::Client::lock).
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest::new(Arc::clone(&self.shared), self.id, name.as_ref())
    }

    /// Takes the lock `name` alone if it is free now; see [`Client::try_lock`](crate::Client::try_lock).
    ///
    /// # Errors
    ///
    /// As there, and [`Error::Rejected`] with `AlreadyHeld` if it is this owner who holds it.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the request is cancelled: what was granted meanwhile is given
    /// back.
    pub async fn try_lock(&self, name: impl AsRef<str>) -> Result<Option<LockGuard>, Error> {
        unless_busy(self.lock(name)).await
    }

    /// A request for all the locks `names` together; see [`Client::lock_all`](crate::Client::lock_all).
    pub fn lock_all<Names>(&self, names: Names) -> LockAllRequest
    where
        Names: IntoIterator<Item: AsRef<str>>,
    {
        LockAllRequest::new(Arc::clone(&self.shared), self.id, names)
    }
}
