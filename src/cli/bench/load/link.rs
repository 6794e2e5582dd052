//! Connections that speak the wire's protocol, with nothing between them and the socket.
//!
//! The messages of a turn go out in one write. The slots keep the questions, and every answer must
//! fit that of its slot.

use std::time::Duration;

use bytes::BytesMut;
use coordinator::Credential;
use coordinator::tls::{Dialed, TlsOptions};
use coordinator::types::{FencingToken, Mode as HowHeld, RequestId};
use coordinator::wire::{
    self, Attach, ClientCodec, ClientMessage, Mode, RawClaim, ServerMessage, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_util::codec::Decoder;

use super::checks::Violation;
use super::plan::Plan;
use super::{Answer, Ask, Error, Link, Peer};

/// Length of a session's lease: long, so that keep-alives are few. Nothing outlives a connection
/// anyway, for the linger is 0.
const TTL: Duration = Duration::from_secs(40);
/// How often a keep-alive is said if nothing else is.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A coordinator that answers so many of them with nothing at all has fallen silent.
const KEEP_ALIVES_UNANSWERED_MAX: u32 = 2;
/// What a read may bring, whatever was asked.
const READ_BYTES: usize = 512;
/// What the answers to one slot's questions may need besides.
const READ_BYTES_PER_SLOT: usize = 64;

/// A coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Coordinator {
    /// Where it is.
    pub(crate) server: String,
    /// Its host and how to trust it, if it speaks TLS.
    pub(crate) tls: Option<(String, TlsOptions)>,
    /// What proves who we are, if anything does.
    pub(crate) credential: Option<Credential>,
    /// How long connecting may take.
    pub(crate) connect_timeout: Duration,
    /// Plan of its connections.
    pub(crate) plan: Plan,
}

/// A connection to a coordinator, and its session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its number, for errors.
    number: usize,
    /// The bytes.
    stream: Dialed<TcpStream>,
    /// Bytes that will be written next; at first, the Hello.
    unsent: BytesMut,
    /// Bytes that were read and not yet understood.
    unread: BytesMut,
    /// Makes messages of it.
    codec: ClientCodec,
    /// How long the Welcome may take.
    connect_timeout: Duration,
    /// Whether it has come.
    is_welcomed: bool,
    /// Where in its life the session is.
    state: State,
    /// The locks.
    slots: Vec<Slot>,
    /// The id of the latest request of slot 0; the other slots' ids follow it.
    base: u64,
    /// Counts keep-alives.
    sequence: u64,
    /// Goes off when a keep-alive may be due.
    keep_alive: Interval,
}

/// Where in its life a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The Hello was not answered.
    Greeting,
    /// There is a session.
    Open,
    /// Goodbye is said.
    Leaving,
    /// Goodbye is answered.
    Over,
}

/// One of a connection's locks.
#[derive(Debug)]
struct Slot {
    /// Message that asks for it; only the id changes.
    request: ClientMessage,
    /// Its state, as known.
    now: Standing,
    /// The request that was released and not yet answered, if there is one.
    released: Option<RequestId>,
}

/// What is known of a lock of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Nothing is asked.
    Free,
    /// It is asked for.
    Asked(RequestId),
    /// It is held.
    Held {
        /// The request.
        request: RequestId,
        /// The token.
        token: FencingToken,
    },
}

impl Peer for Coordinator {
    type Link = Session;

