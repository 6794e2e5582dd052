//! Processes that became our children without our having started them.
//!
//! As the first process of a container we inherit what others leave behind, and what is not reaped
//! stays as a zombie. So does what a shell had started before it became us.

use rustix::process::Pid;

/// Reaps children that have ended, but for the command itself. `known` is told of a child that is
/// ours, and reaps it itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn reap(command: Pid, mut known: impl FnMut(Pid) -> bool) {
    use nix::errno::Errno;
    use nix::sys::wait::{Id, WaitPidFlag as Flag, waitid};
    use rustix::process::{WaitId, WaitIdOptions};

    let mut bury = |pid: Pid| {
        if pid != command && !known(pid) {
            let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            let _gone = rustix::process::waitid(WaitId::Pid(pid), how);
        }
    };
    let look = Flag::WEXITED | Flag::WNOHANG | Flag::WNOWAIT;
    loop {
        match waitid(Id::All, look) {
            Ok(status) => match status.pid().and_then(|pid| Pid::from_raw(pid.as_raw())) {
                Some(pid) if pid != command => bury(pid),
                Some(_) | None => return,
            },
            // One was killed by a real-time signal, for which there is no name: it is not said who.
            Err(Errno::EINVAL) => return zombies().into_iter().for_each(bury),
            Err(_) => return,
        }
    }
}

/// Children of ours that have ended, as far as `/proc` shows them.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn zombies() -> Vec<Pid> {
    use std::fs;

    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    let is_ours = |number: &i32| {
        let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        is_zombie_of(&stat, std::process::id())
    };
    numbers.filter(is_ours).filter_map(Pid::from_raw).collect()
}

/// Whether this text of a `/proc/PID/stat` is of a child of `parent` that has ended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_zombie_of(stat: &str, parent: u32) -> bool {
    // `4711 (any) name) Z 4700 …`: the state, the parent.
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
    matches!(rest.as_deref(), Some(["Z", of, ..]) if of.parse() == Ok(parent))
}

/// Elsewhere nobody is the first process of a container.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn reap(_command: Pid, _known: impl FnMut(Pid) -> bool) {}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_has_ended_is_known_by_its_state_and_its_parent() {
        assert!(is_zombie_of("4711 (any) name) Z 4700 4700 0", 4700));
        assert!(!is_zombie_of("4711 (sleep) S 4700 4700 0", 4700));
        assert!(!is_zombie_of("4711 (sleep) Z 1 4700 0", 4700));
        assert!(!is_zombie_of("", 4700));
    }
}
