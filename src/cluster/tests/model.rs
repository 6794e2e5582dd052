//! A cluster in virtual time: members with clocks of their own, an arbiter whose answers are lost, late and
//! doubled, links that break, processes that crash with and without their journal.
//!
//! The one idea: *what happens next is a [`Move`]*. A schedule draws one after the other; the walk takes
//! every one of them.

use std::time::Duration;

use super::judge::{Fault, GRACE, Judge, Record, is_in_grace};
pub(super) use super::moves::{Journal, Move, Notice};
use crate::cluster::{
    Arbiter, Effect, Event, Kept, Member, RunId, Seat, Table, Tenure, Timing, Version,
};
use crate::types::{Epoch, Timestamp};

/// Tokens of a term begin here.
const TOKENS_PER_TERM: u64 = 1 << 20;
/// The epoch of a leader that the arbiter has forgotten.
pub(super) const FORGOTTEN: Epoch = Epoch::new(9);

/// A swap on its way to the arbiter; it may come more than once, and long after its proposer is gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Proposal {
    /// Whose it is.
    pub(super) node: usize,
    /// Of whom it is asked.
    arbiter: Option<Arbiter>,
    /// What it compares.
    pub(super) expected: Version,
    /// What it puts.
    pub(super) seat: Seat,
}

/// What the arbiter has said, on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answer {
    /// To whom.
    pub(super) node: usize,
    /// The process that asked.
    process: u128,
    /// The swap that it answers; none: a read.
    attempt: Option<u64>,
    /// What it says.
    event: Event,
}

/// A stream from a leader to a standby.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    /// The leader.
    pub(super) from: usize,
    /// The standby.
    pub(super) to: usize,
    /// The leadership.
    term: u64,
    /// How many records the standby has by it.
    sent: usize,
    /// Acknowledgements on their way.
    acks: Vec<u64>,
}

/// One member and what is around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// The core.
    pub(super) member: Member,
    /// Which process.
    process: u128,
    /// What its journal has kept of the core.
    pub(super) kept: Option<Kept>,
    /// Its table.
    log: Vec<Record>,
    /// When a read was asked for that is not yet under way.
    asking: Option<Timestamp>,
    /// The latest term that it has begun: it serves nobody before.
    begun: u64,
    /// Up to which position it has said all.
    said: usize,
    /// When its grace period may end.
    grace_until: Timestamp,
    /// By how many millionths its clock is fast.
    rate_ppm: i64,
    /// What its clock shows at the beginning.
    offset: u64,
}

/// The cluster and its judge.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cluster {
    /// The members.
    pub(super) nodes: Vec<Node>,
    /// The perfect clock.
    pub(super) now: Timestamp,
    /// Which arbiter it is.
    pub(super) arbiter: Arbiter,
    /// How often the seat was changed.
    pub(super) version: Version,
    /// The seat.
    pub(super) seat: Option<Seat>,
    /// The term of whoever left something in the arbiter last.
    head: u64,
    /// Swaps on their way.
    pub(super) proposals: Vec<Proposal>,
    /// Answers on their way.
    pub(super) answers: Vec<Answer>,
    /// Streams.
    pub(super) links: Vec<Link>,
    /// Processes so far.
    drawn: u128,
    /// Runs that have ended for good.
    pub(super) ended: Vec<RunId>,
    /// What must not be.
    pub(super) judge: Judge,
    /// How often somebody was put in sync.
    pub(super) joined: u64,
}

/// Two seconds, as by default.
pub(super) const TIMING: Timing =
    Timing { lease: Duration::from_secs(2), silence: Duration::from_millis(250) };

impl Node {
    /// Whether it still waits for this.
    fn awaits(&self, proposal: &Proposal) -> bool {
        self.process == proposal.seat.mark.process
            && self.member.awaits() == Some(proposal.seat.mark.attempt)
    }
}

