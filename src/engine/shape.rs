//! Shapes of locks: modes are shares of a capacity (rule R4).

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use crate::types::Mode;

/// What a lock is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Shape {
    /// Held by one, or shared.
    Plain,
    /// A number of permits.
    Semaphore { of: NonZeroU32 },
}

/// Room for as many shared holders as there can be requests, and for one exclusive one.
const PLAIN_CAPACITY: u32 = u32::MAX;

impl Shape {
    /// What a claim in this mode makes of a lock.
    pub(super) fn of(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive | Mode::Shared => Self::Plain,
            Mode::Permits { of, .. } => {
                NonZeroU32::new(of).map_or(Self::Plain, |of| Self::Semaphore { of })
            }
        }
    }

    /// How many permits there are; none: it is a plain lock.
    pub(super) fn permits(self) -> Option<u32> {
        match self {
            Self::Plain => None,
            Self::Semaphore { of } => Some(of.get()),
        }
    }

    /// How much there is to share.
    pub(super) fn capacity(self) -> u64 {
        match self {
            Self::Plain => PLAIN_CAPACITY.into(),
            Self::Semaphore { of } => of.get().into(),
        }
    }
}

/// How much of a lock's capacity a holder in this mode has. That is all there is to modes:
/// exclusive takes everything, shared next to nothing, permits what they say.
pub(super) fn share(mode: Mode) -> u64 {
    held_share(mode).into()
}

/// The same, as it is kept: what fits together fits into this as well.
pub(super) fn held_share(mode: Mode) -> u32 {
    match mode {
        Mode::Exclusive => PLAIN_CAPACITY,
        Mode::Shared => 1,
        Mode::Permits { take, .. } => take,
    }
}

/// Whether a holder in `mode` can join others who have this much of a lock, and use it as `shape`.
/// A holder that uses it as something else has it alone (rule R4).
pub(super) fn fits(mode: Mode, shape: Shape, taken: u64) -> bool {
    let wanted = Shape::of(mode);
    taken + share(mode) <= wanted.capacity() && (taken == 0 || shape == wanted)
}
