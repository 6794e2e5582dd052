//! The walk over the locks that somebody waits for: how many, who waits longest, the longest queue.
//!
//! One walk for all who look, a page at a time and with a pause between pages, and only while somebody
//! looks. So what is told may be some seconds old when a hundred thousand locks are waited for; how old,
//! is told too.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{Contention, Looker};

/// Pause between two pages: they take the Coordinator half a percent of its time.
const PAGE_PAUSE: Duration = Duration::from_millis(10);
/// Pause between two walks.
const WALK_PAUSE: Duration = Duration::from_millis(250);
/// So long after the last look there are walks.
const WANTED_FOR: Duration = Duration::from_secs(60);
/// So long who looks waits for a walk, if the latest is older than a walk and a pause should take.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the latest walk has shown.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The result of the latest walk, with its beginning; and until when walks are wanted.
    state: Mutex<State>,
    /// Rings when somebody looks.
    wanted: Notify,
    /// Rings when a walk is over.
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Result of the latest walk, with its beginning.
    latest: Option<(Instant, Contention)>,
    /// Until when walks are wanted.
    wanted_until: Option<Instant>,
}

impl Survey {
    /// What contention looks like, and how old that is. None if nobody has answered yet.
    pub(super) async fn look(&self) -> Option<(Contention, Duration)> {
        let done = self.done.notified();
        self.with(|state| state.wanted_until = Some(Instant::now() + WANTED_FOR));
        self.wanted.notify_one();
        let is_fresh = |state: &mut State| {
            state.latest.is_some_and(|(began, _)| began.elapsed() < WALK_PAUSE * 2)
        };
        if !self.with(is_fresh) {
            // Who waits longer than that is told what was before.
            let _ = timeout(PATIENCE, done).await;
        }
        self.with(|state| state.latest.map(|(began, seen)| (seen, began.elapsed())))
    }

    /// Walks while somebody looks, until the Coordinator is gone.
    pub(super) async fn walk(self: Arc<Self>, looker: Looker) {
        loop {
            let now = Instant::now();
            if self.with(|state| state.wanted_until.is_none_or(|until| until < now)) {
                self.wanted.notified().await;
                continue;
            }
            let Some(seen) = walk_once(&looker).await else { return };
            self.with(|state| state.latest = Some((now, seen)));
            self.done.notify_waiters();
            sleep(WALK_PAUSE).await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// All pages, with a pause between them. None: the Coordinator is gone.
async fn walk_once(looker: &Looker) -> Option<Contention> {
    let mut seen = looker.contention(0).await?;
    while let Some(next) = seen.next {
        sleep(PAGE_PAUSE).await;
        seen = seen.and(looker.contention(next).await?);
    }
    Some(seen)
}
