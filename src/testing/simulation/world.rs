//! The world: it delivers each event to its receiver in order of time.

use std::collections::VecDeque;
use std::fmt::Write;
use std::mem;

use super::Event;
use super::journal::Crash;
use super::network::Wire;
use super::person::Person;
use super::referee::{Lock, Referee, Trace};
use super::site::Site;
use super::strangers::Strangers;
use super::tally::Tally;
use super::time::{Heap, SkewedClock};
use crate::client::core::End;
use crate::server::Desk;
use crate::testing::fuzz::Random;
use crate::types::Timestamp;
use crate::wire::{ClientMessage, ServerMessage};

/// True microseconds in which faults happen.
pub(super) const FAULTS: u64 = 60_000_000;
/// True microseconds after which nobody may still wait, or be there.
const PEACE: u64 = 120_000_000;
/// A client that could not begin in so long is given up.
const BIRTH_MAX: u64 = 5_000_000;

/// A client's machine.
pub(super) struct Machine {
    pub(super) clock: SkewedClock,
    /// The client, while there is one.
    pub(super) person: Option<Person>,
    /// Until when it stands still.
    pub(super) paused_until: u64,
    /// What it will find when it goes on.
    pub(super) piled: VecDeque<Event>,
    /// Until when no connection can be made.
    pub(super) cut_off_until: u64,
    /// Until when nothing that it sends arrives, and nothing that it is sent.
    pub(super) up_dark_until: u64,
    pub(super) down_dark_until: u64,
    /// Whether nobody begins here any more.
    is_left: bool,
}

/// What a run came to.
pub(super) struct Outcome {
    /// Counts of things.
    pub(super) tally: Tally,
    /// Events.
    pub(super) events: u64,
    /// Virtual microseconds.
    pub(super) length: u64,
    /// All that happened, if that was wanted.
    pub(super) trace: Option<String>,
}

