//! Random schedules of a small cluster.

#![allow(clippy::print_stdout)] // figures of long runs

use std::time::Duration;

use super::judge::Fault;
use super::model::{Cluster, Journal, Move, Notice};
use crate::cluster::{Arbiter, Seat, Tenure, Version};
use crate::testing::fuzz::{Campaign, Random};
use crate::types::Timestamp;

/// Schedules each time; `scripts/simulate` has more.
const RUNS: u64 = 200;
/// Things that happen in a schedule while there are faults.
const STEPS: usize = 6_000;
/// Things that happen in peace, until somebody has to be served.
const STEPS_IN_PEACE: usize = 4_000;
/// What is shown of a schedule that went wrong.
const STORY_LINES: usize = 60;
/// Clocks are fast or slow by so many millionths at most: a little less than what is tolerated.
const RATE_PPM_MAX: usize = 9_000;

/// What a schedule has more of than others. Faults that need two rare things at once are found so.
#[derive(Clone, Copy, Debug)]
struct Weather {
    /// How much time passes at once, in milliseconds.
    steps: [u64; 4],
    /// Of so many times that the arbiter could hear something, it does once.
    arbiter: usize,
    /// Of so many times that an answer of it could come, one does.
    answers: usize,
    /// Of so many times that something could go along a link, it does once.
    links: usize,
    /// Of so many times that a process could crash or be stopped, it is once.
    crashes: usize,
    /// Of so many times that all or one could stand still, they do once.
    stalls: usize,
    /// Whether the arbiter is restored from a backup once.
    restores: bool,
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let steps = [[1, 5, 20, 60], [0, 1, 5, 20], [1, 20, 100, 300]];
        Self {
            steps: *random.pick(&steps),
            arbiter: *random.pick(&[1, 3, 8]),
            answers: *random.pick(&[1, 3, 20]),
            links: *random.pick(&[1, 2, 5]),
            crashes: *random.pick(&[3, 12, 40]),
            stalls: *random.pick(&[3, 12, 40]),
            restores: random.once_in(4),
        }
    }

    /// Nothing goes wrong.
    fn calm() -> Self {
        let steps = [1, 5, 20, 60];
        Self { steps, arbiter: 1, answers: 1, links: 1, crashes: 1, stalls: 1, restores: false }
    }
}

