//! The two halves of a session's stream, as things that the actor's context polls.
//!
//! actix polls everything that an actor has spawned whenever the actor wakes up: first the mailbox,
//! until it is empty, then the spawned futures one by one. So neither half needs a task or a channel
//! of its own. The Writer looks into the outbox at each wake, and all that the mailbox brought in one
//! turn goes out in one write; the Reader looks at its gate at each wake, so opening the gate while
//! handling a message is enough to have it read on.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};

use actix::Context;
use actix::fut::ActorFuture;
use bytes::{Buf, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio_util::codec::FramedRead;

use super::{OUTBOX_BYTES_KEPT, Session, State};
use crate::wire::{ClientMessage, CodecError, ServerCodec};

/// What a read may bring at first: many connections are idle, and this is what each of them costs.
const READ_BYTES_QUIET: usize = 1024;
/// What a read may bring once the peer has shown that it says much at a time.
const READ_BYTES_BUSY: usize = 16 * 1024;
/// So many messages in a read are much.
const MESSAGES_BUSY: usize = 8;

/// What a Reader is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reading {
    /// Read messages.
    #[default]
    Messages,
    /// Read nothing until told otherwise.
    Paused,
    /// Read, and drop what comes.
    Dropping,
}

/// How a session tells its Reader what to do.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// What to do now.
    reading: Cell<Reading>,
    /// Whether long frames are allowed now.
    hello_accepted: Cell<bool>,
}

impl Gate {
    /// Has the Reader do this from its next poll on.
    pub(super) fn set(&self, reading: Reading) {
        self.reading.set(reading);
    }

    /// Has the Reader accept long frames from its next poll on.
    pub(super) fn accept_hello(&self) {
        self.hello_accepted.set(true);
    }
}

/// The batches of messages of a connection. Ends when the peer shuts its side.
#[derive(Debug)]
pub(super) struct Reader<S> {
    /// The stream, cut into batches.
    frames: FramedRead<ReadHalf<S>, ServerCodec>,
    /// What to do.
    gate: Rc<Gate>,
    /// Whether the codec knows that the Hello was accepted.
    hello_accepted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<S> {
    /// Reads messages until the gate says otherwise.
    pub(super) fn new(half: ReadHalf<S>, gate: Rc<Gate>) -> Self {
        let codec = ServerCodec::before_hello();
        let frames = FramedRead::with_capacity(half, codec, READ_BYTES_QUIET);
        Self { frames, gate, hello_accepted: false }
    }

    fn poll_messages(
        &mut self,
        task: &mut Task<'_>,
    ) -> Poll<Option<Result<Vec<ClientMessage>, CodecError>>> {
        if self.gate.hello_accepted.get() && !self.hello_accepted {
            self.hello_accepted = true;
            self.frames.decoder_mut().hello_accepted();
        }
        let read = ready!(Pin::new(&mut self.frames).poll_next(task));
        if let Some(Ok(batch)) = &read
            && batch.len() >= MESSAGES_BUSY
        {
            self.frames.read_buffer_mut().reserve(READ_BYTES_BUSY);
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
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Reader<S> {
    type Item = Result<Vec<ClientMessage>, CodecError>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Task<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        match this.gate.reading.get() {
            Reading::Messages => this.poll_messages(task),
            // No waker is kept: whoever opens the gate does so while the actor is awake.
            Reading::Paused => Poll::Pending,
            Reading::Dropping => this.poll_drop(task).map(|()| None),
        }
    }
}

/// Writes what is in the outbox, and shuts our side when the session closes.
#[derive(Debug)]
pub(super) struct Writer<S> {
    /// Where to.
    half: WriteHalf<S>,
    /// Whether something was written that is yet to be flushed.
    unflushed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// Writes to `half`.
    pub(super) fn new(half: WriteHalf<S>) -> Self {
        Self { half, unflushed: false }
    }

    fn poll_drain(
        &mut self,
        outbox: &mut BytesMut,
        task: &mut Task<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !outbox.is_empty() {
            let written = ready!(Pin::new(&mut self.half).poll_write(task, outbox))?;
            if written == 0 {
                return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            if written == outbox.len() {
                // Unlike `advance`, this leaves the room in front to be used again.
                outbox.clear();
            } else {
                outbox.advance(written);
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.half).poll_flush(task))?;
            self.unflushed = false;
            if outbox.capacity() > OUTBOX_BYTES_KEPT {
                *outbox = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> ActorFuture<Session<S>> for Writer<S> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        session: &mut Session<S>,
        ctx: &mut Context<Session<S>>,
        task: &mut Task<'_>,
    ) -> Poll<()> {
        if !session.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            session.waker = Some(task.waker().clone());
        }
        let drained = loop {
            let before = session.outbox.len();
            let drained = self.poll_drain(&mut session.outbox, task);
            session.onlooker.written += (before - session.outbox.len()) as u64;
            if !session.tell_missed() {
                break drained;
            }
        };
        if let Err(why) = ready!(drained) {
            session.broken(&why, ctx);
            return Poll::Ready(());
        }
        if session.state != State::Closing {
            return Poll::Pending;
        }
        // An error here means that the peer is gone, which is as good as shut.
        let _ = ready!(Pin::new(&mut self.half).poll_shutdown(task));
        session.shut(ctx);
        Poll::Ready(())
    }
}
