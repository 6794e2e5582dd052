//! A client whose connections are silently forgotten on the way, in one direction or both. The
//! server is there all the time, and the next connection is as good as the first was. Attempts to
//! make one hang now and then, but never two in a row. In all of it nothing is lost, nobody comes
//! near to it, and no more connections are made than were forgotten.

use std::time::Duration;

use super::simulation::{Dice, Pipe, SkewedClock};
use super::tests::ask;
use super::*;
use crate::types::{
    Epoch, Generation, GoodbyeCode, RejectionCode, Seal, Secret, SessionId, Ttl, lease,
};
use crate::wire::{self, Attach, PROTOCOL, ServerMessage, Standing};

/// Schedules tried, each from a seed of its own.
const SCHEDULES: u64 = 100;
/// True length of a schedule, in leases.
const LEASES: u64 = 30;
/// One connection is forgotten in so many leases.
const LEASES_PER_LOSS: u64 = 2;

/// A connection.
struct Link {
    up: Pipe<ClientMessage>,
    down: Pipe<ServerMessage>,
    is_up: bool,
    is_down: bool,
}

/// The server's side: one session, and which of its connections it is attached to.
#[derive(Default)]
struct Server {
    attached: usize,
    generation: Generation,
    renewed: u64,
}

impl Server {
    fn answer(&mut self, link: usize, message: &ClientMessage, now: u64) -> Option<ServerMessage> {
        if let ClientMessage::Hello(wire::Hello { attach, ttl_ms, .. }) = message {
            let (generation, standing) = match *attach {
                Attach::New => (Generation(1), Standing::Opened),
                Attach::Resume { generation, .. } => (generation, Standing::Resumed),
                Attach::Observer => unreachable!(),
            };
            if generation <= self.generation {
                let (code, rejection) = (GoodbyeCode::Refused, RejectionCode::StaleGeneration);
                return Some(ServerMessage::Goodbye { code, rejection, message: String::new() });
            }
            (self.attached, self.generation, self.renewed) = (link, generation, now);
            return Some(ServerMessage::Welcome {
                protocol: PROTOCOL,
                server: String::new(),
                epoch: Epoch(1),
                session: SessionId(1),
                secret: Secret::new(1),
                generation,
                ttl_ms: *ttl_ms,
                standing,
            });
        }
        if link != self.attached {
            return None;
        }
        self.renewed = now;
        match message {
            ClientMessage::Request(wire::Request { request, .. }) => Some(ServerMessage::Grant {
                request: *request,
                token: FencingToken(request.number()),
                seal: Seal::new(0),
            }),
            ClientMessage::KeepAlive { sequence } => {
                Some(ServerMessage::KeptAlive { sequence: *sequence })
            }
            ClientMessage::Account(_) => None,
            other => panic!("{other:?}"),
        }
    }
}

