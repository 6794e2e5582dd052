//! The coordinator's disk: it takes its time, fails for a while, and keeps what it said it has kept.

use std::io;
use std::mem;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stream::millis;
use super::trace::Trace;
use crate::engine::Durable;
use crate::journal::simulated::{Faults, SimulatedDisk};
use crate::journal::{Bounds, Place};
use crate::server::{
    Change, Ground, Medium, MemoryStore, StateKey, StateStore, StoreError, Stored,
};
use crate::testing::fuzz::Random;
use crate::types::{Epoch, FencingToken};

/// How long a commit takes, mostly.
const COMMIT_MS_MAX: u64 = 20;
/// How long one takes now and then.
const SLOW_COMMIT_MS_MAX: u64 = 800;
/// Where counting begins: so far ahead of any wall clock that it decides nothing.
const EPOCH: u64 = 1 << 27;
const TOKENS_BELOW: u64 = 1 << 50;
/// How many tokens a start reserves.
const TOKENS_RESERVED: u64 = 1 << 20;

/// The longest that a journal waits for its disk, mostly, and while that is slow.
const SYNC_MS_MAX: u64 = 8;
const SLOW_SYNC_MS_MAX: u64 = 1_500;
/// Small, so that there are checkpoints.
const BOUNDS: Bounds = Bounds { floor_bytes: 32 * 1024, checkpoints: 2 };

/// What a run has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The table of the run before: everything was written down.
    Everything,
    /// Nobody knows: the journal's disk was not well.
    Anything,
    /// Nothing, for what was written was not synced.
    Nothing,
}

/// A disk, which outlives whoever uses it.
pub(super) struct Disk {
    /// What is on it.
    kept: MemoryStore,
    /// The journal on it, with a page cache.
    journal: SimulatedDisk,
    /// Counts the starts of its machine.
    boot: Mutex<u128>,
    /// What the next run has to find of it.
    left: Mutex<Left>,
    /// Whether it is well.
    is_well: AtomicBool,
    /// Decides what it does.
    random: Mutex<Random>,
    /// Nothing is kept before this, or perhaps it is, and nobody knows.
    fails_until: Mutex<Instant>,
    /// Where it is written down what is kept.
    trace: Trace,
}

impl Disk {
    /// One on which nobody was welcomed yet.
    pub(super) fn new(random: Random, trace: Trace) -> Self {
        let kept = MemoryStore::default();
        let (epoch, tokens_below) = (Epoch::new(EPOCH), FencingToken::new(TOKENS_BELOW));
        let durable = Durable { epoch, tokens_below, ..Durable::default() };
        kept.commit(&[Change::Key(StateKey::new(7)), Change::Durable(durable)]).unwrap();
        let fails_until = Mutex::new(Instant::now());
        let (boot, left) = (Mutex::new(1), Mutex::new(Left::Anything));
        let journal = SimulatedDisk::default();
        let disk = Self {
            kept,
            journal,
            boot,
            left,
            is_well: AtomicBool::new(true),
            random: Mutex::new(random),
            fails_until,
            trace,
        };
        disk.heal_journal();
        disk
    }

