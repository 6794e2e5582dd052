//! Who keeps a blocking client going: whoever waits for an answer, and else a thread of its own.
//!
//! The connection has a runtime of one thread, and that is whichever thread is in it. Those who wait are in it
//! themselves, so an answer costs no switch to another thread and back. The client's own thread leaves as soon as
//! somebody comes, and comes back when nobody has come for a moment ([`AWAY`]).
//!
//! Who finds its answer there at once does not wait, and keeps nothing going: tokio then runs no task, and looks at
//! no timer or socket. The thread takes no notice of those, however many come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use super::Error;
use crate::client::process::Process;

/// How long the end of the last handle waits for the thread, and then for the names that are still looked up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// The thread comes back when nobody has come for this long, or at once for what nobody waits for.
const AWAY: Duration = Duration::from_millis(1);

/// What a client's handles keep alive.
#[derive(Debug)]
pub(super) struct Background {
    /// The runtime, and who is in it. Taken only when dropped.
    turns: Option<Arc<Turns>>,
    /// The thread of its own. Taken only when dropped.
    thread: Option<Own>,
    /// Its process: one that forked from it has no such thread.
    process: Process,
}

/// The thread of its own.
#[derive(Debug)]
struct Own {
    /// The thread.
    handle: JoinHandle<()>,
    /// Closed when it has let go of the runtime.
    done: Mutex<Receiver<Infallible>>,
}

/// Whose turn it is to be in the runtime.
#[derive(Debug)]
pub(super) struct Turns {
    /// The runtime. Of several who are in it, one does the work, and the others wait for theirs.
    runtime: Runtime,
    /// Who is in it.
    state: Mutex<State>,
    /// Tells the thread that it has changed.
    changed: Condvar,
    /// Tells the thread to leave the runtime.
    wanted: Notify,
    /// For how long nobody has come when the thread comes back.
    away: Duration,
}

/// Who is in the runtime.
#[derive(Debug, Default)]
struct State {
    /// How many wait now for an answer that was not there at once.
    waiting: usize,
    /// How many have begun to do so by now.
    calls: u64,
    /// Where the thread is.
    thread: Place,
    /// There is something to do that nobody waits for.
    is_needed: bool,
    /// All handles are gone.
    is_over: bool,
}

/// Where the thread is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Out of the runtime, for a moment.
    #[default]
    Away,
    /// In the runtime.
    Within,
    /// Asleep, until nobody waits.
    Asleep,
}

impl Turns {
    fn locked(&self) -> MutexGuard<'_, State> {
        // Nobody panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for `work`, and keeps the client going meanwhile.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let mut turn = None;
        let awaited = async {
            let mut work = pin!(work);
            poll_fn(|context| {
                let polled = work.as_mut().poll(context);
                if polled.is_pending() {
                    turn.get_or_insert_with(|| self.begin());
                }
                polled
            })
            .await
        };
        self.runtime.block_on(awaited)
    }

    /// Waits for `work` that calls the program, and does nothing else meanwhile: however long that takes, the thread
    /// keeps the client going.
    fn wait_aside<T>(&self, work: impl Future<Output = T>) -> T {
        self.see_to_it();
        self.runtime.handle().block_on(work)
    }

    /// Somebody is in the runtime until this is dropped.
    fn begin(&self) -> Turn<'_> {
        let mut state = self.locked();
        state.waiting += 1;
        state.calls += 1;
        if state.thread == Place::Within {
            state.thread = Place::Away;
            self.wanted.notify_one();
        }
        Turn(self)
    }

    /// Has the thread see to what nobody waits for.
    fn see_to_it(&self) {
        let mut state = self.locked();
        if state.thread != Place::Within {
            state.is_needed = true;
            self.changed.notify_one();
        }
    }

    /// Keeps the client going while nobody else does.
    fn keep(&self) {
        while self.nobody_comes() {
            self.runtime.block_on(self.wanted.notified());
        }
    }

    /// Waits until nobody has come for a while, or something is to be done; false when all is over.
    fn nobody_comes(&self) -> bool {
        let mut state = self.locked();
        while !state.is_over {
            if mem::take(&mut state.is_needed) && state.waiting == 0 {
                state.thread = Place::Within;
                return true;
            }
            let calls = state.calls;
            let waited = self.changed.wait_timeout(state, self.away);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over || state.is_needed || state.calls != calls {
                continue;
            }
            if state.waiting == 0 {
                state.thread = Place::Within;
                return true;
            }
            // A long wait: whoever is the last says when it is over.
            state.thread = Place::Asleep;
            while state.thread == Place::Asleep && !state.is_over {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        false
    }

    /// All handles are gone.
    fn end(&self) {
        self.locked().is_over = true;
        self.changed.notify_one();
        self.wanted.notify_one();
    }
}

/// The turn of one who waits.
struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.locked();
        state.waiting -= 1;
        if state.waiting == 0 && state.thread == Place::Asleep {
            state.thread = Place::Away;
            self.0.changed.notify_one();
        }
    }
}

