//! The coordinator's machine: its clock and disk, and the run of the coordinator that there is, if
//! there is one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::Event;
use super::disk::{Disk, Ended};
use super::errand::Errand;
use super::journal::{Crash, Held, Journal};
use super::network::{Wire, connection};
use super::operator::{self, Operator};
use super::ruling::Ruling;
use super::strangers::Strangers;
use super::time::SkewedClock;
use super::world::World;
use crate::access::Access;
use crate::engine::{EndReason, Start};
use crate::server::{
    Before, Change, Delivery, Desk, StaleState, StateKey, Turn, Way, Witness, begin_after, summary,
};
use crate::testing::fuzz::Random;
use crate::types::{Epoch, FencingToken, RejectionCode, SessionId, Timestamp};
use crate::wire::{self, ClientMessage, ServerMessage};

/// Seconds from 1970 to when wall clocks here begin: in 2027.
const WALL_SECS: u64 = 1_800_000_000;
const SECS_PER_DAY: usize = 86_400;
/// Tokens that a start reserves.
const MANY_TOKENS: u64 = 1 << 20;
/// How long it takes at most until all sockets were looked at.
const LOOK_MAX: u64 = 1_000;

/// What a run has found of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Its table, by a replay.
    Table,
    /// What it has saved in order.
    Saved,
    /// No more than what is always stored.
    Nothing,
}

/// The machine.
pub(super) struct Site {
    pub(super) clock: SkewedClock,
    pub(super) disk: Disk,
    pub(super) journal: Journal,
    /// The coordinator; none while it is down.
    pub(super) desk: Option<Desk>,
    /// Who looks on in this run.
    pub(super) operator: Operator,
    /// What was granted in the run that crashed last, by machine, client and request: who has not heard
    /// of it yet may never.
    pub(super) unheard: Vec<(usize, u64, u64)>,
    /// Counts its runs.
    pub(super) run: u64,
    /// Until when it stands still.
    pub(super) stalled_until: u64,
    /// While it goes on: whose leases may not end because it stood still (rule T3).
    pub(super) secure: Vec<SessionId>,
    /// Whether it goes on, and the time has not passed since.
    is_waking: bool,
    /// What is to be done when it goes on.
    pub(super) piled: VecDeque<Event>,
    /// For which true time its timer is set, and when it goes off, which is later.
    pub(super) armed: Option<(u64, u64)>,
    /// Whether those who were there before may still come back, as far as was noticed.
    pub(super) is_in_grace: bool,
    /// The name of the next session; greater than those of all runs before.
    next_session: Rc<Cell<u128>>,
    /// Whether it has an access file.
    pub(super) is_ruled: bool,
    /// Counts revocations.
    pub(super) queries: u64,
}

impl Site {
    pub(super) fn new(dice: &mut Random) -> Self {
        Self {
            clock: SkewedClock::any(dice),
            disk: Disk::new(dice),
            journal: Journal::new(dice),
            desk: None,
            operator: Operator::new(std::iter::empty()),
            unheard: Vec::new(),
            run: 0,
            stalled_until: 0,
            secure: Vec::new(),
            is_waking: false,
            piled: VecDeque::new(),
            armed: None,
            is_in_grace: false,
            next_session: Rc::new(Cell::new(1)),
            is_ruled: dice.once_in(2),
            queries: 0,
        }
    }

    /// Who may do what, by rules or for want of any.
    pub(super) fn rules(&self, ruling: &Ruling) -> Access {
        if self.is_ruled { ruling.access() } else { Access::open() }
    }

    /// Whether connections can be made to it: also while it stands still.
    pub(super) fn is_up(&self) -> bool {
        self.desk.is_some()
    }

