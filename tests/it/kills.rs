//! `kill -9`, again and again, under load: what anybody sees of a crash (rules J1 to J4).
//!
//! Fifty hold, one of them with a ttl of an hour, two hundred wait, some contend, and `coordinator bench`
//! makes load. The coordinator is killed and started at once. A newcomer, who does nothing but try,
//! asks for a free lock: time counts from before the process is started until the grant is read. The
//! history checker judges what everybody saw.
//!
//! `scripts/kills` makes long runs. `KILLS_COUNT` is how many kills there are; `KILLS_P50_MS` and
//! `KILLS_P99_MS` are what the newcomer may wait.

#![allow(clippy::print_stdout, reason = "a run ends in figures")]

use std::env;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::wire::{Attach, ServerMessage};
use coordinator::{Client, HoldState, LockGuard, Servers};
use rustix::process::Signal;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::history::{Entry, How, Log, RequestName, Wanted, What};
use crate::raw::{Raw, hello_for, request};
use crate::support::{DEADLINE, Door, Home, Running, Server, eventually, run, start};

/// The usual lease: a grace period is longer.
const TTL: Duration = Duration::from_secs(10);
/// The longest that a free lock may take after a crash, on a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// An absence that is shorter than a third of the lease by far.
const SHORT: Duration = Duration::from_secs(1);
/// Between two attempts of the newcomer.
const TRY_AGAIN: Duration = Duration::from_micros(200);
const KILLS: usize = 20;
const KILLS_WHEN_SYNCED: usize = 3;
const HOLDERS: u64 = 50;
const WAITERS: u64 = 200;
const CONTENDERS: u64 = 8;
/// Locks that they contend for.
const CONTENDED: u64 = 3;
/// Pairs a second of the load beside them.
const RATE: &str = "1000";
/// Its pairs that are seen before the next kill.
const PAIRS_MIN: u64 = 50;

/// Where everybody writes down what it does and hears.
struct Book {
    /// What was written.
    log: Mutex<Log>,
    /// Since when.
    began: Instant,
    /// Counts clients.
    clients: AtomicU64,
}

/// A request of one of them.
#[derive(Clone)]
struct Pen {
    /// Where it is written.
    book: Arc<Book>,
    /// Which.
    request: RequestName,
}

impl Book {
    fn new() -> Arc<Self> {
        let (log, clients) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { log, began: Instant::now(), clients })
    }

    fn client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::SeqCst)
    }

    /// A client asks for a lock.
    fn asks(self: &Arc<Self>, client: u64, number: u64, lock: &str) -> Pen {
        let pen = Pen { book: Arc::clone(self), request: RequestName { client, number } };
        let wanted = vec![Wanted { lock: lock.into(), how: How::Exclusive }];
        pen.note(What::Invoked { wanted, goes_first: false });
        pen
    }
}

impl Pen {
    fn note(&self, what: What) {
        let mut log = self.book.log.lock().unwrap();
        let at = u64::try_from(self.book.began.elapsed().as_micros()).unwrap();
        log.note(Entry { at, local: at, request: self.request, what });
    }

    /// Gives back what is held.
    async fn give_back(self, guard: LockGuard) {
        self.note(What::BeliefEnded);
        self.note(What::ReleaseInvoked);
        guard.release().await.unwrap();
        self.note(What::ReleaseAnswered);
    }
}

async fn connect(servers: &Servers, ttl: Duration) -> Client {
    Client::builder().ttl(ttl).connect(servers).await.unwrap()
}

/// Asks for a lock, and has it noted when it waits and when it is granted.
async fn lock(book: &Arc<Book>, client: &Client, name: (u64, u64), lock: &str) -> (LockGuard, Pen) {
    let pen = book.asks(name.0, name.1, lock);
    let (noted, queued) = (pen.clone(), AtomicBool::new(false));
    let asked = client.lock(lock).on_queued(move |_| {
        if !queued.swap(true, Ordering::SeqCst) {
            noted.note(What::Queued);
        }
    });
    let guard = asked.await.unwrap();
    pen.note(What::Granted { token: guard.token().number() });
    (guard, pen)
}

