//! Where sessions live: on the Coordinator's thread, or on I/O threads of their own.
//!
//! A session only reads, decodes, encodes and writes, and that is most of what a pair costs; so with
//! many processors it is worth its own threads (`--io-threads`, docs/performance.md). What a session
//! says still goes into the Coordinator's one mailbox, and what it is told comes into its own:
//! nothing else is shared but what is counted.

use std::cell::Cell;
use std::io;
use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::thread;

use actix::Actor;
use log::{error, warn};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use super::counters::Place;
use super::session::{Session, Shared};
use crate::types::ConnectionId;

/// A connection that was accepted, and is to have a session.
pub(super) struct Arrival<S> {
    /// Its bytes.
    pub(super) stream: S,
    /// Its number.
    pub(super) connection: ConnectionId,
    /// Where it comes from.
    pub(super) peer: Option<SocketAddr>,
    /// Its place among those allowed.
    pub(super) place: Place,
    /// What it has in common with the others.
    pub(super) shared: Arc<Shared>,
}

/// Has sessions live somewhere.
pub(super) trait Host<S>: 'static {
    /// Starts the session of a connection.
    fn start(&self, arrival: Arrival<S>);
}

/// On the thread that accepts, which is the Coordinator's.
pub(super) struct Here;

impl<S> Host<S> for Here
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    fn start(&self, arrival: Arrival<S>) {
        let Arrival { stream, connection, peer, place, shared } = arrival;
        Session::new(stream, connection, peer, place, shared).start();
    }
}

/// On threads of their own, which end when this is dropped, and their sessions with them.
pub(super) struct IoThreads {
    /// To each.
    threads: Vec<UnboundedSender<Arrival<net::TcpStream>>>,
    /// Which has the next.
    next: Cell<usize>,
}

impl IoThreads {
    /// Starts so many.
    ///
    /// # Errors
    ///
    /// If the system has no more threads, or no more file descriptors.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let threads = (1..=count).map(start_thread).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: Cell::new(0) })
    }
}

impl Host<TcpStream> for IoThreads {
    fn start(&self, arrival: Arrival<TcpStream>) {
        let Arrival { stream, connection, peer, place, shared } = arrival;
        // It is watched by the thread on which it is used.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return warn!("connection lost connection={connection}: {error}"),
        };
        let next = self.next.get();
        self.next.set((next + 1) % self.threads.len());
        if self.threads[next].send(Arrival { stream, connection, peer, place, shared }).is_err() {
            error!("an I/O thread has ended, and with it connection={connection}");
        }
    }
}

fn start_thread(number: usize) -> io::Result<UnboundedSender<Arrival<net::TcpStream>>> {
    let (sender, arrivals) = unbounded_channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("io-{number}"))
        .spawn(move || runtime.block_on(LocalSet::new().run_until(receive(arrivals))))?;
    Ok(sender)
}

/// Takes connections in until there can be no more.
async fn receive(mut arrivals: UnboundedReceiver<Arrival<net::TcpStream>>) {
    while let Some(arrival) = arrivals.recv().await {
        let Arrival { stream, connection, peer, place, shared } = arrival;
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                Here.start(Arrival { stream, connection, peer, place, shared });
            }
            Err(error) => warn!("connection lost connection={connection}: {error}"),
        }
    }
}
