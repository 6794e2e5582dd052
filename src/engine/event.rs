//! The inputs of the engine.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Durable, Rejection};
use crate::types::{
    Account, Claims, ConnectionId, Epoch, FencingToken, Generation, Identity, Limits, LockName,
    Mark, Note, OwnerId, RequestId, SessionId, Ticket, Timestamp, Ttl, Wait,
};

/// Something that happened, for [`LockTable::handle`](super::LockTable::handle).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// A connection said Hello for a session. Answered by `Welcome` or `Refused`.
    Attach {
        /// The connection, new to the engine.
        connection: ConnectionId,
        /// Where it comes from, for people.
        peer: Option<SocketAddr>,
        /// For which session.
        attach: Attach,
        /// The latest epoch its client has heard of (rule F3).
        epoch_seen: Epoch,
        /// The greatest token its client has seen (rule F3).
        token_seen: FencingToken,
    },
    /// A connection's client said something. Renews the lease of its session (rule S5). From a
    /// connection without a session, or one that was superseded, it is ignored.
    Command {
        /// The connection.
        connection: ConnectionId,
        /// What was said.
        command: Command,
    },
    /// A connection's client said something that is to be told later, for there is much to do. Renews
    /// the lease of its session as the command itself will (rule T4).
    Heard {
        /// The connection.
        connection: ConnectionId,
    },
    /// A connection ended without Goodbye. Proves nothing: its session lingers (rule S4).
    Disconnect {
        /// The connection.
        connection: ConnectionId,
    },
    /// An operator takes a lock away (rule R11). Answered by `Revoked` or `NotRevoked`.
    Revoke {
        /// Who is to be answered; needs no session.
        connection: ConnectionId,
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: LockName,
        /// The token of the grant that is meant.
        token: FencingToken,
    },
    /// What a `Persist` effect asked for is on disk.
    Persisted(Durable),
    /// What the oldest `Record` effects asked for is on disk.
    Recorded {
        /// How many of them.
        count: usize,
    },
    /// A run of the coordinator goes on with the table of the one before it, which crashed. A
    /// replay of its events has left that table (rule J4).
    Began(Run),
    /// The coordinator is about to stop: waiters are answered, nothing new is accepted.
    Drain,
    /// A request that waits is not allowed any more (rule A4). One that holds, or is over, stays as it
    /// is. Needs no connection.
    Withdraw {
        /// Whose it is.
        session: SessionId,
        /// The request.
        request: RequestId,
    },
    /// Time has passed: what was due by `heard` happens. Nothing else makes a lease, a timeout or a
    /// grace period end, so the caller says how far it has listened. A lease never ends while the
    /// message that would have renewed it lies unread (rule T4).
    Tick {
        /// Whatever clients had said by this moment, and could be read then, was told before.
        heard: Timestamp,
    },
    /// Other rules hold, and what waits is looked through: those are withdrawn that are not allowed any
    /// more. Until [`Event::Proceed`] nobody is granted anything that it has waited for (rule A4). What is
    /// asked for from now on is by the new rules, and granted as always where nobody waits.
    Withhold,
    /// What waits was looked through: it is granted as always.
    Proceed,
    /// Somebody asks for a lock and keeps no connection (rule S11). What comes of it is told of the session,
    /// which has none.
    Hold(Box<Hold>),
    /// What is held unattended is to end at another moment, or to be known by another mark (rule S11).
    Prolong(Box<Prolong>),
    /// What is held unattended is given back, or its wait is given up (rule S11).
    Drop {
        /// Its session.
        session: SessionId,
    },
}

/// A lock that is asked for by somebody who keeps no connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// The session that is opened for it; never used before.
    pub session: SessionId,
    /// Where it comes from, for people.
    pub peer: Option<SocketAddr>,
    /// Who asks, for people.
    pub identity: Identity,
    /// Whoever shows this is its holder.
    pub mark: Mark,
    /// For how long it is held, from its grant on; none: until it is given back.
    pub term: Option<Duration>,
    /// The request. The session has this one only.
    pub request: Request,
}

/// A change of what is held unattended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prolong {
    /// Its session.
    pub session: SessionId,
    /// For how long it is held from now on; none: as it is. In it, none: until it is given back.
    pub term: Option<Option<Duration>>,
    /// What it is known by; none: as it is.
    pub mark: Option<Mark>,
}

/// A run that goes on where another one crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Facts on disk, by which this run has an epoch of its own.
    pub durable: Durable,
    /// The first token that certainly no run before has granted; what the table knows is heeded, too.
    pub first_token: FencingToken,
    /// Bounds of what a client may present: above them it cannot be true (rule F3).
    pub plausible: Durable,
    /// How much of everything there may be from now on. What there is more of stays.
    pub limits: Limits,
}