impl Cluster {
    /// Members whose clocks are fast by so many millionths.
    pub(super) fn new(rates_ppm: &[i64]) -> Self {
        let mut this = Self {
            nodes: Vec::new(),
            now: Timestamp::from_micros(1_000_000),
            arbiter: Arbiter(1),
            version: Version(0),
            seat: None,
            head: 0,
            proposals: Vec::new(),
            answers: Vec::new(),
            links: Vec::new(),
            drawn: 0,
            ended: Vec::new(),
            judge: Judge::new(),
            joined: 0,
        };
        for &rate_ppm in rates_ppm {
            this.drawn += 1;
            let process = this.drawn;
            let offset = rate_ppm.unsigned_abs() * 1_000;
            let member = Member::new(None, process, TIMING);
            this.nodes.push(Node {
                member,
                process,
                kept: None,
                log: Vec::new(),
                asking: None,
                begun: 0,
                said: 0,
                grace_until: Timestamp::default(),
                rate_ppm,
                offset,
            });
        }
        this
    }

    /// What the clock of a node shows.
    fn time(&self, node: usize) -> Timestamp {
        let Node { rate_ppm, offset, .. } = self.nodes[node];
        let micros = self.now.as_micros();
        let error = i64::try_from(micros).unwrap() * rate_ppm / 1_000_000;
        Timestamp::from_micros((micros + offset).saturating_add_signed(error))
    }

