//! The rules: who gets which lock, when, with which token. Events go in, effects come out.
//!
//! The one idea: *all requests for a lock enter its service queue, and the queue is served in
//! order*. A request that can be granted when it comes is granted. Otherwise it waits in the queue
//! of every lock it claims (FIFO). When something leaves a lock, its queue is served from the head,
//! until a request has to go on waiting. Nothing overtakes, so nothing starves. Only a disconnected
//! waiter (*away*) is passed over until it is back (`passing.rs`).
//!
//! ```text
//!   Event ──▶ ┌───────────────────────────────────────────────────┐ ──▶ Effects
//!             │ LockTable                                         │
//!             │   sessions ──▶ requests ──▶ claims ──▶ locks      │
//!             │   (leases)     (held or     (in one    (holders   │
//!   now ────▶ │                 waiting)     chain)    and queue) │ ──▶ next_deadline
//!             └───────────────────────────────────────────────────┘
//! ```
//!
//! Invariants, as absences:
//! - Nothing here reads a clock, rolls dice, does I/O, logs, or knows actix: the same events at the
//!   same times have the same effects.
//! - No lock is in the table that is neither held, waited for nor delayed: a free lock costs zero
//!   bytes.
//! - No request holds a part of its claims: all or none.
//! - Waiters behind the head of a queue wait only because of their position, or because they are
//!   away.
//! - No named owner waits for itself (deadlock), however many others lie between.
//! - No token is granted twice, and none that is not durably reserved.
//! - No client input reaches an assertion.
//!
//! Files stand in layers, and import only from those below:
//!
//! | layer | files |
//! |---|---|
//! | words | `event`, `effect`, `request_event`, `rejection`, `arena`, `row`, `shape`, `pause`, `tally` |
//! | storage | `session`, `owner`, `request`, `claim`, `away`, `queue`, `lock` |
//! | books | `deadlines`, `deferred`, `grace_period`, `records`, `this_run`, `tokens` |
//! | table | `table` |
//! | rules | all others: each is about one thing, and adds methods to the table |
//!
//! `docs/architecture.md` follows a request from end to end. `docs/guarantees.md` says what these
//! rules mean for users.

mod arena;
mod attach;
mod audience;
mod away;
mod began;
mod catch_up;
mod claim;
mod convert;
mod deadlines;
mod deadlock;
mod deferred;
mod delay;
mod effect;
mod event;
mod forfeit;
mod grace;
mod grace_period;
mod grant;
mod holdings;
mod image;
#[cfg(test)]
mod invariants;
mod lock;
mod owner;
mod passing;
mod pause;
mod place;
mod queue;
mod records;
mod rejection;
mod request;
mod request_event;
mod revoke;
mod row;
mod seed;
mod session;
mod shape;
mod snapshot;
mod sorted;
mod supersede;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod this_run;
mod tokens;
mod unattended;
mod view;
mod withdraw;

pub use deadlock::STEPS_MAX;
pub use deferred::SLICE_STEPS_MAX;
pub use effect::{Effect, EndReason, Forfeit};
pub use event::{
    Attach, Command, Event, Extras, Hold, Place, Progress, Prolong, Reclaim, Request, Run,
    Supersede,
};
pub use forfeit::REVOCATIONS_WAITING_MAX;
pub use pause::Pause;
pub use place::PLACES_TOLD_MAX;
pub use records::RECORDS_MAX;
pub use rejection::{CYCLE_TOLD_MAX, Rejection};
pub use request_event::{Happened, LONG_TENURE, Listening, RequestEvent, Tenure};
pub use seed::Seed;
pub use snapshot::Snapshot;
pub use table::{Counts, HEARTBEAT, LockTable};
pub use tally::Tally;
pub use tokens::TOKEN_BLOCK;
pub use unattended::UnattendedView;
pub use view::{HolderView, LockView, Outlook, PLACES_LOOKED_AT_MAX, SessionView, WaiterView};

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, FencingToken, Ttl};

/// Days by which a client may move the counters ahead of the wall clock. They are enough for a
/// coordinator that started anew with a slow clock, and too few to be of use to a liar. The shell
/// makes [`Start::plausible`] of it.
pub const TOKENS_AHEAD_DAYS_MAX: u64 = 7;

/// What must be on disk before it may be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// This run of the coordinator. Only grows.
    pub epoch: Epoch,
    /// No token at or above this one may be granted. Only grows.
    pub tokens_below: FencingToken,
    /// No client believes in a longer lease than this; none if nobody was ever welcomed. After a
    /// crash, nobody is granted anything for so long (rules G1, G2).
    pub ttl_max: Option<Ttl>,
    /// In a grace period, proofs count of this run and later ones only: whatever was held then has
    /// been sealed anew since (rule G4). Only grows.
    pub settled: Epoch,
}

/// How the engine begins.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Facts on disk already.
    pub durable: Durable,
    /// The first token to grant.
    pub first_token: FencingToken,
    /// Bounds of what a client may present: above them it cannot be true (rule F3).
    pub plausible: Durable,
    /// State left by the runs before this one.
    pub past: Past,
}

/// What the runs before this one left.
#[derive(Clone, Debug, Default)]
pub struct Past {
    /// Everything, if the last one stopped in order. Else it crashed, and what was held must be
    /// reclaimed; unless nobody was ever welcomed.
    pub snapshot: Option<Snapshot>,
    /// Forfeits: none of it may be reclaimed.
    pub forfeits: Vec<Forfeit>,
    /// The number of the next record.
    pub next_record: u64,
}
