//! Semaphores: locks with a number of permits.

use std::sync::Arc;

use super::guard::LockGuard;
use super::request::{LockRequest, unless_busy};
use crate::client::error::Error;
use crate::client::shared::Shared;
use crate::types::OwnerId;

/// A semaphore with a number of permits, shared by all clients that name it; made by
/// [`Client::semaphore`](crate::Client::semaphore).
///
/// A handle and no more: it costs the coordinator nothing until something is acquired. All holders
/// of the semaphore agree on the number of permits. A request with another number waits in line
/// until they are gone, and then sets the new size. Requests are served in order (FIFO), also if
/// the first wants many permits and others fewer.
///
/// # Examples
///
/// ```no_run
/// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
/// let uplink = client.semaphore("uplink", 4);
/// let one = uplink.acquire().await?;
/// let two_more = uplink.acquire_many(2).note("bulk upload").await?;
/// drop(one);      // one of four is free again, and one more never was taken
/// two_more.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Semaphore {
    /// Whom to ask.
    shared: Arc<Shared>,
    /// Its name, good or not.
    name: Arc<str>,
    /// How many permits there are.
    permits: u32,
}

impl Semaphore {
    pub(in crate::client) fn new(shared: &Arc<Shared>, name: &str, permits: u32) -> Self {
        Self { shared: Arc::clone(shared), name: name.into(), permits }
    }

    /// A request for one permit: await it, or say first how long to wait.
    pub fn acquire(&self) -> LockRequest {
        self.acquire_many(1)
    }

    /// A request for `permits` of them, all or none.
    pub fn acquire_many(&self, permits: u32) -> LockRequest {
        LockRequest::new(Arc::clone(&self.shared), OwnerId(0), &self.name)
            .permits(permits, self.permits)
    }

    /// Takes one permit if there is one now and nobody waits; `None` if not.
    ///
    /// # Errors
    ///
    /// As for [`LockRequest`], but for [`Error::Busy`].
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the request is cancelled: what was granted meanwhile is given
    /// back.
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>, Error> {
        unless_busy(self.acquire()).await
    }
}
