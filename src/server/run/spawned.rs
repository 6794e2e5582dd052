//! A server on a thread of its own, for programs that carry their coordinator with them.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use super::{Server, ServerHandle};
use crate::server::config::Config;
use crate::server::error::ServerError;
use crate::server::looker::Looker;
use crate::types::Epoch;

/// A server on a thread of its own. Stops at once when dropped, as by [`ServerHandle::stop`].
#[derive(Debug)]
pub struct Spawned {
    /// Where it listens.
    address: SocketAddr,
    /// Its run.
    epoch: Epoch,
    /// Stops it.
    handle: ServerHandle,
    /// Asks it how things are.
    looker: Looker,
    /// Taken when it is waited for.
    thread: Option<JoinHandle<()>>,
}

/// Starts a server on a thread of its own, with an actix `System` of its own. It is for tests,
/// examples, and programs that carry their coordinator with them. It is ready when this returns.
///
/// # Errors
///
/// As [`Server::bind`], and if the thread cannot be started.
///
/// # Examples
///
/// ```
/// use std::net::{Ipv4Addr, SocketAddr};
/// use coordinator::server::{self, Config};
///
/// let mut config = Config::default();
/// config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
/// let server = server::spawn(config).unwrap();
/// assert_ne!(server.local_addr().port(), 0);
/// ```
pub fn spawn(config: Config) -> Result<Spawned, ServerError> {
    let (told, ready) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("coordinator".to_owned())
        .spawn(move || actix::System::new().block_on(serve(config, told)))
        .map_err(ServerError::Thread)?;
    let ended = || ServerError::Thread(io::Error::other("it ended before it was ready"));
    let (address, epoch, handle, looker) = ready.recv().map_err(|_| ended())??;
    Ok(Spawned { address, epoch, handle, looker, thread: Some(thread) })
}

type Ready = Result<(SocketAddr, Epoch, ServerHandle, Looker), ServerError>;

async fn serve(config: Config, told: mpsc::Sender<Ready>) {
    let server = match Server::bind(&config) {
        Ok(server) => server,
        // Nobody is there to hear it if the receiver is gone; so with the news below.
        Err(error) => return drop(told.send(Err(error))),
    };
    let ready = (server.local_addr(), server.epoch(), server.handle(), server.looker());
    if told.send(Ok(ready)).is_ok() {
        // What could not be saved stands in the log.
        let _ = server.run().await;
    }
}

impl Spawned {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Its run.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Something to stop it with, from anywhere.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Something to ask it with how things are, from anywhere.
    pub fn looker(&self) -> Looker {
        self.looker.clone()
    }

    /// Stops it in order, and waits for that: see [`Server::run`].
    pub fn drain(mut self) {
        self.handle.drain();
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // It panicked; that was reported on its thread.
            let _ = thread.join();
        }
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.handle.stop();
        self.join();
    }
}
