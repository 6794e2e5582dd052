//! Several clients, one coordinator, one lock, and everything that can happen between them:
//! connections that are cut, silent, slow, or delayed in the making; clients that stand still; a
//! coordinator that crashes or restarts. They want the lock alone or together, and change their minds.
//! In all of it never do two believe that they hold the lock, unless all share it; who loses it was
//! out of touch for as long as a lease; and when it is over, everybody gets it again.

use super::contender::{Contender, asking, converting, mode_of};
use super::model_server::ModelServer;
use super::simulation::{Dice, Pipe, SkewedClock};
use super::*;
use crate::types::RejectionCode;
use crate::wire::{Mode, ServerMessage};

/// Schedules tried, each from a seed of its own.
const SCHEDULES: u64 = 300;
/// True microseconds in which faults happen.
const FAULTS: u64 = 30_000_000;
/// True microseconds after the last fault.
const PEACE: u64 = 20_000_000;
/// Contenders.
const CLIENTS: usize = 3;

/// One connection; what is under way may arrive though one end is gone.
struct Wire {
    client: usize,
    /// No message: the client's end is closed.
    up: Pipe<Option<ClientMessage>>,
    /// No message: the server's end is closed.
    down: Pipe<Option<ServerMessage>>,
    /// Nothing arrives any more.
    dead: bool,
}

/// What many schedules came to.
#[derive(Debug, Default)]
struct Tally {
    grants: u64,
    losses: u64,
    resumed: u64,
    reclaimed: u64,
    cancelled: u64,
    shared: u64,
    upgraded: u64,
    downgraded: u64,
    deadlocks: u64,
    timed_out: u64,
    unsent: u64,
    conversions_given_up: u64,
}

impl Tally {
    /// A conversion was refused, and what was to be converted is held still, or not.
    fn count_refused(&mut self, refusal: Refusal, is_held: bool, seed: u64) {
        match refusal {
            Refusal::Lost(_) => assert!(!is_held, "seed {seed}"),
            Refusal::Rejected(rejection) => match rejection.code {
                RejectionCode::Deadlock => self.deadlocks += 1,
                RejectionCode::TimedOut => self.timed_out += 1,
                other => panic!("seed {seed}: {other:?}"),
            },
            // It never was sent, for nobody was there.
            Refusal::Away => self.unsent += 1,
            other => panic!("seed {seed}: {other:?}"),
        }
    }
}

