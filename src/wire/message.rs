//! The messages of protocol 1, in the order of their numbers on the wire.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use smallvec::{Array, SmallVec};
use smol_str::SmolStr;

use crate::types::CLAIMS_MAX;

/// The version of the protocol that this crate speaks.
pub const PROTOCOL: u32 = 1;

/// Claims beyond this are read and dropped: enough are kept to see that there are too many.
pub const CLAIMS_KEPT_MAX: usize = CLAIMS_MAX + 1;

/// Elements for which memory is taken on the word of a list's length alone: enough for every
/// request that is allowed.
pub(super) const PREALLOCATED_MAX: usize = CLAIMS_KEPT_MAX;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ClientMessage {
    /// The first message of a connection: who is there and what for. Answered by `Welcome`, or by
    /// `Goodbye` and the end of the connection.
    Hello(Hello),
    /// Asks for locks. Answered by `Grant`, or `Rejected`, now or later; `Queued` may come before.
    Request(Request),
    /// Gives back what a request holds. Answered by `Released`, or `Rejected` with `NotHolder`.
    Release {
        /// The request that was granted.
        request: u64,
        /// The token of its grant.
        token: u64,
    },
    /// Gives a request up, whether it waits or was granted meanwhile. Always answered by
    /// `Cancelled`: from then on the request holds nothing and never will (rule R2).
    Cancel {
        /// The request.
        request: u64,
    },
    /// Renews the lease (as every message does) and asks for an answer, which is what lets the
    /// client believe in its lease: counted from when *this* was sent (rule T2).
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
        /// What to look at.
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
        token: u64,
    },
    /// After a `Welcome` that says `Reopened`: asks for what the request held before the coordinator
    /// crashed (rule G3). Answered by `Grant` with the same token, by `Lost`, or by `Rejected`.
    Reclaim(Reclaim),
    /// After a `Welcome` that says `Resumed`, and after everything unanswered was repeated: what the
    /// client knows of (rule S3). What it does not list is freed without a word; what it believes to
    /// hold and does not, is answered by `Lost`. Long lists are sent in parts, by ranges of ids.
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
}

/// What a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol: [`PROTOCOL`]. First, so that every version can read it.
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
    pub epoch_seen: u64,
    /// The greatest fencing token the client has seen; 0 if none (rule F3).
    pub token_seen: u64,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names the request in the session: 1 or more, greater than every one before.
    pub request: u64,
    /// Who asks, within the session; 0: the request is an owner of its own (rule R7).
    pub owner: u64,
    /// A granted request of the session that this one takes the place of, to hold the same locks
    /// in other modes; none for a request that is new. It waits for the other holders only, ahead
    /// of the queue, and what it converts is held until it is granted.
    pub converts: Option<u64>,
    /// What to do if it cannot be granted at once.
    pub wait: Wait,
    /// Whether `Queued` is to be sent whenever the request's place changes (rule R9).
    pub progress: bool,
    /// Pause before the locks are granted to another if this holder is lost, in milliseconds
    /// (rule S7).
    pub lock_delay_ms: u32,
    /// What for, shown to whoever waits or looks; may be empty.
    pub note: String,
    /// Where it stood before the coordinator crashed, from its latest `Queued`; none for a request
    /// that is new (rule G2).
    pub ticket: Option<Ticket>,
    /// The locks: 1 to 64 different ones, granted together or not at all (rule R5).
    #[serde(deserialize_with = "claims")]
    pub claims: SmallVec<[Claim; 1]>,
}

/// What is asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaim {
    /// The request, as before.
    pub request: u64,
    /// The token of its grant.
    pub token: u64,
    /// The seal of its grant.
    pub seal: u128,
    /// As in the request.
    pub owner: u64,
    /// As in the request.
    pub lock_delay_ms: u32,
    /// As in the request.
    pub note: String,
    /// As in the request, in the same order.
    #[serde(deserialize_with = "claims")]
    pub claims: SmallVec<[Claim; 1]>,
}

/// What a client knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The first request id that this part is about.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// What it believes to hold.
    #[serde(deserialize_with = "list")]
    pub held: Vec<Held>,
    /// Requests whose answer it waits for.
    #[serde(deserialize_with = "list")]
    pub waiting: Vec<u64>,
}

