//! A leader: up to where it may say things, and whom it counts on for that.

use std::time::Duration;

use super::event::{Effect, Event};
use super::seat::{RunId, Seat, Timing};
use crate::types::Timestamp;

/// The standby of a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Partner {
    /// There is none.
    Nobody,
    /// It has nearly everything. From here on only what it has acknowledged is said; once that is
    /// all that was ever said, it is put into the seat (rule P2).
    Nearing(RunId),
    /// It is being put into the seat: the leader may be in sync, or alone (rule P3).
    Adding(RunId),
    /// It is in the seat.
    InSync(RunId),
    /// It is being taken out of the seat: the leader may be alone, or in sync (rule P3).
    Removing(RunId),
}

impl Partner {
    /// Who, if anybody.
    fn run(self) -> Option<RunId> {
        match self {
            Self::Nobody => None,
            Self::Nearing(run) | Self::Adding(run) | Self::InSync(run) | Self::Removing(run) => {
                Some(run)
            }
        }
    }
}

/// What a leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Leading {
    /// Which leadership this is.
    term: u64,
    /// Until when it may decide where it may be alone.
    until: Timestamp,
    /// Who follows.
    partner: Partner,
    /// The last position of the table.
    appended: u64,
    /// The last position that the partner has acknowledged.
    acknowledged: u64,
    /// The last position that may have been said.
    said: u64,
    /// Since when the partner has something to acknowledge; moves with each acknowledgement.
    waiting_since: Option<Timestamp>,
    /// Whether that was too long when it was last looked at, or the partner is gone.
    is_silent: bool,
    /// When the arbiter was asked last, or a swap was sent.
    asked: Timestamp,
    /// How long things take.
    timing: Timing,
}

/// What a leader does when it has heard something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Renew the lease.
    Beat,
    /// Look whether another leads by now: in sync it has no other way to hear of that.
    Look,
    /// Put the partner into the seat.
    Add(RunId),
    /// Take it out.
    Remove,
    /// Have it lead.
    HandOver(RunId),
    /// Lead no more, and leave no successor.
    Resign,
}

impl Leading {
    /// A leader that is alone, by a swap that was sent at `sent_at`; none if that is too long ago.
    pub(super) fn begin(
        term: u64,
        sent_at: Timestamp,
        now: Timestamp,
        timing: Timing,
    ) -> Option<Self> {
        let until = sent_at.after(timing.decides());
        (now < until).then_some(Self {
            term,
            until,
            partner: Partner::Nobody,
            appended: 0,
            acknowledged: 0,
            said: 0,
            waiting_since: None,
            is_silent: false,
            asked: sent_at,
            timing,
        })
    }

    /// Which leadership this is.
    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Whether `run` is its partner.
    pub(super) fn counts_on(&self, run: RunId) -> bool {
        self.partner.run() == Some(run)
    }

    /// The partner, if it is in the seat for certain.
    pub(super) fn in_sync(&self) -> Option<RunId> {
        match self.partner {
            Partner::InSync(run) => Some(run),
            Partner::Nobody | Partner::Nearing(_) | Partner::Adding(_) | Partner::Removing(_) => {
                None
            }
        }
    }

    /// Until when it may decide without another's acknowledgement.
    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    /// The position up to which everything may be said (rules P1 to P3, H2).
    pub(super) fn may_say(&mut self, now: Timestamp) -> u64 {
        let is_within_lease = now < self.until;
        let position = match self.partner {
            Partner::Nobody if is_within_lease => self.appended,
            Partner::InSync(_) => self.acknowledged,
            Partner::Nearing(_) | Partner::Adding(_) | Partner::Removing(_) if is_within_lease => {
                self.acknowledged
            }
            Partner::Nobody | Partner::Nearing(_) | Partner::Adding(_) | Partner::Removing(_) => {
                self.said
            }
        };
        self.said = self.said.max(position);
        self.said
    }