struct World {
    seed: u64,
    dice: Dice,
    now: u64,
    server: ModelServer,
    server_down_until: u64,
    clients: Vec<Contender>,
    wires: Vec<Wire>,
    /// No message is under way on any wire before this one.
    oldest_wire: usize,
    delay_max: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::of(seed);
        let clients =
            (0..CLIENTS).map(|n| Contender::new(&mut dice, seed * 10 + n as u64)).collect();
        let server = ModelServer::new(SkewedClock::any(&mut dice));
        let mut world = Self {
            seed,
            dice,
            now: 0,
            server,
            server_down_until: 0,
            clients,
            wires: Vec::new(),
            oldest_wire: 0,
            delay_max: 1_000,
        };
        for client in 0..CLIENTS {
            world.connect(client);
        }
        world
    }

    fn connect(&mut self, client: usize) {
        self.clients[client].wire = Some(self.wires.len());
        let (up, down) = (Pipe::new(), Pipe::new());
        self.wires.push(Wire { client, up, down, dead: false });
    }

    fn cut(&mut self, client: usize) {
        let wires = self.wires.iter_mut().skip(self.oldest_wire);
        for wire in wires.filter(|wire| wire.client == client && !wire.dead) {
            wire.dead = true;
            // Each end hears of it some time, in whatever order.
            wire.up.lose_all();
            wire.down.lose_all();
            wire.up.send(None, self.now + self.dice.roll(1_000_000));
            wire.down.send(None, self.now + self.dice.roll(1_000_000));
        }
        if self.dice.roll(2) == 0 {
            self.clients[client].cut_again_at = Some(self.now + self.dice.roll(1_000_000));
        }
    }

    fn faults(&mut self) {
        // The first connection is made once.
        if !self.clients.iter().all(|client| client.core.began) {
            return;
        }
        for client in 0..CLIENTS {
            if self.clients[client].cut_again_at.take_if(|at| *at <= self.now).is_some() {
                self.cut(client);
                if self.dice.roll(2) == 0 {
                    self.clients[client].cut_off_until = self.now + self.dice.roll(4_000_000);
                }
            }
        }
        match self.dice.roll(600) {
            0..6 => {
                let client = self.any_client();
                self.cut(client);
            }
            6..8 => {
                // Connections are lost, and none can be made.
                let client = self.any_client();
                self.cut(client);
                self.clients[client].cut_off_until = self.now + self.dice.roll(4_000_000);
            }
            8..10 => {
                let client = self.any_client();
                self.clients[client].paused_until = self.now + self.dice.roll(3_000_000);
            }
            10 => self.delay_max = 1_000 + self.dice.roll(1_200_000),
            11..14 => self.delay_max = 1_000,
            14..17 => {
                let is_crash = self.dice.roll(3) > 0;
                for client in 0..CLIENTS {
                    self.cut(client);
                    // Not everybody comes back at once.
                    self.clients[client].cut_off_until = self.now + self.dice.roll(1_500_000);
                }
                for wire in &mut self.wires {
                    wire.up.lose_all();
                }
                self.server_down_until = self.now + self.dice.roll(1_000_000);
                if is_crash {
                    self.server.crash(self.server_down_until);
                } else {
                    self.server.restart(self.server_down_until);
                }
            }
            _ => {}
        }
    }

    fn any_client(&mut self) -> usize {
        usize::try_from(self.dice.roll(CLIENTS as u64)).unwrap()
    }

    fn serve(&mut self) {
        if self.now < self.server_down_until {
            return;
        }
        self.server.tick(self.now);
        let is_done = |wire: &Wire| wire.dead && wire.up.is_empty();
        while self.wires.get(self.oldest_wire).is_some_and(is_done) {
            self.oldest_wire += 1;
        }
        for number in self.oldest_wire..self.wires.len() {
            while let Some(message) = self.wires[number].up.arrived(self.now) {
                if let Some(message) = message {
                    self.server.hear(number, message, self.now);
                } else {
                    self.server.disconnect(number);
                    self.wires[number].dead = true;
                }
            }
        }
        for (number, message) in std::mem::take(&mut self.server.outgoing) {
            let arrives = self.now + self.dice.roll(self.delay_max);
            if !self.wires[number].dead {
                self.wires[number].down.send(message, arrives);
            }
        }
    }

    /// A client's turn.
    fn act(&mut self, which: usize, tally: &mut Tally) {
        let (now, mut lost_by) = (self.now, Vec::new());
        let client = &mut self.clients[which];
        let local = client.clock.at(now);
        if let Some(wire) = client.wire {
            while client.wire == Some(wire)
                && let Some(message) = self.wires[wire].down.arrived(now)
            {
                lost_by.push(client.believes_until());
                match message {
                    Some(message) => client.core.receive(message, local),
                    None => client.core.connection_lost(local),
                }
                if client.core.connection() != client.number {
                    break;
                }
            }
        }
        if client.dialed_at.is_some_and(|at| at <= now) {
            client.dialed_at = None;
            if now < client.cut_off_until || now < self.server_down_until {
                client.core.connection_lost(local);
            } else {
                self.connect(which);
                self.clients[which].core.connected(local);
            }
        }
        let client = &mut self.clients[which];
        lost_by.push(client.believes_until());
        if client.core.next_deadline().is_some_and(|deadline| deadline <= local) {
            client.core.tick(local);
        }
        assert_eq!(client.core.end(), None, "seed {}", self.seed);
        self.listen(which, &lost_by, tally);
        self.want(which, tally);
        self.carry(which);
    }

    /// What the client tells is true.
    fn listen(&mut self, which: usize, believed: &[Option<Timestamp>], tally: &mut Tally) {
        let (now, seed) = (self.now, self.seed);
        let client = &mut self.clients[which];
        let local = client.clock.at(now);
        for effect in client.core.take_effects() {
            match effect {
                Effect::Granted { request, .. } if client.request == Some(request) => {
                    (client.granted, client.disbelieved) = (true, false);
                    client.release_at = now + self.dice.roll(4_000_000);
                    client.granted_at = now;
                    tally.grants += 1;
                }
                Effect::Granted { request, .. } if client.conversion == Some(request) => {
                    match mode_of(&client.core.requests[&request.number()]) {
                        Mode::Shared => tally.downgraded += 1,
                        _ => tally.upgraded += 1,
                    }
                    client.request = client.conversion.take();
                    client.granted_at = now;
                }
                // A downgrade of which we did not hear before the coordinator crashed: whom it let in
                // is reclaimed with a later token.
                Effect::Lost { reason: LostReason::Conflict, .. }
                    if client.conversion.is_some() =>
                {
                    assert!(client.mode() == Mode::Shared, "seed {seed}");
                    (client.request, client.granted) = (None, false);
                }
                Effect::Lost { reason, .. } => {
                    let unjust = believed.iter().flatten().any(|until| local < *until);
                    assert!(!unjust, "seed {seed}: lost ({reason:?}) what was believed in");
                    assert_eq!(reason, LostReason::Expired, "seed {seed}");
                    tally.losses += 1;
                    (client.request, client.granted) = (None, false);
                }
                Effect::Refused { request, refusal } if client.conversion == Some(request) => {
                    client.conversion = None;
                    tally.count_refused(refusal, client.request.is_some(), seed);
                }
                Effect::Replaced { request } => assert_eq!(client.request, Some(request)),
                Effect::Welcomed(_) => {
                    tally.resumed += 1;
                    // Before the server hears what we say to it.
                    if self.dice.roll(4) == 0 {
                        client.cut_again_at = Some(now);
                    }
                }
                Effect::Confirmed { .. } => tally.reclaimed += 1,
                Effect::Queued { .. } | Effect::Doubted { .. } => {}
                Effect::Released { request, outcome: Err(Refusal::Lost(reason)) } => {
                    let was_converted = client.given_up.contains(&request);
                    let is_told = reason == LostReason::NotReclaimed && was_converted;
                    assert!(is_told, "seed {seed}: {reason:?}");
                }
                Effect::Released { outcome, .. } => {
                    assert!(matches!(outcome, Ok(()) | Err(Refusal::Away)), "{outcome:?}");
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
    }

    /// What the client's owner does.
    fn want(&mut self, which: usize, tally: &mut Tally) {
        let (now, peace) = (self.now, self.now >= FAULTS);
        let client = &mut self.clients[which];
        let local = client.clock.at(now);
        match client.request {
            None => {
                let is_shared = self.dice.roll(2) == 0;
                let mode = if is_shared { Mode::Shared } else { Mode::Exclusive };
                tally.shared += u64::from(is_shared);
                client.request = Some(client.core.request(asking(mode), local));
            }
            Some(request) if client.granted && client.release_at <= now => {
                if let Some(conversion) = client.conversion.take() {
                    client.core.cancel(conversion);
                    client.given_up.push(request);
                    tally.conversions_given_up += 1;
                }
                client.core.release(request, local);
                (client.request, client.granted) = (None, false);
            }
            Some(request)
                if client.granted && client.conversion.is_none() && self.dice.roll(40) == 0 =>
            {
                let mode = match client.mode() {
                    Mode::Exclusive => Mode::Shared,
                    _ => Mode::Exclusive,
                };
                let conversion =
                    client.core.request(converting(request, mode, &mut self.dice), local);
                client.conversion = Some(conversion);
            }
            Some(request) if !peace && self.dice.roll(300) == 0 => {
                if let Some(conversion) = client.conversion.take() {
                    client.core.cancel(conversion);
                }
                client.core.cancel(request);
                (client.request, client.granted) = (None, false);
                tally.cancelled += 1;
            }
            Some(_) => {}
        }
    }

    /// What a driver does after a turn.
    fn carry(&mut self, which: usize) {
        let client = &mut self.clients[which];
        let wanted = client.core.connection();
        if wanted != client.number {
            client.number = wanted;
            if let Some(wire) = client.wire.take() {
                let arrives = self.now + self.dice.roll(self.delay_max);
                self.wires[wire].up.send(None, arrives);
            }
            let attempt = self.dice.roll(self.delay_max + 50_000);
            client.dialed_at = wanted.map(|_| self.now + attempt);
        }
        let messages: Vec<ClientMessage> = client.core.drain_messages().collect();
        let Some(wire) = client.wire else { return };
        for message in messages {
            let arrives = self.now + self.dice.roll(self.delay_max);
            if !self.wires[wire].dead {
                self.wires[wire].up.send(Some(message), arrives);
            }
        }
    }

    fn check(&mut self) {
        for client in &mut self.clients {
            let believes = client.granted && client.believes(self.now);
            assert!(!believes || !client.disbelieved, "seed {}: a hold was revived", self.seed);
            client.disbelieved |= client.granted && !believes;
        }
        let believers: Vec<Mode> =
            self.clients.iter().filter(|c| c.believes(self.now)).map(Contender::mode).collect();
        let may_be = believers.len() <= 1 || believers.iter().all(|mode| *mode == Mode::Shared);
        assert!(may_be, "seed {}: {believers:?} at {}", self.seed, self.now);
    }

    fn run(mut self, tally: &mut Tally) {
        while self.now < FAULTS + PEACE {
            if self.now < FAULTS {
                self.faults();
            } else {
                self.delay_max = 1_000;
            }
            self.serve();
            self.check();
            for client in 0..CLIENTS {
                if self.now >= self.clients[client].paused_until {
                    self.act(client, tally);
                    self.check();
                }
            }
            self.now += 1 + self.dice.roll(20_000);
        }
        let seed = self.seed;
        let starved = self.clients.iter().filter(|client| client.granted_at < FAULTS).count();
        assert_eq!(starved, 0, "seed {seed}: nobody starves when all is well");
    }
}

#[test]
fn invariant_never_two_believers_and_nobody_starves_whatever_happens_to_connections_and_server() {
    let mut tally = Tally::default();
    for seed in 0..SCHEDULES {
        World::new(seed).run(&mut tally);
    }
    // Otherwise nothing was tried.
    assert!(tally.grants > SCHEDULES * 10, "{tally:?}");
    assert!(tally.losses > SCHEDULES / 10, "{tally:?}");
    assert!(tally.resumed > SCHEDULES * 5, "{tally:?}");
    assert!(tally.reclaimed > SCHEDULES / 10, "{tally:?}");
    assert!(tally.cancelled > SCHEDULES, "{tally:?}");
    assert!(tally.shared > SCHEDULES * 5, "{tally:?}");
    assert!(tally.upgraded.min(tally.downgraded) > SCHEDULES, "{tally:?}");
    let failed = [tally.conversions_given_up, tally.deadlocks, tally.timed_out, tally.unsent];
    assert!(failed.iter().all(|count| *count > SCHEDULES / 10), "{tally:?}");
}
