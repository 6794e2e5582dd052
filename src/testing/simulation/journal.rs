//! The coordinator's journal, as production keeps it, on a disk with a page cache; and what must wait
//! for it.
//!
//! A crash of the process keeps what was written, or half of a write. A power cut keeps what was
//! synced, and of the rest any pages. Each start is judged: *no journal that is complete may be
//! followed by a grace period, and none that was given up may be used*.

use std::mem;

use super::Event;
use super::world::World;
use crate::engine::Start;
use crate::journal::simulated::{Faults, SimulatedDisk};
use crate::journal::{Bounds, Distance, Place, Task};
use crate::server::{
    Before, Change, Chronicle, Delivery, Desk, Flushed, Ground, Job, Medium, Promise, Record,
    Witness, checkpoint, table_before,
};
use crate::testing::fuzz::Random;
use crate::types::{Epoch, Limits, Timestamp};

/// So long after it was given up a journal is begun anew.
const ANEW_AFTER: u64 = 10_000_000;
/// How often it is looked at.
const LOOK_EVERY: u64 = 2_000_000;
/// How soon one is looked at again that could not even be made void.
const STUCK_PAUSE: u64 = 1_000_000;
/// The longest that the coordinator goes on before it writes.
const POLL_MAX: u64 = 1_000;
/// Small, so that there are checkpoints.
const BOUNDS: Bounds = Bounds { floor_bytes: 16 * 1024, checkpoints: 2 };

/// How a run ends that does not stop in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crash {
    /// The process is killed.
    Process,
    /// The power is cut.
    Power,
}

/// What a turn came to, and waits until it is written down.
pub(super) struct Held {
    /// For the disk.
    pub(super) orders: Vec<Change>,
    /// For connections.
    pub(super) deliveries: Vec<Delivery>,
    /// What happened, for the referee: nothing of it has, before it is written down.
    pub(super) seen: Witness,
}

impl Held {
    /// What it promises to be written down, is not.
    fn make_void(&mut self) {
        for Delivery { deliver, .. } in &mut self.deliveries {
            if deliver.promise == Promise::Recorded {
                deliver.promise = Promise::Void;
            }
        }
    }

    /// Whether somebody waits for it.
    fn is_awaited(&self) -> bool {
        !self.orders.is_empty() || !self.deliveries.is_empty()
    }
}

/// What the next run has to find.
#[derive(Debug)]
enum Left {
    /// Nothing was promised.
    Anything,
    /// The table, of which this is the image, if all of it was written.
    Table(Option<Vec<u8>>),
    /// Nothing that it may use.
    Nothing,
}

/// The journal.
pub(super) struct Journal {
    /// Where it is.
    disk: SimulatedDisk,
    /// How far records are before anything is said, in this world; none: there is no journal.
    distance: Option<Distance>,
    /// Counts the starts of the machine.
    boot: u128,
    /// What this run writes.
    pub(super) chronicle: Option<Chronicle>,
    /// What waits to be written, and what is being written by a thread.
    held: Vec<Held>,
    written: Vec<Held>,
    /// What that thread does.
    job: Option<Box<Job>>,
    /// The checkpoint that is being made.
    task: Option<Box<Task>>,
    /// Since when it is given up.
    off_since: Option<u64>,
    /// Until when its disk is not well, and until when it is slow.
    fails_until: u64,
    slow_until: u64,
    /// Whether the process dies in its next write; whether it has.
    dies: bool,
    is_dead: bool,
    /// What the next run has to find.
    left: Left,
}

impl Journal {
    pub(super) fn new(dice: &mut Random) -> Self {
        let distances =
            [None, Some(Distance::Process), Some(Distance::Process), Some(Distance::Machine)];
        Self {
            disk: SimulatedDisk::default(),
            distance: *dice.pick(&distances),
            boot: 1,
            chronicle: None,
            held: Vec::new(),
            written: Vec::new(),
            job: None,
            task: None,
            off_since: None,
            fails_until: 0,
            slow_until: 0,
            dies: false,
            is_dead: false,
            left: Left::Anything,
        }
    }

    /// Whether there is one.
    pub(super) fn is_kept(&self) -> bool {
        self.distance.is_some()
    }

