//! Who of several coordinators leads, carried out: a [`Member`] on a thread of its own, with etcd as its arbiter.
//!
//! The one idea: *whoever decides asks a clock and one number*. The thread renews the lease; [`Election::may_decide`]
//! compares the time with the end of that lease, and waits for nobody. So a thread that hangs ends a
//! leadership, and nothing has to notice that it hangs (rule H2).
//!
//! ```text
//!  whoever decides ──may_decide──▶ until ◀──── Driver (a thread, a runtime) ──swap, read──▶ etcd
//!                  ◀──Standing────────────────  Member decides
//! ```
//!
//! Invariants, as absences:
//! - No rule about leadership is here: all are in [`cluster`](crate::cluster).
//! - The mutex round the member is held over no wait.

mod driver;
mod pledge;
mod record;
mod roll;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::driver::{Askers, Driver, Ending, Order};
pub(crate) use self::pledge::{Pledge, Tenure};
pub use self::record::Author;
pub(crate) use self::record::{decode_kept, encode_kept};
use self::roll::Registrar;
pub use self::roll::{MemberEntry, NotLost, Roll};
use crate::clock::{BootClock, Clock, Until};
use crate::cluster::{Arbiter, Event, Kept, Mark, Member, RunId, Table, Timing, Version};
use crate::etcd::{Etcd, EtcdError, EtcdOptions};
use crate::types::Timestamp;

/// The name of a cluster has so many letters at most.
pub const CLUSTER_NAME_LEN_MAX: usize = 64;
/// A moment that nobody lives to see.
const FOR_EVER: Timestamp = Timestamp::from_micros(u64::MAX - 1);
/// Orders that wait at most.
const ORDERS_MAX: usize = 16;

/// The name of a cluster: the place of its keys in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterName(String);

/// Why a text is not the name of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name:?} is not the name of a cluster: 1 to {CLUSTER_NAME_LEN_MAX} small letters, digits and hyphens"
)]
pub struct ClusterNameError {
    /// The text.
    name: String,
}

impl ClusterName {
    /// Takes a text for the name of a cluster.
    ///
    /// # Errors
    ///
    /// If it is empty, too long, or has other letters than `a` to `z`, digits and hyphens.
    pub fn new(name: &str) -> Result<Self, ClusterNameError> {
        let is_letter = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
        let is_name = (1..=CLUSTER_NAME_LEN_MAX).contains(&name.len());
        if is_name && name.bytes().all(is_letter) {
            Ok(Self(name.to_owned()))
        } else {
            Err(ClusterNameError { name: name.to_owned() })
        }
    }

