//! Why a coordinator does not start. Each names the thing that is in the way.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::store::StoreError;

/// Why a coordinator could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be listened on: taken, not ours, not allowed.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Another process serves from the same data directory.
    #[error("another coordinator uses the data directory {}", directory.display())]
    DataInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The data directory cannot be made, read or written.
    #[error("cannot use the data directory {}: {source}", directory.display())]
    DataUnusable {
        /// The directory.
        directory: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The state store does not do what it should.
    #[error("state cannot be {doing}: {source}")]
    Store {
        /// Loaded or saved.
        doing: &'static str,
        /// What the store says.
        source: StoreError,
    },
    /// The stored state is more than a year behind the wall clock (rule F3).
    #[error(
        "the stored state is {days} days behind the wall clock: either the clock is wrong, or the \
         state is an old copy"
    )]
    StaleState {
        /// How far.
        days: u64,
    },
    /// The wall clock has left the range in which fencing tokens can be counted.
    #[error("the wall clock, or the stored state, is centuries ahead: no fencing token is left")]
    ClockUnusable,
    /// The operating system gives no random numbers, and without a key nothing can be proven.
    #[error("no random numbers for the key of seals: {0}")]
    Randomness(getrandom::Error),
    /// The thread of a spawned coordinator could not be started, or ended before it was ready.
    #[error("cannot run the coordinator's thread: {0}")]
    Thread(io::Error),
}