    /// A run begins, at `local`: finds what the one before has left, and judges that.
    pub(super) fn open(
        &mut self,
        (last, start): (Option<Epoch>, &mut Start),
        (now, local): (u64, Timestamp),
        dice: &mut Random,
    ) -> Before {
        let Some(distance) = self.distance else { return Before::Nothing };
        self.heal_if_due(now);
        let ground = Ground {
            medium: Medium::Simulated(self.disk.clone()),
            place: Place { boot: Some(self.boot), machine: Some(1) },
            id: u128::from(dice.next()) << 64 | u128::from(dice.next()),
            bounds: BOUNDS,
            state: [0; 16],
        };
        let next = start.durable.epoch;
        let mut chronicle = Chronicle::on(ground, distance, last.unwrap_or_default(), next);
        let mut before = Before::Nothing;
        if last.is_some() {
            before = table_before(&mut chronicle, start, Limits::default(), local);
        }
        chronicle.epoch(None, Some(next));
        let why = chronicle.why_void().unwrap_or("nothing was found").to_owned();
        self.chronicle = Some(chronicle);
        let left = mem::replace(&mut self.left, Left::Anything);
        // Whatever is found on a disk that fails, nothing was promised of it.
        if now >= self.fails_until {
            judge(left, &before, &why);
        }
        before
    }

    /// The run goes on with this desk.
    pub(super) fn begin(&mut self, desk: &mut Desk, now: u64) {
        let Some(chronicle) = &mut self.chronicle else { return };
        let is_recorded =
            chronicle.is_begun() || desk.table().is_some_and(|table| chronicle.begin(table));
        desk.record(is_recorded);
        self.off_since = (!is_recorded).then_some(now);
    }

    /// The run is over: what must be there afterwards?
    pub(super) fn leave(&mut self, desk: &Desk, how: Crash) {
        let Some(chronicle) = &mut self.chronicle else { return };
        let is_lost = how == Crash::Power && self.distance == Some(Distance::Process);
        self.left = if is_lost {
            Left::Nothing
        } else if self.off_since.is_none() && chronicle.is_begun() {
            let is_whole = self.job.is_none() && !self.is_dead && chronicle.is_all_written();
            Left::Table(desk.table().filter(|_| is_whole).map(|table| {
                let mut image = Vec::new();
                checkpoint(table, &mut image).unwrap();
                image
            }))
        } else if chronicle.holds_the_door() {
            // It could not be made void, and nothing was said since.
            Left::Anything
        } else {
            Left::Nothing
        };
    }

    /// Whatever way the run has ended: what it had in memory is gone.
    pub(super) fn stop(&mut self, how: Option<Crash>, now: u64, dice: &mut Random) {
        // A process that stood still has not seen the disk work again.
        self.heal_if_due(now);
        if let Some(job) = self.job.take() {
            if now < self.fails_until {
                // On a disk that fails, its thread may give the journal up before anybody hears of it.
                self.left = Left::Anything;
            }
            match dice.below(3) {
                0 => {}
                1 => {
                    self.disk.set_faults(Faults {
                        stops_after: Some(self.disk.changes() + dice.next() % 2),
                        ..Faults::default()
                    });
                    job.run();
                }
                _ => drop(job.run()),
            }
        }
        if mem::take(&mut self.is_dead) || now >= self.fails_until {
            self.disk.set_faults(Faults::default());
        }
        if how == Some(Crash::Power) {
            self.disk.cut_power(dice);
            self.fails_until = now;
            self.boot += 1;
        }
        (self.chronicle, self.task, self.off_since, self.dies) = (None, None, None, false);
        self.held.clear();
        self.written.clear();
    }