/// Everything there is.
pub(super) struct World {
    pub(super) heap: Heap<Event>,
    pub(super) dice: Random,
    pub(super) referee: Referee,
    pub(super) site: Site,
    pub(super) machines: Vec<Machine>,
    pub(super) wires: Vec<Wire>,
    /// Clients of the Redis dialect.
    pub(super) strangers: Strangers,
    /// The longest that something is on its way on a fast connection.
    pub(super) delay_max: u64,
    /// The longest from one fault to the next.
    pub(super) quiet_max: u64,
    /// Whether all faults are over.
    pub(super) is_peace: bool,
    /// Counts client processes.
    names: u64,
    events: u64,
}

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut dice = Random::new(seed);
        let (referee, site) = (Referee::new(&mut dice, trace), Site::new(&mut dice));
        let machine = |dice: &mut Random| Machine {
            clock: SkewedClock::any(dice),
            person: None,
            paused_until: 0,
            piled: VecDeque::new(),
            cut_off_until: 0,
            up_dark_until: 0,
            down_dark_until: 0,
            is_left: false,
        };
        let machines: Vec<Machine> = (0..3 + dice.below(4)).map(|_| machine(&mut dice)).collect();
        let quiet_max = *dice.pick(&[1_000_000, 2_000_000, 8_000_000]);
        let mut heap = Heap::new();
        heap.push(0, Event::SiteStarts);
        for machine in 0..machines.len() {
            heap.push(dice.next() % 1_000_000, Event::Born { machine });
            heap.push(1_000_000, Event::Turn { machine });
        }
        heap.push(2_000_000, Event::Fault);
        heap.push(FAULTS, Event::Peace);
        heap.push(FAULTS + PEACE, Event::End);
        let strangers = Strangers::of(seed, &mut heap);
        Self {
            heap,
            dice,
            referee,
            site,
            machines,
            wires: Vec::new(),
            strangers,
            delay_max: 1_000,
            quiet_max,
            is_peace: false,
            names: 0,
            events: 0,
        }
    }

    /// Lets everything happen.
    pub(super) fn run(mut self) -> Outcome {
        while !self.is_empty()
            && let Some(event) = self.heap.pop()
        {
            self.events += 1;
            self.referee.trace(self.now(), &event);
            self.happen(event);
        }
        let (events, length) = (self.events, self.now());
        let tally = mem::take(&mut self.referee.tally);
        Outcome { tally, events, length, trace: self.referee.judge() }
    }

    pub(super) fn now(&self) -> u64 {
        self.heap.now()
    }

    /// Whether everybody has left, and nothing is left of them.
    fn is_empty(&self) -> bool {
        self.is_peace
            && self.machines.iter().all(|machine| machine.is_left)
            && self.site.desk.as_ref().is_some_and(|desk| {
                let counts = desk.counts();
                counts.sessions + counts.locks + counts.held + counts.waiting == 0
            })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up { .. }
            | Event::Ring { .. }
            | Event::GoOn { .. }
            | Event::AllHeard { .. }
            | Event::Flush { .. }
            | Event::Written { .. }
            | Event::Made { .. }
            | Event::LookAfter { .. }
            | Event::StrangerUp { .. }
            | Event::Commit { .. } => self.at_site(event),
            Event::StrangerTurn { .. } | Event::StrangerDown { .. } => {
                self.happen_to_stranger(event);
            }
            Event::Down { wire, .. } => self.at_machine(self.wires[wire].machine, event),
            Event::Dialed { machine, .. } | Event::Alarm { machine } | Event::Turn { machine } => {
                self.at_machine(machine, event);
            }
            Event::Born { machine } => self.be_born(machine),
            Event::Wake { machine } => {
                if self.now() >= self.machines[machine].paused_until {
                    // What has come over the network is looked at before the time is.
                    for event in mem::take(&mut self.machines[machine].piled) {
                        self.at_machine(machine, event);
                    }
                    self.with_person(machine, |_, _| {});
                }
            }
            Event::SiteWakes { run } => {
                if run == self.site.run && self.now() >= self.site.stalled_until {
                    self.wake_site();
                }
            }
            Event::Kill { run } => {
                if run == self.site.run && self.site.is_up() {
                    self.crash(Crash::Process);
                }
            }
            Event::SiteStarts => self.begin_run(),
            Event::Fault => self.go_wrong(),
            Event::Peace => self.make_peace(),
            Event::End => self.complain(),
        }
    }

    /// Not everybody was served, or something is left.
    fn complain(&self) {
        let mut waiting = String::new();
        for (number, machine) in self.machines.iter().enumerate() {
            let Some(person) = &machine.person else { continue };
            write!(waiting, "\nmachine {number}: {} errands", person.errands.len()).unwrap();
        }
        let counts = self.site.desk.as_ref().map(Desk::counts);
        panic!("long after the faults, there is {counts:?}{waiting}");
    }

    /// Something happens to a client, unless its machine stands still.
    fn at_machine(&mut self, number: usize, event: Event) {
        let now = self.now();
        let machine = &mut self.machines[number];
        if now < machine.paused_until {
            return machine.piled.push_back(event);
        }
        match event {
            Event::Down { wire, lost, words } => {
                let Some(person) = &machine.person else { return };
                if lost != self.wires[wire].down.lost {
                } else if person.wire == Some(wire) {
                    self.hear_down(number, words);
                } else if person.second_wire == Some(wire) {
                    self.hear_down_second(number, words);
                }
            }
            Event::Dialed { number: dialed, .. } => self.dialed(number, dialed),
            Event::Alarm { .. } => {
                if let Some(person) = &mut machine.person
                    && person.armed.take_if(|(_, rings)| *rings <= now).is_some()
                {
                    self.with_person(number, |_, _| {});
                }
            }
            Event::Turn { .. } => self.take_turn(number),
            other => unreachable!("{other:?} is for somebody else"),
        }
    }

    fn hear_down(&mut self, machine: usize, words: Option<Vec<ServerMessage>>) {
        self.with_person(machine, |person, local| match words {
            Some(words) => {
                for message in words {
                    person.core.receive(message, local);
                }
            }
            None => person.core.connection_lost(local),
        });
    }

    fn hear_down_second(&mut self, machine: usize, words: Option<Vec<ServerMessage>>) {
        let mut is_another = false;
        self.with_person(machine, |person, local| match words {
            Some(words) => {
                for message in words {
                    if person.core.connection() == person.second_number {
                        is_another = true;
                        person.core.receive(message, local);
                    } else {
                        person.core.receive_second(message, local);
                    }
                }
                is_another |= person.core.connection() == person.second_number;
            }
            None => person.core.second_lost(local),
        });
        if is_another {
            self.referee.tally.count("replaced by a second connection");
        }
    }

    /// An attempt to connect: it succeeds, fails, or hangs.
    fn dialed(&mut self, machine: usize, dialed: u64) {
        let Some(person) = &mut self.machines[machine].person else { return };
        if person.second_number == Some(dialed) && person.second_wire.is_none() {
            return self.dialed_second(machine);
        }
        if person.number != Some(dialed) || person.wire.is_some() {
            return;
        }
        let name = person.name;
        if self.can_connect(machine) {
            let wire = self.connect(machine, name);
            self.with_person(machine, |person, local| {
                person.wire = Some(wire);
                person.core.connected(local);
            });
        } else if self.dice.once_in(2) {
            self.with_person(machine, |person, local| person.core.connection_lost(local));
        }
    }

    fn dialed_second(&mut self, machine: usize) {
        let Some(person) = &self.machines[machine].person else { return };
        let name = person.name;
        if self.can_connect(machine) {
            let wire = self.connect(machine, name);
            let mut hello = None;
            self.with_person(machine, |person, local| {
                person.second_wire = Some(wire);
                hello = person.core.second_connected(local);
            });
            self.send_up(wire, Some(vec![hello.expect("it is wanted")]));
        } else if self.dice.once_in(2) {
            self.with_person(machine, |person, local| person.core.second_lost(local));
        }
    }

    fn can_connect(&self, machine: usize) -> bool {
        let Machine { cut_off_until, up_dark_until, down_dark_until, .. } = self.machines[machine];
        let is_near = self.now() >= cut_off_until.max(up_dark_until).max(down_dark_until);
        is_near && self.site.is_up()
    }

    fn connect(&mut self, machine: usize, name: u64) -> usize {
        self.wires.push(Wire::new(machine, name, self.site.run, &mut self.dice));
        self.wires.len() - 1
    }

    /// Somebody begins to use a machine, as soon as there is a coordinator.
    fn be_born(&mut self, machine: usize) {
        let now = self.now();
        if self.machines[machine].person.is_some() || self.machines[machine].is_left {
            return;
        }
        if !self.can_connect(machine) || now < self.machines[machine].paused_until {
            let again = now + 100_000 + self.dice.next() % 300_000;
            return self.heap.push(again, Event::Born { machine });
        }
        self.names += 1;
        let wire = self.connect(machine, self.names);
        let clock = self.machines[machine].clock;
        let mut person = Person::new(self.names, clock, now, &mut self.dice);
        person.wire = Some(wire);
        self.machines[machine].person = Some(person);
        self.with_person(machine, |_, _| {});
    }

    /// The owner of a client does what occurs to it.
    fn take_turn(&mut self, machine: usize) {
        let next = self.now() + 10_000 + self.dice.next() % 400_000;
        self.heap.push(next, Event::Turn { machine });
        let now = self.now();
        let Some(person) = &self.machines[machine].person else { return };
        if person.session.is_none() && now > person.born + BIRTH_MAX {
            return self.vanish(machine);
        }
        if self.is_peace && person.is_served && person.errands.is_empty() {
            self.machines[machine].is_left = true;
            return if self.dice.once_in(3) { self.vanish(machine) } else { self.leave(machine) };
        }
        if !self.is_peace && self.dice.once_in(250) {
            self.referee.tally.count("goodbyes");
            return self.leave(machine);
        }
        // Losses are told before more is asked for.
        self.with_person(machine, |_, _| {});
        let (dice, referee) = (&mut self.dice, &mut self.referee);
        let Some(person) = &mut self.machines[machine].person else { return };
        if self.is_peace {
            person.wish(now, dice, referee);
        } else {
            person.act(now, dice, referee);
        }
        self.with_person(machine, |_, _| {});
    }

    fn leave(&mut self, machine: usize) {
        self.with_person(machine, |person, _| person.core.goodbye());
    }

    /// A client process is gone, without a word; its machine may say so, or be gone as well.
    pub(super) fn vanish(&mut self, machine: usize) {
        let now = self.now();
        let Some(mut person) = self.machines[machine].person.take() else { return };
        person.wake(now, &mut self.referee);
        person.abandon_all(now, &mut self.referee);
        for wire in [person.wire, person.second_wire].into_iter().flatten() {
            if self.dice.once_in(2) {
                self.send_up(wire, None);
            }
            self.wires[wire].up.shut();
        }
        self.heap.push(now + self.dice.next() % 1_000_000, Event::Born { machine });
    }

    /// Something happens to a client; then what its driver does after each turn.
    pub(super) fn with_person(&mut self, number: usize, act: impl FnOnce(&mut Person, Timestamp)) {
        let (now, machine) = (self.heap.now(), &mut self.machines[number]);
        let (clock, Some(person)) = (machine.clock, &mut machine.person) else { return };
        let local = clock.at(now);
        person.wake(now, &mut self.referee);
        act(person, local);
        let mut granted = person.listen(now, &mut self.dice, &mut self.referee);
        person.core.tick(local);
        granted.extend(person.listen(now, &mut self.dice, &mut self.referee));
        if let Some(session) = person.session {
            self.referee.sessions.insert(session, (number, person.name));
        }
        for lock in granted {
            self.assert_compatible(lock);
        }
        self.carry(number);
    }

    /// Nobody believes in what excludes what another believes in.
    pub(super) fn assert_compatible(&self, lock: Lock) {
        let now = self.now();
        let people = self.machines.iter().filter_map(|machine| machine.person.as_ref());
        let believers = people.flat_map(|person| person.believes(now, lock));
        let believers: Vec<_> = believers.chain(self.strangers.believes(now, lock)).collect();
        self.referee.assert_compatible(now, lock, &believers);
    }

    /// Follows the core to another connection, sends what it says, sets its timer.
    fn carry(&mut self, number: usize) {
        let now = self.now();
        let Some(person) = &mut self.machines[number].person else { return };
        let words: Vec<ClientMessage> = person.core.drain_messages().collect();
        let (wire, is_over) = (person.wire, person.core.end().is_some());
        let wanted = person.core.connection();
        let is_another = wanted != person.number;
        let cuts = mem::take(&mut person.cut_next);
        let is_second = is_another && wanted.is_some() && wanted == person.second_number;
        if is_second {
            (person.number, person.wire) = (person.second_number.take(), person.second_wire.take());
        } else if is_another || is_over {
            (person.number, person.wire) = (wanted, None);
        }
        let is_dialed = is_another && !(is_second && person.wire.is_some());
        if let Some(wire) = wire {
            if !words.is_empty() && (!is_another || is_over) {
                self.send_up(wire, Some(words.clone()));
            }
            if is_another || is_over {
                self.close(wire);
            }
        }
        if is_second && let Some(wire) = self.machines[number].person.as_ref().and_then(|p| p.wire)
        {
            self.send_up(wire, Some(words));
        }
        self.carry_second(number);
        if is_over {
            return self.be_gone(number);
        }
        if is_dialed
            && !is_second
            && let Some(wanted) = wanted
        {
            self.dial(number, wanted);
        }
        if cuts && !self.is_peace {
            self.referee.tally.count_fault("connections cut while making up");
            self.cut(number, 1_000_000);
            // A grace period may be over by the next time.
            let longest = *self.dice.pick(&[1, 2_500_000]);
            self.machines[number].cut_off_until = now + self.dice.next() % longest;
        }
        self.arm(number);
    }

    /// The same, for the second connection.
    fn carry_second(&mut self, number: usize) {
        let Some(person) = &mut self.machines[number].person else { return };
        let is_over = person.core.end().is_some();
        let wanted = person.core.second_connection();
        if wanted == person.second_number {
            return;
        }
        let before = person.second_wire.take();
        person.second_number = wanted;
        if let Some(wire) = before {
            if is_over {
                self.send_up(wire, Some(vec![ClientMessage::Goodbye]));
            }
            self.close(wire);
        }
        if let Some(wanted) = wanted {
            self.referee.tally.count("second connections tried");
            self.dial(number, wanted);
        }
    }

    fn close(&mut self, wire: usize) {
        self.send_up(wire, None);
        self.wires[wire].up.shut();
    }

    fn dial(&mut self, machine: usize, number: u64) {
        let longest = self.delay_max + 50_000;
        let at = self.now() + self.dice.next() % longest;
        self.heap.push(at, Event::Dialed { machine, number });
    }

    /// The core is at its end.
    fn be_gone(&mut self, number: usize) {
        let now = self.now();
        let Some(person) = self.machines[number].person.take() else { return };
        let end = person.core.end().cloned();
        let is_meant = matches!(end, Some(End::Closed));
        assert!(is_meant || person.session.is_none(), "a client came to its end: {end:?}");
        assert!(person.errands.is_empty(), "a client came to its end, and did not say so to all");
        self.heap.push(now + self.dice.next() % 1_000_000, Event::Born { machine: number });
    }

    fn arm(&mut self, number: usize) {
        let now = self.heap.now();
        let machine = &mut self.machines[number];
        let (clock, Some(person)) = (machine.clock, &mut machine.person) else { return };
        let Some(deadline) = person.core.next_deadline() else { return };
        let at = clock.moment(deadline).max(now);
        if person.armed.is_none_or(|(set_for, _)| at < set_for) {
            let rings = at + self.dice.next() % 2_000;
            person.armed = Some((at, rings));
            self.heap.push(rings, Event::Alarm { machine: number });
        }
    }

    pub(super) fn send_up(&mut self, number: usize, words: Option<Vec<ClientMessage>>) {
        let wire = &mut self.wires[number];
        let dark_until = self.machines[wire.machine].up_dark_until;
        let at = self.heap.now().max(dark_until) + wire.delay(self.delay_max, &mut self.dice);
        let lost = wire.up.lost;
        wire.up.send(&mut self.heap, at, Event::Up { wire: number, lost, words });
    }
}
