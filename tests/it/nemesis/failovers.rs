//! Fail-overs: the leaders of a cluster are killed, stopped and asked to stop, one after the other, while
//! many clients work; and what they saw is judged as that of the other runs is.
//!
//! `scripts/failovers N` makes N of them. `FAILOVERS`, `FAILOVERS_SEED`, `FAILOVERS_ALONE` and `FAILOVERS_KIND` make
//! a run another. [`super::partitions`] does to their network what this does to them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::blocking::Client;
use coordinator::wire::{Attach, ServerMessage};
use rustix::process::Signal;

use super::faults::{Deeds, Process};
use super::record::{Window, now_us};
use super::worker::Orders;
use super::{at_each_heartbeat, judge, number};
use crate::cluster::etcd::Etcd;
use crate::cluster::serving::as_strs;
use crate::random::Random;
use crate::raw::{Raw, hello_for};
use crate::support::{Home, Server, Stopped, eventually, lives, run as run_command, start};

/// How many there are in the normal run: one of each kind.
const FAILOVERS: u64 = KINDS;
/// Kinds of what is done to a leader, or to all members.
const KINDS: u64 = 6;
/// Client processes.
pub(super) const PROCESSES: u64 = 2;
/// Coordinators.
pub(super) const MEMBERS: usize = 3;
/// The lease of leaders.
pub(super) const LEASE: Duration = Duration::from_secs(1);
/// How long a leader may take to have a standby in sync.
const SYNC: Duration = Duration::from_secs(20);
/// The lease of a command that holds a lock all along: four times as long as the longest fail-over, as the documents say,
/// and on a busy machine.
const TTL: &str = "10s";
/// How long clients work between two.
const CALM: Duration = Duration::from_millis(1_500);

/// A coordinator, or what is left of it.
enum Member {
    Up(Box<Server>),
    Down(Box<Stopped>),
}

/// From a fault on: until another leads; and the longest that a client waited for a free lock that was connected, and
/// one that began.
pub(super) type Took = [Duration; 3];

/// Two clients that want a free lock again and again while something happens to the leader: one that is connected, and
/// one that begins each time.
pub(super) struct Witness {
    over: Arc<AtomicBool>,
    both: [thread::JoinHandle<Duration>; 2],
}

impl Witness {
    pub(super) fn of(addresses: &str, number: usize) -> Self {
        let over = Arc::<AtomicBool>::default();
        let connect = |addresses: &str| {
            // All may be down at once.
            let connect = || Client::builder().ttl(Duration::from_secs(2)).connect(addresses).ok();
            eventually("one is there", connect)
        };
        let longest = |name: String, client: Option<Client>| {
            let (over, addresses) = (Arc::clone(&over), addresses.to_owned());
            thread::spawn(move || {
                let mut longest = Duration::ZERO;
                while !over.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    let another = client.is_none().then(|| connect(&addresses));
                    let lock = client.as_ref().or(another.as_ref()).unwrap().lock(&name);
                    let guard = lock.acquire().unwrap();
                    longest = longest.max(began.elapsed());
                    drop((guard, another));
                }
                longest
            })
        };
        let connected = longest(format!("free {number}"), Some(connect(addresses)));
        let both = [connected, longest(format!("free for one who begins {number}"), None)];
        Self { over, both }
    }

    pub(super) fn took(self, led: Duration) -> Took {
        self.over.store(true, Ordering::SeqCst);
        let [connected, beginner] = self.both.map(|it| it.join().unwrap());
        [led, connected, beginner]
    }
}

/// Three etcds and three coordinators.
pub(super) struct Cluster {
    pub(super) etcds: Vec<Etcd>,
    members: Vec<Option<Member>>,
    /// What each is started with.
    flags: Vec<Vec<String>>,
    /// Where they are, whether up or down.
    pub(super) all: String,
    /// Whether standbys follow.
    in_pairs: bool,
    /// The kind of harm, if it is always the same.
    only: Option<u64>,
    /// When this machine stood still, as far as is known.
    pub(super) stalls: Arc<Mutex<Vec<Window>>>,
    /// From a fault to the next leader, and to grants of free locks, by kind of fault.
    pub(super) took: BTreeMap<&'static str, Vec<Took>>,
}

impl Cluster {
    fn start(in_pairs: bool) -> Self {
        let etcds = Etcd::start_three();
        let urls: Vec<String> = etcds.iter().map(Etcd::url).collect();
        let peers: &[&str] = if in_pairs { &["--peer-listen", "127.0.0.1:0"] } else { &[] };
        let servers = (0..MEMBERS).map(|_| {
            let flags = flags(&urls, peers);
            let server = Server::start_with(Home::new(), &as_strs(&flags));
            (server, flags)
        });
        let servers = servers.collect();
        Self::of(etcds, servers, in_pairs)
    }

