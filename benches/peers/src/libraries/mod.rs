//! What a client library costs: ours beside the bare sockets of the load generator, and beside what others
//! lock with, `redis-rs` and `etcd-client`.
//!
//! Each library is a [`Peer`] like a protocol, so the same loop drives them on the same thread, and only what is
//! between the loop and the socket differs. Their calls for blocking code have a loop of their own (`blocking`).
//! The figure is the pairs in a second, and the CPU of this process: that of the server is in other tables.

mod blocking;
#[cfg(feature = "etcd-client")]
mod etcd_client;
mod ours;
mod redis_rs;

use serde_json::{Map, Value, json};

use crate::compare::machine;
use crate::figures::{Comparison, OWN_CPU, PER_SECOND};
use crate::load::{Locks, Plan, Rhythm};
use crate::service::{Kind, Service};
use crate::tables::{Goal, figure, micros, table};
use crate::workloads::{DEPTH, kept};
use crate::{Failure, Options};

/// So many ask at a time where many do.
const MANY: usize = 64;
/// Of the bare loop's pairs, so many are to be left.
const GOAL: f64 = 0.7;

/// Who asks, and over how many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One task.
    One,
    /// Many tasks over one connection.
    Tasks,
    /// Many tasks, each with a connection of its own.
    Clients,
    /// A thread that blocks.
    Blocking,
}

impl Shape {
    const ALL: [Self; 4] = [Self::One, Self::Tasks, Self::Clients, Self::Blocking];

    /// Its name among workloads.
    fn name(self) -> &'static str {
        match self {
            Self::One => "one-task",
            Self::Tasks => "tasks-64",
            Self::Clients => "clients-64",
            Self::Blocking => "blocking",
        }
    }

    /// Its name in the table.
    fn title(self) -> &'static str {
        match self {
            Self::One => "one task",
            Self::Tasks => "64 tasks, one connection",
            Self::Clients => "64 clients",
            Self::Blocking => "one thread, blocking",
        }
    }

    /// How many ask.
    fn askers(self) -> usize {
        match self {
            Self::One | Self::Blocking => 1,
            Self::Tasks | Self::Clients => MANY,
        }
    }
}

/// Who locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Library {
    /// The loop of `coordinator bench`: a connection for each who asks.
    Bare,
    /// Ours.
    Ours,
    /// `redis`, with `SET NX PX` and a script.
    Redis,
    /// `etcd-client`, with its Lock service.
    Etcd,
}

impl Library {
    const ALL: [Self; 4] = [Self::Bare, Self::Ours, Self::Redis, Self::Etcd];

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Ours => "client",
            Self::Redis => "redis-rs",
            Self::Etcd => "etcd-client",
        }
    }

    /// What it talks to.
    fn service(self) -> Kind {
        match self {
            Self::Bare | Self::Ours => Kind::US,
            Self::Redis => Kind::Redis,
            Self::Etcd => Kind::Etcd,
        }
    }

    /// Whether it can ask in this way at all.
    fn can(self, shape: Shape) -> bool {
        match self {
            Self::Ours | Self::Redis => true,
            Self::Bare | Self::Etcd => shape != Shape::Blocking,
        }
    }
}

/// Measures all of them, in rounds.
pub(crate) async fn run(options: &Options) -> Result<Value, Failure> {
    let (mut services, mut versions): (Vec<Service>, _) = (Vec::new(), Map::new());
    let mut libraries = Vec::new();
    for library in Library::ALL.into_iter().filter(|it| options.wants_peer(it.name())) {
        let kind = library.service();
        if library == Library::Etcd && !cfg!(feature = "etcd-client") {
            eprintln!(
                "LEFT OUT: etcd-client needs protoc (Debian: apt-get install protobuf-compiler)"
            );
            continue;
        }
        if !services.iter().any(|service| service.kind == kind) {
            match Service::start(kind, &options.coordinator, &[]).await {
                Ok(service) => services.push(service),
                Err(why) => {
                    eprintln!("LEFT OUT: {why}");
                    continue;
                }
            }
        }
        versions
            .extend(kind.version(&options.coordinator).map(|it| (kind.name().into(), it.into())));
        libraries.push(library);
    }
    let mut results = Vec::new();
    for round in 1..=options.rounds {
        for shape in Shape::ALL.into_iter().filter(|it| options.wants_workload(it.name())) {
            for library in libraries.iter().copied().filter(|it| it.can(shape)) {
                let service = services.iter().find(|it| it.kind == library.service());
                let Some(service) = service else { continue };
                let measured = measure(library, shape, service, options).await;
                note(round, shape.name(), library.name(), measured, &mut results);
            }
        }
        if options.wants_workload(BATCH) && libraries.contains(&Library::Bare) {
            let plan = Plan { rhythm: Rhythm::Batches(DEPTH), ..plan(1, options, BATCH) };
            let service = services.iter().find(|it| it.kind == Library::Bare.service());
            let Some(service) = service else { continue };
            let measured = service.measure(&plan).await.map(|it| it.to_json());
            note(round, BATCH, Library::Bare.name(), measured.map_err(Failure::from), &mut results);
        }
    }
    Ok(json!({
        "machine": machine(), "versions": versions, "seconds": options.seconds, "results": results,
    }))
}

