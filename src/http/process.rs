//! What the system knows of this process. Under the names that Prometheus' own libraries have for it.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// How much nicer than the others the thread is that answers: it has a third of the time of one that does not give way. With
/// much less, a probe would come too late where every processor is busy.
#[cfg(target_os = "linux")]
const NICER: i32 = 5;

/// Has this thread give way to those that lock.
#[cfg(target_os = "linux")]
pub(super) fn gives_way() {
    // Of a thread, on Linux. It may be refused (seccomp): then all are the same.
    let nicer = rustix::process::getpriority_process(None).map(|nice| nice + NICER);
    let _ = nicer.and_then(|nice| rustix::process::setpriority_process(None, nice));
}

/// Elsewhere that would be of the whole process.
#[cfg(not(target_os = "linux"))]
pub(super) const fn gives_way() {}

/// Ticks of `/proc/self/stat` in a second: the same on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the system knows; none of what it does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Memory that is there, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Time on processors, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Files open now.
    pub(super) open_fds: Option<u64>,
    /// Files that may be open.
    pub(super) max_fds: Option<u64>,
}

impl Process {
    /// What it knows now.
    pub(super) fn look() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        // One more is open while it is counted.
        let open = fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        Self {
            resident_bytes: resident(&status),
            cpu_seconds: cpu(&stat),
            open_fds: open.map(|open| open.saturating_sub(1) as u64),
            max_fds: getrlimit(Resource::Nofile).current,
        }
    }
}

/// `VmRSS` in the text of a `status`.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// User and system time in the text of a `stat`.
fn cpu(stat: &str) -> Option<f64> {
    // The name in brackets may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (ticks.next()?.ok()?, ticks.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu(stat), Some(2.0));
    }

    #[test]
    fn what_it_does_not_tell_is_left_out() {
        for text in ["", "VmRSS: much\n", "7 (a) S 1", "7 (a"] {
            assert_eq!((resident(text), cpu(text)), (None, None), "{text:?}");
        }
    }
}