/// For which session a connection is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Attach {
    /// A new one. Its id is chosen by the shell, at random.
    Open {
        /// Its id; never used before.
        session: SessionId,
        /// Length of its lease.
        ttl: Ttl,
        /// How long it outlives a broken connection; none: as long as its lease.
        linger: Option<Duration>,
        /// Who it is, for people.
        identity: Identity,
    },
    /// One that there is already, or was before a crash of the coordinator (rules S1, G2). The shell
    /// has seen the proof.
    Resume {
        /// Its id.
        session: SessionId,
        /// The run that made the proof. A living session is its client's by the proof of any run.
        /// One from before a crash is so only by that of a run whose proofs still count (rule G4).
        proved_in: Epoch,
        /// Higher than that of its connection before (rule S2).
        generation: Generation,
        /// Length of its lease, if it was before a crash.
        ttl: Ttl,
        /// How long it outlives a broken connection, if it was before a crash.
        linger: Option<Duration>,
        /// Who it is, if it was before a crash.
        identity: Identity,
    },
}

/// What a session's client says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Asks for locks.
    Request(Request),
    /// Gives a granted request's locks back (rule R8).
    Release {
        /// The request.
        request: RequestId,
        /// The token of its grant.
        token: FencingToken,
    },
    /// Gives a request up, waiting or granted (rule R2).
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// Asks for what was held before a crash (rule G3). The shell has seen the seal.
    Reclaim(Reclaim),
    /// Says what the client knows of, after a resume. What it does not list is freed, and what the
    /// engine does not know is told to be lost (rule S3).
    Account(Account),
    /// Wants to hear that the lease is renewed.
    KeepAlive {
        /// Comes back in the answer.
        sequence: u64,
    },
    /// Ends the session and frees all it holds (rule S4).
    Goodbye,
    /// Something that could not be parsed at the edge: answered *no*, in its turn.
    Unparsed {
        /// The request it was about.
        request: RequestId,
        /// What is wrong with it.
        #[serde(with = "by_code")]
        rejection: Rejection,
    },
}

/// A request for locks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Names it within its session; greater than every one before (rule R1).
    pub id: RequestId,
    /// Its owner, within the session (rule R7).
    pub owner: OwnerId,
    /// A request that is held, whose place this one takes, to hold the same locks in other modes.
    pub converts: Option<RequestId>,
    /// Behaviour if it cannot be granted at once (rule R6).
    pub wait: Wait,
    /// Whether to tell its place in the queue (rule R9).
    pub progress: Progress,
    /// Where it stood before a crash (rule G2). The shell has seen that it was told so.
    pub place: Option<Place>,
    /// Pause before its locks are granted anew if its holder is lost (rule S7).
    pub lock_delay: Duration,
    /// Rare wishes; none: nothing.
    pub extras: Option<Box<Extras>>,
    /// Its purpose, for people.
    pub note: Note,
    /// The locks.
    pub claims: Claims,
}

impl Request {
    /// One that waits for as long as it takes, and wants nothing else.
    pub fn new(id: RequestId, claims: impl Into<Claims>) -> Self {
        Self {
            id,
            owner: OwnerId::NONE,
            converts: None,
            wait: Wait::Forever,
            progress: Progress::Untold,
            place: None,
            lock_delay: Duration::ZERO,
            extras: None,
            note: Note::default(),
            claims: claims.into(),
        }
    }
}

/// What few requests want besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// For how long from its grant on its locks are granted to nobody else, even if they are given back
    /// (rule S9).
    pub at_least: Duration,
    /// Whom it ends.
    pub supersede: Supersede,
}

impl Extras {
    /// These, as a request has them: none if they are nothing.
    pub fn of_few(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

#[cfg(test)]
impl Request {
    /// What it wants besides.
    pub(crate) fn wants(&self) -> Extras {
        self.extras.as_deref().copied().unwrap_or_default()
    }

    /// The same request, which wants this besides.
    pub(crate) fn with(self, extras: Extras) -> Self {
        Self { extras: extras.of_few(), ..self }
    }
}

/// Whom a request ends that is granted or waits (rule S10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Supersede {
    /// Nobody, and nobody ends it.
    #[default]
    Nobody,
    /// Those that came before it, wait for one of its locks, and said this, too. While it waits, whoever
    /// says this later ends it.
    Older,
}

/// Where a request stood, as it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its place among all that ever waited.
    pub ticket: Ticket,
    /// The run that told it.
    pub told_in: Epoch,
}

/// Asks for what a request held before a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reclaim {
    /// The request's name within its session, as before.
    pub id: RequestId,
    /// The token of its grant, kept.
    pub token: FencingToken,
    /// The run that sealed it: the one that made the grant, or took it over (rule G4).
    pub sealed_in: Epoch,
    /// As in the request.
    pub owner: OwnerId,
    /// As in the request.
    pub lock_delay: Duration,
    /// What is left of that in the request: from now on.
    pub at_least: Duration,
    /// As in the request.
    pub note: Note,
    /// As in the request.
    pub claims: Claims,
}

/// Whether a request's place in the queue is told (rule R9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Progress {
    /// Nobody wants to know.
    Untold,
    /// Whenever it changes.
    Told,
}

/// What is wrong with something, written down: its code is all that is remembered of it.
mod by_code {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Rejection;
    use crate::types::RejectionCode;

    pub(super) fn serialize<S: Serializer>(
        rejection: &Rejection,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        rejection.code().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Rejection, D::Error> {
        Ok(match RejectionCode::deserialize(deserializer)? {
            // It has nothing but its code.
            RejectionCode::Forbidden => Rejection::Forbidden,
            code => Rejection::AsBefore(code),
        })
    }
}
