//! A client process: some sessions, each with some tasks that ask for locks all the time, until its
//! standard input ends. Then it comes to an end with what it began.

use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use coordinator::{Client, Error, LockGuard};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::at_each_heartbeat;
use super::record::{History, Said, now_us, write_resource};
use crate::history::RequestName;
use crate::random::Random;
use crate::wall_clock::{ahead_here, is_about};
use coordinator::types::Generation;

/// The shortest lease, in milliseconds: its end is seen often in a short run.
pub(super) const TTL_MS: u64 = 2_000;
/// The same.
pub(super) const TTL: Duration = Duration::from_millis(TTL_MS);
/// Sessions of a process; every other one goes through the proxy.
const SESSIONS: u64 = 6;
/// Tasks that contend for locks, of each session.
const CONTENDERS: u64 = 2;
/// Locks that all contend for.
const LOCKS: usize = 9;
/// Between two looks at a guard.
const LOOK_AGAIN: Duration = Duration::from_millis(40);
/// The marks of sessions that hold a lock of their own for as long as they can.
pub(super) const OWN_LOCK: &str = "own/";

/// What the nemesis says to a client process.
pub(super) struct Orders {
    /// Which process this is.
    pub(super) process: u64,
    /// Where to write.
    pub(super) directory: PathBuf,
    /// The coordinator.
    pub(super) server: String,
    /// The coordinator, through the proxy.
    pub(super) proxy: String,
    /// What to ask for is chosen by it.
    pub(super) seed: u64,
}

const NAMES: [&str; 5] = [
    "NEMESIS_CLIENT",
    "NEMESIS_CLIENT_DIRECTORY",
    "NEMESIS_CLIENT_SERVER",
    "NEMESIS_CLIENT_PROXY",
    "NEMESIS_CLIENT_SEED",
];

impl Orders {
    /// As environment.
    pub(super) fn environment(&self) -> [(&'static str, String); 5] {
        let Self { process, directory, server, proxy, seed } = self;
        let directory = directory.to_str().unwrap().to_owned();
        let values =
            [process.to_string(), directory, server.clone(), proxy.clone(), seed.to_string()];
        std::array::from_fn(|i| (NAMES[i], values[i].clone()))
    }

    fn read() -> Option<Self> {
        let of = |at: usize| env::var(NAMES[at]).ok();
        Some(Self {
            process: of(0)?.parse().unwrap(),
            directory: of(1)?.into(),
            server: of(2)?,
            proxy: of(3)?,
            seed: of(4)?.parse().unwrap(),
        })
    }
}

/// Where a process writes its history.
pub(super) fn history_path(directory: &Path, process: u64) -> PathBuf {
    directory.join(format!("{process}.history"))
}

/// No test of anything: a client process of the nemesis, if it is one.
#[test]
fn a_client_process_of_the_nemesis() {
    let Some(orders) = Orders::read() else { return };
    let history = History::create(&history_path(&orders.directory, orders.process));
    let over = Arc::<AtomicBool>::default();
    let ends = Arc::clone(&over);
    thread::spawn(move || {
        let _until_it_is_closed = std::io::stdin().read_to_end(&mut Vec::new());
        ends.store(true, Ordering::SeqCst);
    });
    // No request has this number.
    let nobody = RequestName { client: orders.process * SESSIONS, number: 0 };
    let (noted, mut ahead) = (history.clone(), 0);
    at_each_heartbeat(Arc::clone(&over), move |beat| {
        if beat.is_stall() {
            noted.note(beat.until, nobody, Said::Stalled(beat.from));
        }
        let now_ahead = ahead_here();
        if !is_about(now_ahead, ahead) {
            ahead = now_ahead;
            noted.note(beat.until, nobody, Said::Ahead(ahead));
        }
    });
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for session in 0..SESSIONS {
            let number = orders.process * SESSIONS + session;
            let session = Session {
                address: if session % 2 == 0 { &orders.server } else { &orders.proxy }.clone(),
                number,
                history: history.clone(),
                directory: orders.directory.clone(),
                over: Arc::clone(&over),
                requests: AtomicU64::new(1),
            };
            let random = Random::new(orders.seed ^ (number << 20));
            tasks.spawn(Arc::new(session).live(random));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    });
    history.note(now_us(), nobody, Said::Ahead(ahead_here()));
}

