//! The course of a measurement: connect, warm up, measure, end.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::outcome::{Course, Outcome};
use super::plan::{Connections, Extent, Plan, Priority};
use super::player::Player;
use super::run::Run;
use super::tally::Tally;
use super::usage::Usage;
use super::{Error, Link, Peer};

/// How long answers may take after the end.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same, if a person waits for it.
const PATIENCE_INTERRUPTED: Duration = Duration::from_millis(500);
/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Nobody comes behind who is so nice.
#[cfg(target_os = "linux")]
const NICE_MAX: i32 = 19;

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Connections are made.
    Connecting,
    /// Nothing counts yet.
    WarmingUp,
    /// So many pairs are done, in this time.
    Measured {
        /// How many pairs.
        pairs: u64,
        /// In which time.
        elapsed: Duration,
    },
}

/// What a thread tells.
enum Word {
    /// All its connections are there.
    Connected,
    /// All its connections are done, or one of them failed.
    Done(Result<(), Error>),
}

/// Why a wait was over.
enum Waited {
    /// What was waited for has come.
    Well,
    /// The user does not want to wait any more.
    Interrupted,
}

/// Takes the measurement. `server_pid` is the process whose time on the CPU is wanted; when
/// `interrupted` is ready, it ends with what there is. Progress is told to `tell` now and then.
pub(crate) async fn measure<P: Peer>(
    peer: P,
    plan: Plan,
    server_pid: Option<u32>,
    interrupted: impl Future<Output = ()>,
    mut tell: impl FnMut(Progress),
) -> Result<Outcome, Error> {
    let mut interrupted = pin!(interrupted);
    Used::until_now(server_pid)?;
    let mut threads = Threads::start(&peer, plan)?;
    tell(Progress::Connecting);
    let waited = unless(&mut interrupted, threads.connected()).await?;
    if let Waited::Interrupted = waited {
        return Ok(threads.outcome(Course::default()));
    }
    if !threads.run.plan.warmup.is_zero() {
        threads.go();
        tell(Progress::WarmingUp);
        let waited = unless(&mut interrupted, threads.warmed_up()).await?;
        if let Waited::Interrupted = waited {
            return Ok(threads.outcome(Course::default()));
        }
    }

    let before = Used::until_now(server_pid)?;
    let began = Instant::now();
    threads.run.begin_measuring();
    threads.go();
    let waited = unless(&mut interrupted, threads.measured(tell)).await?;
    let elapsed = began.elapsed();
    threads.run.end();
    let after = Used::until_now(server_pid)?;
    let course = Course {
        elapsed,
        server_cpu: after.server.zip(before.server).map(|(after, before)| after.since(&before)),
        own_cpu: after.own.zip(before.own).map(|(after, before)| after.since(&before)),
        is_complete: matches!(waited, Waited::Well),
    };
    match waited {
        Waited::Well => threads.finished(PATIENCE).await?,
        Waited::Interrupted => {
            // What was measured is wanted, whether or not the rest still answers.
            let _partly = threads.finished(PATIENCE_INTERRUPTED).await;
        }
    }
    Ok(threads.outcome(course))
}

/// Time on the CPU until a moment.
struct Used {
    /// The server's, if it is wanted.
    server: Option<Usage>,
    /// Our own, where the system tells.
    own: Option<Usage>,
}

impl Used {
    fn until_now(server_pid: Option<u32>) -> Result<Self, Error> {
        let of = |pid| Usage::of(pid).map_err(|source| Error::NoProcess { pid, source });
        Ok(Self { server: server_pid.map(of).transpose()?, own: of(std::process::id()).ok() })
    }
}

/// Waits for `work`, or for the user to have enough.
async fn unless(
    interrupted: impl Future<Output = ()>,
    work: impl Future<Output = Result<(), Error>>,
) -> Result<Waited, Error> {
    tokio::select! {
        biased;
        () = interrupted => Ok(Waited::Interrupted),
        done = work => done.map(|()| Waited::Well),
    }
}

/// The threads that serve the connections.
struct Threads {
    /// Parts that all connections share.
    run: Arc<Run>,
    /// Measurements of each thread so far.
    tallies: Vec<Arc<Mutex<Tally>>>,
    /// Messages of the threads.
    words: UnboundedReceiver<Word>,
    /// Lets the connections go.
    go: watch::Sender<bool>,
    /// How many threads are not done.
    running: usize,
}

