//! A client that only stores: sessions, held locks, waiters, in great numbers.

use bytes::BytesMut;
use coordinator::types::{Epoch, FencingToken, OwnerId, RequestId};
use coordinator::wire::{
    self, Attach, ClientCodec, ClientMessage, Mode, PROTOCOL, RawClaim, ServerMessage, Wait,
    encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::Decoder;

use crate::Failure;

/// How many requests go into one write.
const BATCH: usize = 128;
/// Length of a lease: the longest, so that it needs no renewal.
const TTL_MS: u32 = 3_600_000;

/// A session that holds and awaits a lot.
pub(crate) struct Filler {
    /// The bytes.
    stream: TcpStream,
    /// What was read and not yet understood.
    unread: BytesMut,
    /// Makes messages of it.
    codec: ClientCodec,
    /// The latest request.
    request: u64,
    /// What is held: the requests and their tokens.
    held: Vec<(RequestId, FencingToken)>,
}

impl Filler {
    /// Opens a session.
    pub(crate) async fn open(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        let (unread, codec) = (BytesMut::new(), ClientCodec::new());
        let mut filler = Self { stream, unread, codec, request: 0, held: Vec::new() };
        let hello = ClientMessage::Hello(wire::Hello {
            protocol: PROTOCOL,
            attach: Attach::New,
            ttl_ms: TTL_MS,
            linger_ms: Some(0),
            identity: "filler".to_owned(),
            epoch_seen: Epoch(0),
            token_seen: FencingToken(0),
        });
        let is_welcome = |message: &ServerMessage| matches!(message, ServerMessage::Welcome { .. });
        filler.say(&[hello], is_welcome).await?;
        Ok(filler)
    }

    /// Holds this many locks of names of its own.
    pub(crate) async fn hold(
        &mut self,
        names: impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        let names: Vec<String> = names.collect();
        for names in names.chunks(BATCH) {
            let asked: Vec<_> =
                names.iter().map(|name| self.request(name.clone(), Wait::Forever)).collect();
            let is_grant = |message: &ServerMessage| matches!(message, ServerMessage::Grant { .. });
            self.say(&asked, is_grant).await?;
        }
        Ok(())
    }

    /// Waits so many times for a lock that somebody else holds.
    pub(crate) async fn queue_up(
        &mut self,
        name: &str,
        times: usize,
        wait: Wait,
    ) -> Result<(), Failure> {
        let mut left = times;
        while left > 0 {
            let some = left.min(BATCH);
            left -= some;
            let asked: Vec<_> = (0..some).map(|_| self.request(name.to_owned(), wait)).collect();
            let is_queued =
                |message: &ServerMessage| matches!(message, ServerMessage::Queued { .. });
            self.say(&asked, is_queued).await?;
        }
        Ok(())
    }

    /// Gives back all that it holds.
    pub(crate) async fn release_all(&mut self) -> Result<(), Failure> {
        let held = std::mem::take(&mut self.held);
        for held in held.chunks(BATCH) {
            let release = |(request, token): &(RequestId, FencingToken)| ClientMessage::Release {
                request: *request,
                token: *token,
            };
            let asked: Vec<_> = held.iter().map(release).collect();
            let is_released =
                |message: &ServerMessage| matches!(message, ServerMessage::Released { .. });
            self.say(&asked, is_released).await?;
        }
        Ok(())
    }

    fn request(&mut self, name: String, wait: Wait) -> ClientMessage {
        self.request += 1;
        ClientMessage::Request(wire::Request {
            request: RequestId(self.request),
            owner: OwnerId(0),
            converts: None,
            wait,
            progress: false,
            lock_delay_ms: 0,
            note: String::new(),
            ticket: None,
            claims: [RawClaim { name: name.into(), mode: Mode::Exclusive }].into(),
        })
    }

    /// Says all in one write, and reads until each has its answer, which must be of the right kind.
    async fn say(
        &mut self,
        messages: &[ClientMessage],
        is_right: impl Fn(&ServerMessage) -> bool,
    ) -> Result<(), Failure> {
        let mut frames = BytesMut::new();
        for message in messages {
            encode_frame(message, &mut frames)?;
        }
        self.stream.write_all(&frames).await?;
        let mut left = messages.len();
        while left > 0 {
            while let Some(answers) = self.codec.decode(&mut self.unread)? {
                for answer in answers {
                    if !is_right(&answer) {
                        return Err(
                            format!("the coordinator would not store it: {answer:?}").into()
                        );
                    }
                    if let ServerMessage::Grant { request, token, .. } = answer {
                        self.held.push((request, token));
                    }
                    left -= 1;
                }
            }
            if left > 0 && self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err("the coordinator closed the connection".into());
            }
        }
        Ok(())
    }
}
