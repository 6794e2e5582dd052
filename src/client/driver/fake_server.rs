//! A server at the other end of a pipe that says what a test wants it to say.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio::time::Instant;
use tokio_util::codec::FramedRead;

use super::connector::Connecting;
use super::*;
use crate::client::{Client, ClientBuilder, LockGuard};
use crate::types::{
    Epoch, FencingToken, Generation, GoodbyeCode, RejectionCode, RequestId, Seal, Secret,
    ServerAddress, SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, PROTOCOL, SealedTicket, ServerCodec, ServerMessage, Standing,
};

/// Tokio's time, which tests can stop and move.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000).after(self.0.elapsed())
    }
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(TokioClock(Instant::now()))
}

pub(super) fn builder() -> ClientBuilder {
    Client::builder().clock(clock())
}

/// Where a client's connections go: each, as it is made, is given to the test.
pub(super) struct Harbour {
    arrivals: mpsc::UnboundedReceiver<FakeServer>,
    /// Where each attempt to connect goes first, if somebody named it.
    pub(super) hints: mpsc::UnboundedReceiver<Option<ServerAddress>>,
    /// While set, nobody answers.
    closed: Arc<AtomicBool>,
}

/// The client's way there.
pub(super) struct Route {
    arrivals: mpsc::UnboundedSender<FakeServer>,
    hints: mpsc::UnboundedSender<Option<ServerAddress>>,
    servers: usize,
    closed: Arc<AtomicBool>,
}

impl Harbour {
    pub(super) fn new() -> (Self, Route) {
        let (sender, arrivals) = mpsc::unbounded_channel();
        let (hinted, hints) = mpsc::unbounded_channel();
        let closed = Arc::new(AtomicBool::new(false));
        let route =
            Route { arrivals: sender, hints: hinted, servers: 1, closed: Arc::clone(&closed) };
        (Self { arrivals, hints, closed }, route)
    }

    /// A client that is welcome and will come back, and the server of its first connection.
    pub(super) async fn with_client() -> (Self, FakeServer, Client) {
        let (mut harbour, route) = Self::new();
        let client = tokio::spawn(builder().connect_by(route));
        let mut server = harbour.arrival().await;
        assert!(matches!(server.hear().await, ClientMessage::Hello(_)));
        server.say(&[welcome()]).await;
        (harbour, server, client.await.unwrap().unwrap())
    }

    /// A client that holds request 1 of the lock `printer` with token 7.
    pub(super) async fn with_guard() -> (Self, FakeServer, Client, LockGuard) {
        let (harbour, mut server, client) = Self::with_client().await;
        let guard = server.grant_next(&client, 7).await;
        (harbour, server, client, guard)
    }

    /// Lets connections be made, or not.
    pub(super) fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Release);
    }

    /// The server of the next connection.
    pub(super) async fn arrival(&mut self) -> FakeServer {
        self.arrivals.recv().await.expect("the client is gone")
    }

    /// The server of the next connection, which resumes the session with this generation, and is
    /// welcomed.
    pub(super) async fn resumed(&mut self, generation: u64, standing: Standing) -> FakeServer {
        let mut server = self.arrival().await;
        let ClientMessage::Hello(wire::Hello { attach, .. }) = server.hear().await else {
            panic!("no Hello")
        };
        assert_eq!(
            attach,
            Attach::Resume {
                session: SessionId(42),
                secret: Secret::new(43),
                generation: Generation::new(generation)
            }
        );
        let epoch = if standing == Standing::Resumed { 3 } else { 4 };
        server.say(&[welcome_as(epoch, generation, standing)]).await;
        server
    }
}

impl Connector for Route {
    type Io = DuplexStream;

    fn servers(&self) -> usize {
        self.servers
    }

    fn connect(&mut self, whither: Whither<'_>) -> Connecting<DuplexStream> {
        let hint = match whither {
            Whither::To(leader) => Some(leader.clone()),
            Whither::Back | Whither::Elsewhere => None,
        };
        let _ = self.hints.send(hint);
        if self.closed.load(Ordering::Acquire) {
            return Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) });
        }
        let (server, near) = FakeServer::new();
        let _ = self.arrivals.send(server);
        Box::pin(async { Ok(near) })
    }
}

/// The other end of a client's connection.
pub(super) struct FakeServer {
    pub(super) reader: FramedRead<ReadHalf<DuplexStream>, ServerCodec>,
    pub(super) writer: WriteHalf<DuplexStream>,
    heard: VecDeque<ClientMessage>,
}