    /// The disk fails in one way or another, from now until then.
    pub(super) fn fail(&mut self, until: u64, dice: &mut Random) -> &'static str {
        self.fails_until = until;
        let mut faults = Faults::default();
        let what = match dice.below(5) {
            0 => {
                faults.room = Some(dice.next() % 2_000);
                "journal's disk full"
            }
            1 => {
                faults.writes_fail = true;
                "journal's writes failing"
            }
            2 => {
                faults.syncs_fail = true;
                "journal's syncs failing"
            }
            3 => {
                (faults.writes_fail, faults.truncates_fail) = (true, true);
                faults.removes_fail = true;
                "journal stuck"
            }
            _ => {
                faults.short_writes = Some(Random::new(dice.next()));
                "journal's writes short"
            }
        };
        self.disk.set_faults(faults);
        what
    }

    /// Its syncs take long until then.
    pub(super) fn slow_down(&mut self, until: u64) {
        self.slow_until = until;
    }

    /// The process dies in its next write.
    pub(super) fn die_in_write(&mut self) {
        self.dies = true;
    }

    /// Nothing goes wrong any more.
    pub(super) fn make_peace(&mut self, now: u64) {
        (self.fails_until, self.slow_until) = (now, now);
        self.heal_if_due(now);
    }

    fn heal_if_due(&mut self, now: u64) {
        if now >= self.fails_until && !self.is_dead {
            self.disk.set_faults(Faults::default());
        }
    }

    fn is_awaited(&self) -> bool {
        self.held.iter().any(Held::is_awaited) || self.written.iter().any(Held::is_awaited)
    }

    /// Half of what comes next is written, and then nothing.
    fn die(&mut self, dice: &mut Random) {
        let Some(chronicle) = &mut self.chronicle else { return };
        self.is_dead = true;
        let stops_after = Some(self.disk.changes() + dice.next() % 2);
        self.disk.set_faults(Faults { stops_after, ..Faults::default() });
        if let Flushed::Writing(job) = chronicle.flush() {
            job.run();
        }
    }
}

fn judge(left: Left, before: &Before, why: &str) {
    match (left, before) {
        (Left::Table(Some(left)), Before::Crashed(table)) => {
            let mut image = Vec::new();
            checkpoint(table, &mut image).unwrap();
            assert!(left == image, "the table that was replayed is another");
        }
        (Left::Table(_), Before::Nothing) => {
            panic!("a grace period, though everything was written down: {why}")
        }
        (Left::Nothing, Before::Crashed(_)) => panic!("a journal is used that was given up"),
        // Killed in an orderly stop, it may have left everything in another way.
        (Left::Table(_) | Left::Anything | Left::Nothing, _) => {}
    }
}

impl World {
    /// What a turn came to goes out, once what led to it is written down.
    pub(super) fn pass(&mut self, held: Held, record: &Record) {
        let journal = &mut self.site.journal;
        let Some(chronicle) = journal.chronicle.as_mut().filter(|it| it.holds_the_door()) else {
            journal.held.push(held);
            return self.release();
        };
        for change in &held.orders {
            if let Change::Durable(durable) = change {
                chronicle.epoch(Some(durable.epoch), None);
            }
        }
        record.parts().for_each(|part| chronicle.append(part));
        journal.held.push(held);
        // Now and then its mailbox is not empty yet.
        if self.dice.once_in(4) {
            let (at, run) = (self.now() + self.dice.next() % POLL_MAX, self.site.run);
            return self.heap.push(at, Event::Flush { run });
        }
        self.flush();
    }

    /// Writes down what led to all that waits, and lets it out.
    pub(super) fn flush(&mut self) {
        let now = self.now();
        let journal = &mut self.site.journal;
        journal.heal_if_due(now);
        if !journal.is_awaited() || journal.is_dead {
            return;
        }
        if mem::take(&mut journal.dies) {
            journal.die(&mut self.dice);
            return self.heap.push(now, Event::Kill { run: self.site.run });
        }
        let Some(chronicle) = &mut journal.chronicle else { return };
        match chronicle.flush() {
            Flushed::Writing(job) => {
                let mut held = mem::take(&mut journal.held);
                journal.written.append(&mut held);
                journal.job = Some(job);
                let longest = if now < journal.slow_until { 1_500_000 } else { 10_000 };
                let at = now + 50 + self.dice.next() % longest;
                self.heap.push(at, Event::Written { run: self.site.run });
            }
            flushed => self.flushed(flushed),
        }
    }

    fn flushed(&mut self, flushed: Flushed) {
        let (now, run) = (self.now(), self.site.run);
        let journal = &mut self.site.journal;
        match flushed {
            Flushed::Writing(_) | Flushed::Later => {}
            Flushed::Written(task) => {
                if let Some(task) = task {
                    self.checkpoint_is_due(task);
                }
                self.release();
            }
            Flushed::Behind => {
                self.begin_anew("journals begun anew, as records came too fast");
                self.release();
            }
            Flushed::Off => {
                journal.off_since.get_or_insert(now);
                // What promises that it is written down is not said.
                for held in journal.held.iter_mut().chain(&mut journal.written) {
                    held.make_void();
                }
                self.referee.tally.count("journals given up");
                if let Some(desk) = &mut self.site.desk {
                    desk.record(false);
                }
                self.release();
            }
            Flushed::Stuck => {
                journal.off_since.get_or_insert(now);
                self.heap.push(now + STUCK_PAUSE, Event::Flush { run });
            }
        }
    }