/// A request that is held, as its client believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The request.
    pub request: u64,
    /// The token of its grant.
    pub token: u64,
}

/// Keeps a waiting request's place over a crash of the coordinator. Earlier ones are less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The run of the coordinator in which the request began to wait.
    pub epoch: u64,
    /// Its number among those that began to wait in that run.
    pub arrival: u64,
}

/// What the coordinator knows of a session that a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Standing {
    /// It is new, or the connection is an observer's.
    Opened,
    /// Everything: it holds and awaits what it did.
    Resumed,
    /// Nothing but that it was: the coordinator has crashed (rule G2).
    Reopened {
        /// For how long what was held can be reclaimed, in milliseconds.
        grace_ms: u64,
    },
}

/// Which session a connection is for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Attach {
    /// A new one.
    New,
    /// One that lives already, whose connection ended (rule S1).
    Resume {
        /// The session's id, from its `Welcome`.
        session: u128,
        /// The session's secret, from its `Welcome`.
        secret: u128,
        /// One more than that of the session's connection before (rule S2).
        generation: u64,
    },
    /// None: the connection will only look, or revoke.
    Observer,
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("New"),
            Self::Resume { session, generation, .. } => {
                write!(
                    f,
                    "Resume {{ session: {session:032x}, secret: …, generation: {generation} }}"
                )
            }
            Self::Observer => f.write_str("Observer"),
        }
    }
}

/// What to do with a request that cannot be granted at once (rule R6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Wait {
    /// Wait until it can.
    Forever,
    /// Wait this long at most; then `Rejected` with `TimedOut`.
    Timeout {
        /// Milliseconds from when the coordinator handles the request.
        ms: u64,
    },
    /// Do not wait: `Rejected` with `Busy`.
    Never,
}

/// A lock and how it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The lock's name.
    pub name: SmolStr,
    /// How it is wanted.
    pub mode: Mode,
}

/// How a lock is wanted or held (rule R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// Together with other shared holders.
    Shared,
    /// So many permits of a semaphore.
    Permits {
        /// How many this one takes.
        take: u32,
        /// How many there are.
        of: u32,
    },
}

