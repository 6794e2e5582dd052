//! The turnstile: handshakes of a thread take turns with its sessions, and with each other.
//!
//! A handshake takes a hundred times the work of a message. So after a step that took some time, the thread
//! makes no other step for as long (duty cycle). Handshakes that wait stand in line, and only the first of
//! them is woken: however many there are, each step costs two wake-ups. Those that have begun stand before
//! new ones, so that work done is work finished.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Handshakes rest once they have taken so much time: less cannot be slept.
const WORK_MAX: Duration = Duration::from_millis(1);
/// The longest rest. A step that took longer was none of work: the machine stood still.
pub(super) const REST_MAX: Duration = Duration::from_millis(20);

/// A place in line: new ones stand behind those that have begun.
type Place = (IsNew, u64);
type IsNew = bool;

#[derive(Default)]
struct Turnstile {
    /// What handshakes have taken since they rested.
    work: Duration,
    /// Until when they rest.
    rests_until: Option<Instant>,
    /// Who waits for a turn.
    line: BTreeMap<Place, Waker>,
    /// The latest number in line.
    latest: u64,
}

thread_local! {
    static TURNSTILE: RefCell<Turnstile> = RefCell::default();
}

/// The turns of one handshake.
#[derive(Default)]
pub(super) struct Turns {
    /// Its place in line, while it waits.
    place: Option<Place>,
    /// Whether it has had a turn.
    has_begun: bool,
    /// While it is the first in line: until the rest is over.
    rest: Option<Pin<Box<Sleep>>>,
}

/// Where a handshake stands.
enum Stand {
    /// It has its turn.
    Turn,
    /// It is the next, once the thread has rested.
    First {
        /// Until then.
        rests_until: Instant,
    },
    /// Others are before it.
    Behind,
}

impl Turns {
    /// Waits for a turn.
    pub(super) fn poll_turn(&mut self, task: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.stand_in_line(task.waker()) {
                Stand::Turn => break,
                Stand::Behind => return Poll::Pending,
                Stand::First { rests_until } => {
                    let rest = self.rest.get_or_insert_with(|| Box::pin(sleep_until(rests_until)));
                    ready!(rest.as_mut().poll(task));
                    self.rest = None;
                }
            }
        }
        self.leave();
        self.has_begun = true;
        Poll::Ready(())
    }

    /// Stands in line, unless it has its turn.
    fn stand_in_line(&mut self, waker: &Waker) -> Stand {
        let waker = waker.clone();
        let (stand, _dropped_where_nothing_is_borrowed) = TURNSTILE.with_borrow_mut(|turnstile| {
            let place = *self.place.get_or_insert_with(|| {
                turnstile.latest += 1;
                (!self.has_begun, turnstile.latest)
            });
            let is_first =
                turnstile.line.first_key_value().is_none_or(|(first, _)| place <= *first);
            let rests_until = turnstile.rests_until.filter(|until| *until > Instant::now());
            let stand = match rests_until {
                None if is_first => return (Stand::Turn, Some(waker)),
                Some(rests_until) if is_first => Stand::First { rests_until },
                Some(_) | None => Stand::Behind,
            };
            (stand, turnstile.line.insert(place, waker))
        });
        stand
    }

    /// Leaves the line; whoever is the first now is told.
    fn leave(&mut self) {
        self.rest = None;
        if let Some(place) = self.place.take() {
            // Where a thread ends, there is no line any more. The waker is dropped where nothing is borrowed: a
            // task may go with it, and leave its own place.
            let left = TURNSTILE.try_with(|turnstile| turnstile.borrow_mut().line.remove(&place));
            drop(left);
            wake_first();
        }
    }

    /// The turn is over, and took so long.
    pub(super) fn took(work: Duration) {
        TURNSTILE.with_borrow_mut(|turnstile| {
            turnstile.work += work;
            if turnstile.work >= WORK_MAX {
                let rest = std::mem::take(&mut turnstile.work).min(REST_MAX);
                turnstile.rests_until = Some(Instant::now() + rest);
            }
        });
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The first in line looks again: it may have its turn, or is the one to wait for the end of the rest.
fn wake_first() {
    let first = TURNSTILE.try_with(|turnstile| {
        turnstile.borrow().line.first_key_value().map(|(_, waker)| waker.clone())
    });
    if let Ok(Some(first)) = first {
        first.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn turn(turns: &mut Turns) {
        std::future::poll_fn(|task| turns.poll_turn(task)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn after_work_nobody_has_a_turn_for_as_long_and_not_for_longer_than_a_rest_may_be() {
        for (took, rest) in [(7, 7), (60_000, 20)] {
            Turns::took(Duration::from_millis(took));
            let began = Instant::now();
            turn(&mut Turns::default()).await;
            let rested = began.elapsed();
            let rest = Duration::from_millis(rest);
            assert!(rested >= rest && rested <= rest + Duration::from_millis(2), "{rested:?}");
        }
        assert_eq!(REST_MAX, Duration::from_millis(20));
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_who_wait_only_the_first_is_woken() {
        Turns::took(REST_MAX);
        let counting: Vec<Arc<Counting>> = (0..1000).map(|_| Arc::default()).collect();
        let mut all: Vec<Turns> = (0..1000).map(|_| Turns::default()).collect();
        for (turns, waker) in all.iter_mut().zip(&counting) {
            let waker = Waker::from(Arc::clone(waker));
            assert!(turns.poll_turn(&mut Context::from_waker(&waker)).is_pending());
        }
        tokio::time::sleep(REST_MAX * 2).await;
        let woken = || counting.iter().map(|it| it.0.load(Ordering::Relaxed)).sum::<usize>();
        assert_eq!(woken(), 1);
        // Who leaves the line passes the turn on, whether it had it or is gone.
        drop(all.remove(0));
        assert_eq!((woken(), counting[1].0.load(Ordering::Relaxed)), (2, 1));
        let first = Waker::from(Arc::clone(&counting[1]));
        assert!(all[0].poll_turn(&mut Context::from_waker(&first)).is_ready());
        assert_eq!((woken(), counting[2].0.load(Ordering::Relaxed)), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_begun_comes_before_who_is_new() {
        let mut begun = Turns::default();
        turn(&mut begun).await;
        Turns::took(REST_MAX);
        let mut new = Turns::default();
        let mut task = Context::from_waker(Waker::noop());
        assert!(new.poll_turn(&mut task).is_pending());
        assert!(begun.poll_turn(&mut task).is_pending());
        tokio::time::sleep(REST_MAX * 2).await;
        assert!(new.poll_turn(&mut task).is_pending());
        assert!(begun.poll_turn(&mut task).is_ready());
        assert!(new.poll_turn(&mut task).is_ready());
    }
}
