//! What looking costs, by the real program over sockets.
//!
//! ```text
//!     cargo bench --bench looks                 a million held locks, in release
//!     LOOKS_LOCKS=10000 cargo bench --bench looks --profile dev
//! ```
//!
//! Two things are measured, and each has a goal, past which it fails unless `LOOKS_GOALS=off`:
//!
//! - `coordinator status --waits` while a million locks are held and 2,000 requests wait: at most 50 ms.
//! - a client that locks and releases, alone and beside eight observers that read page after page without a
//!   pause: its median at most 1.2 times as long.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "it prints what it measures")]

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use coordinator::types::RequestId;
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, RawClaim, ServerMessage, decode, encode_frame,
};
use coordinator::{Client, Observer};
use tokio::runtime::Runtime;

/// Locks that are held, unless told otherwise.
const LOCKS: u64 = 1_000_000;
/// Requests that wait.
const WAITERS: u64 = 2_000;
/// Each session holds so many.
const LOCKS_PER_SESSION: u64 = 50_000;
/// Requests that are said before their answers are read.
const BATCH: u64 = 500;
/// How often `status --waits` is run.
const RUNS: usize = 20;
/// The most that it may take, at the median.
const WAITS_MAX: Duration = Duration::from_millis(50);
/// Observers that read without a pause.
const GREEDY: usize = 8;
/// For how long each is measured.
const MEASURED: Duration = Duration::from_secs(5);
/// How much longer a client's median may be beside them.
const SLOWER_MAX: f64 = 1.2;

/// A coordinator of its own, killed in the end.
struct Server {
    process: Child,
    directory: PathBuf,
    address: String,
}

impl Server {
    fn start() -> Self {
        let directory = env::temp_dir().join(format!("looks-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        let port = directory.join("port");
        let process = Command::new(env!("CARGO_BIN_EXE_coordinator"))
            .args(["serve", "--ephemeral", "--config", "/dev/null", "--log", "off"])
            .args(["--listen", "127.0.0.1:0", "--claims-per-session-max", "1000000"])
            .arg("--port-file")
            .arg(&port)
            .spawn()
            .expect("it starts");
        let port = loop {
            if let Ok(port) = fs::read_to_string(&port) {
                break port;
            }
            thread::sleep(Duration::from_millis(5));
        };
        Self { process, address: format!("127.0.0.1:{}", port.trim()), directory }
    }

    fn client(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
        command.args(words).args(["--config", "/dev/null", "--server", &self.address]);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
        let _gone = fs::remove_dir_all(&self.directory);
    }
}

/// A session that asks for many locks at once, and keeps them.
struct Session {
    socket: TcpStream,
    unread: BytesMut,
    latest: u64,
}

impl Session {
    fn open(server: &Server) -> Self {
        let socket = TcpStream::connect(&server.address).expect("it listens");
        let mut session = Self { socket, unread: BytesMut::new(), latest: 0 };
        let hello = wire::Hello { ttl_ms: 600_000, ..wire::Hello::new(Attach::New, "looks") };
        session.say(&[ClientMessage::Hello(hello)]);
        assert!(matches!(session.hear(), ServerMessage::Welcome { .. }));
        session
    }

    /// Asks for these locks, and hears an answer to each.
    fn ask(&mut self, names: impl Iterator<Item = String>) {
        let mut requests = Vec::new();
        for name in names {
            self.latest += 1;
            let claim = RawClaim { name: name.into(), mode: Mode::Exclusive };
            let request = wire::Request::new(RequestId::new(self.latest), [claim]);
            requests.push(ClientMessage::Request(request));
        }
        self.say(&requests);
        for _ in requests {
            let answer = self.hear();
            let is_right =
                matches!(answer, ServerMessage::Grant { .. } | ServerMessage::Queued { .. });
            assert!(is_right, "{answer:?}");
        }
    }

    fn say(&mut self, messages: &[ClientMessage]) {
        let mut frames = BytesMut::new();
        for message in messages {
            encode_frame(message, &mut frames).expect("it can be written");
        }
        self.socket.write_all(&frames).expect("it is there");
    }

    fn hear(&mut self) -> ServerMessage {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            if let Some(field) = self.unread.first_chunk::<4>() {
                let len = u32::from_le_bytes(*field) as usize;
                if self.unread.len() >= 4 + len {
                    let frame = self.unread.split_to(4 + len);
                    return decode(&frame[4..]).expect("a message");
                }
            }
            let read = self.socket.read(&mut chunk).expect("it is there");
            assert!(read > 0, "the coordinator closed the connection");
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }
}

/// Has so many locks held, and some of them waited for.
fn fill(server: &Server, locks: u64) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut from = 0;
    while from < locks {
        let mut session = Session::open(server);
        let end = (from + LOCKS_PER_SESSION).min(locks);
        while from < end {
            let next = (from + BATCH).min(end);
            session.ask((from..next).map(|lock| format!("held/{lock}")));
            from = next;
        }
        sessions.push(session);
    }
    let mut waiter = Session::open(server);
    let waiters = WAITERS.min(locks);
    let mut from = 0;
    while from < waiters {
        let end = (from + BATCH).min(waiters);
        waiter.ask((from..end).map(|lock| format!("held/{lock}")));
        from = end;
    }
    sessions.push(waiter);
    sessions
}

/// How long `status --waits` takes, at the median.
fn waits(server: &Server) -> Duration {
    let mut took: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            let mut command = server.client(&["status", "--waits"]);
            let done = command.stdout(Stdio::null()).status().expect("it runs");
            assert!(done.success());
            began.elapsed()
        })
        .collect();
    median(&mut took)
}