    pub(super) fn hear(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match *event {
            Event::Appended { position } => self.appended = self.appended.max(position),
            Event::CaughtUp { run } if self.partner == Partner::Nobody => {
                self.partner = Partner::Nearing(run);
                (self.acknowledged, self.waiting_since, self.is_silent) = (0, None, false);
            }
            Event::Acknowledged { run, position }
                if self.partner.run() == Some(run) && position > self.acknowledged =>
            {
                self.acknowledged = position.min(self.appended);
                (self.waiting_since, self.is_silent) = (None, false);
            }
            Event::Unfollowed { run } if self.partner.run() == Some(run) => {
                self.is_silent = true;
                if self.partner == Partner::Nearing(run) {
                    self.drop_nearing(run, effects);
                }
            }
            Event::Looked { pause } => self.look(pause, now),
            _ => {}
        }
        if self.acknowledged < self.appended {
            self.waiting_since = self.waiting_since.or(Some(now));
        }
    }

    /// Looks whether the partner leaves something unacknowledged for too long. While this leader stood still, nobody could
    /// hear an acknowledgement: so that counts for half of what is too long, and no more.
    fn look(&mut self, pause: Duration, now: Timestamp) {
        let Some(since) = self.waiting_since else { return };
        let since = since.after(pause.saturating_sub(self.timing.silence / 2)).min(now);
        self.waiting_since = Some(since);
        self.is_silent |= now.since(since) >= self.timing.silence;
    }

    fn drop_nearing(&mut self, run: RunId, effects: &mut Vec<Effect>) {
        self.nobody();
        effects.push(Effect::Removed { run });
    }

    fn nobody(&mut self) {
        (self.partner, self.waiting_since, self.is_silent) = (Partner::Nobody, None, false);
    }

    /// A swap of this leader was done that left it the leader. It was sent first at `sent_at`.
    pub(super) fn swapped(&mut self, seat: &Seat, sent_at: Timestamp, effects: &mut Vec<Effect>) {
        self.until = self.until.max(sent_at.after(self.timing.decides()));
        match (self.partner, seat.standby) {
            (Partner::Adding(run), Some(added)) if run == added => {
                self.partner = Partner::InSync(run);
                effects.push(Effect::Joined { run });
            }
            (Partner::Removing(run), None) => {
                self.nobody();
                effects.push(Effect::Removed { run });
            }
            _ => {}
        }
    }

    /// What to do now, where no swap is under way. Only a tick says that whoever decides has turned: so nothing else, not
    /// even an answer of the arbiter that comes late, renews the lease (rule H2).
    pub(super) fn next(
        &mut self,
        event: &Event,
        now: Timestamp,
        stopping: bool,
        effects: &mut Vec<Effect>,
    ) -> Option<Next> {
        if let Partner::Nearing(run) = self.partner
            && self.is_silent
        {
            self.drop_nearing(run, effects);
        }
        let next = self.change(now, stopping).or_else(|| {
            let is_due = *event == Event::Tick && now.since(self.asked) >= self.timing.beat();
            is_due.then_some(match self.partner {
                Partner::InSync(_) => Next::Look,
                _ => Next::Beat,
            })
        });
        if next.is_some() {
            self.asked = now;
        }
        next
    }

    /// Whether it is time for another seat than that of now.
    fn change(&mut self, now: Timestamp, stopping: bool) -> Option<Next> {
        match self.partner {
            Partner::InSync(heir) if stopping && self.acknowledged >= self.appended => {
                Some(Next::HandOver(heir))
            }
            Partner::Nobody if stopping => Some(Next::Resign),
            Partner::Nearing(run) if self.acknowledged >= self.said => {
                self.partner = Partner::Adding(run);
                Some(Next::Add(run))
            }
            Partner::InSync(run) if self.is_silent => {
                // If it is done, others count from when they see it, and that is later than now.
                (self.partner, self.until) =
                    (Partner::Removing(run), now.after(self.timing.decides()));
                Some(Next::Remove)
            }
            Partner::Nobody
            | Partner::Nearing(_)
            | Partner::Adding(_)
            | Partner::InSync(_)
            | Partner::Removing(_) => None,
        }
    }
}
