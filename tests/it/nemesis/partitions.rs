//! Partitions: the links of a cluster are cut, or fall silent, and so does its etcd, while many clients work;
//! and what they saw is judged as that of the other runs is.
//!
//! ```text
//!   clients ──▶ coordinator ──▶ proxy ──▶ etcd, each of three
//!                    ▲
//!                    └── proxy ◀── standbys
//! ```
//!
//! `scripts/failovers N --network` makes N of them. `FAILOVERS`, `FAILOVERS_SEED` and `FAILOVERS_KIND` make a run
//! another.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::failovers::{Cluster, LEASE, MEMBERS, Witness, flags, leads, run};
use super::faults::Deeds;
use super::number;
use super::record::{Window, now_us};
use crate::cluster::etcd::Etcd;
use crate::cluster::serving::as_strs;
use crate::free_port::free_port;
use crate::proxy::{Proxy, Way};
use crate::random::Random;
use crate::support::{Home, Server};

/// How long what is away stays away: for longer than a leader decides without etcd, if it is alone.
const AWAY: Duration = Duration::from_secs(3);
/// What clients may notice of a fault that does not concern them, on a busy machine.
const UNNOTICED: Duration = Duration::from_millis(1_500);
/// A pause that no standby takes for a death.
const HICCUP: Duration = Duration::from_millis(200);

/// What is done, in this order.
const KINDS: [(&str, Fault, After); 9] = [
    ("etcd out of the leader's reach", etcd_is_out_of_reach, After::Unnoticed),
    ("answers of etcd to the leader lost", answers_of_etcd_are_lost, After::Unnoticed),
    ("two etcds of three stopped", etcd_stands_still, After::Unnoticed),
    ("leaders cut off from etcd and standbys", the_leader_is_cut_off, After::Another),
    ("connections of standbys cut", standbys_are_cut, After::Whoever),
    ("connections of standbys silent", standbys_hear_nothing, After::Whoever),
    ("leaders killed with etcd's leader", the_leader_dies_with_etcds, After::Another),
    ("leaders stopped for a moment", the_leader_hiccups, After::Whoever),
    ("all members killed", all_die, After::Whoever),
];

/// Does it to a leader, and says until when clients were without one.
type Fault = fn(&mut Cluster, &[Links], usize) -> u64;

/// Who leads afterwards.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The same, and nobody had to wait for it.
    Unnoticed,
    /// Another.
    Another,
    /// The same, or another.
    Whoever,
}

/// The links of a member.
struct Links {
    etcds: Vec<Proxy>,
    /// Those of standbys, to it.
    standbys: Proxy,
    /// Those of clients, to where it tells them that it is.
    _clients: Proxy,
}

impl Links {
    fn turn_to_etcd(&self, way: Way) {
        for etcd in &self.etcds {
            etcd.turn(way);
        }
    }

    /// All is as before; what has a gap has to begin anew.
    fn mend(&self) {
        for link in self.etcds.iter().chain([&self.standbys]) {
            link.turn(Way::Open);
            link.cut();
        }
    }
}

/// A coordinator behind proxies, what it is started with, and its links.
fn member(number: usize, etcds: &[Etcd]) -> ((Server, Vec<String>), Links) {
    let etcds = etcds.iter().map(|etcd| Proxy::to(etcd.url().trim_start_matches("http://")));
    let etcds: Vec<_> = etcds.collect();
    let urls: Vec<_> = etcds.iter().map(|proxy| format!("http://{}", proxy.address)).collect();
    // The same ports at another address, at which it is said to be.
    let said = |port: u16| format!("127.0.1.{}:{port}", number + 1);
    let [listen, peers] = [free_port(), free_port()];
    let at = |port: u16| format!("127.0.0.1:{port}");
    let links = Links {
        etcds,
        standbys: Proxy::at(&said(peers), &at(peers)),
        _clients: Proxy::at(&said(listen), &at(listen)),
    };
    let flags = flags(&urls, &["--advertise", &said(listen), "--peer-listen", &at(peers)]);
    let home = Home::new();
    let mut command = home.coordinator(&["serve", "--listen", &at(listen), "--port-file"]);
    command.arg(home.path("port")).args(as_strs(&flags));
    ((Server::start_by_command(home, command), flags), links)
}

fn etcd_is_out_of_reach(_: &mut Cluster, links: &[Links], leader: usize) -> u64 {
    links[leader].turn_to_etcd(Way::Dark);
    thread::sleep(AWAY);
    links[leader].mend();
    now_us()
}

fn answers_of_etcd_are_lost(_: &mut Cluster, links: &[Links], leader: usize) -> u64 {
    links[leader].turn_to_etcd(Way::DarkToClient);
    thread::sleep(AWAY);
    links[leader].mend();
    now_us()
}