impl Background {
    pub(super) fn start() -> Result<Arc<Self>, Error> {
        Self::start_with(AWAY)
    }

    fn start_with(away: Duration) -> Result<Arc<Self>, Error> {
        // First: a runtime must not be dropped there, should the thread fail to start.
        refuse_async()?;
        let failed = |error| Error::invalid("cannot start the client's thread", error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let turns = Arc::new(Turns {
            runtime,
            state: Mutex::default(),
            changed: Condvar::new(),
            wanted: Notify::new(),
            away,
        });
        let kept = Arc::clone(&turns);
        let (ends, done) = mpsc::channel();
        let keep = move || {
            // Dropped last: the runtime is then let go of.
            let _ends = ends;
            let kept = kept;
            kept.keep();
        };
        let thread = thread::Builder::new().name("coordinator-client".to_owned());
        let handle = thread.spawn(keep).map_err(failed)?;
        let thread = Own { handle, done: Mutex::new(done) };
        let process = Process::this();
        Ok(Arc::new(Self { turns: Some(turns), thread: Some(thread), process }))
    }

    /// Waits for `work`.
    pub(super) fn wait<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.turns()?.wait(work)
    }

    /// Waits for `work` that calls the program.
    pub(super) fn wait_aside<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.turns()?.wait_aside(work)
    }

    /// The runtime, for those who may wait.
    pub(super) fn turns(&self) -> Result<&Turns, Error> {
        if self.is_anothers() {
            return Err(Error::Forked);
        }
        refuse_async()?;
        self.turns.as_deref().ok_or(Error::Closed)
    }

    /// Has the thread see to what a destructor says.
    fn see_to_it(&self) {
        if let Some(turns) = self.turns.as_ref().filter(|_| !self.is_anothers()) {
            turns.see_to_it();
        }
    }

    /// Whether this process forked from the one that has the thread.
    pub(super) fn is_anothers(&self) -> bool {
        self.process.is_another()
    }
}

/// Waiting would block the other tasks of async code.
fn refuse_async() -> Result<(), Error> {
    let why = "this thread runs async code; use coordinator::Client instead";
    let is_async = Handle::try_current().is_ok();
    if is_async { Err(Error::invalid("cannot block here", why)) } else { Ok(()) }
}

impl Own {
    /// Waits for its end, unless that takes too long: it may be within a call of the program's.
    fn join(self) {
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        if done.recv_timeout(SHUTDOWN_TIMEOUT) == Err(RecvTimeoutError::Disconnected) {
            let _panicked = self.handle.join();
        }
    }
}

/// What is said when this is dropped is seen to at once, though nobody waits; not if somebody does.
#[derive(Debug)]
pub(super) struct Unawaited(Option<Arc<Background>>);

impl Unawaited {
    pub(super) fn new(background: &Arc<Background>) -> Self {
        Self(Some(Arc::clone(background)))
    }