    /// The key that says who leads.
    fn seat(&self) -> String {
        format!("/coordinator/{}/seat", self.0)
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why an election could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElectionError {
    /// Etcd cannot be asked like this.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The system gives no random numbers.
    #[error("no random numbers for an election: {0}")]
    Randomness(getrandom::Error),
    /// The system gives no thread.
    #[error("no thread for an election: {0}")]
    Thread(#[from] io::Error),
}

/// Who takes part, and where.
#[derive(Clone, Debug)]
pub struct ElectionOptions {
    /// In which cluster.
    pub cluster: ClusterName,
    /// Who, and where clients reach it.
    pub author: Author,
    /// The arbiter.
    pub etcd: EtcdOptions,
    /// How long things take.
    pub timing: Timing,
    /// What the process before this one has kept, in the same data directory.
    pub kept: Option<Kept>,
    /// Where it listens for standbys that follow it, if it does.
    pub peers: Option<SocketAddr>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its leadership.
    pub term: u64,
    /// Its name.
    pub name: String,
    /// Where clients reach it.
    pub address: String,
    /// Where standbys follow it; empty: nowhere.
    pub peer: String,
}

/// How a member of a cluster stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does not lead.
    StandsBy {
        /// Who does, as far as is known.
        leader: Option<Leader>,
    },
    /// It leads. Each term begins with a table of its own.
    Leads {
        /// The term.
        term: u64,
        /// With which table.
        table: Table,
    },
}

/// The part that one coordinator takes in an election. Dropped, it ends as a process does that is killed.
#[derive(Debug)]
pub struct Election {
    /// How it stands.
    standing: watch::Receiver<Standing>,
    /// The member itself.
    pledge: Pledge,
    /// What the next process is to know.
    keeps: watch::Receiver<Kept>,
    /// Until when it may decide.
    until: Until,
    /// Until when the leader that it knows is not doubted.
    sure: Until,
    /// How often a leader that is alone was seen to have renewed its lease.
    beats: Arc<AtomicU64>,
    /// Until when the arbiter is not doubted.
    heard: Until,
    /// Until when whoever decides is not doubted.
    vital: Until,
    /// To the thread.
    orders: mpsc::Sender<Order>,
    /// The thread; none once it was waited for.
    thread: Option<JoinHandle<()>>,
}

impl Election {
    /// Takes part from now on.
    ///
    /// # Errors
    ///
    /// If etcd cannot be asked like this, or the system gives no thread.
    pub fn begin(options: ElectionOptions) -> Result<Self, ElectionError> {
        let mut process = [0; 16];
        getrandom::fill(&mut process).map_err(ElectionError::Randomness)?;
        let ElectionOptions { cluster, author, etcd, timing, kept, peers: _ } = options;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let etcd = {
            let _within = runtime.enter();
            Arc::new(Etcd::new(etcd)?)
        };
        let (orders, orders_out) = mpsc::channel(ORDERS_MAX);
        let (standing_in, standing) = watch::channel(Standing::StandsBy { leader: None });
        let [until, sure, heard, vital] = [(); 4].map(|()| Until::default());
        vital.move_to(FOR_EVER);
        let (process, beats) = (u128::from_le_bytes(process), Arc::default());
        let enrolled = standing.clone();
        let member = Member::new(Some(remembered(kept, process, &etcd)), process, timing);
        let (keeps_in, keeps) = watch::channel(member.keeps());
        let (in_sync_in, in_sync) = watch::channel(None);
        let pledge = Pledge::new(member);
        let registrar =
            Registrar::new(Arc::clone(&etcd), &cluster, &author, process, pledge.clone())
                .until(until.clone());
        let driver = Driver {
            pledge: pledge.clone(),
            in_sync: in_sync_in,
            keeps: keeps_in,
            vital: vital.clone(),
            etcd,
            key: cluster.seat().into(),
            author,
            timing,
            kept: Instant::now(),
            other: None,
            seen: None,
            standing: standing_in,
            until: until.clone(),
            sure: sure.clone(),
            beats: Arc::clone(&beats),
            heard: heard.clone(),
            version: Version(0),
            is_doubted: false,
            set_back: Mark { process, attempt: 0 },
            askers: Askers::default(),
            orders: orders_out,
        };
        // Neither a busy mailbox nor a write to disk may delay a beat.
        let thread = thread::Builder::new().name("election".to_owned()).spawn(move || {
            runtime.block_on(async {
                let farewell = registrar.farewell();
                let registering = tokio::spawn(registrar.run(enrolled, in_sync));
                let ending = driver.run().await;
                registering.abort();
                let _ = registering.await;
                if ending == Ending::InOrder {
                    farewell.await;
                }
            });
        })?;
        Ok(Self {
            standing,
            pledge,
            keeps,
            until,
            sure,
            beats,
            heard,
            vital,
            orders,
            thread: Some(thread),
        })
    }

    /// Whether it leads and may decide something now. To be asked each time, after what is decided on was read.
    pub fn may_decide(&self) -> bool {
        self.until.is_ahead()
    }

    /// The same, for whoever decides.
    pub(crate) fn until(&self) -> Until {
        self.until.clone()
    }

    /// The member, for whoever decides.
    pub(crate) fn pledge(&self) -> Pledge {
        self.pledge.clone()
    }

    /// Until when the arbiter is not doubted: it has answered within a lease.
    pub(crate) fn heard(&self) -> Until {
        self.heard.clone()
    }

    /// Until when the leader that it knows is not doubted: it has renewed its lease not long ago.
    pub(crate) fn sure(&self) -> Until {
        self.sure.clone()
    }

    /// How often a leader that is alone was seen to have renewed its lease.
    pub(crate) fn beats(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.beats)
    }

    /// Whoever decides has just turned, and is not doubted for so long. A leader that is there and decides nothing
    /// is worse than a dead one, so a lease of one that is doubted is not renewed. If this is never said, nobody
    /// is.
    pub fn turned(&self, good_for: Duration) {
        self.vital.move_to(BootClock.now().after(good_for));
    }

    /// The same, for who says so again and again.
    pub(crate) fn vital(&self) -> Until {
        self.vital.clone()
    }

    /// Something to have the arbiter asked with at once.
    pub(crate) fn inquirer(&self) -> Inquirer {
        Inquirer(self.orders.clone())
    }

    /// How it stands; changes wake whoever waits for them. The channel is closed when it takes part no more.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// What has to be kept for the next process in the same data directory, before anything is decided in the
    /// term that it tells of. It changes with the terms, and every few seconds, and not with every beat.
    pub fn keeps(&self) -> watch::Receiver<Kept> {
        self.keeps.clone()
    }

    /// An operator says that leader and standby of this version of the seat are lost.
    pub async fn lost(&self, version: Version) {
        let Some(arbiter) = self.pledge.arbiter() else { return };
        // If it has ended, nobody needs to hear it.
        let _ = self.orders.send(Order::Hear(Event::Lost { arbiter, version })).await;
    }

    /// Resigns, if it leads, and takes part no more. Nothing may be decided from here on. To be given up
    /// after a while: it waits for an answer of etcd.
    pub async fn resign(&self) {
        let _ = self.orders.send(Order::Hear(Event::Stop)).await;
        self.orders.closed().await;
    }
}

/// What a member begins with. Whoever has agreed with others on an etcd believes no other one that answers first.
fn remembered(kept: Option<Kept>, process: u128, etcd: &Etcd) -> Kept {
    let run = RunId(Mark { process, attempt: 0 });
    let kept = kept.unwrap_or(Kept { run, term: 0, version: Version(0), arbiter: None });
    let believed = etcd.believed().cluster().map(Arbiter);
    Kept { arbiter: kept.arbiter.or(believed), ..kept }
}

/// Has the arbiter asked.
#[derive(Clone, Debug)]
pub(crate) struct Inquirer(mpsc::Sender<Order>);

impl Inquirer {
    /// Waits for an answer of now: there may be another leader by now than the last one said.
    pub(crate) async fn look(&self) {
        let (asker, answer) = oneshot::channel();
        if self.0.send(Order::Look(asker)).await.is_ok() {
            // It may end meanwhile.
            let _ = answer.await;
        }
    }
}

impl Drop for Election {
    fn drop(&mut self) {
        // Full: then it is about to look at them, and ends when their sender is gone.
        let _ = self.orders.try_send(Order::End);
        drop(std::mem::replace(&mut self.orders, mpsc::channel(1).0));
        if let Some(thread) = self.thread.take() {
            // A panic there was told by its own hook.
            let _ = thread.join();
        }
    }
}