/// A session, whatever becomes of its connections.
struct Session {
    /// Where it connects.
    address: String,
    /// Its number among all sessions of all processes.
    number: u64,
    /// Where it writes.
    history: History,
    /// Where resources are.
    directory: PathBuf,
    /// Whether to come to an end.
    over: Arc<AtomicBool>,
    /// The number of its next request.
    requests: AtomicU64,
}

/// How long a request is waited for.
#[derive(Clone, Copy)]
enum Patience {
    Forever,
    Timeout(Duration),
    Try,
    /// Given up after so long, by its client.
    Dropped(Duration),
}

impl Session {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Connects, anew if it must, and has tasks contend.
    async fn live(self: Arc<Self>, mut random: Random) {
        while !self.is_over() {
            let connecting = Client::builder().ttl(TTL).identity(format!("client {}", self.number));
            let Ok(client) = connecting.connect(&self.address).await else {
                sleep(LOOK_AGAIN).await;
                continue;
            };
            let mut tasks = JoinSet::new();
            match self.number % SESSIONS {
                0 | 2 => tasks.spawn(Arc::clone(&self).keep(client.clone())),
                _ => tasks.spawn(Arc::clone(&self).duel(client.clone(), random.next())),
            };
            for _ in 0..CONTENDERS {
                let random = Random::new(random.next());
                tasks.spawn(Arc::clone(&self).contend(client.clone(), random));
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        }
    }

    fn next_request(&self) -> RequestName {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        RequestName { client: self.number, number }
    }

    fn note(&self, request: RequestName, said: Said) {
        self.history.note(now_us(), request, said);
    }

    /// Holds a lock of its own, and nothing else, for as long as it can.
    async fn keep(self: Arc<Self>, client: Client) {
        while !self.is_over() {
            let claims = format!("{OWN_LOCK}{}:x", self.number);
            let Some((request, guard)) = self.acquire(&client, &claims, Patience::Forever).await
            else {
                break;
            };
            let mut random = Random::new(self.number);
            self.use_it(request, guard, Duration::MAX, &claims, &mut random).await;
        }
    }

    /// Takes turns at holding a lock for long, with others who come over the other way: whoever is cut
    /// off holds it, and another waits for its lease to end.
    async fn duel(self: Arc<Self>, client: Client, seed: u64) {
        let mut random = Random::new(seed);
        let claims = format!("duel/{}:x", self.number / SESSIONS);
        while !self.is_over() {
            let Some((request, guard)) = self.acquire(&client, &claims, Patience::Forever).await
            else {
                break;
            };
            let length = TTL / 4 + Duration::from_millis(random.next() % 4_000);
            self.use_it(request, guard, length, &claims, &mut random).await;
        }
    }

    /// Asks for this and that, again and again.
    async fn contend(self: Arc<Self>, client: Client, mut random: Random) {
        let mut is_alive = true;
        while !self.is_over() && is_alive {
            let claims = claims(&mut random);
            let pause = |random: &mut Random| Duration::from_millis(1 + random.next() % 1_500);
            let patience = match random.below(10) {
                0..6 => Patience::Forever,
                6..8 => Patience::Timeout(pause(&mut random)),
                8 => Patience::Try,
                _ => Patience::Dropped(pause(&mut random)),
            };
            if let Some((request, guard)) = self.acquire(&client, &claims, patience).await {
                let longest = if random.once_in(20) { 2_000 } else { 30 };
                let length = Duration::from_millis(random.next() % longest);
                self.use_it(request, guard, length, &claims, &mut random).await;
            } else {
                sleep(Duration::from_millis(random.next() % 20)).await;
            }
            // A client comes to its end if it was refused for good; then there is a next one.
            is_alive = timeout(Duration::ZERO, client.closed()).await.is_err();
        }
    }

    /// Asks, and writes down what came of it.
    async fn acquire(
        &self,
        client: &Client,
        claims: &str,
        patience: Patience,
    ) -> Option<(RequestName, LockGuard)> {
        let request = self.next_request();
        let (session, queued) = (client.session(), Arc::<Mutex<Vec<(Generation, u64)>>>::default());
        let (heard, by) = (Arc::clone(&queued), client.clone());
        let mut asked = client
            .lock_all::<[&str; 0]>([])
            .on_queued(move |_| heard.lock().unwrap().push((by.generation(), now_us())));
        for claim in claims.split(',') {
            let (lock, how) = claim.rsplit_once(':').unwrap();
            asked = match (how, how.split_once('/')) {
                ("x", _) => asked.exclusive(lock),
                (_, Some((take, of))) => {
                    asked.permits(lock, take.parse().unwrap(), of.parse().unwrap())
                }
                _ => asked.shared(lock),
            };
        }
        self.note(request, Said::Invoke(claims.into()));
        let outcome = match patience {
            Patience::Forever => asked.await,
            Patience::Timeout(length) => asked.timeout(length).await,
            Patience::Try => asked.nonblocking().await,
            Patience::Dropped(after) => {
                let Ok(outcome) = timeout(after, asked.into_future()).await else {
                    self.note(request, Said::Abandoned);
                    return None;
                };
                outcome
            }
        };
        match outcome {
            Ok(guard) => {
                // A session that was replaced by another has lost its places. One that was away was
                // passed: it is known to have been in line since it is back.
                if client.session() == session {
                    let queued = std::mem::take(&mut *queued.lock().unwrap());
                    for (_, at) in queued.iter().filter(|(by, _)| *by == client.generation()) {
                        self.history.note(*at, request, Said::Queued);
                    }
                }
                self.note(request, Said::Granted(guard.token().number()));
                Some((request, guard))
            }
            Err(error) => {
                self.note(request, Said::Refused(kind(&error)));
                None
            }
        }
    }

    /// Holds for so long, writes now and then, and gives back.
    async fn use_it(
        &self,
        request: RequestName,
        guard: LockGuard,
        length: Duration,
        claims: &str,
        random: &mut Random,
    ) {
        let began = now_us();
        let until = began.saturating_add(u64::try_from(length.as_micros()).unwrap_or(u64::MAX));
        loop {
            let at = now_us();
            if !guard.is_held() {
                let reason = guard.lost().await;
                self.note(request, Said::Lost(reason.to_string()));
                // As somebody would who does not look: it will be too late, or just in time.
                if random.once_in(2) {
                    sleep(Duration::from_millis(random.next() % 1_000)).await;
                    self.write(request, &guard, claims).await;
                }
                return;
            }
            self.history.note(at, request, Said::Held);
            if at >= until || self.is_over() {
                break;
            }
            if random.once_in(3) {
                self.write(request, &guard, claims).await;
            }
            let pause = Duration::from_micros((until - at).min(40_000)).min(LOOK_AGAIN);
            let _woken_by_its_loss = timeout(pause, guard.lost()).await;
        }
        self.note(request, Said::Release);
        if random.once_in(10) {
            drop(guard);
            return self.note(request, Said::Abandoned);
        }
        match guard.release().await {
            Ok(()) | Err(Error::Lost { .. }) => self.note(request, Said::Released),
            Err(_) => self.note(request, Said::Abandoned),
        }
    }

    /// Writes to what it holds alone.
    async fn write(&self, request: RequestName, guard: &LockGuard, claims: &str) {
        let token = guard.token().number();
        for claim in claims.split(',').filter_map(|claim| claim.strip_suffix(":x")) {
            let (directory, lock) = (self.directory.clone(), claim.to_owned());
            let written = move || write_resource(&directory, &lock, request, token).unwrap();
            spawn_blocking(written).await.unwrap();
        }
    }
}

/// What to ask for: mostly one lock, now and then several.
fn claims(random: &mut Random) -> String {
    let count = if random.once_in(6) { 2 + random.below(2) } else { 1 };
    let mut locks: Vec<usize> = (0..LOCKS).collect();
    let mut claims = Vec::new();
    for _ in 0..count {
        let lock = locks.remove(random.below(locks.len()));
        // Whether a lock is a semaphore is the same for all.
        claims.push(match (lock, random.below(3)) {
            (0, _) => format!("lock/0:{}/3", 1 + random.below(3)),
            (_, 0) => format!("lock/{lock}:s"),
            _ => format!("lock/{lock}:x"),
        });
    }
    claims.join(",")
}

/// What kind of error it is, in a word or two.
fn kind(error: &Error) -> String {
    match error {
        Error::Rejected { code, .. } => format!("Rejected {}", code.name()),
        Error::Dismissed { code, .. } => format!("Dismissed {code}"),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
        }
    }
}
