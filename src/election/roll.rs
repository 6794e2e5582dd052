//! The roll: who takes part in a cluster. Each writes an entry of its own into etcd now and then.
//!
//! It is for people. Nothing is decided by it: an entry may be old, or another's.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use super::record::{Author, decode};
use super::{ClusterName, Leader, Standing};
use crate::cluster::Tenure;
use crate::etcd::{Etcd, EtcdError, EtcdOptions, Found, Step};

/// How often an entry is written anew.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);
/// An entry of another process that is no older than this is that of a living one.
const LIVES_FOR: Duration = Duration::from_secs(15);
/// The version of an entry. Another one is shown by its name alone.
const FORMAT: u32 = 1;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// How the rest is to be understood.
    format: u32,
    /// Where clients reach it.
    address: String,
    /// Which version of the program it is.
    version: String,
    /// The process; another one has another.
    process: String,
    /// The term that it leads, if it does.
    leads: Option<u64>,
    /// Since when it stands so, in seconds since 1970, by its own clock.
    since: u64,
    /// When this was written, by its own clock.
    written: u64,
}

/// A member of a cluster, as it has said itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberEntry {
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// Which version of the program it is.
    pub version: String,
    /// Whether it leads, by the seat.
    pub leads: bool,
    /// Since when it stands so.
    pub since: SystemTime,
    /// When it was last heard of, by its own clock.
    pub heard: SystemTime,
}

/// Who takes part in a cluster, and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Roll {
    /// Who leads, by the seat. It may have died since.
    pub leader: Option<Leader>,
    /// Whether a standby has acknowledged all that was ever said.
    pub in_sync: bool,
    /// Those who have written an entry, by their names.
    pub members: Vec<MemberEntry>,
}

impl Roll {
    /// Asks etcd.
    ///
    /// # Errors
    ///
    /// If etcd does not answer, or refuses.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn read(cluster: &ClusterName, etcd: EtcdOptions) -> Result<Self, EtcdError> {
        let etcd = Etcd::new(etcd)?;
        let seat = etcd.read(&cluster.seat()).await?.found;
        let seat = seat.and_then(|found| decode(&found.value));
        let in_sync = seat.as_ref().is_some_and(|(seat, _)| seat.standby.is_some());
        let leader = seat.filter(|(seat, _)| seat.tenure == Tenure::Held).map(|(seat, author)| {
            Leader { term: seat.term, name: author.name, address: author.address }
        });
        let prefix = prefix(cluster);
        let entries = etcd.list(&prefix).await?.into_iter().map(|(key, Found { value, .. })| {
            let name = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            let leads = leader.as_ref().is_some_and(|leader| leader.name == name);
            shown(name, leads, serde_json::from_slice(&value).ok())
        });
        Ok(Self { members: entries.collect(), in_sync, leader })
    }
}

/// An entry for people; one that is not understood is shown by its name alone.
fn shown(name: String, leads: bool, entry: Option<Entry>) -> MemberEntry {
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let Some(entry) = entry.filter(|entry| entry.format == FORMAT) else {
        let (address, version) = (String::new(), String::new());
        return MemberEntry { name, address, version, leads, since: at(0), heard: at(0) };
    };
    let Entry { address, version, since, written, .. } = entry;
    MemberEntry { name, address, version, leads, since: at(since), heard: at(written) }
}

fn prefix(cluster: &ClusterName) -> String {
    format!("/coordinator/{cluster}/members/")
}

/// Writes the entry of one member.
pub(super) struct Registrar {
    /// The arbiter.
    etcd: Arc<Etcd>,
    /// The key of the entry.
    key: String,
    /// What it says.
    entry: Entry,
    /// Its name, for the log.
    name: String,
}

impl Registrar {
    pub(super) fn new(
        etcd: Arc<Etcd>,
        cluster: &ClusterName,
        author: &Author,
        process: u128,
    ) -> Self {
        let key = format!("{}{}", prefix(cluster), author.name);
        let entry = Entry {
            format: FORMAT,
            address: author.address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process: format!("{process:032x}"),
            leads: None,
            since: now(),
            written: 0,
        };
        Self { etcd, key, entry, name: author.name.clone() }
    }

    /// Writes now and then, and when it stands otherwise, until it is dropped.
    pub(super) async fn run(mut self, mut standing: watch::Receiver<Standing>) {
        self.warn_of_namesake().await;
        loop {
            let leads = match *standing.borrow_and_update() {
                Standing::Leads { term, .. } => Some(term),
                Standing::StandsBy { .. } => None,
            };
            let now = now();
            if leads != self.entry.leads {
                (self.entry.leads, self.entry.since) = (leads, now);
            }
            self.entry.written = now;
            let value = serde_json::to_vec(&self.entry).unwrap_or_default();
            // If it cannot be written, the election says so.
            let _ = self.etcd.put(&self.key, value).await;
            // Also when another leads: that is told at once, though nothing of it is written here.
            let _ = timeout(WRITTEN_EVERY, standing.changed()).await;
        }
    }

    /// What takes its entry off the roll.
    pub(super) fn farewell(&self) -> impl Future<Output = ()> + use<> {
        let (etcd, from) = (Arc::clone(&self.etcd), self.key.clone());
        async move {
            let end = format!("{from}\0");
            // Without an answer it stays, and gets old.
            let _ = etcd.transact(&[], vec![Step::Delete { from, end }]).await;
        }
    }

    /// Says so if a living process has the same name: then nobody can tell the two from each other.
    async fn warn_of_namesake(&self) {
        let Ok(reading) = self.etcd.read(&self.key).await else { return };
        let value = reading.found.map(|found| found.value).unwrap_or_default();
        let Ok(other) = serde_json::from_slice::<Entry>(&value) else { return };
        let age = now().abs_diff(other.written);
        if other.process != self.entry.process && age < LIVES_FOR.as_secs() {
            log::warn!(
                "cluster: {} (at {}) was here {age} s ago: is that another member of this name? \
                 --member-name gives this one a name of its own",
                self.name,
                other.address
            );
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_not_understood_is_shown_by_its_name() {
        let entry = Entry {
            format: FORMAT,
            address: "a:5625".to_owned(),
            version: "0.1.0".to_owned(),
            process: "7".to_owned(),
            leads: None,
            since: 5,
            written: 9,
        };
        let known = shown("a".to_owned(), true, Some(entry.clone()));
        assert_eq!((known.address.as_str(), known.leads), ("a:5625", true));
        assert_eq!(known.heard, UNIX_EPOCH + Duration::from_secs(9));
        for other in [None, Some(Entry { format: FORMAT + 1, ..entry })] {
            let unknown = shown("b".to_owned(), false, other);
            assert_eq!((unknown.name.as_str(), unknown.address.as_str()), ("b", ""));
        }
    }
}
