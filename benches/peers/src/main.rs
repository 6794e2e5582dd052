//! Measures the coordinator beside a plain echo server, Redis, etcd and ZooKeeper.
//!
//! All are driven by the load generator of `coordinator bench`: its directory is compiled into this
//! program as it is, and each service is a [`load::Peer`] that speaks its own protocol.
//!
//! ```text
//! coordinator-peers compare    everything: starts the services, measures in rounds, writes the docs
//! coordinator-peers client     our library beside bare sockets and the libraries of others
//! coordinator-peers cluster    a leader with a standby in sync beside one alone, and beside three etcds
//! coordinator-peers grow       the coordinator alone: memory, and cost beside a million others
//! coordinator-peers write      the docs anew, from the results of an earlier run
//! coordinator-peers echo       be the echo server
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `echo`, `redis`, `etcd`, `zookeeper` | how to speak to each |
//! | `service` | starting and stopping them |
//! | `secure` | TLS, of the coordinator and of the echo server |
//! | `workloads`, `compare` | what is measured, and in which order |
//! | `libraries`, `cluster` | what a client library costs, and what a standby costs |
//! | `growth`, `filler` | memory and cost of what is stored |
//! | `figures`, `tables`, `plots` | medians and ratios, for docs/performance.md |
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
#![allow(clippy::doc_markdown, reason = "ZooKeeper is a name, not code")]
#![allow(async_fn_in_trait, reason = "nobody else implements these traits")]

#[allow(clippy::unwrap_used, unreachable_pub, reason = "the tests' own, in which nothing fails")]
#[allow(dead_code, reason = "the tests need more of it")]
#[path = "../../../tests/it/certificates.rs"]
mod certificates;
mod cluster;
mod compare;
mod echo;
mod etcd;
mod figures;
mod filler;
mod growth;
mod libraries;
#[allow(
    dead_code,
    unused_imports,
    reason = "what is not measured here is of use to `coordinator bench`"
)]
#[path = "../../../src/cli/bench/load/mod.rs"]
mod load;
mod plots;
mod postgres;
mod redis;
mod restart;
mod secure;
mod service;
mod tables;
mod workloads;
mod zookeeper;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::Value;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use self::service::Kind;

/// Anything that ends a run; told as it is.
type Failure = Box<dyn std::error::Error>;

/// Measures the coordinator beside other services.
#[derive(Parser)]
#[command(args_override_self = true)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure all services side by side.
    Compare(Options),
    /// Measure the coordinator and the echo server by TLS beside both in plain.
    Secure(Options),
    /// Measure the services that answer when all is on disk, side by side.
    Durable(Options),
    /// Measure our client library beside bare sockets, and beside the libraries of others.
    Client(Options),
    /// Measure a leader with a standby in sync beside one coordinator alone, and beside three etcds.
    Cluster(Options),
    /// Measure how long the coordinator is away that is killed with much stored.
    Restart(Options),
    /// Measure the coordinator's memory, and its cost beside a million others.
    Grow(Options),
    /// Write tables and plots from results that are there.
    Write {
        /// Where docs/performance.md is.
        #[arg(long, default_value = "docs")]
        docs: PathBuf,
    },
    /// Be a server that answers each frame with one of the wanted length.
    Echo {
        /// Write the port to this file.
        #[arg(long)]
        port_file: PathBuf,
        /// Speak TLS with these.
        #[command(flatten)]
        files: secure::Files,
    },
}

/// How to measure.
#[derive(Args, Clone)]
struct Options {
    /// The coordinator's program.
    #[arg(long, default_value = "target/release/coordinator")]
    coordinator: PathBuf,
    /// How often everything is measured.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// How long each runs before that, in seconds.
    #[arg(long, default_value_t = 0.5)]
    warmup: f64,
    /// Only services whose name is among these.
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Only workloads whose name begins with one of these.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// How many sessions are opened to see what one costs.
    #[arg(long, default_value_t = 20_000)]
    sessions: usize,
    /// How many locks, waiters, deadlines are stored to see what one costs.
    #[arg(long, default_value_t = 1_000_000)]
    stored: usize,
    /// Where to put the results, and docs/performance.md to write into; nothing is written without.
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// The workloads whose cost by TLS is told.
const SECURED: [&str; 6] = [
    "closed-1",
    "closed-8",
    "closed-64",
    workloads::BATCHES,
    workloads::ITERATIONS,
    workloads::STORM,
];

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup)
    }

    /// The same, with these workloads unless others are named.
    fn or_workloads(mut self, usual: &[&str]) -> Self {
        if self.workloads.is_empty() {
            self.workloads = usual.iter().map(|&it| it.to_owned()).collect();
        }
        self
    }

    /// Whether the service is wanted.
    fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|it| it == name)
    }

    /// Whether the workload is wanted.
    fn wants_workload(&self, name: &str) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|it| name.starts_with(it))
    }
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let work = unless_stopped(run(Cli::parse().command));
    let done = runtime.map_err(Failure::from).and_then(|it| it.block_on(work));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for `work`, or for a signal: the services end only if this program ends by itself.
async fn unless_stopped(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = work => done,
        _ = terminate.recv() => Err("stopped by a signal".into()),
        _ = ctrl_c() => Err("interrupted".into()),
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Compare(options) => {
            keep("comparison", &compare::run(&Kind::ALL, &options).await?, &options)
        }
        Command::Secure(options) => {
            let options = options.or_workloads(&SECURED);
            keep("tls", &compare::run(&Kind::SECURED, &options).await?, &options)
        }
        Command::Durable(options) => {
            let options = options.or_workloads(&["closed"]);
            keep("durable", &compare::run(&Kind::DURABLE, &options).await?, &options)
        }
        Command::Client(options) => keep("client", &libraries::run(&options).await?, &options),
        Command::Cluster(options) => keep("cluster", &cluster::run(&options).await?, &options),
        Command::Restart(options) => keep("restart", &restart::run(&options).await?, &options),
        Command::Grow(options) => keep("growth", &growth::run(&options).await?, &options),
        Command::Write { docs } => tables::write(&docs),
        Command::Echo { port_file, files } => echo::serve(&port_file, &files).await,
    }
}

/// Puts results where the docs are, and writes the docs; without such a place prints them. Its table and its
/// goals are printed in any case, if there are some.
fn keep(name: &str, results: &Value, options: &Options) -> Result<(), Failure> {
    match &options.docs {
        None => print!("{}", tables::lines(results)),
        Some(docs) => {
            tables::keep(docs, name, results)?;
            tables::write(docs)?;
        }
    }
    print!("{}", tables::verdict(name, results));
    Ok(())
}
