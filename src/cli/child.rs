//! The command that runs under the lock: a process group of its own, that hears what we hear and
//! does not outlive the lock.
//!
//! Invariants: every signal goes to the whole group. The leader is not reaped while the group may
//! still be signalled for its sake, so its id cannot have become somebody else's. A stopped command
//! stops us too if there is a terminal, so that the shell gets it back; and it is not continued
//! once its lock is lost, but killed.
//!
//! What is not guarded against: processes that leave the group (daemons), and processes of the
//! group that outlive a leader which ended by itself. The lock is released when the command ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_current_process_group, kill_process,
    kill_process_group, test_kill_process_group, waitid,
};
use tokio::time::{Instant, sleep, timeout};

use super::errors::{Failure, exit, reason};
use super::foreground::in_foreground;
use super::signals::Signals;
use super::terminal::Terminal;

/// How often to look whether the rest of a group whose leader has gone is gone too. They are not our
/// children, so nobody tells us.
const GROUP_POLL: Duration = Duration::from_millis(20);
/// How long SIGKILL may take to show.
const KILL_SHOWS_MAX: Duration = Duration::from_secs(1);
/// How long a stop signal to ourselves may take to reach us.
const STOP_SHOWS_MAX: Duration = Duration::from_millis(100);

/// A running command.
pub(crate) struct Job {
    /// The leader of the group.
    leader: Child,
    /// The group's id, which is the leader's.
    group: Pid,
    /// The terminal, if standard input is one.
    terminal: Option<Terminal>,
}

/// What the leader is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It runs.
    Running,
    /// It was stopped by this signal.
    Stopped(i32),
    /// It ended, and this is the exit code that tells how.
    Ended(u8),
}

impl Job {
    /// Starts `command` in a group of its own and gives it the terminal, if it is ours to give.
    pub(crate) fn start(mut command: Command) -> Result<Self, Failure> {
        let terminal = Terminal::on_stdin();
        if terminal.as_ref().is_some_and(Terminal::is_ours) {
            command = in_foreground(&command)
                .map_err(|error| Failure::ours("cannot find our own program", &error))?;
        }
        command.process_group(0);
        let leader = command.spawn().map_err(|error| cannot_run(&command, &error))?;
        let group = Pid::from_child(&leader);
        Ok(Self { leader, group, terminal })
    }

    /// The group's id.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Signals the whole group. One that has gone needs no signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let _gone = kill_process_group(self.group, signal);
    }

    /// Looks at the leader without reaping it.
    pub(crate) fn progress(&self) -> Result<Progress, Failure> {
        let how = WaitIdOptions::EXITED
            | WaitIdOptions::STOPPED
            | WaitIdOptions::NOHANG
            | WaitIdOptions::NOWAIT;
        let seen = waitid(WaitId::Pid(self.group), how).map_err(|error| {
            Failure::ours("cannot see what became of the command", &error.into())
        })?;
        let Some(status) = seen else { return Ok(Progress::Running) };
        Ok(match (status.exit_status(), status.terminating_signal(), status.stopping_signal()) {
            (Some(code), _, _) => Progress::Ended(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
            (_, Some(signal), _) => Progress::Ended(code_of_signal(signal)),
            (_, _, Some(signal)) => Progress::Stopped(signal),
            _ => Progress::Running,
        })
    }

    /// Lets a stopped command go on, in the foreground if we are there.
    pub(crate) fn resume(&self) {
        self.give_terminal();
        self.signal(Signal::CONT);
    }

    fn give_terminal(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.give_to(self.group);
        }
    }

    /// Answers to the leader's having been stopped by `signal`. Returns whether it may go on now.
    ///
    /// On a terminal that was Ctrl-Z: the shell must get the terminal back, and see us stopped.
    pub(crate) async fn stopped(&self, signal: i32, continued: &mut Signals) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        let wants_terminal = [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal);
        if wants_terminal && terminal.is_of(self.group) {
            return true;
        }
        terminal.take_from(self.group);
        // The terminal told the command's group only; ours is told here, all of it, since a script
        // that waits for us has to stop with us.
        let _cannot_fail = kill_current_process_group(Signal::TSTP);
        until_continued(continued).await;
        true
    }

    /// Ctrl-Z reached us and not the command, because standard input is no terminal: both stop.
    /// Otherwise the command would work on while nobody keeps its lock alive.
    pub(crate) async fn stop_with_us(&self, continued: &mut Signals) {
        self.signal(Signal::TSTP);
        // SIGTSTP is caught, so it would not stop us; SIGTTOU does the same, and is ignored, too,
        // where there is no shell that could continue us. The others of our group got their own.
        let _cannot_fail = kill_process(getpid(), Signal::TTOU);
        until_continued(continued).await;
    }

    /// Takes the terminal back and buries the leader, which has ended.
    pub(crate) fn bury(&mut self) {
        if let Some(terminal) = &self.terminal {
            terminal.take_from(self.group);
        }
        let _status_is_known = self.leader.wait();
    }

    /// Waits until nobody of the group is left; SIGKILL at `kill_at`. For after the burial of a
    /// command that was stopped.
    pub(crate) async fn wait_for_stragglers(&self, kill_at: Instant) {
        while Instant::now() < kill_at {
            if test_kill_process_group(self.group).is_err() {
                return;
            }
            sleep(GROUP_POLL).await;
        }
        self.signal(Signal::KILL);
        let give_up_at = Instant::now() + KILL_SHOWS_MAX;
        while Instant::now() < give_up_at && test_kill_process_group(self.group).is_ok() {
            sleep(GROUP_POLL).await;
        }
    }
}

/// After a stop signal to ourselves: returns when we are continued, or soon if we were not stopped
/// because nobody could continue us.
async fn until_continued(continued: &mut Signals) {
    let _not_stopped = timeout(STOP_SHOWS_MAX, continued.next()).await;
}

/// The exit code for death by a signal, as shells have it.
pub(crate) fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| exit::SIGNAL_BASE.saturating_add(number))
}

/// Why the command did not start: 127 if it is not there, 126 if it is and cannot be run.
pub(crate) fn cannot_run(command: &Command, error: &io::Error) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(exit::NO_SUCH_COMMAND, format!("there is no command {program:?}"))
                .hint("no shell is involved; for a script use -c")
        }
        _ => Failure::new(exit::CANNOT_RUN, format!("cannot run {program:?} ({})", reason(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_by_a_signal_has_the_shells_code() {
        assert_eq!(code_of_signal(2), 130);
        assert_eq!(code_of_signal(9), 137);
        assert_eq!(code_of_signal(15), 143);
    }

    #[test]
    fn a_missing_command_is_127_and_an_unrunnable_one_126() {
        let command = Command::new("prog");
        let code = |kind| cannot_run(&command, &io::Error::from(kind)).exit;
        assert_eq!(code(io::ErrorKind::NotFound), 127);
        assert_eq!(code(io::ErrorKind::PermissionDenied), 126);
        assert_eq!(code(io::ErrorKind::InvalidInput), 126);
    }
}
