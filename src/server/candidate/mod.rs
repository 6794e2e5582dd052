//! A coordinator of a cluster: it stands by until it leads, and again when it leads no more.
//!
//! ```text
//!             ┌──────────── the seat is another's ───────────────┐
//!             ▼                                                  │
//!   stands by ──the seat is ours──▶ begins ──the state is ours──▶ leads ──asked to stop──▶ saved, resigned
//!   (sends clients                 (reads and                    (a server
//!    to the leader)                 chains it)                    for one term)
//! ```
//!
//! Each term has a server of its own, with a table of its own. The port, the counters and the way from other
//! threads stay. A leader that is alone leaves no table: what it leaves is in etcd ([`state`]), and the
//! next one begins as after a crash, or, if it was asked to stop, with everything. Only the same member goes on
//! with its journal, if nobody has begun to lead since.
//!
//! Never here: a rule about leadership, which is `cluster`'s, or about locks.

mod beginning;
mod checkpoints;
mod contradiction;
mod feeding;
mod following;
mod guests;
mod halted;
mod leading;
mod memory;
mod place;
mod standby;
mod state;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

use self::contradiction::gives_way;
use self::following::Slot;
use self::leading::Peers;
use self::memory::{Memory, keep_on};
use self::place::{clock_of, directory, peers};
use self::standby::{Reception, Suspicion};
use self::state::{Chain, StateError};
use crate::clock::{BootClock, Clock, Until};
use crate::cluster::{Kept, Table};
use crate::election::{Author, Election, ElectionError, ElectionOptions, Roll, Standing};
use crate::etcd::{Etcd, EtcdError};
use crate::server::audit::Audit;
use crate::server::config::Config;
use crate::server::counters::Counters;
use crate::server::durable::StateKey;
use crate::server::error::ServerError;
use crate::server::gate::Outlets;
use crate::server::incumbent::Incumbent;
use crate::server::keeping::Keeping;
use crate::server::lease::Lease;
use crate::server::looker::{Looker, LooksLimits};
use crate::server::messages::Pulse;
use crate::server::net::listener;
use crate::server::phase::Phase;
use crate::server::replica::Feed;
use crate::server::role::{Role, Synced};
use crate::server::run::end::reached;
use crate::server::run::{Afterwards, Bound, Frame, ServerHandle, host, secure};
use crate::server::threshold::Threshold;

/// A pause after etcd did not do what it was asked.
const PAUSE: Duration = Duration::from_millis(100);
/// A Coordinator that has not turned within this part of a lease is doubted: its lease is not renewed.
const VITAL_PARTS: u32 = 4;
/// It is asked for a sign of life so many times within a lease.
const BEAT_PARTS: u32 = 16;
/// How long a resignation may take. Without one, the others wait for the lease.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(2);

/// How long clients of a leader that has resigned are kept to be told who follows it.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_millis(100);

/// A coordinator that takes part in a cluster. Clients can connect from now on; they are served, or sent to the
/// leader, while [`Candidate::run`] runs.
#[derive(Debug)]
pub struct Candidate {
    /// The operator's choices.
    config: Config,
    /// Who takes part, and where the arbiter is.
    options: ElectionOptions,
    /// The port, for whoever leads here or sends clients elsewhere.
    listener: Rc<TcpListener>,
    /// Where it listens.
    address: SocketAddr,
    /// The arbiter, for the state.
    etcd: Arc<Etcd>,
    /// This process, for the names of its transactions.
    process: u128,
    /// Counters of the shell, for all terms.
    counters: Arc<Counters>,
    /// What is asked of it.
    phase: watch::Sender<Phase>,
    /// The way to the Coordinator of now.
    incumbent: Incumbent,
    /// Where standbys connect to, if they may; until it runs.
    peers: RefCell<Option<TcpListener>>,
    /// Whether it is in sync, for whoever looks.
    synced: Synced,
    /// What it has of the table of whoever leads.
    slot: RefCell<Slot>,
    /// Held by whoever begins a copy in the directory: one at a time, and no journal of its own meanwhile.
    copying: Arc<Mutex<()>>,
    /// The leader that it follows and does not hear, if there is one.
    suspected: Rc<Cell<Option<Suspicion>>>,
    /// Where the journal is, and what is kept of the election; none: nowhere. No other process can use it.
    memory: Option<Arc<Memory>>,
}

