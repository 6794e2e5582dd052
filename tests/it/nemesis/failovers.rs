//! Fail-overs: the leaders of a cluster are killed, stopped and asked to stop, one after the other, while
//! many clients work; and what they saw is judged as that of the other runs is.
//!
//! `scripts/failovers N` makes N of them. `FAILOVERS` and `FAILOVERS_SEED` make a run another.

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
use crate::raw::{Raw, hello_for};
use crate::support::{Home, Server, Stopped, eventually};

/// How many there are in the normal run: one of each kind.
const FAILOVERS: u64 = 5;
/// Client processes.
const PROCESSES: u64 = 2;
/// Coordinators.
const MEMBERS: usize = 3;
/// The lease of leaders.
const LEASE: Duration = Duration::from_secs(1);
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
    /// From a fault to the next leader, by kind of fault.
    took: BTreeMap<&'static str, Vec<Duration>>,
}

impl Cluster {
    fn start() -> Self {
        let etcds = Etcd::start_three();
        let urls: Vec<String> = etcds.iter().map(Etcd::url).collect();
        let urls = urls.join(",");
        let flags = ["--cluster", "test", "--etcd", &urls, "--leader-lease", "1s"];
        let flags: Vec<String> =
            flags.into_iter().chain(["--http-listen", ""]).map(str::to_owned).collect();
        let mut cluster = Self { etcds, members: Vec::new(), flags, took: BTreeMap::new() };
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

    /// Does one kind of harm to the leader, and waits for the next.
    fn strike(&mut self, kind: u64, random: &mut Random, deeds: &mut Deeds) {
        let leader = self.leader(None);
        let (from, began) = (now_us(), Instant::now());
        let mut away_until = None;
        let name = match kind % 5 {
            0 => {
                self.end(leader, Signal::KILL);
                self.leader(None);
                "leaders killed"
            }
            1 => {
                self.end(leader, Signal::TERM);
                self.leader(None);
                "leaders asked to stop"
            }
            2 => {
                let signal = |to: &Self, signal| {
                    let server = to.up(leader).unwrap();
                    server.process.signal(signal);
                };
                signal(self, Signal::STOP);
                self.leader(Some(leader));
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
        let window = Window { from, until: away_until.unwrap_or_else(now_us) };
        self.took.entry(name).or_default().push(began.elapsed());
        *deeds.counts.entry(name).or_default() += 1;
        deeds.away.push(window);
        deeds.crashes.push(window);
        self.begin(leader);
    }
}

/// Whether it welcomes somebody.
fn leads(server: &Server) -> bool {
    let Ok(socket) = TcpStream::connect(&server.address) else { return false };
    let mut raw = Raw::over(socket);
    raw.say(&[hello_for(Attach::Observer, 0, None)]);
    matches!(raw.hear(), ServerMessage::Welcome { .. })
}

/// A table of how long they took.
fn table(took: &BTreeMap<&'static str, Vec<Duration>>) -> String {
    let rows = took.iter().map(|(name, took)| {
        let mut sorted = took.clone();
        sorted.sort_unstable();
        let at = |part: usize| sorted[(sorted.len() * part / 100).min(sorted.len() - 1)];
        format!(
            "  {name:<44} {:>4}, until the next leads: p50 {:.2?}, p99 {:.2?}\n",
            sorted.len(),
            at(50),
            at(99)
        )
    });
    rows.collect()
}

fn run(directory: &Path, count: u64, seed: u64) -> (judge::Verdict, String) {
    fs::create_dir_all(directory).unwrap();
    let mut cluster = Cluster::start();
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
    let (verdict, took) = run(&directory, count, seed);
    println!("\n{count} fail-overs, seed {seed}, {} s\n{verdict}{took}", began.elapsed().as_secs());
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
}
