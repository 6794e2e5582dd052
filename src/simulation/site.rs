//! The coordinator's machine: its clock and disk, and the run of the coordinator that there is, if
//! there is one.

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, SystemTime};

use super::Event;
use super::disk::{Disk, Ended};
use super::errand::Errand;
use super::network::{Wire, connection, wire};
use super::time::SkewedClock;
use super::world::World;
use crate::engine::EndReason;
use crate::fuzz::Random;
use crate::server::Change;
use crate::server::switchboard::{Switchboard, Turn};
use crate::types::{ConnectionId, RejectionCode, SessionId, Timestamp};
use crate::wire::{self, ClientMessage, ServerMessage};

/// Seconds from 1970 to when wall clocks here begin: in 2027.
const WALL_SECS: u64 = 1_800_000_000;
const SECS_PER_DAY: usize = 86_400;
/// Tokens that a start reserves.
const MANY_TOKENS: u64 = 1 << 20;

/// The machine.
pub(super) struct Site {
    pub(super) clock: SkewedClock,
    pub(super) disk: Disk,
    /// The coordinator; none while it is down.
    pub(super) board: Option<Switchboard>,
    /// Counts its runs.
    pub(super) run: u64,
    /// Until when it stands still.
    pub(super) stalled_until: u64,
    /// While it goes on: whose leases may not end because it stood still (rule T3).
    pub(super) secure: Vec<SessionId>,
    /// What is to be done when it goes on.
    pub(super) piled: VecDeque<Event>,
    /// For which true time its timer is set, and when it goes off, which is later.
    pub(super) armed: Option<(u64, u64)>,
    /// Whether those who were there before may still come back, as far as was noticed.
    pub(super) is_in_grace: bool,
    /// The name of the next session.
    next_session: u128,
    /// Counts revocations.
    pub(super) queries: u64,
}

impl Site {
    pub(super) fn new(dice: &mut Random) -> Self {
        Self {
            clock: SkewedClock::any(dice),
            disk: Disk::new(dice),
            board: None,
            run: 0,
            stalled_until: 0,
            secure: Vec::new(),
            piled: VecDeque::new(),
            armed: None,
            is_in_grace: false,
            next_session: 1,
            queries: 0,
        }
    }

    /// Whether connections can be made to it: also while it stands still.
    pub(super) fn is_up(&self) -> bool {
        self.board.is_some()
    }

    /// A run begins. The wall clock may have been set, forwards or backwards.
    pub(super) fn start(&mut self, now: u64, dice: &mut Random) {
        let set_to = match dice.below(3) {
            0 => dice.below(SECS_PER_DAY) as u64,
            _ => SECS_PER_DAY as u64,
        };
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(WALL_SECS + set_to);
        let tokens = if dice.once_in(4) { 1 + dice.next() % 20 } else { MANY_TOKENS };
        let local = self.clock.at(now);
        let board = Switchboard::begin(&self.disk.kept, wall, self.next_session, tokens, local);
        self.board = Some(board);
        self.run += 1;
        self.is_in_grace = true;
        self.armed = None;
        self.stalled_until = now;
    }

