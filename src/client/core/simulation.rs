//! A simulation of belief. The clocks of client and server run at different rates, the network is
//! slow or silent, and the client stands still now and then. The client may never believe in a lock
//! that the server could have given to another.

use std::collections::VecDeque;
use std::time::Duration;

use super::tests::ask;
use super::*;
use crate::types::{Epoch, FencingToken, Generation, Seal, Secret, SessionId, TTL_MIN};
use crate::wire::{self, PROTOCOL, ServerMessage, Standing};

/// Schedules tried, each from a seed of its own.
const SCHEDULES: u64 = 1_000;
/// True length of a schedule.
const SCHEDULE: Duration = Duration::from_secs(30);
/// The longest a message is on its way while the network is slow.
const DELAY_MAX_MICROS: u64 = 1_500_000;
/// The longest that the client stands still, or the network is silent.
const PAUSE_MAX_MICROS: u64 = 4_000_000;
/// Clocks are right by so many parts in a thousand.
const CLOCK_RATE_ERROR_PERMILLE: u64 = 10;

/// Numbers that look random and are the same for the same seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// One way of a connection: what is on it, and when it arrives, in order.
pub(super) struct Pipe<Message> {
    under_way: VecDeque<(u64, Message)>,
}

impl<Message> Pipe<Message> {
    pub(super) fn new() -> Self {
        Self { under_way: VecDeque::new() }
    }

    pub(super) fn send(&mut self, message: Message, arrives: u64) {
        let last = self.under_way.back().map_or(0, |(arrives, _)| *arrives);
        self.under_way.push_back((arrives.max(last), message));
    }

    pub(super) fn arrived(&mut self, true_now: u64) -> Option<Message> {
        if self.under_way.front().is_some_and(|(arrives, _)| *arrives <= true_now) {
            return self.under_way.pop_front().map(|(_, message)| message);
        }
        None
    }
}

/// A clock with an origin and a rate of its own.
#[derive(Clone, Copy)]
pub(super) struct SkewedClock {
    origin: u64,
    permille: u64,
}

impl SkewedClock {
    pub(super) fn any(dice: &mut Dice) -> Self {
        let permille = 1_000 - CLOCK_RATE_ERROR_PERMILLE;
        let permille = permille + 2 * CLOCK_RATE_ERROR_PERMILLE * dice.roll(2);
        Self { origin: dice.roll(1 << 40), permille }
    }

    pub(super) fn at(self, true_now: u64) -> Timestamp {
        Timestamp::from_micros(self.origin + true_now * self.permille / 1_000)
    }

    /// The true moment at which this clock shows so much more than at `since`.
    pub(super) fn true_moment_after(self, since: u64, length: Duration) -> u64 {
        since + u64::try_from(length.as_micros()).unwrap() * 1_000 / self.permille
    }
}

/// The server's side: one session, whose every request is granted.
struct Lessor {
    clock: SkewedClock,
    /// True moment of the last receipt; none before the first, or after the end.
    renewed: Option<u64>,
    ended: bool,
    token: u64,
}

impl Lessor {
    /// The true moment at which the session ends if nothing more is received.
    fn expires(&self) -> Option<u64> {
        self.renewed.map(|renewed| self.clock.true_moment_after(renewed, TTL_MIN))
    }

    fn answer(&mut self, message: &ClientMessage, true_now: u64) -> Option<ServerMessage> {
        if self.ended {
            return None;
        }
        self.renewed = Some(true_now);
        match message {
            ClientMessage::Hello(_) => Some(ServerMessage::Welcome {
                protocol: PROTOCOL,
                server: String::new(),
                epoch: Epoch(1),
                session: SessionId(1),
                secret: Secret::new(1),
                generation: Generation(1),
                ttl_ms: 2_000,
                standing: Standing::Opened,
            }),
            ClientMessage::Request(wire::Request { request, .. }) => {
                self.token += 1;
                Some(ServerMessage::Grant {
                    request: *request,
                    token: FencingToken::new(self.token),
                    seal: Seal::new(0),
                })
            }
            ClientMessage::KeepAlive { sequence } => {
                Some(ServerMessage::KeptAlive { sequence: *sequence })
            }
            ClientMessage::Release { request, .. } => {
                Some(ServerMessage::Released { request: *request })
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a schedule came to.
#[derive(Default)]
struct Outcome {
    grants: u64,
    expiries_while_told_held: u64,
    lapses: u64,
}

/// Whether anything is held, by what the core told and by the lease at `now`.
fn believes(core: &Core, now: Timestamp) -> bool {
    core.lease().is_some_and(|lease| now < lease.believed_until())
        && core.requests.values().any(|request| matches!(request.state, State::Held { .. }))
}

fn run(seed: u64, outcome: &mut Outcome) {
    let mut dice = Dice::of(seed);
    let clock = SkewedClock::any(&mut dice);
    let mut lessor =
        Lessor { clock: SkewedClock::any(&mut dice), renewed: None, ended: false, token: 0 };
    let mut core = Core::new(Introduction::default(), None, clock.at(0));
    core.request(ask(), clock.at(0));
    let mut to_server = Pipe::new();
    let mut to_client = Pipe::new();
    let (mut true_now, mut paused_until, mut delay_max) = (0, 0, 1_000);
    let end = u64::try_from(SCHEDULE.as_micros()).unwrap();
    while true_now < end && core.end().is_none() {
        match dice.roll(400) {
            0 => paused_until = true_now + dice.roll(PAUSE_MAX_MICROS),
            1 => delay_max = 1_000,
            2 => delay_max = 1 + dice.roll(DELAY_MAX_MICROS),
            _ => {}
        }
        if let Some(expires) = lessor.expires()
            && expires <= true_now
            && !lessor.ended
        {
            assert!(!believes(&core, clock.at(expires)), "seed {seed}: believed at the expiry");
            lessor.ended = true;
            outcome.expiries_while_told_held +=
                u64::from(core.requests.values().any(|r| matches!(r.state, State::Held { .. })));
        }
        while let Some(message) = to_server.arrived(true_now) {
            if let Some(answer) = lessor.answer(&message, true_now) {
                to_client.send(answer, true_now + dice.roll(delay_max));
            }
        }
        if true_now >= paused_until {
            let now = clock.at(true_now);
            while let Some(message) = to_client.arrived(true_now) {
                core.receive(message, now);
            }
            if core.next_deadline().is_some_and(|deadline| deadline <= now) {
                core.tick(now);
            }
            for effect in core.take_effects() {
                match effect {
                    Effect::Granted { .. } => outcome.grants += 1,
                    Effect::Lost { .. } => {
                        outcome.lapses += 1;
                        core.request(ask(), now);
                    }
                    _ => {}
                }
            }
            assert!(!(lessor.ended && believes(&core, now)), "seed {seed}: believes after the end");
            for message in core.drain_messages() {
                to_server.send(message, true_now + dice.roll(delay_max));
            }
        }
        true_now += 1 + dice.roll(20_000);
    }
}

#[test]
fn invariant_a_client_stops_believing_before_its_lease_can_end() {
    let mut outcome = Outcome::default();
    for seed in 0..SCHEDULES {
        run(seed, &mut outcome);
    }
    assert!(outcome.grants > SCHEDULES / 2, "{} grants", outcome.grants);
    assert!(outcome.lapses > SCHEDULES / 10, "{} lapses", outcome.lapses);
    // Otherwise nothing was tried: a client that stands still is told nothing, and must know.
    let by_clock_alone = outcome.expiries_while_told_held;
    assert!(by_clock_alone > SCHEDULES / 10, "{by_clock_alone} expiries while standing still");
}
