//! The faults, and their frequencies.

use std::mem;
use std::time::Duration;

use super::Event;
use super::errand::Errand;
use super::journal::Crash;
use super::world::World;
use crate::server::Desk;
use crate::types::FencingToken;
use crate::wire::ClientMessage;

/// A longer stall does no harm to leases; a shorter one may be what a lease had left.
const STALL_UNNOTICED: Duration = Duration::from_millis(1_100);

impl World {
    /// Something goes wrong, and something else will.
    pub(super) fn go_wrong(&mut self) {
        if self.is_peace {
            return;
        }
        let next = self.now() + 50_000 + self.dice.next() % self.quiet_max;
        self.heap.push(next, Event::Fault);
        let (now, machine) = (self.now(), self.dice.below(self.machines.len()));
        let fault = match self.dice.below(38) {
            0..5 => {
                self.cut(machine, 1_000_000);
                "connections cut"
            }
            5..7 => {
                self.cut(machine, 1_000_000);
                self.machines[machine].cut_off_until = now + self.dice.next() % 4_000_000;
                "clients cut off"
            }
            7..10 => {
                self.machines[machine].up_dark_until = now + self.dice.next() % 5_000_000;
                "ways to the coordinator dark"
            }
            10..13 => {
                self.machines[machine].down_dark_until = now + self.dice.next() % 5_000_000;
                "ways to a client dark"
            }
            13..15 => {
                self.partition();
                "partitions"
            }
            15 => {
                self.delay_max = 1_000 + self.dice.next() % 1_200_000;
                "slow networks"
            }
            16 => {
                self.delay_max = 1_000;
                return;
            }
            17..19 => {
                self.pause(machine, 1_500_000);
                "clients paused"
            }
            19..21 => {
                self.pause(machine, 9_000_000);
                "clients paused for long"
            }
            21 => {
                self.vanish(machine);
                "clients killed"
            }
            22 => {
                self.stall(2_000_000);
                "coordinator paused"
            }
            23 => {
                self.stall(9_000_000);
                "coordinator paused for long"
            }
            24..28 | 31..35 => self.strike_site(now),
            28 => {
                self.revoke();
                "revocations"
            }
            35 => {
                self.change_rules();
                "reloads of rules"
            }
            29 => {
                self.mislead(machine);
                "clocks stopped"
            }
            30 => {
                self.mute(machine);
                "connections forgotten on the way"
            }
            // A moment of peace, for many things go wrong only where something went well before.
            _ => return,
        };
        self.referee.tally.count_fault(fault);
    }

