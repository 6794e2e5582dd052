//! Who keeps a blocking client going: whoever waits for an answer, and else a thread of its own.
//!
//! The connection has a runtime of one thread, and that is whichever thread is in it. Those who wait are in it
//! themselves, so an answer costs no switch to another thread and back. The client's own thread leaves as soon as
//! somebody comes, and comes back when nobody has come for a moment ([`AWAY`]).

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Notify;

use super::Error;
use crate::client::process::Process;

/// How long the end of the last handle waits for the names that are still looked up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// The thread comes back when nobody has come for this long, or at once for what nobody waits for.
const AWAY: Duration = Duration::from_millis(1);

/// What a client's handles keep alive.
#[derive(Debug)]
pub(super) struct Background {
    /// The runtime, and who is in it. Taken only when dropped.
    turns: Option<Arc<Turns>>,
    /// The thread of its own. Taken only when dropped.
    thread: Option<JoinHandle<()>>,
    /// Its process: one that forked from it has no such thread.
    process: Process,
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
}

/// Who is in the runtime.
#[derive(Debug, Default)]
struct State {
    /// How many wait for an answer now.
    waiting: usize,
    /// How many have begun to wait so far.
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
        let _turn = self.begin();
        self.runtime.block_on(work)
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
            let waited = self.changed.wait_timeout(state, AWAY);
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
        let failed = |error| Error::invalid("cannot start the client's thread", error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let turns = Arc::new(Turns {
            runtime,
            state: Mutex::default(),
            changed: Condvar::new(),
            wanted: Notify::new(),
        });
        let kept = Arc::clone(&turns);
        let thread = thread::Builder::new().name("coordinator-client".to_owned());
        let thread = thread.spawn(move || kept.keep()).map_err(failed)?;
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
        if Handle::try_current().is_ok() {
            let why = "this thread runs async code; use coordinator::Client instead";
            return Err(Error::invalid("cannot block here", why));
        }
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
        let _panicked = thread.join();
        if let Some(turns) = Arc::into_inner(turns) {
            turns.runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::oneshot;
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
    fn what_nobody_waits_for_is_done_at_once_also_just_after_a_call() {
        let background = Background::start().unwrap();
        let handle = background.turns().unwrap().runtime.handle().clone();
        for round in 0..100 {
            background.wait(async { Ok(()) }).unwrap();
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
