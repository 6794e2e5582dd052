//! A connection that came when all places were taken. Its Hello decides its fate.
//!
//! `place.rs` explains the idea. A returning client comes in when the Coordinator has welcomed it,
//! not before. A mere claim to a session takes no place from those who have one.

use std::task::{Context as Task, Waker};

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext, Context};
use log::{debug, warn};

use super::super::socket::Socket;
use super::Session;
use crate::server::chatter::Topic;
use crate::server::desk::render;
use crate::server::places::{Comer, Crowd};
use crate::types::GoodbyeCode;
use crate::wire::Attach;

impl<S: Socket> Session<S> {
    /// Has the connection closed when another needs its room at the door, if it is there.
    pub(super) fn listen_at_door(&mut self, ctx: &mut Context<Self>) {
        if let Some(ring) = self.place.ring() {
            let rung = wrap_future::<_, Self>(ring).map(|rung, this, ctx| {
                if rung.is_ok() {
                    this.make_room(ctx);
                }
            });
            self.ring = Some(ctx.spawn(rung));
        }
    }

    /// Why there is no place for what a Hello asks for; none if there is, or may be.
    pub(super) fn no_place_for(&mut self, attach: &Attach) -> Option<Crowd> {
        let crowd = self.place.enter(Comer::Anyone).err()?;
        match attach {
            Attach::Resume { .. } => None,
            Attach::Observer if self.place.is_local() => None,
            Attach::Observer | Attach::New => Some(crowd),
        }
    }

    /// It is welcome: a client that came back to its session comes in. An operator is served where it
    /// is.
    pub(super) fn come_in(&mut self, ctx: &mut Context<Self>) -> Result<(), Crowd> {
        let is_observer = self.heard.is_some();
        if !is_observer {
            self.place.enter(Comer::Returning)?;
        }
        if !self.place.is_at_door()
            && let Some(ring) = self.ring.take()
        {
            ctx.cancel_future(ring);
        }
        Ok(())
    }

    /// Tells the peer that there are too many, and closes.
    pub(super) fn turn_away(&mut self, crowd: Crowd, ctx: &mut Context<Self>) {
        self.shared.counters.connections_refused.add_one();
        if self.shared.counters.chatter.admits(Topic::Refusal, self.peer) {
            let (connection, peer) = (self.connection, self.peer_text());
            warn!(connection:%, peer:%, why:% = crowd; "turned away");
        }
        self.close(GoodbyeCode::TooManyConnections, &crowd.to_string(), ctx);
    }

    /// Leaves the door to another, at once. What it is told it hears if that can be written now.
    fn make_room(&mut self, ctx: &mut Context<Self>) {
        debug!(connection:% = self.connection; "left the door to another");
        self.shared.counters.connections_refused.add_one();
        let why = "all connection slots are taken, and other clients are waiting";
        self.shared.counters.closed(GoodbyeCode::TooManyConnections);
        self.encode(&render::goodbye(GoodbyeCode::TooManyConnections, why));
        let _ = self.transport().poll_write(&mut Task::from_waker(Waker::noop()));
        self.tell_end();
        ctx.stop();
    }
}
