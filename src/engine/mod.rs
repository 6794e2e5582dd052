//! The rules: who gets which lock, when, with which token. Events go in, effects come out.
//!
//! The one idea: *all requests for a lock enter its service queue, and the queue is served in
//! order*. A request that can be granted when it comes is granted; else it waits in the queue of
//! every lock it claims. When something leaves a lock, the head of its queue is looked at, and the
//! next, until one has to go on waiting. Nothing overtakes, so nothing starves.
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
//! - No waiter stands behind the head of its queue for another reason than its place.
//! - No number is granted twice, and none that is not durably reserved.
//! - No client input reaches an assertion.
//!
//! `docs/architecture.md` tells the whole way of a request; `docs/guarantees.md` what follows from
//! these rules for users.

mod arena;
mod effect;
mod event;
mod grant;
#[cfg(test)]
mod invariants;
mod lock;
#[cfg(test)]
mod random;
mod request;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod tokens;
mod view;

pub use effect::{Effect, EndReason, News, Rejection};
pub use event::{Attach, Command, Event, Progress, Request, Wait};
pub use grant::PLACES_TOLD_MAX;
pub use table::{Counts, LockTable};
pub use tokens::TOKEN_BLOCK;
pub use view::{HolderView, LockView, SessionView, WaiterView};

use crate::types::{Epoch, FencingToken};

/// What must be on disk before it may be relied on. Both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// This run of the coordinator.
    pub epoch: Epoch,
    /// No token at or above this one may be granted.
    pub tokens_below: FencingToken,
}

/// How the engine begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// What is on disk already.
    pub durable: Durable,
    /// The first token to grant.
    pub first_token: FencingToken,
    /// What a client presents above this cannot be true (rule F3).
    pub plausible: Durable,
}
