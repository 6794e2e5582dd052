//! Visits: connections from within this process, over a pipe instead of a socket.
//!
//! Whoever asks over HTTP looks as everybody does who looks: as an observer of the lock port, with its
//! rights, its quotas, its pace and its lines in the audit log. So no rule about who sees what is
//! written twice.

use std::net::SocketAddr;
use std::sync::Arc;

use log::debug;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::hosts::{Arrival, Here, Host};
use super::place::{Door, Place};
use super::session::Shared;
use crate::server::places::Places;
use crate::server::secure::Certified;
use crate::types::Origin;

/// Visits that may wait to be let in.
const WAITING_MAX: usize = 64;
/// Bytes on their way in one direction: a page of locks goes into it.
const PIPE_BYTES: usize = 64 * 1024;

/// Somebody who comes in.
#[derive(Debug)]
pub(in crate::server) struct Visit {
    /// Our end of the pipe.
    stream: DuplexStream,
    /// Where it comes from, outside.
    peer: Option<SocketAddr>,
    /// The names in its certificate.
    certified: Certified,
}

/// Where visits begin.
#[derive(Clone, Debug)]
pub(in crate::server) struct Entrance(Sender<Visit>);

/// An entrance, and where those come out who take it.
pub(in crate::server) fn entrance() -> (Entrance, Receiver<Visit>) {
    let (sender, receiver) = channel(WAITING_MAX);
    (Entrance(sender), receiver)
}

impl Entrance {
    /// A connection on which nothing is said yet. None: too many wait, or nobody is let in any more.
    pub(in crate::server) fn enter(
        &self,
        peer: Option<SocketAddr>,
        certified: Certified,
    ) -> Option<DuplexStream> {
        let (theirs, stream) = duplex(PIPE_BYTES);
        self.0.try_send(Visit { stream, peer, certified }).ok().map(|()| theirs)
    }
}

/// Lets in whoever comes, until it is dropped.
pub(in crate::server) async fn receive(
    mut visits: Receiver<Visit>,
    places: Places,
    shared: Arc<Shared>,
    host: Here,
) {
    let mut door = Door::default();
    while let Some(Visit { stream, peer, certified }) = visits.recv().await {
        let origin = peer.map(|peer| Origin::of(peer.ip()));
        let place = Place::take(&shared.counters, origin, places, &mut door);
        let connection = shared.next_connection();
        debug!(connection:%, peer:?; "visit accepted");
        let shared = Arc::clone(&shared);
        host.start(Arrival { stream, connection, certified, peer, place, shared });
    }
}
