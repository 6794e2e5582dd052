//! Many clients, one shared file, a number in it: the program that this crate began with.
//!
//! Each of 5 clients does 1000 times: connect, ask for the lock, wait for the grant, read a number
//! from the file, add one, write it back, release, close. If nobody was ever in there with another,
//! the number is 5000 in the end.
//!
//! ```text
//! cargo run --release --example contention
//! cargo run --release --example contention -- --no-lock       what happens without
//! cargo run --release --example contention -- --quiet --clients 50 --iterations 200
//! ```
//!
//! Whether it was so is found out by three independent means: the sum; a marker file that only one
//! can create, made on entering and removed on leaving; and the fencing tokens, which must rise from
//! one grant to the next. `RUST_LOG=debug` shows the server's side of it as well.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example talks")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use coordinator::server::{self, Config};
use coordinator::types::FencingToken;
use coordinator::{Client, LockGuard};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

/// The lock that protects the file.
const LOCK: &str = "shared-file";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Many clients add to a number in one file, under a lock.
#[derive(Parser)]
struct Options {
    /// Number of clients.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    clients: u64,
    /// Number of increments per client.
    #[arg(long, default_value_t = 1000)]
    iterations: u64,
    /// Connect once per client instead of once per iteration.
    #[arg(long)]
    keep_connection: bool,
    /// Show a progress bar instead of lines.
    #[arg(long)]
    quiet: bool,
    /// Path of the file; by default a temporary one.
    #[arg(long)]
    shared_file: Option<PathBuf>,
    /// Use this coordinator instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// Negative control: work without the lock, so that increments get lost.
    #[arg(long)]
    no_lock: bool,
}

/// What all clients share.
struct Arena {
    /// How it is played.
    options: Options,
    /// Where the coordinator is.
    server: String,
    /// The file with the number.
    file: PathBuf,
    /// The file that exists while someone is inside.
    marker: PathBuf,
    /// How often someone came in while another was inside.
    overlaps: AtomicU64,
    /// The token of the latest to come in.
    last_token: AtomicU64,
    /// How often a token was not greater than the one before.
    tokens_not_rising: AtomicU64,
    /// Shown with `--quiet`.
    bar: ProgressBar,
}

impl Arena {
    fn say(&self, line: &str) {
        if !self.options.quiet {
            println!("{line}");
        }
    }

