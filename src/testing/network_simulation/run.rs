//! One run, from its seed to the verdict.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::{join, join3};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::adversary::do_harm;
use super::diary::Book;
use super::disk::Disk;
use super::faults::{Deeds, Faults};
use super::fleet::Fleet;
use super::machine::Machine;
use super::members::receive;
use super::network::Network;
use super::process::SkewedClock;
use super::strangers::{Strangers, strike as strike_strangers};
use super::trace::{Lines, Trace};
use crate::client::{Connector, Whither};
use crate::journal::Distance;
use crate::testing::fuzz::Random;
use crate::testing::history::Figures;
use crate::wire::{
    self, Attach, ClientMessage, Query, ServerMessage, ServerStatus, decode, encode_frame,
};

/// For how long things go wrong.
const FAULTS: Duration = Duration::from_secs(40);
/// For how long clients go on afterwards as if nothing had been.
const PEACE: Duration = Duration::from_secs(2);
/// After this, whoever still waits waits for ever.
const END_MAX: Duration = Duration::from_secs(300);
/// After this, nothing is left of whoever is gone: the longest lease, and a lock delay.
const GONE_AFTER: Duration = Duration::from_secs(25);
/// How far the journal is before anything is said, where there is one.
const DISTANCES: [Option<Distance>; 4] =
    [None, Some(Distance::Process), Some(Distance::Process), Some(Distance::Machine)];
/// The number under which somebody looks at what is left.
const ONLOOKER: u64 = 0;

/// What came of a run, or of many.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What could not be.
    pub(super) violations: Vec<String>,
    /// What all that happened comes to.
    pub(super) digest: u64,
    /// All that happened, if it was to be kept.
    pub(super) lines: Vec<String>,
    /// Runs.
    runs: u64,
    /// Virtual time.
    length: Duration,
    /// What the checker counted.
    figures: Figures,
    /// How often each fault struck.
    faults: Deeds,
    /// What else was counted.
    counts: BTreeMap<&'static str, u64>,
}

impl Verdict {
    /// Adds what came of another run.
    pub(super) fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.length += other.length;
        let (all, one) = (&mut self.figures, other.figures);
        all.requests += one.requests;
        all.grants += one.grants;
        all.losses += one.losses;
        all.refusals += one.refusals;
        all.writes += one.writes;
        all.refused_writes += one.refused_writes;
        for (what, count) in other.faults {
            *self.faults.entry(what).or_default() += count;
        }
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.violations.extend(other.violations);
    }

    /// How often it happened, by its name in the table.
    pub(super) fn count(&self, what: &str) -> u64 {
        match what {
            "granted" => self.figures.grants,
            "writes accepted" => self.figures.writes,
            "faults" => self.faults.values().sum(),
            _ => self.counts.get(what).or(self.faults.get(what)).copied().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, count: u64| writeln!(f, "  {name:<52}{count:>9}");
        row("runs", self.runs)?;
        row("virtual minutes", self.length.as_secs() / 60)?;
        row("requests", self.figures.requests)?;
        row("granted", self.figures.grants)?;
        row("writes accepted", self.figures.writes)?;
        row("writes refused, as too late", self.figures.refused_writes)?;
        for (what, count) in &self.counts {
            row(what, *count)?;
        }
        for (fault, count) in &self.faults {
            row(&format!("fault: {fault}"), *count)?;
        }
        row("faults", self.faults.values().sum())?;
        row("violations", self.violations.len() as u64)
    }
}

/// The run of `seed`.
pub(super) fn simulate(seed: u64, lines: Lines) -> Verdict {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(run(Random::new(seed), lines)))
}

