//! The faults and their moments: on the coordinator's side one after the other, on that of the
//! clients several at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep};

use super::disk::{Disk, Left};
use super::fleet::Fleet;
use super::machine::Machine;
use super::network::{Answers, Network};
use super::stream::{Side, millis};
use super::trace::Trace;
use crate::testing::fuzz::Random;

/// Longest pause between two faults on the side of the clients.
const CLIENT_PAUSE_MS_MAX: u64 = 1_500;
/// And on that of the coordinator.
const SERVER_PAUSE_MS_MAX: u64 = 12_000;
/// Longest time for which a way is dark, a process stands still, …: longer than a short lease.
const FAULT_MS_MAX: u64 = 4_000;

/// Longest time for which a leader does not know that it was deposed.
const UNAWARE_MS_MAX: u64 = 10_000;

/// All that things can go wrong with.
pub(super) struct Faults<'a> {
    /// Cut, dark, slow.
    pub(super) network: &'a Network,
    /// Where the coordinator crashes, stops and stalls.
    pub(super) machine: &'a Machine,
    /// Fails.
    pub(super) disk: &'a Disk,
    /// Clients that stand still and are killed.
    pub(super) fleet: &'a Fleet,
    /// Where each fault is written down.
    pub(super) trace: &'a Trace,
}

/// How often each fault struck.
pub(super) type Deeds = BTreeMap<&'static str, u64>;

impl Faults<'_> {
    /// Has things go wrong for so long, and then makes all of them right.
    pub(super) async fn strike(&self, random: &mut Random, length: Duration) -> Deeds {
        let end = Instant::now() + length;
        let one = self.strike_clients(Random::new(random.next()), end);
        let other = self.strike_coordinator(Random::new(random.next()), end);
        let (mut deeds, more) = join(one, other).await;
        deeds.extend(more);
        self.network.heal();
        self.disk.heal();
        self.disk.heal_journal();
        self.trace.say(format_args!("peace"));
        deeds
    }

    fn struck(&self, deeds: &mut Deeds, what: &'static str) {
        self.trace.say(format_args!("fault: {what}"));
        *deeds.entry(what).or_default() += 1;
    }

    async fn strike_clients(&self, mut random: Random, end: Instant) -> Deeds {
        let mut deeds = Deeds::new();
        while Instant::now() < end {
            sleep(millis(&mut random, CLIENT_PAUSE_MS_MAX)).await;
            // Nothing happens to the first: it keeps its session whatever the coordinator goes through.
            let place = 1 + random.below(self.fleet.places() - 1);
            let Some(client) = self.fleet.client(place) else { continue };
            let length = millis(&mut random, FAULT_MS_MAX);
            let what = match random.below(33) {
                0..4 => {
                    self.network.cut(client);
                    "connections cut"
                }
                4..6 => {
                    self.network.cut(client);
                    self.network.refuse(client, length);
                    "connections cut, and refused for a while"
                }
                6..9 => {
                    self.network.darken(client, Side::Client, length);
                    "the way there dark"
                }
                9..12 => {
                    self.network.darken(client, Side::Server, length);
                    "the way back dark"
                }
                12..14 => {
                    self.darken(client, length);
                    "both ways dark"
                }
                14 => {
                    for place in 1..self.fleet.places() {
                        if random.once_in(2)
                            && let Some(client) = self.fleet.client(place)
                        {
                            self.darken(client, length);
                        }
                    }
                    "partition of several"
                }
                15..18 => {
                    let latency_max = millis(&mut random, 1_600);
                    self.network.slow_down(client, latency_max, length);
                    "the way slow"
                }
                18 => {
                    self.network.speed_up(client);
                    "the way fast again"
                }
                19..23 => {
                    self.fleet.stall(place, length);
                    "client stands still"
                }
                23..28 => {
                    for from in [Side::Client, Side::Server] {
                        if random.once_in(2) {
                            self.network.hold_up(client, from, length);
                        }
                    }
                    "connections held up, the next ones not"
                }
                28..32 => {
                    self.network.forget(client);
                    "connections forgotten on the way, the next ones not"
                }
                _ => {
                    self.struck(&mut deeds, "client killed");
                    self.fleet.replace(place, millis(&mut random, 1_000)).await;
                    continue;
                }
            };
            self.struck(&mut deeds, what);
        }
        deeds
    }

    fn darken(&self, client: u64, length: Duration) {
        self.network.darken(client, Side::Client, length);
        self.network.darken(client, Side::Server, length);
    }

    /// Another member of the cluster, if it is one, goes on with the state. The one that led may not know
    /// that it was deposed.
    fn change_leader(&self, random: &mut Random, deeds: &mut Deeds) {
        if self.network.members() == 1 || random.once_in(4) {
            return;
        }
        self.struck(deeds, "leader changes");
        let unaware = random.once_in(2).then(|| millis(random, UNAWARE_MS_MAX));
        self.network.change_leader(random, unaware);
    }

    async fn strike_coordinator(&self, mut random: Random, end: Instant) -> Deeds {
        let mut deeds = Deeds::new();
        while Instant::now() < end {
            sleep(millis(&mut random, SERVER_PAUSE_MS_MAX)).await;
            // Mostly short: who is away for long has lost everything.
            let short = if random.once_in(3) { 4_000 } else { 600 };
            let length = millis(&mut random, short);
            match random.below(11) {
                0..3 => {
                    let answers = if random.once_in(3) { Answers::No } else { Answers::Yes };
                    self.struck(&mut deeds, "coordinator crashes");
                    self.machine.crash(answers).await;
                    self.change_leader(&mut random, &mut deeds);
                    sleep(length).await;
                    self.machine.start().await;
                }
                3..5 => {
                    self.struck(&mut deeds, "coordinator stops in order");
                    self.machine.stop().await;
                    self.change_leader(&mut random, &mut deeds);
                    sleep(length).await;
                    self.machine.start().await;
                }
                5..7 => {
                    self.struck(&mut deeds, "coordinator stands still");
                    let length = millis(&mut random, FAULT_MS_MAX);
                    self.machine.stall(length);
                    sleep(length).await;
                }
                7 => {
                    self.struck(&mut deeds, "disk fails");
                    self.disk.fail(millis(&mut random, 8_000));
                }
                8 => {
                    self.struck(&mut deeds, "power cut");
                    self.machine.cut_power().await;
                    sleep(length).await;
                    self.machine.start().await;
                }
                _ => {
                    // Whether it was given up meanwhile decides what a crash costs.
                    self.disk.leaves(Left::Anything);
                    let what = self.disk.fail_journal();
                    if what == "journal stuck" {
                        self.fleet.hangs();
                    }
                    self.struck(&mut deeds, what);
                    sleep(millis(&mut random, 6_000)).await;
                    if random.once_in(2) {
                        self.struck(&mut deeds, "coordinator crashes on a bad disk");
                        self.machine.crash(Answers::Yes).await;
                        sleep(length).await;
                        self.machine.start().await;
                    }
                    self.disk.heal_journal();
                }
            }
        }
        deeds
    }
}
