//! The roll: who takes part in a cluster. Each writes an entry of its own into etcd now and then.
//!
//! It is for people. Nothing is decided by it: an entry may be old, or another's.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pledge::Pledge;
use super::record::{Author, decode, text};
use super::{ClusterName, Leader, Standing};
use crate::clock::Until;
use crate::cluster::{Arbiter, Event, RunId, Seat, Tenure, Version};
use crate::etcd::{Etcd, EtcdError, EtcdOptions, Found, Replaced, Step};

/// How often an entry is written anew.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);
/// Whoever lives has written its entry within this.
const WRITTEN_WITHIN: Duration = Duration::from_secs(7);
/// A member whose entry is older than this may have died.
const SILENT_AFTER: Duration = Duration::from_secs(8);
/// An entry of another process that is no older than this is that of a living one.
const LIVES_FOR: Duration = Duration::from_secs(15);
/// Of so many others that have its name or its address the log is told.
const DOUBLES_TOLD_MAX: usize = 16;

/// What another process has, too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Double {
    Name,
    Address,
}
/// How often it is looked whether somebody leads.
const LOOK_EVERY: Duration = Duration::from_millis(200);
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
    /// The life of its table.
    #[serde(default)]
    run: String,
    /// Who follows it, and how many positions each has yet to acknowledge.
    #[serde(default)]
    followers: Vec<(String, u64)>,
    /// Whether it has heard more than etcd knows, and so leads nothing.
    #[serde(default)]
    knows_more: bool,
    /// Where another process says that it is, which has the same name.
    #[serde(default)]
    namesake: Option<String>,
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
    /// Whether it is in sync, by the seat: it has all that the leader has said.
    pub in_sync: bool,
    /// How many positions of the leader's stream it has yet to acknowledge, as the leader said last; none: it
    /// does not follow.
    pub behind: Option<u64>,
    /// Since when it stands so.
    pub since: SystemTime,
    /// When it was last heard of, by its own clock.
    pub heard: SystemTime,
    /// Whether it has heard more than etcd knows: that was restored from a backup, or lost what it had.
    pub knows_more: bool,
    /// Where another process is that has the same name: only one of the two is shown.
    pub namesake: Option<String>,
}

impl MemberEntry {
    /// Whether it has not been heard of for so long, at `now`, that it may have died.
    pub fn is_silent(&self, now: SystemTime) -> bool {
        now.duration_since(self.heard).is_ok_and(|age| age > SILENT_AFTER)
    }
}

/// Why leader and standby cannot be declared lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLost {
    /// Etcd does not answer, or refuses.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// Another has led since.
    #[error("the term of now is {term}, and not the one that was named")]
    OtherTerm {
        /// The term of now.
        term: u64,
    },
    /// Nobody is in sync, and somebody leads or has taken the lead meanwhile: any member does when the lease of the last
    /// leader has ended.
    #[error("no standby is in sync with the last leader, so others take the lead by themselves")]
    NotInSync,
    /// One of them lives, and leads by what it knows: with a standby in sync it needs no etcd for that.
    #[error(
        "{name} (at {address}) leads, in term {term}: nothing is lost. Stop it first, or start the etcd that knows of it"
    )]
    Leads {
        /// Its name.
        name: String,
        /// Where clients reach it.
        address: String,
        /// The term that it leads.
        term: u64,
    },
    /// Nobody has ever led.
    #[error("nobody has led this cluster yet")]
    NeverLed,
    /// The seat is none.
    #[error("the seat was written by no coordinator of this version, and cannot be read")]
    Unreadable,
}

