//! One coordinator of a cluster: the table of its states, and what it proposes.

use super::event::{Effect, Event, Table};
use super::known::{Kept, Known, News, Sight};
use super::leader::{Leading, Next};
use super::seat::{Arbiter, Gap, Mark, RunId, Seat, Tenure, Timing, Version};
use super::standby::Standing;
use crate::types::{Epoch, Timestamp};

/// A swap whose outcome is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Swap {
    /// When it was sent first.
    sent_at: Timestamp,
    /// What it compares.
    expected: Version,
    /// What it puts.
    seat: Seat,
    /// The table to lead with, if it makes us the leader.
    table: Option<Table>,
}

/// What a member is at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    /// It does not lead.
    Standby(Standing),
    /// It leads.
    Leader(Leading),
}

/// One coordinator of a cluster. It is told the time, and what the arbiter and the others said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The life of its table.
    run: RunId,
    /// This process, for marks.
    process: u128,
    /// How many swaps it has proposed.
    attempts: u64,
    /// How long things take.
    timing: Timing,
    /// What the seat is, as far as that is known.
    known: Known,
    /// The swap under way.
    swap: Option<Swap>,
    /// What it is.
    role: Role,
    /// Runs that have ended for good: at most a leader and its standby matter.
    ended: [Option<RunId>; 2],
    /// An epoch of which the arbiter knows nothing, until the seat says so.
    contradicted: Option<Epoch>,
    /// Whether it is to stop.
    stopping: bool,
}

impl Member {
    /// A member that has just started. `process` is drawn anew for each process. `kept` is from a journal
    /// that was replayed in full, if one was.
    pub fn new(kept: Option<Kept>, process: u128, timing: Timing) -> Self {
        let run = kept.map_or(RunId(Mark { process, attempt: 0 }), |kept| kept.run);
        Self {
            run,
            process,
            attempts: 0,
            timing,
            known: Known::new(kept),
            swap: None,
            role: Role::Standby(Standing::default()),
            ended: [None; 2],
            contradicted: None,
            stopping: false,
        }
    }

    /// The position up to which everything may be said now; none if this one does not lead.
    pub fn may_say(&mut self, now: Timestamp) -> Option<u64> {
        match &mut self.role {
            Role::Leader(leading) => Some(leading.may_say(now)),
            Role::Standby(_) => None,
        }
    }

    /// Whether what a leader of `term` sends may be acknowledged, and its checkpoint be taken for our
    /// table (rule P4). [`Event::LeaderSpeaks`] comes before the first of its terms.
    ///
    /// Not while a swap of our own is under way: it may have made us the leader already. Once it is
    /// refused it never will, for the version that it compares is gone.
    pub fn may_acknowledge(&self, term: u64) -> bool {
        let is_standby = matches!(self.role, Role::Standby(_));
        is_standby && self.swap.is_none() && term >= self.known.term
    }

    /// What the journal has to keep before anything is acknowledged or said.
    pub fn keeps(&self) -> Kept {
        let (version, arbiter) = (self.known.version(), self.known.arbiter());
        Kept { run: self.run, term: self.known.term, version, arbiter }
    }

    /// The life of its table.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// The term that it leads, if it does.
    pub fn leads(&self) -> Option<u64> {
        self.leading().map(Leading::term)
    }

    /// The standby that is in sync with it, if it leads and one is.
    pub fn in_sync(&self) -> Option<RunId> {
        self.leading().and_then(Leading::in_sync)
    }

    /// Until when it may decide alone, if it leads. In sync it needs no such moment.
    pub fn decides_until(&self) -> Option<Timestamp> {
        self.leading().map(Leading::until)
    }

    /// Whether it counts on this standby, or may have to: one that is or may be in the seat.
    pub fn counts_on(&self, run: RunId) -> bool {
        self.leading().is_some_and(|leading| leading.counts_on(run))
    }

    /// The number of the swap whose answer it waits for.
    pub fn awaits(&self) -> Option<u64> {
        self.swap.map(|swap| swap.seat.mark.attempt)
    }

    /// The seat, as far as it is known and can be relied on.
    pub fn seat(&self) -> Option<Seat> {
        self.known.trusted().and_then(|sight| sight.seat)
    }

    /// What the arbiter has forgotten, as far as is known: what it has left of those before may be of before them.
    pub fn gap(&self) -> Gap {
        self.known.gap()
    }

    /// The version that the arbiter has, if that is older than one that was seen: it lags, or was restored
    /// from a backup. Nobody here takes the lead until it is newer, or an operator says
    /// [`Event::Lost`] of that version.
    pub fn arbiter_is_behind(&self) -> Option<Version> {
        self.known.is_behind()
    }

