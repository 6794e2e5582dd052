//! What someone in line is shown: who holds the lock, for how long, and one's place.
//!
//! Only on terminals, after a second, always on the same line; asking the coordinator who holds the
//! lock is done rarely and on a connection of its own, and a failure to learn it is not told.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coordinator::Observer;
use coordinator::wire::LockStatus;
use tokio::time::{Instant, sleep};

use super::output;
use super::terminal;
use super::visible;
use super::words;

/// How long to wait before saying anything, and between updates.
const TICK: Duration = Duration::from_secs(1);
/// Updates between two questions to the coordinator.
const TICKS_PER_LOOK: u32 = 5;

/// A place in line, as the coordinator last told it; 0 before it did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place(Arc<AtomicU64>);

impl Place {
    /// It is `position` now.
    pub(crate) fn set(&self, position: u64) {
        self.0.store(position, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The line on the terminal; gone when dropped.
#[derive(Default)]
struct Line {
    /// Whether anything was shown.
    shown: bool,
}

impl Line {
    fn show(&mut self, text: &str) {
        let width = terminal::width().saturating_sub(1);
        output::show_in_place(&text.chars().take(width).collect::<String>());
        self.shown = true;
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            output::show_in_place("");
        }
    }
}

/// Shows who is waited for, for as long as it is polled.
pub(crate) async fn show(server: &str, locks: &[&str], place: &Place) -> ! {
    if !terminal::is_watched() {
        std::future::pending::<()>().await;
    }
    let mut line = Line::default();
    let mut observer = None;
    sleep(TICK).await;
    loop {
        let place_asked = place.now();
        let seen = look(&mut observer, server, locks).await;
        let seen_at = Instant::now();
        for _ in 0..TICKS_PER_LOOK {
            line.show(&text(locks, seen.as_ref(), place.now(), seen_at.elapsed()));
            sleep(TICK).await;
            if place.now() != place_asked {
                break;
            }
        }
    }
}

/// The first of the locks that somebody holds.
async fn look(observer: &mut Option<Observer>, server: &str, locks: &[&str]) -> Option<LockStatus> {
    if observer.is_none() {
        *observer = Observer::connect(server).await.ok();
    }
    for lock in locks {
        match observer.as_mut()?.lock(lock).await {
            Ok(Some(seen)) if !seen.holders.is_empty() => return Some(seen),
            Ok(_) => {}
            Err(_) => *observer = None,
        }
    }
    None
}

/// `waiting for "deploy": held by ci-7 for 4m12s, you are 3rd in line`.
fn text(locks: &[&str], seen: Option<&LockStatus>, place: u64, since: Duration) -> String {
    let mut text = format!("waiting for {}", words::names(locks.iter().copied()));
    let mut separator = ": ";
    if let Some((lock, holder)) = seen.and_then(|lock| Some((lock, lock.holders.first()?))) {
        let held = words::length(Duration::from_millis(holder.held_ms) + since);
        let who = words::who_in_short(&holder.identity);
        let which = if locks.len() > 1 {
            format!("{} ", visible::quoted(&lock.name))
        } else {
            String::new()
        };
        let _infallible = write!(text, ": {which}held by {who} for {held}");
        separator = ", ";
    }
    if place > 0 {
        let _infallible = write!(text, "{separator}you are {} in line", words::ordinal(place));
    }
    text
}

#[cfg(test)]
mod tests {
    use coordinator::wire::{Holder, Mode};

    use super::*;

    #[test]
    fn the_line_names_the_holder_and_the_place() {
        let holder = Holder {
            owner: 0,
            request: 1,
            session: 1,
            identity: "ci-7 (ann@build7, pid 8123)".to_owned(),
            peer: "10.0.0.7:1".to_owned(),
            mode: Mode::Exclusive,
            token: 7,
            held_ms: 250_000,
            note: String::new(),
            connected: true,
        };
        let lock = LockStatus {
            name: "deploy".to_owned(),
            holders: vec![holder],
            holder_count: 1,
            waiters: vec![],
            waiter_count: 3,
        };
        assert_eq!(
            text(&["deploy"], Some(&lock), 3, Duration::from_secs(2)),
            "waiting for \"deploy\": held by ci-7 for 4m12s, you are 3rd in line"
        );
        assert_eq!(
            text(&["build", "deploy"], Some(&lock), 1, Duration::from_secs(2)),
            "waiting for \"build\", \"deploy\": \"deploy\" held by ci-7 for 4m12s, you are 1st in line"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let now = Duration::ZERO;
        assert_eq!(text(&["a"], None, 0, now), "waiting for \"a\"");
        assert_eq!(text(&["a"], None, 1, now), "waiting for \"a\": you are 1st in line");
    }
}