    /// A run begins. The wall clock may have been set, forwards or backwards. Says what it
    /// has found of the run before.
    pub(super) fn start(&mut self, now: u64, ruling: &Ruling, dice: &mut Random) -> Found {
        let set_to = match dice.below(3) {
            0 => dice.below(SECS_PER_DAY) as u64,
            _ => SECS_PER_DAY as u64,
        };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_SECS + set_to);
        let tokens = if dice.once_in(4) { 1 + dice.next() % 20 } else { MANY_TOKENS };
        let (names, local) = (Rc::clone(&self.next_session), self.clock.at(now));
        let (journal, mut before) = (&mut self.journal, Before::Nothing);
        let look = |last: Option<Epoch>, _: StateKey, start: &mut Start| {
            before = journal.open((last, start), (now, local), dice);
        };
        let (mut start, key) =
            begin_after(&self.disk.kept, StaleState::Refuse, wall, look).unwrap();
        let below = FencingToken::new(start.first_token.number() + tokens);
        start.durable.tokens_below = start.durable.tokens_below.min(below);
        let is_saved = matches!(before, Before::Saved(_)) || start.past.snapshot.is_some();
        let found = match before {
            Before::Crashed(_) => Found::Table,
            Before::Saved(_) | Before::Nothing if is_saved => Found::Saved,
            Before::Saved(_) | Before::Nothing => Found::Nothing,
        };
        let mut desk = Desk::witnessed((start, key), before, names, self.rules(ruling), local);
        desk.speak_redis(self.journal.is_kept());
        self.journal.begin(&mut desk, now);
        self.desk = Some(desk);
        self.run += 1;
        self.is_in_grace = true;
        self.armed = None;
        self.stalled_until = now;
        found
    }

    /// The run is over, in whatever way.
    pub(super) fn stop(&mut self, how: Option<Crash>, now: u64, dice: &mut Random) {
        self.desk = None;
        self.disk.crash(dice);
        self.journal.stop(how, now, dice);
        self.piled.clear();
        self.secure.clear();
        self.is_waking = false;
        self.armed = None;
    }
}

impl World {
    /// Something is to be done by the coordinator, unless it stands still.
    pub(super) fn at_site(&mut self, event: Event) {
        if self.now() < self.site.stalled_until {
            return self.site.piled.push_back(event);
        }
        match event {
            Event::Up { wire, lost, words } => self.hear(wire, lost, words),
            Event::StrangerUp { link, lost, words } => self.hear_stranger(link, lost, words),
            Event::Ring { run } => {
                let is_set = self.site.armed.is_some_and(|(_, rings)| rings <= self.now());
                if run == self.site.run && is_set {
                    self.site.armed = None;
                    self.with_desk(Desk::ring);
                }
            }
            Event::GoOn { run } => {
                if run == self.site.run {
                    self.with_desk(Desk::go_on);
                }
            }
            Event::AllHeard { run, at } => {
                if run == self.site.run {
                    self.with_desk(|desk, local| desk.tick(at, local));
                    if mem::take(&mut self.site.is_waking) {
                        self.site.secure.clear();
                    }
                }
            }
            Event::Commit { run } => {
                if run == self.site.run && self.site.is_up() {
                    self.commit_ends();
                }
            }
            Event::Flush { run } if run == self.site.run => self.flush(),
            Event::Written { run } if run == self.site.run => self.written(),
            Event::Made { run } if run == self.site.run => self.made(),
            Event::LookAfter { run } if run == self.site.run && self.site.is_up() => {
                self.look_after_journal();
            }
            Event::Flush { .. }
            | Event::Written { .. }
            | Event::Made { .. }
            | Event::LookAfter { .. } => {}
            other => unreachable!("{other:?} is for somebody else"),
        }
    }

    /// A run begins, and with it somebody who looks on.
    pub(super) fn begin_run(&mut self) {
        let now = self.now();
        if self.dice.once_in(3) {
            self.draw_rules();
        }
        let found = self.site.start(now, &self.referee.ruling, &mut self.dice);
        if found == Found::Nothing {
            // Nobody who asks is told of a hold of before, and so nobody believes in one.
            self.strangers.forget();
            self.strangers.lose(now, None, &mut self.referee);
        }
        let Some(desk) = &self.site.desk else { return };
        let is_in_grace = desk.is_in_grace();
        if found == Found::Table {
            self.site.unheard.clear();
            self.referee.tally.count("restarts by replay");
        } else {
            self.forget_unheard_grants();
            if is_in_grace {
                self.referee.begin_life();
                self.referee.tally.count("restarts with a grace period");
            }
        }
        let locks = (0..self.referee.lock_count()).map(|lock| self.referee.name(lock));
        self.site.operator = Operator::new(locks);
        self.with_desk(Desk::begin);
        if self.site.journal.is_kept() {
            self.heap.push(now, Event::LookAfter { run: self.site.run });
        }
        self.with_desk(|desk, _| desk.connect(operator::CONNECTION, operator::WAY, None));
        self.operate(self.site.operator.first_words());
    }

