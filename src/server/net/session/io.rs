//! A session's stream, and the one thing that the actor's context polls of it.
//!
//! actix polls what an actor has spawned whenever the actor wakes up, after its mailbox. So neither
//! direction needs a task or a channel of its own. At each wake the [`Exchange`] reads the arrived
//! bytes, then writes the outbox. All messages of one turn go out in one write. Setting
//! [`Reading::Messages`] while handling a message is enough to read on.

use std::io;
use std::pin::Pin;
use std::task::{Context as Task, Poll, ready};

use actix::fut::ActorFuture;
use actix::{ActorContext, ActorState, Context};
use bytes::{Buf, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::FramedRead;

use super::{OUTBOX_BYTES_KEPT, Session, State};
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

/// A stream, cut into batches of messages one way, and filled from an outbox the other way.
#[derive(Debug)]
pub(super) struct Transport<S> {
    /// The stream, with what is read and not yet a message.
    frames: FramedRead<S, ServerCodec>,
    /// What to do with what comes.
    pub(super) reading: Reading,
    /// Encoded, and not yet written.
    pub(super) outbox: BytesMut,
    /// Whether something was written that is yet to be flushed.
    unflushed: bool,
    /// Whether our side is shut.
    is_shut: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Transport<S> {
    /// Reads messages from `stream`, to begin with.
    pub(super) fn new(stream: S) -> Self {
        let codec = ServerCodec::before_hello();
        Self {
            frames: FramedRead::with_capacity(stream, codec, READ_BYTES_QUIET),
            reading: Reading::Messages,
            outbox: BytesMut::new(),
            unflushed: false,
            is_shut: false,
        }
    }

    /// The memory of what lies here for the peer, and of a long frame of its that is not complete.
    fn kept(&self) -> usize {
        // Of a buffer that has grown, up to half is empty.
        let memory = |buffer: &BytesMut, kept| match buffer.len() {
            len if len > kept => buffer.capacity(),
            _ => 0,
        };
        memory(&self.outbox, 0) + memory(self.frames.read_buffer(), READ_BYTES_BUSY)
    }

    /// Accepts long frames from now on.
    pub(super) fn accept_hello(&mut self) {
        self.frames.decoder_mut().hello_accepted();
    }

    /// Drops whatever still comes.
    pub(super) fn drop_rest(&mut self) {
        if self.reading != Reading::Over {
            self.reading = Reading::Dropping;
        }
    }

    /// What comes next: a batch, why there is none, or the end, which comes once.
    fn poll_read(
        &mut self,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Vec<ClientMessage>, CodecError>>> {
        let read = match self.reading {
            Reading::Messages => ready!(Pin::new(&mut self.frames).poll_next(task)),
            Reading::Dropping => {
                ready!(self.poll_drop(task));
                None
            }
            // No waker is kept: whoever has it read on does so while the actor is awake.
            Reading::Paused | Reading::Over => return Poll::Pending,
        };
        let buffer = self.frames.read_buffer_mut();
        if buffer.is_empty() && buffer.capacity() > READ_BYTES_KEPT {
            *buffer = BytesMut::with_capacity(READ_BYTES_QUIET);
        }
        match &read {
            Some(Ok(batch)) if batch.len() >= MESSAGES_BUSY => {
                self.frames.read_buffer_mut().reserve(READ_BYTES_BUSY);
            }
            Some(_) => {}
            None => self.reading = Reading::Over,
        }
        Poll::Ready(read)
    }

    /// Reads to the end, which is all that is ever told of it.
    fn poll_drop(&mut self, task: &mut Task<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        loop {
            let mut scratch = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(self.frames.get_mut()).poll_read(task, &mut scratch)) {
                Ok(()) if !scratch.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// Whether there is nothing to write, and nothing to flush.
    fn is_written(&self) -> bool {
        self.outbox.is_empty() && !self.unflushed
    }

    /// Writes the outbox.
    pub(super) fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        let mut stream = Pin::new(self.frames.get_mut());
        while !self.outbox.is_empty() {
            let written = ready!(stream.as_mut().poll_write(task, &self.outbox))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if written == self.outbox.len() {
                // Unlike `advance`, this leaves the room in front to be used again.
                self.outbox.clear();
            } else {
                self.outbox.advance(written);
            }
        }
        if self.unflushed {
            ready!(stream.poll_flush(task))?;
            self.unflushed = false;
            if self.outbox.capacity() > OUTBOX_BYTES_KEPT {
                self.outbox = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Shuts our side, once, and waits until the peer's is shut too.
    fn poll_close(&mut self, task: &mut Task<'_>) -> Poll<()> {
        if !self.is_shut {
            // An error here means that the peer is gone, which is as good as shut.
            let _ = ready!(Pin::new(self.frames.get_mut()).poll_shutdown(task));
            self.is_shut = true;
        }
        if self.reading == Reading::Over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What is polled: reads and writes, as long as the session lives.
#[derive(Debug)]
pub(super) struct Exchange;

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> ActorFuture<Session<S>> for Exchange {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        session: &mut Session<S>,
        ctx: &mut Context<Session<S>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        if !session.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            session.waker = Some(task.waker().clone());
            session.account.wakes(task.waker());
        }
        // In this order: what the reading causes is written in the same turn.
        while let Poll::Ready(read) = session.transport.poll_read(task) {
            match read {
                Some(read) => session.hear(read, ctx),
                None => session.hear_end(ctx),
            }
        }
        if ctx.state() != ActorState::Running {
            return Poll::Pending;
        }
        // Most polls bring or settle something, and have nothing to write.
        let is_written = session.transport.is_written() && !session.owes_missed();
        let written = if is_written { Poll::Ready(Ok(())) } else { session.poll_write(task) };
        session.account.settle(session.transport.kept());
        if session.account.is_closed() {
            session.give_up(ctx);
            return Poll::Pending;
        }
        match ready!(written) {
            Err(why) => session.broken(&why, ctx),
            Ok(()) if session.state == State::Closing => {
                ready!(session.transport.poll_close(task));
                ctx.stop();
            }
            Ok(()) => {}
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Session<S> {
    /// Writes what there is to say, and what that makes room for.
    pub(super) fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        loop {
            let before = self.transport.outbox.len();
            let written = self.transport.poll_write(task);
            self.onlooker.written += (before - self.transport.outbox.len()) as u64;
            if !self.tell_missed() {
                return written;
            }
        }
    }
}
