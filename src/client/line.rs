//! A connection without a session of its own: its questions and its answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::poll_immediate;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{self, Instant};
use tokio_util::codec::FramedRead;

use crate::types::{GoodbyeCode, RejectionCode};
use crate::wire::{self, Attach, ClientCodec, ClientMessage, CodecError, PROTOCOL, ServerMessage};

use super::connect::{default_identity, within};
use super::core::{Rejection, message_name};
use super::driver::{Connector, Dial};
use super::error::{Error, closed_by_server};
use super::process::{Own, Process};
use super::servers::Servers;

/// Who only listens asks so often whether the server is still there: before the server, or whatever
/// is between, takes the connection for a forgotten one.
const PULSE: Duration = Duration::from_secs(10);

/// A line to a server.
#[derive(Debug)]
pub(super) struct Line {
    /// What the server says.
    reader: Own<FramedRead<OwnedReadHalf, ClientCodec>>,
    /// Messages that were read and not looked at yet, the next one last.
    unread: Vec<ServerMessage>,
    /// Where we talk.
    writer: Own<OwnedWriteHalf>,
    /// Whose it is.
    process: Process,
    /// What is not written yet: of a call that was dropped half-way, or of this one.
    outbox: BytesMut,
    /// The number of the latest query. Answers to earlier ones come from calls that were dropped.
    query_id: u64,
    /// How often a listener asks whether the server is still there.
    pulse: Duration,
    /// When it asks next, or gives the server up: also while it hears much, for the server closes who
    /// says nothing.
    pulse_due: Instant,
    /// Whether it has asked, and has heard nothing since.
    pulse_unanswered: bool,
    /// How long connecting may take, and an answer.
    timeout: Duration,
    /// Which servers, the one it goes to among them.
    servers: Servers,
}

impl Line {
    /// Connects to one of `servers`, to look. This and every answer may take as long as `timeout`.
    pub(super) async fn connect(servers: &Servers, timeout: Duration) -> Result<Self, Error> {
        Self::open(servers, timeout, Attach::Observer, 0).await
    }

    /// The same for whatever `attach` says; `ttl_ms` is the lease that goes with it.
    pub(super) async fn open(
        servers: &Servers,
        timeout: Duration,
        attach: Attach,
        ttl_ms: u32,
    ) -> Result<Self, Error> {
        let server = servers.name();
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        within(timeout, server, async {
            let mut dial = Dial::new(servers.clone());
            for _ in 1..count {
                let attempt =
                    Self::connect_once(&mut dial, timeout, servers, (attach.clone(), ttl_ms));
                match within(timeout / count, server, attempt).await {
                    Err(error) if error.is_retryable() => {}
                    outcome => return outcome,
                }
            }
            // The last one has all the time that is left.
            Self::connect_once(&mut dial, timeout, servers, (attach, ttl_ms)).await
        })
        .await
    }

    async fn connect_once(
        dial: &mut Dial,
        timeout: Duration,
        servers: &Servers,
        purpose: (Attach, u32),
    ) -> Result<Self, Error> {
        let dialled = dial.connect().await;
        let stream = dialled.map_err(|error| Error::unavailable(servers.name(), error))?;
        Self::greet(stream, timeout, servers, purpose).await
    }

    async fn greet(
        stream: TcpStream,
        timeout: Duration,
        servers: &Servers,
        (attach, ttl_ms): (Attach, u32),
    ) -> Result<Self, Error> {
        let (reader, writer) = stream.into_split();
        let mut line = Self {
            reader: Own::new(FramedRead::new(reader, ClientCodec::new())),
            unread: Vec::new(),
            writer: Own::new(writer),
            process: Process::this(),
            outbox: BytesMut::new(),
            query_id: 0,
            pulse: PULSE,
            pulse_due: Instant::now() + PULSE,
            pulse_unanswered: false,
            timeout,
            servers: servers.clone(),
        };
        let hello = ClientMessage::Hello(wire::Hello {
            protocol: PROTOCOL,
            attach,
            ttl_ms,
            linger_ms: None,
            identity: default_identity(),
            epoch_seen: 0,
            token_seen: 0,
        });
        line.send(&hello).await?;
        match line.next().await? {
            ServerMessage::Welcome { protocol: PROTOCOL, .. } => Ok(line),
            ServerMessage::Welcome { protocol, .. } => {
                Err(line.broken(format!("it speaks version {protocol}")))
            }
            other => Err(line.out_of_place(&other)),
        }
    }

