//! Input and output of the desk: data, and nothing that acts.
//!
//! The desk decides a turn at once, and its caller carries it out afterwards. A turn can therefore
//! be held back until it is durable, compared with another, or sent over a simulated network.

use bytes::{Bytes, BytesMut};

use crate::server::durable::Change;
use crate::server::durable::replay::Record;
use crate::server::fields::Lines;
use crate::server::ledger::Unheard;
use crate::types::{ConnectionId, Epoch, Timestamp};
#[cfg(test)]
use crate::wire::decode;
use crate::wire::{ClientMessage, ShownLock};
#[cfg(test)]
use crate::wire::{ServerMessage, encode_frame};

/// One read of a connection, whole. The first one begins with the Hello, and no other
/// holds one: the session has seen to that.
#[derive(Debug)]
pub(crate) struct Submit {
    /// The connection.
    pub(crate) connection: ConnectionId,
    /// Messages of its client, in order.
    pub(crate) messages: Vec<ClientMessage>,
    /// Whether the session reads on meanwhile.
    pub(crate) window: Window,
    /// Counts them until they are handled.
    pub(in crate::server) unheard: Unheard,
}

/// Whether a session reads on while what it submitted is not yet handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    /// It does.
    Open,
    /// It has enough on the way, and waits for a batch that says [`Handled::All`].
    Shut,
}

/// All that a turn has to have done. Everything in here was decided, in this order, and nothing of it is
/// done yet.
///
/// Its caller empties it, and so leaves the memory of its vectors for the next one.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// To be made durable, in this order; [`Desk::committed`](super::Desk::committed) wants to hear of it.
    pub(crate) orders: Vec<Change>,
    /// Events of the engine, to be written down before any of it is done or said (rule J1).
    pub(crate) record: Record,
    /// For connections, in the order in which they are to be sent.
    pub(crate) deliveries: Vec<Delivery>,
    /// What the log tells of it, once it is certain.
    pub(in crate::server) lines: Lines,
    /// From the caller: memory of frames that are said, for the next ones.
    pub(crate) spare: Vec<BytesMut>,
    /// Something was left to do: [`Desk::go_on`](super::Desk::go_on) is to come once every socket was
    /// looked at.
    pub(crate) goes_on: bool,
    /// Something is due by this moment: [`Desk::tick`](super::Desk::tick) is to come with it, once
    /// everything is submitted that could be read by then.
    pub(crate) listens: Option<Timestamp>,
    /// When [`Desk::ring`](super::Desk::ring) is due; none if that has not changed, or need not come.
    pub(crate) rings: Option<Timestamp>,
    /// Nothing is held any more, since [`Desk::drain`](super::Desk::drain).
    pub(crate) is_drained: bool,
    /// Clients have seen a leader later than this one.
    pub(crate) later: Option<Later>,
}

/// Leaders that clients have seen, and that are later than this one, which has yet to hear of them (rule H6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Later {
    /// The latest epoch that a client says to have seen.
    pub(crate) said: Epoch,
    /// The latest one of which a client has a proof that its leader made.
    pub(crate) proven: Epoch,
}

impl Later {
    /// Takes note of what another client has seen.
    pub(crate) fn note(&mut self, other: Self) {
        (self.said, self.proven) = (self.said.max(other.said), self.proven.max(other.proven));
    }
}

/// The way to a connection: an index that the caller of the desk chooses, and that comes back with each
/// delivery. It can be used for another connection once the [last](More::Never) has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Way(pub(crate) usize);

/// All that a turn has for one connection.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// To which.
    pub(crate) way: Way,
    /// The batch.
    pub(crate) deliver: Deliver,
    /// Whether there will be another.
    pub(crate) more: More,
}

/// Whether a connection will be told anything after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    /// It may be.
    Perhaps,
    /// It has ended, or this ends with a Goodbye.
    Never,
}

/// A batch: all that is said to a connection at once. A `Goodbye` is the last message of the last batch.
#[derive(Debug, Default)]
pub(crate) struct Deliver {
    /// For the client, in order: the frames of messages.
    pub(crate) frames: BytesMut,
    /// Whether a Welcome is among them.
    pub(crate) welcomes: bool,
    /// Whether a Goodbye is the last of them.
    pub(crate) is_last: bool,
    /// Locks that it watches and that others hold now, to come after the messages; each with the query
    /// that is answered.
    pub(crate) shown: Vec<(u64, ShownLock)>,
    /// Frames of events, to come after that, as far as there is room for them.
    pub(crate) events: Vec<Bytes>,
    /// Events of the turn that are left out behind those.
    pub(crate) missed: u64,
    /// Size of all of it, in bytes of memory; more than `BATCH_BYTES_MAX` if it was too much, and
    /// was not kept.
    pub(crate) bytes: usize,
    /// Whether everything that the session submitted is handled.
    pub(crate) handled: Handled,
    /// Whether what it says is to be written down before, and could be.
    pub(crate) promise: Promise,
}

impl Deliver {
    /// Whether it is frames of messages that ask nothing of a session but to be written.
    pub(in crate::server) fn is_plain(&self) -> bool {
        let is_ordinary = !self.welcomes && !self.is_last && self.handled == Handled::Unsaid;
        is_ordinary && self.shown.is_empty() && self.events.is_empty() && self.missed == 0
    }
}

#[cfg(test)]
impl Deliver {
    /// One of these messages.
    pub(crate) fn of(messages: &[ServerMessage]) -> Self {
        let mut deliver = Self::default();
        for message in messages {
            encode_frame(message, &mut deliver.frames).unwrap();
        }
        deliver
    }

    /// Its messages, without what is shown and without events.
    pub(crate) fn messages(&self) -> Vec<ServerMessage> {
        let (mut all, mut rest) = (Vec::new(), &self.frames[..]);
        while let Some((len, behind)) = rest.split_first_chunk() {
            let len = usize::try_from(u32::from_le_bytes(*len)).unwrap();
            let (frame, next) = behind.split_at(len);
            all.push(decode(frame).unwrap());
            rest = next;
        }
        all
    }

    /// All that the client reads of it, in order.
    pub(crate) fn whole(self) -> Vec<ServerMessage> {
        let mut all = self.messages();
        let Self { shown, events, missed, .. } = self;
        for (query_id, lock) in shown {
            let mut frame = BytesMut::new();
            lock.append(query_id, &mut frame);
            all.push(decode(&frame[4..]).unwrap());
        }
        all.extend(events.iter().map(|frame| decode::<ServerMessage>(&frame[4..]).unwrap()));
        all.extend((missed > 0).then_some(ServerMessage::Missed { count: missed }));
        all
    }
}

/// What an answer has to do with the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing: without a journal it is said as well.
    #[default]
    None,
    /// It promises what a crash does not undo, so it is only said if that is written down.
    Recorded,
    /// It was to be written down, and could not be. In its place, that is said.
    Void,
}

/// Whether everything that a session submitted is handled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Handled {
    /// Nothing is said of that.
    #[default]
    Unsaid,
    /// It is. Said when the session waits for it.
    All,
    /// It is not, for the client waits in line. Only where a dialect has clients that do nothing else meanwhile.
    #[cfg(feature = "redis-api")]
    Waits,
}