fn median(took: &mut [Duration]) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// How long a client takes to lock and release, at the median.
async fn pairs(server: &Server) -> Duration {
    let client = Client::connect(&*server.address).await.expect("it is there");
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < MEASURED {
        let from = Instant::now();
        let guard = client.lock("pair").await.expect("it is granted");
        guard.release().await.expect("it was held");
        took.push(from.elapsed());
    }
    median(&mut took)
}

/// Reads page after page, by itself on a thread of its own, until told to stop.
fn greedy(address: String, stop: Arc<AtomicBool>, pages: Arc<AtomicU64>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        Runtime::new().expect("a runtime").block_on(async {
            let observer = Observer::connect(&*address).await.expect("it is there");
            while !stop.load(Ordering::Relaxed) {
                if observer.lock("pair").await.is_ok() {
                    pages.fetch_add(1, Ordering::Relaxed);
                }
                // A walk over all locks, of which each page is a look.
                let walk = observer.locks();
                let _cut_short = tokio::time::timeout(Duration::from_millis(500), walk).await;
            }
        });
    })
}

fn main() -> ExitCode {
    let locks = env::var("LOOKS_LOCKS").ok().and_then(|text| text.parse().ok()).unwrap_or(LOCKS);
    let has_goals = env::var("LOOKS_GOALS").as_deref() != Ok("off");
    let server = Server::start();
    let began = Instant::now();
    let sessions = fill(&server, locks);
    println!("{locks} locks held, filled in {:.1?}", began.elapsed());

    let took = waits(&server);
    println!("status --waits: {took:.1?} at the median of {RUNS} (goal {WAITS_MAX:?})");

    let runtime = Runtime::new().expect("a runtime");
    let alone = runtime.block_on(pairs(&server));
    let (stop, pages) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..GREEDY)
        .map(|_| greedy(server.address.clone(), Arc::clone(&stop), Arc::clone(&pages)))
        .collect();
    let beside = runtime.block_on(pairs(&server));
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().expect("it reads");
    }
    let slower = beside.as_secs_f64() / alone.as_secs_f64();
    println!(
        "a pair: {alone:.1?} alone, {beside:.1?} beside {GREEDY} greedy readers: {slower:.2} x (goal {SLOWER_MAX} x)"
    );
    drop(sessions);
    let is_met = took <= WAITS_MAX && slower <= SLOWER_MAX;
    if is_met || !has_goals { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