fn etcd_stands_still(cluster: &mut Cluster, _: &[Links], _: usize) -> u64 {
    let signal = |signal| {
        for etcd in &cluster.etcds[..2] {
            etcd.signal(signal);
        }
    };
    signal(Signal::STOP);
    thread::sleep(AWAY);
    signal(Signal::CONT);
    now_us()
}

fn the_leader_is_cut_off(cluster: &mut Cluster, links: &[Links], leader: usize) -> u64 {
    links[leader].turn_to_etcd(Way::Dark);
    links[leader].standbys.turn(Way::Dark);
    cluster.leader(Some(leader));
    let until = now_us();
    thread::sleep(LEASE / 4);
    links[leader].mend();
    until
}

fn standbys_are_cut(_: &mut Cluster, links: &[Links], leader: usize) -> u64 {
    for _ in 0..3 {
        links[leader].standbys.cut();
        thread::sleep(LEASE / 4);
    }
    now_us()
}

fn standbys_hear_nothing(_: &mut Cluster, links: &[Links], leader: usize) -> u64 {
    links[leader].standbys.turn(Way::Dark);
    thread::sleep(AWAY);
    links[leader].mend();
    now_us()
}

fn the_leader_dies_with_etcds(cluster: &mut Cluster, _: &[Links], leader: usize) -> u64 {
    let etcd = cluster.etcds.iter().position(Etcd::leads).expect("an etcd leads");
    cluster.etcds[etcd].kill();
    cluster.end(leader, Signal::KILL);
    cluster.leader(None);
    let until = now_us();
    cluster.etcds[etcd].revive();
    cluster.begin(leader);
    until
}

fn the_leader_hiccups(cluster: &mut Cluster, _: &[Links], leader: usize) -> u64 {
    let process = &cluster.up(leader).expect("it leads").process;
    process.signal(Signal::STOP);
    thread::sleep(HICCUP);
    process.signal(Signal::CONT);
    now_us()
}

fn all_die(cluster: &mut Cluster, _: &[Links], _: usize) -> u64 {
    (0..MEMBERS).for_each(|at| cluster.end(at, Signal::KILL));
    (0..MEMBERS).for_each(|at| cluster.begin(at));
    cluster.leader(None);
    now_us()
}

/// Does one thing, and looks at who leads then.
fn strike(cluster: &mut Cluster, links: &[Links], number: u64, deeds: &mut Deeds) {
    cluster.synced();
    let leader = cluster.leader(None);
    let witness = Witness::of(&cluster.all, usize::try_from(number).unwrap());
    let (from, began) = (now_us(), Instant::now());
    let (name, fault, after) = KINDS[usize::try_from(number).unwrap() % KINDS.len()];
    let until = fault(cluster, links, leader);
    cluster.leader(None);
    let took = witness.took(began.elapsed());
    let stood_still = cluster.stalls.lock().unwrap().iter().any(|it| it.until > from);
    match after {
        // Then it may be as if more had happened than was done.
        _ if stood_still => println!("{name}: the machine stood still meanwhile"),
        After::Unnoticed => {
            assert!(cluster.up(leader).is_some_and(leads), "{name}: another leads");
            assert!(took[1..].iter().all(|it| *it < UNNOTICED), "{name}: clients waited {took:?}");
        }
        After::Another => assert_ne!(cluster.leader(None), leader, "{name}: the same leads"),
        After::Whoever => {}
    }
    if after != After::Unnoticed {
        let window = Window { from, until };
        deeds.away.push(window);
        deeds.crashes.push(window);
    }
    cluster.took.entry(name).or_default().push(took);
    *deeds.counts.entry(name).or_default() += 1;
}

#[test]
fn partitions_break_no_promise() {
    let (count, seed) = (number("FAILOVERS", KINDS.len() as u64), number("FAILOVERS_SEED", 1));
    let only = env::var("FAILOVERS_KIND").ok().map(|kind| kind.parse::<u64>().unwrap());
    let home = Home::new();
    let directory =
        env::var_os("FAILOVERS_DIRECTORY").map_or_else(|| home.path("partitions"), PathBuf::from);
    let began = Instant::now();
    let etcds = Etcd::start_three();
    let (servers, links): (Vec<_>, Vec<_>) = (0..MEMBERS).map(|at| member(at, &etcds)).unzip();
    let cluster = Cluster::of(etcds, servers, true);
    let strike = |cluster: &mut Cluster, number, _: &mut Random, deeds: &mut Deeds| {
        strike(cluster, &links, only.unwrap_or(number), deeds);
    };
    let (verdict, took) = run(&directory, cluster, (count, seed), strike);
    println!("\n{count} faults, seed {seed}, {} s\n{verdict}{took}", began.elapsed().as_secs());
    assert!(verdict.violations.is_empty(), "{} violations", verdict.violations.len());
}
