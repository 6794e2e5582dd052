//! Processes that became our children without our having started them.
//!
//! As the first process of a container we inherit what others leave behind, and what is not reaped
//! stays as a zombie. So does what a shell had started before it became us.

use rustix::process::Pid;

/// Reaps children that have ended, but for the command itself. `known` is told of a child that is
/// ours, and reaps it itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn reap(command: Pid, mut known: impl FnMut(Pid) -> bool) {
    use nix::sys::wait::{Id, WaitPidFlag as Flag, waitid};
    use rustix::process::{WaitId, WaitIdOptions};

    let look = Flag::WEXITED | Flag::WNOHANG | Flag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, look)
        && let Some(pid) = status.pid().and_then(|pid| Pid::from_raw(pid.as_raw()))
        && pid != command
    {
        if !known(pid) {
            let _gone = rustix::process::waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

/// Elsewhere nobody is the first process of a container.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn reap(_command: Pid, _known: impl FnMut(Pid) -> bool) {}