    /// Comes in; the marker says whether someone is inside.
    fn enter(&self) -> io::Result<()> {
        match OpenOptions::new().write(true).create_new(true).open(&self.marker) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                self.overlaps.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn leave(&self) -> io::Result<()> {
        match fs::remove_file(&self.marker) {
            // Whoever overlapped with us has removed it.
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn check(&self, token: FencingToken) {
        let before = self.last_token.swap(token.number(), Ordering::Relaxed);
        if token.number() <= before {
            self.tokens_not_rising.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What the lock protects: nothing in here would be right if two did it at a time.
    async fn add_one(&self) -> Result<u64, Failure> {
        self.enter()?;
        let sum = read_number(&self.file)? + 1;
        // Lets the others run between reading and writing. With the lock that changes nothing;
        // without it this is where increments get lost.
        tokio::task::yield_now().await;
        write_number(&self.file, sum)?;
        self.leave()?;
        Ok(sum)
    }
}

/// Opens, reads, closes.
fn read_number(file: &Path) -> Result<u64, Failure> {
    let mut text = String::new();
    File::open(file)?.read_to_string(&mut text)?;
    Ok(text.trim().parse()?)
}

/// Opens, writes, closes. The file is written over, not emptied first: what gets lost without the
/// lock is lost because two clients read the same number, and for no other reason.
fn write_number(file: &Path, number: u64) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
    Ok(file.write_all(format!("{number:<19}\n").as_bytes())?)
}

/// All the iterations of one client; how long it waited for each grant, in microseconds.
async fn play(arena: Arc<Arena>) -> Result<Histogram<u64>, Failure> {
    let mut waits = Histogram::new(3)?;
    let mut kept = None;
    for iteration in 0..arena.options.iterations {
        arena.say(&format!("Iteration = {iteration}"));
        if arena.options.no_lock {
            let sum = arena.add_one().await?;
            arena.say(&format!("sum is {sum}"));
        } else {
            let client = match kept.take() {
                Some(client) => client,
                None => Client::connect(&arena.server).await?,
            };
            waits.record(one_turn(&arena, &client).await?)?;
            if arena.options.keep_connection {
                kept = Some(client);
            } else {
                client.close().await?;
            }
        }
        arena.bar.inc(1);
    }
    Ok(waits)
}

/// Asks, waits, adds one, releases; how long the wait was, in microseconds.
async fn one_turn(arena: &Arena, client: &Client) -> Result<u64, Failure> {
    let asked = Instant::now();
    arena.say("Sent request to server");
    let guard: LockGuard = client.lock(LOCK).await?;
    let waited = asked.elapsed();
    arena.say("Received grant from server");
    arena.check(guard.token());
    let sum = arena.add_one().await?;
    arena.say(&format!("sum is {sum}"));
    guard.release().await?;
    arena.say("Sent release to server - closing socket");
    Ok(u64::try_from(waited.as_micros()).unwrap_or(u64::MAX))
}

/// Lets all clients play; what each of them waited, and how long it took.
async fn play_all(arena: &Arc<Arena>) -> Result<(Vec<Histogram<u64>>, Duration), Failure> {
    let started = Instant::now();
    let clients: Vec<_> =
        (0..arena.options.clients).map(|_| tokio::spawn(play(Arc::clone(arena)))).collect();
    let mut waits = Vec::new();
    for client in clients {
        waits.push(client.await??);
    }
    arena.bar.finish_and_clear();
    Ok((waits, started.elapsed()))
}

fn micros(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{}.{} ms", micros / 1_000, micros % 1_000 / 100),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

/// Prints what happened; whether all was as it must be.
fn report(arena: &Arena, waits: &[Histogram<u64>], took: Duration) -> Result<bool, Failure> {
    let wanted = arena.options.clients * arena.options.iterations;
    let sum = read_number(&arena.file)?;
    let overlaps = arena.overlaps.load(Ordering::Relaxed);
    println!();
    if arena.options.no_lock {
        let lost = wanted.saturating_sub(sum);
        println!("without the lock: {lost} of {wanted} increments lost, {overlaps} overlaps");
        println!("sum is {sum}");
        return Ok(lost > 0 || arena.options.clients == 1);
    }
    println!("client   grants   wait p50   wait p99   wait max");
    for (number, waits) in (1..).zip(waits) {
        let quantile = |quantile| micros(waits.value_at_quantile(quantile));
        let (p50, p99, max) = (quantile(0.5), quantile(0.99), micros(waits.max()));
        println!("{number:>6}   {:>6}   {p50:>8}   {p99:>8}   {max:>8}", waits.len());
    }
    let grants: u64 = waits.iter().map(Histogram::len).sum();
    let not_rising = arena.tokens_not_rising.load(Ordering::Relaxed);
    let rising = if not_rising == 0 { "yes".to_owned() } else { format!("no, {not_rising} times") };
    println!();
    println!("grants {grants} in {:.2} s", took.as_secs_f64());
    println!("overlaps of critical sections: {overlaps}");
    println!("tokens strictly rising: {rising}");
    println!("sum is {sum}");
    Ok(sum == wanted && grants == wanted && overlaps == 0 && not_rising == 0)
}

fn arena(options: Options, server: String) -> Result<Arena, Failure> {
    let temporary = format!("coordinator-contention-{}", std::process::id());
    let file = options.shared_file.clone().unwrap_or_else(|| std::env::temp_dir().join(temporary));
    let mut marker = file.clone().into_os_string();
    marker.push(".inside");
    let marker = PathBuf::from(marker);
    write_number(&file, 0)?;
    // A run that was killed may have left it.
    let _none = fs::remove_file(&marker);
    let bar = if options.quiet {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}")?;
        ProgressBar::new(options.clients * options.iterations).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let (overlaps, last_token) = (AtomicU64::new(0), AtomicU64::new(0));
    let tokens_not_rising = AtomicU64::new(0);
    Ok(Arena { options, server, file, marker, overlaps, last_token, tokens_not_rising, bar })
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = Options::parse();
    let mut config = Config::default();
    config.listen.set_port(0);
    // Stops when it goes out of scope, at the end.
    let own = match &options.server {
        None if !options.no_lock => Some(server::spawn(config)?),
        _ => None,
    };
    let server = match &own {
        Some(own) => own.local_addr().to_string(),
        None => options.server.clone().unwrap_or_default(),
    };
    let arena = Arc::new(arena(options, server)?);
    let (waits, took) = play_all(&arena).await?;
    let good = report(&arena, &waits, took)?;
    if arena.options.shared_file.is_none() {
        fs::remove_file(&arena.file)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
