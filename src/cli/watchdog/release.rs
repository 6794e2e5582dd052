//! The last duty of a watchdog: nobody waits for the lease of a command that is dead.

use std::thread;
use std::time::Duration;

use coordinator::{Servers, SessionKey};

use super::shared_now;
use crate::cli::on_a_runtime;

/// How long an attempt may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// Between two attempts.
const ATTEMPTS_APART: Duration = Duration::from_millis(500);
/// How long to try at most. No watchdog stays for long because of a coordinator that is away.
const TRYING_MAX: Duration = Duration::from_secs(30);

/// Ends the session, whose own process is dead, and all that was done under its locks, too. Gives up
/// soon, and when the lease ends by itself, at `lease_end`: there is nothing to win by then.
pub(super) fn release(mut key: SessionKey, servers: &Servers, lease_end: Duration) {
    let until = give_up_at(shared_now(), lease_end);
    let _nobody_to_tell = on_a_runtime(async {
        loop {
            let left = until.saturating_sub(shared_now()).min(ATTEMPT_MAX);
            if left.is_zero() || key.close(servers, left).await.is_ok() {
                return Ok(());
            }
            thread::sleep(ATTEMPTS_APART);
        }
    });
}

/// When to give up what begins `now`.
fn give_up_at(now: Duration, lease_end: Duration) -> Duration {
    lease_end.min(now.saturating_add(TRYING_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_given_up_when_the_lease_ends_or_sooner() {
        let second = Duration::from_secs(1);
        assert_eq!(give_up_at(100 * second, 109 * second), 109 * second);
        assert_eq!(give_up_at(100 * second, 700 * second), 130 * second);
        assert_eq!(give_up_at(100 * second, 90 * second), 90 * second);
    }
}