/// The name of the workload of bare sockets with many pairs in one write, over one connection.
const BATCH: &str = "batch-64";

/// Keeps what was measured, and tells it.
fn note(
    round: u32,
    workload: &str,
    peer: &str,
    measured: Result<Value, Failure>,
    results: &mut Vec<Value>,
) {
    match measured {
        Ok(outcome) => {
            let of = |name: &str| outcome[name].as_f64().unwrap_or_default();
            let (pairs, cpu) = (of("pairs_per_second"), of("own_cpu_ns_per_pair") / 1e3);
            eprintln!(
                "round {round}  {workload:<11} {peer:<12} {pairs:>9.0} pairs/s {cpu:>8.2} µs CPU here"
            );
            results.push(json!({
                "round": round, "workload": workload, "peer": peer, "outcome": outcome,
            }));
        }
        Err(why) => eprintln!("round {round}  {workload:<11} {peer:<12} FAILED: {why}"),
    }
}

fn plan(askers: usize, options: &Options, name: &str) -> Plan {
    let prefix = format!("bench-{name:_<13}");
    Plan { prefix, locks: Locks::Own, ..kept(askers, options.duration(), options.warmup()) }
}

async fn measure(
    library: Library,
    shape: Shape,
    service: &Service,
    options: &Options,
) -> Result<Value, Failure> {
    let plan = plan(shape.askers(), options, shape.name());
    let shares = shape == Shape::Tasks;
    let address = service.address.clone();
    let outcome = match (library, shape) {
        (Library::Ours, Shape::Blocking) => return blocking::ours(address, plan).await,
        (Library::Redis, Shape::Blocking) => return blocking::redis(address, plan).await,
        (Library::Bare, _) => service.measure(&plan).await?,
        (Library::Ours, _) => {
            service.measure_as(ours::Ours::new(address, plan.clone(), shares), plan).await?
        }
        (Library::Redis, _) => {
            service.measure_as(redis_rs::RedisRs::new(address, plan.clone(), shares), plan).await?
        }
        #[cfg(feature = "etcd-client")]
        (Library::Etcd, _) => {
            let peer = etcd_client::EtcdClient::new(address, plan.clone(), shares);
            service.measure_as(peer, plan).await?
        }
        #[cfg(not(feature = "etcd-client"))]
        (Library::Etcd, _) => return Err("built without etcd-client".into()),
    };
    Ok(outcome.to_json())
}

/// The workload of the bare loop that a shape is compared with: with as many who ask.
fn bare_for(shape: Shape) -> &'static str {
    match shape {
        Shape::One | Shape::Blocking => Shape::One.name(),
        Shape::Tasks => Shape::Tasks.name(),
        Shape::Clients => Shape::Clients.name(),
    }
}

/// The table of docs/performance.md.
pub(crate) fn as_table(results: &Value) -> String {
    let all = Comparison(results);
    let rows = Shape::ALL.map(|shape| {
        let name = shape.name();
        let mut row = vec![shape.title().to_owned()];
        for library in Library::ALL {
            let workload = if library == Library::Bare { bare_for(shape) } else { name };
            row.push(figure(all.median(workload, library.name(), PER_SECOND)));
            row.push(figure(micros(all.median(workload, library.name(), OWN_CPU))));
        }
        row.push(figure(beside_bare(all, shape)));
        for other in [Library::Redis, Library::Etcd] {
            let us = (name, Library::Ours.name(), PER_SECOND);
            row.push(figure(all.ratio(us, (name, other.name(), PER_SECOND))));
        }
        row
    });
    let heads = [
        "who asks",
        "bare sockets",
        "CPU, µs",
        "`Client`",
        "CPU, µs",
        "redis-rs",
        "CPU, µs",
        "etcd-client",
        "CPU, µs",
        "`Client` ÷ bare",
        "÷ redis-rs",
        "÷ etcd-client",
    ];
    let batch = |path| all.median(BATCH, Library::Bare.name(), path);
    let (pairs, cpu) = (figure(batch(PER_SECOND)), figure(micros(batch(OWN_CPU))));
    table(&heads, &rows)
        + &format!(
            "\nBare sockets that have 64 pairs in one write, over one connection: {pairs} pairs a second, {cpu} µs.\n"
        )
}

fn beside_bare(all: Comparison, shape: Shape) -> Option<f64> {
    let us = (shape.name(), Library::Ours.name(), PER_SECOND);
    all.ratio(us, (bare_for(shape), Library::Bare.name(), PER_SECOND))
}

/// Which goals were met.
pub(crate) fn goals(results: &Value) -> Vec<Goal> {
    let all = Comparison(results);
    let goal = |shape: Shape| {
        Goal::at_least(format!("{}: `Client` ÷ bare", shape.title()), beside_bare(all, shape), GOAL)
    };
    Shape::ALL.map(goal).into()
}
