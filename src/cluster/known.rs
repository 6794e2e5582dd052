//! What a member knows of the seat, and how it notices that the arbiter has forgotten something.

use super::seat::{Gap, Mark, RunId, Seat, Version};
use crate::types::Timestamp;

/// What a process takes from the one before it, whose journal it has replayed in full.
///
/// It is in the journal before anything is acknowledged, and before anything is said: else a member
/// that restarted could acknowledge an earlier leader, or believe an arbiter that was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kept {
    /// Whose journal it is.
    pub run: RunId,
    /// The highest term that was heard of.
    pub term: u64,
    /// The highest version of the seat that was heard of.
    pub version: Version,
}

/// A seat that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sight {
    /// Its version.
    pub(super) version: Version,
    /// What it says; none: there never was one.
    pub(super) seat: Option<Seat>,
    /// Since when others wait for its leader: when it was first seen here, or later.
    pub(super) seen: Timestamp,
    /// When the latest question that it answered was sent.
    pub(super) asked: Timestamp,
}

/// What is known of the seat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Known {
    /// The highest term, heard of by whatever way: the seat, a leader, an earlier process.
    pub(super) term: u64,
    /// The highest version, likewise.
    version: Version,
    /// The seat of that version, once it was seen.
    sight: Option<Sight>,
    /// The last answer, if it was older than what is known: from a stale member of the arbiter, or from
    /// one that was restored from a backup.
    behind: Option<Sight>,
    /// The version to which the arbiter was set back, for good, as an operator says.
    accepted: Option<Version>,
}

/// Whether a sight is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The seat was changed.
    Changed,
    /// It was not.
    Same,
    /// More than that is known already.
    Older,
}

impl Known {
    pub(super) fn new(kept: Option<Kept>) -> Self {
        let (term, version) = kept.map_or((0, Version(0)), |kept| (kept.term, kept.version));
        Self { term, version, sight: None, behind: None, accepted: None }
    }

    /// The highest version that it has heard of.
    pub(super) fn version(&self) -> Version {
        self.version
    }

    /// The mark of the seat, if it has one.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.sight.and_then(|sight| sight.seat).map(|seat| seat.mark)
    }

    /// What the arbiter has forgotten, as the latest seat says.
    pub(super) fn gap(&self) -> Gap {
        self.sight.and_then(|sight| sight.seat).map_or(Gap::default(), |seat| seat.gap)
    }

    /// The version to compare, whatever it says.
    pub(super) fn compared(&self) -> Option<Version> {
        self.sight.map(|sight| sight.version)
    }

    /// The seat that a decision may rest on; none while the arbiter says less than was heard (rule H4).
    pub(super) fn trusted(&self) -> Option<Sight> {
        let is_whole =
            |sight: &Sight| sight.seat.map_or(self.term == 0, |seat| seat.term >= self.term);
        self.sight.filter(|sight| self.behind.is_none() && is_whole(sight))
    }

    /// Whether the arbiter has answered, and says less than was heard: nothing is decided on that.
    pub(super) fn is_doubted(&self) -> bool {
        (self.behind.is_some() || self.sight.is_some()) && self.trusted().is_none()
    }

    /// Whether an operator says that the arbiter was set back, and that this is where to go on from.
    pub(super) fn is_set_back(&self) -> bool {
        self.accepted.is_some() && self.accepted == self.compared()
    }

    /// The version that the arbiter has now, if that is older than what is known.
    pub(super) fn is_behind(&self) -> Option<Version> {
        self.behind.map(|sight| sight.version)
    }

    /// Takes note of an answer.
    pub(super) fn learn(&mut self, answer: Sight) -> News {
        if answer.version < self.version {
            self.behind = Some(answer);
            return News::Older;
        }
        self.behind = None;
        self.version = answer.version;
        self.term = self.term.max(answer.seat.map_or(0, |seat| seat.term));
        match &mut self.sight {
            Some(sight) if sight.version == answer.version => {
                // After a time without answers the leader had none either: it has half a lease to renew.
                let half =
                    answer.seat.map_or(answer.seen, |seat| answer.seen.before(seat.lease / 2));
                if half > sight.asked {
                    sight.seen = sight.seen.max(half);
                }
                sight.asked = sight.asked.max(answer.asked);
                News::Same
            }
            _ => {
                self.sight = Some(answer);
                News::Changed
            }
        }
    }

    /// Goes on from an older seat, for an operator says so.
    pub(super) fn go_back_to(&mut self, version: Version) {
        if let Some(behind) = self.behind.take_if(|behind| behind.version == version) {
            (self.sight, self.version, self.accepted) = (Some(behind), version, Some(version));
        } else if self.behind.is_none()
            && self.trusted().is_none()
            && self.compared() == Some(version)
        {
            // As new as what is known, and of an earlier term.
            self.accepted = Some(version);
        }
    }
}
