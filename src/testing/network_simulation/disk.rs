//! The coordinator's disk: it takes its time, fails for a while, and keeps what it said it has kept.

use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::stream::millis;
use super::trace::Trace;
use crate::engine::Durable;
use crate::server::{Change, MemoryStore, StateKey, StateStore, StoreError, Stored};
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

/// A disk, which outlives whoever uses it.
pub(super) struct Disk {
    /// What is on it.
    kept: MemoryStore,
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
        Self { kept, random: Mutex::new(random), fails_until, trace }
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
