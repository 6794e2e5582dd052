//! The messages of the client.

use std::marker::PhantomData;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};

use crate::types::{
    Epoch, FencingToken, Generation, OwnerId, RequestId, Seal, Secret, SessionId, ShownCredential,
};
use smallvec::SmallVec;

#[cfg(feature = "server")]
use super::Held;
use super::lists::{claims, note};
use super::{Account, EXTRAS_KEPT_MAX, PROTOCOL, RawClaim, SealedTicket, Wait};
use crate::types::list::Bounded;

/// The messages of the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClientMessage {
    /// The first message of a connection but for `Authenticate`: who is there and what for. Answered by `Welcome`, or by
    /// `Goodbye` and the end of the connection.
    Hello(Hello),
    /// Asks for locks. Answered by `Grant`, or `Rejected`, now or later; `Queued` may come before.
    Request(Request),
    /// Gives back what a request holds. Answered by `Released`, or `Rejected` with `NotHolder`.
    Release {
        /// The request that was granted.
        request: RequestId,
        /// The token of its grant.
        token: FencingToken,
    },
    /// Gives a request up, whether it waits or was granted meanwhile. Always answered by
    /// `Cancelled`: from then on the request holds nothing and never will (rule R2).
    Cancel {
        /// The request.
        request: RequestId,
    },
    /// A heartbeat: renews the lease (as every message does) and asks for an answer. The answer
    /// lets the client believe in its lease, counted from when *this* was sent (rule T2).
    KeepAlive {
        /// Comes back in `KeptAlive`.
        sequence: u64,
    },
    /// Ends the session, frees everything it holds, closes the connection (rule S4).
    Goodbye,
    /// Asks for a look. Needs no session. Answered by `Status`.
    Inspect {
        /// Comes back in the answer.
        query_id: u64,
        /// The subject of the look.
        query: Query,
    },
    /// An operator takes a lock away from whoever holds it with this token (rule R11). Needs no
    /// session. Answered by `Revoked`, or `Rejected` with `NoSuchGrant`.
    Revoke {
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: String,
        /// The token of the grant, so that nobody newer is hit.
        token: FencingToken,
    },
    /// After a `Welcome` that says `Reopened`: asks for what the request held before the coordinator
    /// crashed (rule G3). Answered by `Grant` with the same token, by `Lost`, or by `Rejected`.
    Reclaim(Reclaim),
    /// After a `Welcome` that says `Resumed`, and after everything unanswered was repeated: what
    /// the client knows of (rule S3). The server frees everything that it does not list. A listed
    /// hold that does not exist is answered by `Lost`. Long lists are sent in parts, by ranges of
    /// ids.
    Account(Account),
    /// Wants to see a lock now and whenever its holders change, for as long as the connection lasts.
    /// Needs no session. Answered by `LockStatus`, now and then again and again; changes that come
    /// together are told as one.
    Watch {
        /// Comes back in every answer.
        query_id: u64,
        /// The lock.
        name: String,
    },
    /// Wants to hear of everything that happens to requests, for as long as the connection lasts.
    /// Needs no session. Answered by `Subscribed`, then `Event` after `Event`.
    Subscribe {
        /// Comes back in the answer.
        query_id: u64,
        /// Only of requests that claim this lock; none: of all.
        name: Option<String>,
    },
    /// [`ClientMessage::Request`] with more to say, answered in the same way.
    RequestWith {
        /// The request.
        request: Box<Request>,
        /// The additional wishes.
        #[serde(deserialize_with = "extras")]
        extras: Vec<Extra>,
    },
    /// [`ClientMessage::Reclaim`] with more to say, answered in the same way.
    ReclaimWith {
        /// The reclaim.
        reclaim: Box<Reclaim>,
        /// The additional wishes.
        #[serde(deserialize_with = "extras")]
        extras: Vec<Extra>,
    },
    /// Wants to see a lock no more. Needs no session. Not answered; what was shown before may still
    /// come after it. A lock that is not watched is no error.
    Unwatch {
        /// The lock.
        name: String,
    },
    /// Shows a credential. Comes once at most, before `Hello`, and not answered: what it proves shows in the
    /// answer to that.
    Authenticate {
        /// The credential.
        credential: ShownCredential,
    },
    /// [`ClientMessage::Revoke`] with the reason, for whoever reads the audit log. Answered in the same way.
    RevokeFor {
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: String,
        /// The token of the grant, so that nobody newer is hit.
        token: FencingToken,
        /// Why, in words; at most as long as a note.
        reason: String,
    },
}