/// What follows a term.
enum Then {
    /// It stands by.
    StandBy,
    /// It ends.
    End(Result<(), ServerError>),
}

impl Candidate {
    /// Opens the port. Nothing is asked of etcd yet. A port of 0 in the address for clients is the one that was
    /// taken.
    ///
    /// # Errors
    ///
    /// If the port cannot be used, or etcd cannot be asked like this.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or where tasks of one thread cannot be spawned.
    pub fn bind(config: &Config, mut options: ElectionOptions) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { listen: config.listen, source };
        let etcd = Etcd::new(options.etcd.clone()).map_err(ElectionError::from)?;
        let mut process = [0; 16];
        getrandom::fill(&mut process).map_err(ServerError::Randomness)?;
        let socket = listener::bind(config.listen).map_err(failed)?;
        let listener = listener::listen(socket).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let Author { name, address: told, peer: _ } = &mut options.author;
        for text in [name, told] {
            if let Some(host) = text.strip_suffix(":0") {
                *text = format!("{host}:{}", address.port());
            }
        }
        let keeping = config.journal.map(Keeping::of).unwrap_or_default();
        let counters = Counters::new(config.unread_bytes_max).keeping(Arc::new(keeping));
        let counters = Arc::new(counters);
        let mut config = config.clone();
        let process = u128::from_le_bytes(process);
        let memory = directory(&mut config, &mut options, process)?;
        if let Some(arbiter) = options.kept.and_then(|kept| kept.arbiter) {
            options.etcd.believed.move_to(arbiter.0);
        }
        let peers = peers(&mut options)?;
        let candidate = Self {
            memory: memory.map(Arc::new),
            peers: RefCell::new(peers),
            slot: RefCell::default(),
            copying: Arc::default(),
            suspected: Rc::default(),
            synced: Synced::default(),
            config,
            options,
            listener: Rc::new(listener),
            address,
            etcd: Arc::new(etcd),
            process,
            counters,
            phase: watch::Sender::new(Phase::Serving),
            incumbent: Incumbent::default(),
        };
        // Whoever asks one that stands by is asked by them, too.
        candidate.incumbent.rule(Arc::clone(&candidate.config.access));
        let nothing = (Until::default(), Until::default());
        candidate.counters.roles.stand(candidate.role(None), nothing, &candidate.synced);
        Ok(candidate)
    }

    /// Where it listens, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Something to stop it with, from anywhere.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle::new(&self.phase, &self.incumbent, &self.counters)
    }

    /// Something to ask it with how things are, from anywhere.
    pub fn looker(&self) -> Looker {
        Looker::new(
            self.incumbent.clone(),
            (Arc::clone(&self.counters), self.config.audit.clone()),
            self.phase.subscribe(),
            LooksLimits {
                connections: self.config.connections_max,
                sessions: self.config.limits.sessions_max,
            },
        )
    }

    /// Takes part until a handle says otherwise. Then, if it leads, everything is saved in etcd for the next
    /// leader, and it resigns.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotSaved`] if it was to save everything and could not; and what keeps a coordinator
    /// from starting at all.
    pub async fn run(self) -> Result<(), ServerError> {
        let mut phase = self.phase.subscribe();
        tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Draining) => return Ok(()),
            founded = self.found() => founded?,
        }
        let election = Election::begin(self.options.clone())?;
        let _keeping = self
            .memory
            .clone()
            .map(|memory| Task(spawn_local(keep_on(memory, election.keeps(), election.pledge()))));
        let _beating = Task(spawn_local(beat(
            self.incumbent.clone(),
            self.config.audit.clone(),
            election.vital(),
            self.options.timing.lease,
        )));
        let with = (secure(&self.config), &self.counters);
        let peers = Peers::at(self.peers.take(), election.pledge(), with);
        let ended = loop {
            let term = tokio::select! {
                biased;
                () = reached(&mut phase, Phase::Draining) => break Ok(()),
                term = self.stand_by(&election) => term?,
            };
            match self.lead(term, &election, &peers).await {
                Then::StandBy => {}
                Then::End(ended) => break ended,
            }
        };
        resign(&election).await;
        info!("stopped");
        ended
    }

    /// Sees to it that all are of one etcd, and that there is a state to lead with.
    async fn found(&self) -> Result<(), ServerError> {
        let key = StateKey::draw().map_err(ServerError::Randomness)?;
        let mut told = String::new();
        loop {
            let founded = async {
                let strangers = self.etcd.agree().await?;
                self.chain().found(key).await.map(|()| strangers)
            };
            let why = match founded.await {
                Ok(strangers) => {
                    for (endpoint, id) in strangers {
                        error!(
                            "cluster: {endpoint} is of another etcd than the others of --etcd (its cluster id is {id:x}): \
                             it is not asked"
                        );
                    }
                    return Ok(());
                }
                // Whoever has seen another one hears of this what an operator says (rule H4).
                Err(StateError::Etcd(EtcdError::Other { .. })) => return Ok(()),
                Err(why) => why.to_string(),
            };
            if why != told {
                warn!("cluster: waiting for etcd: {why}");
                told = why;
            }
            sleep(PAUSE).await;
        }
    }

    /// The key that proofs are made with, of the one that etcd has.
    fn key_of_proofs(&self, kept: StateKey) -> StateKey {
        kept.of_cluster(&self.options.cluster.to_string())
    }

    fn chain(&self) -> Chain {
        Chain::new(Arc::clone(&self.etcd), &self.options.cluster, self.process)
    }

    /// Sends clients to the leader, and follows it, until this one leads; its term, and the table to be.
    async fn stand_by(&self, election: &Election) -> Result<(u64, Table), ServerError> {
        let reception = Reception::of(self, election);
        let mut standing = election.standing();
        loop {
            let now = standing.borrow_and_update().clone();
            if let Standing::Leads { term, table } = now {
                return Ok((term, table));
            }
            let leader = match &now {
                Standing::StandsBy { leader } => leader.as_ref(),
                Standing::Leads { .. } => None,
            };
            self.stand(&now, election);
            if let Some(kept) = election.pledge().keeps_beside() {
                self.keep(&kept);
            }
            match &now {
                Standing::StandsBy { leader: Some(it) } => {
                    info!(term = it.term, address = it.address.as_str(); "cluster: {} leads", it.name);
                }
                _ => info!("cluster: standing by; nobody leads"),
            }
            tokio::select! {
                changed = standing.changed() => if changed.is_err() {
                    let ended = std::io::Error::other("the thread of the election has ended");
                    return Err(ServerError::Thread(ended));
                },
                () = reception.send_away(&self.listener, &now) => {}
                () = self.follow(leader, election) => {}
            }
        }
    }

    /// Leads for a term.
    async fn lead(&self, (term, table): (u64, Table), election: &Election, peers: &Peers) -> Then {
        let mut phase = self.phase.subscribe();
        let begun = tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Draining) => return Then::End(Ok(())),
            _ = leads_no_more(election, term) => return Then::StandBy,
            begun = self.begin((term, table), election.pledge().gap()) => begun,
        };
        let (mut begun, disk) = match begun {
            Ok(begun) => begun,
            Err(error) => return Then::End(Err(error)),
        };
        begun.key = self.key_of_proofs(begun.key);
        let key = begun.key.of_members(disk.arbiter);
        let mut config = self.config.clone();
        if let Some(rules) = self.incumbent.rules() {
            config.access = rules;
        }
        // Before anything is decided in this term.
        self.keep(&election.pledge().keeps());
        let outlets = Outlets::default();
        let host = match host(&config, &outlets) {
            Ok(host) => host,
            Err(error) => return Then::End(Err(error)),
        };
        let has_journal = begun.chronicle.is_some();
        let lease = Lease::from(election.until().of(term));
        let later = lease.later();
        let frame = Frame {
            counters: Arc::clone(&self.counters),
            phase: self.phase.clone(),
            incumbent: self.incumbent.clone(),
            lease: Some(lease),
            threshold: if has_journal {
                Threshold::at(Feed::new(election.pledge().tenure(term)))
            } else {
                Threshold::default()
            },
            afterwards: Afterwards::Everything,
        };
        let port = (Rc::clone(&self.listener), self.address);
        let host = (host, outlets);
        let clock = clock_of(&begun.before);
        let bound = Bound::assemble_begun(host, &config, disk, clock, begun, frame, port);
        let standing = election.standing().borrow().clone();
        self.stand(&standing, election);
        info!(term, epoch = bound.epoch().number(); "cluster: clients are served");
        let leads =
            self.incumbent.coordinator().map(|it| peers.lead(term, key, (it, self.synced.clone())));
        let (failed, epoch) = (Cell::new(None), bound.epoch());
        let over = async {
            tokio::select! {
                address = leads_no_more(election, term) => address,
                after = self.halts(election) => {
                    failed.set(Some(ServerError::Halted { after }));
                    self.abdicate(election).await;
                    String::new()
                }
                never = gives_way(election, (term, epoch), later) => match never {},
            }
        };
        let ended = bound.run_until(over, async || {
            resign(election).await;
            if let Some(leads) = &leads {
                leads.end();
            }
            self.successor().await
        });
        let ended = ended.await;
        drop(leads);
        self.incumbent.unseat();
        if *self.phase.borrow() > Phase::Serving {
            return Then::End(ended);
        }
        if let Some(error) = failed.take() {
            return Then::End(Err(error));
        }
        // What could not be saved is the next leader's matter.
        let _ = self.counters.saved();
        Then::StandBy
    }

    /// Where clients find who was handed the lead, or has it by now; none: nobody is known to.
    async fn successor(&self) -> Option<String> {
        let asked = Roll::successor(&self.options.cluster, &self.etcd);
        let leads = timeout(SUCCESSOR_TIMEOUT, asked).await.ok()?.ok()?;
        // What could not be resigned still names this one.
        leads.filter(|address| *address != self.options.author.address)
    }

    /// Keeps what the next process in the same directory is to know. Whether it does: who does not must
    /// acknowledge nothing.
    fn keep(&self, kept: &Kept) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.keep(kept))
    }

    /// Says to whoever looks how it stands.
    fn stand(&self, standing: &Standing, election: &Election) {
        let moments = (election.until(), election.heard());
        self.counters.roles.stand(self.role(Some(standing)), moments, &self.synced);
    }

    fn role(&self, standing: Option<&Standing>) -> Role {
        let ElectionOptions { cluster, author: Author { name, address, .. }, .. } = &self.options;
        let own = Role { cluster: cluster.to_string(), name: name.clone(), ..Role::default() };
        match standing {
            Some(Standing::Leads { term, .. }) => {
                let (leader, address) = (name.clone(), address.clone());
                Role { leads: true, term: *term, leader, address, ..own }
            }
            Some(Standing::StandsBy { leader: Some(it) }) => {
                let (leader, address) = (it.name.clone(), it.address.clone());
                Role { term: it.term, leader, address, ..own }
            }
            Some(Standing::StandsBy { leader: None }) | None => own,
        }
    }
}

