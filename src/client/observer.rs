//! A connection that only looks, or takes a lock away.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::codec::FramedRead;

use crate::types::{FencingToken, GoodbyeCode, LockName, RejectionCode};
use crate::wire::{
    self, Attach, ClientCodec, ClientMessage, CodecError, LockStatus, PROTOCOL, Query,
    ServerMessage, ServerStatus, SessionStatus,
};

use super::connect::{CONNECT_TIMEOUT_DEFAULT, default_identity, with_port, within};
use super::core::{Rejection, message_name};
use super::driver::{Connector, Dial};
use super::error::{Error, closed_by_server};

/// No answer has more pages; a server that says so goes round in circles.
const PAGES_MAX: usize = 1_000_000;

/// A connection without a session: for looking at a coordinator, and for revoking grants.
///
/// Holds nothing and keeps nothing alive. Each call waits for its answer, for as long as connecting
/// might have taken. After an error other than [`Error::Rejected`], connect again.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), coordinator::Error> {
/// let mut observer = coordinator::Observer::connect("127.0.0.1:5625").await?;
/// for lock in observer.locks().await? {
///     println!("{}: {} hold it, {} wait", lock.name, lock.holder_count, lock.waiter_count);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Observer {
    /// What the server says.
    reader: FramedRead<OwnedReadHalf, ClientCodec>,
    /// Messages that were read and not looked at yet, the next one last.
    unread: Vec<ServerMessage>,
    /// Where we talk.
    writer: OwnedWriteHalf,
    /// What is not written yet: of a call that was dropped half-way, or of this one.
    outbox: BytesMut,
    /// The number of the latest query. Answers to earlier ones come from calls that were dropped.
    query_id: u64,
    /// How long an answer may take.
    timeout: Duration,
    /// Which server.
    server: Arc<str>,
}

impl Observer {
    /// Connects to the coordinator at `server`, a `host:port`, or a host for the port 5625. This and
    /// every answer may take 5 s.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if none answers there, [`Error::Protocol`] if something else does.
    pub async fn connect(server: impl AsRef<str>) -> Result<Self, Error> {
        Self::connect_timeout(server, CONNECT_TIMEOUT_DEFAULT).await
    }

    /// Connects as [`Observer::connect`] does; this and every answer may take as long as `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Observer::connect`].
    pub async fn connect_timeout(
        server: impl AsRef<str>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let server: Arc<str> = with_port(server.as_ref()).into();
        within(timeout, &server, async {
            let dialled = Dial(Arc::clone(&server)).connect().await;
            let stream = dialled.map_err(|error| Error::unavailable(&server, error))?;
            Self::greet(stream, timeout, &server).await
        })
        .await
    }

