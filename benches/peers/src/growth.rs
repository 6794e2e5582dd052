//! The coordinator as it grows: what is stored costs memory, and must not cost time.
//!
//! Each case has a server of its own. A pair's cost is measured, something is stored in great
//! numbers, the same is measured again; the resident memory is looked at before and after.

use std::fs;
use std::time::Duration;

use coordinator::types::Mode;
use coordinator::wire::Wait;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::filler::Filler;
use crate::load::{Connections, Extent, Locks, Plan, Priority, Rhythm};
use crate::service::{Kind, Service};
use crate::{Failure, Options, workloads};

/// Sessions that store: a session has as many requests as a busy client's.
const FILLERS: usize = 10;
/// Sessions that are little, beside those that are many.
const SESSIONS_FEW: usize = 10;
/// So many of the names are used together.
const NAMES_AT_A_TIME: usize = 1000;
/// A deadline that no measurement comes to.
const DAY_MS: u64 = 86_400_000;
/// Open files that are no sessions.
const FILES_BESIDES: usize = 200;
/// How long memory that was freed may take to go back.
const SETTLE: Duration = Duration::from_secs(1);

/// What is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Sessions that do nothing.
    Sessions,
    /// Locks that are held.
    Held,
    /// Names of locks that were held, some at a time.
    Names,
    /// Waiters in one queue.
    Waiters,
    /// Waiters in one queue, each with a deadline.
    Deadlines,
}

impl Case {
    const ALL: [Self; 5] =
        [Self::Sessions, Self::Held, Self::Names, Self::Waiters, Self::Deadlines];

    fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Held => "held",
            Self::Names => "names",
            Self::Waiters => "waiters",
            Self::Deadlines => "deadlines",
        }
    }
}

/// How many sessions can be had: each is an open file here and in the server, and either needs a
/// few besides.
fn sessions_possible(wanted: usize) -> Result<usize, Failure> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    let possible = files.map_or(wanted, |files| wanted.min(files.saturating_sub(FILES_BESIDES)));
    if possible < wanted {
        eprintln!("only {possible} sessions instead of {wanted}: so many files may be open");
    }
    Ok(possible)
}

/// Measures everything, and gives the raw results.
pub(crate) async fn run(options: &Options) -> Result<Value, Failure> {
    let options = &Options { sessions: sessions_possible(options.sessions)?, ..options.clone() };
    let mut results = Vec::new();
    for round in 1..=options.rounds {
        for case in Case::ALL.into_iter().filter(|case| options.wants_workload(case.name())) {
            let mut result = measure(case, options).await?;
            eprintln!("round {round}  {:<10} {result}", case.name());
            result["round"] = round.into();
            result["case"] = case.name().into();
            results.push(result);
        }
    }
    Ok(json!({
        "machine": crate::compare::machine(),
        "stored": options.stored, "sessions": options.sessions, "results": results,
    }))
}

async fn measure(case: Case, options: &Options) -> Result<Value, Failure> {
    let flags = flags(options);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = Service::start(Kind::US, &options.coordinator, &flags).await?;
    let mut fillers = fillers(&server.address).await?;
    let cost_before = cost(&server, options).await?;
    let memory_before = memory(&server)?;
    let count = match case {
        Case::Sessions => {
            while fillers.len() < options.sessions {
                fillers.push(Filler::open(&server.address).await?);
            }
            options.sessions - FILLERS
        }
        Case::Held => {
            hold(&mut fillers, options.stored).await?;
            options.stored
        }
        Case::Names => {
            for first in (0..options.stored).step_by(NAMES_AT_A_TIME) {
                let names = first..(first + NAMES_AT_A_TIME).min(options.stored);
                fillers[0].hold(names.map(name)).await?;
                fillers[0].release_all().await?;
            }
            options.stored
        }
        Case::Waiters => {
            queue_up(&mut fillers, options.stored, Wait::Forever).await?;
            options.stored
        }
        Case::Deadlines => {
            queue_up(&mut fillers, options.stored, Wait::millis(DAY_MS)).await?;
            options.stored
        }
    };
    let memory_full = memory(&server)?;
    let cost_after = cost(&server, options).await?;
    for filler in &mut fillers {
        filler.release_all().await?;
    }
    fillers.truncate(SESSIONS_FEW);
    sleep(SETTLE).await;
    let memory_after = memory(&server)?;
    let names = if case == Case::Held { name(0).len() } else { 0 };
    Ok(json!({
        "count": count,
        "bytes_each": memory_full.saturating_sub(memory_before) / count.max(1) as u64,
        "name_bytes": names,
        "memory_before": memory_before,
        "memory_full": memory_full,
        "memory_freed": memory_after,
        "cost_before": cost_before,
        "cost_after": cost_after,
    }))
}

/// What a coordinator is started with that stores so much.
pub(crate) fn flags(options: &Options) -> Vec<String> {
    let claims = options.stored.max(65_536).to_string();
    let names = ["--claims-per-session-max", "--waiters-per-lock-max"];
    names.into_iter().flat_map(|name| [name.to_owned(), claims.clone()]).collect()
}

/// Sessions that store.
pub(crate) async fn fillers(address: &str) -> Result<Vec<Filler>, Failure> {
    let mut fillers = Vec::new();
    for _ in 0..FILLERS {
        fillers.push(Filler::open(address).await?);
    }
    Ok(fillers)
}

/// What a pair costs the server, in nanoseconds on a CPU: by itself, and with many in each write.
async fn cost(server: &Service, options: &Options) -> Result<Value, Failure> {
    let closed = Plan {
        connections: 8,
        threads: 1,
        locks: Locks::Own,
        mode: Mode::Exclusive,
        rhythm: Rhythm::Steps,
        keep: Connections::Kept,
        priority: Priority::Usual,
        warmup: options.warmup(),
        extent: Extent::For(options.duration()),
        prefix: "bench-cost".to_owned(),
    };
    let batches =
        Plan { connections: 4, rhythm: Rhythm::Batches(workloads::DEPTH), ..closed.clone() };
    Ok(json!({
        "closed": server.measure(&closed).await?.server_cpu_per_pair(),
        "batches": server.measure(&batches).await?.server_cpu_per_pair(),
    }))
}

fn name(number: usize) -> String {
    format!("stored-{number:014}")
}

pub(crate) async fn hold(fillers: &mut [Filler], locks: usize) -> Result<(), Failure> {
    let each = locks.div_ceil(fillers.len());
    for (number, filler) in fillers.iter_mut().enumerate() {
        let numbers = (number * each)..((number + 1) * each).min(locks);
        filler.hold(numbers.map(name)).await?;
    }
    Ok(())
}

async fn queue_up(fillers: &mut [Filler], waiters: usize, wait: Wait) -> Result<(), Failure> {
    let Some((holder, others)) = fillers.split_first_mut() else { return Ok(()) };
    holder.hold(std::iter::once(name(0))).await?;
    let each = waiters.div_ceil(others.len());
    let mut left = waiters;
    for filler in others {
        let some = left.min(each);
        left -= some;
        filler.queue_up(&name(0), some, wait).await?;
    }
    Ok(())
}

/// The server's resident memory in bytes.
fn memory(server: &Service) -> Result<u64, Failure> {
    let pid = server.pid().ok_or("the coordinator has ended")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.ok_or("the kernel does not tell the memory of a process")? * 1024)
}
