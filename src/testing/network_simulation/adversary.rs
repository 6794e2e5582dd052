//! A client that means harm: it speaks the protocol, and what it says is dear, useless, or not read.
//!
//! It never asks for what the honest contend for, so whatever happens to these is not its right. All its
//! sessions linger for no time at all, and none outlives its connection: when it has gone, nothing of it
//! may be left.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

use super::network::Network;
use super::stream::millis;
use crate::client::{Connector, Whither};
use crate::testing::fuzz::Random;
use crate::types::{FencingToken, OwnerId, RequestId};
use crate::wire::{self, Attach, ClientMessage, Mode, Query, RawClaim, Wait, encode_frame};

/// The number of its connections.
const ADVERSARY: u64 = u64::MAX;
/// Longest life of one of its connections.
const CONNECTION_MS_MAX: u64 = 3_000;
/// Longest pause between two of its writes.
const PAUSE_MS_MAX: u64 = 200;
/// What it says in one write.
const BATCH: usize = 10;
/// Locks of its own.
const LOCKS: usize = 3;
/// The patience of a write that nobody takes.
const WRITE_PATIENCE: Duration = Duration::from_millis(200);

/// Does harm until `end`. Says how many messages it has sent.
pub(super) async fn do_harm(network: &Network, mut random: Random, end: Instant) -> u64 {
    let mut sent = 0;
    while Instant::now() < end {
        sleep(millis(&mut random, PAUSE_MS_MAX)).await;
        let Ok(stream) = network.route(ADVERSARY).connect(Whither::Back).await else { continue };
        let life = millis(&mut random, CONNECTION_MS_MAX).min(end - Instant::now().min(end));
        let mut connection = Connection { stream, latest: 0, reads: random.once_in(2), sent: 0 };
        // However it ends: by then it has done what harm it could.
        let _ = timeout(life, connection.live(&mut random)).await;
        sent += connection.sent;
    }
    sent
}

/// One of its connections.
struct Connection<S> {
    /// Its bytes.
    stream: S,
    /// The latest request of its session.
    latest: u64,
    /// Whether it reads what it is told.
    reads: bool,
    /// Messages that it has sent.
    sent: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Says one thing after the other, until it is thrown out or its time is over.
    async fn live(&mut self, random: &mut Random) {
        let attach = if random.once_in(4) { Attach::Observer } else { Attach::New };
        let hello = ClientMessage::Hello(wire::Hello {
            ttl_ms: 2_000,
            linger_ms: Some(0),
            ..wire::Hello::new(attach, "adversary")
        });
        let mut said = vec![hello];
        loop {
            let mut frames = BytesMut::new();
            for message in said.drain(..) {
                if encode_frame(&message, &mut frames).is_ok() {
                    self.sent += 1;
                }
            }
            match timeout(WRITE_PATIENCE, self.stream.write_all(&frames)).await {
                Ok(Ok(())) => {}
                // Nobody takes it, or nobody is there.
                Ok(Err(_)) => return,
                Err(_) => sleep(WRITE_PATIENCE).await,
            }
            if self.reads {
                let mut heard = vec![0; 64 * 1024];
                let read = timeout(Duration::from_millis(1), self.stream.read(&mut heard)).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    return;
                }
            }
            sleep(millis(random, PAUSE_MS_MAX)).await;
            let what = random.below(8);
            said.extend((0..BATCH).map(|_| self.something(what, random)));
        }
    }

    /// The next thing of a kind.
    fn something(&mut self, what: usize, random: &mut Random) -> ClientMessage {
        let name = format!("evil-{}", random.below(LOCKS));
        let query_id = 1;
        match what {
            0 => ClientMessage::Account(wire::Account {
                from: RequestId::new(u64::MAX),
                to: RequestId::new(u64::MAX),
                held: Vec::new(),
                waiting: Vec::new(),
            }),
            // Of a lock that the honest hold, with a token that nobody has.
            1 => ClientMessage::Revoke { query_id, name: "lock-1".into(), token: FencingToken(1) },
            2 => ClientMessage::Watch { query_id, name },
            3 => ClientMessage::Subscribe { query_id, name: None },
            4 => ClientMessage::Inspect { query_id, query: Query::Locks { cursor: 0 } },
            5 => ClientMessage::Cancel { request: RequestId::new(self.latest) },
            _ => {
                self.latest += 1;
                let owner = 1 + random.below(4) as u64;
                let mode = if random.once_in(3) { Mode::Shared } else { Mode::Exclusive };
                ClientMessage::Request(wire::Request {
                    owner: OwnerId::new(owner),
                    wait: Wait::millis(200),
                    progress: true,
                    ..wire::Request::new(
                        RequestId::new(self.latest),
                        [RawClaim { name: name.into(), mode }],
                    )
                })
            }
        }
    }
}
