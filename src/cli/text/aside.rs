//! Remarks beside the work: written to standard error by a thread of their own.
//!
//! Leases are renewed on the thread where everything else happens. A terminal can stand still for
//! as long as its user likes (Ctrl-S, a pager, a stuck pipe). So nothing is written from there: a
//! remark is handed over, and no unread remark holds up anybody. The queue is bounded. Of lines
//! that are shown in place only the latest is kept, and of others the oldest are dropped.

use std::collections::VecDeque;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use super::output;

/// Most lines that wait to be written.
const LINES_MAX: usize = 64;
/// How long the work may wait for remarks to be out, so that they do not mix with what comes next.
const SETTLING_MAX: Duration = Duration::from_millis(200);

/// Where remarks are handed over.
struct Desk {
    /// What is to be written.
    pending: Mutex<Pending>,
    /// Rings when there is something.
    news: Condvar,
    /// How many remarks were written or left out.
    done: watch::Sender<u64>,
}

/// What is to be written.
#[derive(Default)]
struct Pending {
    /// Lines that stay.
    lines: VecDeque<String>,
    /// What is to be shown in place of what was; empty: nothing any more.
    shown: Option<String>,
    /// How many remarks were ever handed over.
    count: u64,
}

static DESK: LazyLock<Desk> = LazyLock::new(|| Desk {
    pending: Mutex::default(),
    news: Condvar::new(),
    done: watch::Sender::new(0),
});

/// Tells people something, without waiting until they can be told.
pub(crate) fn tell(text: &str) {
    DESK.hand_over(|pending| {
        if pending.lines.len() == LINES_MAX {
            pending.lines.pop_front();
        }
        pending.lines.push_back(text.to_owned());
    });
}

/// Shows `text` in place of what was shown so before; on terminals only.
pub(crate) fn show_in_place(text: &str) {
    DESK.hand_over(|pending| pending.shown = Some(text.to_owned()));
}

/// Waits until all is written, but not for long.
pub(crate) async fn settled() {
    let count = DESK.pending().count;
    let mut done = DESK.done.subscribe();
    let _stands_still = timeout(SETTLING_MAX, done.wait_for(|done| *done >= count)).await;
}

impl Desk {
    /// Nobody panics while holding it.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_over(&'static self, put: impl FnOnce(&mut Pending)) {
        static WRITER: Once = Once::new();
        let mut pending = self.pending();
        put(&mut pending);
        pending.count += 1;
        drop(pending);
        self.news.notify_one();
        // Without a thread nothing is told; that is no reason to stop.
        WRITER.call_once(|| drop(thread::Builder::new().spawn(|| self.write())));
    }

    /// Writes what is handed over, until the process ends.
    fn write(&self) -> ! {
        let mut shown = String::new();
        loop {
            let is_idle =
                |pending: &mut Pending| pending.lines.is_empty() && pending.shown.is_none();
            let pending = self.news.wait_while(self.pending(), is_idle);
            let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
            let (lines, next, count) =
                (std::mem::take(&mut pending.lines), pending.shown.take(), pending.count);
            drop(pending);
            if !lines.is_empty() && !shown.is_empty() {
                output::show_in_place("");
            }
            for line in &lines {
                output::tell(line);
            }
            let is_new = next.is_some();
            shown = next.unwrap_or(shown);
            if is_new || (!lines.is_empty() && !shown.is_empty()) {
                output::show_in_place(&shown);
            }
            self.done.send_replace(count);
        }
    }
}
