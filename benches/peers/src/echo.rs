//! The limit: a server that does nothing but answer each frame with one of the wanted length.
//!
//! A frame says how long it is and how long its answer is to be; the rest of both is filler. All
//! frames have the lengths of the coordinator's own for the same purpose, so what is left is the
//! price of the bytes. The server is what tokio's tutorial would make of it: one thread, one read,
//! one write.
//!
//! A connection has the same course, too: greeting and request in one write, release and goodbye in
//! another, and after its goodbye the server takes leave. It shuts its side, by TLS with the farewell
//! that each side has to send (`close_notify`, RFC 8446, 6.1), and reads to the end.

use std::fs;
use std::io;
use std::path::Path;

use bytes::{Buf, BufMut, BytesMut};
use coordinator::tls::{Dialed, TlsOptions};
use coordinator::types::{
    Epoch, FencingToken, Generation, GoodbyeCode, RejectionCode, RequestId, Seal, Secret, SessionId,
};
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, PROTOCOL, RawClaim, ServerMessage, Standing, encode_frame,
};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Failure;
use crate::load::{Answer, Ask, Error, Link, Peer, Plan};
use crate::secure::{self, Files};

/// Both lengths.
const HEAD: usize = 2 * size_of::<u32>();
/// Marks the length of the last answer: behind that the server takes leave.
const LAST: usize = 1 << 31;
/// What a read may bring.
const READ_BYTES: usize = 16 * 1024;

/// Serves until the process ends.
pub(crate) async fn serve(port_file: &Path, files: &Files) -> Result<(), Failure> {
    let acceptor = files.acceptor()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let scratch = port_file.with_extension("new");
    fs::write(&scratch, listener.local_addr()?.port().to_string())?;
    fs::rename(&scratch, port_file)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match acceptor.clone() {
            None => tokio::spawn(answer(stream)),
            Some(acceptor) => tokio::spawn(async move {
                let stream = acceptor.accept(stream).await?;
                answer(stream).await
            }),
        };
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    let (mut unread, mut unsent) = (BytesMut::new(), BytesMut::new());
    loop {
        unread.reserve(READ_BYTES);
        if stream.read_buf(&mut unread).await? == 0 {
            return Ok(());
        }
        let mut is_over = false;
        while let Some((len, answer)) = head(&unread) {
            if unread.len() < len {
                break;
            }
            unread.advance(len);
            is_over = answer & LAST != 0;
            put((answer & !LAST).max(HEAD), 0, &mut unsent);
        }
        stream.write_all(&unsent).await?;
        unsent.clear();
        if is_over {
            return take_leave(stream, unread).await;
        }
    }
}

/// Says that no more comes, and reads what still does.
async fn take_leave(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    mut unread: BytesMut,
) -> io::Result<()> {
    stream.shutdown().await?;
    loop {
        unread.clear();
        if stream.read_buf(&mut unread).await? == 0 {
            return Ok(());
        }
    }
}

/// How long a frame is, and its answer.
fn head(buffer: &[u8]) -> Option<(usize, usize)> {
    let (len, rest) = buffer.split_first_chunk()?;
    let answer = rest.first_chunk()?;
    let number = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes)).ok();
    Some((number(len)?.max(HEAD), number(answer)?))
}

/// Appends a frame of `len` bytes that wants an answer of `answer` bytes.
fn put(len: usize, answer: usize, buffer: &mut BytesMut) {
    for number in [len, answer] {
        buffer.put_u32_le(u32::try_from(number).unwrap_or(u32::MAX));
    }
    buffer.put_bytes(0, len - HEAD);
}

/// How long the coordinator's frames are.
#[derive(Clone, Copy, Debug)]
struct Lengths {
    /// Hello, and its Welcome.
    hello: (usize, usize),
    /// Request, and its Grant.
    request: (usize, usize),
    /// Release, and its Released.
    release: (usize, usize),
    /// Goodbye, and its Goodbye.
    goodbye: (usize, usize),
}

