//! A standby: when it may take the lead, and with which table.

use super::event::{Event, Table};
use super::known::{Known, Sight};
use super::seat::{RunId, Seat, Tenure, Timing, Version};
use crate::types::Timestamp;

/// What a standby knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Standing {
    /// Since when the leader is silent, if it is.
    silent_since: Option<Timestamp>,
    /// The version of the seat whose leader and standby are lost, as an operator says.
    lost: Option<Version>,
    /// When the arbiter was asked last.
    asked: Option<Timestamp>,
}

impl Standing {
    pub(super) fn hear(&mut self, event: &Event, known: &Known, now: Timestamp) {
        match *event {
            Event::LeaderSilent => {
                self.silent_since = self.silent_since.or(Some(now));
            }
            Event::LeaderSpeaks { term } if term >= known.term => self.silent_since = None,
            Event::Lost { arbiter, version } if Some(arbiter) == known.arbiter() => {
                self.lost = Some(version);
            }
            _ => {}
        }
    }

    /// Whether the arbiter is to be asked now.
    pub(super) fn asks(&mut self, event: &Event, now: Timestamp, timing: Timing) -> bool {
        let is_due = self.asked.is_none_or(|asked| now.since(asked) >= timing.beat());
        let asks = is_due || *event == Event::LeaderSilent;
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// With which table the run `me` may try to lead, if it may. `ended`: runs that have, for good.
    pub(super) fn claim(
        &self,
        me: RunId,
        sight: &Sight,
        ended: &[Option<RunId>],
        now: Timestamp,
    ) -> Option<Table> {
        let Some(seat) = sight.seat else { return Some(Table::New) };
        if seat.tenure == Tenure::SetBack {
            // Also whoever was in the seat: others have led since, and what they said is not known here.
            return (self.lost == Some(sight.version)).then_some(Table::Forgotten);
        }
        let is_ended = |run| ended.contains(&Some(run));
        if seat.leader == me {
            // Handed over to us; or a process before this one led, and its journal is ours.
            return Some(Table::Own);
        }
        if seat.standby == Some(me) {
            // The arbiter has answered since the leader fell silent: so a swap gets an answer too,
            // and what we do not acknowledge meanwhile is not held up for long.
            let is_answered = self.silent_since.is_some_and(|since| sight.asked >= since);
            return (is_answered || is_ended(seat.leader)).then_some(Table::Own);
        }
        self.is_lost(&seat, sight, is_ended, now).then_some(Table::Empty)
    }

    /// Whether whoever led is lost, or has no lease any more: then what it knew is, too.
    fn is_lost(
        &self,
        seat: &Seat,
        sight: &Sight,
        is_ended: impl Fn(RunId) -> bool,
        now: Timestamp,
    ) -> bool {
        let is_leader_gone = is_ended(seat.leader) || seat.tenure == Tenure::Resigned;
        match seat.standby {
            // In sync nobody has a lease: as long as one of the two may live, it may say something.
            Some(standby) => {
                is_leader_gone && is_ended(standby) || self.lost == Some(sight.version)
            }
            None => is_leader_gone || now.since(sight.seen) >= seat.others_wait(),
        }
    }
}