/// All who are there over all crashes.
struct Crowd {
    book: Arc<Book>,
    /// Those who hold, and with which token.
    held: Vec<(LockGuard, Pen, u64)>,
    /// What all wait for.
    wanted: (LockGuard, Pen),
    /// Those who wait.
    waiting: Vec<JoinHandle<()>>,
    /// Which of them was granted it.
    granted: mpsc::UnboundedReceiver<(u64, LockGuard, Pen)>,
    /// Those who contend, until told to stop.
    contending: Vec<JoinHandle<u64>>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    async fn gather(servers: &Servers) -> Self {
        let book = Book::new();
        let mut held = Vec::new();
        for number in 0..HOLDERS {
            let ttl = if number == 0 { Duration::from_secs(3600) } else { TTL };
            let client = connect(servers, ttl).await;
            let name = format!("held/{number}");
            let (guard, pen) = lock(&book, &client, (book.client(), 0), &name).await;
            let token = guard.token().number();
            held.push((guard, pen, token));
        }
        let client = connect(servers, TTL).await;
        let wanted = lock(&book, &client, (book.client(), 0), "wanted").await;
        let (tell, granted) = mpsc::unbounded_channel();
        let mut waiting = Vec::new();
        for number in 0..WAITERS {
            waiting.push(queue_up(&book, servers, number, tell.clone()).await);
        }
        let stop = Arc::<AtomicBool>::default();
        let contending = (0..CONTENDERS).map(|number| {
            let (book, servers, stop) = (Arc::clone(&book), servers.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let client = connect(&servers, TTL).await;
                let (name, mut pairs) = (book.client(), 0);
                while !stop.load(Ordering::SeqCst) {
                    let contended = format!("busy/{}", (number + pairs) % CONTENDED);
                    let (guard, pen) = lock(&book, &client, (name, pairs), &contended).await;
                    pen.give_back(guard).await;
                    pairs += 1;
                }
                pairs
            })
        });
        let contending = contending.collect();
        Self { book, held, wanted, waiting, granted, contending, stop }
    }

    /// After a crash that took so long, nobody has noticed anything.
    fn check(&mut self, away: Duration) {
        let holders = self.held.iter().map(|(guard, ..)| guard).chain([&self.wanted.0]);
        for guard in holders {
            match guard.state() {
                HoldState::Held => {}
                HoldState::Jeopardy => assert!(away > SHORT, "{guard:?} after {away:?}"),
                HoldState::Lost(reason) => panic!("{guard:?} is lost: {reason:?}"),
            }
        }
        assert!(self.granted.try_recv().is_err(), "a waiter was granted what is held");
    }

    /// Everybody gives back what it has, and those who wait get it in their order. Says what the
    /// history comes to.
    async fn leave(mut self) -> Log {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.contending {
            assert!(timeout(DEADLINE, task).await.unwrap().unwrap() > 0);
        }
        let mut before = self.wanted.0.token();
        self.wanted.1.give_back(self.wanted.0).await;
        for expected in 0..WAITERS {
            let granted = timeout(DEADLINE, self.granted.recv()).await;
            let (number, guard, pen) = granted.expect("a waiter is not granted").unwrap();
            assert_eq!(number, expected);
            assert!(guard.token() > before);
            before = guard.token();
            pen.give_back(guard).await;
        }
        for task in self.waiting {
            task.await.unwrap();
        }
        for (guard, pen, token) in self.held {
            assert_eq!(guard.token().number(), token);
            pen.give_back(guard).await;
        }
        std::mem::take(&mut *self.book.log.lock().unwrap())
    }
}

/// Gets in line for what all want; tells when it is granted.
async fn queue_up(
    book: &Arc<Book>,
    servers: &Servers,
    number: u64,
    tell: mpsc::UnboundedSender<(u64, LockGuard, Pen)>,
) -> JoinHandle<()> {
    let client = connect(servers, TTL).await;
    let pen = book.asks(book.client(), 0, "wanted");
    let (noted, (queued, mut is_queued)) = (pen.clone(), mpsc::unbounded_channel());
    let asked = client.lock("wanted").on_queued(move |_| {
        if queued.send(()).is_ok() {
            noted.note(What::Queued);
        }
    });
    let task = tokio::spawn(async move {
        let guard = asked.await.unwrap();
        pen.note(What::Granted { token: guard.token().number() });
        tell.send((number, guard, pen)).unwrap();
    });
    // Then nobody listens any more, and it is noted once.
    is_queued.recv().await.unwrap();
    task
}

/// Asks for a free lock as soon as anybody listens. Says how long that took from `began` on, and the
/// token.
fn newcomer(address: &str, name: &str, began: Instant) -> (Duration, u64) {
    let socket = loop {
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(_) => thread::sleep(TRY_AGAIN),
        }
        assert!(began.elapsed() < DEADLINE, "nobody listens");
    };
    socket.set_nodelay(true).unwrap();
    let mut raw = Raw::over(socket);
    raw.say(&[hello_for(Attach::New, 2_000, Some(0)), request(1, name)]);
    assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
    match raw.hear() {
        ServerMessage::Grant { token, .. } => (began.elapsed(), token.number()),
        other => panic!("a free lock is not granted: {other:?}"),
    }
}