/// Who takes part in a cluster, and who leads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Roll {
    /// Who leads, by the seat. It may have died since.
    pub leader: Option<Leader>,
    /// The term of the seat, whether or not somebody leads.
    pub term: Option<u64>,
    /// Whether the seat was written by a coordinator of this version, if there is one.
    pub is_readable: bool,
    /// Whether members that live have heard more than etcd knows, and nobody leads: an operator decides.
    pub is_forgetful: bool,
    /// Whether a standby has acknowledged all that was ever said.
    pub in_sync: bool,
    /// The term of the seat, if it was proved that etcd was set back: an operator decides.
    pub set_back: Option<u64>,
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
        let found = etcd.read(&cluster.seat()).await?.found;
        let seat = found.as_ref().and_then(|found| decode(&found.value));
        let is_readable = found.is_none() || seat.is_some();
        let standby = seat.as_ref().and_then(|(seat, _)| seat.standby).map(|run| text(run.0));
        let is_set_back = |(seat, _): &&(Seat, Author)| seat.tenure == Tenure::SetBack;
        let set_back = seat.as_ref().filter(is_set_back).map(|(seat, _)| seat.term);
        let term = seat.as_ref().map(|(seat, _)| seat.term);
        let leader = seat.filter(|(seat, _)| seat.tenure == Tenure::Held).map(|(seat, author)| {
            let Author { name, address, peer } = author;
            Leader { term: seat.term, name, address, peer }
        });
        let prefix = prefix(cluster);
        let entries = etcd.list(&prefix).await?.into_iter().map(|(key, Found { value, .. })| {
            let name = key.strip_prefix(&prefix).unwrap_or_default().to_owned();
            (name, serde_json::from_slice::<Entry>(&value).ok())
        });
        let entries: Vec<_> = entries.collect();
        let all = entries.iter().filter_map(|(_, entry)| entry.as_ref());
        let is_forgetful = is_forgetful(all, now());
        let leader = leader.filter(|_| !is_forgetful);
        let is_leader = |name: &str| leader.as_ref().is_some_and(|leader| leader.name == name);
        let of_leader = entries.iter().find(|(name, _)| is_leader(name));
        let followers = of_leader.and_then(|(_, entry)| Some(entry.as_ref()?.followers.clone()));
        let followers = followers.unwrap_or_default();
        let members = entries.into_iter().map(|(name, entry)| {
            let run = entry.as_ref().map(|entry| entry.run.clone());
            let behind = followers.iter().find(|(it, _)| Some(it) == run.as_ref());
            let (leads, in_sync) = (is_leader(&name), run.is_some() && run == standby);
            let member = shown(name, leads, entry);
            MemberEntry { in_sync, behind: behind.map(|(_, behind)| *behind), ..member }
        });
        let (members, in_sync) = (members.collect(), standby.is_some() && !is_forgetful);
        Ok(Self { leader, term, is_readable, is_forgetful, in_sync, set_back, members })
    }

    /// Where clients find who was handed the lead, or has it by now; none: the leader has resigned, or nobody
    /// knows who that is.
    pub(crate) async fn successor(
        cluster: &ClusterName,
        etcd: &Etcd,
    ) -> Result<Option<String>, EtcdError> {
        let seat = etcd.read(&cluster.seat()).await?.found;
        let seat = seat.and_then(|found| decode(&found.value));
        let Some((seat, _)) = seat.filter(|(seat, _)| seat.tenure == Tenure::Held) else {
            return Ok(None);
        };
        let run = text(seat.leader.0);
        let entries = etcd.list(&prefix(cluster)).await?;
        let mut entries = entries
            .iter()
            .filter_map(|(_, found)| serde_json::from_slice::<Entry>(&found.value).ok());
        Ok(entries.find(|entry| entry.run == run).map(|entry| entry.address))
    }

    /// Declares leader and standby of a term lost for good, or all that etcd has forgotten since it was set back. Then
    /// another member takes the lead, with a grace period: places in queues are lost, and if one of the two lives after
    /// all, so is what it still says.
    ///
    /// Whoever leads says so in its entry meanwhile, whatever the seat says, and then nothing is lost. The lease of a leader
    /// is waited for, too: etcd may have been set back to before it led. If nobody leads then, members may have heard more than etcd knows,
    /// and that is declared lost.
    ///
    /// # Errors
    ///
    /// If that is not the term of now, or needs no such word; or etcd does not answer.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn declare_lost(
        cluster: &ClusterName,
        etcd: EtcdOptions,
        term: u64,
    ) -> Result<(), NotLost> {
        let etcd = Etcd::new(etcd)?;
        etcd.agree().await?;
        let found = etcd.read(&cluster.seat()).await?.found.ok_or(NotLost::NeverLed)?;
        let (seat, _) = decode(&found.value).ok_or(NotLost::Unreadable)?;
        if seat.term != term {
            return Err(NotLost::OtherTerm { term: seat.term });
        }
        let before = etcd.list(&prefix(cluster)).await?;
        let began = Instant::now();
        let until = began + seat.others_wait() + seat.lease;
        if seat.standby.is_none() && seat.tenure != Tenure::SetBack {
            while Instant::now() < until {
                sleep(LOOK_EVERY).await;
                // One answer that does not come says nothing.
                let now = match etcd.read(&cluster.seat()).await {
                    Err(EtcdError::Unavailable(_)) => continue,
                    now => now?.found,
                };
                if now.is_none_or(|now| now.revision != found.revision) {
                    return Err(NotLost::NotInSync);
                }
            }
        }
        // Whoever leads says so soon. A leader alone that etcd has forgotten, and that nobody sees here, decides for its
        // lease at most. Of a pair in sync that is lost, none is left to wait for.
        let until = if seat.standby.is_none() { until } else { began };
        for looked_at in [began + WRITTEN_WITHIN, until] {
            sleep_until(looked_at).await;
            let after = etcd.list(&prefix(cluster)).await?;
            if let Some((key, Entry { address, leads: Some(term), .. })) =
                leads(&before, after, term)
            {
                let name = key.strip_prefix(&prefix(cluster)).unwrap_or_default().to_owned();
                return Err(NotLost::Leads { name, address, term });
            }
        }
        etcd.put(&lost(cluster), found.revision.to_string().into_bytes()).await?;
        Ok(())
    }
}

