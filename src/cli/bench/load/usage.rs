//! Time on the CPU, as the kernel accounts it for each thread.
//!
//! How long something takes depends on what else the machine does; how long a process was on a CPU
//! does so far less. It is counted by thread, in nanoseconds, in `/proc/PID/task/TID/schedstat`;
//! where the kernel was built without that, in hundredths of a second in `stat`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// What `stat` counts in, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// How long each thread of a process has been on a CPU so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// By thread id.
    threads: HashMap<String, Duration>,
}

impl Usage {
    /// That of the process `pid`, now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // A thread may end between being listed and being looked at.
            if let Some(time) = time_of(&thread.path()) {
                threads.insert(thread.file_name().to_string_lossy().into_owned(), time);
            }
        }
        Ok(Self { threads })
    }

    /// How much it has grown since `before`. The time of threads that have ended is lost.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        let grown = self.threads.iter().map(|(thread, time)| {
            time.saturating_sub(before.threads.get(thread).copied().unwrap_or_default())
        });
        grown.sum()
    }
}

fn time_of(thread: &Path) -> Option<Duration> {
    let read = |name| fs::read_to_string(thread.join(name)).ok();
    read("schedstat")
        .and_then(|text| parse_schedstat(&text))
        .or_else(|| read("stat").and_then(|text| parse_stat(&text)))
}

/// The first of three numbers is the time on a CPU, in nanoseconds.
fn parse_schedstat(text: &str) -> Option<Duration> {
    Some(Duration::from_nanos(text.split_whitespace().next()?.parse().ok()?))
}

/// Fields 14 and 15, the name of the thread being field 2: it may hold blanks and brackets.
fn parse_stat(text: &str) -> Option<Duration> {
    let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let ticks = next()? + next()?;
    Some(Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage<const N: usize>(threads: [(&str, u64); N]) -> Usage {
        let entry = |(thread, nanos): (&str, u64)| (thread.to_owned(), Duration::from_nanos(nanos));
        Usage { threads: threads.into_iter().map(entry).collect() }
    }

    #[test]
    fn new_threads_count_in_full_and_ended_ones_not_at_all() {
        let before = usage([("1", 100), ("2", 50)]);
        let after = usage([("1", 130), ("3", 7)]);
        assert_eq!(after.since(&before), Duration::from_nanos(37));
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(parse_schedstat("1567981 22 1\n"), Some(Duration::from_nanos(1_567_981)));
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(stat), Some(Duration::from_secs(3)));
        assert_eq!(parse_schedstat(""), None);
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_shows_in_the_usage() {
        let before = Usage::of(std::process::id()).unwrap();
        let began = std::time::Instant::now();
        while Usage::of(std::process::id()).unwrap().since(&before).is_zero() {
            assert!(began.elapsed() < Duration::from_secs(30));
        }
    }
}
