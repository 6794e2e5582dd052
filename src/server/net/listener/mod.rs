//! Accepts connections, and makes a [`Session`] of each.
//!
//! When the process is out of file descriptors, accepting fails at once, again and again: the
//! connection stays in the backlog. So the loop pauses after a failure, ever longer (backoff),
//! instead of spinning. When all places are taken, a connection waits at the door until its Hello.
//! Its session decides about that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, warn};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

use super::hosts::{Arrival, Host};
use super::place::{Door, Place};
use super::session::Shared;
use super::socket::Socket;
use crate::server::chatter::Topic;
use crate::server::places::Places;
use crate::server::secure::Certified;
use crate::types::Origin;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// Pause after accepting failed, at first.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Pause after accepting failed, in the end.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A silent connection is probed after this.
const PROBE_AFTER: Duration = Duration::from_secs(60);
/// An unanswered probe is repeated after this.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// After so many unanswered probes, two minutes after the peer was last heard of, it is gone.
const PROBES: u32 = 4;

/// Where connections come from: TCP, or what a test puts in its place.
pub(crate) trait Listener: 'static {
    /// A connection's bytes.
    type Stream: Socket;

    /// The next connection, and where it comes from.
    async fn accept(&mut self) -> io::Result<(Self::Stream, Option<SocketAddr>)>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        accept(self).await
    }
}

/// Lent by somebody who goes on listening.
#[cfg(feature = "cluster")]
impl Listener for Rc<TcpListener> {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        accept(self).await
    }
}

/// The next connection, with what all of them have.
pub(in crate::server) async fn accept(
    listener: &TcpListener,
) -> io::Result<(TcpStream, Option<SocketAddr>)> {
    let (stream, peer) = listener.accept().await?;
    // Here the listener has passed them on: five calls fewer for each connection.
    #[cfg(not(target_os = "linux"))]
    set_options(&stream);
    Ok((stream, Some(peer)))
}

/// Sets what each connection has, on the connection, or on what listens for it.
fn set_options(socket: impl AsFd) {
    // Answers are one write each already; waiting for more would only delay them.
    if let Err(error) = sockopt::set_tcp_nodelay(&socket, true) {
        debug!("TCP_NODELAY cannot be set: {error}");
    }
    if let Err(error) = keep_alive(&socket) {
        debug!("SO_KEEPALIVE cannot be set: {error}");
    }
}

/// Has the system find out whether the peer's machine is still there, though neither side says
/// anything. A machine that was switched off sends no farewell. A connected client has to speak now
/// and then, so that is noticed in any case. A session may have a lease of an hour, and its
/// connection need not take an allowed place for as long.
fn keep_alive(socket: impl AsFd) -> rustix::io::Result<()> {
    sockopt::set_tcp_keepidle(&socket, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(&socket, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&socket, PROBES)?;
    sockopt::set_socket_keepalive(&socket, true)
}

/// Takes `address`, where nobody can connect yet.
pub(in crate::server) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Else a restart would have to wait for the connections of the run before to be forgotten. Elsewhere
    // than on Unix the option lets a second coordinator take the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    set_options(&socket);
    socket.bind(address)?;
    Ok(socket)
}

/// Lets clients connect.
pub(in crate::server) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Accepts connections until it is dropped.
pub(in crate::server) async fn accept_all<L: Listener>(
    mut listener: L,
    places: Places,
    shared: Arc<Shared>,
    host: Rc<dyn Host<L::Stream>>,
) {
    let mut pause = PAUSE_MIN;
    let mut door = Door::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if concerns_one_connection(&error) => continue,
            Err(error) => {
                if shared.counters.chatter.admits(Topic::NotAccepted, None) {
                    warn!("connections cannot be accepted, trying again in {pause:?}: {error}");
                }
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = PAUSE_MIN;
        let origin = peer.map(|peer| Origin::of(peer.ip()));
        let place = Place::take(&shared.counters, origin, places, &mut door);
        let connection = shared.next_connection();
        debug!(connection:%, peer:?; "connection accepted");
        let (certified, shared) = (Certified::default(), Arc::clone(&shared));
        host.start(Arrival { stream, connection, certified, peer, place, shared });
    }
}

/// Whether accepting failed for a connection that was gone before we came to it.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