    async fn connect(&self, number: usize) -> Result<Session, Error> {
        let connecting = timeout(self.connect_timeout, TcpStream::connect(&self.server));
        let stream = connecting.await.map_err(|_| std::io::Error::from(TIMED_OUT))??;
        stream.set_nodelay(true)?;
        let is_local = stream.peer_addr()?.ip().to_canonical().is_loopback();
        if self.credential.is_some() && self.tls.is_none() && !is_local {
            return Err(
                std::io::Error::other("the credential would be readable on the wire").into()
            );
        }
        let stream = match &self.tls {
            None => Dialed::Plain(stream),
            Some((host, tls)) => tls.secure(stream, host).await?,
        };
        let mut unsent = BytesMut::new();
        if let Some(credential) = &self.credential {
            let credential = credential.into();
            put(&ClientMessage::Authenticate { credential }, &mut unsent)?;
        }
        put(&hello(), &mut unsent)?;
        let slots = (0..self.plan.slots()).map(|slot| {
            let name = self.plan.lock_name(self.plan.lock(number, slot));
            let request = request(name, self.plan.mode);
            Slot { request, now: Standing::Free, released: None }
        });
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Session {
            number,
            stream,
            unsent,
            unread: BytesMut::new(),
            codec: ClientCodec::new(),
            connect_timeout: self.connect_timeout,
            is_welcomed: false,
            state: State::Greeting,
            slots: slots.collect(),
            base: 1,
            sequence: 0,
            keep_alive,
        })
    }
}

const TIMED_OUT: std::io::ErrorKind = std::io::ErrorKind::TimedOut;

impl Session {
    /// Encodes what the slots have to say.
    fn put_turn(&mut self, ask: Ask) -> Result<usize, Error> {
        let Self { slots, unsent, .. } = self;
        let mut answers = 0;
        let next = self.base + slots.len() as u64;
        for (id, slot) in (next..).map(RequestId::new).zip(slots.iter_mut()) {
            if ask != Ask::Acquire
                && let Standing::Held { request, token } = slot.now
            {
                put(&ClientMessage::Release { request, token }, unsent)?;
                (slot.now, slot.released) = (Standing::Free, Some(request));
                answers += 1;
            }
            if matches!(ask, Ask::Acquire | Ask::Exchange) && slot.now == Standing::Free {
                if let ClientMessage::Request(wire::Request { request, .. }) = &mut slot.request {
                    *request = id;
                }
                put(&slot.request, unsent)?;
                slot.now = Standing::Asked(id);
                answers += 1;
            }
        }
        match ask {
            Ask::Acquire | Ask::Exchange => self.base = next,
            Ask::Release => {}
            Ask::ReleaseAndLeave => {
                put(&ClientMessage::Goodbye, unsent)?;
                self.state = State::Leaving;
            }
        }
        Ok(answers)
    }