impl Lengths {
    /// Those of a measurement with locks of such names.
    fn of(plan: &Plan) -> Self {
        let hello = ClientMessage::Hello(wire::Hello {
            protocol: PROTOCOL,
            attach: Attach::New,
            ttl_ms: 1,
            linger_ms: Some(0),
            identity: "bench".to_owned(),
            epoch_seen: Epoch(0),
            token_seen: FencingToken(0),
        });
        let welcome = ServerMessage::Welcome {
            protocol: PROTOCOL,
            server: "coordinator 0.1.0".to_owned(),
            epoch: Epoch(1),
            session: SessionId(1),
            secret: Secret::new(1),
            generation: Generation(1),
            ttl_ms: 1,
            standing: Standing::Opened,
        };
        let claim = RawClaim { name: plan.lock_name(0).into(), mode: Mode::Exclusive };
        let request = ClientMessage::Request(wire::Request::new(RequestId(1), [claim]));
        let goodbye = ServerMessage::Goodbye {
            code: GoodbyeCode::Done,
            rejection: RejectionCode::NONE,
            message: "as you say".to_owned(),
        };
        let grant = ServerMessage::Grant {
            request: RequestId(1),
            token: FencingToken(1),
            seal: Seal::new(1),
        };
        let release = ClientMessage::Release { request: RequestId(1), token: FencingToken(1) };
        Self {
            hello: (asked(&hello), told(&welcome)),
            request: (asked(&request), told(&grant)),
            release: (asked(&release), told(&ServerMessage::Released { request: RequestId(1) })),
            goodbye: (asked(&ClientMessage::Goodbye), told(&goodbye)),
        }
    }
}

fn asked(message: &ClientMessage) -> usize {
    let mut buffer = BytesMut::new();
    // A message that cannot be encoded has no length; the server would find a frame too short.
    let _ = encode_frame(message, &mut buffer);
    buffer.len()
}

fn told(message: &ServerMessage) -> usize {
    let mut buffer = BytesMut::new();
    let _ = encode_frame(message, &mut buffer);
    buffer.len()
}

/// An echo server.
#[derive(Clone, Debug)]
pub(crate) struct Echo {
    /// Where it is.
    address: String,
    /// How connections are secured, if they are.
    tls: Option<TlsOptions>,
    /// How many frames go into one write.
    slots: usize,
    /// How long they are.
    lengths: Lengths,
}

impl Echo {
    /// The echo server at `address`, for this measurement.
    pub(crate) fn new(address: String, tls: Option<TlsOptions>, plan: &Plan) -> Self {
        Self { address, tls, slots: plan.slots(), lengths: Lengths::of(plan) }
    }
}

/// A connection to an echo server.
#[derive(Debug)]
pub(crate) struct EchoLink {
    /// The bytes.
    stream: Dialed<TcpStream>,
    /// What will be written next; at first, the greeting.
    unsent: BytesMut,
    /// What was read and not yet counted.
    unread: BytesMut,
    /// How many frames go into one write.
    slots: usize,
    /// How long they are.
    lengths: Lengths,
    /// Whether the greeting is yet to be answered.
    is_greeting: bool,
}

impl Peer for Echo {
    type Link = EchoLink;

    async fn connect(&self, _: usize) -> Result<EchoLink, Error> {
        let stream = secure::connect(&self.address, self.tls.as_ref()).await?;
        let Self { slots, lengths, .. } = *self;
        let mut unsent = BytesMut::new();
        put(lengths.hello.0, lengths.hello.1, &mut unsent);
        Ok(EchoLink { stream, unsent, unread: BytesMut::new(), slots, lengths, is_greeting: true })
    }
}

impl EchoLink {
    async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Reads a frame, which must be so long.
    async fn expect(&mut self, wanted: usize) -> Result<(), Error> {
        loop {
            match head(&self.unread) {
                Some((len, _)) if len != wanted => {
                    let why = json!({ "wanted": wanted, "got": len });
                    return Err(Error::Protocol(format!("an answer of the wrong length: {why}")));
                }
                Some((len, _)) if self.unread.len() >= len => {
                    self.unread.advance(len);
                    return Ok(());
                }
                Some(_) | None => {}
            }
            self.unread.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn expect_greeting(&mut self) -> Result<(), Error> {
        if self.is_greeting {
            self.is_greeting = false;
            self.expect(self.lengths.hello.1).await?;
        }
        Ok(())
    }
}

impl Link for EchoLink {
    async fn greet(&mut self) -> Result<(), Error> {
        self.flush().await?;
        self.expect_greeting().await
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Lengths { request, release, goodbye, .. } = self.lengths;
        let releases = ask != Ask::Acquire;
        let acquires = matches!(ask, Ask::Acquire | Ask::Exchange);
        for _ in 0..self.slots {
            if releases {
                put(release.0, release.1, &mut self.unsent);
            }
            if acquires {
                put(request.0, request.1, &mut self.unsent);
            }
        }
        if ask == Ask::ReleaseAndLeave {
            put(goodbye.0, goodbye.1 | LAST, &mut self.unsent);
        }
        self.flush().await?;
        self.expect_greeting().await?;
        for slot in 0..self.slots {
            if releases {
                self.expect(release.1).await?;
                hear(Answer::Released)?;
            }
            if acquires {
                self.expect(request.1).await?;
                hear(Answer::Granted { slot, token: None })?;
            }
        }
        if ask == Ask::ReleaseAndLeave {
            self.expect(goodbye.1).await?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(self) -> Result<(), Error> {
        Ok(())
    }
}