    /// The coordinator stood still, and goes on: it finds its mail, and then the time.
    pub(super) fn wake_site(&mut self) {
        for event in mem::take(&mut self.site.piled) {
            self.at_site(event);
        }
        self.site.is_waking = true;
        self.with_desk(Desk::ring);
    }

    /// The operator says something.
    pub(super) fn operate(&mut self, words: Vec<ClientMessage>) {
        self.with_desk(|desk, local| desk.submit(desk.read(operator::CONNECTION, words), local));
    }

    fn hear(&mut self, wire: usize, lost: u32, words: Option<Vec<ClientMessage>>) {
        let Wire { run, ref up, .. } = self.wires[wire];
        if run != self.site.run || lost != up.lost {
            return;
        }
        self.note_lost_places(wire, words.as_deref().unwrap_or_default());
        let connection = connection(wire);
        if !mem::replace(&mut self.wires[wire].is_known, true) {
            self.with_desk(|desk, _| desk.connect(connection, Way(wire), None));
        }
        match words {
            Some(words) => {
                self.with_desk(|desk, local| desk.submit(desk.read(connection, words), local));
            }
            None => self.with_desk(|desk, local| desk.disconnect(connection, local)),
        }
    }

    /// Who comes with a ticket of an earlier run when that is of no use any more is the last in line.
    fn note_lost_places(&mut self, wire: usize, words: &[ClientMessage]) {
        let Wire { machine, name, .. } = self.wires[wire];
        let (Some(desk), Some(person)) = (&self.site.desk, &mut self.machines[machine].person)
        else {
            return;
        };
        if desk.is_over() {
            // Nobody hears it.
            return;
        }
        for message in words {
            if let ClientMessage::Request(wire::Request { request, ticket: Some(_), .. }) = *message
                && person.name == name
                && !desk.keeps_place(connection(wire), request.number())
            {
                let now = self.heap.now();
                person.lose_places(now, &mut self.referee, |number, _| number == request.number());
            }
        }
    }

    fn commit_ends(&mut self) {
        let (now, run) = (self.now(), self.site.run);
        match self.site.disk.end(now, &mut self.dice) {
            Ended::Well(changes) => {
                if changes.iter().any(|change| matches!(change, Change::SaveSnapshot(_))) {
                    self.referee.tally.count("restarts in order");
                    return self.go_down(None);
                }
                let committed = summary(&changes);
                let chronicle = self.site.journal.chronicle.as_mut();
                if let (Some(chronicle), Some(durable)) = (chronicle, committed.durable) {
                    chronicle.epoch(None, Some(durable.epoch));
                }
                self.with_desk(|desk, local| desk.committed(&committed, local));
            }
            Ended::Badly { again } => {
                self.referee.tally.count_fault("commits that failed");
                self.heap.push(again, Event::Commit { run });
            }
        }
    }

    /// The coordinator is gone, and comes back some time.
    pub(super) fn go_down(&mut self, how: Option<Crash>) {
        self.site.stop(how, self.heap.now(), &mut self.dice);
        let longest = *self.dice.pick(&[100_000, 100_000, 1_000_000, 8_000_000]);
        let back = self.now() + 1 + self.dice.next() % longest;
        self.heap.push(back, Event::SiteStarts);
        self.strangers.cut_all(&mut self.heap);
        // Its sockets are closed for it, if its machine is still there.
        let heard_within = *self.dice.pick(&[5_000, 5_000, 5_000, 1_000_000]);
        for machine in 0..self.machines.len() {
            self.cut(machine, heard_within);
            // Not everybody comes back at once.
            if !self.is_peace {
                let longest = *self.dice.pick(&[100_000, 300_000, 1_500_000]);
                self.machines[machine].cut_off_until = self.now() + self.dice.next() % longest;
            }
        }
    }