/// What an observer may look at. Long answers come in pages.
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
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ServerMessage {
    /// The connection is for this session now. The first message, unless it is `Goodbye`.
    Welcome {
        /// The version of the protocol that will be spoken.
        protocol: u32,
        /// Name and version of the server, for people.
        server: String,
        /// The run of the coordinator.
        epoch: u64,
        /// The session's id; 0 for an observer.
        session: u128,
        /// What proves to a later connection's `Welcome` that it is for this session; 0 for an
        /// observer.
        secret: u128,
        /// How many connections the session has had, this one included.
        generation: u64,
        /// Length of the lease in milliseconds.
        ttl_ms: u32,
        /// What is known of the session.
        standing: Standing,
    },
    /// The request's locks are held from now until `Release`, `Cancel`, `Lost` or the end of the
    /// session.
    Grant {
        /// The request.
        request: u64,
        /// Greater than that of any grant before, of whatever lock (rule F1).
        token: u64,
        /// Proves to a later run of the coordinator that this grant was made (rule G4).
        seal: u128,
    },
    /// The request waits. Sent when it begins to, and again when its place changes, to requests that
    /// ask for progress.
    Queued {
        /// The request.
        request: u64,
        /// Its place, 1 for the next in line. For several locks: the worst of its places.
        position: u64,
        /// Keeps its place over a crash of the coordinator.
        ticket: Ticket,
    },
    /// The request's locks are free, as asked.
    Released {
        /// The request.
        request: u64,
    },
    /// The request is given up: it holds nothing and never will.
    Cancelled {
        /// The request.
        request: u64,
    },
    /// The request's locks are no longer its holder's, who did not ask for that.
    Lost {
        /// The request.
        request: u64,
        /// The token of its grant.
        token: u64,
        /// Why, a number of [`crate::types::LostReason`].
        reason: u16,
    },
    /// No.
    Rejected {
        /// The request, release or query that is meant.
        request: u64,
        /// Why, a number of [`crate::types::RejectionCode`].
        code: u16,
        /// Why, in a sentence for people.
        message: String,
        /// For `Busy` and `TimedOut`: the lock that stood in the way.
        lock: Option<Box<LockStatus>>,
        /// For `Deadlock`: who waits for whom, the first 64. The first is the request that is meant;
        /// the last waits for it. Empty otherwise.
        #[serde(deserialize_with = "list")]
        cycle: Vec<CycleLink>,
    },
    /// The lease is renewed.
    KeptAlive {
        /// From `KeepAlive`.
        sequence: u64,
    },
    /// The last message: the connection will be closed now.
    Goodbye {
        /// Why, a number of [`crate::types::GoodbyeCode`].
        code: u16,
        /// For a refused Hello: why, a number of [`crate::types::RejectionCode`]; otherwise 0.
        rejection: u16,
        /// Why, in a sentence for people.
        message: String,
    },
    /// The coordinator as a whole.
    ServerStatus {
        /// From `Inspect`.
        query_id: u64,
        /// What was seen.
        status: Box<ServerStatus>,
    },
    /// A page of locks.
    LockStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The locks.
        #[serde(deserialize_with = "list")]
        locks: Vec<LockStatus>,
        /// Where the next page begins; none after the last.
        next: Option<u64>,
    },
    /// A page of sessions.
    SessionStatus {
        /// From `Inspect`.
        query_id: u64,
        /// The sessions.
        #[serde(deserialize_with = "list")]
        sessions: Vec<SessionStatus>,
        /// Where the next page begins; none after the last.
        next: Option<u64>,
    },
    /// The lock was taken away.
    Revoked {
        /// From `Revoke`.
        query_id: u64,
    },
    /// Events will be told from now on.
    Subscribed {
        /// From `Subscribe`.
        query_id: u64,
    },
    /// Something happened to a request.
    Event {
        /// When, by the server's wall clock, in milliseconds since 1970-01-01 UTC. For people.
        at_ms: u64,
        /// The session's id.
        session: u128,
        /// The session's identity.
        identity: String,
        /// The request.
        request: u64,
        /// The locks it claims.
        #[serde(deserialize_with = "event_claims")]
        claims: Vec<Claim>,
        /// What happened to it.
        what: Happening,
    },
    /// Some events are left out here, because the client did not read fast enough.
    Missed {
        /// How many.
        count: u64,
    },
}

/// What happened to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Happening {
    /// It came.
    Requested,
    /// It waits.
    Queued {
        /// Its place, 1 for the next in line. For several locks: the worst of its places.
        position: u64,
    },
    /// It holds its locks.
    Granted {
        /// The token.
        token: u64,
    },
    /// It gave its locks back, or its session said goodbye.
    Released {
        /// The token.
        token: u64,
    },
    /// It was given up.
    Cancelled,
    /// It holds its locks no more, and nobody asked for that.
    Lost {
        /// The token.
        token: u64,
        /// Why, a number of [`crate::types::LostReason`].
        reason: u16,
    },
    /// It was answered *no*.
    Rejected {
        /// Why, a number of [`crate::types::RejectionCode`].
        code: u16,
        /// Why, in a sentence for people.
        message: String,
    },
}

/// One of those who would wait for each other for ever: it waits for a lock, for as long as the next
/// one in the cycle does not give it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CycleLink {
    /// The session's id.
    pub session: u128,
    /// The session's identity.
    pub identity: String,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: u64,
    /// The request that waits.
    pub request: u64,
    /// The lock that it waits for.
    pub lock: String,
    /// The token with which the next one in the cycle holds that lock; 0: it holds it not, but is
    /// ahead in line for it.
    pub held_with: u64,
}

