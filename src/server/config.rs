//! The operator's choices, as plain data. The source of a value (flag, environment, file) is not
//! known here.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::journal::Distance;
use crate::server::audit::Audit;
use crate::server::ledger::UNREAD_BYTES_MAX;
use crate::server::places::Places;
#[cfg(feature = "tls")]
use crate::tls::{ServerTls, TlsOptions};
use crate::types::Limits;

/// The port of the locks: L-O-C-K on a keypad.
pub const LOCK_PORT: u16 = 5625;

/// Lowest limit on messages a second that makes sense. One read brings up to some 1,600 messages,
/// and a client that waits longer than its lease for its next turn has lost its locks.
pub const MESSAGES_PER_SECOND_MIN: NonZeroU32 = NonZeroU32::new(1_000).expect("not zero");
/// How many looks observers may take in a second, all together, unless told otherwise: so many are one
/// percent of a core.
pub(super) const LOOKS_PER_SECOND: u32 = 200;

/// How a coordinator is to run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Where it listens for clients. Loopback unless told otherwise, for anyone who reaches the
    /// port may lock.
    pub listen: SocketAddr,
    /// Where it listens for clients of the Redis dialect; none: nowhere.
    #[cfg(feature = "redis-api")]
    pub redis_listen: Option<SocketAddr>,
    /// Whether `FLUSHDB` frees all that those hold.
    #[cfg(feature = "redis-api")]
    pub redis_allow_flush: bool,
    /// Where its state lives.
    pub data: Data,
    /// Bounds on what clients may have in the table.
    pub limits: Limits,
    /// Most connections open at a time, those without a session included. Besides, an eighth as
    /// many are kept for clients that come back to a living session. Operators on this machine are
    /// served in any case.
    pub connections_max: usize,
    /// Most of them from one address; none: three quarters. All that come over loopback are from one,
    /// and all from a network of IPv6 with a prefix of 64 bits.
    pub connections_per_address_max: Option<usize>,
    /// Most messages a second from one address, each connection counted as one; none: as many as come. An
    /// address that sends more is not read until it has caught up. Nothing is lost by that but time: too
    /// low a limit delays keep-alives as well; see [`MESSAGES_PER_SECOND_MIN`].
    pub messages_per_second_max: Option<NonZeroU32>,
    /// Most bytes that lie here for clients which have not read them, all connections together. Past
    /// it, those who have most unread are closed.
    pub unread_bytes_max: usize,
    /// How many threads of their own the sessions live on, in turn. With 0 they live on the
    /// Coordinator's, which costs less for each pair; docs/performance.md says when others are
    /// worth it.
    pub io_threads: usize,
    /// What the port shows and asks for; none: connections are not encrypted.
    #[cfg(feature = "tls")]
    pub tls: Option<ServerTls>,
    /// Whom one of several trusts as its leader, and what it shows there; none: what is said between them is not
    /// encrypted.
    #[cfg(feature = "tls")]
    pub peer_tls: Option<TlsOptions>,
    /// Who may do what. By default, whoever reaches the port may do everything.
    pub access: Arc<Access>,
    /// Where it is written down who was let in, denied, and took locks away; by default nowhere.
    pub audit: Audit,
    /// How long a connection may take to say Hello, its TLS handshake included.
    pub handshake_timeout: Duration,
    /// How long an observer may say nothing, also one that watches or listens. Sessions have their lease
    /// instead.
    pub idle_timeout: Duration,
    /// How long an orderly stop may take. With [`Data::Ephemeral`], holders may finish for this
    /// long. Otherwise the disk may take this long to save everything, which it usually does at
    /// once.
    pub drain_timeout: Duration,
    /// Whether and how far each event is written down before anything that follows from it is said, so
    /// that a crash costs nothing. Needs a [`Data::Directory`].
    pub journal: Option<Distance>,
    /// How many looks (pages of what `status` shows) may be taken in a second, by all who look
    /// together. Each takes the time of a few requests. An observer beyond it is answered later, a
    /// session not.
    pub looks_per_second: u32,
    /// What to do with a stored state that the wall clock has left more than a year behind.
    pub stale_state: StaleState,
    /// What to do with a stored state that is damaged.
    pub lost_state: LostState,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, LOCK_PORT)),
            #[cfg(feature = "redis-api")]
            redis_listen: None,
            #[cfg(feature = "redis-api")]
            redis_allow_flush: false,
            data: Data::Ephemeral,
            limits: Limits::default(),
            connections_max: 10_000,
            connections_per_address_max: None,
            messages_per_second_max: None,
            unread_bytes_max: UNREAD_BYTES_MAX,
            io_threads: 0,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            peer_tls: None,
            access: Arc::new(Access::open()),
            audit: Audit::default(),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            journal: None,
            looks_per_second: LOOKS_PER_SECOND,
            stale_state: StaleState::Refuse,
            lost_state: LostState::Refuse,
        }
    }
}

impl Config {
    /// The most connections that can be open at a time, those included that are being turned away.
    pub fn connections_open_max(&self) -> usize {
        self.places().open_max()
    }

    /// How many places there are for connections.
    pub(super) fn places(&self) -> Places {
        Places::new(self.connections_max, self.connections_per_address_max)
    }
}

/// Where the little that must outlive the process is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nowhere: for tests and demonstrations. Fencing tokens rise across restarts as long as the
    /// wall clock does.
    Ephemeral,
    /// In this directory, which is made if it is missing.
    Directory(PathBuf),
}

/// What to do with a stored state that is more than a year behind the wall clock (rule F3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleState {
    /// Do not start: the clock may be wrong, and starting would burn its error into every token.
    Refuse,
    /// Go on from the wall clock.
    Accept,
}

/// What to do with a stored state that is there but cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostState {
    /// Do not start: perhaps there is a backup, and who held what is in it.
    Refuse,
    /// Set it aside, and go on without it. If all of it is lost, nobody is granted anything for as
    /// long as the longest possible lease. The loss of the snapshot alone is handled as a crash.
    Accept,
}