    /// One of these coordinators, each with what it is started with.
    pub(super) fn of(
        etcds: Vec<Etcd>,
        servers: Vec<(Server, Vec<String>)>,
        in_pairs: bool,
    ) -> Self {
        let (servers, flags): (Vec<_>, Vec<_>) = servers.into_iter().unzip();
        let members = servers.into_iter().map(|it| Some(Member::Up(Box::new(it)))).collect();
        let (all, only, took, stalls) = (String::new(), None, BTreeMap::new(), Arc::default());
        let mut cluster = Self { etcds, members, flags, all, in_pairs, only, stalls, took };
        cluster.all = cluster.addresses();
        cluster
    }

    pub(super) fn up(&self, at: usize) -> Option<&Server> {
        match self.members[at].as_ref() {
            Some(Member::Up(server)) => Some(server),
            Some(Member::Down(_)) | None => None,
        }
    }

    /// Where all of them are.
    fn addresses(&self) -> String {
        let all: Vec<_> = (0..MEMBERS).filter_map(|at| self.up(at)).collect();
        all.iter().map(|server| server.address.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Waits until one leads, of all but those that stand still.
    pub(super) fn leader(&self, but: Option<usize>) -> usize {
        eventually("somebody leads", || {
            (0..MEMBERS).find(|at| but != Some(*at) && self.up(*at).is_some_and(leads))
        })
    }

    /// Waits until the leader has a standby in sync, if it is to have one.
    pub(super) fn synced(&self) {
        let began = Instant::now();
        let is_synced = || {
            let urls = self.etcds.iter().map(Etcd::url).collect::<Vec<_>>().join(",");
            let home = self.up(self.leader(None)).map(|leader| &leader.home);
            let words = ["members", "--json", "--cluster", "test", "--etcd", &urls];
            let told = run_command(home.unwrap().coordinator(&words)).out;
            let told: serde_json::Value = serde_json::from_str(&told).unwrap_or_default();
            told["in_sync"] == true
        };
        while self.in_pairs && !is_synced() {
            assert!(began.elapsed() < SYNC, "no standby is in sync");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends one by a signal.
    pub(super) fn end(&mut self, at: usize, signal: Signal) {
        if let Some(Member::Up(server)) = self.members[at].take() {
            self.members[at] = Some(Member::Down(Box::new(server.end_by(signal))));
        }
    }

    /// Starts it again where it was.
    pub(super) fn begin(&mut self, at: usize) {
        let flags = as_strs(&self.flags[at]);
        let member = self.members[at].take().map(|member| match member {
            Member::Down(stopped) => Member::Up(Box::new(stopped.restart_with(&flags))),
            up @ Member::Up(_) => up,
        });
        self.members[at] = member;
    }

    /// Starts all anew, one after the other: those who stand by first, and who leads last.
    fn roll(&mut self) {
        let leader = self.leader(None);
        for at in (0..MEMBERS).filter(|at| *at != leader).chain([leader]) {
            self.end(at, Signal::TERM);
            self.begin(at);
            self.synced();
        }
    }

    /// Does one kind of harm to the leader, and waits for the next.
    fn strike(&mut self, number: u64, random: &mut Random, deeds: &mut Deeds) {
        self.synced();
        let leader = self.leader(None);
        let witness = Witness::of(&self.all, deeds.away.len());
        let (from, mut away_until, mut led) = (now_us(), None, None);
        let kind = self.only.unwrap_or(number % KINDS);
        let began = Instant::now();
        let name = match kind {
            0 => {
                self.end(leader, Signal::KILL);
                "leaders killed"
            }
            1 => {
                if let Some(server) = self.up(leader) {
                    server.process.signal(Signal::TERM);
                }
                self.leader(Some(leader));
                led = Some(began.elapsed());
                // It may still wait for clients that take no Goodbye.
                if let Some(Member::Up(server)) = self.members[leader].take() {
                    self.members[leader] = Some(Member::Down(Box::new(server.wait_for_end())));
                }
                "leaders asked to stop"
            }
            2 => {
                let signal = |to: &Self, signal| {
                    let server = to.up(leader).unwrap();
                    server.process.signal(signal);
                };
                signal(self, Signal::STOP);
                self.leader(Some(leader));
                led = Some(began.elapsed());
                away_until = Some(now_us());
                thread::sleep(LEASE / 4);
                signal(self, Signal::CONT);
                "leaders stopped for longer than a lease"
            }
            3 => {
                self.end(leader, Signal::KILL);
                self.begin(leader);
                "leaders killed and started at once"
            }
            4 => {
                let etcd = random.below(self.etcds.len());
                self.etcds[etcd].kill();
                self.end(leader, Signal::KILL);
                self.leader(None);
                led = Some(began.elapsed());
                self.etcds[etcd].revive();
                "leaders killed with an etcd"
            }
            _ => {
                self.roll();
                "all started anew, one after the other"
            }
        };
        let led = led.unwrap_or_else(|| {
            self.leader(None);
            began.elapsed()
        });
        let window = Window { from, until: away_until.unwrap_or_else(now_us) };
        let took = witness.took(led);
        self.took.entry(name).or_default().push(took);
        *deeds.counts.entry(name).or_default() += 1;
        deeds.away.push(window);
        deeds.crashes.push(window);
        self.begin(leader);
    }
}

/// What a member is started with that finds etcd there, and these flags besides.
pub(super) fn flags(etcds: &[String], more: &[&str]) -> Vec<String> {
    let etcds = etcds.join(",");
    let flags =
        ["--cluster", "test", "--etcd", &etcds, "--leader-lease", "1s", "--http-listen", ""];
    flags.iter().chain(more).map(ToString::to_string).collect()
}

/// Whether it welcomes somebody.
pub(super) fn leads(server: &Server) -> bool {
    let Ok(socket) = TcpStream::connect(&server.address) else { return false };
    let mut raw = Raw::over(socket);
    raw.say(&[hello_for(Attach::Observer, 0, None)]);
    matches!(raw.hear(), ServerMessage::Welcome { .. })
}

/// A table of how long they took.
fn table(took: &BTreeMap<&'static str, Vec<Took>>) -> String {
    let rows = took.iter().map(|(name, took)| {
        let at = |which: usize| {
            let mut sorted: Vec<_> = took.iter().map(|all| all[which]).collect();
            sorted.sort_unstable();
            let [p50, p99] = [50, 99].map(|part| sorted[(sorted.len() * part / 100).min(sorted.len() - 1)]);
            format!("p50 {p50:.2?}, p99 {p99:.2?}")
        };
        format!(
            "  {name:<44} {:>4}, until the next leads: {}; longest wait of who was connected: {}; of who begins: {}\n",
            took.len(),
            at(0),
            at(1),
            at(2)
        )
    });
    rows.collect()
}

/// Has clients work while `strike` is called so often, beside a command that holds a lock all along; and judges what they
/// saw. And the table of what it took.
pub(super) fn run(
    directory: &Path,
    mut cluster: Cluster,
    (count, seed): (u64, u64),
    mut strike: impl FnMut(&mut Cluster, u64, &mut Random, &mut Deeds),
) -> (judge::Verdict, String) {
    fs::create_dir_all(directory).unwrap();
    cluster.leader(None);
    let (stalls, over) = (Arc::clone(&cluster.stalls), Arc::<AtomicBool>::default());
    let kept = Arc::clone(&stalls);
    at_each_heartbeat(Arc::clone(&over), move |beat| {
        if beat.is_stall() {
            kept.lock().unwrap().push(beat);
        }
    });
    let (mut random, mut deeds) = (Random::new(seed), Deeds::default());
    let addresses = cluster.all.clone();
    let mut processes: Vec<Process> = (0..PROCESSES)
        .map(|process| {
            let (server, proxy, seed) = (addresses.clone(), addresses.clone(), random.next());
            Process::begin(&Orders {
                process,
                directory: directory.to_owned(),
                server,
                proxy,
                seed,
            })
        })
        .collect();
    deeds.processes = PROCESSES;
    let home = Home::new();
    let words =
        ["lock", "all/along", "--ttl", TTL, "--server", &addresses, "--", "sleep", "100000"];
    let mut holder = Some(start(home.coordinator(&words)));
    for number in 0..=count {
        thread::sleep(CALM);
        if let Some(lost) = holder.take_if(|it| !lives(&it.id())) {
            panic!(
                "after {number} of them, coordinator lock has lost its lock: {}",
                lost.end().err
            );
        }
        if number < count {
            strike(&mut cluster, number, &mut random, &mut deeds);
        }
    }
    deeds.stuck = Process::end_all(&mut processes);
    over.store(true, Ordering::SeqCst);
    let stalls = stalls.lock().unwrap().clone();
    (judge::judge(directory, &deeds, &stalls), table(&cluster.took))
}

#[test]
fn fail_overs_break_no_promise() {
    let (count, seed) = (number("FAILOVERS", FAILOVERS), number("FAILOVERS_SEED", 1));
    let home = Home::new();
    let directory =
        env::var_os("FAILOVERS_DIRECTORY").map_or_else(|| home.path("failovers"), PathBuf::from);
    let began = Instant::now();
    let in_pairs = env::var_os("FAILOVERS_ALONE").is_none();
    let mut cluster = Cluster::start(in_pairs);
    cluster.only = env::var("FAILOVERS_KIND").ok().and_then(|kind| kind.parse().ok());
    let (verdict, took) = run(&directory, cluster, (count, seed), Cluster::strike);
    println!("\n{count} fail-overs, seed {seed}, {} s\n{verdict}{took}", began.elapsed().as_secs());
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
}