    /// Somebody waits for it.
    pub(super) fn is_awaited(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unawaited {
    fn drop(&mut self) {
        if let Some(background) = &self.0 {
            background.see_to_it();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let (Some(turns), Some(thread)) = (self.turns.take(), self.thread.take()) else { return };
        if self.is_anothers() {
            // There is no thread to wait for, and what it has is not ours to close.
            mem::forget((turns, thread));
            return;
        }
        turns.end();
        if Handle::try_current().is_ok() {
            // Waiting is not allowed here. What is left to say is said as the thread ends, or here if it has.
            if let Some(turns) = Arc::into_inner(turns) {
                turns.runtime.shutdown_background();
            }
            return;
        }
        // It waits for nothing any more. What it leaves says goodbye when it is dropped, so that a program's last
        // lock is not left to its lease.
        thread.join();
        if let Some(turns) = Arc::into_inner(turns) {
            turns.runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::sleep;

    use super::*;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn pause(length: Duration) -> Result<(), Error> {
        sleep(length).await;
        Ok(())
    }

    #[test]
    fn what_goes_on_goes_on_though_nobody_waits() {
        let background = Background::start().unwrap();
        let (tell, told) = mpsc::channel();
        let begin = async move {
            tokio::spawn(async move {
                for round in 0..3 {
                    sleep(AWAY * 2).await;
                    tell.send(round).unwrap();
                }
            });
            Ok(())
        };
        background.wait(begin).unwrap();
        for round in 0..3 {
            assert_eq!(told.recv_timeout(PATIENCE), Ok(round));
        }
    }

    #[test]
    fn all_who_wait_are_answered_whichever_of_them_does_the_work() {
        let background = Background::start().unwrap();
        let calls = || {
            for _ in 0..200 {
                let (tell, told) = oneshot::channel();
                let answered = async move {
                    tokio::spawn(async move { tell.send(7).unwrap() });
                    Ok(told.await.unwrap())
                };
                assert_eq!(background.wait(answered).unwrap(), 7);
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(calls);
            }
        });
    }

    #[test]
    fn a_long_wait_is_ended_by_what_another_does() {
        let background = Background::start().unwrap();
        let (tell, told) = oneshot::channel();
        thread::scope(|scope| {
            let waits = scope.spawn(|| background.wait(async { Ok(told.await.unwrap()) }).unwrap());
            // By then its thread sleeps, or does not: it is all the same.
            background.wait(pause(AWAY * 3)).unwrap();
            tell.send(7).unwrap();
            background.wait(pause(Duration::ZERO)).unwrap();
            assert_eq!(waits.join().unwrap(), 7);
        });
        let (tell, told) = mpsc::channel();
        let begin = async {
            tokio::spawn(async move { tell.send(()).unwrap() });
            Ok(())
        };
        background.wait(begin).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(()));
    }

    #[test]
    fn what_goes_on_goes_on_however_many_calls_find_their_answers_there() {
        let background = Background::start().unwrap();
        let is_over = AtomicBool::new(false);
        let (tell, told) = mpsc::channel();
        let begin = async move {
            tokio::spawn(async move {
                // So many that the moments in which no such call comes do not do.
                for _ in 0..100 {
                    sleep(AWAY).await;
                }
                tell.send(()).unwrap();
            });
            yield_now().await;
            Ok(())
        };
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        background.wait(async { Ok(()) }).unwrap();
                    }
                });
            }
            background.wait(begin).unwrap();
            let went_on = told.recv_timeout(PATIENCE);
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(went_on, Ok(()));
        });
    }

    #[test]
    fn the_last_handle_does_not_wait_for_a_thread_that_is_held_up() {
        let background = Background::start_with(Duration::ZERO).unwrap();
        let handle = background.turns().unwrap().runtime.handle().clone();
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        handle.spawn(async move {
            enter.send(()).unwrap();
            left.recv_timeout(PATIENCE).unwrap();
        });
        entered.recv_timeout(PATIENCE).unwrap();
        let begun = Instant::now();
        drop(background);
        assert!(begun.elapsed() < PATIENCE / 2);
        leave.send(()).unwrap();
    }

    #[tokio::test]
    async fn nothing_is_started_in_async_code() {
        assert!(matches!(Background::start(), Err(Error::InvalidRequest { .. })));
    }

    #[test]
    fn what_nobody_waits_for_is_done_at_once_also_just_after_a_call() {
        // The thread does not come back by itself.
        let background = Background::start_with(Duration::from_secs(3600)).unwrap();
        let handle = background.turns().unwrap().runtime.handle().clone();
        for round in 0..100 {
            let waits = async {
                yield_now().await;
                Ok(())
            };
            background.wait(waits).unwrap();
            let (tell, told) = mpsc::channel();
            handle.spawn(async move { tell.send(round).unwrap() });
            drop(Unawaited::new(&background));
            assert_eq!(told.recv_timeout(PATIENCE), Ok(round));
        }
    }

    #[test]
    fn a_program_that_is_called_while_it_waits_holds_up_nobody_however_long_it_takes() {
        let background = Background::start().unwrap();
        let (enter, entered) = mpsc::channel();
        let (leave, left) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let background = &background;
            scope.spawn(move || {
                let calls_back = async move {
                    enter.send(()).unwrap();
                    left.recv().unwrap();
                    Ok(())
                };
                background.wait_aside(calls_back).unwrap();
            });
            entered.recv_timeout(PATIENCE).unwrap();
            background.wait(pause(AWAY)).unwrap();
            leave.send(()).unwrap();
        });
    }

    #[test]
    fn with_the_last_handle_goes_all_that_went_on() {
        let background = Background::start().unwrap();
        let kept = Arc::new(());
        let held = Arc::clone(&kept);
        let begin = async move {
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(held);
            });
            Ok(())
        };
        background.wait(begin).unwrap();
        drop(background);
        assert_eq!(Arc::strong_count(&kept), 1);
    }
}