#[cfg(feature = "server")]
impl ClientMessage {
    /// The size of messages in memory: themselves, and what they own. Never less than on the wire.
    pub(crate) fn bytes_of(messages: &[Self]) -> usize {
        size_of_val(messages) + messages.iter().map(Self::owned_bytes).sum::<usize>()
    }

    /// What a message takes besides itself.
    fn owned_bytes(&self) -> usize {
        match self {
            Self::KeepAlive { .. }
            | Self::Release { .. }
            | Self::Cancel { .. }
            | Self::Goodbye
            | Self::Subscribe { name: None, .. }
            | Self::Inspect {
                query:
                    Query::Server
                    | Query::Locks { .. }
                    | Query::Sessions { .. }
                    | Query::Outlooks { .. }
                    | Query::Journal
                    | Query::Cluster
                    | Query::Waited
                    | Query::Contended { .. },
                ..
            } => 0,
            Self::Request(Request { note, claims, .. })
            | Self::Reclaim(Reclaim { note, claims, .. }) => note.len() + bytes_of_claims(claims),
            Self::RequestWith { request, extras } => {
                let Request { note, claims, .. } = &**request;
                size_of::<Request>()
                    + note.len()
                    + bytes_of_claims(claims)
                    + size_of_val(&extras[..])
            }
            Self::ReclaimWith { reclaim, extras } => {
                let Reclaim { note, claims, .. } = &**reclaim;
                size_of::<Reclaim>()
                    + note.len()
                    + bytes_of_claims(claims)
                    + size_of_val(&extras[..])
            }
            Self::Hello(hello) => hello.identity.len(),
            Self::Authenticate { credential } => credential.reveal().len(),
            Self::Account(Account { held, waiting, .. }) => {
                held.len() * size_of::<Held>() + waiting.len() * size_of::<u64>()
            }
            Self::RevokeFor { name, reason, .. } => name.len() + reason.len(),
            Self::Revoke { name, .. }
            | Self::Watch { name, .. }
            | Self::Unwatch { name }
            | Self::Subscribe { name: Some(name), .. }
            | Self::Inspect {
                query: Query::Lock { name } | Query::Outlook { name } | Query::Rights { name },
                ..
            } => name.len(),
        }
    }
}

#[cfg(feature = "server")]
fn bytes_of_claims(claims: &[RawClaim]) -> usize {
    claims.iter().map(|claim| size_of::<RawClaim>() + claim.name.len()).sum()
}

/// An additional wish of a request. Of two of a kind the last counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Extra {
    /// A minimum hold time: the locks are granted to nobody else until then, even if they are given
    /// back (rule S9).
    AtLeast {
        /// Milliseconds from the grant on; in a reclaim, what is left of them.
        ms: u64,
    },
    /// If the request is granted or waits, it ends older waiters for one of its locks that want
    /// this, too. While it waits, a newer one ends it (rule S10). Nothing in a reclaim.
    Supersede,
}

/// Reads what is wanted besides: [`EXTRAS_KEPT_MAX`] at most are kept.
fn extras<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Extra>, D::Error> {
    let list = Bounded::<[Extra; 0]> { kept_max: EXTRAS_KEPT_MAX, list: PhantomData };
    Ok(deserializer.deserialize_seq(list)?.into_vec())
}

/// The first message of a connection: [`ClientMessage::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol: [`PROTOCOL`](super::PROTOCOL). First, so that every version can read it.
    pub protocol: u32,
    /// Which session the connection is for.
    pub attach: Attach,
    /// Length of the lease in milliseconds; 0 for the default.
    pub ttl_ms: u32,
    /// How long the session outlives a connection that ended without `Goodbye`, in
    /// milliseconds; none: as long as its lease (rule S4).
    pub linger_ms: Option<u32>,
    /// Shown to whoever waits or looks, `user@host:pid` by custom (rule R10).
    pub identity: String,
    /// The latest epoch the client has heard of; 0 if none (rule F3).
    pub epoch_seen: Epoch,
    /// The greatest fencing token the client has seen; 0 if none (rule F3).
    pub token_seen: FencingToken,
}

impl Hello {
    /// One of a client that knows of no run before, and wants what is usual.
    pub fn new(attach: Attach, identity: impl Into<String>) -> Self {
        Self {
            protocol: PROTOCOL,
            attach,
            ttl_ms: 0,
            linger_ms: None,
            identity: identity.into(),
            epoch_seen: Epoch::default(),
            token_seen: FencingToken::default(),
        }
    }
}

