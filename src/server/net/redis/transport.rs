//! The bytes of a connection of the Redis dialect, both ways.
//!
//! *Bounds* (backpressure). Nothing is understood while an earlier read is not handled, while the peer does
//! not take its answers, or while its address has sent too much. Then no more is read than is needed to
//! see that the peer has gone.

use std::cell::RefCell;
use std::io;
use std::pin::pin;
use std::task::{Context as Task, Poll, Waker, ready};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use crate::server::desk::turn::{Deliver, Handled, Promise};
use crate::server::gate::{Outlet, Said};
use crate::server::ledger::Account;
use crate::server::net::outbox::Outbox;
use crate::server::net::session::OUTBOX_BYTES_MAX;
use crate::server::net::socket::Socket;

/// Most bytes that are read while nothing more may be understood.
const READ_AHEAD_BYTES_MAX: usize = 16 * 1024;
/// The same while its peer may wait in line, of which the end is to be seen however much it has said.
pub(super) const BEHIND_WAIT_BYTES_MAX: usize = 64 * 1024;

/// A stream, and what lies here for its peer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is about something of its own")]
pub(super) struct Transport<S> {
    /// Both directions.
    pub(super) stream: S,
    /// Bytes that are read and not yet understood.
    pub(super) unread: BytesMut,
    /// Written by us, and not by the socket yet.
    pub(super) outbox: Outbox,
    /// Whether a read is on its way to the Coordinator.
    pub(super) is_busy: bool,
    /// Whether something in that may wait in line.
    pub(super) may_wait: bool,
    /// Whether that waits, as the Coordinator has said.
    pub(super) waits: bool,
    /// Whether nothing is understood for a while, for its address has sent too much.
    pub(super) is_paced: bool,
    /// Whether there is no more to read.
    pub(super) is_over: bool,
    /// Whether nothing more is said.
    pub(super) is_closing: bool,
    /// Deliveries on their way to the mailbox.
    pub(super) mailed: usize,
    /// Bytes of requests that have begun, and of transactions, which lie elsewhere.
    pub(super) kept_apart: usize,
    /// Wakes the actor.
    pub(super) waker: Option<Waker>,
    /// Account of the bytes that lie here for the peer.
    pub(super) account: Account,
}

impl<S: Socket> Transport<S> {
    /// That of a connection which has said nothing.
    pub(super) fn new(stream: S, account: Account) -> Self {
        Self {
            stream,
            unread: BytesMut::new(),
            outbox: Outbox::default(),
            is_busy: false,
            may_wait: false,
            waits: false,
            is_paced: false,
            is_over: false,
            is_closing: false,
            mailed: 0,
            kept_apart: 0,
            waker: None,
            account,
        }
    }

    /// Has the actor woken whose task this is.
    pub(super) fn wakes(&mut self, task: &Task<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            self.waker = Some(task.waker().clone());
            self.account.wakes(task.waker());
        }
    }

    /// Whether more lies here for the peer than it may leave unread. Until it reads, it is not heard.
    pub(super) fn is_full(&self) -> bool {
        self.outbox.len() > OUTBOX_BYTES_MAX
    }

    /// Whether more may be understood.
    pub(super) fn may_hear(&self) -> bool {
        !(self.is_busy || self.is_closing || self.is_paced || self.is_full())
    }

    /// Whether its peer has said too much behind what it waits for.
    pub(super) fn has_said_too_much(&self) -> bool {
        self.waits && self.unread.len() > BEHIND_WAIT_BYTES_MAX
    }

    /// Whether all is said, and the connection is to be shut.
    pub(super) fn is_shut_next(&self) -> bool {
        self.is_closing && self.outbox.is_empty()
    }

    fn may_read(&self) -> bool {
        let max = if self.may_wait { BEHIND_WAIT_BYTES_MAX + 1 } else { READ_AHEAD_BYTES_MAX };
        !self.is_over && (self.may_hear() || self.is_closing || self.unread.len() < max)
    }

    /// Reads what there is, as far as it may. Says whether anything came.
    pub(super) fn poll_read(&mut self, task: &mut Task<'_>) -> Poll<io::Result<bool>> {
        if !self.may_read() {
            return Poll::Ready(Ok(false));
        }
        self.unread.reserve(READ_AHEAD_BYTES_MAX);
        let read = ready!(pin!(self.stream.read_buf(&mut self.unread)).poll(task))?;
        self.is_over = read == 0;
        if self.is_closing {
            // A socket that is closed with unread bytes in it is reset.
            self.unread.clear();
        }
        Poll::Ready(Ok(true))
    }

    /// Writes the outbox.
    pub(super) fn poll_write(&mut self, task: &mut Task<'_>) -> Poll<io::Result<()>> {
        self.outbox.poll_write(&mut self.stream, task)
    }

    /// Counts what lies here.
    pub(super) fn settle(&mut self) {
        let memory = |buffer: &BytesMut, kept| match buffer.len() {
            len if len > kept => buffer.capacity(),
            _ => 0,
        };
        let kept = memory(&self.outbox, 0) + memory(&self.unread, READ_AHEAD_BYTES_MAX);
        self.account.settle(kept + self.kept_apart);
    }

    /// Has the peer hear what is delivered.
    pub(super) fn take(&mut self, deliver: &Deliver) {
        self.outbox.extend_from_slice(&deliver.frames);
        self.answered(deliver);
    }

    /// More may be understood, if all is handled that was. Whoever is told anything else than that it waits, does
    /// not wait any more.
    fn answered(&mut self, deliver: &Deliver) {
        self.waits = deliver.handled == Handled::Waits;
        if deliver.handled == Handled::All {
            (self.is_busy, self.may_wait) = (false, false);
        }
    }
}

impl<S: Socket> Outlet for RefCell<Transport<S>> {
    fn say(&self, deliver: &Deliver) -> Said {
        let mut transport = self.borrow_mut();
        let is_ordinary = !deliver.is_last && !deliver.welcomes && deliver.promise != Promise::Void;
        let is_next = is_ordinary && !transport.is_closing && transport.mailed == 0;
        let Some(waker) = transport.waker.clone().filter(|_| is_next) else {
            transport.mailed += 1;
            return Said::NotYet;
        };
        if transport.is_full() {
            transport.mailed += 1;
            return Said::NotYet;
        }
        transport.answered(deliver);
        let Transport { stream, outbox, .. } = &mut *transport;
        let is_written = outbox.say(stream, &waker, &deliver.frames);
        let has_more = !transport.unread.is_empty() || transport.is_over;
        if !is_written || has_more {
            transport.settle();
        }
        if has_more {
            waker.wake_by_ref();
        }
        Said::AtOnce
    }
}
