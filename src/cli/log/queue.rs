//! The queue of unwritten log lines: bounded, with a thread of its own.
//!
//! Standard error may be a pipe that nobody empties, or a terminal that was stopped by Ctrl-S:
//! writing there can take for ever. So a logging thread only puts a line here, which never waits,
//! and another thread writes it. A line that does not fit is dropped and counted. When the log
//! moves again it says so.
//!
//! ```text
//!   whoever logs ──line──▶ [ text, 256 KiB at most ] ──all of it──▶ thread ──▶ standard error
//!                   └──no room: dropped += 1 ──────── "1,204 lines dropped" ──┘
//! ```

use std::io::{self, Write};
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of lines that wait to be written; as many may be on their way.
pub(crate) const LOG_BYTES_MAX: usize = 256 * 1024;
/// Between two tries where standard error does not block, but says that it would.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Lines on their way to standard error.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Lines on their way. Never locked while anything is written.
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
}

/// What is on the way.
#[derive(Debug, Default)]
struct State {
    /// Lines that wait, each with its end.
    text: Vec<u8>,
    /// How many lines were dropped since the log last said so.
    untold: u64,
    /// How many were dropped ever.
    dropped_ever: u64,
    /// Whether the thread has lines that are not yet written.
    is_writing: bool,
}

impl Queue {
    /// Takes a line with its end; drops it if there is no room. Never waits for a reader.
    pub(crate) fn put(&self, line: &[u8]) {
        let mut state = self.state();
        if state.text.len() + line.len() > LOG_BYTES_MAX {
            state.drop_lines(1);
            return;
        }
        state.text.extend_from_slice(line);
        drop(state);
        self.filled.notify_one();
    }

    /// How many lines were dropped so far.
    pub(crate) fn dropped_ever(&self) -> u64 {
        self.state().dropped_ever
    }

    /// Waits until everything is written, or `longest` is over; says whether it is written.
    pub(crate) fn flush(&self, longest: Duration) -> bool {
        let give_up_at = Instant::now() + longest;
        let mut state = self.state();
        while !state.is_done() {
            let left = give_up_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes what comes, for ever. `line` makes a line of what the log has to say about itself.
    pub(crate) fn write_all(&self, mut out: impl Write, line: impl Fn(&str) -> String) -> ! {
        loop {
            let (text, dropped) = self.take();
            let mut text = text;
            if dropped > 0 {
                let words = if dropped == 1 { "line" } else { "lines" };
                let dropped = thousands(dropped);
                let said =
                    line(&format!("{dropped} {words} dropped: the log was not read in time"));
                text.extend_from_slice(said.as_bytes());
            }
            let lost = write(&mut out, &text);
            let mut state = self.state();
            state.is_writing = false;
            state.drop_lines(lost);
            if state.is_done() {
                self.emptied.notify_all();
            }
            drop(state);
            if lost > 0 {
                // Not again and again at once: nothing says when it works again.
                thread::sleep(TRY_AGAIN);
            }
        }
    }

    /// Waits for lines to write, and for lines to tell of.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut state = self.state();
        while state.text.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_writing = true;
        (mem::take(&mut state.text), mem::take(&mut state.untold))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nobody panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_lines(&mut self, count: u64) {
        self.untold += count;
        self.dropped_ever += count;
    }

    /// Whether nothing is left to be written.
    fn is_done(&self) -> bool {
        self.text.is_empty() && !self.is_writing
    }
}

/// Writes `text`, however long that takes; the number of lines that could not be written.
fn write(out: &mut impl Write, text: &[u8]) -> u64 {
    let mut rest = text;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody who shares it has made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(TRY_AGAIN),
            Err(_) => break,
        }
    }
    rest.split(|byte| *byte == b'\n').skip(1).count() as u64
}

/// `1,204`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// Writes where nobody reads until the test does.
    struct Pipe {
        asked: mpsc::Sender<Vec<u8>>,
        allowed: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // A test that is over reads no more.
            let _ = self.asked.send(bytes.to_vec());
            self.allowed.recv().unwrap_or(Ok(())).map(|()| bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The end of it that reads.
    struct Reader {
        written: mpsc::Receiver<Vec<u8>>,
        allow: mpsc::Sender<io::Result<()>>,
    }

    impl Reader {
        /// Waits until something is being written, which then waits for [`Reader::allow`].
        fn see(&self) -> String {
            let written = self.written.recv_timeout(Duration::from_secs(30)).unwrap();
            String::from_utf8(written).unwrap()
        }
    }

    fn queue() -> (Arc<Queue>, Reader) {
        let ((asked, written), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
        let queue = Arc::new(Queue::default());
        let writer = Arc::clone(&queue);
        thread::spawn(move || {
            writer.write_all(Pipe { asked, allowed }, |text| format!("{text}\n"))
        });
        (queue, Reader { written, allow })
    }

    #[test]
    fn who_logs_never_waits_and_what_does_not_fit_is_dropped_and_counted() {
        let (queue, reader) = queue();
        queue.put(b"first\n");
        assert_eq!(reader.see(), "first\n");
        // Nobody reads on.
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        let fit = LOG_BYTES_MAX / line.len();
        for _ in 0..fit + 1204 {
            queue.put(&line);
        }
        assert_eq!(queue.dropped_ever(), 1204);
        assert!(!queue.flush(Duration::ZERO), "a reader who stands still is not waited for");
        reader.allow.send(Ok(())).unwrap();
        let rest = reader.see();
        assert_eq!(rest.lines().filter(|line| line.starts_with('x')).count(), fit);
        assert_eq!(
            rest.lines().last().unwrap(),
            "1,204 lines dropped: the log was not read in time"
        );
        reader.allow.send(Ok(())).unwrap();
        assert!(queue.flush(Duration::from_secs(30)));
        queue.put(b"last\n");
        assert_eq!(reader.see(), "last\n", "it is said once");
    }

    #[test]
    fn the_queue_is_full_at_its_limit_and_not_one_byte_before() {
        let (queue, reader) = queue();
        queue.put(b"first\n");
        reader.see();
        queue.put(&vec![b'\n'; LOG_BYTES_MAX]);
        assert_eq!(queue.dropped_ever(), 0);
        queue.put(b"\n");
        assert_eq!(queue.dropped_ever(), 1);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (queue, reader) = queue();
        queue.put(b"one\ntwo\n");
        reader.see();
        reader.allow.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        assert!(queue.flush(Duration::from_secs(30)), "nothing is left to be written");
        assert_eq!(queue.dropped_ever(), 2);
        queue.put(b"three\n");
        assert_eq!(reader.see(), "three\n2 lines dropped: the log was not read in time\n");
    }

    #[test]
    fn a_standard_error_that_would_block_is_tried_again() {
        let (queue, reader) = queue();
        queue.put(b"one\n");
        reader.see();
        reader.allow.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
        assert_eq!(reader.see(), "one\n");
        reader.allow.send(Ok(())).unwrap();
        assert!(queue.flush(Duration::from_secs(30)));
        assert_eq!(queue.dropped_ever(), 0);
    }

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
