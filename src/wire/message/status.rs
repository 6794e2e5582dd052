//! The structures that an observer sees.

use serde::{Deserialize, Serialize};

use super::Mode;
use super::lists::mode;
use crate::types::list::list;
use crate::types::{Epoch, FencingToken, Identity, LockName, Note, OwnerId, RequestId, SessionId};

/// The coordinator as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Version of the program.
    pub version: String,
    /// This run.
    pub epoch: Epoch,
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
    pub last_token: FencingToken,
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
    pub name: LockName,
    /// Its holders, the first few.
    #[serde(deserialize_with = "list")]
    pub holders: Vec<Holder>,
    /// How many hold it.
    pub holder_count: u64,
    /// Its waiters, the first few in order.
    #[serde(deserialize_with = "list")]
    pub waiters: Vec<Waiter>,
    /// How many wait.
    pub waiter_count: u64,
}

impl LockStatus {
    /// A lock of which nothing is known but its name.
    pub fn unknown(name: LockName) -> Self {
        Self { name, holders: Vec::new(), holder_count: 0, waiters: Vec::new(), waiter_count: 0 }
    }
}

/// A holder of a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The session's id.
    pub session: SessionId,
    /// The session's identity.
    pub identity: Identity,
    /// Address of the session's latest connection.
    pub peer: String,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: OwnerId,
    /// The request.
    pub request: RequestId,
    /// How it holds the lock.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// The token of the grant.
    pub token: FencingToken,
    /// Milliseconds since the grant.
    pub held_ms: u64,
    /// The request's note.
    pub note: Note,
    /// Whether the session has a connection now, or needs none, as one of the Redis dialect.
    pub connected: bool,
}

/// A waiter for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiter {
    /// The session's id.
    pub session: SessionId,
    /// The session's identity.
    pub identity: Identity,
    /// Address of the session's latest connection.
    pub peer: String,
    /// The owner within the session; 0: the request is an owner of its own.
    pub owner: OwnerId,
    /// The request.
    pub request: RequestId,
    /// How it wants the lock.
    #[serde(deserialize_with = "mode")]
    pub mode: Mode,
    /// Milliseconds since the request came.
    pub waiting_ms: u64,
    /// The request's note.
    pub note: Note,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its id.
    pub session: SessionId,
    /// Its identity.
    pub identity: Identity,
    /// Address of its latest connection.
    pub peer: String,
    /// Whether it has a connection now, or needs none, as one of the Redis dialect.
    pub connected: bool,
    /// Milliseconds since it was opened.
    pub age_ms: u64,
    /// Length of its lease in milliseconds; 0: nothing that is heard keeps it.
    pub ttl_ms: u32,
    /// Milliseconds until it ends if nothing is heard; the greatest number: it does not.
    pub lease_left_ms: u64,
    /// Requests that hold something.
    pub held: u64,
    /// Requests that wait.
    pub waiting: u64,
}

/// Until when a lock is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlook {
    /// Its name.
    pub name: LockName,
    /// Milliseconds until it has room at the latest, unless a holder comes back; none: a holder has a
    /// connection, and may renew for ever.
    pub free_ms: Option<u64>,
    /// Why it is kept free.
    #[serde(deserialize_with = "list")]
    pub pauses: Vec<Pause>,
}

/// Why a lock is not granted though it has room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The cause of the pause.
    pub after: After,
    /// The session whose hold it follows.
    pub session: SessionId,
    /// That session's identity.
    pub identity: Identity,
    /// The token of that hold.
    pub token: FencingToken,
    /// Milliseconds since that was granted.
    pub granted_ms: u64,
    /// The length that was asked for, in milliseconds.
    pub length_ms: u64,
    /// Milliseconds that are left.
    pub left_ms: u64,
}

/// The cause of a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum After {
    /// The holder was lost, and had asked for a lock delay: the length counts from the loss (rule S7).
    Loss,
    /// The holder is gone, and had asked to keep the lock for that time from the grant on (rule
    /// S9).
    Grant,
}

/// The journal, and how this run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// How far an event is on its way to the disk before anybody is told (rule J1).
    pub distance: JournalDistance,
    /// How long it is without its checkpoint, in bytes; 0 while none is written.
    pub bytes: u64,
    /// Milliseconds since when it cannot be written, 0 while it can: a crash is followed by a grace
    /// period (rule J5).
    pub off_ms: u64,
    /// How this run began.
    pub start: JournalStart,
}

/// How far something is on its way to the disk before anybody is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JournalDistance {
    /// It is not written down.
    Off,
    /// Written: survives the end of the process, however it comes.
    Process,
    /// Synced: survives a power cut, too.
    Machine,
}

/// How a run began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum JournalStart {
    /// Nobody was ever here before.
    New,
    /// From what an orderly stop has saved.
    Saved,
    /// From the journal of a run that crashed: nothing was lost.
    Replayed {
        /// How many events it had.
        events: u64,
        /// How long that took, in microseconds.
        took_us: u64,
    },
    /// After a crash, without a journal that is certainly complete.
    Lost {
        /// Why there was none, in words for people.
        why: String,
        /// How long the grace period was, in milliseconds (rule G2).
        grace_ms: u64,
    },
}

/// How a leader stands among those of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The name of the cluster.
    pub cluster: String,
    /// The name of the leader, which answers.
    pub leader: String,
    /// Which leadership it is.
    pub term: u64,
    /// Milliseconds since it began to lead.
    pub led_ms: u64,
    /// How many positions the standby in sync has yet to acknowledge; none: no standby is in sync, so this
    /// one is alone (rule P3).
    pub behind: Option<u64>,
    /// The name of that standby; empty while it is not known.
    pub standby: String,
}

/// For how long grants were waited for since a run began: counts by bounds that never change. Those that
/// were granted at once count as waits of no time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitedStatus {
    /// The run: what another one counted is not to be compared.
    pub epoch: Epoch,
    /// The bounds, in microseconds, each greater than the one before.
    #[serde(deserialize_with = "list")]
    pub bounds_us: Vec<u64>,
    /// How many were within each bound and past the one before; at last, how many were past all.
    #[serde(deserialize_with = "list")]
    pub counts: Vec<u64>,
}