    /// A thread has written what it was to write.
    pub(super) fn written(&mut self) {
        let journal = &mut self.site.journal;
        let (Some(job), Some(chronicle)) = (journal.job.take(), &mut journal.chronicle) else {
            return;
        };
        let flushed = chronicle.written(Some(job.run()));
        if !matches!(flushed, Flushed::Stuck) {
            let written = mem::take(&mut journal.written);
            self.let_out(written);
        }
        match flushed {
            // Of what came meanwhile, nothing is written.
            Flushed::Written(Some(task)) => self.checkpoint_is_due(task),
            Flushed::Written(None) => {}
            Flushed::Behind => self.begin_anew("journals begun anew, as records came too fast"),
            other => self.flushed(other),
        }
        self.flush();
    }

    /// A checkpoint is due. Made by a thread, or at once, as of a small table.
    fn checkpoint_is_due(&mut self, task: Box<Task>) {
        let Some(chronicle) = &mut self.site.journal.chronicle else { return };
        if self.dice.once_in(2) && chronicle.takes_over(0) {
            return self.begin_anew("checkpoints at once");
        }
        self.site.journal.task = Some(task);
        // Now and then it takes so long that records come faster.
        let longest = if self.dice.once_in(4) { 20_000_000 } else { 200_000 };
        let (at, run) = (self.now() + self.dice.next() % longest, self.site.run);
        self.heap.push(at, Event::Made { run });
    }

    /// The journal begins anew, with the table of now.
    fn begin_anew(&mut self, why: &'static str) {
        let now = self.now();
        let journal = &mut self.site.journal;
        let (Some(chronicle), Some(desk)) = (&mut journal.chronicle, &mut self.site.desk) else {
            return;
        };
        let Some(table) = desk.table() else { return };
        if chronicle.begin(table) {
            self.referee.tally.count(why);
        } else {
            journal.off_since.get_or_insert(now);
            desk.record(false);
        }
    }

    /// A thread has made a checkpoint, or could not.
    pub(super) fn made(&mut self) {
        let journal = &mut self.site.journal;
        let (Some(task), Some(chronicle)) = (journal.task.take(), &mut journal.chronicle) else {
            return;
        };
        let made = chronicle.checkpoint_maker()(&task);
        if made.is_ok() {
            self.referee.tally.count("checkpoints");
        }
        if let Some(flushed) = chronicle.checkpointed(made) {
            self.flushed(flushed);
        }
    }

    /// Looks after the journal from time to time.
    pub(super) fn look_after_journal(&mut self) {
        let (now, run) = (self.now(), self.site.run);
        self.heap.push(now + LOOK_EVERY, Event::LookAfter { run });
        self.flush();
        let journal = &mut self.site.journal;
        let (Some(chronicle), Some(desk)) = (&mut journal.chronicle, &mut self.site.desk) else {
            return;
        };
        if journal.is_dead {
            return;
        }
        if journal.job.is_none()
            && let Some(flushed) = chronicle.check()
        {
            return self.flushed(flushed);
        }
        if journal.off_since.is_some_and(|since| now >= since + ANEW_AFTER)
            && let Some(table) = desk.table()
        {
            if chronicle.begin(table) {
                journal.off_since = None;
                desk.record(true);
                self.referee.tally.count("journals begun anew");
            } else {
                journal.off_since = Some(now);
            }
        }
    }

    /// Lets all out that waits.
    fn release(&mut self) {
        let journal = &mut self.site.journal;
        let mut all = mem::take(&mut journal.written);
        all.append(&mut journal.held);
        self.let_out(all);
    }

    fn let_out(&mut self, all: Vec<Held>) {
        let (now, run) = (self.now(), self.site.run);
        for Held { orders, deliveries, seen } in all {
            let said = self.hear_operator(deliveries);
            self.site.operator.check_told(&seen);
            self.judge(seen);
            for change in &orders {
                self.referee.order(change);
            }
            self.site.disk.order(orders);
            if let Some(end) = self.site.disk.begin(now, &mut self.dice) {
                self.heap.push(end, Event::Commit { run });
            }
            self.send_down(said);
        }
        let journal = &self.site.journal;
        if let Some(desk) = self.site.desk.as_ref().filter(|_| !journal.is_awaited()) {
            self.site.operator.check_shown(desk);
        }
    }
}
