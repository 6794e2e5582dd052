//! What must outlive a leader, in etcd: the counters, the key of proofs, the forfeits, and after an orderly stop
//! everything.
//!
//! ```text
//!   /coordinator/NAME/state              the head: which leadership wrote it, and the counters
//!   /coordinator/NAME/key                what proofs are made with
//!   /coordinator/NAME/forfeits/NUMBER    who must not reclaim; those of one commit together
//!   /coordinator/NAME/snapshot/NUMBER    everything, in parts, if the head says that it is there
//! ```
//!
//! *A chain.* Each transaction compares the revision of the head, and puts another one (rule H5). A leader
//! begins with a head of its own term, in place of one that is not later. From then on every transaction of an
//! earlier leader is refused, however late it arrives, and this one has read all that was done before. The head
//! has the name of the transaction that wrote it. So one that is repeated because its answer was lost
//! recognises itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use log::warn;
use serde::{Deserialize, Serialize};

use crate::election::ClusterName;
use crate::engine::{Durable, Forfeit, Snapshot};
use crate::etcd::{Etcd, EtcdError, Found, Reading, Step, Swap, behind};
use crate::server::durable::store::Stored;
use crate::server::durable::{Change, Everything, SNAPSHOT_FORMAT, StateKey};
use crate::types::{Epoch, FencingToken, Ttl};
use crate::wire::{decode_state, encode_state, read_state};

/// The version of what is written here.
const FORMAT: u32 = 1;
/// A part of a snapshot: etcd takes a megabyte and a half at once.
const PART_BYTES: usize = 256 * 1024;
/// A larger snapshot is not kept: some 300,000 sessions.
const SNAPSHOT_BYTES_MAX: usize = 128 << 20;
/// Keys of parts and of forfeits that are read at a time: some megabytes.
const PAGE_KEYS: usize = 8;

/// Why the state is not what it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Etcd does not do what it was asked.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A later leader has begun.
    #[error("another coordinator has begun to lead, in term {term}")]
    Overtaken {
        /// Its term.
        term: u64,
    },
    /// Another cluster of etcds answers.
    #[error("another etcd answers than before")]
    OtherArbiter,
    /// What a key holds was not written here.
    #[error("{key} holds what no coordinator of this version wrote: {why}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is too much to be kept.
    #[error("the snapshot has {bytes} bytes; at most {SNAPSHOT_BYTES_MAX} are kept in etcd")]
    TooLarge {
        /// How much there is.
        bytes: usize,
    },
}

/// The head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// How the rest is to be understood.
    format: u32,
    /// The leadership that wrote it; 0: nobody has led yet.
    term: u64,
    /// The transaction that wrote it.
    mark: String,
    /// The counters; none: nobody has led yet.
    durable: Option<Numbers>,
    /// How many bytes the snapshot has, if there is one.
    snapshot_bytes: Option<usize>,
}

/// The counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Numbers {
    /// [`Durable::epoch`].
    epoch: u64,
    /// [`Durable::tokens_below`].
    tokens_below: u64,
    /// [`Durable::ttl_max`].
    ttl_max_ms: Option<u64>,
    /// [`Durable::settled`].
    settled: u64,
}

impl From<&Durable> for Numbers {
    fn from(durable: &Durable) -> Self {
        Self {
            epoch: durable.epoch.number(),
            tokens_below: durable.tokens_below.number(),
            ttl_max_ms: durable.ttl_max.map(|ttl| ttl.as_millis().into()),
            settled: durable.settled.number(),
        }
    }
}

impl Numbers {
    fn durable(self) -> Result<Durable, String> {
        let ttl = |ms| Ttl::new(Duration::from_millis(ms)).map_err(|error| error.to_string());
        Ok(Durable {
            epoch: Epoch::new(self.epoch),
            tokens_below: FencingToken::new(self.tokens_below),
            ttl_max: self.ttl_max_ms.map(ttl).transpose()?,
            settled: Epoch::new(self.settled),
        })
    }
}

/// The keys of a cluster.
#[derive(Clone, Debug)]
struct Keys {
    seat: String,
    head: String,
    key: String,
    forfeits: String,
    snapshot: String,
}

impl Keys {
    fn of(cluster: &ClusterName) -> Self {
        let below = |name: &str| format!("/coordinator/{cluster}/{name}");
        Self {
            seat: below("seat"),
            head: below("state"),
            key: below("key"),
            forfeits: below("forfeits/"),
            snapshot: below("snapshot/"),
        }
    }

    /// The key of forfeits of which the last has this number.
    fn forfeits(&self, last: u64) -> String {
        format!("{}{last:020}", self.forfeits)
    }
}