    /// The coordinator does something, if it is there, and what it wants done is done.
    pub(super) fn with_desk(&mut self, act: impl FnOnce(&mut Desk, Timestamp) -> &mut Turn) {
        let (now, run) = (self.now(), self.site.run);
        let local = self.site.clock.at(now);
        let Some(desk) = &mut self.site.desk else { return };
        let turn = mem::take(act(desk, local));
        let Turn { orders, deliveries, goes_on, listens, rings, is_drained: _, record, .. } = turn;
        let seen = desk.take_seen();
        self.judge_rules(&seen);
        self.note_absent();
        self.pass(Held { orders, deliveries, seen }, &record);
        if goes_on {
            self.heap.push(now + self.dice.next() % LOOK_MAX, Event::GoOn { run });
        }
        if let Some(at) = listens {
            self.heap.push(now + self.dice.next() % LOOK_MAX, Event::AllHeard { run, at });
        }
        if let Some(deadline) = rings {
            self.arm_site(deadline);
        }
    }

    /// What happened besides what clients were told.
    pub(super) fn judge(&mut self, seen: Witness) {
        let now = self.now();
        self.referee.convert(seen.converted);
        for granted in seen.granted {
            self.referee.granted(granted);
        }
        for (query, refusal) in mem::take(&mut self.site.operator.revoked) {
            let is_stale = query % 2 == 1;
            let is_no = refusal == Some(RejectionCode::NoSuchGrant);
            assert!(is_no || refusal.is_none() && !is_stale, "revocation {query}: {refusal:?}");
            self.referee.tally.count(if is_no { "not revoked" } else { "revoked" });
        }
        for (session, reason, epoch) in seen.ended {
            let is_secure = self.site.secure.contains(&session);
            assert!(!is_secure || reason == EndReason::Goodbye, "a stall is nobody's fault");
            self.referee.ended.insert(session, epoch);
            if let Some(&(machine, name)) = self.referee.sessions.get(&session)
                && let Some(person) = &mut self.machines[machine].person
                && person.name == name
            {
                person.orphaned_in = Some(epoch);
                person.lose_places(now, &mut self.referee, |_, _| true);
            }
        }
    }

    /// Tells the operator what is for it; the rest is for others.
    pub(super) fn hear_operator(
        &mut self,
        deliveries: Vec<Delivery>,
    ) -> Vec<(usize, Vec<ServerMessage>)> {
        let mut said = Vec::new();
        for Delivery { way, deliver, more } in deliveries {
            if Strangers::has(way) {
                self.answer_stranger(Delivery { way, deliver, more });
            } else if way == operator::WAY {
                let looks = self.site.operator.hear(deliver.whole());
                self.referee.tally.add_to("shown to a watcher", looks);
            } else {
                said.push((way.0, deliver.whole()));
            }
        }
        said
    }

    /// At the end of a grace period, what did not come back has lost its place in line.
    fn note_absent(&mut self) {
        let Some(desk) = &self.site.desk else { return };
        if desk.is_over() || desk.is_in_grace() || !mem::take(&mut self.site.is_in_grace) {
            return;
        }
        for person in self.machines.iter_mut().filter_map(|machine| machine.person.as_mut()) {
            let Some(session) = person.session else { continue };
            let is_absent = |number, _: &Errand| !desk.is_live(session, number);
            person.lose_places(self.heap.now(), &mut self.referee, is_absent);
        }
    }

    /// Sends what was said in a turn, each connection its batch.
    pub(super) fn send_down(&mut self, said: Vec<(usize, Vec<ServerMessage>)>) {
        for (wire, words) in said {
            if words.is_empty() {
                continue;
            }
            let is_last = matches!(words.last(), Some(ServerMessage::Goodbye { .. }));
            self.send_one_down(wire, Some(words));
            if is_last {
                self.send_one_down(wire, None);
                self.wires[wire].down.shut();
            }
        }
    }

    pub(super) fn send_one_down(&mut self, number: usize, words: Option<Vec<ServerMessage>>) {
        let wire = &mut self.wires[number];
        let dark_until = self.machines[wire.machine].down_dark_until;
        let at = self.heap.now().max(dark_until) + wire.delay(self.delay_max, &mut self.dice);
        let lost = wire.down.lost;
        wire.down.send(&mut self.heap, at, Event::Down { wire: number, lost, words });
    }

    /// Sets the timer of the coordinator: it goes off late, if at all.
    fn arm_site(&mut self, deadline: Timestamp) {
        let at = self.site.clock.moment(deadline).max(self.heap.now());
        if self.site.armed.is_none_or(|(set_for, _)| at < set_for) {
            let rings = at + self.dice.next() % 3_000;
            self.site.armed = Some((at, rings));
            self.heap.push(rings, Event::Ring { run: self.site.run });
        }
    }
}