    /// Something befalls the coordinator or its disks.
    fn strike_site(&mut self, now: u64) -> &'static str {
        match self.dice.below(8) {
            0 => {
                self.crash(Crash::Process);
                "coordinator killed"
            }
            1 => {
                self.stop();
                "coordinator stopped"
            }
            2 => {
                self.site.disk.slow_until = now + self.dice.next() % 5_000_000;
                "disk slow"
            }
            3 => {
                self.site.disk.fails_until = now + self.dice.next() % 5_000_000;
                "disk failing"
            }
            4 => {
                self.site.journal.die_in_write();
                "coordinator killed in a write"
            }
            5 => {
                self.crash(Crash::Power);
                "power cut"
            }
            6 => {
                let until = now + self.dice.next() % 8_000_000;
                self.site.journal.fail(until, &mut self.dice)
            }
            _ => {
                self.site.journal.slow_down(now + self.dice.next() % 5_000_000);
                "journal's disk slow"
            }
        }
    }

    /// Faults are over, and what they did to the world.
    pub(super) fn make_peace(&mut self) {
        let now = self.now();
        self.is_peace = true;
        self.delay_max = 1_000;
        (self.site.disk.fails_until, self.site.disk.slow_until) = (now, now);
        self.site.journal.make_peace(now);
        for machine in &mut self.machines {
            machine.cut_off_until = now;
            (machine.up_dark_until, machine.down_dark_until) = (now, now);
        }
        if now < self.site.stalled_until {
            self.heap.push(self.site.stalled_until, Event::Peace);
        } else {
            // Everybody may have everything.
            self.change_rules();
        }
    }

    /// All connections of a machine end. Each end hears of it some time, in whatever order, or never;
    /// what is under way may still arrive.
    pub(super) fn cut(&mut self, machine: usize, heard_within: u64) {
        let now = self.now();
        let first = self.wires.len().saturating_sub(64);
        for number in first..self.wires.len() {
            if self.wires[number].machine != machine || self.wires[number].is_cut {
                continue;
            }
            self.wires[number].is_cut = true;
            if self.dice.once_in(2) {
                self.wires[number].up.lose_all();
            }
            if self.dice.once_in(2) {
                self.wires[number].down.lose_all();
            }
            let (up, down) = (self.dice.next() % heard_within, self.dice.next() % heard_within);
            let wire = &mut self.wires[number];
            let (lost, words) = (wire.up.lost, None);
            if !self.dice.once_in(8) {
                wire.up.send(&mut self.heap, now + up, Event::Up { wire: number, lost, words });
            }
            let (lost, words) = (wire.down.lost, None);
            if !self.dice.once_in(8) {
                wire.down.send(
                    &mut self.heap,
                    now + down,
                    Event::Down { wire: number, lost, words },
                );
            }
            wire.up.shut();
            wire.down.shut();
        }
    }

    /// The connections of a machine are forgotten somewhere on the way, one way or both: nothing arrives
    /// any more, and nobody is told. The next ones are as good as ever.
    fn mute(&mut self, machine: usize) {
        let first = self.wires.len().saturating_sub(64);
        for number in first..self.wires.len() {
            if self.wires[number].machine != machine || self.wires[number].is_cut {
                continue;
            }
            let ways = self.dice.below(3);
            let wire = &mut self.wires[number];
            if ways != 0 {
                wire.up.lose_all();
                wire.up.shut();
            }
            if ways != 1 {
                wire.down.lose_all();
                wire.down.shut();
            }
        }
    }

    /// Several are on the other side; connections look alive.
    fn partition(&mut self) {
        let until = self.now() + self.dice.next() % 6_000_000;
        for machine in 0..self.machines.len() {
            if self.dice.once_in(2) {
                self.machines[machine].up_dark_until = until;
                self.machines[machine].down_dark_until = until;
            }
        }
    }

    fn pause(&mut self, machine: usize, longest: u64) {
        let until = self.now() + self.dice.next() % longest;
        let until = until.max(self.machines[machine].paused_until);
        self.machines[machine].paused_until = until;
        self.heap.push(until, Event::Wake { machine });
    }

    /// A machine sleeps, and its clock with it: it wakes up in the belief that nothing has happened,
    /// while the lock has passed on, or was about to when the coordinator was killed.
    fn mislead(&mut self, machine: usize) {
        let now = self.now();
        if now < self.machines[machine].paused_until {
            return;
        }
        let length = 2_000_000 + self.dice.next() % 4_000_000;
        self.machines[machine].clock.stand_still(length);
        if let Some(person) = &mut self.machines[machine].person {
            person.mislead(now, length, &mut self.referee);
        }
        self.machines[machine].paused_until = now + length;
        self.heap.push(now + length, Event::Wake { machine });
        if self.dice.once_in(2) {
            self.site.disk.slow_until = now + length;
        }
        if self.dice.once_in(2) {
            let at = now + 1_500_000 + self.dice.next() % (length - 1_500_000);
            self.heap.push(at, Event::Kill { run: self.site.run });
        }
    }

    fn stall(&mut self, longest: u64) {
        let now = self.now();
        if let Some(desk) = &self.site.desk
            && now >= self.site.stalled_until
        {
            let until = now + self.dice.next() % longest;
            self.site.secure = desk.secure(STALL_UNNOTICED, self.site.clock.at(now));
            self.site.stalled_until = until;
            self.heap.push(until, Event::SiteWakes { run: self.site.run });
        }
    }

    pub(super) fn crash(&mut self, how: Crash) {
        if let Some(desk) = &self.site.desk {
            self.site.journal.leave(desk, how);
            self.note_unheard_grants();
            self.go_down(Some(how));
        }
    }

    /// Whoever was granted something and has not heard of it: if that is forgotten, it is in line again.
    fn note_unheard_grants(&mut self) {
        let Some(desk) = &self.site.desk else { return };
        let (referee, unheard) = (&self.referee, &mut self.site.unheard);
        unheard.clear();
        for (number, machine) in self.machines.iter().enumerate() {
            let Some(person) = &machine.person else { continue };
            let Some(session) = person.session else { continue };
            let is_granted = |request: u64, errand: &Errand| {
                desk.holds(&referee.name(errand.some_lock()), session, request)
            };
            let granted = person.errands.iter().filter(|(request, it)| is_granted(**request, it));
            unheard.extend(granted.map(|(request, _)| (number, person.name, *request)));
        }
    }

    /// Of those grants the new run knows nothing.
    pub(super) fn forget_unheard_grants(&mut self) {
        let now = self.heap.now();
        for (machine, name, request) in mem::take(&mut self.site.unheard) {
            let person = self.machines[machine].person.as_mut();
            if let Some(person) = person.filter(|person| person.name == name) {
                person.lose_places(now, &mut self.referee, |number, _| number == request);
            }
        }
    }

    /// An orderly stop: if the disk does not let it, it is killed after all.
    fn stop(&mut self) {
        if self.now() >= self.site.stalled_until {
            self.with_desk(Desk::save);
            let at = self.now() + 3_000_000;
            self.heap.push(at, Event::Kill { run: self.site.run });
        }
    }

    /// An operator takes a lock away; or tries to, having looked too long ago.
    fn revoke(&mut self) {
        if self.now() < self.site.stalled_until {
            return;
        }
        let name = self.referee.name(self.dice.below(self.referee.lock_count()));
        let Some(desk) = &self.site.desk else { return };
        let Some(lock) = desk.lock(&name) else { return };
        let Some(holder) = lock.holders().last() else { return };
        let is_stale = self.dice.once_in(3);
        let token = holder.token.number() - u64::from(is_stale);
        if is_stale && lock.holders().any(|holder| holder.token.number() == token) {
            return;
        }
        // Odd numbers are those that must be refused.
        self.site.queries += 2;
        let query = self.site.queries + u64::from(is_stale);
        if !is_stale {
            let (session, request, now) = (holder.session, holder.request, self.heap.now());
            self.referee.revoked.insert(token);
            self.strangers.lose(now, Some(token), &mut self.referee);
            if let Some(&(machine, _)) = self.referee.sessions.get(&session)
                && let Some(person) = &mut self.machines[machine].person
                && person.session == Some(session)
            {
                person.wake(now, &mut self.referee);
                person.revoke(now, request.number(), token, &mut self.referee);
            }
        }
        let name = name.to_string();
        self.operate(vec![ClientMessage::Revoke {
            query_id: query,
            name,
            token: FencingToken::new(token),
        }]);
    }
}