/// A request for locks: [`ClientMessage::Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the request in the session: 1 or more, greater than every one before.
    pub request: RequestId,
    /// The owner within the session; 0: the request is an owner of its own (rule R7).
    pub owner: OwnerId,
    /// The granted request of the session that this one converts, to hold the same locks in other
    /// modes; none for a new request. It waits for the other holders only, ahead of the queue, and
    /// what it converts is held until it is granted.
    pub converts: Option<RequestId>,
    /// How long to wait if it cannot be granted at once.
    pub wait: Wait,
    /// Whether `Queued` is to be sent whenever the request's place changes (rule R9).
    pub progress: bool,
    /// Pause before the locks are granted to another if this holder is lost, in milliseconds
    /// (rule S7).
    pub lock_delay_ms: u32,
    /// The purpose, shown to waiters and observers; may be empty.
    #[serde(deserialize_with = "note")]
    pub note: String,
    /// Where it stood before the coordinator crashed, from its latest `Queued`; none for a request
    /// that is new (rule G2).
    pub ticket: Option<SealedTicket>,
    /// The locks: 1 to 64 different ones, granted together or not at all (rule R5).
    #[serde(deserialize_with = "claims")]
    pub claims: SmallVec<[RawClaim; 1]>,
}

impl Request {
    /// One for these locks that waits for as long as it takes, and wants nothing else.
    pub fn new(request: RequestId, claims: impl IntoIterator<Item = RawClaim>) -> Self {
        Self {
            request,
            owner: OwnerId::NONE,
            converts: None,
            wait: Wait::Forever,
            progress: false,
            lock_delay_ms: 0,
            note: String::new(),
            ticket: None,
            claims: claims.into_iter().collect(),
        }
    }
}

/// A request for what was held before a crash: [`ClientMessage::Reclaim`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// The request, as before.
    pub request: RequestId,
    /// The token of its grant.
    pub token: FencingToken,
    /// The seal of its grant.
    pub seal: Seal,
    /// As in the request.
    pub owner: OwnerId,
    /// As in the request.
    pub lock_delay_ms: u32,
    /// As in the request.
    pub note: String,
    /// As in the request, in the same order.
    #[serde(deserialize_with = "claims")]
    pub claims: SmallVec<[RawClaim; 1]>,
}

impl Reclaim {
    /// What was granted with this proof to a request that wanted nothing but its locks.
    pub fn new(
        request: RequestId,
        token: FencingToken,
        seal: Seal,
        claims: impl IntoIterator<Item = RawClaim>,
    ) -> Self {
        Self {
            request,
            token,
            seal,
            owner: OwnerId::NONE,
            lock_delay_ms: 0,
            note: String::new(),
            claims: claims.into_iter().collect(),
        }
    }
}

/// Which session a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Attach {
    /// A new one.
    New,
    /// One that lives already, whose connection ended (rule S1).
    Resume {
        /// The session's id, from its `Welcome`.
        session: SessionId,
        /// The session's secret, from its `Welcome`.
        secret: Secret,
        /// One more than that of the session's connection before (rule S2).
        generation: Generation,
    },
    /// None: the connection will only look, or revoke.
    Observer,
}

/// The subjects that an observer may look at. Long answers come in pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Query {
    /// The coordinator as a whole.
    Server,
    /// All locks in use, a page at a time, in no particular order.
    Locks {
        /// 0 for the first page, then the `next` of the page before.
        cursor: u64,
    },
    /// One lock, with more of its holders and waiters than a page of all locks has room for.
    Lock {
        /// Its name.
        name: String,
    },
    /// All sessions, a page at a time, in no particular order.
    Sessions {
        /// 0 for the first page, then the `next` of the page before.
        cursor: u64,
    },
    /// Until when one lock is not to be had, as far as that is known.
    Outlook {
        /// Its name.
        name: String,
    },
    /// The same of all locks of which something is known, a page at a time, in no particular order.
    Outlooks {
        /// 0 for the first page, then the `next` of the page before.
        cursor: u64,
    },
    /// The journal, and how this run began.
    Journal,
    /// The locks that somebody waits for, a page at a time, in no particular order; answered as `Locks`.
    Contended {
        /// 0 for the first page, then the `next` of the page before.
        cursor: u64,
    },
    /// The cluster that the coordinator leads, if it is one of several.
    Cluster,
    /// For how long grants were waited for in this run.
    Waited,
    /// What whoever asks may do with a lock.
    Rights {
        /// Its name.
        name: String,
    },
}