impl Threads {
    /// Starts them; they connect.
    fn start<P: Peer>(peer: &P, plan: Plan) -> Result<Self, Error> {
        let threads = plan.threads.clamp(1, plan.connections.max(1));
        let run = Arc::new(Run::new(plan));
        let (tell, words) = unbounded_channel();
        let (go, gone) = watch::channel(false);
        let mut tallies = Vec::new();
        for first in 0..threads {
            let numbers: Vec<usize> = (first..run.plan.connections).step_by(threads).collect();
            let tally = Arc::new(Mutex::new(Tally::new()));
            tallies.push(Arc::clone(&tally));
            let (run, peer, tell) = (Arc::clone(&run), peer.clone(), tell.clone());
            let mut gone = gone.clone();
            let serve = move || {
                let tell_done = tell.clone();
                let has_place = take_place(run.plan.priority);
                let work = async move {
                    let done = serve(&run, &tally, &peer, &numbers, &mut gone, &tell).await;
                    // Nobody listens any more once the measurement is given up.
                    let _ = tell.send(Word::Done(done));
                    // The kernel forgets the time of a thread that has ended.
                    while gone.changed().await.is_ok() {}
                };
                let served = has_place.and_then(|()| on_own_runtime(work));
                if let Err(error) = served {
                    let _ = tell_done.send(Word::Done(Err(error.into())));
                }
            };
            std::thread::Builder::new().name("load".to_owned()).spawn(serve)?;
        }
        Ok(Self { run, tallies, words, go, running: threads })
    }

    /// Waits until all connections are there.
    async fn connected(&mut self) -> Result<(), Error> {
        for _ in 0..self.running {
            match self.words.recv().await {
                Some(Word::Connected) => {}
                Some(Word::Done(Err(error))) => return Err(error),
                Some(Word::Done(Ok(()))) | None => return Err(ended_early()),
            }
        }
        Ok(())
    }

    /// Lets the connections go.
    fn go(&self) {
        self.run.start();
        self.go.send_replace(true);
    }

    /// Waits until what is measured is of the usual kind.
    async fn warmed_up(&mut self) -> Result<(), Error> {
        let warmup = self.run.plan.warmup;
        self.unless_failed(sleep(warmup)).await
    }

    /// Waits until enough is measured, and tells how far it is.
    async fn measured(&mut self, mut tell: impl FnMut(Progress)) -> Result<(), Error> {
        let run = Arc::clone(&self.run);
        let began = Instant::now();
        let telling = async {
            let mut ticks = interval(PROGRESS_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                tell(Progress::Measured { pairs: run.done(), elapsed: began.elapsed() });
            }
        };
        let enough = async {
            match run.plan.extent {
                Extent::For(duration) => sleep(duration).await,
                Extent::Pairs(_) => run.all_done().await,
            }
        };
        let work = async {
            tokio::select! {
                biased;
                () = enough => {}
                () = telling => {}
            }
        };
        self.unless_failed(work).await
    }

    /// Waits for `work`, unless a connection fails. By number, connections may be done before.
    async fn unless_failed(&mut self, work: impl Future<Output = ()>) -> Result<(), Error> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = &mut work => return Ok(()),
                Some(Word::Done(done)) = self.words.recv() => {
                    self.running -= 1;
                    done?;
                }
            }
        }
    }

    /// Waits until all connections are done, or answers take too long.
    async fn finished(&mut self, patience: Duration) -> Result<(), Error> {
        let mut too_long = pin!(sleep(patience));
        while self.running > 0 {
            tokio::select! {
                word = self.words.recv() => match word {
                    Some(Word::Done(done)) => {
                        self.running -= 1;
                        done?;
                    }
                    Some(Word::Connected) => {}
                    None => return Err(ended_early()),
                },
                () = &mut too_long => return Err(Error::Silent(patience)),
            }
        }
        Ok(())
    }

    /// What was measured.
    fn outcome(self, course: Course) -> Outcome {
        let mut sum = Tally::new();
        for tally in &self.tallies {
            sum.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Outcome::new(&self.run, &sum, course)
    }
}

/// Gives this thread its priority. On Linux each has its own; elsewhere that would be the whole process's.
fn take_place(priority: Priority) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if priority == Priority::Lowest {
        rustix::process::nice(NICE_MAX)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = priority;
    Ok(())
}

fn ended_early() -> Error {
    io::Error::other("a thread of the load generator ended").into()
}

fn on_own_runtime(work: impl Future<Output = ()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(work));
    Ok(())
}

/// Serves the connections with these numbers on this thread.
async fn serve<P: Peer>(
    run: &Arc<Run>,
    tally: &Arc<Mutex<Tally>>,
    peer: &P,
    numbers: &[usize],
    gone: &mut watch::Receiver<bool>,
    tell: &UnboundedSender<Word>,
) -> Result<(), Error> {
    let mut links = Vec::new();
    for number in numbers {
        links.push(match run.plan.keep {
            Connections::Kept => {
                let mut link = peer.connect(*number).await?;
                link.greet().await?;
                Some(link)
            }
            Connections::PerIteration => None,
        });
    }
    let _ = tell.send(Word::Connected);
    if gone.wait_for(|gone| *gone).await.is_err() {
        return Ok(());
    }
    let mut players = JoinSet::new();
    for (number, link) in numbers.iter().zip(links) {
        let player = Player::new(Arc::clone(run), Arc::clone(tally), peer.clone(), *number);
        players.spawn_local(player.play(link));
    }
    while let Some(played) = players.join_next().await {
        played.map_err(io::Error::other)??;
    }
    Ok(())
}
