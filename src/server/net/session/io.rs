//! A session's stream, and the one thing that the actor's context polls of it.
//!
//! actix polls what an actor has spawned whenever the actor wakes up, after its mailbox. So neither
//! direction needs a task or a channel of its own. At each wake the [`Exchange`] reads the arrived
//! bytes, then writes the outbox. All messages of one turn go out in one write. Setting
//! [`Reading::Messages`] while handling a message is enough to read on. Most answers never come to the
//! outbox: they are written where they are delivered (`outlet.rs`). And most of what arrives is read before
//! that, where the actor is not polled for it (`ear.rs`).

use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker, ready};

use actix::fut::ActorFuture;
use actix::{ActorContext, ActorState, Context};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio_util::codec::Decoder;

use super::super::outbox::Outbox;
use super::super::socket::Socket;
use super::{Session, Shared, State};
use crate::server::ledger::Account;
use crate::types::ConnectionId;
use crate::wire::{ClientMessage, CodecError, ServerCodec};

/// What a read may bring at first: many connections are idle, and this is what each of them costs.
const READ_BYTES_QUIET: usize = 1024;
/// What a read may bring once the peer has shown that it says much at a time.
const READ_BYTES_BUSY: usize = 16 * 1024;
/// A read buffer that is larger than this, for a long frame, gives its memory back once it is empty.
const READ_BYTES_KEPT: usize = 2 * READ_BYTES_BUSY;
/// So many messages in a read are much.
const MESSAGES_BUSY: usize = 8;

/// What is done with what the peer sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// It is read as messages.
    Messages,
    /// It is left where it is, until something else is said here.
    Paused,
    /// It is read, and dropped.
    Dropping,
    /// There is no more.
    Over,
}

/// How the next messages are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// More is to be read.
    Read,
    /// What is read may have some.
    Decode,
    /// The same, and there is no more.
    DecodeLast,
    /// Reading failed, which was told.
    Nothing,
}

/// A batch of messages, or why there is none.
pub(super) type Heard = Result<Vec<ClientMessage>, CodecError>;

/// What the ear (`ear.rs`) needs of a session.
pub(super) struct Ear {
    /// The number of its connection.
    pub(super) connection: ConnectionId,
    /// Parts in common with the other sessions.
    pub(super) shared: Arc<Shared>,
}

/// A stream, cut into batches of messages one way, and filled from an outbox the other way.
pub(super) struct Transport<S> {
    /// The stream.
    pub(super) stream: S,
    /// Bytes that are read and not yet a message.
    unread: BytesMut,
    /// Makes messages of that.
    codec: ServerCodec,
    /// The next step to have more of them.
    next: Next,
    /// Treatment of what comes.
    pub(super) reading: Reading,
    /// Encoded, and not yet written.
    pub(super) outbox: Outbox,
    /// Whether our side is shut.
    is_shut: bool,
    /// Wakes the session, for when something other than a message fills the outbox.
    pub(super) waker: Option<Waker>,
    /// Wakes the task of the session when there is something to read. None: that is its actor's.
    pub(super) reader: Option<Waker>,
    /// Hears what the actor need not. None: that hears everything.
    pub(super) ear: Option<Ear>,
    /// What comes next, or the end, if it was read already and is for the actor.
    pub(super) heard: Poll<Option<Heard>>,
    /// Account of the bytes that lie here for the peer.
    pub(super) account: Account,
    /// Whether what the Coordinator says may be written as it is.
    pub(super) is_open: bool,
    /// Deliveries on their way to the session's mailbox.
    pub(super) mailed: usize,
}

impl<S: Socket> Transport<S> {
    /// Reads messages from `stream`, to begin with.
    pub(super) fn new(stream: S, account: Account) -> Self {
        Self {
            stream,
            unread: BytesMut::with_capacity(READ_BYTES_QUIET),
            codec: ServerCodec::before_hello(),
            next: Next::Read,
            reading: Reading::Messages,
            outbox: Outbox::default(),
            is_shut: false,
            waker: None,
            reader: None,
            ear: None,
            heard: Poll::Pending,
            account,
            is_open: false,
            mailed: 0,
        }
    }