    /// The coordinator as a whole.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn server_status(&mut self) -> Result<ServerStatus, Error> {
        match self.inspect(Query::Server).await? {
            ServerMessage::ServerStatus { status, .. } => Ok(status),
            other => Err(self.out_of_place(&other)),
        }
    }

    /// All locks in use, in no particular order. What changes while they are listed may be in the
    /// list or not.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn locks(&mut self) -> Result<Vec<LockStatus>, Error> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            match self.inspect(Query::Locks { cursor }).await? {
                ServerMessage::LockStatus { locks, next, .. } => {
                    all.extend(locks);
                    match next {
                        Some(next) => cursor = next,
                        None => return Ok(all),
                    }
                }
                other => return Err(self.out_of_place(&other)),
            }
        }
        Err(self.broken("a list of locks without an end"))
    }

    /// The lock `name`; `None` if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if that is no name for a lock, others if no answer comes.
    pub async fn lock(&mut self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        let name = lock_name(name.as_ref())?;
        match self.inspect(Query::Lock { name }).await? {
            ServerMessage::LockStatus { mut locks, .. } => Ok(locks.pop()),
            other => Err(self.out_of_place(&other)),
        }
    }

    /// All sessions, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn sessions(&mut self) -> Result<Vec<SessionStatus>, Error> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            match self.inspect(Query::Sessions { cursor }).await? {
                ServerMessage::SessionStatus { sessions, next, .. } => {
                    all.extend(sessions);
                    match next {
                        Some(next) => cursor = next,
                        None => return Ok(all),
                    }
                }
                other => return Err(self.out_of_place(&other)),
            }
        }
        Err(self.broken("a list of sessions without an end"))
    }

    /// Takes the lock `name` away from whoever holds it with `token`; its holder is told. The token
    /// makes sure that nobody is hit who got the lock meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with [`RejectionCode::NoSuchGrant`] if nobody holds the lock with this
    /// token, [`Error::InvalidRequest`] if that is no name for a lock, others if no answer comes.
    pub async fn revoke(
        &mut self,
        name: impl AsRef<str>,
        token: FencingToken,
    ) -> Result<(), Error> {
        let (name, token) = (lock_name(name.as_ref())?, token.number());
        let revoke = |query_id| ClientMessage::Revoke { query_id, name, token };
        match self.ask(revoke).await? {
            ServerMessage::Revoked { .. } => Ok(()),
            other => Err(self.out_of_place(&other)),
        }
    }

    /// How long the coordinator takes to answer: there, through its mailbox, and back.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn ping(&mut self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.server_status().await?;
        Ok(asked.elapsed())
    }

    async fn greet(stream: TcpStream, timeout: Duration, server: &Arc<str>) -> Result<Self, Error> {
        let (reader, writer) = stream.into_split();
        let mut observer = Self {
            reader: FramedRead::new(reader, ClientCodec::new()),
            unread: Vec::new(),
            writer,
            outbox: BytesMut::new(),
            query_id: 0,
            timeout,
            server: Arc::clone(server),
        };
        let hello = ClientMessage::Hello {
            protocol: PROTOCOL,
            attach: Attach::Observer,
            ttl_ms: 0,
            linger_ms: None,
            identity: default_identity(),
            epoch_seen: 0,
            token_seen: 0,
        };
        observer.send(&hello).await?;
        match observer.next().await? {
            ServerMessage::Welcome { protocol: PROTOCOL, .. } => Ok(observer),
            ServerMessage::Welcome { protocol, .. } => {
                Err(observer.broken(format!("it speaks version {protocol}")))
            }
            other => Err(observer.out_of_place(&other)),
        }
    }

    async fn inspect(&mut self, query: Query) -> Result<ServerMessage, Error> {
        self.ask(|query_id| ClientMessage::Inspect { query_id, query }).await
    }

    /// Asks what `message` makes of a query id, and waits for the answer to it.
    async fn ask(
        &mut self,
        message: impl FnOnce(u64) -> ClientMessage,
    ) -> Result<ServerMessage, Error> {
        self.query_id += 1;
        let message = message(self.query_id);
        let (timeout, server) = (self.timeout, Arc::clone(&self.server));
        within(timeout, &server, async {
            self.send(&message).await?;
            loop {
                let answer = self.next().await?;
                match answered(&answer) {
                    Some(query_id) if query_id < self.query_id => {}
                    Some(query_id) if query_id == self.query_id => return accepted(answer),
                    Some(_) | None => return Err(self.out_of_place(&answer)),
                }
            }
        })
        .await
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), Error> {
        wire::encode_frame(message, &mut self.outbox)
            .map_err(|error| Error::invalid("invalid request", error))?;
        let written = self.writer.write_all_buf(&mut self.outbox).await;
        written.map_err(|error| Error::unavailable(&self.server, error))
    }

    /// The next message; the server's goodbye is an error.
    async fn next(&mut self) -> Result<ServerMessage, Error> {
        loop {
            match self.unread.pop() {
                Some(ServerMessage::Goodbye { code, rejection, message }) => {
                    let code = GoodbyeCode::from_number(code);
                    let rejection = RejectionCode::from_number(rejection);
                    return Err(Error::dismissed(&self.server, code, rejection, message));
                }
                Some(message) => return Ok(message),
                None => {}
            }
            match self.reader.next().await {
                Some(Ok(batch)) => self.unread = batch.into_iter().rev().collect(),
                Some(Err(CodecError::Io(error))) => return Err(self.unavailable(error)),
                Some(Err(broken)) => return Err(self.broken(broken.to_string())),
                None => return Err(self.unavailable(closed_by_server())),
            }
        }
    }

    fn unavailable(&self, error: io::Error) -> Error {
        Error::unavailable(&self.server, error)
    }

    fn broken(&self, how: impl Into<String>) -> Error {
        Error::Protocol { server: Arc::clone(&self.server), message: how.into() }
    }

    fn out_of_place(&self, message: &ServerMessage) -> Error {
        self.broken(format!("{} where it does not belong", message_name(message)))
    }
}

/// The query that `message` answers.
fn answered(message: &ServerMessage) -> Option<u64> {
    match message {
        ServerMessage::ServerStatus { query_id, .. }
        | ServerMessage::LockStatus { query_id, .. }
        | ServerMessage::SessionStatus { query_id, .. }
        | ServerMessage::Revoked { query_id }
        | ServerMessage::Subscribed { query_id }
        | ServerMessage::Rejected { request: query_id, .. } => Some(*query_id),
        ServerMessage::Welcome { .. }
        | ServerMessage::Grant { .. }
        | ServerMessage::Queued { .. }
        | ServerMessage::Released { .. }
        | ServerMessage::Cancelled { .. }
        | ServerMessage::Lost { .. }
        | ServerMessage::KeptAlive { .. }
        | ServerMessage::Goodbye { .. }
        | ServerMessage::Event { .. }
        | ServerMessage::Missed { .. } => None,
    }
}

/// The answer, unless it is a *no*.
fn accepted(answer: ServerMessage) -> Result<ServerMessage, Error> {
    match answer {
        ServerMessage::Rejected { request: _, code, message, lock, cycle } => {
            let code = RejectionCode::from_number(code);
            Err(Error::rejected(Rejection { code, message, lock, cycle }))
        }
        answer => Ok(answer),
    }
}

fn lock_name(name: &str) -> Result<String, Error> {
    match LockName::new(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(error) => Err(Error::invalid("invalid lock name", error)),
    }
}
