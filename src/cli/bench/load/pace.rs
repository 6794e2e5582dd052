//! When pairs begin in the open loop.
//!
//! Pair *n* is to begin *n*/rate seconds after the start, whatever became of the ones before. Each
//! free connection takes the next number and waits for its moment. If all were busy then, the pair
//! begins late, and its latency counts from its moment all the same. A slow server therefore shows
//! in the figures, and not as questions that were never asked (no coordinated omission).

use std::time::{Duration, Instant};

use tokio::task::yield_now;
use tokio::time::sleep;

/// By how much a timer of tokio's may be late, on a thread that has time.
const TIMER_ERROR_MAX: Duration = Duration::from_millis(2);

/// So many a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pace {
    /// Nanoseconds from one to the next.
    interval: f64,
}

impl Pace {
    /// So many a second; more than none.
    pub(crate) fn new(per_second: f64) -> Self {
        Self { interval: 1e9 / per_second }
    }

    /// When number `ticket`, from 0, is to begin, from the start.
    pub(crate) fn moment(self, ticket: u64) -> Duration {
        #[allow(clippy::cast_precision_loss, reason = "2^53 pairs take longer than anybody waits")]
        Duration::try_from_secs_f64(self.interval * ticket as f64 / 1e9).unwrap_or(Duration::MAX)
    }
}

/// Waits until `moment`, to within microseconds. tokio's timers go off at whole milliseconds. The
/// rest after the last whole one is spent in turns of the loop, which serve the sockets too.
pub(crate) async fn wait_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if left > TIMER_ERROR_MAX {
        sleep(left.saturating_sub(TIMER_ERROR_MAX)).await;
    }
    while Instant::now() < moment {
        yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_begin_at_even_distances_from_the_start() {
        let pace = Pace::new(1000.0);
        assert_eq!(pace.moment(0), Duration::ZERO);
        assert_eq!(pace.moment(1), Duration::from_millis(1));
        assert_eq!(pace.moment(60_000), Duration::from_secs(60));
    }

    #[test]
    fn a_rate_below_one_a_second_is_a_rate() {
        assert_eq!(Pace::new(0.1).moment(3), Duration::from_secs(30));
    }

    #[test]
    fn moments_do_not_drift() {
        let pace = Pace::new(3.0);
        assert_eq!(pace.moment(3 * 86_400), Duration::from_secs(86_400));
    }

    #[tokio::test]
    async fn a_wait_is_over_not_before_its_moment() {
        for micros in [0, 300, 5_000, 300] {
            let moment = Instant::now() + Duration::from_micros(micros);
            wait_until(moment).await;
            assert!(Instant::now() >= moment);
        }
    }
}
