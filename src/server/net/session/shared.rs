//! What all sessions of a server have in common.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use actix::Addr;

#[cfg(feature = "access")]
use crate::access::Digest;
use crate::access::Proof;
#[cfg(feature = "redis-api")]
use crate::redis::Common;
use crate::server::coordinator::Coordinator;
use crate::server::counters::Counters;
use crate::server::inbox::Inbox;
use crate::server::net::pace::Paces;
use crate::server::secure::Certified;
use crate::types::{ConnectionId, ShownCredential};

/// What all sessions of a server have in common.
pub(in crate::server) struct Shared {
    /// The Coordinator, for the rest of the server.
    pub(in crate::server) coordinator: Addr<Coordinator>,
    /// The way to it for sessions.
    pub(in crate::server) inbox: Inbox,
    /// Counters of sessions.
    pub(in crate::server) counters: Arc<Counters>,
    /// Where this server listens, to tell those who meant another.
    pub(in crate::server) address: SocketAddr,
    /// How long a connection may take to say Hello.
    pub(in crate::server) handshake_timeout: Duration,
    /// How long an observer may say nothing.
    pub(in crate::server) idle_timeout: Duration,
    /// How much each address may say.
    pub(in crate::server) paces: Paces,
    /// Whether anybody has to prove who it is.
    pub(in crate::server) asks_who: bool,
    /// The number of the latest connection, on whatever port.
    pub(in crate::server) latest: Arc<AtomicU64>,
    /// What those of the Redis dialect have in common; none: these speak the messages of `wire`.
    #[cfg(feature = "redis-api")]
    pub(in crate::server) redis: Option<Common>,
}

impl Shared {
    /// The number of another connection, which none before has had.
    pub(in crate::server) fn next_connection(&self) -> ConnectionId {
        ConnectionId::new(self.latest.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// What a connection has shown, where that is asked for.
    pub(in crate::server) fn proof(
        &self,
        shown: Option<ShownCredential>,
        certified: &Certified,
    ) -> Option<Proof> {
        if !self.asks_who {
            return None;
        }
        #[cfg(feature = "access")]
        let credential = shown.map(|shown| Digest::of(shown.reveal()));
        #[cfg(not(feature = "access"))]
        let credential = shown.and(None);
        Some(Proof { credential, certified: certified.names() })
    }
}