    fn hear(&mut self, node: usize, event: &Event) -> Result<(), Fault> {
        let now = self.time(node);
        let mut effects = Vec::new();
        self.nodes[node].member.step(event, now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Swap { expected, seat } => {
                    let arbiter = self.nodes[node].member.arbiter();
                    self.proposals.push(Proposal { node, arbiter, expected, seat });
                }
                Effect::Read => self.nodes[node].asking = Some(now),
                Effect::Lead { term, table } => self.lead(node, term, table)?,
                Effect::Deposed { .. } => self.links.retain(|link| link.from != node),
                Effect::Joined { .. } => self.joined += 1,
                Effect::Removed { run } => {
                    let nodes = &self.nodes;
                    self.links.retain(|it| it.from != node || nodes[it.to].member.run() != run);
                }
            }
        }
        Ok(())
    }

    fn lead(&mut self, node: usize, term: u64, table: Table) -> Result<(), Fault> {
        let now = self.time(node);
        self.links.retain(|link| link.to != node);
        let it = &mut self.nodes[node];
        let was_in_grace = is_in_grace(&it.log);
        if table != Table::Own {
            it.log.clear();
        }
        self.judge.leads(term, table, &it.log, self.now)?;
        if table.begins_grace(was_in_grace) {
            it.grace_until = now.after(GRACE);
            if !is_in_grace(&it.log) {
                it.log.push(Record::GraceBegins);
            }
        }
        it.kept = Some(it.member.keeps());
        it.said = 0;
        let position = it.log.len() as u64;
        self.hear(node, &Event::Appended { position })
    }

    /// A leader takes over what those before have left in the arbiter, and puts its own there. Whether it has.
    fn begins(&mut self, node: usize) -> Result<bool, Fault> {
        let it = &mut self.nodes[node];
        let Some(term) = it.member.leads() else { return Ok(false) };
        if it.begun < term && self.head <= term {
            self.judge.begins(term, it.member.gap().is_behind(self.head))?;
            (self.head, it.begun) = (term, term);
        }
        Ok(it.begun == term)
    }

    fn say(&mut self, node: usize) -> Result<(), Fault> {
        if !self.begins(node)? {
            return Ok(());
        }
        let now = self.time(node);
        let it = &mut self.nodes[node];
        let (Some(term), Some(may)) = (it.member.leads(), it.member.may_say(now)) else {
            return Ok(());
        };
        let may = usize::try_from(may).unwrap();
        for position in it.said..may.max(it.said) {
            self.judge.says(term, it.log[position], self.now)?;
        }
        it.said = it.said.max(may);
        Ok(())
    }

    fn append(&mut self, node: usize, record: Record) -> Result<(), Fault> {
        self.nodes[node].log.push(record);
        let position = self.nodes[node].log.len() as u64;
        self.hear(node, &Event::Appended { position })
    }

    fn grant(&mut self, node: usize) -> Result<(), Fault> {
        if !self.begins(node)? {
            return Ok(());
        }
        let it = &self.nodes[node];
        let Some(term) = it.member.leads() else { return Ok(()) };
        if it.member.is_stopping() || is_in_grace(&it.log) {
            return Ok(());
        }
        let token = term * TOKENS_PER_TERM + it.log.len() as u64;
        self.judge.decides(term, token, self.now)?;
        self.append(node, Record::Grant(token))
    }

    fn end_grace(&mut self, node: usize) -> Result<(), Fault> {
        let it = &self.nodes[node];
        let is_over = it.member.leads().is_some() && self.time(node) >= it.grace_until;
        if is_over && is_in_grace(&it.log) && !it.member.is_stopping() {
            return self.append(node, Record::GraceEnds);
        }
        Ok(())
    }

    fn follow(&mut self, from: usize, to: usize) -> Result<(), Fault> {
        if !self.begins(from)? {
            return Ok(());
        }
        let Some(term) = self.nodes[from].member.leads() else { return Ok(()) };
        let run = self.nodes[to].member.run();
        let is_linked = self.links.iter().any(|link| link.to == to && link.from == from);
        let may = self.nodes[to].member.may_acknowledge(term);
        // A leader gives a checkpoint to nobody who may still be in the seat by what it knows.
        if from == to || is_linked || !may || self.nodes[from].member.counts_on(run) {
            return Ok(());
        }
        // Before anything is acknowledged: a leader of an earlier term gets nothing any more.
        self.hear(to, &Event::LeaderSpeaks { term })?;
        if !self.nodes[to].member.may_acknowledge(term) {
            return Ok(());
        }
        self.links.retain(|link| link.to != to);
        let log = self.nodes[from].log.clone();
        self.links.push(Link { from, to, term, sent: log.len(), acks: vec![log.len() as u64] });
        let it = &mut self.nodes[to];
        (it.log, it.kept) = (log, Some(it.member.keeps()));
        Ok(())
    }

    fn stream(&mut self, link: usize) -> Result<(), Fault> {
        let Link { from, to, term, sent, .. } = self.links[link];
        if self.nodes[from].member.leads() != Some(term) {
            self.links.remove(link);
            return Ok(());
        }
        if !self.nodes[to].member.may_acknowledge(term) {
            return Ok(());
        }
        if let Some(&record) = self.nodes[from].log.get(sent) {
            let it = &mut self.nodes[to];
            it.log.push(record);
            it.kept = Some(it.member.keeps());
            self.links[link].sent += 1;
            let position = self.links[link].sent as u64;
            self.links[link].acks.push(position);
        }
        self.hear(to, &Event::LeaderSpeaks { term })
    }

    fn acknowledge(&mut self, link: usize) -> Result<(), Fault> {
        let Link { from, to, term, sent, .. } = self.links[link];
        if self.links[link].acks.is_empty() {
            return Ok(());
        }
        let position = self.links[link].acks.remove(0);
        if self.nodes[from].member.leads() != Some(term) {
            return Ok(());
        }
        let run = self.nodes[to].member.run();
        // Nearly everything: a record or two are yet to be sent.
        if sent + 2 >= self.nodes[from].log.len() {
            self.hear(from, &Event::CaughtUp { run })?;
        }
        self.hear(from, &Event::Acknowledged { run, position })
    }

    fn cut(&mut self, link: usize, notice: Notice) -> Result<(), Fault> {
        let Link { from, to, .. } = self.links.remove(link);
        let run = self.nodes[to].member.run();
        if notice == Notice::Now {
            self.hear(to, &Event::LeaderSilent)?;
        }
        self.hear(from, &Event::Unfollowed { run })
    }

    /// A proposal comes to the arbiter; it may come again.
    fn arrive(&mut self, proposal: usize) {
        let Proposal { node, arbiter, expected, seat } = self.proposals[proposal].clone();
        if arbiter != Some(self.arbiter) {
            // It is not asked, but for what it has.
            let now = self.time(node);
            if self.nodes[node].process == seat.mark.process {
                self.nodes[node].asking.get_or_insert(now);
            }
            return;
        }
        let is_done = expected == self.version;
        if is_done {
            self.version.0 += 1;
            self.seat = Some(seat);
        }
        let (version, seat_now) = (self.version, self.seat);
        let event = if is_done {
            Event::Swapped { version }
        } else {
            Event::Refused { version, seat: seat_now }
        };
        let (process, attempt) = (seat.mark.process, Some(seat.mark.attempt));
        self.reply(Answer { node, process, attempt, event });
    }

    fn read(&mut self, node: usize) {
        let Some(asked) = self.nodes[node].asking.take() else { return };
        let (arbiter, version, seat) = (self.arbiter, self.version, self.seat);
        let event = Event::Read { arbiter, version, seat, asked };
        let process = self.nodes[node].process;
        self.reply(Answer { node, process, attempt: None, event });
    }

    fn reply(&mut self, answer: Answer) {
        if !self.answers.contains(&answer) {
            self.answers.push(answer);
        }
    }

    fn answer(&mut self, answer: usize) -> Result<(), Fault> {
        let Answer { node, process, attempt, event } = self.answers.remove(answer);
        let it = &self.nodes[node];
        let is_awaited = attempt.is_none_or(|attempt| it.member.awaits() == Some(attempt));
        if it.process != process || !is_awaited {
            return Ok(());
        }
        self.hear(node, &event)
    }

    fn crash(&mut self, node: usize, journal: Journal) -> Result<(), Fault> {
        // What one of them breaks may break others.
        while let Some(link) = self.links.iter().position(|it| it.from == node || it.to == node) {
            self.cut(link, Notice::Now)?;
        }
        self.drawn += 1;
        let it = &mut self.nodes[node];
        let before = it.member.run();
        if journal == Journal::Void {
            (it.kept, it.log) = (None, Vec::new());
            self.ended.push(before);
        }
        it.process = self.drawn;
        it.member = Member::new(it.kept, it.process, TIMING);
        it.asking = None;
        Ok(())
    }

    fn restore(&mut self, arbiter: Arbiter, version: Version, seat: Option<Seat>) {
        self.arbiter = arbiter;
        (self.version, self.seat) = (version, seat);
        self.head = self.head.min(seat.map_or(0, |seat| seat.term));
        self.judge.restored();
        self.proposals.retain(|it| it.expected > version);
        self.answers.clear();
    }

    /// One thing happens.
    pub(super) fn happen(&mut self, it: &Move) -> Result<(), Fault> {
        match *it {
            Move::Say(node) => self.say(node),
            Move::Append(node) => self.grant(node),
            Move::EndGrace(node) => self.end_grace(node),
            Move::Follow(from, to) => self.follow(from, to),
            Move::Stream(link) => self.stream(link),
            Move::Acknowledge(link) => self.acknowledge(link),
            Move::Cut(link, notice) => self.cut(link, notice),
            Move::Arrive(proposal) => {
                self.arrive(proposal);
                Ok(())
            }
            Move::Read(node) => {
                self.read(node);
                Ok(())
            }
            Move::Answer(answer) => self.answer(answer),
            Move::Tick(node) => {
                let pause = Duration::ZERO;
                self.hear(node, &Event::Looked { pause })?;
                self.hear(node, &Event::Tick)
            }
            Move::Stall(node, pause) => {
                self.now = self.now.after(pause);
                self.hear(node, &Event::Looked { pause })?;
                self.hear(node, &Event::Tick)
            }
            Move::Pass(length) => {
                self.now = self.now.after(length);
                Ok(())
            }
            Move::Silence(node) => self.hear(node, &Event::LeaderSilent),
            Move::Crash(node, journal) => self.crash(node, journal),
            Move::Stop(node) => self.hear(node, &Event::Stop),
            Move::Ended(node, run) => self.hear(node, &Event::Ended { run }),
            Move::Lost(node) => {
                let (arbiter, version) = (self.arbiter, self.version);
                self.hear(node, &Event::Lost { arbiter, version })
            }
            Move::Contradict(node) => self.hear(node, &Event::Contradicted { epoch: FORGOTTEN }),
            Move::Restore(arbiter, version, seat) => {
                self.restore(arbiter, version, seat);
                Ok(())
            }
        }
    }

    /// What happened, for whoever has to understand a fault.
    pub(super) fn told(&self, it: &Move, before: &Self) -> String {
        let mut told = match *it {
            Move::Stream(link) | Move::Acknowledge(link) | Move::Cut(link, _) => {
                format!("{it:?} {:?}", before.links[link])
            }
            Move::Arrive(proposal) => format!("{it:?} {:?}", before.proposals[proposal]),
            Move::Answer(answer) => format!("{it:?} {:?}", before.answers[answer]),
            _ => format!("{it:?}"),
        };
        for proposal in self.proposals.iter().filter(|it| !before.proposals.contains(it)) {
            told = format!("{told} => {proposal:?}");
        }
        for (node, (now, then)) in self.nodes.iter().zip(&before.nodes).enumerate() {
            if now.member.leads() != then.member.leads() {
                told = format!("{told} => {node} leads {:?}", now.member.leads());
            }
            if now.said != then.said {
                told = format!("{told} => {node} says {:?}", now.log.get(then.said..now.said));
            }
        }
        told
    }

    /// Whether somebody leads who may decide at the moment, by a lease or by its standby.
    pub(super) fn is_decided_by_somebody(&self) -> bool {
        self.nodes.iter().enumerate().any(|(node, it)| {
            let until = it.member.decides_until();
            it.member.in_sync().is_some() || until.is_some_and(|until| until > self.time(node))
        })
    }

    /// Whether all who could have said something that matters are gone: then an operator may say so.
    pub(super) fn is_lost(&self) -> bool {
        let is_gone = |run: RunId| self.ended.contains(&run);
        self.seat.is_some_and(|Seat { leader, standby, tenure, .. }| {
            (is_gone(leader) || tenure == Tenure::Resigned) && standby.is_none_or(is_gone)
        })
    }

    /// The latest proposal of a node comes to the arbiter.
    pub(super) fn arrive_latest(&mut self, node: usize) -> Result<(), Fault> {
        let latest = self.proposals.iter().rposition(|it| it.node == node);
        latest.map_or(Ok(()), |latest| self.happen(&Move::Arrive(latest)))
    }

    /// The latest answer to a node comes back.
    pub(super) fn answer_latest(&mut self, node: usize) -> Result<(), Fault> {
        let latest = self.answers.iter().rposition(|it| it.node == node);
        latest.map_or(Ok(()), |latest| self.happen(&Move::Answer(latest)))
    }

    /// Without what makes no difference any more: proposals that are neither executed nor waited for,
    /// answers to nobody.
    pub(super) fn tidy(&mut self) {
        let version = self.version;
        self.retain_proposals(|it, is_awaited| it.expected == version || is_awaited);
        let nodes = &self.nodes;
        self.answers.retain(|it| {
            let node = &nodes[it.node];
            let is_awaited = it.attempt.is_none_or(|it| node.member.awaits() == Some(it));
            node.process == it.process && is_awaited
        });
    }

    /// Keeps the proposals of which `keeps` says so; it hears whether somebody waits for each.
    pub(super) fn retain_proposals(&mut self, mut keeps: impl FnMut(&Proposal, bool) -> bool) {
        let nodes = &self.nodes;
        self.proposals.retain(|it| keeps(it, nodes[it.node].awaits(it)));
    }

    /// Whether somebody follows.
    pub(super) fn is_linked(&self, node: usize) -> bool {
        self.links.iter().any(|link| link.to == node)
    }

    /// Whether a node has a question on its way to the arbiter.
    pub(super) fn asks(&self, node: usize) -> bool {
        self.nodes[node].asking.is_some()
    }

    /// To whom an answer goes.
    pub(super) fn answers_to(&self, answer: usize) -> usize {
        self.answers[answer].node
    }

    /// Whether somebody leads who may say what it appends now.
    pub(super) fn is_served(&mut self) -> bool {
        (0..self.nodes.len()).any(|node| {
            let now = self.time(node);
            let it = &mut self.nodes[node];
            let all = it.log.len() as u64;
            it.member.leads() == Some(self.judge.latest_term())
                && !is_in_grace(&it.log)
                && it.member.may_say(now) == Some(all)
        })
    }
}