/// An entry that was written between two looks by somebody who leads, in `term` or a later one.
fn leads(
    before: &[(String, Found)],
    after: Vec<(String, Found)>,
    term: u64,
) -> Option<(String, Entry)> {
    let is_old = |key: &str, now: &Found| {
        before.iter().any(|(it, found)| it == key && found.revision == now.revision)
    };
    let written = after.into_iter().filter(|(key, found)| !is_old(key, found));
    let read = |(key, found): (String, Found)| {
        serde_json::from_slice::<Entry>(&found.value).ok().map(|entry| (key, entry))
    };
    let mut leading = written.filter_map(read);
    leading.find(|(_, entry)| entry.leads.is_some_and(|leads| leads >= term))
}

/// Whether members that live have heard more than etcd knows, and none of them leads.
fn is_forgetful<'a>(entries: impl Iterator<Item = &'a Entry>, now: u64) -> bool {
    let mut knows_more = false;
    for entry in entries.filter(|it| now.saturating_sub(it.written) <= SILENT_AFTER.as_secs()) {
        // A pair in sync leads whatever etcd says.
        if entry.leads.is_some() {
            return false;
        }
        knows_more |= entry.knows_more;
    }
    knows_more
}

/// The key that says of which version of the seat leader and standby are lost.
fn lost(cluster: &ClusterName) -> String {
    format!("/coordinator/{cluster}/lost")
}

/// An entry for people; one that is not understood is shown by its name alone.
fn shown(name: String, leads: bool, entry: Option<Entry>) -> MemberEntry {
    let at = |secs| UNIX_EPOCH + Duration::from_secs(secs);
    let Some(entry) = entry.filter(|entry| entry.format == FORMAT) else {
        let (address, version) = (String::new(), String::new());
        return MemberEntry { since: at(0), heard: at(0), ..nobody(name, address, version, leads) };
    };
    let Entry { address, version, since, written, knows_more, namesake, .. } = entry;
    let (since, heard) = (at(since), at(written));
    let nobody = nobody(name, address, version, leads);
    MemberEntry { since, heard, knows_more, namesake, ..nobody }
}

fn nobody(name: String, address: String, version: String, leads: bool) -> MemberEntry {
    let (in_sync, behind) = (false, None);
    let (since, heard) = (UNIX_EPOCH, UNIX_EPOCH);
    let (knows_more, namesake) = (false, None);
    MemberEntry {
        name,
        address,
        version,
        leads,
        in_sync,
        behind,
        since,
        heard,
        knows_more,
        namesake,
    }
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
    /// What the keys of all entries begin with.
    members: String,
    /// The key of what an operator says is lost.
    lost: String,
    /// The member itself.
    pledge: Pledge,
    /// Where and when the entry was put last: the cluster of etcds, and the revision.
    own: Option<(u64, u64)>,
    /// When another process of the same name was seen last.
    namesake_seen: Option<Instant>,
    /// When each process had written its entry, as of the last look.
    written: HashMap<String, u64>,
    /// The processes of which the log was told that they have its name, or its address.
    told: HashSet<(Double, String)>,
    /// Until when it may decide, if it leads.
    until: Until,
}

