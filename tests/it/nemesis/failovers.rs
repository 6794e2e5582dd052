//! Fail-overs: the leaders of a cluster are killed, stopped and asked to stop, one after the other, while
//! many clients work; and what they saw is judged as that of the other runs is.
//!
//! `scripts/failovers N` makes N of them. `FAILOVERS`, `FAILOVERS_SEED` and `FAILOVERS_ALONE` make a run another.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::wire::{Attach, ServerMessage};
use rustix::process::Signal;

use super::faults::{Deeds, Process};
use super::record::{Window, now_us};
use super::worker::Orders;
use super::{at_each_heartbeat, judge, number};
use crate::cluster::etcd::Etcd;
use crate::random::Random;
use crate::raw::{Raw, hello_for, request};
use crate::support::{Home, Server, Stopped, eventually, run as run_command};

/// How many there are in the normal run: one of each kind.
const FAILOVERS: u64 = 5;
/// Client processes.
const PROCESSES: u64 = 2;
/// Coordinators.
const MEMBERS: usize = 3;
/// The lease of leaders.
const LEASE: Duration = Duration::from_secs(1);
/// How long a leader may take to have a standby in sync.
const SYNC: Duration = Duration::from_secs(20);
/// How long clients work between two.
const CALM: Duration = Duration::from_millis(1_500);

/// A coordinator, or what is left of it.
enum Member {
    Up(Box<Server>),
    Down(Box<Stopped>),
}

/// Three etcds and three coordinators.
struct Cluster {
    etcds: Vec<Etcd>,
    members: Vec<Option<Member>>,
    flags: Vec<String>,
    /// Whether standbys follow.
    in_pairs: bool,
    /// From a fault to the next leader, and to the next grant of a free lock, by kind of fault.
    took: BTreeMap<&'static str, Vec<[Duration; 2]>>,
}

impl Cluster {
    fn start(in_pairs: bool) -> Self {
        let etcds = Etcd::start_three();
        let urls: Vec<String> = etcds.iter().map(Etcd::url).collect();
        let urls = urls.join(",");
        let flags = ["--cluster", "test", "--etcd", &urls, "--leader-lease", "1s"];
        let peers: &[&str] = if in_pairs { &["--peer-listen", "127.0.0.1:0"] } else { &[] };
        let flags = flags.iter().chain(&["--http-listen", ""]).chain(peers);
        let flags = flags.map(ToString::to_string).collect();
        let (members, took) = (Vec::new(), BTreeMap::new());
        let mut cluster = Self { etcds, members, flags, in_pairs, took };
        for _ in 0..MEMBERS {
            let server = Server::start_with(Home::new(), &cluster.flags());
            cluster.members.push(Some(Member::Up(Box::new(server))));
        }
        cluster
    }

    fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    fn up(&self, at: usize) -> Option<&Server> {
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
    fn leader(&self, but: Option<usize>) -> usize {
        eventually("somebody leads", || {
            (0..MEMBERS).find(|at| but != Some(*at) && self.up(*at).is_some_and(leads))
        })
    }

    /// Waits until the leader has a standby in sync, if it is to have one.
    fn synced(&self) {
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
    fn end(&mut self, at: usize, signal: Signal) {
        if let Some(Member::Up(server)) = self.members[at].take() {
            self.members[at] = Some(Member::Down(Box::new(server.end_by(signal))));
        }
    }

    /// Starts it again where it was.
    fn begin(&mut self, at: usize) {
        let member = self.members[at].take().map(|member| match member {
            Member::Down(stopped) => Member::Up(Box::new(stopped.restart_with(&self.flags()))),
            up @ Member::Up(_) => up,
        });
        self.members[at] = member;
    }

    /// How long until it grants what is free.
    fn granted(&self, at: usize, number: u64) -> Duration {
        self.up(at).map(|server| granted_by(server, number)).unwrap_or_default()
    }

    /// Does one kind of harm to the leader, and waits for the next.
    fn strike(&mut self, kind: u64, random: &mut Random, deeds: &mut Deeds) {
        self.synced();
        let leader = self.leader(None);
        let (from, began) = (now_us(), Instant::now());
        let (mut away_until, mut granted) = (None, None);
        let name = match kind % 5 {
            0 => {
                self.end(leader, Signal::KILL);
                self.leader(None);
                "leaders killed"
            }
            1 => {
                if let Some(server) = self.up(leader) {
                    server.process.signal(Signal::TERM);
                }
                let next = self.leader(Some(leader));
                granted = Some((began.elapsed(), self.granted(next, kind)));
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
                let next = self.leader(Some(leader));
                granted = Some((began.elapsed(), self.granted(next, kind)));
                away_until = Some(now_us());
                thread::sleep(LEASE / 4);
                signal(self, Signal::CONT);
                "leaders stopped for longer than a lease"
            }
            3 => {
                self.end(leader, Signal::KILL);
                self.begin(leader);
                self.leader(None);
                "leaders killed and started at once"
            }
            _ => {
                let etcd = random.below(self.etcds.len());
                self.etcds[etcd].kill();
                self.end(leader, Signal::KILL);
                self.leader(None);
                self.etcds[etcd].revive();
                "leaders killed with an etcd"
            }
        };
        let (led, next) = granted.unwrap_or_else(|| {
            let led = began.elapsed();
            (led, self.granted(self.leader(None), kind))
        });
        let window = Window { from, until: away_until.unwrap_or_else(now_us) };
        self.took.entry(name).or_default().push([led, led + next]);
        *deeds.counts.entry(name).or_default() += 1;
        deeds.away.push(window);
        deeds.crashes.push(window);
        self.begin(leader);
    }
}

/// How long it took a leader to grant what is free to somebody new.
fn granted_by(server: &Server, number: u64) -> Duration {
    let began = Instant::now();
    let mut raw = Raw::connect(server);
    raw.say(&[hello_for(Attach::New, 2_000, None), request(1, &format!("free {number}"))]);
    while !matches!(raw.hear(), ServerMessage::Grant { .. }) {}
    began.elapsed()
}

/// Whether it welcomes somebody.
fn leads(server: &Server) -> bool {
    let Ok(socket) = TcpStream::connect(&server.address) else { return false };
    let mut raw = Raw::over(socket);
    raw.say(&[hello_for(Attach::Observer, 0, None)]);
    matches!(raw.hear(), ServerMessage::Welcome { .. })
}

/// A table of how long they took.
fn table(took: &BTreeMap<&'static str, Vec<[Duration; 2]>>) -> String {
    let rows = took.iter().map(|(name, took)| {
        let at = |which: usize, part: usize| {
            let mut sorted: Vec<_> = took.iter().map(|both| both[which]).collect();
            sorted.sort_unstable();
            sorted[(sorted.len() * part / 100).min(sorted.len() - 1)]
        };
        format!(
            "  {name:<44} {:>4}, until the next leads: p50 {:.2?}, p99 {:.2?}; until it grants: p50 {:.2?}, p99 {:.2?}\n",
            took.len(),
            at(0, 50),
            at(0, 99),
            at(1, 50),
            at(1, 99)
        )
    });
    rows.collect()
}

fn run(directory: &Path, (count, seed): (u64, u64), in_pairs: bool) -> (judge::Verdict, String) {
    fs::create_dir_all(directory).unwrap();
    let mut cluster = Cluster::start(in_pairs);
    cluster.leader(None);
    let (stalls, over) = (Arc::<Mutex<Vec<Window>>>::default(), Arc::<AtomicBool>::default());
    let kept = Arc::clone(&stalls);
    at_each_heartbeat(Arc::clone(&over), move |beat| {
        if beat.is_stall() {
            kept.lock().unwrap().push(beat);
        }
    });
    let (mut random, mut deeds) = (Random::new(seed), Deeds::default());
    let addresses = cluster.addresses();
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
    for kind in 0..count {
        thread::sleep(CALM);
        cluster.strike(kind, &mut random, &mut deeds);
    }
    thread::sleep(CALM);
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
    let (verdict, took) = run(&directory, (count, seed), in_pairs);
    println!("\n{count} fail-overs, seed {seed}, {} s\n{verdict}{took}", began.elapsed().as_secs());
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
}