    /// The journal's disk fails, in one way or another.
    pub(super) fn fail_journal(&self) -> &'static str {
        let mut random = self.random.lock().unwrap();
        let mut faults = Faults::default();
        let what = match random.below(5) {
            0 => {
                faults.room = Some(random.next() % 2_000);
                "journal's disk full"
            }
            1 => {
                faults.writes_fail = true;
                "journal's writes fail"
            }
            2 => {
                faults.syncs_fail = true;
                "journal's syncs fail"
            }
            3 => {
                (faults.writes_fail, faults.truncates_fail) = (true, true);
                faults.removes_fail = true;
                "journal stuck"
            }
            _ => {
                faults.slow = Some((Random::new(random.next()), SLOW_SYNC_MS_MAX));
                faults.short_writes = Some(Random::new(random.next()));
                "journal's disk slow"
            }
        };
        self.journal.set_faults(faults);
        self.is_well.store(false, Ordering::Relaxed);
        what
    }

    /// The journal's disk is well again.
    pub(super) fn heal_journal(&self) {
        let dice = Random::new(self.random.lock().unwrap().next());
        let slow = Some((dice, SYNC_MS_MAX));
        self.journal.set_faults(Faults { slow, ..Faults::default() });
        self.is_well.store(true, Ordering::Relaxed);
    }

    /// Whatever its process writes from now on does not get there, but for a half of what comes next.
    pub(super) fn stop_journal(&self) {
        let stops_after = self.random.lock().unwrap().next() % 2 + self.journal.changes();
        self.journal.set_faults(Faults { stops_after: Some(stops_after), ..Faults::default() });
    }

    /// The power is cut, and comes back.
    pub(super) fn cut_power(&self) {
        self.journal.cut_power(&mut self.random.lock().unwrap());
        *self.boot.lock().unwrap() += 1;
    }

    /// A run begins: unless something goes wrong, the next one has to find everything.
    pub(super) fn begins(&self) {
        let is_well = self.is_well.load(Ordering::Relaxed);
        self.leaves(if is_well { Left::Everything } else { Left::Anything });
    }

    /// The next run has to find this.
    pub(super) fn leaves(&self, left: Left) {
        *self.left.lock().unwrap() = left;
    }

    /// What a run has to find that begins.
    pub(super) fn left(&self) -> Left {
        *self.left.lock().unwrap()
    }

    /// Fails from now on, for so long.
    pub(super) fn fail(&self, length: Duration) {
        *self.fails_until.lock().unwrap() = Instant::now() + length;
    }

    /// Works again.
    pub(super) fn heal(&self) {
        self.fail(Duration::ZERO);
    }

    fn fails(&self) -> bool {
        *self.fails_until.lock().unwrap() > Instant::now()
    }

    /// Whether a run left everything that it had.
    pub(super) fn has_snapshot(&self) -> bool {
        self.kept.load().unwrap().snapshot.is_some()
    }

    /// The first token of a run that just began.
    pub(super) fn first_token(&self) -> u64 {
        self.kept.load().unwrap().durable.unwrap().tokens_below.number() - TOKENS_RESERVED
    }

    fn coin(&self) -> bool {
        self.random.lock().unwrap().once_in(2)
    }

    fn latency(&self) -> Duration {
        let mut random = self.random.lock().unwrap();
        let max = if random.once_in(10) { SLOW_COMMIT_MS_MAX } else { COMMIT_MS_MAX };
        millis(&mut random, max)
    }
}

impl StateStore for Disk {
    fn load(&self) -> Result<Stored, StoreError> {
        self.kept.load()
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let fails = self.fails();
        if !fails || self.coin() {
            self.kept.commit(changes)?;
        }
        self.trace.say(format_args!("disk: {} changes, fails: {fails}", changes.len()));
        if fails { Err(StoreError::Other("input/output error".into())) } else { Ok(()) }
    }
}

/// The disk as one run of the coordinator has it.
pub(super) struct Mounted(pub(super) Arc<Disk>);

impl crate::server::Disk for Mounted {
    type Store = Disk;

    fn store(&self) -> &Disk {
        &self.0
    }

    fn ground(&self, _: &Path) -> io::Result<Ground> {
        let mut random = self.0.random.lock().unwrap();
        Ok(Ground {
            medium: Medium::Simulated(self.0.journal.clone()),
            place: Place { boot: Some(*self.0.boot.lock().unwrap()), machine: Some(1) },
            id: u128::from(random.next()) << 64 | u128::from(random.next()),
            bounds: BOUNDS,
            state: [0; 16],
        })
    }

    async fn commit(&self, changes: &Arc<[Change]>) -> Result<(), String> {
        let mut under_way = UnderWay { disk: &self.0, changes };
        sleep(self.0.latency()).await;
        let done = StateStore::commit(&*self.0, mem::take(&mut under_way.changes));
        done.map_err(|error| error.to_string())
    }
}

/// A commit that nobody was told of yet. If its process dies before, it may be on the disk or not.
struct UnderWay<'a> {
    /// Where it goes.
    disk: &'a Disk,
    /// Nothing, once it is done.
    changes: &'a [Change],
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.changes.is_empty() && self.disk.coin() {
            self.disk.trace.say(format_args!("disk: {} changes, unseen", self.changes.len()));
            self.disk.kept.commit(self.changes).unwrap();
        }
    }
}
