//! A leader with a standby in sync, beside one coordinator alone, beside etcd's own locks on the three etcds that
//! say who leads: all on this machine, and one after the other in each round.
//!
//! All have a journal or a log: the coordinators as they come (`--journal process`), etcd with a sync of its disk.
//! Clients of etcd are spread over its three nodes, as its own library spreads them.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::compare::{in_short, machine};
use crate::etcd::{Etcd, EtcdLink};
use crate::figures::{CPU, Comparison, PER_SECOND};
use crate::load::{Error, Peer, Plan};
use crate::service::{self, Kind, Service, free_port, is_in_path};
use crate::tables::{Goal, figure, micros, table};
use crate::workloads::{closed_name, kept};
use crate::{Failure, Options};

/// Connections in the closed loop.
const CONNECTIONS: [usize; 3] = [1, 8, 64];
/// Those for which there are goals.
const MANY: usize = 64;
/// In sync, so much is to be left of the pairs alone.
const GOAL_ALONE: f64 = 0.6;
/// In sync, so many times etcd's pairs are to be made.
const GOAL_ETCD: f64 = 10.0;
/// How long a cluster may take to have a standby in sync.
const SYNC_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

const ALONE: &str = "alone";
const IN_SYNC: &str = "in-sync";
const ETCDS: &str = "etcd-3";

/// Three etcds and two coordinators. All end when it is dropped.
struct Cluster {
    /// The etcds.
    etcds: Vec<Child>,
    /// Where clients of those connect.
    etcd_addresses: Vec<String>,
    /// The coordinators, by their names.
    members: Vec<(String, Child)>,
    /// What they store and say.
    directory: TempDir,
}

/// Who leads.
struct Leader {
    /// The id of its process.
    pid: Option<u32>,
    /// Where it is.
    address: String,
}

