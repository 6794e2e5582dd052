//! Several coordinators, one of which leads: who that is, and what it may say (rules H1 to H4 and P1 to P6).
//!
//! The one idea: *an arbiter holds one value, the [`Seat`], and nobody changes it but by comparing it first*. The seat names the leader, and the standby that is *in sync* with it, if one is. This is
//! primary-backup replication with an external arbiter, as `PacificA` and vertical Paxos have it.
//!
//! ```text
//!   Alone ──caught up──▶ Nearing ──all said is acknowledged──▶ Adding ──known──▶ InSync
//!     ▲                     │                                                      │
//!     │◀─────silent─────────┘                                        silent, gone  │
//!     └──────────────────────────known────────────────────────── Removing ◀────────┘
//! ```
//!
//! | the leader is | it may say | nobody else leads, because |
//! |---|---|---|
//! | alone | everything, before its lease ends | others wait for longer than that lease |
//! | in sync | what the standby has acknowledged | only the standby named in the seat may take over, and it acknowledges nothing while it tries |
//! | between the two | what satisfies both | either may turn out to be so |
//!
//! So in sync nobody needs the arbiter: it may be away for as long as both live. The standby may take over at
//! any moment, on the least suspicion, and its table has all that was ever said.
//!
//! [`Member`] is pure: it is told the time, and what the arbiter and the others said. It has effects, and no
//! clock, socket or thread. `docs/cluster.md` has the decisions behind it, and how it is tested.
//!
//! # What the shell promises
//!
//! - What a [`Member::keeps`] is in the journal before anything is acknowledged or said.
//! - Acknowledgements are bound to the connection on which a standby follows.
//! - A leader gives a checkpoint to no standby that it counts on ([`Member::counts_on`]).
//! - A table that is begun empty ([`Table::New`], [`Table::Empty`]) has a journal of its own, in the name of the
//!   run that the seat has.
//! - What leaders before have left in the arbiter does not count where [`Gap::is_behind`] says so: whoever begins asks
//!   [`Member::gap`].
//! - Whether a grace period begins is asked of [`Table::begins_grace`].
//! - A leader that was told to stop appends nothing more.
//!
//! Each of these was found by leaving it out: the model then loses something that was said, within a few
//! thousand schedules.
//!
//! Invariants, as absences:
//! - No read decides. A decision is a compare-and-swap of the version that the decider knows.
//! - Nothing rests on the arbiter's clock or leases.
//! - No swap is proposed while the outcome of another is unknown.

mod event;
mod known;
mod leader;
mod member;
mod seat;
mod standby;
#[cfg(test)]
mod tests;

pub use self::event::{Effect, Event, Table};
pub use self::known::Kept;
pub use self::member::Member;
pub use self::seat::{Arbiter, Gap, Mark, RunId, Seat, Tenure, Timing, Version};