/// A cluster, and what happens to it.
struct Schedule {
    /// The cluster.
    cluster: Cluster,
    /// The only source of randomness.
    random: Random,
    /// What this one has more of.
    weather: Weather,
    /// Until when each node stands still.
    still_until: Vec<Timestamp>,
    /// Until when each node cannot reach the arbiter.
    cut_until: Vec<Timestamp>,
    /// A copy of what the arbiter had once.
    backup: (Version, Option<Seat>),
    /// Whether it was restored.
    is_restored: bool,
    /// What happened, for whoever has to understand a fault.
    story: Vec<String>,
    /// Whether that is written down.
    is_told: bool,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let count = 2 + random.below(2);
        let rates: Vec<i64> = (0..count)
            .map(|_| {
                let rate = i64::try_from(random.below(RATE_PPM_MAX + 1)).unwrap();
                *random.pick(&[rate, -rate, 9_000, -9_000])
            })
            .collect();
        let weather = Weather::of(&mut random);
        let still = vec![Timestamp::default(); count];
        Self {
            cluster: Cluster::new(&rates),
            random,
            weather,
            still_until: still.clone(),
            cut_until: still,
            backup: (Version(0), None),
            is_restored: false,
            story: Vec::new(),
            is_told: false,
        }
    }

    fn happen(&mut self, it: &Move) -> Result<(), Fault> {
        let before = self.is_told.then(|| self.cluster.clone());
        let done = self.cluster.happen(it);
        if let Some(before) = before
            && (before != self.cluster || done.is_err())
        {
            self.story.push(format!("{:?} {}", before.now, self.cluster.told(it, &before)));
        }
        done
    }

    /// Whether a node does anything at the moment.
    fn is_awake(&self, node: usize) -> bool {
        self.cluster.now >= self.still_until[node]
    }

    /// Whether what goes between a node and the arbiter arrives.
    fn is_heard(&self, node: usize) -> bool {
        self.cluster.now >= self.cut_until[node]
    }

    /// What happens next; none: nothing, this time.
    fn next(&mut self) -> Option<Move> {
        let count = self.cluster.nodes.len();
        let (node, other) = (self.random.below(count), self.random.below(count));
        let Weather { arbiter, answers, links, .. } = self.weather;
        let rarely = |this: &mut Self, of: usize| this.random.once_in(of);
        let among = |this: &mut Self, len: usize| (len > 0).then(|| this.random.below(len));
        let kind = self.random.below(42);
        let it = match kind {
            0..=5 => Move::Say(node),
            6..=8 => Move::Append(node),
            9..=10 => Move::Follow(node, other),
            11..=17 if rarely(self, links) => Move::Stream(among(self, self.cluster.links.len())?),
            18..=23 if rarely(self, links) => {
                Move::Acknowledge(among(self, self.cluster.links.len())?)
            }
            24..=26 if rarely(self, arbiter) => {
                let proposal = among(self, self.cluster.proposals.len())?;
                let from = self.cluster.proposals[proposal].node;
                return self.is_heard(from).then_some(Move::Arrive(proposal));
            }
            27..=30 if rarely(self, answers) => {
                let answer = among(self, self.cluster.answers.len())?;
                let to = self.cluster.answers_to(answer);
                return (self.is_heard(to) && self.is_awake(to)).then_some(Move::Answer(answer));
            }
            31..=32 if self.is_heard(node) => Move::Read(node),
            33..=35 => Move::Tick(node),
            36 => Move::EndGrace(node),
            37..=39 => Move::Pass(Duration::from_millis(*self.random.pick(&self.weather.steps))),
            40 => return self.ending(node),
            41 if !self.cluster.is_linked(node) => Move::Silence(node),
            _ => return None,
        };
        let acts = match it {
            Move::Stream(link) => {
                let link = &self.cluster.links[link];
                self.is_awake(link.from) && self.is_awake(link.to)
            }
            Move::Acknowledge(link) => self.is_awake(self.cluster.links[link].from),
            Move::Follow(from, to) => self.is_awake(from) && self.is_awake(to),
            Move::Pass(_) => true,
            _ => self.is_awake(node),
        };
        acts.then_some(it)
    }

    /// A node hears that somebody in the seat has ended, or that all have.
    fn ending(&mut self, node: usize) -> Option<Move> {
        let Seat { leader, standby, tenure, .. } = self.cluster.seat?;
        // Before that is said, it is waited for as long as anybody may decide whom the arbiter has forgotten.
        if tenure == Tenure::SetBack {
            return (!self.cluster.is_decided_by_somebody()).then_some(Move::Lost(node));
        }
        if self.cluster.is_lost() && self.random.once_in(2) && !self.is_restored {
            return Some(Move::Lost(node));
        }
        let run = if self.random.once_in(2) { leader } else { standby? };
        self.cluster.ended.contains(&run).then_some(Move::Ended(node, run))
    }

    /// Something goes wrong; none: nothing, this time.
    fn trouble(&mut self) -> Option<Move> {
        let node = self.random.below(self.cluster.nodes.len());
        let Weather { crashes, stalls, .. } = self.weather;
        let long = Duration::from_millis(self.random.below(3_500) as u64);
        match self.random.below(10) {
            0 if !self.cluster.links.is_empty() => {
                let link = self.random.below(self.cluster.links.len());
                Some(Move::Cut(link, *self.random.pick(&[Notice::Now, Notice::Later])))
            }
            1 => Some(Move::Silence(node)),
            2 if self.random.once_in(crashes) => Some(Move::Crash(node, Journal::Whole)),
            3 if self.random.once_in(2 * crashes) && !self.is_restored => {
                Some(Move::Crash(node, Journal::Void))
            }
            4 if self.random.once_in(crashes) => Some(Move::Stop(node)),
            // Everybody stands still for longer than a lease.
            5 if self.random.once_in(stalls) => Some(Move::Pass(Duration::from_millis(2_200))),
            6 if self.random.once_in(stalls) => {
                self.still_until[node] = self.cluster.now.after(long);
                None
            }
            7 if self.random.once_in(stalls) => {
                self.cut_until[node] = self.cluster.now.after(long);
                None
            }
            8 => self.restore(),
            9 if self.random.once_in(20) => Some(Move::Contradict(node)),
            _ => None,
        }
    }

    /// Takes a backup of the arbiter, or restores it, if everybody remembers more than it has.
    fn restore(&mut self) -> Option<Move> {
        if !self.weather.restores || self.is_restored {
            return None;
        }
        let (version, seat) = self.backup;
        let remembers = |kept: Version| kept > version;
        let all = self.cluster.nodes.iter().all(|it| {
            it.kept.is_some_and(|kept| remembers(kept.version))
                && remembers(it.member.keeps().version)
        });
        // Another one is known for another, whatever it has.
        let knows = self.cluster.nodes.iter().all(|it| {
            it.kept.is_some_and(|kept| kept.arbiter.is_some()) && it.member.arbiter().is_some()
        });
        let same = self.cluster.arbiter;
        if (all || knows) && version.0 > 0 && self.random.once_in(4) {
            self.is_restored = true;
            let is_other = knows && (!all || self.random.once_in(2));
            let arbiter = if is_other { Arbiter(same.0 + 1) } else { same };
            return Some(Move::Restore(arbiter, version, seat));
        }
        if self.random.once_in(10) {
            self.backup = (self.cluster.version, self.cluster.seat);
        }
        None
    }

    /// What is answered is not repeated, but what is on its way may still come.
    fn forget(&mut self) {
        let Self { cluster, random, .. } = self;
        cluster.retain_proposals(|_, is_awaited| is_awaited || !random.once_in(40));
    }

    /// From now on nothing goes wrong, and nothing old comes to the arbiter any more.
    fn calm_down(&mut self) -> Result<(), Fault> {
        let count = self.cluster.nodes.len();
        self.weather = Weather::calm();
        self.still_until = vec![Timestamp::default(); count];
        self.cut_until = self.still_until.clone();
        for node in 0..count {
            if self.is_restored || self.cluster.nodes[node].member.is_stopping() {
                self.happen(&Move::Crash(node, Journal::Whole))?;
            }
        }
        self.cluster.retain_proposals(|_, is_awaited| is_awaited);
        if self.is_restored {
            self.accept_the_backup()?;
        }
        Ok(())
    }

    /// All are stopped; then an operator has the one lead that knows the latest term.
    fn accept_the_backup(&mut self) -> Result<(), Fault> {
        let nodes = self.cluster.nodes.iter().enumerate();
        let latest = nodes.max_by_key(|(_, it)| it.kept.map_or(0, |kept| kept.term));
        let node = latest.map_or(0, |(node, _)| node);
        self.happen(&Move::Tick(node))?;
        self.happen(&Move::Read(node))?;
        while !self.cluster.answers.is_empty() {
            self.happen(&Move::Answer(0))?;
        }
        self.happen(&Move::Lost(node))?;
        // It hears late that it leads, or dies before it has left anything.
        match self.random.below(4) {
            0 => {
                self.cluster.arrive_latest(node)?;
                self.happen(&Move::Pass(Duration::from_millis(2_200)))
            }
            1 => {
                self.cluster.arrive_latest(node)?;
                self.cluster.answer_latest(node)?;
                self.happen(&Move::Crash(node, Journal::Void))
            }
            _ => Ok(()),
        }
    }

    /// Faults, then peace, in which somebody is served in the end.
    fn run(&mut self) -> Result<(), Fault> {
        for _ in 0..STEPS {
            let it = if self.random.once_in(20) { self.trouble() } else { self.next() };
            if let Some(it) = it {
                self.happen(&it)?;
                self.forget();
            }
        }
        self.calm_down()?;
        for step in 0..2 * STEPS_IN_PEACE {
            if step >= STEPS_IN_PEACE && self.cluster.is_served() {
                return Ok(());
            }
            if let Some(it) = self.next() {
                self.happen(&it)?;
                self.cluster.retain_proposals(|_, is_awaited| is_awaited);
            }
        }
        Err("nobody is served in the end".to_owned())
    }
}

