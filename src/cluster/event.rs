//! What a member hears, and what it wants done.

use std::time::Duration;

use super::seat::{Arbiter, RunId, Seat, Version};
use crate::types::{Epoch, Timestamp};

/// What a member hears.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The arbiter was asked at `asked`, and said this; no seat: there never was one.
    Read {
        /// Which arbiter that is. All swaps are its own, too, that of the first who answers, or that an operator accepts.
        arbiter: Arbiter,
        /// How often the seat was changed.
        version: Version,
        /// What it holds.
        seat: Option<Seat>,
        /// When the question was sent.
        asked: Timestamp,
    },
    /// The swap under way is done, and the seat has this version now.
    Swapped {
        /// The version that it made.
        version: Version,
    },
    /// The swap under way is not done, and will never be: the seat had this version.
    Refused {
        /// How often the seat was changed.
        version: Version,
        /// What it holds; none: there never was one.
        seat: Option<Seat>,
    },
    /// The leader's table has taken all up to this position.
    Appended {
        /// The position of the last record.
        position: u64,
    },
    /// A standby that follows us has nearly all that there is.
    CaughtUp {
        /// Which.
        run: RunId,
    },
    /// A standby that follows us has kept all up to this position.
    Acknowledged {
        /// Which.
        run: RunId,
        /// The position of the last record that it has.
        position: u64,
    },
    /// Whoever decides has turned, and has heard what standbys said until then.
    Looked {
        /// How long ago it had before: longer than usual, it stood still itself.
        pause: Duration,
    },
    /// A standby that followed us is gone, or does not go on.
    Unfollowed {
        /// Which.
        run: RunId,
    },
    /// The leader that we follow is silent, or its connection broke.
    LeaderSilent,
    /// The leader that we follow speaks.
    LeaderSpeaks {
        /// Its term.
        term: u64,
    },
    /// A run has ended for good, as its own data directory proves.
    Ended {
        /// Which.
        run: RunId,
    },
    /// An operator says that leader and standby of this version of the seat are lost for good.
    Lost {
        /// The arbiter that the operator asked: all that others know is lost, too.
        arbiter: Arbiter,
        /// The version that the operator saw. Who is in the seat by now may be alive.
        version: Version,
    },
    /// A leader has led with this epoch, as is proved, of which the arbiter knows nothing although it was asked: it
    /// was set back (rule H6).
    Contradicted {
        /// The epoch of that leader.
        epoch: Epoch,
    },
    /// Stop in order: nothing more is appended.
    Stop,
    /// Time has passed, and whoever decides has turned since the last one.
    Tick,
}

/// What the table of a leader is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Empty, for there never was another.
    New,
    /// The own one, which has all that was ever said.
    Own,
    /// Empty, after others.
    Empty,
    /// Empty, after others of which the arbiter knows nothing any more: what it has is older.
    Forgotten,
}

impl Table {
    /// Whether a grace period begins, in full, with the leadership. `was_in_grace`: the table was in one,
    /// where it was written. Its holders have yet to reclaim, and they come from further away
    /// (rule H3).
    pub fn begins_grace(self, was_in_grace: bool) -> bool {
        match self {
            Self::New => false,
            Self::Own => was_in_grace,
            Self::Empty | Self::Forgotten => true,
        }
    }
}

/// What a member wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Have the arbiter put `seat` in place of what has version `expected`, and repeat that until
    /// there is an answer. An answer to the swap before is none.
    Swap {
        /// The version that is compared.
        expected: Version,
        /// The seat to be.
        seat: Seat,
    },
    /// Ask the arbiter for the seat.
    Read,
    /// Lead.
    Lead {
        /// The term.
        term: u64,
        /// With which table.
        table: Table,
    },
    /// Lead no more: drop the table if it is not needed as a copy, send clients elsewhere.
    Deposed {
        /// Who leads by now, if that is known.
        by: Option<RunId>,
    },
    /// The one that follows is in sync.
    Joined {
        /// Which.
        run: RunId,
    },
    /// It is not in sync any more: have it follow from the beginning.
    Removed {
        /// Which.
        run: RunId,
    },
}