impl Cluster {
    fn start(coordinator: &Path) -> Result<Self, Failure> {
        if !is_in_path("etcd") {
            return Err("etcd is not installed (Debian: apt-get install etcd-server)".into());
        }
        let directory = tempfile::tempdir()?;
        let (mut clients, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            clients.push(free_port()?);
            peers.push(free_port()?);
        }
        let url = |port: &u16| format!("http://127.0.0.1:{port}");
        let all = peers.iter().enumerate().map(|(n, port)| format!("e{n}={}", url(port)));
        let all = all.collect::<Vec<_>>().join(",");
        let mut etcds = Vec::new();
        for (n, (client, peer)) in clients.iter().zip(&peers).enumerate() {
            let name = format!("e{n}");
            let mut command = Command::new("etcd");
            command.args(["--name", &name, "--log-level", "error", "--initial-cluster", &all]);
            command.args(["--listen-client-urls", &url(client), "--listen-peer-urls", &url(peer)]);
            command.args(["--advertise-client-urls", &url(client)]);
            command.args(["--initial-advertise-peer-urls", &url(peer)]);
            command.arg("--data-dir").arg(directory.path().join(&name));
            etcds.push(spawn(command, directory.path(), &name)?);
        }
        let etcd_addresses = clients.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let endpoints = clients.iter().map(url).collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for name in ["c1", "c2"] {
            let mut command = Command::new(coordinator);
            command.args(["serve", "--cluster", "bench", "--etcd", &endpoints]);
            command.args(["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]);
            command.args(["--http-listen", "", "--member-name", name]);
            command.arg("--data-dir").arg(directory.path().join(name));
            members.push((name.to_owned(), spawn(command, directory.path(), name)?));
        }
        Ok(Self { etcds, etcd_addresses, members, directory })
    }

    /// Who leads, if a standby is in sync with it.
    async fn leader_in_sync(&self, coordinator: &Path) -> Option<Leader> {
        let endpoints: Vec<_> =
            self.etcd_addresses.iter().map(|it| format!("http://{it}")).collect();
        let mut command = Command::new(coordinator);
        command.args(["members", "--json", "--cluster", "bench", "--etcd", &endpoints.join(",")]);
        let told = command.stderr(Stdio::null()).output().await.ok()?;
        let told: Value = serde_json::from_slice(&told.stdout).ok()?;
        let (name, address) =
            (told["leader"]["name"].as_str()?, told["leader"]["address"].as_str()?);
        let (_, child) = self.members.iter().find(|(member, _)| member == name)?;
        (told["in_sync"] == true).then(|| Leader { pid: child.id(), address: address.to_owned() })
    }

    /// Waits until somebody leads, with a standby in sync.
    async fn ready(&mut self, coordinator: &Path) -> Result<Leader, Failure> {
        let give_up_at = Instant::now() + SYNC_TIMEOUT;
        loop {
            if let Some(leader) = self.leader_in_sync(coordinator).await {
                return Ok(leader);
            }
            for child in self.etcds.iter_mut().chain(self.members.iter_mut().map(|(_, it)| it)) {
                if child.try_wait()?.is_some() {
                    return Err(self.logs("one of the cluster has ended").into());
                }
            }
            if Instant::now() > give_up_at {
                return Err(self.logs("no standby is in sync").into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What is wrong, and what they say.
    fn logs(&self, what: &str) -> String {
        let names = ["c1", "c2", "e0", "e1", "e2"];
        let said = names.map(|name| {
            let log = self.directory.path().join(format!("{name}.log"));
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            format!("{name}: {}", last.into_iter().rev().collect::<Vec<_>>().join("\n    "))
        });
        format!("{what}; they say:\n{}", said.join("\n"))
    }
}

fn spawn(mut command: Command, directory: &Path, name: &str) -> Result<Child, Failure> {
    let log = std::fs::File::create(directory.join(format!("{name}.log")))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(service::without_settings(&mut command).kill_on_drop(true).spawn()?)
}

/// Several etcds, of which each connection has one.
#[derive(Clone)]
struct Etcds {
    /// Where they are.
    addresses: Vec<String>,
    /// What is measured.
    plan: Plan,
}

impl Peer for Etcds {
    type Link = EtcdLink;

    async fn connect(&self, number: usize) -> Result<EtcdLink, Error> {
        let address = self.addresses[number % self.addresses.len()].clone();
        Etcd { address, plan: self.plan.clone() }.connect(number).await
    }
}

/// Measures all three, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Value, Failure> {
    let coordinator = std::path::absolute(&options.coordinator)?;
    let kind = Kind::US;
    let alone = Service::start(kind, &coordinator, &["--http-listen", ""]).await?;
    let mut cluster = Cluster::start(&coordinator)?;
    let mut versions = Map::new();
    for kind in [kind, Kind::Etcd] {
        versions.extend(kind.version(&coordinator).map(|it| (kind.name().into(), it.into())));
    }
    let wanted = CONNECTIONS.map(|count| (closed_name(count), count));
    let wanted: Vec<_> = wanted.iter().filter(|(name, _)| options.wants_workload(name)).collect();
    let mut results = Vec::new();
    for round in 1..=options.rounds {
        for (name, connections) in wanted.iter().copied() {
            let mut plan = kept(*connections, options.duration(), options.warmup());
            plan.prefix = format!("bench-{name:_<13}");
            for peer in [ALONE, IN_SYNC, ETCDS] {
                let measured = match peer {
                    ALONE => alone.measure(&plan).await.map_err(Failure::from),
                    IN_SYNC => in_sync(&mut cluster, &coordinator, &plan).await,
                    _ => etcds(&cluster, &plan).await.map_err(Failure::from),
                };
                let measured = measured.map_err(|why| Error::Protocol(why.to_string()));
                eprintln!("round {round}  {name:<10} {peer:<8} {}", in_short(&measured));
                if let Ok(outcome) = measured {
                    results.push(json!({
                        "round": round, "workload": name, "peer": peer,
                        "outcome": outcome.to_json(),
                    }));
                }
            }
        }
    }
    Ok(json!({
        "machine": machine(), "versions": versions, "seconds": options.seconds, "results": results,
    }))
}

type Outcome = crate::load::Outcome;

/// Measures the leader. A standby has to be in sync before, and with the same leader after.
async fn in_sync(
    cluster: &mut Cluster,
    coordinator: &Path,
    plan: &Plan,
) -> Result<Outcome, Failure> {
    let Leader { pid, address } = cluster.ready(coordinator).await?;
    let peer = service::us(address.clone(), None, plan);
    let outcome =
        crate::load::measure(peer, plan.clone(), pid, std::future::pending(), |_| ()).await?;
    match cluster.leader_in_sync(coordinator).await {
        Some(leader) if leader.address == address => Ok(outcome),
        Some(_) => Err("another one leads".into()),
        None => Err("the standby was not in sync any more".into()),
    }
}

async fn etcds(cluster: &Cluster, plan: &Plan) -> Result<Outcome, Error> {
    let peer = Etcds { addresses: cluster.etcd_addresses.clone(), plan: plan.clone() };
    crate::load::measure(peer, plan.clone(), None, std::future::pending(), |_| ()).await
}

/// The table of docs/performance.md.
pub(crate) fn as_table(results: &Value) -> String {
    let all = Comparison(results);
    let rows = CONNECTIONS.map(|connections| {
        let name = closed_name(connections);
        let mut row = vec![connections.to_string()];
        for peer in [ALONE, IN_SYNC, ETCDS] {
            row.push(figure(all.median(&name, peer, PER_SECOND)));
        }
        for peer in [ALONE, IN_SYNC, ETCDS] {
            row.push(figure(micros(all.median(&name, peer, &["acquire_ns", "p99"]))));
        }
        row.extend([ALONE, IN_SYNC].map(|peer| figure(micros(all.median(&name, peer, CPU)))));
        row.extend([ALONE, ETCDS].map(|peer| figure(beside(all, connections, peer))));
        row
    });
    let heads = [
        "connections",
        "alone: pairs/s",
        "in sync",
        "three etcds",
        "alone: p99, µs",
        "in sync",
        "three etcds",
        "alone: CPU per pair, µs",
        "leader in sync",
        "in sync ÷ alone",
        "in sync ÷ etcd",
    ];
    table(&heads, &rows)
}

/// The pairs in sync, beside others'.
fn beside(all: Comparison, connections: usize, peer: &str) -> Option<f64> {
    let name = closed_name(connections);
    all.ratio((&name, IN_SYNC, PER_SECOND), (&name, peer, PER_SECOND))
}

/// Which goals were met.
pub(crate) fn goals(results: &Value) -> Vec<Goal> {
    let all = Comparison(results);
    let goal = |peer: &str, title: &str, goal| {
        let what = format!("{MANY} connections, pairs/s in sync ÷ {title}");
        Goal::at_least(what, beside(all, MANY, peer), goal)
    };
    vec![goal(ALONE, "alone", GOAL_ALONE), goal(ETCDS, "etcd's own locks", GOAL_ETCD)]
}