/// The chain of one leadership, or the beginning of it.
#[derive(Debug)]
pub(crate) struct Chain {
    etcd: Arc<Etcd>,
    keys: Keys,
    /// This process, for marks.
    process: u128,
    /// How many transactions it has made.
    attempts: u64,
    /// The leadership.
    term: u64,
    /// The head that is there, and its revision.
    head: Option<(Head, u64)>,
    /// The cluster of etcds that has answered first.
    arbiter: Option<u64>,
}

impl Chain {
    /// That of nobody yet.
    pub(crate) fn new(etcd: Arc<Etcd>, cluster: &ClusterName, process: u128) -> Self {
        let keys = Keys::of(cluster);
        Self { etcd, keys, process, attempts: 0, term: 0, head: None, arbiter: None }
    }

    /// Sees to it that there is a state, if nobody has led yet: where there is none although somebody has,
    /// it is lost.
    ///
    /// # Errors
    ///
    /// If etcd does not answer, or the system has no random numbers.
    pub(crate) async fn found(&mut self, key: StateKey) -> Result<(), StateError> {
        let head = Head {
            format: FORMAT,
            term: 0,
            mark: self.mark(),
            durable: None,
            snapshot_bytes: None,
        };
        let steps = vec![
            put(&self.keys.head, json(&head)),
            put(&self.keys.key, format!("{:032x}", key.reveal()).into_bytes()),
        ];
        let first = [(self.keys.seat.as_str(), 0), (self.keys.head.as_str(), 0)];
        // Refused: somebody was quicker, or has led.
        let _ = self.etcd.transact(&first, steps).await?;
        Ok(())
    }

    /// Reads what those before have left, for the leadership `term`.
    ///
    /// # Errors
    ///
    /// If a later leader has begun, or what is there cannot be read.
    pub(crate) async fn load(&mut self, term: u64) -> Result<Stored, StateError> {
        // What is committed from here on is not what was committed before: its name is another.
        (self.term, self.attempts) = (term, self.attempts + 1);
        let Reading { cluster, found } = self.etcd.read(&self.keys.head).await?;
        self.is_known(cluster)?;
        let Some(found) = found else {
            self.head = None;
            return Ok(Stored { is_lost: true, ..Stored::default() });
        };
        let head = self.read_head(&found)?;
        let durable = head.durable.map(Numbers::durable).transpose();
        let durable = durable.map_err(|why| unreadable(&self.keys.head, why))?;
        let snapshot = self.load_snapshot(head.snapshot_bytes).await?;
        self.head = Some((head, found.revision));
        let (key, forfeits) = (self.load_key().await?, self.load_forfeits().await?);
        let key = key.map(|(key, _)| key);
        // Proofs of a lost key are worth nothing, and the rest may be older.
        let is_lost = key.is_none();
        Ok(Stored { durable, key, forfeits, snapshot, is_lost })
    }

    /// The term of the leader that wrote what was loaded; none: there was nothing.
    pub(super) fn written_in(&self) -> Option<u64> {
        self.head.as_ref().map(|(head, _)| head.term)
    }

    /// The cluster of etcds that answers; none has yet.
    pub(super) fn arbiter(&self) -> Option<u64> {
        self.arbiter
    }

    /// A head that was found, if it is not one of a later leader.
    fn read_head(&self, found: &Found) -> Result<Head, StateError> {
        let head: Head = serde_json::from_slice(&found.value)
            .map_err(|error| unreadable(&self.keys.head, error.to_string()))?;
        if head.format != FORMAT {
            return Err(unreadable(&self.keys.head, format!("it has format {}", head.format)));
        }
        if head.term > self.term {
            return Err(StateError::Overtaken { term: head.term });
        }
        Ok(head)
    }

    /// The key that all proofs are made of, and the cluster of etcds that has it; none: nobody has founded ours yet.
    ///
    /// # Errors
    ///
    /// If etcd does not answer, or holds something else.
    pub(crate) async fn load_key(&self) -> Result<Option<(StateKey, u64)>, StateError> {
        let Reading { cluster, found } = self.etcd.read(&self.keys.key).await?;
        let Some(found) = found else { return Ok(None) };
        let text = String::from_utf8_lossy(&found.value);
        let number = u128::from_str_radix(&text, 16);
        number
            .map(|number| Some((StateKey::new(number), cluster)))
            .map_err(|_| unreadable(&self.keys.key, "it is no key".to_owned()))
    }

    async fn load_forfeits(&self) -> Result<BTreeMap<u64, Forfeit>, StateError> {
        let mut forfeits = BTreeMap::new();
        for (key, Found { value, .. }) in self.all_below(&self.keys.forfeits).await? {
            let batch: Vec<(u64, Forfeit)> =
                decode_state(&value).map_err(|error| unreadable(&key, error.to_string()))?;
            forfeits.extend(batch);
        }
        Ok(forfeits)
    }

