//! Whether anything of a process group is still alive.
//!
//! A process that has ended stays a member, as a zombie, until somebody buries it. Whose supervisor
//! is dead is left to the first process of its container, and in many containers that buries
//! nobody. A dead process does no work under a lock, so `/proc` is asked for the state of the
//! members. Wherever it does not say for sure, they live.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process_group};

/// Whether the group has no member at all. One that we may not signal is a member.
pub(crate) fn is_gone(group: Pid) -> bool {
    test_kill_process_group(group) == Err(Errno::SRCH)
}

/// Whether all members of the group are zombies, for all that can be known.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn is_dead(group: Pid) -> bool {
    use std::fs;
    use std::path::Path;

    // Where the processes of others are hidden, a member may be.
    if !Path::new("/proc/1/stat").exists() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().all(|process| {
        let is_process = process.file_name().to_str().is_some_and(|it| it.parse::<u32>().is_ok());
        !is_process
            || match fs::read_to_string(process.path().join("stat")) {
                Ok(stat) => !is_living_member(&stat, group).unwrap_or(true),
                Err(error) => {
                    let errno = Errno::from_io_error(&error);
                    errno == Some(Errno::NOENT) || errno == Some(Errno::SRCH)
                }
            }
    })
}

/// Elsewhere nobody can be asked.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn is_dead(_group: Pid) -> bool {
    false
}

/// Whether this text of a `/proc/PID/stat` is of a member that lives; none if it makes no sense.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn is_living_member(stat: &str, group: Pid) -> Option<bool> {
    // `4711 (any) name) S 1 4700 …`: the state, the parent, the group.
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut rest = rest.split(' ');
    let (state, _parent, of) = (rest.next()?, rest.next()?, rest.next()?);
    let is_member = of.parse() == Ok(group.as_raw_nonzero().get());
    Some(is_member && !["Z", "X"].contains(&state))
}

#[cfg(all(test, any(target_os = "linux", target_os = "android")))]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    fn living(stat: &str) -> Option<bool> {
        is_living_member(stat, Pid::from_raw(4700).unwrap())
    }

    #[test]
    fn zombies_do_no_work_and_whoever_is_not_understood_may() {
        assert_eq!(living("4711 (make) S 1 4700 4700 0 -1"), Some(true));
        assert_eq!(living("4711 (a) Z 9 b) T 1 4700 4700 0 -1"), Some(true));
        assert_eq!(living("4711 (make) Z 1 4700 4700 0 -1"), Some(false));
        assert_eq!(living("4711 (make) S 1 4701 4700 0 -1"), Some(false));
        assert_eq!(living("4711 (make) S"), None);
        assert_eq!(living(""), None);
    }

    #[test]
    fn a_group_is_dead_before_it_is_buried_and_gone_after() {
        let mut leader = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_child(&leader);
        assert!(!is_dead(group) && !is_gone(group));
        leader.kill().unwrap();
        while !is_dead(group) {
            std::thread::yield_now();
        }
        assert!(!is_gone(group));
        leader.wait().unwrap();
        assert!(is_gone(group));
    }
}