    /// Says goodbye, and waits until that is heard.
    pub(super) async fn goodbye(mut self) -> Result<(), Error> {
        self.send(&ClientMessage::Goodbye).await?;
        loop {
            match self.next().await {
                // What the session was told meanwhile is nobody's affair any more.
                Ok(_) => {}
                Err(Error::Dismissed { code: GoodbyeCode::Done, .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Which servers it was to go to.
    pub(super) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// How long connecting may take, and an answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Asks what `message` makes of a query id, and waits for the answer to it.
    pub(super) async fn ask(
        &mut self,
        message: impl FnOnce(u64) -> ClientMessage,
    ) -> Result<ServerMessage, Error> {
        self.query_id += 1;
        let message = message(self.query_id);
        let (timeout, server) = (self.timeout, Arc::clone(self.servers.name()));
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

    /// Waits for the server to say something, however long that takes, and asks it now and then
    /// whether it is still there. What did not come yet when this is dropped is not missed.
    pub(super) async fn listen(&mut self) -> Result<ServerMessage, Error> {
        loop {
            let due = self.pulse_due;
            if Instant::now() >= due && !self.pulse_unanswered {
                self.pulse_unanswered = true;
                self.pulse_due = Instant::now() + self.pulse;
                // If this cannot be said any more, what is still to be read says why.
                let _ = self.send(&ClientMessage::KeepAlive { sequence: 0 }).await;
                continue;
            }
            let heard = tokio::select! {
                biased;
                heard = self.next() => Some(heard?),
                () = time::sleep_until(due) => None,
            };
            if let Some(message) = heard {
                match message {
                    ServerMessage::KeptAlive { .. } => {}
                    message => return accepted(message),
                }
            } else if self.pulse_unanswered && !self.has_come().await? {
                let why = format!("nothing was heard from it for {:?}", self.pulse);
                return Err(self.unavailable(io::Error::new(io::ErrorKind::TimedOut, why)));
            }
        }
    }

    /// Whether something has come while nobody listened: what has is kept.
    async fn has_come(&mut self) -> Result<bool, Error> {
        // Lets the runtime look at its sockets, should we have kept it from that.
        tokio::task::yield_now().await;
        match poll_immediate(self.next()).await {
            Some(message) => {
                self.unread.push(message?);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// The next message, if it was read together with the last, and `is_like` that.
    pub(super) fn next_if(
        &mut self,
        is_like: impl FnOnce(&ServerMessage) -> bool,
    ) -> Option<ServerMessage> {
        self.unread.pop_if(|message| is_like(message))
    }

    async fn send(&mut self, message: &ClientMessage) -> Result<(), Error> {
        self.check_process()?;
        wire::encode_frame(message, &mut self.outbox)
            .map_err(|error| Error::invalid("invalid request", error))?;
        let written = self.writer.write_all_buf(&mut self.outbox).await;
        written.map_err(|error| self.unavailable(error))
    }

    /// The next message; the server's goodbye is an error.
    async fn next(&mut self) -> Result<ServerMessage, Error> {
        self.check_process()?;
        loop {
            if let Some(message) = self.unread.pop() {
                self.pulse_unanswered = false;
                return match message {
                    ServerMessage::Goodbye { code, rejection, message } => {
                        let code = GoodbyeCode::from_number(code);
                        let rejection = RejectionCode::from_number(rejection);
                        Err(Error::dismissed(self.servers.name(), code, rejection, message))
                    }
                    message => Ok(message),
                };
            }
            match self.reader.next().await {
                Some(Ok(batch)) => self.unread = batch.into_iter().rev().collect(),
                Some(Err(CodecError::Io(error))) => return Err(self.unavailable(error)),
                Some(Err(broken)) => return Err(self.broken(broken.to_string())),
                None => return Err(self.unavailable(closed_by_server())),
            }
        }
    }

    /// It is not for a process that forked from the one that connected.
    fn check_process(&self) -> Result<(), Error> {
        if self.process.is_another() { Err(Error::Forked) } else { Ok(()) }
    }

    fn unavailable(&self, error: io::Error) -> Error {
        Error::unavailable(self.servers.name(), error)
    }

    /// The server does not keep to the protocol.
    pub(super) fn broken(&self, how: impl Into<String>) -> Error {
        Error::Protocol { server: Arc::clone(self.servers.name()), message: how.into() }
    }

    /// The server says what it was not asked.
    pub(super) fn out_of_place(&self, message: &ServerMessage) -> Error {
        self.broken(format!("{} where it does not belong", message_name(message)))
    }
}

/// The query that `message` answers.
fn answered(message: &ServerMessage) -> Option<u64> {
    match message {
        ServerMessage::ServerStatus { query_id, .. }
        | ServerMessage::LockStatus { query_id, .. }
        | ServerMessage::SessionStatus { query_id, .. }
        | ServerMessage::Outlook { query_id, .. }
        | ServerMessage::JournalStatus { query_id, .. }
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::client::tests::{answers, read_message};

    #[tokio::test]
    async fn a_listener_notices_that_nobody_is_there_any_more() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for _ in ["Hello", "KeepAlive"] {
                let message = read_message(&mut stream).unwrap();
                let mut bytes = BytesMut::new();
                for answer in answers(&message) {
                    wire::encode_frame(&answer, &mut bytes).unwrap();
                }
                stream.write_all(&bytes).unwrap();
            }
            // Silence from here on, though the connection is there.
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap();
            rest
        });
        let mut line =
            Line::connect(&Servers::from(address), Duration::from_secs(5)).await.unwrap();
        (line.pulse, line.pulse_due) = (Duration::from_millis(20), Instant::now());
        let began = Instant::now();
        let error = line.listen().await.unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }) && error.is_retryable());
        assert!(began.elapsed() >= line.pulse * 2);
        drop(line);
        assert!(!server.join().unwrap().is_empty(), "it was asked once more");
    }

    #[tokio::test]
    async fn a_listener_speaks_now_and_then_however_much_it_hears() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let hello = read_message(&mut stream).unwrap();
            let mut bytes = BytesMut::new();
            let much = vec![ServerMessage::Missed { count: 1 }; 50];
            for answer in answers(&hello).iter().chain(&much) {
                wire::encode_frame(answer, &mut bytes).unwrap();
            }
            stream.write_all(&bytes).unwrap();
            read_message(&mut stream).unwrap()
        });
        let mut line = Line::connect(&address.into(), Duration::from_secs(5)).await.unwrap();
        let mut heard = vec![line.listen().await.unwrap()];
        line.pulse_due = Instant::now();
        // There is always something to hear, and it is heard at once.
        for _ in 0..20 {
            heard.push(line.listen().await.unwrap());
        }
        let said = server.join().unwrap();
        assert!(matches!(said, ClientMessage::KeepAlive { .. }), "{said:?}");
        assert!(heard.iter().all(|heard| matches!(heard, ServerMessage::Missed { .. })));
    }
}