#[test]
fn simulated_cluster_loses_nothing_that_was_said_and_nobody_else_says_anything() {
    let name = "simulated_cluster_loses_nothing_that_was_said_and_nobody_else_says_anything";
    let campaign = Campaign { name, prefix: "SIMULATE", runs: "RUNS" };
    let (mut leads, mut said, mut joined, mut restored) = ([0; 3], 0, 0, 0);
    let mut hours = 0.0;
    let done = campaign.run(RUNS, |seed| {
        let mut schedule = Schedule::new(seed);
        if let Err(fault) = schedule.run() {
            let mut again = Schedule { is_told: true, ..Schedule::new(seed) };
            assert_eq!(again.run(), Err(fault.clone()), "a schedule is a function of its seed");
            let from = again.story.len().saturating_sub(STORY_LINES);
            panic!("seed {seed}: {fault}\n{}", again.story[from..].join("\n"));
        }
        let Cluster { judge, now, .. } = &schedule.cluster;
        for (sum, one) in leads.iter_mut().zip(judge.leads) {
            *sum += one;
        }
        said += judge.total_said;
        joined += schedule.cluster.joined;
        restored += u64::from(schedule.is_restored);
        hours += Duration::from_micros(now.as_micros()).as_secs_f64() / 3_600.0;
    });
    let [new, own, empty] = leads;
    // The figures of a long run, as the other simulations print theirs.
    println!(
        "{} schedules, {hours:.1} virtual hours: {new} first leaders, {own} with their table, \
         {empty} with an empty one; {joined} standbys in sync, {said} records said, {restored} \
         arbiters restored\n",
        done.runs
    );
    if done.runs >= RUNS {
        // Otherwise nothing was tried.
        assert!(own.min(empty).min(joined) > done.runs / 4 && said > 10 * done.runs);
        assert!(restored > 0);
    }
}
