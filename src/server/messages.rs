//! The messages between the actors.
//!
//! A mailbox keeps the order of one sender's messages, and so does the [`Inbox`](super::inbox::Inbox). A
//! session's submits are handled after its `Connect` and before its `Disconnect`. The Coordinator's
//! deliveries come in the order of its decisions. That is all the sequencing there is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::sync::oneshot;

use super::desk::figures::{Contention, Figures};
use super::desk::turn::Deliver;
use super::desk::{Errand, Unentitled, Who};
use super::durable::Committed;
use super::durable::chronicle::Done;
use super::gate::Link;
use crate::access::{Access, Proof, Unproven};
use crate::engine::Counts;
use crate::journal::{Made, NotMade};
use crate::types::{ConnectionId, GoodbyeCode, Timestamp};

/// Session to Coordinator: here I am.
#[derive(Debug)]
pub(super) struct Connect {
    /// The connection's number; never used before in this run.
    pub(super) connection: ConnectionId,
    /// Where it comes from, for people.
    pub(super) peer: Option<SocketAddr>,
    /// Where its answers go.
    pub(super) link: Link,
}

/// Session to Coordinator: what was shown to prove who a connection is.
#[derive(Debug)]
pub(super) struct Prove {
    /// The connection.
    pub(super) connection: ConnectionId,
    /// What was shown.
    pub(super) proof: Box<Proof>,
}

/// Inbox to Coordinator: something has arrived, and nothing was waiting.
#[derive(Debug)]
pub(super) struct Waiting;

impl Message for Waiting {
    type Result = ();
}

/// Session to Coordinator: the connection ended without a Goodbye. Answered by an empty `Deliver` that
/// says that everything is handled.
#[derive(Debug)]
pub(super) struct Disconnect {
    /// The connection.
    pub(super) connection: ConnectionId,
}

/// Coordinator to Session: all that one turn of the Coordinator has for this connection.
impl Message for Deliver {
    type Result = ();
}

/// Commit task to Coordinator: so much more is on disk.
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

/// A task to Coordinator: a checkpoint of the journal was made, or not.
#[derive(Debug)]
pub(super) struct Checkpointed(pub(super) Result<Made, NotMade>);

impl Message for Checkpointed {
    type Result = ();
}

/// A task to Coordinator: what was to be written down is, or is not; none: nobody knows.
#[derive(Debug)]
pub(super) struct Written(pub(super) Option<Done>);

impl Message for Written {
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

/// Looker to Coordinator: what is counted of this run? A copy of some kilobytes.
#[derive(Debug)]
pub(super) struct Gather;

impl Message for Gather {
    type Result = Box<Figures>;
}

/// Looker to Coordinator: what do the locks look like that somebody waits for, from this place on? A page.
#[derive(Debug)]
pub(super) struct Survey {
    /// Where the page begins.
    pub(super) from: usize,
}

impl Message for Survey {
    type Result = Contention;
}

/// Looker to Coordinator: are you there? Answered with how long the disk has kept all answers back.
#[derive(Debug)]
pub(super) struct Pulse;

impl Message for Pulse {
    type Result = Duration;
}

/// Looker to Coordinator: who is it that shows this, and what may it do?
#[derive(Debug)]
pub(super) struct Identify {
    /// What is shown.
    pub(super) proof: Proof,
}

impl Message for Identify {
    type Result = Result<Who, Unproven>;
}

/// Looker to Coordinator: may somebody that shows this have this done? Who may not is counted, and told to the
/// logs.
#[derive(Debug)]
pub(super) struct Entitle {
    /// What is shown.
    pub(super) proof: Proof,
    /// Where that comes from.
    pub(super) peer: Option<SocketAddr>,
    /// What for.
    pub(super) errand: Errand,
}

impl Message for Entitle {
    type Result = Result<Who, Unentitled>;
}

/// Handle to Coordinator: these rules hold from now on.
#[derive(Debug)]
pub(super) struct ChangeRules(pub(super) Arc<Access>);

impl Message for ChangeRules {
    type Result = ();
}

/// Handle to Coordinator: tell the log how things are.
#[derive(Debug)]
pub(super) struct TellState;

impl Message for TellState {
    type Result = ();
}

/// Server to Coordinator: there are clients of the Redis dialect, too.
#[cfg(feature = "redis-api")]
#[derive(Debug)]
pub(super) struct SpeakRedis {
    /// Whether a hold has to be written down to be granted.
    pub(super) needs_journal: bool,
}

#[cfg(feature = "redis-api")]
impl Message for SpeakRedis {
    type Result = ();
}

/// Server to Coordinator: nobody is left who would say or hear anything. It ends, with its table.
#[derive(Debug)]
pub(super) struct End;

impl Message for End {
    type Result = ();
}

/// Server to Coordinator: what is saved takes its time, and connections are to go meanwhile.
#[derive(Debug)]
pub(super) struct PartEarly;

impl Message for PartEarly {
    type Result = ();
}

/// Server to Coordinator: say goodbye to every connection.
#[derive(Debug)]
pub(super) struct CloseAll {
    /// Why.
    pub(super) code: GoodbyeCode,
    /// The same in words, or where else to go.
    pub(super) why: String,
}

impl Message for CloseAll {
    type Result = ();
}
