//! The port of the Redis dialect, beside that of the locks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use super::Bound;
use crate::redis::{Common, Flushing};
use crate::server::config::{Config, Data};
use crate::server::error::ServerError;
use crate::server::messages::SpeakRedis;
use crate::server::net::listener::{self, Listener};
use crate::server::net::session::Shared;

/// Takes the port, if there is to be one; nobody can connect yet.
pub(super) fn bind(config: &Config) -> Result<Option<(TcpSocket, SocketAddr)>, ServerError> {
    let Some(listen) = config.redis_listen else { return Ok(None) };
    if config.journal.is_none() && matches!(config.data, Data::Directory(_)) {
        return Err(ServerError::RedisWithoutJournal);
    }
    let socket = listener::bind(listen).map_err(|source| failed(listen, source))?;
    Ok(Some((socket, listen)))
}

fn failed(listen: SocketAddr, source: io::Error) -> ServerError {
    ServerError::ListenForRedis { listen, source }
}

impl Bound<TcpListener> {
    /// The same, with this port.
    pub(super) fn with_redis(
        self,
        config: &Config,
        socket: Option<(TcpSocket, SocketAddr)>,
    ) -> Result<Self, ServerError> {
        let Some((socket, listen)) = socket else { return Ok(self) };
        let listener = listener::listen(socket).map_err(|source| failed(listen, source))?;
        let address = listener.local_addr().map_err(|source| failed(listen, source))?;
        Ok(self.speaking_redis(config, listener, address))
    }
}

impl<L: Listener> Bound<L> {
    /// The same, with those who connect here speaking this dialect.
    pub(crate) fn speaking_redis(
        mut self,
        config: &Config,
        listener: L,
        address: SocketAddr,
    ) -> Self {
        let flushing = if config.redis_allow_flush { Flushing::Allowed } else { Flushing::Refused };
        let Shared { coordinator, inbox, counters, handshake_timeout, idle_timeout, .. } =
            &*self.shared;
        let shared = Shared {
            coordinator: coordinator.clone(),
            inbox: inbox.clone(),
            counters: Arc::clone(counters),
            address,
            handshake_timeout: *handshake_timeout,
            idle_timeout: *idle_timeout,
            paces: self.shared.paces.clone(),
            asks_who: self.shared.asks_who,
            latest: Arc::clone(&self.shared.latest),
            redis: Some(Common { scripts: Arc::default(), flushing }),
        };
        // Before anybody of them can connect.
        let needs_journal = matches!(config.data, Data::Directory(_));
        shared.coordinator.do_send(SpeakRedis { needs_journal });
        self.redis = Some((listener, Arc::new(shared)));
        self
    }
}