/// The client, and its connections.
struct World {
    dice: Dice,
    clock: SkewedClock,
    ttl: Duration,
    links: Vec<Link>,
    core: Core,
    server: Server,
    /// The connection, and the second.
    current: (Option<u64>, Option<usize>),
    second: (Option<u64>, Option<usize>),
    /// When an attempt comes to its end, whether it was the last that hung.
    dialed_at: u64,
    hung: bool,
    forgotten: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::of(seed);
        let clock = SkewedClock::any(&mut dice);
        let ttl = Duration::from_secs([2, 3, 10, 60][usize::try_from(dice.roll(4)).unwrap()]);
        let reconnect =
            Reconnect { attempt_max: Duration::from_secs(5), seed: dice.roll(1 << 60), servers: 1 };
        let introduction = Introduction { ttl: Ttl::new(ttl).ok(), ..Introduction::default() };
        let core = Core::new(introduction, Some(reconnect), clock.at(0));
        let (links, server) = (Vec::new(), Server::default());
        let (current, second) = ((core.connection(), Some(0)), (None, None));
        let mut world = Self {
            dice,
            clock,
            ttl,
            links,
            core,
            server,
            current,
            second,
            dialed_at: 0,
            hung: false,
            forgotten: 0,
        };
        world.link();
        world
    }

    fn link(&mut self) -> usize {
        let (up, down) = (Pipe::new(), Pipe::new());
        self.links.push(Link { up, down, is_up: true, is_down: true });
        self.links.len() - 1
    }

    /// How long something is on its way: an answer is there within 1/32 ttl.
    fn delay(&mut self) -> u64 {
        let most = lease::answer_max(self.ttl) / 5;
        1 + self.dice.roll(u64::try_from(most.as_micros()).unwrap())
    }

    fn send_up(&mut self, link: usize, message: ClientMessage, now: u64) {
        let at = now + self.delay();
        if self.links[link].is_up {
            self.links[link].up.send(message, at);
        }
    }

    /// What the server has received is answered.
    fn serve(&mut self, now: u64) {
        for link in 0..self.links.len() {
            while let Some(message) = self.links[link].up.arrived(now) {
                let answer = self.server.answer(link, &message, now);
                let at = now + self.delay();
                if let Some(answer) = answer
                    && self.links[link].is_down
                {
                    self.links[link].down.send(answer, at);
                }
            }
        }
    }

    /// What the client has received is heard, then time passes.
    fn hear(&mut self, now: u64) {
        let local = self.clock.at(now);
        let first = self.current.1;
        while let Some(message) = first.and_then(|link| self.links[link].down.arrived(now)) {
            self.core.receive(message, local);
        }
        let second = self.second.1;
        while let Some(message) = second.and_then(|link| self.links[link].down.arrived(now)) {
            if self.core.connection() == self.second.0 {
                self.core.receive(message, local);
            } else {
                self.core.receive_second(message, local);
            }
        }
        if self.second.0.is_some() && second.is_none() && now >= self.dialed_at && !self.hung {
            let link = self.link();
            self.second.1 = Some(link);
            let hello = self.core.second_connected(local).expect("it is wanted");
            self.send_up(link, hello, now);
        }
        self.core.tick(local);
        let wanted = self.core.connection();
        if wanted != self.current.0 {
            assert_eq!(wanted, self.second.0, "only a second connection replaces the first");
            self.current = std::mem::take(&mut self.second);
        }
        let wanted = self.core.second_connection();
        if wanted != self.second.0 {
            self.second = (wanted, None);
            if wanted.is_some() {
                self.hung = !self.hung && self.dice.roll(4) == 0;
                self.dialed_at = now + self.delay();
            }
        }
        let messages: Vec<_> = self.core.drain_messages().collect();
        for message in messages {
            let link = self.current.1.expect("there is always one");
            self.send_up(link, message, now);
        }
    }

    /// All that is under way is lost, one way or both, and all that follows.
    fn forget(&mut self) {
        let ways = self.dice.roll(3);
        if let Some(link) = self.current.1 {
            let link = &mut self.links[link];
            if ways != 0 {
                (link.up, link.is_up) = (Pipe::new(), false);
            }
            if ways != 1 {
                (link.down, link.is_down) = (Pipe::new(), false);
            }
            self.forgotten += 1;
        }
    }
}

#[test]
fn invariant_nothing_is_lost_because_a_connection_was_forgotten_on_the_way() {
    let (mut forgotten, mut connections) = (0, 0);
    for seed in 0..SCHEDULES {
        let mut world = World::new(seed);
        let server_clock = SkewedClock::any(&mut world.dice);
        world.core.request(ask(), world.clock.at(0));
        let ttl = u64::try_from(world.ttl.as_micros()).unwrap();
        let (mut now, mut next_loss) = (0, ttl);
        while now < ttl * LEASES {
            if now >= next_loss && world.second.0.is_none() {
                world.forget();
                next_loss = now + ttl / 4 + world.dice.roll(LEASES_PER_LOSS * ttl * 2);
            }
            world.serve(now);
            world.hear(now);
            let expires = server_clock.true_moment_after(world.server.renewed, world.ttl);
            assert!(now < expires, "seed {seed}: the server ended the session");
            for effect in world.core.take_effects() {
                let is_good = matches!(effect, Effect::Welcomed(_) | Effect::Granted { .. });
                assert!(is_good, "seed {seed}: {effect:?}");
            }
            if let Some(until) = world.core.lease().map(Lease::believed_until) {
                let left = until.since(world.clock.at(now));
                assert!(
                    left > lease::farewell_max(world.ttl),
                    "seed {seed}: SIGTERM is due, {left:?} is left"
                );
            }
            now += 1 + world.dice.roll(ttl / 250);
        }
        forgotten += world.forgotten;
        connections += world.links.len() - 1;
        assert!(world.links.len() <= 2 + world.forgotten, "seed {seed}: connections for nothing");
    }
    assert!(forgotten > 1_000 && connections > 1_000, "{forgotten}, {connections}");
}