    /// The arbiter that it believes: of no other, anything is to be asked that changes something (rule H8).
    pub fn arbiter(&self) -> Option<Arbiter> {
        self.known.arbiter()
    }

    /// Another one that has answered instead, if that was the last answer. Nobody here takes the lead until that one
    /// is back, or an operator says [`Event::Lost`] of what the other has.
    pub fn other_arbiter(&self) -> Option<Arbiter> {
        self.known.other_arbiter()
    }

    /// Whether the arbiter answers, and knows less than was heard: of the seat, or of who has led. Nobody here
    /// takes the lead meanwhile (rule H4).
    pub fn doubts_arbiter(&self) -> bool {
        self.known.is_doubted()
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn leading(&self) -> Option<&Leading> {
        match &self.role {
            Role::Leader(leading) => Some(leading),
            Role::Standby(_) => None,
        }
    }

    /// Hears something at the moment `now`, and adds what is to be done to `effects`.
    pub fn step(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        match *event {
            Event::Read { arbiter, version, seat, asked } => {
                let (before, arbiter) = (self.known.arbiter(), Some(arbiter));
                self.learn(Sight { arbiter, version, seat, seen: now, asked }, effects);
                self.leave(before);
                self.resolve(now, effects);
            }
            Event::Swapped { version } => self.swapped(version, now, effects),
            Event::Refused { version, seat } => self.refused(version, seat, now, effects),
            Event::LeaderSpeaks { term } => self.hear_term(term),
            Event::Ended { run } => {
                if !self.ended.contains(&Some(run)) {
                    self.ended = [Some(run), self.ended[0]];
                }
            }
            Event::Contradicted { epoch } if self.leads().is_some() => {
                self.contradicted = Some(epoch);
                self.depose(None, effects);
            }
            Event::Stop => self.stopping = true,
            Event::Lost { arbiter, version } => self.go_back_to(arbiter, version, effects),
            Event::Tick
            | Event::Appended { .. }
            | Event::CaughtUp { .. }
            | Event::Acknowledged { .. }
            | Event::Looked { .. }
            | Event::Unfollowed { .. }
            | Event::Contradicted { .. }
            | Event::LeaderSilent => {}
        }
        match &mut self.role {
            Role::Leader(leading) => {
                leading.hear(event, now, effects);
                self.lead_on(event, now, effects);
            }
            Role::Standby(standing) => {
                standing.hear(event, &self.known, now);
                self.stand_by(event, now, effects);
            }
        }
    }

    /// A leader has spoken. One does only once it leads, so that an earlier one has nothing to say.
    fn hear_term(&mut self, term: u64) {
        if matches!(self.role, Role::Standby(_)) {
            self.known.term = self.known.term.max(term);
        }
    }

    /// Takes note of a seat.
    fn learn(&mut self, sight: Sight, effects: &mut Vec<Effect>) {
        if self.known.learn(sight) != News::Changed {
            return;
        }
        let Some(seat) = sight.seat else { return };
        // Within our term nobody else writes. A later term, or another's mark, is another leader.
        if self.leads().is_some_and(|term| seat.term != term || seat.mark.process != self.process) {
            self.depose(Some(seat.leader), effects);
        }
    }

    /// An operator says that what others than the arbiter know is lost. A leader that hears of it so late says nothing
    /// more: somebody else may begin from there.
    fn go_back_to(&mut self, arbiter: Arbiter, version: Version, effects: &mut Vec<Effect>) {
        let before = self.known.arbiter();
        if self.known.go_back_to(arbiter, version) {
            self.leave(before);
            if self.leads().is_some() {
                self.depose(None, effects);
            }
        }
    }

    /// What was asked of an arbiter that is believed no more is not waited for.
    fn leave(&mut self, before: Option<Arbiter>) {
        if before.is_some() && before != self.known.arbiter() {
            self.swap = None;
        }
    }

    fn depose(&mut self, by: Option<RunId>, effects: &mut Vec<Effect>) {
        self.role = Role::Standby(Standing::default());
        effects.push(Effect::Deposed { by });
    }

    /// A read may tell what became of the swap under way: if the seat has another version than it
    /// compares, it was done or never will be.
    fn resolve(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (Some(swap), version) = (self.swap, self.known.version()) else { return };
        if version <= swap.expected {
            return;
        }
        if self.known.mark() == Some(swap.seat.mark) {
            self.swapped(version, now, effects);
        } else {
            self.swap = None;
        }
    }

    /// The swap under way was not done.
    fn refused(
        &mut self,
        version: Version,
        seat: Option<Seat>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(swap) = self.swap else { return };
        if seat.is_some_and(|seat| seat.mark == swap.seat.mark) {
            // An earlier attempt of it was done, and its answer lost.
            return self.swapped(version, now, effects);
        }
        self.swap = None;
        let (arbiter, asked) = (self.known.arbiter(), swap.sent_at);
        self.learn(Sight { arbiter, version, seat, seen: now, asked }, effects);
        if version < swap.expected && self.leads().is_some() {
            // No read: the arbiter has agreed on it. So it was set back (rule H4).
            self.depose(None, effects);
        }
    }

    /// The swap under way was done.
    fn swapped(&mut self, version: Version, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(swap) = self.swap.take() else { return };
        let Swap { sent_at, seat, table, .. } = swap;
        let arbiter = self.known.arbiter();
        let sight = Sight { arbiter, version, seat: Some(seat), seen: now, asked: sent_at };
        if self.known.learn(sight) == News::Older {
            // Done, and undone by another since: what is known says so already.
            return;
        }
        match (&mut self.role, table) {
            (Role::Leader(leading), _)
                if seat.leader == self.run && seat.tenure == Tenure::Held =>
            {
                leading.swapped(&seat, sent_at, effects);
            }
            (Role::Leader(_), _) => self.depose(Some(seat.leader), effects),
            (Role::Standby(_), Some(table)) => {
                // Heard of too late, somebody else may lead by now. If not, it is tried again.
                let Some(leading) = Leading::begin(seat.term, sent_at, now, self.timing) else {
                    return;
                };
                self.run = seat.leader;
                self.role = Role::Leader(leading);
                effects.push(Effect::Lead { term: seat.term, table });
            }
            (Role::Standby(_), None) => {}
        }
    }

    /// Looks whether it is time to lead, and asks the arbiter now and then.
    fn stand_by(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        let Role::Standby(standing) = &mut self.role else { return };
        if self.swap.is_some() || self.stopping && self.contradicted.is_none() {
            return;
        }
        if let Some(forgotten) = self.contradicted.take() {
            // If others have led since then, they are contradicted as well.
            if let Some(seat) = self.seat().filter(|seat| seat.leader == self.run) {
                let (tenure, mark) = (Tenure::SetBack, self.next_mark());
                let gap = Gap { epoch: forgotten, ..seat.gap };
                let seat = Seat { tenure, standby: None, gap, mark, ..seat };
                return self.propose(seat, None, now, effects);
            }
            return;
        }
        let table = if self.known.is_set_back() {
            // Whatever the seat says now, others led since.
            Some(Table::Forgotten)
        } else {
            let sight = self.known.trusted();
            sight.and_then(|sight| standing.claim(self.run, &sight, &self.ended, now))
        };
        if let Some(table) = table {
            let leader = match table {
                Table::Own => self.run,
                Table::New | Table::Empty | Table::Forgotten => RunId(self.next_mark()),
            };
            // What an arbiter that was let decide has in its seat was not learnt as that of one that is believed.
            let term = self.seat().map_or(0, |seat| seat.term).max(self.known.term) + 1;
            let mut seat = self.seat_of(term, leader);
            if table == Table::Forgotten {
                seat.gap.term = seat.term;
                seat.gap.instead_of = self.known.former().or(seat.gap.instead_of);
            }
            self.propose(seat, Some(table), now, effects);
        } else if standing.asks(event, now, self.timing) {
            effects.push(Effect::Read);
        }
    }

    /// Goes on leading.
    fn lead_on(&mut self, event: &Event, now: Timestamp, effects: &mut Vec<Effect>) {
        let Role::Leader(leading) = &mut self.role else { return };
        if self.swap.is_some() {
            return;
        }
        let term = leading.term();
        let Some(next) = leading.next(event, now, self.stopping, effects) else { return };
        let mine = self.seat_of(term, self.run);
        let seat = match next {
            Next::Look => return effects.push(Effect::Read),
            Next::Add(standby) => Seat { standby: Some(standby), ..mine },
            Next::Beat | Next::Remove => mine,
            Next::HandOver(heir) => Seat { leader: heir, ..mine },
            Next::Resign => Seat { tenure: Tenure::Resigned, ..mine },
        };
        self.propose(seat, None, now, effects);
    }

    /// How the next swap is named.
    fn next_mark(&self) -> Mark {
        Mark { process: self.process, attempt: self.attempts + 1 }
    }

    /// A seat as the next swap would have it, without a standby.
    fn seat_of(&self, term: u64, leader: RunId) -> Seat {
        let (mark, lease) = (self.next_mark(), self.timing.lease);
        let gap = self.known.gap();
        Seat { term, leader, tenure: Tenure::Held, standby: None, lease, gap, mark }
    }

    /// Proposes a seat in place of the one that is known.
    fn propose(
        &mut self,
        seat: Seat,
        table: Option<Table>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(expected) = self.known.compared() else { return };
        self.attempts += 1;
        self.swap = Some(Swap { sent_at: now, expected, seat, table });
        effects.push(Effect::Swap { expected, seat });
    }
}
