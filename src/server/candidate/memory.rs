//! What a member keeps of the election, for the next process in the same directory (rule H4).

use std::sync::{Arc, Mutex, PoisonError};

use log::error;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::cluster::{Kept, RunId};
use crate::election::{Pledge, decode_kept, encode_kept};
use crate::server::durable::{DirectoryStore, StoreError};

/// The file that it is in.
const KEPT_NAME: &str = "member";

/// A file in a directory that no other process can use.
#[derive(Debug)]
pub(super) struct Memory {
    /// The directory.
    store: DirectoryStore,
    /// Which one that is, and of which start of the machine; empty: the system does not tell.
    place: String,
    /// What it holds, as far as this process has written it. Whoever writes has this meanwhile.
    kept: Mutex<Option<Kept>>,
}

impl Memory {
    pub(super) fn new(store: DirectoryStore, place: String) -> Self {
        Self { store, place, kept: Mutex::default() }
    }

    /// What the process before has kept; of another place than this it is about the run `other`.
    pub(super) fn load(&self, other: RunId) -> Result<Option<Kept>, StoreError> {
        let here = (!self.place.is_empty()).then_some(self.place.as_str());
        let bytes = self.store.read_file(KEPT_NAME)?;
        Ok(bytes.and_then(|bytes| decode_kept(&bytes, here, other)))
    }

    /// Keeps this. Whether it does: who does not must acknowledge nothing.
    pub(super) fn keep(&self, kept: &Kept) -> bool {
        self.write(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner), kept)
    }

    /// Keeps what the same run has heard since. That of another one is kept once its journal has begun.
    fn keep_on(&self, pledge: &Pledge) {
        let mut before = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = pledge.keeps();
        if before.is_some_and(|before| before.run == now.run && before != now) {
            self.write(&mut before, &now);
        }
    }

    fn write(&self, before: &mut Option<Kept>, kept: &Kept) -> bool {
        let written = self.store.write_file(KEPT_NAME, &encode_kept(kept, &self.place));
        if let Err(why) = &written {
            error!("cluster: a restart would not know of term {}: {why}", kept.term);
        }
        *before = Some(*kept).filter(|_| written.is_ok());
        written.is_ok()
    }
}

/// Keeps what is heard of the seat, again and again: a restored etcd is known by that it knows less. A disk that is slow
/// keeps nobody waiting.
pub(super) async fn keep_on(memory: Arc<Memory>, mut keeps: watch::Receiver<Kept>, pledge: Pledge) {
    while keeps.changed().await.is_ok() {
        let (memory, pledge) = (Arc::clone(&memory), pledge.clone());
        // If it panics, its hook tells.
        let _ = spawn_blocking(move || memory.keep_on(&pledge)).await;
    }
}
