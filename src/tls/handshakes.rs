//! The thread that makes handshakes.
//!
//! A handshake takes a hundred times the work of a message. So those of both ports are made on a thread of
//! their own, and whatever comes there, sessions keep theirs. A connection whose handshake is over moves to the
//! thread where it is used. The thread has the priority of the others: a lower one made each connection dearer
//! (docs/performance.md).

use std::future::Future;
use std::io;
use std::net;
use std::sync::Arc;
use std::thread;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::crowd::{Crowd, Turn};
use super::movable::Movable;

/// A connection by TLS.
type Encrypted = Box<TlsStream<Movable<TcpStream>>>;

/// The way to the thread. It ends with the last clone of this, and all that it has not finished.
///
/// What waits there is bounded by the number of connections: one that is given up takes its handshake along.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    /// To the thread.
    thread: UnboundedSender<Handshake>,
    /// Those with whom handshakes are under way.
    crowd: Crowd,
}

/// One that is to be made.
struct Handshake {
    /// The connection.
    stream: net::TcpStream,
    /// What the server shows and asks for.
    config: Arc<ServerConfig>,
    /// Its turn, which is over with it.
    turn: Turn,
    /// Who waits for it, and for how long. The connection comes back unwatched.
    over: oneshot::Sender<io::Result<Encrypted>>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system has no more threads, or no more file descriptors.
    pub(super) fn start() -> io::Result<Self> {
        let (sender, waiting) = unbounded_channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("handshakes".to_owned())
            .spawn(move || runtime.block_on(LocalSet::new().run_until(make_all(waiting))))?;
        Ok(Self { thread: sender, crowd: Crowd::default() })
    }

    /// Makes the handshake of a connection, when it is its turn: `crowded` is called if that has not come at once.
    /// It begins with the first poll, so a peer from which nothing is read for now costs nothing. Dropped, it is
    /// given up, and the connection with it.
    ///
    /// # Errors
    ///
    /// If the handshake fails, or the connection.
    pub(super) fn make(
        &self,
        stream: TcpStream,
        config: Arc<ServerConfig>,
        crowded: impl FnOnce() + Send + 'static,
    ) -> impl Future<Output = io::Result<Encrypted>> + Send + 'static {
        let Self { thread, crowd } = self.clone();
        async move {
            // Who has no address any more has no handshake either.
            let turn = crowd.turn(stream.peer_addr()?.ip(), crowded).await;
            let (over, shaken) = oneshot::channel();
            let ended = || io::Error::other("the thread that makes handshakes has ended");
            let handshake = Handshake { stream: stream.into_std()?, config, turn, over };
            thread.send(handshake).map_err(|_| ended())?;
            let mut stream = shaken.await.map_err(|_| ended())??;
            stream.get_mut().0.watch()?;
            Ok(stream)
        }
    }
}

async fn make_all(mut waiting: UnboundedReceiver<Handshake>) {
    while let Some(Handshake { stream, config, turn, mut over }) = waiting.recv().await {
        spawn_local(async move {
            tokio::select! {
                biased;
                () = over.closed() => {}
                // Whoever waited may be gone just now.
                shaken = make(stream, config) => {
                    drop(turn);
                    drop(over.send(shaken));
                }
            }
        });
    }
}

async fn make(stream: net::TcpStream, config: Arc<ServerConfig>) -> io::Result<Encrypted> {
    let stream = Movable::Watched(TcpStream::from_std(stream)?);
    let mut stream = Box::new(TlsAcceptor::from(config).accept(stream).await?);
    stream.get_mut().0.unwatch()?;
    Ok(stream)
}
