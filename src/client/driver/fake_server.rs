//! A server at the other end of a pipe that says what a test wants it to say.

use std::collections::VecDeque;

use tokio::io::{DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::client::{Client, ClientBuilder, LockGuard};
use crate::types::{GoodbyeCode, RejectionCode};
use crate::wire::{ClientMessage, PROTOCOL, ServerCodec};

/// Tokio's time, which tests can stop and move.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_000_000).after(self.0.elapsed())
    }
}

pub(super) fn builder() -> ClientBuilder {
    Client::builder().clock(Arc::new(TokioClock(Instant::now())))
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
        assert!(matches!(server.hear().await, ClientMessage::Hello { .. }));
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
        let ClientMessage::Request { request: id, .. } = self.hear().await else { panic!() };
        self.say(&[ServerMessage::Grant { request: id, token }]).await;
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
    ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "test".to_owned(),
        epoch: 3,
        session: 42,
        secret: 43,
        generation: 1,
        ttl_ms: 10_000,
    }
}

pub(super) fn rejected(request: u64, code: RejectionCode) -> ServerMessage {
    let (code, message) = (code.number(), "for a test".to_owned());
    ServerMessage::Rejected { request, code, message, lock: None }
}

pub(super) fn goodbye(code: GoodbyeCode, rejection: u16) -> ServerMessage {
    ServerMessage::Goodbye { code: code.number(), rejection, message: "for a test".to_owned() }
}