/// The coordinator as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Version of the program.
    pub version: String,
    /// This run.
    pub epoch: u64,
    /// Milliseconds since it became ready.
    pub uptime_ms: u64,
    /// Whether it is about to stop.
    pub draining: bool,
    /// Connections open now.
    pub connections: u64,
    /// Sessions alive now, with a connection or without.
    pub sessions: u64,
    /// Locks held or waited for now.
    pub locks: u64,
    /// Requests that hold something now.
    pub held: u64,
    /// Requests that wait now.
    pub waiting: u64,
    /// Grants since the start.
    pub grants: u64,
    /// Leases that ended because nothing was heard, since the start.
    pub expired: u64,
    /// Connections closed because they broke the protocol, since the start.
    pub protocol_errors: u64,
    /// Connections closed because their client did not read, since the start.
    pub slow_readers: u64,
    /// Connections closed because they did not say Hello in time, since the start.
    pub handshake_timeouts: u64,
    /// Connections refused because there were too many, since the start.
    pub connections_refused: u64,
    /// The latest fencing token given, 0 before the first.
    pub last_token: u64,
    /// Milliseconds of the grace period that are left: nobody but earlier holders gets anything; 0
    /// outside one (rule G2).
    pub grace_ms: u64,
    /// Milliseconds since when the state cannot be saved, 0 while it can: granting stops when the
    /// reserved tokens are used up (rule F2).
    pub unsaved_ms: u64,
}

/// A lock in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStatus {
    /// Its name.
    pub name: String,
    /// Who holds it, the first few.
    #[serde(deserialize_with = "list")]
    pub holders: Vec<Holder>,
    /// How many hold it.
    pub holder_count: u64,
    /// Who waits, the first few in order.
    #[serde(deserialize_with = "list")]
    pub waiters: Vec<Waiter>,
    /// How many wait.
    pub waiter_count: u64,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The session's id.
    pub session: u128,
    /// The session's identity.
    pub identity: String,
    /// Address of the session's latest connection.
    pub peer: String,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: u64,
    /// The request.
    pub request: u64,
    /// How it holds the lock.
    pub mode: Mode,
    /// The token of the grant.
    pub token: u64,
    /// Milliseconds since the grant.
    pub held_ms: u64,
    /// The request's note.
    pub note: String,
    /// Whether the session has a connection now.
    pub connected: bool,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The session's id.
    pub session: u128,
    /// The session's identity.
    pub identity: String,
    /// Address of the session's latest connection.
    pub peer: String,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: u64,
    /// The request.
    pub request: u64,
    /// How it wants the lock.
    pub mode: Mode,
    /// Milliseconds since the request came.
    pub waiting_ms: u64,
    /// The request's note.
    pub note: String,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id.
    pub session: u128,
    /// Its identity.
    pub identity: String,
    /// Address of its latest connection.
    pub peer: String,
    /// Whether it has a connection now.
    pub connected: bool,
    /// Milliseconds since it was opened.
    pub age_ms: u64,
    /// Length of its lease in milliseconds.
    pub ttl_ms: u32,
    /// Milliseconds until its lease ends if nothing is heard.
    pub lease_left_ms: u64,
    /// Requests that hold something.
    pub held: u64,
    /// Requests that wait.
    pub waiting: u64,
}

/// Reads the claims of a request: [`CLAIMS_KEPT_MAX`] at most are kept.
fn claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SmallVec<[Claim; 1]>, D::Error> {
    deserializer.deserialize_seq(Bounded { kept_max: CLAIMS_KEPT_MAX, list: PhantomData })
}

/// Reads the claims of a request that something happened to: no more either.
fn event_claims<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Claim>, D::Error> {
    claims(deserializer).map(SmallVec::into_vec)
}

/// Reads a list of anything else: all of it, as far as there are bytes.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let list = Bounded::<[T; 0]> { kept_max: usize::MAX, list: PhantomData };
    Ok(deserializer.deserialize_seq(list)?.into_vec())
}

/// Reads a list without trusting the number of elements that stands before it: memory is taken for
/// [`PREALLOCATED_MAX`] at first, for more only as they come.
pub(super) struct Bounded<A> {
    /// Elements beyond this are read and dropped.
    pub(super) kept_max: usize,
    /// What the list is of, and for how many of them no memory is taken at all.
    pub(super) list: PhantomData<A>,
}

impl<'de, A: Array<Item: Deserialize<'de>>> Visitor<'de> for Bounded<A> {
    type Value = SmallVec<A>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<SmallVec<A>, S::Error> {
        let expected = seq.size_hint().unwrap_or(0);
        let mut kept = SmallVec::with_capacity(expected.min(self.kept_max).min(PREALLOCATED_MAX));
        while let Some(element) = seq.next_element()? {
            if kept.len() < self.kept_max {
                kept.push(element);
            }
        }
        Ok(kept)
    }
}