impl Registrar {
    pub(super) fn new(
        etcd: Arc<Etcd>,
        cluster: &ClusterName,
        author: &Author,
        process: u128,
        pledge: Pledge,
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
            run: String::new(),
            followers: Vec::new(),
            knows_more: false,
            namesake: None,
        };
        let (name, members, lost) = (author.name.clone(), prefix(cluster), lost(cluster));
        Self {
            etcd,
            key,
            entry,
            name,
            members,
            lost,
            pledge,
            own: None,
            namesake_seen: None,
            written: HashMap::new(),
            told: HashSet::new(),
            until: Until::default(),
        }
    }

    /// The same of one that may decide until then, if it leads.
    pub(super) fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }

    /// Writes now and then, and when it stands otherwise, until it is dropped.
    pub(super) async fn run(
        mut self,
        mut standing: watch::Receiver<Standing>,
        mut in_sync: watch::Receiver<Option<RunId>>,
    ) {
        loop {
            // Whoever may decide nothing leads by name only.
            let leads = match *standing.borrow_and_update() {
                Standing::Leads { term, .. } if self.until.is_ahead() => Some(term),
                Standing::Leads { .. } | Standing::StandsBy { .. } => None,
            };
            let standby = *in_sync.borrow_and_update();
            let now = now();
            if leads != self.entry.leads {
                (self.entry.leads, self.entry.since) = (leads, now);
            }
            self.entry.written = now;
            self.entry.run = text(self.pledge.run().0);
            let followers = self.pledge.followers().into_iter();
            self.entry.followers = followers.map(|(run, behind)| (text(run.0), behind)).collect();
            self.entry.knows_more = self.pledge.doubts_arbiter();
            let value = serde_json::to_vec(&self.entry).unwrap_or_default();
            // Also into another etcd that answers instead: an operator who looks there is to see who lives, and who leads.
            // If it cannot be written, the election says so.
            let replaced = self.etcd.replace_anybodys(&self.key, value).await.ok();
            let namesake = replaced.and_then(|it| self.namesake(it));
            self.name_standby(standby).await;
            // Also when another leads: that is told at once, though nothing of it is written here.
            let changed = async {
                tokio::select! {
                    _ = standing.changed() => {}
                    _ = in_sync.changed() => {}
                }
            };
            let _ = timeout(WRITTEN_EVERY, changed).await;
            self.hear_of_loss().await;
            self.look_for_doubles(namesake).await;
        }
    }

    /// Finds the name of the standby in sync, for people, once for each. Its entry may be some seconds late.
    async fn name_standby(&self, standby: Option<RunId>) {
        let Some(run) = standby.filter(|run| !self.pledge.has_name_of(*run)) else { return };
        let Ok(entries) = self.etcd.list(&self.members).await else { return };
        let sought = text(run.0);
        let is_its = |found: &Found| {
            serde_json::from_slice(&found.value).is_ok_and(|entry: Entry| entry.run == sought)
        };
        if let Some((key, _)) = entries.iter().find(|(_, found)| is_its(found)) {
            let name = key.strip_prefix(&self.members).unwrap_or_default();
            self.pledge.name(run, name.to_owned());
        }
    }

    /// Looks whether an operator says that leader and standby are lost. It counts for one version of the seat.
    async fn hear_of_loss(&self) {
        let Ok(reading) = self.etcd.read_anybodys(&self.lost).await else { return };
        let arbiter = Arbiter(reading.cluster);
        let value = reading.found.map(|found| found.value).unwrap_or_default();
        if let Some(version) = str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
            self.pledge.hear(&Event::Lost { arbiter, version: Version(version) });
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

    /// Another process that has written in the place of the own entry since that was written before. So each of two
    /// namesakes finds the other, though `members` shows only one, and one that was started again is not taken for two.
    fn namesake(&mut self, replaced: Replaced) -> Option<Entry> {
        let before = self.own.replace((replaced.cluster, replaced.revision));
        let (found, (cluster, revision)) = (replaced.found?, before?);
        let is_later = cluster == replaced.cluster && found.revision > revision;
        let entry: Entry = serde_json::from_slice(&found.value).ok().filter(|_| is_later)?;
        (entry.process != self.entry.process).then_some(entry)
    }

    /// Looks whether another process that lives has its name, or its address. Of another name, one lives that has
    /// written its entry anew between two looks.
    async fn look_for_doubles(&mut self, namesake: Option<Entry>) {
        if let Some(namesake) = namesake {
            self.namesake_seen = Some(Instant::now());
            self.entry.namesake = Some(namesake.address.clone());
            if self.is_news(Double::Name, &namesake.process) {
                log::error!(
                    "cluster: another process is a member of the name {}, too, at {}: coordinator members shows \
                     one of the two, and takes that for both. Give each its own --member-name",
                    self.name,
                    namesake.address
                );
            }
        }
        let Ok(entries) = self.etcd.list(&self.members).await else { return };
        let mut written = HashMap::new();
        for (key, found) in entries {
            let Ok(other) = serde_json::from_slice::<Entry>(&found.value) else { continue };
            let before = self.written.get(&other.process);
            let is_alive = before.is_some_and(|before| *before != other.written);
            if key != self.key
                && is_alive
                && other.address == self.entry.address
                && self.is_news(Double::Address, &other.process)
            {
                log::error!(
                    "cluster: another process, {}, says that it is at {}, too: clients and standbys find one of the \
                     two, and neither may follow the other. Give each its own --advertise",
                    key.strip_prefix(&self.members).unwrap_or_default(),
                    other.address
                );
            }
            written.insert(other.process, other.written);
        }
        self.written = written;
        if self.namesake_seen.is_some_and(|seen| seen.elapsed() > LIVES_FOR) {
            (self.namesake_seen, self.entry.namesake) = (None, None);
        }
    }

    /// Whether the log was not told of this one yet. Of many it is told of the first.
    fn is_news(&mut self, double: Double, process: &str) -> bool {
        self.told.len() < DOUBLES_TOLD_MAX && self.told.insert((double, process.to_owned()))
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
            run: String::new(),
            followers: Vec::new(),
            knows_more: false,
            namesake: None,
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
