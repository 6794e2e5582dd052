//! What a member knows of the seat, and how it notices that the arbiter has forgotten something.

use super::seat::{Arbiter, Gap, Mark, RunId, Seat, Version};
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
    /// The highest version of the seat that was heard of, or a little less.
    pub version: Version,
    /// The arbiter that has it; none: none has answered yet.
    pub arbiter: Option<Arbiter>,
}

/// A seat that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sight {
    /// Who said so.
    pub(super) arbiter: Option<Arbiter>,
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
    /// Whose that is: the first that has answered, or an operator has let decide since.
    arbiter: Option<Arbiter>,
    /// The one in place of which it was let decide.
    former: Option<Arbiter>,
    /// The seat of that version, once it was seen.
    sight: Option<Sight>,
    /// The last answer, if it was older than what is known: from a stale member of the arbiter, or from
    /// one that was restored from a backup; or from another one.
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
        let arbiter = kept.and_then(|kept| kept.arbiter);
        Self { term, version, arbiter, former: None, sight: None, behind: None, accepted: None }
    }

    /// The arbiter that is believed; none: the first that answers will be.
    pub(super) fn arbiter(&self) -> Option<Arbiter> {
        self.arbiter
    }

    /// The one in place of which it was let decide, if it was.
    pub(super) fn former(&self) -> Option<Arbiter> {
        self.former
    }

    /// Another one that has answered, if that was the last answer.
    pub(super) fn other_arbiter(&self) -> Option<Arbiter> {
        self.behind.and_then(|sight| sight.arbiter).filter(|it| Some(*it) != self.arbiter)
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

    /// The version that the arbiter has now, if that is older than what is known. Another one is no more than one that is
    /// away: a pair in sync needs none, and whoever follows may not know yet that it is in sync.
    pub(super) fn is_behind(&self) -> Option<Version> {
        let is_other = self.other_arbiter().is_some();
        self.behind.filter(|_| !is_other).map(|sight| sight.version)
    }

    /// Takes note of an answer.
    pub(super) fn learn(&mut self, answer: Sight) -> News {
        self.arbiter = self.arbiter.or(answer.arbiter);
        if answer.arbiter != self.arbiter {
            let instead_of = answer.seat.and_then(|seat| seat.gap.instead_of);
            if instead_of != self.arbiter {
                self.behind = Some(answer);
                return News::Older;
            }
            // An operator has let it decide, and somebody has heard that and led.
            self.move_to(answer);
        }
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

    /// Goes on from an older seat, or from another arbiter's, for an operator says so; whether it does.
    pub(super) fn go_back_to(&mut self, arbiter: Arbiter, version: Version) -> bool {
        let is_meant = |it: &Sight| it.version == version && it.arbiter == Some(arbiter);
        if let Some(behind) = self.behind.take_if(|behind| is_meant(behind)) {
            self.move_to(behind);
            (self.sight, self.accepted) = (Some(behind), Some(version));
            true
        } else if self.behind.is_none()
            && self.trusted().is_none()
            && self.sight.as_ref().is_some_and(is_meant)
        {
            // As new as what is known, and of an earlier term.
            self.accepted = Some(version);
            true
        } else {
            false
        }
    }

    /// Has the arbiter that gave an answer decide from then on.
    fn move_to(&mut self, answer: Sight) {
        if self.arbiter != answer.arbiter {
            (self.former, self.arbiter) = (self.arbiter, answer.arbiter);
        }
        (self.version, self.sight) = (answer.version, None);
    }
}