impl FakeServer {
    /// A client that is welcome, and its server.
    pub(super) async fn with_client() -> (Self, Client) {
        let (mut server, near) = Self::new();
        let client = tokio::spawn(builder().connect_with(near));
        assert!(matches!(server.hear().await, ClientMessage::Hello(_)));
        server.say(&[welcome()]).await;
        (server, client.await.unwrap().unwrap())
    }

    /// A client that holds request 1 of the lock `printer` with token 7, and its server.
    pub(super) async fn with_guard() -> (Self, Client, LockGuard) {
        let (mut server, client) = Self::with_client().await;
        let guard = server.grant_next(&client, 7).await;
        (server, client, guard)
    }

    pub(super) fn new() -> (Self, DuplexStream) {
        let (near, far) = duplex(64 * 1024);
        let (reader, writer) = tokio::io::split(far);
        let mut codec = ServerCodec::before_hello();
        codec.hello_accepted();
        let reader = FramedRead::new(reader, codec);
        (Self { reader, writer, heard: VecDeque::new() }, near)
    }

    pub(super) async fn grant_next(&mut self, client: &Client, token: u64) -> LockGuard {
        let request = tokio::spawn(client.lock("printer").into_future());
        let ClientMessage::Request(wire::Request { request: id, .. }) = self.hear().await else {
            panic!()
        };
        self.say(&[grant(id.number(), token)]).await;
        request.await.unwrap().unwrap()
    }

    /// The client's next message.
    pub(super) async fn hear(&mut self) -> ClientMessage {
        while self.heard.is_empty() {
            let batch = self.reader.next().await.expect("the client hung up").unwrap();
            self.heard.extend(batch);
        }
        self.heard.pop_front().unwrap()
    }

    /// Whether the client hung up after nothing but what was heard.
    pub(super) async fn sees_end(&mut self) -> bool {
        self.heard.is_empty() && self.reader.next().await.is_none()
    }

    /// Whether the client hung up after a keep-alive that nobody answered.
    pub(super) async fn sees_keep_alive_and_end(&mut self) -> bool {
        matches!(self.hear().await, ClientMessage::KeepAlive { .. }) && self.sees_end().await
    }

    pub(super) async fn say(&mut self, messages: &[ServerMessage]) {
        let mut bytes = BytesMut::new();
        for message in messages {
            wire::encode_frame(message, &mut bytes).unwrap();
        }
        self.writer.write_all_buf(&mut bytes).await.unwrap();
    }

    /// Answers keep-alives until the client hangs up; gives their number.
    pub(super) async fn keep_alive(mut self) -> u64 {
        let mut count = 0;
        while let Some(Ok(batch)) = self.reader.next().await {
            for message in batch {
                if let ClientMessage::KeepAlive { sequence } = message {
                    self.say(&[ServerMessage::KeptAlive { sequence }]).await;
                    count += 1;
                }
            }
        }
        count
    }
}

pub(super) fn welcome() -> ServerMessage {
    welcome_as(3, 1, Standing::Opened)
}

pub(super) fn welcome_as(epoch: u64, generation: u64, standing: Standing) -> ServerMessage {
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "test".to_owned(),
        epoch: Epoch::new(epoch),
        session: SessionId(42),
        secret: Secret::new(43),
        generation: Generation::new(generation),
        ttl_ms: 10_000,
        standing,
    }
}

pub(super) fn queued(request: u64, position: u64) -> ServerMessage {
    let ticket = SealedTicket::from_halves(3, request);
    ServerMessage::Queued { request: RequestId::new(request), position, ticket }
}

pub(super) fn grant(request: u64, token: u64) -> ServerMessage {
    ServerMessage::Grant {
        request: RequestId::new(request),
        token: FencingToken::new(token),
        seal: Seal::new(u128::from(token) << 64),
    }
}

pub(super) fn rejected(request: u64, code: RejectionCode) -> ServerMessage {
    let (code, message) = (code.number(), "for a test".to_owned());
    ServerMessage::Rejected {
        cycle: crate::types::Cycle::default(),
        request: RequestId::new(request),
        code: RejectionCode::from_number(code),
        message,
        lock: None,
    }
}

pub(super) fn goodbye(code: GoodbyeCode, rejection: u16) -> ServerMessage {
    ServerMessage::Goodbye {
        code,
        rejection: RejectionCode::from_number(rejection),
        message: "for a test".to_owned(),
    }
}