    /// The snapshot, if the head says that there is one and this version can read it.
    async fn load_snapshot(&self, bytes: Option<usize>) -> Result<Option<Snapshot>, StateError> {
        let Some(bytes) = bytes else { return Ok(None) };
        let key = &self.keys.snapshot;
        let parts = self.all_below(key).await?;
        let whole: Vec<u8> = parts.into_iter().flat_map(|(_, found)| found.value).collect();
        // Parts of one that was longer may be behind it.
        let whole = whole.get(..bytes).ok_or_else(|| unreadable(key, "it is cut short".into()))?;
        let Some((&SNAPSHOT_FORMAT, mut rest)) = whole.split_first() else {
            warn!(
                "the snapshot of the last leader has another format than this version knows: \
                 continuing as after a crash"
            );
            return Ok(None);
        };
        read_state(&mut rest).map(Some).map_err(|error| unreadable(key, error.to_string()))
    }

    async fn all_below(&self, prefix: &str) -> Result<Vec<(String, Found)>, StateError> {
        let (mut all, mut from, end) = (Vec::new(), prefix.to_owned(), behind(prefix));
        loop {
            let page = self.etcd.page(&from, &end, PAGE_KEYS).await?;
            let is_last = page.len() < PAGE_KEYS;
            if let Some((key, _)) = page.last() {
                from = format!("{key}\0");
            }
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Has all these changes kept, or none. To be repeated with the same until it is known that they are.
    ///
    /// # Errors
    ///
    /// If that is not known, or a later leader has begun.
    pub(crate) async fn commit(&mut self, changes: &[Change]) -> Result<(), StateError> {
        let (mut head, revision) = self.head.clone().unwrap_or_else(|| (self.no_head(), 0));
        (head.term, head.mark) = (self.term, self.mark());
        let mut steps = Vec::new();
        let mut forfeits = Vec::new();
        let mut useless_below = 0;
        for change in changes {
            match change {
                Change::Durable(durable) => head.durable = Some(durable.into()),
                Change::Key(key) => {
                    steps.push(put(&self.keys.key, format!("{:032x}", key.reveal()).into()));
                }
                Change::Forfeit { number, forfeit } => forfeits.push((*number, *forfeit)),
                Change::ForgetForfeits { below } => useless_below = useless_below.max(*below),
                Change::SaveSnapshot(everything) => {
                    head.snapshot_bytes = Some(self.save(everything, revision).await?);
                }
                Change::DropSnapshot => {
                    let end = behind(&self.keys.snapshot);
                    steps.push(Step::Delete { from: self.keys.snapshot.clone(), end });
                    head.snapshot_bytes = None;
                }
            }
        }
        forfeits.retain(|(number, _)| *number >= useless_below);
        if let Some((last, _)) = forfeits.last() {
            let key = self.keys.forfeits(*last);
            let value =
                encode_state(&forfeits).map_err(|error| unreadable(&key, error.to_string()))?;
            steps.push(put(&key, value));
        }
        if useless_below > 0 {
            let (from, end) = (self.keys.forfeits.clone(), self.keys.forfeits(useless_below));
            steps.push(Step::Delete { from, end });
        }
        steps.push(put(&self.keys.head, json(&head)));
        let swap = self.etcd.transact(&[(&self.keys.head, revision)], steps).await?;
        self.resolve(swap, head)
    }

    /// What became of a transaction that puts this head.
    fn resolve(&mut self, swap: Swap, head: Head) -> Result<(), StateError> {
        let revision = match swap {
            Swap::Done { cluster, revision } => {
                self.is_known(cluster)?;
                revision
            }
            Swap::Refused(Reading { cluster, found }) => {
                self.is_known(cluster)?;
                let Some(found) = found else {
                    return Err(unreadable(&self.keys.head, "it was deleted".to_owned()));
                };
                if self.read_head(&found)?.mark != head.mark {
                    return Err(unreadable(&self.keys.head, "another leader wrote it".to_owned()));
                }
                // An earlier attempt was done, and its answer lost.
                found.revision
            }
        };
        self.head = Some((head, revision));
        self.attempts += 1;
        Ok(())
    }

    /// Puts a snapshot there, which nothing says yet; how many bytes it has.
    async fn save(&self, everything: &Everything, revision: u64) -> Result<usize, StateError> {
        let mut whole = vec![SNAPSHOT_FORMAT];
        everything
            .write(&mut whole as &mut dyn Write)
            .map_err(|error| unreadable(&self.keys.snapshot, error.to_string()))?;
        let bytes = whole.len();
        if bytes > SNAPSHOT_BYTES_MAX {
            return Err(StateError::TooLarge { bytes });
        }
        for (number, part) in whole.chunks(PART_BYTES).enumerate() {
            let key = format!("{}{number:08}", self.keys.snapshot);
            let here = [(self.keys.head.as_str(), revision)];
            match self.etcd.transact(&here, vec![put(&key, part.to_vec())]).await? {
                Swap::Done { .. } => {}
                Swap::Refused(Reading { found, .. }) => {
                    // The head may be there already, by an attempt whose answer was lost.
                    let head = found.map(|found| self.read_head(&found)).transpose()?;
                    if head.is_none_or(|head| head.mark != self.mark()) {
                        return Err(unreadable(&self.keys.head, "another leader wrote it".into()));
                    }
                }
            }
        }
        Ok(bytes)
    }

    /// The name of the next transaction.
    fn mark(&self) -> String {
        format!("{:032x}-{}-{}", self.process, self.term, self.attempts)
    }

    fn no_head(&self) -> Head {
        let mark = self.mark();
        Head { format: FORMAT, term: self.term, mark, durable: None, snapshot_bytes: None }
    }

    fn is_known(&mut self, arbiter: u64) -> Result<(), StateError> {
        let known = *self.arbiter.get_or_insert(arbiter);
        if known == arbiter { Ok(()) } else { Err(StateError::OtherArbiter) }
    }
}

fn put(key: &str, value: Vec<u8>) -> Step {
    Step::Put { key: key.to_owned(), value }
}

fn json(head: &Head) -> Vec<u8> {
    serde_json::to_vec(head).unwrap_or_default()
}

fn unreadable(key: &str, why: String) -> StateError {
    StateError::Unreadable { key: key.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdOptions;

    /// The chain of a leadership that has begun; nothing is connected.
    fn chain(term: u64) -> Chain {
        let endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let options = EtcdOptions { endpoints, ..EtcdOptions::default() };
        let cluster = ClusterName::new("test").unwrap();
        let mut chain = Chain::new(Arc::new(Etcd::new(options).unwrap()), &cluster, 7);
        (chain.term, chain.attempts) = (term, 1);
        chain
    }

    fn head_of(chain: &Chain) -> Head {
        Head { durable: Some((&Durable::default()).into()), ..chain.no_head() }
    }

    fn refused_for(head: &Head) -> Swap {
        let found = Some(Found { revision: 9, value: json(head) });
        Swap::Refused(Reading { cluster: 1, found })
    }

    #[tokio::test]
    async fn h5_a_transaction_whose_answer_was_lost_is_known_by_its_name_and_anothers_is_not() {
        let mut ours = chain(3);
        let head = head_of(&ours);
        ours.resolve(refused_for(&head), head.clone()).unwrap();
        assert_eq!(ours.head, Some((head.clone(), 9)));
        // The next one has another name, so the same answer is no proof of it.
        let next = head_of(&ours);
        let error = ours.resolve(refused_for(&head), next).unwrap_err();
        assert!(matches!(error, StateError::Unreadable { .. }), "{error}");
    }

    #[tokio::test]
    async fn h5_nothing_is_taken_over_from_a_later_leader() {
        let (earlier, later) = (chain(3), chain(4));
        let found = |chain: &Chain| Found { revision: 1, value: json(&head_of(chain)) };
        assert!(later.read_head(&found(&earlier)).is_ok());
        let error = earlier.read_head(&found(&later)).unwrap_err();
        assert!(matches!(error, StateError::Overtaken { term: 4 }), "{error}");
    }

    #[tokio::test]
    async fn h5_what_failed_is_tried_again_by_its_name_and_after_another_look_by_a_new_one() {
        let mut ours = chain(3);
        let first = ours.mark();
        // It may have been done: only its name can tell.
        assert!(matches!(ours.commit(&[]).await, Err(StateError::Etcd(_))));
        assert_eq!(ours.mark(), first);
        assert!(matches!(ours.load(3).await, Err(StateError::Etcd(_))));
        assert_ne!(ours.mark(), first, "another transaction, which the first one is no proof of");
    }

    #[tokio::test]
    async fn another_etcd_is_not_believed() {
        let mut ours = chain(3);
        let done = |cluster| Swap::Done { cluster, revision: 1 };
        let head = head_of(&ours);
        ours.resolve(done(1), head.clone()).unwrap();
        assert!(matches!(ours.resolve(done(2), head), Err(StateError::OtherArbiter)));
    }

    #[test]
    fn a_head_is_text_that_people_can_read() {
        let head = Head {
            format: FORMAT,
            term: 7,
            mark: "a-7-1".to_owned(),
            durable: Some((&Durable::default()).into()),
            snapshot_bytes: None,
        };
        let text = String::from_utf8(json(&head)).unwrap();
        assert!(text.starts_with(r#"{"format":1,"term":7,"mark":"a-7-1","durable":{"epoch":0"#));
        assert_eq!(serde_json::from_slice::<Head>(text.as_bytes()).unwrap(), head);
    }
}
