//! All services side by side: in each round every workload of every service once, so that what the
//! machine does meanwhile falls on all of them alike.

use serde_json::{Map, Value, json};

use crate::load::{Error, Outcome};
use crate::service::{Kind, Service};
use crate::{Failure, Options, workloads};

/// Measures these services, and gives the raw results.
pub(crate) async fn run(kinds: &[Kind], options: &Options) -> Result<Value, Failure> {
    let (mut services, mut versions) = (Vec::new(), Map::new());
    for kind in kinds.iter().copied().filter(|kind| options.wants_peer(kind.name())) {
        match Service::start(kind, &options.coordinator, &[]).await {
            Ok(service) => services.push(service),
            Err(why) => {
                eprintln!("LEFT OUT: {why}");
                continue;
            }
        }
        versions
            .extend(kind.version(&options.coordinator).map(|it| (kind.name().into(), it.into())));
    }
    let wanted = workloads::all(options.duration(), options.warmup());
    let wanted: Vec<_> = wanted.into_iter().filter(|it| options.wants_workload(&it.name)).collect();
    let mut results = Vec::new();
    for round in 1..=options.rounds {
        for workload in &wanted {
            for service in services.iter().filter(|service| workload.is_for(service.kind)) {
                let (name, peer) = (&workload.name, service.kind.name());
                let measured =
                    service.measure_beside(&workload.plan, workload.beside.as_ref()).await;
                eprintln!("round {round}  {name:<13} {peer:<18} {}", in_short(&measured));
                if let Ok(outcome) = measured {
                    let outcome = outcome.to_json();
                    results.push(json!({
                        "round": round, "workload": name, "peer": peer, "outcome": outcome,
                    }));
                }
            }
        }
    }
    Ok(json!({
        "machine": machine(), "versions": versions, "seconds": options.seconds, "results": results,
    }))
}

/// What came out, for whoever watches.
pub(crate) fn in_short(measured: &Result<Outcome, Error>) -> String {
    match measured {
        Ok(outcome) => {
            let cpu = outcome.server_cpu_per_pair().unwrap_or_default() / 1e3;
            format!("{:>9.0} pairs/s {cpu:>8.2} µs CPU", outcome.pairs_per_second())
        }
        Err(why) => format!("FAILED: {why}"),
    }
}

/// On what it was measured: kind of processor, how many, kernel.
pub(crate) fn machine() -> Value {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model)
        .collect();
    json!({
        "processor": models.first(),
        "processors": models.len(),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}
