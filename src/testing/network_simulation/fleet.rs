//! The client processes: each has a client of the library, some tasks that use it, and a machine of its
//! own with a clock of its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::contender::Contender;
use super::diary::{Book, Diary};
use super::network::Network;
use super::process::{Process, SkewedClock};
use crate::client::{Client, Error};
use crate::testing::fuzz::Random;

/// Tasks of a client.
const TASKS: u64 = 2;
/// The client to which nothing happens: the first, and the only one in its place.
const SHELTERED: u64 = 1;
/// Pause after a first connection that failed.
const CONNECT_AGAIN: Duration = Duration::from_millis(300);
/// In peace, a watch shows what is so within this.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// A client process.
struct Running {
    /// The number of its client.
    client: u64,
    /// Its tasks.
    process: Process,
}

/// All of them.
pub(super) struct Fleet {
    /// How they reach the coordinator.
    network: Network,
    /// Where they write.
    book: Rc<Book>,
    /// What each of them is made from.
    random: RefCell<Random>,
    /// By place; none between a process and its successor.
    running: RefCell<Vec<Option<Running>>>,
    /// The latest client's number.
    latest: RefCell<u64>,
    /// What leases are chosen from, in milliseconds.
    ttls: &'static [u64],
}

impl Fleet {
    /// Starts so many.
    pub(super) fn start(
        network: Network,
        book: Rc<Book>,
        mut random: Random,
        count: usize,
    ) -> Self {
        let ttls: &[u64] = if random.once_in(2) { &[2_000] } else { &[2_000, 3_000, 10_000] };
        let (random, latest) = (RefCell::new(random), RefCell::new(0));
        let running = RefCell::default();
        network.shelter(SHELTERED);
        let fleet = Self { network, book, random, running, latest, ttls };
        for _ in 0..count {
            let started = fleet.launch();
            fleet.running.borrow_mut().push(Some(started));
        }
        fleet
    }

    fn launch(&self) -> Running {
        *self.latest.borrow_mut() += 1;
        let client = *self.latest.borrow();
        let mut random = Random::new(self.random.borrow_mut().next());
        let clock = SkewedClock::any(&mut random);
        let diary = Diary::new(Rc::clone(&self.book), client, clock);
        let ttl = Duration::from_millis(*random.pick(self.ttls));
        let process = Process::start(live(self.network.clone(), diary, random, ttl));
        Running { client, process }
    }

    /// The disk of the coordinator hangs.
    pub(super) fn hangs(&self) {
        self.book.hangs();
    }

    /// The client in one of the places, if one is there.
    pub(super) fn client(&self, place: usize) -> Option<u64> {
        self.running.borrow()[place].as_ref().map(|running| running.client)
    }

    /// How many places there are.
    pub(super) fn places(&self) -> usize {
        self.running.borrow().len()
    }

    /// How many clients there were.
    pub(super) fn clients(&self) -> u64 {
        *self.latest.borrow()
    }

    /// The one in `place` stands still for so long.
    pub(super) fn stall(&self, place: usize, length: Duration) {
        if let Some(running) = &self.running.borrow()[place] {
            let freezer = running.process.freezer();
            freezer.freeze();
            spawn_local(async move {
                sleep(length).await;
                freezer.thaw();
            });
        }
    }

    /// The one in `place` dies without a word, and another begins later.
    pub(super) async fn replace(&self, place: usize, after: Duration) {
        let running = self.running.borrow_mut()[place].take();
        let Some(Running { client, process }) = running else { return };
        self.network.silence(client);
        process.kill().await;
        self.book.bury(client);
        sleep(after).await;
        let started = self.launch();
        self.running.borrow_mut()[place] = Some(started);
    }

    /// Waits for all of them to come to an end.
    pub(super) async fn ended(&self) {
        for place in 0..self.places() {
            let running = self.running.borrow_mut()[place].take();
            if let Some(mut running) = running {
                running.process.ended().await;
            }
        }
    }
}

/// A client process.
async fn live(network: Network, diary: Diary, mut random: Random, ttl: Duration) {
    let client = loop {
        let builder = Client::builder().clock(Arc::new(diary.clock)).seed(random.next());
        let builder = builder.ttl(ttl).identity(format!("client {}", diary.client));
        match builder.connect_locally(network.route(diary.client)).await {
            Ok(client) => break client,
            Err(Error::Unavailable { .. } | Error::Draining { .. }) => sleep(CONNECT_AGAIN).await,
            Err(error) => {
                diary.complain(format!("client {} connects: {error:?}", diary.client));
                sleep(CONNECT_AGAIN).await;
            }
        }
    };
    let session = client.session();
    let watching = spawn_local(watch_to_the_end(client.clone(), diary.clone()));
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (diary, client, network) = (diary.clone(), client.clone(), network.clone());
        let random = Random::new(random.next());
        tasks.push(spawn_local(Contender { diary, client, network, random }.run()));
    }
    for task in tasks {
        if let Err(failed) = task.await {
            diary.complain(format!("a task of client {} failed: {failed}", diary.client));
        }
    }
    let _ended = watching.await;
    if diary.client == SHELTERED && client.session() != session && !diary.book().has_hung() {
        diary.complain("the client to which nothing happened has another session".to_owned());
    }
    // Some just go away, which frees everything as well.
    if random.once_in(4) {
        drop(client);
        sleep(Duration::from_secs(2)).await;
    } else if let Err(error) = client.close().await {
        diary.complain(format!("client {} closes: {error:?}", diary.client));
    }
}

/// Watches a lock that only this client takes, all the time, and takes it in the end: then it is seen,
/// over whatever connection that may be by then.
async fn watch_to_the_end(client: Client, diary: Diary) {
    let name = format!("own/{}", diary.client);
    let complain = |what: String| diary.complain(format!("client {} {what}", diary.client));
    let mut watch = loop {
        match client.watch(&name).await {
            Ok(watch) => break watch,
            Err(_) => sleep(CONNECT_AGAIN).await,
        }
    };
    let taken = loop {
        let is_over = diary.book().is_over();
        if !is_over {
            sleep(CONNECT_AGAIN).await;
            continue;
        }
        match client.lock(&name).await {
            Ok(guard) => break guard,
            Err(Error::Unavailable { .. } | Error::Draining { .. }) => sleep(CONNECT_AGAIN).await,
            Err(error) => return complain(format!("takes its own lock: {error:?}")),
        }
    };
    let seen = async {
        loop {
            match watch.next().await {
                Some(Ok(state)) => {
                    let lock = state.in_use();
                    let holder = lock.and_then(|lock| Some(lock.holders.first()?.token));
                    if holder == Some(taken.token()) {
                        return true;
                    }
                }
                Some(Err(_)) | None => return false,
            }
        }
    };
    match timeout(SEEN_WITHIN, seen).await {
        Ok(true) => diary.count("watches that lasted"),
        Ok(false) => complain("watches, and hears that it is over".to_owned()),
        Err(_) => complain("watches, and does not see what is so".to_owned()),
    }
}
