//! The life of a process that is not our child.

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

#[cfg(any(target_os = "linux", target_os = "android"))]
use super::on_a_thread;
use crate::cli::text::errors::Failure;

/// A process, whose end can be awaited.
pub(crate) struct Life {
    /// Its id.
    pid: Pid,
    /// Something that stays with the process when its id is another's; none where there is no such
    /// thing.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    handle: Option<std::os::fd::OwnedFd>,
}

/// Between two looks, where nobody tells of an end.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

impl Life {
    /// The process with this id, which must be alive.
    pub(crate) fn of(pid: i32) -> Result<Self, Failure> {
        let nobody = || Failure::usage(format!("there is no process {pid} to hold a lock for"));
        let pid = Pid::from_raw(pid).ok_or_else(nobody)?;
        let life = Self::begin(pid);
        if is_alive(pid) { Ok(life) } else { Err(nobody()) }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn begin(pid: Pid) -> Self {
        use rustix::process::{PidfdFlags, pidfd_open};

        Self { pid, handle: pidfd_open(pid, PidfdFlags::empty()).ok() }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn begin(pid: Pid) -> Self {
        Self { pid }
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(self) {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(handle) = self.handle {
            let _ended = on_a_thread(move || until_readable(&handle)).await;
            return;
        }
        while is_alive(self.pid) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The handle of a process is readable when the process has ended.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn until_readable(handle: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};

    while poll(&mut [PollFd::new(handle, PollFlags::IN)], None) == Err(Errno::INTR) {}
}

/// One that we may not signal lives, too.
fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid) != Err(Errno::SRCH)
}
