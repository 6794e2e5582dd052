//! Onlookers: peers that watch locks, or have subscribed to events.
//!
//! *An onlooker has to speak now and then*, as any other observer: a keep-alive will do. Otherwise
//! one word would take a connection for ever. If there is something to read, it has to read some of
//! it within the idle time of an observer, or twice that. Otherwise it is closed as a slow reader.
//!
//! *Events are left out rather than kept.* Beyond [`EVENTS_BYTES_MAX`] unwritten bytes they are
//! counted and dropped, until half of that is written; then the peer hears how many. So a slow
//! subscriber misses some, and nobody waits for it (at-most-once delivery).

use std::mem;

use actix::{AsyncContext, Context};
use bytes::Bytes;

use super::super::socket::Socket;
use super::{Session, State};
use crate::server::desk::EVENTS_BYTES_MAX;
use crate::wire::{ClientMessage, ServerMessage};

/// What is kept of a peer for the case that it looks on.
#[derive(Debug, Default)]
pub(super) struct Onlooker {
    /// Whether it does.
    looks_on: bool,
    /// Events that were left out and that it does not know of yet.
    pub(super) missed: u64,
}

impl<S: Socket> Session<S> {
    /// Has the peer closed for not reading too from now on, if it wants to watch or to subscribe.
    pub(super) fn notice_onlooker(&mut self, messages: &[ClientMessage], ctx: &mut Context<Self>) {
        let wants_to = |message: &ClientMessage| {
            matches!(message, ClientMessage::Watch { .. } | ClientMessage::Subscribe { .. })
        };
        if !self.onlooker.looks_on && messages.iter().any(wants_to) {
            self.onlooker.looks_on = true;
            self.await_reading(ctx);
        }
    }

    /// Closes the connection once there was something to read for long enough, and nothing was read.
    fn await_reading(&mut self, ctx: &mut Context<Self>) {
        let (is_owed, written) = {
            let transport = self.transport();
            (!transport.outbox.is_written(), transport.outbox.written())
        };
        // Beside the one timer, which sees to it that it speaks.
        ctx.run_later(self.shared.idle_timeout, move |this, ctx| {
            if this.state != State::Open {
            } else if is_owed && this.transport().outbox.written() == written {
                this.give_up(ctx);
            } else {
                this.await_reading(ctx);
            }
        });
    }

    /// Puts the frame of an event into the outbox, or leaves the event out.
    pub(super) fn put_event(&mut self, frame: &Bytes) {
        let mut transport = self.transport.borrow_mut();
        let is_full = transport.outbox.len() + frame.len() > EVENTS_BYTES_MAX;
        if is_full || self.onlooker.missed > 0 {
            self.onlooker.missed += 1;
        } else {
            transport.outbox.extend_from_slice(frame);
        }
    }

    /// Whether it is yet to hear how many events were left out.
    pub(super) fn owes_missed(&self) -> bool {
        self.onlooker.missed > 0
    }

    /// Says how many events were left out, once there is room again. Gives whether it did.
    pub(super) fn tell_missed(&mut self) -> bool {
        let has_room = self.transport().outbox.len() <= EVENTS_BYTES_MAX / 2;
        let is_due = self.onlooker.missed > 0 && has_room && self.state == State::Open;
        if is_due {
            let count = mem::take(&mut self.onlooker.missed);
            self.shared.counters.events_missed.add(count);
            self.encode(&ServerMessage::Missed { count });
        }
        is_due
    }
}
