//! Accepts connections, and makes a [`Session`] of each.
//!
//! When the process is out of file descriptors, accepting fails at once, again and again: the
//! connection stays in the backlog. So the loop pauses after a failure, ever longer, instead of
//! spinning. When there are too many connections, the next is told so and closed.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use log::{debug, warn};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::chatter::Topic;
use super::counters::Place;
use super::hosts::{Arrival, Host};
use super::render;
use super::session::{CLOSE_TIMEOUT, Shared};
use crate::types::{ConnectionId, GoodbyeCode};
use crate::wire::encode_frame;

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
/// Refused connections that are told why at a time. Further ones are just closed.
const REFUSALS_MAX: usize = 64;

/// Where connections come from: TCP, or what a test puts in its place.
pub(crate) trait Listener: 'static {
    /// A connection's bytes.
    type Stream: AsyncRead + AsyncWrite + Unpin + 'static;

    /// The next connection, and where it comes from.
    async fn accept(&mut self) -> io::Result<(Self::Stream, Option<SocketAddr>)>;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are one write each already; waiting for more would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            debug!("TCP_NODELAY cannot be set peer={peer}: {error}");
        }
        if let Err(error) = keep_alive(&stream) {
            debug!("SO_KEEPALIVE cannot be set peer={peer}: {error}");
        }
        Ok((stream, Some(peer)))
    }
}

/// Has the system find out whether the peer's machine is still there, though neither side says anything.
/// A session's client speaks several times a lease, but one who watches locks may be silent for days,
/// and a machine that was switched off sends no farewell: its connection would be kept for ever, and
/// with it a place among those that are allowed.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

/// Takes `address`, where nobody can connect yet.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Else a restart would have to wait for the connections of the run before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Lets clients connect.
pub(super) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Accepts connections until it is dropped.
pub(super) async fn accept_all<L: Listener>(
    mut listener: L,
    connections_max: usize,
    shared: Arc<Shared>,
    host: Rc<dyn Host<L::Stream>>,
) {
    let mut latest = 0;
    let mut pause = PAUSE_MIN;
    let refusing = Rc::new(Cell::new(0));
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
        let Some(place) = Place::take(&shared.counters, connections_max) else {
            shared.counters.connections_refused.add_one();
            if shared.counters.chatter.admits(Topic::Refusal, peer) {
                let from = peer.map_or_else(String::new, |peer| format!(" peer={peer}"));
                warn!("connection refused{from}: {connections_max} are open, the limit");
            }
            if refusing.get() < REFUSALS_MAX {
                refusing.set(refusing.get() + 1);
                let refusing = Rc::clone(&refusing);
                spawn_local(async move {
                    // Whether it is told or not, it is closed.
                    let _ = timeout(CLOSE_TIMEOUT, refuse(stream, connections_max)).await;
                    refusing.set(refusing.get() - 1);
                });
            }
            continue;
        };
        latest += 1;
        let connection = ConnectionId::new(latest);
        debug!("connection accepted connection={connection} peer={peer:?}");
        host.start(Arrival { stream, connection, peer, place, shared: Arc::clone(&shared) });
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

/// Tells a connection that there are too many, and waits until its peer has closed it.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, max: usize) -> io::Result<()> {
    let why = format!("{max} connections are open, the limit");
    let mut frame = BytesMut::new();
    if encode_frame(&render::goodbye(GoodbyeCode::TooManyConnections, why), &mut frame).is_ok() {
        stream.write_all(&frame).await?;
    }
    stream.shutdown().await?;
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use tokio::time::Instant;

    use super::super::hosts::Here;
    use super::super::testing::{Bench, hello, local, settle};
    use super::*;
    use crate::wire::{Attach, ServerMessage, decode};

    /// Out of file descriptors, on every system we know.
    const EMFILE: i32 = 24;

    /// Connections out of a channel, and failures.
    struct Scripted(UnboundedReceiver<io::Result<DuplexStream>>);

    impl Listener for Scripted {
        type Stream = DuplexStream;

        async fn accept(&mut self) -> io::Result<(DuplexStream, Option<SocketAddr>)> {
            match self.0.recv().await {
                Some(accepted) => accepted.map(|stream| (stream, None)),
                None => std::future::pending().await,
            }
        }
    }

    fn accepting(bench: &Bench, max: usize) -> UnboundedSender<io::Result<DuplexStream>> {
        let (sender, receiver) = unbounded_channel();
        spawn_local(accept_all(Scripted(receiver), max, bench.shared(), Rc::new(Here)));
        sender
    }

    async fn greet(peer: &mut DuplexStream) -> ServerMessage {
        let mut bytes = BytesMut::new();
        encode_frame(&hello(Attach::New), &mut bytes).unwrap();
        peer.write_all(&bytes).await.unwrap();
        let length = peer.read_u32_le().await.unwrap();
        let mut frame = vec![0; length as usize];
        peer.read_exact(&mut frame).await.unwrap();
        decode(&frame).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_too_many_is_told_and_the_next_finds_room_again() {
        local(async {
            let bench = Bench::new();
            let accepting = accepting(&bench, 2);
            let connect = || {
                let (ours, theirs) = duplex(4096);
                accepting.send(Ok(theirs)).unwrap();
                ours
            };
            let (mut first, mut second, mut third) = (connect(), connect(), connect());
            assert!(matches!(greet(&mut first).await, ServerMessage::Welcome { .. }));
            assert!(matches!(greet(&mut second).await, ServerMessage::Welcome { .. }));
            match greet(&mut third).await {
                ServerMessage::Goodbye { code, .. } => {
                    assert_eq!(code, GoodbyeCode::TooManyConnections.number());
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(bench.counters.connections_refused.total(), 1);
            drop(first);
            settle().await;
            assert!(matches!(greet(&mut connect()).await, ServerMessage::Welcome { .. }));
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn out_of_descriptors_it_pauses_and_goes_on() {
        local(async {
            let bench = Bench::new();
            let accepting = accepting(&bench, 2);
            for _ in 0..3 {
                accepting.send(Err(io::Error::from_raw_os_error(EMFILE))).unwrap();
            }
            accepting.send(Err(io::ErrorKind::ConnectionAborted.into())).unwrap();
            let began = Instant::now();
            let (mut ours, theirs) = duplex(4096);
            accepting.send(Ok(theirs)).unwrap();
            assert!(matches!(greet(&mut ours).await, ServerMessage::Welcome { .. }));
            // 5, 10 and 20 ms; none for the one that was aborted.
            assert!(began.elapsed() >= PAUSE_MIN * 7);
            assert!(began.elapsed() < PAUSE_MIN * 15);
        })
        .await;
    }
}