async fn run(mut random: Random, lines: Lines) -> Verdict {
    let trace = Trace::new(lines);
    let mut another = || Random::new(random.next());
    let members = if another().once_in(2) { 2 + another().below(2) } else { 1 };
    let (network, visitors) = Network::new(another(), trace.clone(), members);
    let receiving = spawn_local(receive(visitors));
    let disk = Arc::new(Disk::new(another(), trace.clone()));
    let clock = SkewedClock::any(&mut another());
    let book = Rc::new(Book::new(trace.clone()));
    let (book_of_machine, disk_of_machine) = (Rc::clone(&book), Arc::clone(&disk));
    let distance = *another().pick(&DISTANCES);
    let machine = Machine::new(
        network.clone(),
        disk_of_machine,
        clock,
        book_of_machine,
        trace.clone(),
        distance,
    );
    machine.start().await;
    let count = 3 + another().below(4);
    let fleet = Fleet::start(network.clone(), Rc::clone(&book), another(), count);
    let faults =
        Faults { network: &network, machine: &machine, disk: &disk, fleet: &fleet, trace: &trace };
    let (mut of_faults, mut of_harm) = (another(), another());
    let harm = async {
        let end = Instant::now() + FAULTS;
        if of_harm.once_in(2) { do_harm(&network, of_harm, end).await } else { 0 }
    };
    let (count, mut of_strangers) = (1 + another().below(3), another());
    // To these nothing is promised without a journal, and there is no port for them.
    let count = distance.map_or(0, |_| count);
    let end = Instant::now() + FAULTS;
    let strangers = Strangers::start(&network, &book, &mut of_strangers, count);
    let bad_ways = strike_strangers(&network, of_strangers, count, end);
    let (deeds, harm, ()) = join3(faults.strike(&mut of_faults, FAULTS), harm, bad_ways).await;
    sleep(PEACE).await;
    book.close();
    if timeout(END_MAX, join(fleet.ended(), strangers.ended())).await.is_err() {
        book.complain("clients did not come to an end".to_owned());
    }
    network.find_lost_strangers();
    sleep(GONE_AFTER).await;
    match timeout(GONE_AFTER, look(&network)).await {
        Ok(status) => {
            let left = (status.sessions, status.locks, status.held, status.waiting);
            if left != (0, 0, 0, 0) {
                book.complain(format!("sessions, locks, held, waiting are left: {left:?}"));
            }
            if status.connections != 1 {
                book.complain(format!("{} connections are left", status.connections - 1));
            }
        }
        Err(_) => book.complain("the coordinator does not answer".to_owned()),
    }
    receiving.abort();
    let (log, mut violations, mut counts) = book.take();
    let (hints, false_welcomes) = network.said();
    counts.insert("hints of members that do not lead", hints);
    counts.insert("welcomes of deposed leaders", false_welcomes);
    let figures = log.check().unwrap_or_else(|found| {
        violations.extend(found.iter().map(ToString::to_string));
        Figures::default()
    });
    counts.insert("coordinator runs", machine.starts());
    counts.insert("coordinator runs by replay", machine.replays());
    counts.insert("client processes", fleet.clients());
    counts.insert("connections", network.connections());
    counts.insert("messages of the adversary", harm);
    let length = Duration::from_micros(trace.now_us());
    let (digest, lines) = (trace.digest(), trace.take());
    Verdict { violations, digest, lines, runs: 1, length, figures, faults: deeds, counts }
}

/// What the coordinator says of itself.
async fn look(network: &Network) -> Box<ServerStatus> {
    let mut stream = network.route(ONLOOKER).connect(Whither::Back).await.unwrap();
    let mut bytes = BytesMut::new();
    let hello = ClientMessage::Hello(wire::Hello::new(Attach::Observer, "onlooker"));
    encode_frame(&hello, &mut bytes).unwrap();
    let question = ClientMessage::Inspect { query_id: 1, query: Query::Server };
    encode_frame(&question, &mut bytes).unwrap();
    stream.write_all(&bytes).await.unwrap();
    loop {
        let length = stream.read_u32_le().await.unwrap();
        let mut frame = vec![0; length as usize];
        stream.read_exact(&mut frame).await.unwrap();
        if let ServerMessage::ServerStatus { status, .. } = decode(&frame).unwrap() {
            return status;
        }
    }
}