    /// Has the session woken whose task this is.
    fn wakes(&mut self, task: &Task<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            self.waker = Some(task.waker().clone());
            self.account.wakes(task.waker());
        }
    }

    /// Counts what lies here.
    pub(super) fn settle(&mut self) {
        self.account.settle(self.kept());
    }

    /// The memory of what lies here for the peer, and of a long frame of its that is not complete.
    fn kept(&self) -> usize {
        // Of a buffer that has grown, up to half is empty.
        let memory = |buffer: &BytesMut, kept| match buffer.len() {
            len if len > kept => buffer.capacity(),
            _ => 0,
        };
        memory(&self.outbox, 0) + memory(&self.unread, READ_BYTES_BUSY)
    }

    /// Accepts long frames from now on.
    pub(super) fn accept_hello(&mut self) {
        self.codec.hello_accepted();
    }

    /// Drops whatever still comes. All that is still to be said lies here.
    pub(super) fn end(&mut self) {
        self.stream.ends();
        if self.reading != Reading::Over {
            self.reading = Reading::Dropping;
        }
    }

    /// What comes next for the actor, for which the task of the session is woken.
    fn poll_heard(&mut self, task: &mut Task<'_>) -> Poll<Option<Heard>> {
        if self.heard.is_ready() {
            return mem::replace(&mut self.heard, Poll::Pending);
        }
        let Some(reader) = self.reader.take() else { return self.poll_read(task) };
        let heard = self.poll_read(&mut Task::from_waker(&reader));
        self.reader = Some(reader);
        heard
    }

    /// What comes next: a batch, why there is none, or the end, which comes once.
    pub(super) fn poll_read(&mut self, task: &mut Task<'_>) -> Poll<Option<Heard>> {
        let read = match self.reading {
            Reading::Messages => ready!(self.poll_batch(task)),
            Reading::Dropping => {
                ready!(self.poll_drop(task));
                None
            }
            // No waker is kept: whoever has it read on does so while the actor is awake.
            Reading::Paused | Reading::Over => return Poll::Pending,
        };
        if self.unread.is_empty() && self.unread.capacity() > READ_BYTES_KEPT {
            self.unread = BytesMut::with_capacity(READ_BYTES_QUIET);
        }
        match &read {
            Some(Ok(batch)) if batch.len() >= MESSAGES_BUSY => {
                self.unread.reserve(READ_BYTES_BUSY);
            }
            Some(_) => {}
            None => self.reading = Reading::Over,
        }
        Poll::Ready(read)
    }

    /// Whether there may be more. Pending if there is not: then the task is woken for it, if it is to be read.
    pub(super) fn poll_more(&mut self, task: &mut Task<'_>) -> Poll<()> {
        match (self.reading, self.next) {
            (Reading::Messages, Next::Read) => self.stream.poll_readable(task),
            (Reading::Messages, Next::Decode | Next::DecodeLast | Next::Nothing) => Poll::Ready(()),
            (Reading::Paused | Reading::Dropping | Reading::Over, _) => Poll::Pending,
        }
    }

    /// The messages that a read has brought, or the end of them.
    fn poll_batch(&mut self, task: &mut Task<'_>) -> Poll<Option<Heard>> {
        loop {
            match self.next {
                Next::Read => {
                    self.unread.reserve(1);
                    let read = match self.stream.read_at_once(&mut self.unread) {
                        Some(read) => read,
                        None => ready!(pin!(self.stream.read_buf(&mut self.unread)).poll(task)),
                    };
                    match read {
                        Ok(0) => self.next = Next::DecodeLast,
                        Ok(_) => self.next = Next::Decode,
                        Err(why) => {
                            self.next = Next::Nothing;
                            return Poll::Ready(Some(Err(why.into())));
                        }
                    }
                }
                Next::Decode => {
                    let batch = self.codec.decode(&mut self.unread).transpose();
                    // Behind a batch there may be more than fits into it, or what is no message.
                    if let Some(Err(_)) = batch {
                        self.next = Next::Nothing;
                    } else if batch.is_none() || self.unread.is_empty() {
                        self.next = Next::Read;
                    }
                    if batch.is_some() {
                        return Poll::Ready(batch);
                    }
                }
                Next::DecodeLast => {
                    let batch = self.codec.decode_eof(&mut self.unread).transpose();
                    if let Some(Err(_)) = batch {
                        self.next = Next::Nothing;
                    }
                    return Poll::Ready(batch);
                }
                Next::Nothing => return Poll::Ready(None),
            }
        }
    }

    /// Reads to the end, which is all that is ever told of it.
    fn poll_drop(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(task, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Writes the outbox.
    pub(super) fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_write(&mut self.stream, task)
    }

    /// Shuts our side, once, and waits until the peer's is shut too.
    fn poll_close(&mut self, task: &mut Task<'_>) -> Poll<()> {
        if !self.is_shut {
            // An error here means that the peer is gone, which is as good as shut.
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(task));
            self.is_shut = true;
        }
        if self.reading == Reading::Over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What is polled: reads and writes, as long as the session lives.
#[derive(Debug)]
pub(super) struct Exchange;

impl<S: Socket> ActorFuture<Session<S>> for Exchange {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session<S>,
        ctx: &mut Context<Session<S>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        session.transport().wakes(task);
        // In this order: what the reading causes is written in the same turn. To read at once takes nothing of
        // tokio's budget, so a flood ends this loop by `SUBMITS_MAX`, which pauses the reading, or where
        // `poll_more` finds no more.
        loop {
            let read = session.transport().poll_heard(task);
            let Poll::Ready(read) = read else { break };
            match read {
                Some(read) => session.hear(read, ctx),
                None => session.hear_end(ctx),
            }
        }
        if ctx.state() != ActorState::Running {
            return Poll::Pending;
        }
        // Most polls bring something, and have nothing to write.
        let is_written = !session.owes_missed() && session.transport().outbox.is_written();
        let written = if is_written { Poll::Ready(Ok(())) } else { session.poll_write(task) };
        let is_closed = {
            let mut transport = session.transport();
            transport.settle();
            transport.account.is_closed()
        };
        if is_closed {
            session.give_up(ctx);
            return Poll::Pending;
        }
        match ready!(written) {
            Err(why) => session.broken(&why, ctx),
            Ok(()) if session.state == State::Closing => {
                ready!(session.transport().poll_close(task));
                ctx.stop();
            }
            Ok(()) => {}
        }
        Poll::Pending
    }
}

impl<S: Socket> Session<S> {
    /// Writes what there is to say, and what that makes room for.
    pub(super) fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        loop {
            let written = self.transport().poll_write(task);
            if !self.tell_missed() {
                return written;
            }
        }
    }
}
