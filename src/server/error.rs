//! Why a coordinator does not start. Each names the thing that is in the way.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
#[cfg(feature = "cluster")]
use std::time::Duration;

use crate::server::durable::store::StoreError;

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
    /// The same of the address for the Redis dialect.
    #[error("cannot listen on {listen}: {source}")]
    ListenForRedis {
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
    /// Others can read or write what is in the data directory: the key behind all sessions is there.
    #[error(
        "others can access {} (mode {mode:04o}), and anyone with access can take over any session",
        path.display()
    )]
    DataExposed {
        /// What they can use.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// What chmod(1) has to be told to mend it.
        chmod: &'static str,
    },
    /// Holds of the Redis dialect are found again in the journal only.
    #[error(
        "clients of the Redis dialect show nothing after a crash, so their locks need the journal, which is off"
    )]
    RedisWithoutJournal,
    /// There is no runtime where it was to be bound.
    #[error(
        "no tokio runtime here: bind the server within an actix System or a tokio LocalSet, or use \
        server::spawn"
    )]
    NoRuntime,
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
    /// An orderly stop could not save everything.
    #[error(
        "stopped without saving {sessions} sessions with {requests} requests, held or waiting: {rest} ({why})"
    )]
    NotSaved {
        /// Sessions that there were.
        sessions: usize,
        /// What they held and waited for.
        requests: usize,
        /// What becomes of them.
        rest: &'static str,
        /// What was in the way.
        why: String,
    },
    /// The wall clock has left the range in which fencing tokens can be counted.
    #[error("the wall clock, or the stored state, is centuries ahead: no fencing tokens are left")]
    ClockUnusable,
    /// The operating system gives no random numbers, and without a key nothing can be proven.
    #[error("the operating system provides no random numbers for the key of seals: {0}")]
    Randomness(getrandom::Error),
    /// The address for standbys cannot be listened on.
    #[cfg(feature = "cluster")]
    #[error("cannot listen on {listen}: {source}")]
    ListenForStandbys {
        /// The address.
        listen: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// It cannot take part in its cluster.
    #[cfg(feature = "cluster")]
    #[error("cannot take part in a cluster: {0}")]
    Cluster(#[from] crate::election::ElectionError),
    /// The disk of a leader takes nothing: it leads no more, so that another one can.
    #[cfg(feature = "cluster")]
    #[error(
        "the disk has taken nothing for {after:.1?}, so another coordinator is to lead: look after it, and start this one again"
    )]
    Halted {
        /// For how long.
        after: Duration,
    },
    /// The thread of a spawned coordinator could not be started, or ended before it was ready.
    #[error("cannot run the coordinator's thread: {0}")]
    Thread(io::Error),
}
