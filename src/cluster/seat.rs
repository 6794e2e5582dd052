//! What the arbiter holds, and how long things take.

use std::time::Duration;

use crate::types::Epoch;

/// One life of a member's table: a process, and those after it that replayed its journal in full.
///
/// A process that had to begin anew is another run, and a member of nothing (rule P5). So is one
/// that begins to lead with an empty table. Its run is named by the swap that made it leader: should
/// the process crash before it hears of that, the journal that it left is not taken for the table of
/// that leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(
    /// The beginning of the process, or the swap that made it leader.
    pub Mark,
);

/// How often the seat was changed: the arbiter's own number, such as etcd's `mod_revision`. 0: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(
    /// The number.
    pub u64,
);

/// Which arbiter: such as etcd's cluster id. It stays the same for the whole life of one; one that was restored from a
/// backup is another, unless it was given the name of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Arbiter(
    /// Its id.
    pub u64,
);

/// The one value that the arbiter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Which leadership this is. Each leader has a greater one than those before.
    pub term: u64,
    /// The run that leads, or that is to lead.
    pub leader: RunId,
    /// Whether that run still does: others need not wait for one that has resigned.
    pub tenure: Tenure,
    /// The run that has acknowledged all that was ever said, if one has.
    pub standby: Option<RunId>,
    /// How long others wait for this leader. It is its own, for theirs may be set otherwise.
    pub lease: Duration,
    /// What the arbiter has forgotten. It goes on from seat to seat.
    pub gap: Gap,
    /// Who wrote it: a swap that is repeated because its answer was lost recognises itself by this.
    pub mark: Mark,
}

impl Seat {
    /// How long others wait, from when they first saw its last swap: lease (1 + 2ρ) + 50 ms.
    pub fn others_wait(&self) -> Duration {
        self.lease + 2 * self.lease / DRIFT_ONE_IN + MARGIN
    }
}

/// What an arbiter that was set back knows nothing of. Whoever leads is told, and not only who led first since: that one
/// may have died before it left anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Gap {
    /// Leaders begin with a later epoch than this: one has led with it, as is proved (rule H6). 0: nobody has.
    pub epoch: Epoch,
    /// The first term since. What leaders of earlier terms have left there is older than what they said (rule H4). 0:
    /// nothing was forgotten.
    pub term: u64,
    /// The arbiter in place of which this one was let decide last, if it was: an operator has said so. Who believes that
    /// one believes this one instead.
    pub instead_of: Option<Arbiter>,
}

impl Gap {
    /// Whether what a leader of `term` has left is from before the gap.
    pub fn is_behind(self, term: u64) -> bool {
        term < self.term
    }
}

/// Whether a leader still leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tenure {
    /// It does, or did when it was last heard of.
    Held,
    /// It has stopped in order, and said that it will say nothing more.
    Resigned,
    /// It was proved to it that the arbiter was set back. Nobody leads until an operator says so (rule H6).
    SetBack,
}

/// A swap, named by who proposed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// The process that proposed it; unlike a run, it ends with the process.
    pub process: u128,
    /// Which of its swaps; 0: the beginning of the process.
    pub attempt: u64,
}

/// Rate error of a clock that is tolerated: one in this many (rule T1).
const DRIFT_ONE_IN: u32 = 100;
/// What is added to, or taken from, each wait: scheduling, rounding.
const MARGIN: Duration = Duration::from_millis(50);
/// A leader alone renews its lease this many times within it.
const BEATS_PER_LEASE: u32 = 5;

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// The lease of a leader that is alone.
    pub lease: Duration,
    /// How long a standby may leave something unacknowledged before it is taken out.
    pub silence: Duration,
}

impl Timing {
    /// How long a leader may decide alone, from the sending of its last swap: lease (1 − 2ρ) − 50 ms
    /// (rule H2).
    pub fn decides(&self) -> Duration {
        self.lease.saturating_sub(2 * self.lease / DRIFT_ONE_IN).saturating_sub(MARGIN)
    }

    /// The pause between two beats of a leader, and between two looks of a standby.
    pub fn beat(&self) -> Duration {
        self.lease / BEATS_PER_LEASE
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(2), silence: Duration::from_millis(250) }
    }
}
