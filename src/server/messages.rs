//! What the actors say to each other.
//!
//! A mailbox keeps the order of one sender's messages: what a session submits is handled after its
//! `Connect` and before its `Disconnect`, and what the Coordinator delivers comes in the order of its
//! decisions. That is all the sequencing there is.

use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Message, Recipient};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::engine::{Counts, Durable};
use crate::server::ledger::{Share, Unheard};
use crate::types::{ConnectionId, GoodbyeCode, Timestamp};
use crate::wire::{ClientMessage, ServerMessage, ShownLock};

/// Session to Coordinator: here I am.
#[derive(Debug)]
pub(super) struct Connect {
    /// The connection's number; never used before in this run.
    pub(super) connection: ConnectionId,
    /// Where it comes from, for people.
    pub(super) peer: Option<SocketAddr>,
    /// Where its answers go.
    pub(super) session: Recipient<Deliver>,
    /// Where what it is given is counted.
    pub(super) share: Arc<Share>,
}

impl Message for Connect {
    type Result = ();
}

/// Session to Coordinator: what one read brought, whole. The first one begins with the Hello, and
/// no other holds one: the session has seen to that.
#[derive(Debug)]
pub(super) struct Submit {
    /// Whose connection.
    pub(super) connection: ConnectionId,
    /// What its client says, in order.
    pub(super) messages: Vec<ClientMessage>,
    /// Whether the session reads on meanwhile.
    pub(super) window: Window,
    /// What they count as until they are handled.
    pub(super) unheard: Unheard,
}

impl Message for Submit {
    type Result = ();
}

/// Whether a session reads on while what it submitted is not yet handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    /// It does.
    Open,
    /// It has enough on the way, and waits for a batch that says [`Handled::All`].
    Shut,
}

/// Session to Coordinator: the connection ended without a Goodbye. Answered by an empty `Deliver`
/// with [`Handled::All`].
#[derive(Debug)]
pub(super) struct Disconnect {
    /// Whose connection.
    pub(super) connection: ConnectionId,
}

impl Message for Disconnect {
    type Result = ();
}

/// Coordinator to Session: all that one turn of the Coordinator has for this connection. A
/// `Goodbye` is the last message of the last batch.
#[derive(Debug, Default)]
pub(super) struct Deliver {
    /// For the client, in order.
    pub(super) messages: Vec<ServerMessage>,
    /// Locks that it watches and that others hold now, to come after the messages; each with the query
    /// that is answered.
    pub(super) shown: Vec<(u64, ShownLock)>,
    /// Frames of events, to come after that, as far as there is room for them.
    pub(super) events: Vec<Bytes>,
    /// Events of the turn that are left out behind those.
    pub(super) missed: u64,
    /// What all of it was counted as when it was sent.
    pub(super) bytes: usize,
    /// Whether everything that the session submitted is handled.
    pub(super) handled: Handled,
}

/// Whether everything that a session submitted is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Handled {
    /// Nothing is said of that.
    #[default]
    Unsaid,
    /// It is. Said when the session waits for it.
    All,
}

impl Message for Deliver {
    type Result = ();
}

/// Commit task to Coordinator: so much more is on disk.
#[derive(Debug)]
pub(super) struct Committed {
    /// The counters, if they were among it.
    pub(super) durable: Option<Durable>,
    /// How many forfeits were among it: the oldest that were not yet.
    pub(super) recorded: usize,
}

impl Message for Committed {
    type Result = ();
}

/// A task to Coordinator: every socket was looked at since a turn had done enough.
#[derive(Debug)]
pub(super) struct GoOn;

impl Message for GoOn {
    type Result = ();
}

/// A task to Coordinator: whatever could be read at that moment was submitted before this.
#[derive(Debug)]
pub(super) struct AllHeard {
    /// The moment.
    pub(super) at: Timestamp,
}

impl Message for AllHeard {
    type Result = ();
}

/// Server to Coordinator: this run is over, and the next is to go on from here. Every connection is
/// said Goodbye to, everything is put on order to be saved, and nothing is decided any more. Answered by
/// how much there is to save.
#[derive(Debug)]
pub(super) struct Save {
    /// Told when everything is on disk.
    pub(super) saved: oneshot::Sender<()>,
}

impl Message for Save {
    type Result = Counts;
}

/// Server to Coordinator: stop soon, and nothing will go on. Waiters are answered, nothing new is
/// accepted, holders may finish.
#[derive(Debug)]
pub(super) struct Drain {
    /// Told when nothing is held any more.
    pub(super) finished: oneshot::Sender<()>,
}

impl Message for Drain {
    type Result = ();
}

/// Handle to Coordinator: tell the log how things are.
#[derive(Debug)]
pub(super) struct TellState;

impl Message for TellState {
    type Result = ();
}

/// Server to Coordinator: say goodbye to every connection.
#[derive(Debug)]
pub(super) struct CloseAll {
    /// Why.
    pub(super) code: GoodbyeCode,
}

impl Message for CloseAll {
    type Result = ();
}
