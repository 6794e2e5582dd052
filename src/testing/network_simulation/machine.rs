//! The coordinator's machine: it runs one coordinator at a time, as production does, from what the
//! disk has.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::diary::Book;
use super::disk::{Disk, Left, Mounted};
use super::network::{Answers, Network};
use super::places::Origin;
use super::process::{Process, SkewedClock};
use super::trace::Trace;
use crate::journal::Distance;
use crate::server::{Beginning, Bound, Config, Data, ServerHandle};

/// After this an orderly stop that does not come to an end is made to.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Why nothing is found where no journal is kept.
const NO_JOURNAL: &str = "no journal is kept";
/// How long a process takes to die whose writes do not get anywhere any more.
const DEATH: Duration = Duration::from_millis(3);
/// Pause after a start that failed.
const START_AGAIN: Duration = Duration::from_millis(500);

/// The machine.
pub(super) struct Machine {
    /// What it is connected to.
    network: Network,
    /// What outlives a crash.
    disk: Arc<Disk>,
    /// Goes on from one coordinator to the next.
    clock: SkewedClock,
    /// Where it is written down which runs there were.
    book: Rc<Book>,
    /// Where it is written down what becomes of them.
    trace: Trace,
    /// The coordinator that runs.
    running: RefCell<Option<Process>>,
    /// Stops it in order, once it has started.
    handle: Rc<RefCell<Option<ServerHandle>>>,
    /// How often one was started.
    starts: Cell<u64>,
    /// How far its journal is before anything is said; none: there is none.
    distance: Option<Distance>,
    /// How many runs went on with the table of one that had crashed.
    replays: Rc<Cell<u64>>,
}

impl Machine {
    pub(super) fn new(
        network: Network,
        disk: Arc<Disk>,
        clock: SkewedClock,
        book: Rc<Book>,
        trace: Trace,
        distance: Option<Distance>,
    ) -> Self {
        let (running, handle) = (RefCell::default(), Rc::default());
        let (starts, replays) = (Cell::new(0), Rc::default());
        Self { network, disk, clock, book, trace, running, handle, starts, distance, replays }
    }

    /// How often a coordinator went on with what one had that crashed.
    pub(super) fn replays(&self) -> u64 {
        self.replays.get()
    }

    /// How often a coordinator was started.
    pub(super) fn starts(&self) -> u64 {
        self.starts.get()
    }

    /// Starts a coordinator, as often as it takes for one to run.
    pub(super) async fn start(&self) {
        loop {
            self.network.close_port(Answers::Yes);
            self.launch();
            // It says at once that it cannot begin.
            sleep(Duration::from_millis(1)).await;
            let process = self.running.take();
            match process.filter(Process::is_alive) {
                Some(process) => {
                    self.running.replace(Some(process));
                    return;
                }
                None => sleep(START_AGAIN).await,
            }
        }
    }

    fn launch(&self) {
        self.starts.set(self.starts.get() + 1);
        self.handle.take();
        let (network, trace, clock) = (self.network.clone(), self.trace.clone(), self.clock);
        let (disk, handle) = (Mounted(Arc::clone(&self.disk)), Rc::clone(&self.handle));
        let of_members = self.network.clone();
        let (book, continues) = (Rc::clone(&self.book), self.disk.has_snapshot());
        let kept = Arc::clone(&self.disk);
        let (journal, replays) = (self.distance, Rc::clone(&self.replays));
        let process = Process::start(async move {
            // No such directory is looked at: it says that there is a next start.
            let data = Data::Directory(PathBuf::from("simulated"));
            let config = Config { data, journal, ..Config::default() };
            let address = config.listen;
            let open = || Ok((network.open_port(), address));
            match Bound::assemble(&config, disk, Box::new(clock), open) {
                Ok(bound) => {
                    trace.say(format_args!("coordinator starts, continues: {continues}"));
                    if let Some(complaint) = judge(kept.left(), &bound.beginning(), &replays) {
                        book.complain(complaint);
                    }
                    kept.begins();
                    let first_token = kept.first_token();
                    let origin = origin(&bound.beginning());
                    of_members.runs(bound.epoch());
                    if matches!(origin, Origin::Clients) {
                        book.forget();
                    }
                    book.places.borrow_mut().run_began(bound.epoch(), origin, first_token);
                    #[cfg(feature = "redis-api")]
                    let bound = if journal.is_some() {
                        bound.speaking_redis(&config, network.open_strangers_port(), address)
                    } else {
                        bound
                    };
                    handle.replace(Some(bound.handle()));
                    // Whether all was saved is seen on the disk.
                    let _ = bound.run().await;
                    trace.say(format_args!("coordinator has ended"));
                }
                Err(error) => trace.say(format_args!("coordinator cannot start: {error}")),
            }
        });
        self.running.replace(Some(process));
    }

    /// The coordinator dies; whether its machine still `answers`, decides how clients notice.
    pub(super) async fn crash(&self, answers: Answers) {
        self.trace.say(format_args!("coordinator crashes, its machine answers: {answers:?}"));
        self.network.silence_coordinator();
        self.network.close_port(answers);
        // Nothing that it does now is seen, and of what it writes a half at most is kept.
        self.disk.stop_journal();
        sleep(DEATH).await;
        let process = self.running.take();
        if let Some(process) = process {
            process.kill().await;
        }
        self.disk.heal_journal();
    }

    /// The power is cut, and comes back.
    pub(super) async fn cut_power(&self) {
        self.crash(Answers::No).await;
        self.disk.cut_power();
        if self.distance == Some(Distance::Process) {
            self.disk.leaves(Left::Nothing);
        }
    }

    /// The coordinator stops in order; if it cannot, that is a crash.
    pub(super) async fn stop(&self) {
        self.trace.say(format_args!("coordinator is told to stop"));
        if let Some(handle) = &*self.handle.borrow() {
            handle.drain();
        }
        let process = self.running.take();
        let Some(mut process) = process else { return };
        if timeout(STOP_MAX, process.ended()).await.is_err() {
            self.running.replace(Some(process));
            return self.crash(Answers::Yes).await;
        }
        self.network.close_port(Answers::Yes);
    }

    /// The coordinator stands still for so long.
    pub(super) fn stall(&self, length: Duration) {
        self.trace.say(format_args!("coordinator stalls for {length:?}"));
        if let Some(process) = &*self.running.borrow() {
            let freezer = process.freezer();
            freezer.freeze();
            spawn_local(async move {
                sleep(length).await;
                freezer.thaw();
            });
        }
    }
}

/// What a run goes on from.
fn origin(beginning: &Beginning) -> Origin {
    match beginning {
        Beginning::Saved => Origin::Stop,
        Beginning::Replayed { .. } => Origin::Journal,
        Beginning::New | Beginning::Lost { .. } => Origin::Clients,
    }
}

/// What is wrong with how a run began, if anything: after a crash of the process nothing may be lost.
fn judge(left: Left, beginning: &Beginning, replays: &Cell<u64>) -> Option<String> {
    let is_replay = matches!(beginning, Beginning::Replayed { .. });
    replays.set(replays.get() + u64::from(is_replay));
    match (left, beginning) {
        (Left::Everything, Beginning::Lost { why, .. }) if why != NO_JOURNAL => {
            Some(format!("a grace period, though everything was written down: {why}"))
        }
        (Left::Nothing, Beginning::Replayed { .. }) => {
            Some("a journal is used that was not synced".to_owned())
        }
        (Left::Everything | Left::Nothing | Left::Anything, _) => None,
    }
}
