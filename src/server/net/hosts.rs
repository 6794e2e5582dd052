//! Where sessions live: on the Coordinator's thread, or on I/O threads of their own.
//!
//! A session only reads, decodes, encodes and writes, and that is most of the cost of a pair. With
//! many processors it is worth its own threads (`--io-threads`, docs/performance.md). A session's
//! messages still go into the Coordinator's one mailbox, and its answers come into its own. Nothing
//! else is shared but the counters.

use std::cell::Cell;
use std::io;
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

#[cfg(feature = "redis-api")]
use actix::Actor;
use log::{error, warn};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};

use super::place::Place;
#[cfg(feature = "redis-api")]
use super::redis::RedisSession;
use super::session::{Session, Shared};
use super::socket::Socket;
use crate::server::barrier::{Ask, Barrier, look};
use crate::server::chatter::Topic;
use crate::server::gate::Outlets;
use crate::server::log_lines;
use crate::server::secure::{Certified, Secure};
use crate::types::ConnectionId;

/// A connection that was accepted, and is to have a session.
pub(in crate::server) struct Arrival<S> {
    /// Its bytes.
    pub(in crate::server) stream: S,
    /// Its number.
    pub(in crate::server) connection: ConnectionId,
    /// The names in its certificate, once there is one.
    pub(in crate::server) certified: Certified,
    /// Where it comes from.
    pub(in crate::server) peer: Option<SocketAddr>,
    /// Its place among those allowed.
    pub(in crate::server) place: Place,
    /// Parts in common with the other sessions.
    pub(in crate::server) shared: Arc<Shared>,
}

impl<S> Arrival<S> {
    /// The same, of which the stream is another.
    fn with<T>(self, change: impl FnOnce(S) -> T) -> Arrival<T> {
        let Self { stream, connection, certified, peer, place, shared } = self;
        Arrival { stream: change(stream), connection, certified, peer, place, shared }
    }
}

/// Has sessions live somewhere.
pub(in crate::server) trait Host<S>: 'static {
    /// Starts the session of a connection.
    fn start(&self, arrival: Arrival<S>);

    /// What tells when all of its sessions have looked at their sockets.
    fn barrier(&self) -> Barrier;
}

/// What an I/O thread is to do.
enum Job {
    /// Start the session of a connection.
    Start(Arrival<net::TcpStream>),
    /// Say when all sockets were looked at.
    Barrier(oneshot::Sender<()>),
}

/// On the thread that accepts.
#[derive(Default)]
pub(in crate::server) struct Here {
    /// Where their outlets are left, if that is the Coordinator's.
    outlets: Option<Outlets>,
}

impl Here {
    /// On the Coordinator's thread.
    pub(in crate::server) fn beside_coordinator(outlets: Outlets) -> Self {
        Self { outlets: Some(outlets) }
    }
}

impl<S: Socket> Host<S> for Here {
    fn start(&self, arrival: Arrival<S>) {
        let Arrival { stream, connection, certified, peer, place, shared } = arrival;
        #[cfg(feature = "redis-api")]
        if shared.redis.is_some() {
            let session = RedisSession::new(stream, connection, peer, certified, place, shared);
            if let Some(outlets) = &self.outlets {
                outlets.put(connection, session.outlet());
            }
            session.start();
            return;
        }
        let session = Session::new(stream, connection, peer, certified, place, shared);
        if let Some(outlets) = &self.outlets {
            outlets.put(connection, session.outlet());
        }
        session.begin();
    }

    fn barrier(&self) -> Barrier {
        Barrier::default()
    }
}

/// On the thread that accepts, those of TCP.
#[derive(Default)]
pub(in crate::server) struct Tcp {
    /// Where they live.
    pub(in crate::server) here: Here,
    /// Whether they are encrypted.
    pub(in crate::server) secure: Secure,
}

impl Host<TcpStream> for Tcp {
    fn start(&self, arrival: Arrival<TcpStream>) {
        let certified = arrival.certified.clone();
        let (shared, connection) = (Arc::clone(&arrival.shared), arrival.connection);
        let peer = arrival.peer;
        let crowded = move || {
            shared.counters.handshakes_delayed.add_one();
            if shared.counters.chatter.admits(Topic::Crowd, peer) {
                log_lines::crowded(Some(connection), peer);
            }
        };
        let secured = |stream| self.secure.for_locks(stream, certified, crowded);
        self.here.start(arrival.with(secured));
    }

    fn barrier(&self) -> Barrier {
        Barrier::default()
    }
}

/// On threads of their own, which end when this is dropped, and their sessions with them.
pub(in crate::server) struct IoThreads {
    /// To each.
    threads: Vec<UnboundedSender<Job>>,
    /// Index of the thread that has the next.
    next: Cell<usize>,
}

impl IoThreads {
    /// Starts so many, for connections that are encrypted or not.
    ///
    /// # Errors
    ///
    /// If the system has no more threads, or no more file descriptors.
    pub(in crate::server) fn start(count: usize, secure: &Secure) -> io::Result<Self> {
        let start = |number| start_thread(number, secure.clone());
        let threads = (1..=count).map(start).collect::<io::Result<_>>()?;
        Ok(Self { threads, next: Cell::new(0) })
    }
}

impl Host<TcpStream> for IoThreads {
    fn start(&self, arrival: Arrival<TcpStream>) {
        let Arrival { stream, connection, certified, peer, place, shared } = arrival;
        // It is watched by the thread on which it is used.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => return warn!(connection:%; "connection lost: {error}"),
        };
        let next = self.next.get();
        self.next.set((next + 1) % self.threads.len());
        let job = Job::Start(Arrival { stream, connection, certified, peer, place, shared });
        if self.threads[next].send(job).is_err() {
            error!(connection:%; "an I/O thread has ended, and with it a connection");
        }
    }

    fn barrier(&self) -> Barrier {
        let ask = |thread: &UnboundedSender<Job>| -> Ask {
            let thread = thread.clone();
            // One that has ended drops what it is sent, which is an answer.
            Rc::new(move |passed| drop(thread.send(Job::Barrier(passed))))
        };
        Barrier::of(self.threads.iter().map(ask).collect())
    }
}

fn start_thread(number: usize, secure: Secure) -> io::Result<UnboundedSender<Job>> {
    let (sender, jobs) = unbounded_channel();
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new()
        .name(format!("io-{number}"))
        .spawn(move || runtime.block_on(LocalSet::new().run_until(receive(jobs, secure))))?;
    Ok(sender)
}

/// Takes connections in until there can be no more.
async fn receive(mut jobs: UnboundedReceiver<Job>, secure: Secure) {
    let host = Tcp { here: Here::default(), secure };
    while let Some(job) = jobs.recv().await {
        let Arrival { stream, connection, certified, peer, place, shared } = match job {
            Job::Start(arrival) => arrival,
            Job::Barrier(passed) => {
                spawn_local(async {
                    look().await;
                    // Who has asked may be gone.
                    let _ = passed.send(());
                });
                continue;
            }
        };
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                host.start(Arrival { stream, connection, certified, peer, place, shared });
            }
            Err(error) => warn!(connection:%; "connection lost: {error}"),
        }
    }
}
