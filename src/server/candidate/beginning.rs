//! The beginning of a term: what the leaders before have left is taken over, and what is kept of it in etcd.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use log::{error, warn};
use tokio::sync::Mutex as Turns;
use tokio::time::sleep;

use super::following::Slot;
use super::state::{Chain, StateError};
use super::{Candidate, PAUSE};
use crate::clock::BootClock;
use crate::cluster::{Gap, Table};
use crate::server::durable::persist::Disk;
use crate::server::durable::store::Stored;
use crate::server::durable::{Change, StateStore, StoreError, start};
use crate::server::error::ServerError;
use crate::server::run::before::{Begun, Inherits};
use crate::types::{Epoch, TTL_MAX, Ttl};

/// How often a commit is tried again in the end. Etcd has a new leader within seconds.
const RETRY_MAX: Duration = Duration::from_millis(500);

impl Candidate {
    /// Begins a term: takes the state over from the leaders before.
    pub(super) async fn begin(
        &self,
        (term, table): (u64, Table),
        gap: Gap,
    ) -> Result<(Begun, Archive), ServerError> {
        // A copy that nobody waits for any more may still be at the journal.
        let _turn = self.copying.lock().await;
        let mut chain = self.chain();
        loop {
            match self.try_to_begin((term, table), gap, &mut chain).await {
                Ok((begun, staged)) => {
                    let arbiter = chain.arbiter().unwrap_or_default();
                    return Ok((begun, Archive { chain: Turns::new(chain), staged, arbiter }));
                }
                Err(Obstacle::Server(error)) => return Err(error),
                Err(Obstacle::State(why)) => {
                    error!(term; "cluster: the state cannot be taken over: {why}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn try_to_begin(
        &self,
        (term, table): (u64, Table),
        gap: Gap,
        chain: &mut Chain,
    ) -> Result<(Begun, Staged), Obstacle> {
        let mut stored = chain.load(term).await?;
        let is_before = chain.written_in().is_some_and(|term| gap.is_behind(term));
        let is_passed = pass(&mut stored, is_before, gap.epoch);
        let staged = Staged::of(stored);
        let wall = SystemTime::now();
        let inherits = match (table, self.slot.take()) {
            // A journal may have that epoch, too: it is of before, as well.
            _ if is_passed => Inherits::State,
            (Table::Own, Slot::Copy(copy)) => {
                let (table, chronicle) = copy.into_parts();
                Inherits::Copy(Box::new(table), Box::new(chronicle))
            }
            // It counts if its epoch is that of the state: then nobody has begun to lead since.
            (Table::Own, Slot::Empty) => Inherits::Journal,
            (Table::Own, Slot::Unfit) | (Table::New | Table::Empty | Table::Forgotten, _) => {
                Inherits::State
            }
        };
        let mut begun = Begun::after(&self.config, &staged, wall, &BootClock, inherits)?;
        begun.write_down();
        // What was inherited is here once. So this is repeated until it is known, and not all of it.
        let changes = staged.changes();
        persist(async || chain.commit(&changes).await).await?;
        begun.confirm();
        start::await_next_tick(wall, SystemTime::now, start::pause_for_tick);
        Ok((begun, staged))
    }
}

/// Goes past leaders that etcd has forgotten, and past the epoch of one that was proved (rules H4, H6). What etcd has is
/// of before: nobody knows who held what since, nor for how long. Whether it is.
fn pass(stored: &mut Stored, is_before: bool, forgotten: Epoch) -> bool {
    let epoch = stored.durable.map_or(Epoch::default(), |durable| durable.epoch);
    let is_passed = is_before || epoch < forgotten;
    if is_passed {
        // Of before anybody has led, it may be.
        let durable = stored.durable.get_or_insert_default();
        (durable.epoch, durable.ttl_max) = (epoch.max(forgotten), Ttl::new(TTL_MAX).ok());
        stored.snapshot = None;
    }
    is_passed
}

/// Has something committed, again and again while etcd does not answer: it may have been done.
async fn persist(
    mut commit: impl AsyncFnMut() -> Result<(), StateError>,
) -> Result<(), StateError> {
    let mut pause = PAUSE;
    loop {
        match commit().await {
            Err(StateError::Etcd(why)) => {
                warn!("cluster: the beginning of a term could not be committed: {why}");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            ended => return ended,
        }
    }
}

/// What keeps a term from beginning.
enum Obstacle {
    /// This one must not, as it is.
    Server(ServerError),
    /// It is tried again, until another leads.
    State(StateError),
}

impl From<ServerError> for Obstacle {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<StateError> for Obstacle {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// What is kept in etcd during a term.
pub(super) struct Archive {
    /// One transaction at a time.
    chain: Turns<Chain>,
    /// What it began with.
    staged: Staged,
    /// The cluster of etcds that has it.
    pub(super) arbiter: u64,
}

impl Disk for Archive {
    type Store = Staged;

    fn store(&self) -> &Staged {
        &self.staged
    }

    async fn commit(&self, changes: &Arc<[Change]>) -> Result<(), String> {
        self.chain.lock().await.commit(changes).await.map_err(|error| error.to_string())
    }

    fn retry_max(&self) -> Duration {
        RETRY_MAX
    }
}

/// What was loaded, and what is to be committed: a start waits for nothing.
pub(super) struct Staged {
    /// What was loaded.
    stored: Mutex<Stored>,
    /// What a start wants kept.
    changes: Mutex<Vec<Change>>,
}

impl Staged {
    fn of(stored: Stored) -> Self {
        Self { stored: Mutex::new(stored), changes: Mutex::default() }
    }

    fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// For a start, which only stages.
impl Disk for Staged {
    type Store = Self;

    fn store(&self) -> &Self {
        self
    }

    async fn commit(&self, changes: &Arc<[Change]>) -> Result<(), String> {
        StateStore::commit(self, changes).map_err(|error| error.to_string())
    }
}

impl StateStore for Staged {
    fn load(&self) -> Result<Stored, StoreError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *stored))
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut all = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend_from_slice(changes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Durable;
    use crate::etcd::EtcdError;

    #[test]
    fn h6_who_leads_after_leaders_that_are_forgotten_waits_for_the_longest_lease_that_there_could_be()
     {
        let (epoch, ttl_max) = (Epoch::new(5), Ttl::new(Duration::from_secs(10)).ok());
        let durable = Durable { epoch, ttl_max, ..Durable::default() };
        let stored = || Stored { durable: Some(durable), ..Stored::default() };
        let (mut same, mut restored) = (stored(), stored());
        assert!(!pass(&mut same, false, epoch));
        assert_eq!(same, stored());
        assert!(pass(&mut restored, false, Epoch::new(9)));
        let ttl_max = Ttl::new(TTL_MAX).ok();
        assert_eq!(restored.durable, Some(Durable { epoch: Epoch::new(9), ttl_max, ..durable }));
        let mut accepted = stored();
        assert!(pass(&mut accepted, true, Epoch::default()));
        assert_eq!(accepted.durable, Some(Durable { ttl_max, ..durable }));
        // A backup of before anybody led is one, too.
        let mut void = Stored::default();
        assert!(pass(&mut void, true, Epoch::default()));
        assert_eq!(void.durable, Some(Durable { ttl_max, ..Durable::default() }));
    }

    #[tokio::test(start_paused = true)]
    async fn p6_what_is_taken_over_once_is_committed_until_etcd_says_that_it_is() {
        let away = || EtcdError::Endpoints { count: 0, max: 1 };
        let mut answers = vec![
            Err(StateError::Overtaken { term: 9 }),
            Ok(()),
            Err(away().into()),
            Err(away().into()),
        ];
        let committed = persist(async || answers.pop().unwrap()).await;
        assert!(committed.is_ok(), "the copy is lost with the first answer that does not come");
        let refused = persist(async || answers.pop().unwrap()).await;
        assert!(matches!(refused, Err(StateError::Overtaken { term: 9 })), "another leads");
    }
}
