//! The pace of all looks that come over HTTP: forty a second, whoever asks and for whatever.
//!
//! A page of a look takes the Coordinator a tenth of a millisecond, and whoever locks just then waits so much longer. A
//! client makes some thousand pairs a second: forty of them are fewer than one of a hundred. So lookouts, lists, single
//! locks and streams take turns here, in the order in which they came, before their question goes to the Coordinator at
//! all. After a pause some may look at once, so that nobody waits where few look.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Between two looks, in the long run.
pub(super) const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// So many may come at once after a pause: all pages of a list that fits on a screen.
pub(super) const LOOKS_BURST: u32 = 16;

/// When the next look may be.
#[derive(Debug)]
pub(super) struct Pace(Mutex<Instant>);

impl Pace {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Waits until it is time for another look (generic cell rate algorithm). Those who wait are served in their order.
    pub(super) async fn turn(&self) {
        let mut due = self.0.lock().await;
        if let Some(opens) = due.checked_sub(LOOK_PAUSE * (LOOKS_BURST - 1)) {
            sleep_until(opens).await;
        }
        *due = (*due).max(Instant::now()) + LOOK_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    /// Rule B1.
    #[tokio::test(start_paused = true)]
    async fn after_a_burst_all_looks_together_are_forty_a_second() {
        let pace = Arc::new(Pace::new());
        let began = Instant::now();
        let mut all = JoinSet::new();
        for _ in 0..LOOKS_BURST + 40 {
            let pace = Arc::clone(&pace);
            all.spawn(async move {
                pace.turn().await;
                began.elapsed()
            });
        }
        let mut took = all.join_all().await;
        took.sort_unstable();
        let burst = usize::try_from(LOOKS_BURST).unwrap();
        assert!(took[burst - 1] < LOOK_PAUSE, "{:?}", took[burst - 1]);
        assert!(took[burst] >= LOOK_PAUSE);
        assert_eq!(took.last().unwrap().as_millis(), 1_000);
        // After a pause they are there again, and no more of them.
        tokio::time::advance(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..LOOKS_BURST {
            pace.turn().await;
        }
        assert!(began.elapsed() < LOOK_PAUSE);
        pace.turn().await;
        assert!(began.elapsed() >= LOOK_PAUSE);
    }
}