/// Waits until it leads this term no more; the address of who does, if that is known.
async fn leads_no_more(election: &Election, term: u64) -> String {
    let mut standing = election.standing();
    let other = |now: &Standing| !matches!(now, Standing::Leads { term: of, .. } if *of == term);
    let now = match standing.wait_for(other).await {
        Ok(now) => now.clone(),
        // It has resigned, and whoever asked it to sees to the rest.
        Err(_) => return std::future::pending().await,
    };
    match now {
        Standing::StandsBy { leader: Some(leader) } => leader.address,
        Standing::StandsBy { leader: None } | Standing::Leads { .. } => String::new(),
    }
}

/// Ends a task with what it is for.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Shows the election again and again that the Coordinator turns, or, where there is none, that its thread does.
async fn beat(incumbent: Incumbent, audit: Audit, vital: Until, lease: Duration) {
    loop {
        if let Some(coordinator) = incumbent.coordinator() {
            // Behind all that is in its mailbox.
            let _ = coordinator.send(Pulse).await;
        }
        // One that stands by has nobody else who does.
        audit.tell_left_out();
        vital.move_to(BootClock.now().after(lease / VITAL_PARTS));
        sleep(lease / BEAT_PARTS).await;
    }
}

async fn resign(election: &Election) {
    if timeout(RESIGN_TIMEOUT, election.resign()).await.is_err() {
        warn!(
            "cluster: etcd does not answer: another leads once it does, a standby in sync at once, and else when the \
             lease of this one is over"
        );
    }
}