    /// The run is over, in whatever way.
    pub(super) fn stop(&mut self, dice: &mut Random) {
        if let Some(board) = self.board.take() {
            self.next_session = board.next_session();
        }
        self.disk.crash(dice);
        self.piled.clear();
        self.secure.clear();
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
            Event::Tick { run } => {
                let is_set = self.site.armed.is_some_and(|(_, rings)| rings <= self.now());
                if run == self.site.run && is_set {
                    self.site.armed = None;
                    self.with_board(Switchboard::tick);
                }
            }
            Event::Commit { run } => {
                if run == self.site.run && self.site.is_up() {
                    self.commit_ends();
                }
            }
            other => unreachable!("{other:?} is for somebody else"),
        }
    }

    fn hear(&mut self, wire: usize, lost: u32, words: Option<Vec<ClientMessage>>) {
        let Wire { run, ref up, .. } = self.wires[wire];
        if run != self.site.run || lost != up.lost {
            return;
        }
        self.with_board(|board, local| {
            if board.next_deadline().is_some_and(|deadline| deadline <= local) {
                board.tick(local);
            }
        });
        self.note_lost_places(wire, words.as_deref().unwrap_or_default());
        self.with_board(|board, local| match words {
            Some(words) => board.submit(connection(wire), &words, local),
            None => board.disconnect(connection(wire), local),
        });
    }

    /// Who comes with a ticket of an earlier run when that is of no use any more is the last in line.
    fn note_lost_places(&mut self, wire: usize, words: &[ClientMessage]) {
        let Wire { machine, name, .. } = self.wires[wire];
        let (Some(board), Some(person)) = (&self.site.board, &mut self.machines[machine].person)
        else {
            return;
        };
        for message in words {
            if let ClientMessage::Request(wire::Request { request, ticket: Some(_), .. }) = *message
                && person.name == name
                && !board.keeps_place(connection(wire), request)
            {
                let now = self.heap.now();
                person.lose_places(now, &mut self.referee, |number, _| number == request);
            }
        }
    }

    fn commit_ends(&mut self) {
        let (now, run) = (self.now(), self.site.run);
        match self.site.disk.end(now, &mut self.dice) {
            Ended::Well(changes) => {
                if changes.iter().any(|change| matches!(change, Change::SaveSnapshot(_))) {
                    self.referee.tally.count("restarts in order");
                    return self.go_down();
                }
                self.with_board(|board, local| board.committed(&changes, local));
            }
            Ended::Badly { again } => {
                self.referee.tally.count_fault("commits that failed");
                self.heap.push(again, Event::Commit { run });
            }
        }
    }

    /// The coordinator is gone, and comes back some time.
    pub(super) fn go_down(&mut self) {
        self.site.stop(&mut self.dice);
        let longest = *self.dice.pick(&[100_000, 100_000, 1_000_000, 8_000_000]);
        let back = self.now() + 1 + self.dice.next() % longest;
        self.heap.push(back, Event::SiteStarts);
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
    pub(super) fn with_board(&mut self, act: impl FnOnce(&mut Switchboard, Timestamp)) {
        let now = self.now();
        let local = self.site.clock.at(now);
        let Some(board) = &mut self.site.board else { return };
        act(board, local);
        let Turn { said, orders, revoked, ended, granted, converted } = board.take_turn();
        let epoch = board.epoch();
        self.referee.convert(converted);
        for granted in granted {
            self.referee.granted(granted);
        }
        for (query, refusal) in revoked {
            let is_stale = query % 2 == 1;
            let is_no = refusal == Some(RejectionCode::NoSuchGrant);
            assert!(is_no || refusal.is_none() && !is_stale, "revocation {query}: {refusal:?}");
            self.referee.tally.count(if is_no { "not revoked" } else { "revoked" });
        }
        for (session, reason) in ended {
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
        self.note_absent();
        for change in &orders {
            self.referee.order(change);
        }
        self.site.disk.order(orders);
        if let Some(end) = self.site.disk.begin(now, &mut self.dice) {
            self.heap.push(end, Event::Commit { run: self.site.run });
        }
        self.send_down(said);
        self.arm_site();
    }

    /// At the end of a grace period, what did not come back has lost its place in line.
    fn note_absent(&mut self) {
        let Some(board) = &self.site.board else { return };
        if board.is_in_grace() || !mem::take(&mut self.site.is_in_grace) {
            return;
        }
        for person in self.machines.iter_mut().filter_map(|machine| machine.person.as_mut()) {
            let Some(session) = person.session else { continue };
            let is_absent = |number, _: &Errand| !board.is_live(session, number);
            person.lose_places(self.heap.now(), &mut self.referee, is_absent);
        }
    }

    /// Sends what was said in a turn, as one batch to each connection.
    fn send_down(&mut self, said: Vec<(ConnectionId, ServerMessage)>) {
        let mut batches: Vec<(usize, Vec<ServerMessage>)> = Vec::new();
        for (to, message) in said {
            let to = wire(to);
            match batches.iter_mut().find(|(wire, _)| *wire == to) {
                Some((_, batch)) => batch.push(message),
                None => batches.push((to, vec![message])),
            }
        }
        for (wire, words) in batches {
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
    fn arm_site(&mut self) {
        let Some(board) = &self.site.board else { return };
        let Some(deadline) = board.next_deadline() else { return };
        let at = self.site.clock.moment(deadline).max(self.heap.now());
        if self.site.armed.is_none_or(|(set_for, _)| at < set_for) {
            let rings = at + self.dice.next() % 3_000;
            self.site.armed = Some((at, rings));
            self.heap.push(rings, Event::Tick { run: self.site.run });
        }
    }
}