    /// Writes all that is to be said.
    async fn flush(&mut self) -> Result<(), Error> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Reads what comes next, and keeps the session alive meanwhile.
    async fn read(&mut self) -> Result<Vec<ServerMessage>, Error> {
        let mut unanswered = 0;
        loop {
            if let Some(messages) = self.codec.decode(&mut self.unread).map_err(protocol)? {
                return Ok(messages);
            }
            self.unread.reserve(READ_BYTES + READ_BYTES_PER_SLOT * self.slots.len());
            tokio::select! {
                biased;
                read = self.stream.read_buf(&mut self.unread) => if read? == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                },
                () = sleep(self.connect_timeout), if !self.is_welcomed => {
                    return Err(std::io::Error::from(TIMED_OUT).into());
                }
                _ = self.keep_alive.tick() => {
                    if unanswered == KEEP_ALIVES_UNANSWERED_MAX {
                        return Err(std::io::Error::from(TIMED_OUT).into());
                    }
                    unanswered += 1;
                    self.renew().await?;
                }
            }
        }
    }

    /// Says that we are alive. The answer is dropped when it comes.
    async fn renew(&mut self) -> Result<(), Error> {
        self.sequence += 1;
        put(&ClientMessage::KeepAlive { sequence: self.sequence }, &mut self.unsent)?;
        self.flush().await
    }

    /// Takes note of a message; of what it answers, if it answers a slot.
    fn hear(&mut self, message: ServerMessage) -> Result<Option<Answer>, Error> {
        match message {
            ServerMessage::Welcome { .. } if self.state == State::Greeting => {
                self.state = State::Open;
                self.is_welcomed = true;
                Ok(None)
            }
            // A Hello and a Goodbye may have travelled together.
            ServerMessage::Welcome { .. } if self.state == State::Leaving => {
                self.is_welcomed = true;
                Ok(None)
            }
            ServerMessage::Grant { request, token, .. } => {
                let slot = self.slot_of(request, self.base);
                match slot.and_then(|slot| self.slots.get_mut(slot).zip(Some(slot))) {
                    Some((known, slot)) if known.now == Standing::Asked(request) => {
                        known.now = Standing::Held { request, token };
                        Ok(Some(Answer::Granted { slot, token: Some(token.number()) }))
                    }
                    _ => Err(self.wrong(&message)),
                }
            }
            ServerMessage::Released { request } => {
                // A release may be answered in the turn of the next request.
                let bases = [self.base, self.base.saturating_sub(self.slots.len() as u64)];
                let slot = bases.iter().find_map(|base| self.slot_of(request, *base));
                match slot.and_then(|slot| self.slots.get_mut(slot)) {
                    Some(known) if known.released == Some(request) => {
                        known.released = None;
                        Ok(Some(Answer::Released))
                    }
                    _ => Err(self.wrong(&message)),
                }
            }
            // That a request waits is told unasked, once.
            ServerMessage::Queued { .. } | ServerMessage::KeptAlive { .. } => Ok(None),
            ServerMessage::Rejected { code, message, .. } => Err(Error::Rejected { code, message }),
            ServerMessage::Lost { token, .. } => {
                Err(Violation::Lost { connection: self.number, token: token.number() }.into())
            }
            ServerMessage::Goodbye { .. } if self.state == State::Leaving => {
                self.state = State::Over;
                Ok(None)
            }
            ServerMessage::Goodbye { code, message, .. } => Err(Error::Dismissed { code, message }),
            other => Err(self.wrong(&other)),
        }
    }

    /// The slot that has the id `request` if slot 0 has `base`.
    fn slot_of(&self, request: RequestId, base: u64) -> Option<usize> {
        let slot = usize::try_from(request.number().checked_sub(base)?).ok()?;
        (slot < self.slots.len()).then_some(slot)
    }

    fn wrong(&self, answer: &ServerMessage) -> Error {
        Violation::WrongAnswer { connection: self.number, answer: format!("{answer:?}") }.into()
    }
}

impl Link for Session {
    async fn greet(&mut self) -> Result<(), Error> {
        self.flush().await?;
        while self.state == State::Greeting {
            for message in self.read().await? {
                self.hear(message)?;
            }
        }
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut answers = self.put_turn(ask)?;
        self.flush().await?;
        while answers > 0 || self.state == State::Leaving {
            for message in self.read().await? {
                if let Some(answer) = self.hear(message)? {
                    hear(answer)?;
                    answers = answers.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        loop {
            self.keep_alive.tick().await;
            self.renew().await?;
        }
    }

    async fn leave(mut self) -> Result<(), Error> {
        put(&ClientMessage::Goodbye, &mut self.unsent)?;
        self.state = State::Leaving;
        self.flush().await?;
        while self.state == State::Leaving {
            for message in self.read().await? {
                self.hear(message)?;
            }
        }
        Ok(())
    }
}

fn hello() -> ClientMessage {
    ClientMessage::Hello(wire::Hello {
        ttl_ms: u32::try_from(TTL.as_millis()).unwrap_or(u32::MAX),
        linger_ms: Some(0),
        ..wire::Hello::new(Attach::New, "bench")
    })
}

fn request(name: String, mode: HowHeld) -> ClientMessage {
    let mode = match mode {
        HowHeld::Exclusive => Mode::Exclusive,
        HowHeld::Shared => Mode::Shared,
        HowHeld::Permits { take, of } => Mode::Permits { take, of },
    };
    ClientMessage::Request(wire::Request::new(
        RequestId::default(),
        [RawClaim { name: name.into(), mode }],
    ))
}

fn put(message: &ClientMessage, buffer: &mut BytesMut) -> Result<(), Error> {
    encode_frame(message, buffer).map_err(|error| Error::Protocol(error.to_string()))
}

fn protocol(error: coordinator::wire::CodecError) -> Error {
    match error {
        coordinator::wire::CodecError::Io(error) => Error::Connection(error),
        other => Error::Protocol(other.to_string()),
    }
}
