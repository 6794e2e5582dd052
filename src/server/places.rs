//! How many connections there may be, and are: counted, for everybody and for each address.
//!
//! `net/place.rs` decides who gets one of them when there are few.

use std::collections::HashMap;
use std::fmt;

use foldhash::fast::RandomState;

use crate::types::Origin;

/// Most connections at the door.
pub(super) const DOOR_MAX: usize = 256;
/// One more place for so many is kept for those who come back.
const PLACES_PER_KEPT: usize = 8;

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// For everybody.
    max: usize,
    /// For everybody from one address.
    per_address_max: usize,
}

impl Places {
    /// This many, and this many for one address. The default for an address is three quarters of
    /// all. Many honest clients may come from one address, behind a gateway or on one machine, but
    /// it is not to take all.
    pub(crate) fn new(max: usize, per_address_max: Option<usize>) -> Self {
        Self { max, per_address_max: per_address_max.unwrap_or(max - max / 4) }
    }

    /// Besides, for those who come back to a session.
    fn kept(self) -> usize {
        (self.max / PLACES_PER_KEPT).max(1)
    }

    /// The most connections that can be open at a time, those at the door included.
    pub(crate) fn open_max(self) -> usize {
        self.max + self.kept() + DOOR_MAX
    }
}

/// Who is inside.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// How many.
    count: usize,
    /// How many from each address that is known. None has 0.
    by_origin: HashMap<Origin, usize, RandomState>,
}

/// Who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comer {
    /// Anybody.
    Anyone,
    /// The client of a session that lives.
    Returning,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowd {
    /// There are so many.
    All {
        /// As many as may be.
        max: usize,
    },
    /// There are so many from one address.
    Address {
        /// Which.
        origin: Origin,
        /// As many as may be.
        max: usize,
    },
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { max } => write!(f, "{max} connections are open, the limit"),
            Self::Address { origin, max } => {
                write!(f, "{max} connections from {origin} are open, the limit for one address")
            }
        }
    }
}

impl Inside {
    /// Takes a place, if there is one for `comer`.
    pub(super) fn enter(
        &mut self,
        origin: Option<Origin>,
        places: Places,
        comer: Comer,
    ) -> Result<(), Crowd> {
        let kept = match comer {
            Comer::Anyone => 0,
            Comer::Returning => places.kept(),
        };
        if self.count >= places.max + kept {
            return Err(Crowd::All { max: places.max });
        }
        if let Some(origin) = origin {
            let max = places.per_address_max;
            let there = self.by_origin.get(&origin).copied().unwrap_or(0);
            if there >= max + kept {
                return Err(Crowd::Address { origin, max });
            }
            self.by_origin.insert(origin, there + 1);
        }
        self.count += 1;
        Ok(())
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, origin: Option<Origin>) {
        self.count -= 1;
        let Some(origin) = origin else { return };
        if let Some(there) = self.by_origin.get_mut(&origin) {
            *there -= 1;
            if *there == 0 {
                self.by_origin.remove(&origin);
            }
        }
    }
}

#[cfg(test)]
impl Inside {
    /// Whether no address is remembered.
    pub(super) fn is_forgetful(&self) -> bool {
        self.by_origin.is_empty()
    }
}
