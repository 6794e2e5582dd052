//! Work that may take so long.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::error::Error;

/// `work`, unless it takes longer than `timeout`.
pub(super) async fn within<T>(
    timeout: Duration,
    server: &Arc<str>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    time::timeout(timeout, work).await.unwrap_or_else(|_| {
        let why = format!("no answer within {timeout:?}");
        Err(Error::unavailable(server, io::Error::new(io::ErrorKind::TimedOut, why)))
    })
}