fn status(server: &Server) -> Value {
    serde_json::from_str(&run(server.client(&["status", "--json"])).out).unwrap()
}

/// Load, which is well under way.
fn load(server: &Server) -> Running {
    let grants = |status: &Value| status["server"]["grants"].as_u64();
    let before = grants(&status(server)).unwrap();
    let running = start(server.client(&["bench", "--json", "--rate", RATE, "--duration", "1h"]));
    eventually("locks are granted", || {
        (grants(&status(server))? >= before + PAIRS_MIN).then_some(())
    });
    running
}

/// That of `sorted` which so many of a hundred are no longer than.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100) - 1]
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The same by the library, which shows who it is.
fn proven_newcomer(servers: &Servers, name: &str, began: Instant) -> (Duration, u64) {
    Runtime::new().unwrap().block_on(async {
        let client = loop {
            if let Ok(client) = Client::builder().linger(Duration::ZERO).connect(servers).await {
                break client;
            }
            tokio::time::sleep(TRY_AGAIN).await;
            assert!(began.elapsed() < DEADLINE, "nobody listens");
        };
        let guard = client.lock(name).await.unwrap();
        (began.elapsed(), guard.token().number())
    })
}

fn crashes_cost_nothing(door: Door, flags: &[&str], kills: usize) {
    let kills = number("KILLS_COUNT").map_or(kills, |count| usize::try_from(count).unwrap());
    let flags = [&["--ttl-max", "1h"], flags].concat();
    let mut server = Server::start_behind(door, Home::new(), &flags);
    let runtime = Runtime::new().unwrap();
    let mut crowd = runtime.block_on(Crowd::gather(&server.servers()));
    let (mut took, mut latest) = (Vec::new(), 0);
    for kill in 0..kills {
        let load = load(&server);
        let (address, servers) = (server.address.clone(), server.servers());
        let stopped = server.end_by(Signal::KILL);
        let began = Instant::now();
        let newcomer = thread::spawn(move || match door {
            Door::Open => newcomer(&address, &format!("free/{kill}"), began),
            Door::Guarded => proven_newcomer(&servers, &format!("free/{kill}"), began),
        });
        server = stopped.restart_with(&flags);
        let (length, token) = newcomer.join().unwrap();
        assert!(length < SOON, "{length:?}: a grace period");
        assert!(token > latest, "tokens go back");
        latest = token;
        took.push(length);
        crowd.check(began.elapsed());
        let seen = status(&server);
        assert_eq!(seen["journal"]["start"]["kind"], "replayed", "after kill {kill}");
        assert_eq!(seen["server"]["grace_ms"].as_u64().unwrap_or_default(), 0);
        server.waited_for_by("wanted", WAITERS);
        let measured = load.end();
        assert!(!measured.err.contains("broke a promise"), "{measured:?}");
    }
    took.sort_unstable();
    let (p50, p99) = (percentile(&took, 50), percentile(&took, 99));
    println!("{kills} kills {flags:?}: from the start of the process to the first new grant");
    println!("  p50 {p50:.1?}, p99 {p99:.1?}, least {:.1?}, most {:.1?}", took[0], took[kills - 1]);
    let log = runtime.block_on(crowd.leave());
    let figures = log.check().unwrap_or_else(|violations| panic!("{violations:#?}"));
    println!("  violations 0, in {figures:?}");
    for (name, took) in [("KILLS_P50_MS", p50), ("KILLS_P99_MS", p99)] {
        let most = number(name).map(Duration::from_millis);
        assert!(most.is_none_or(|most| took <= most), "{name}: {took:?}");
    }
}

#[test]
fn kill_minus_9_costs_nobody_anything() {
    crashes_cost_nothing(Door::Open, &[], KILLS);
}

#[test]
fn kill_minus_9_costs_nobody_anything_at_the_distance_of_the_machine_either() {
    crashes_cost_nothing(Door::Open, &["--journal", "machine"], KILLS_WHEN_SYNCED);
}

#[test]
fn kill_minus_9_costs_nobody_anything_by_mutual_tls_and_rules() {
    crashes_cost_nothing(Door::Guarded, &[], KILLS_WHEN_SYNCED);
}
