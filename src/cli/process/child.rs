//! The command that runs under the lock: a process group of its own, that hears what we hear and
//! does not outlive the lock.
//!
//! Invariants: every signal goes to the whole group. The leader is not reaped while the group may
//! still be signalled for its sake, so its id cannot have become somebody else's. A stopped command
//! stops us too if it had the terminal, so that the shell gets it back. Once its lock is lost, it
//! is not continued but killed. A command that asks for the terminal gets it if it is ours.
//!
//! Two kinds of processes are not guarded against: those that leave the group (daemons), and those
//! of the group that outlive a leader which ended by itself. The lock is released when the command
//! ends.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpid, kill_current_process_group, kill_process,
    kill_process_group, waitid,
};
use tokio::time::{Instant, sleep, timeout};

use super::again::by_the_shell;
use super::foreground::{Refusal, cannot_run, in_foreground};
use super::group::{is_dead, is_gone};
use super::outcome::{OF_KEYS, Outcome};
use super::signals::Signals;
use super::terminal::Terminal;
use crate::cli::text::errors::Failure;

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
    /// The terminal, and whose it was at first.
    stage: Stage,
    /// Whether the command is to have the terminal: from the start, or because it asked.
    has_asked: bool,
    /// Stop signals that we sent to all of our group, and will therefore hear ourselves.
    own_stops: u32,
    /// Whether we passed on the signal of a key. Whoever sent it meant us, and nobody beside us.
    was_passed_a_key: bool,
    /// Where it is heard that the leader could not become the command; none if it began as that.
    refusal: Option<Refusal>,
}

/// Where a command is to run.
pub(crate) struct Stage {
    /// The terminal that controls our session, if one does.
    terminal: Option<Terminal>,
    /// Whether the command has it from the start. Then Ctrl-Z is the command's to hear; otherwise it
    /// is ours.
    is_given: bool,
}

impl Stage {
    /// Looks at where we run ourselves.
    pub(crate) fn here() -> Self {
        let terminal = Terminal::controlling();
        let is_given = terminal.as_ref().is_some_and(Terminal::is_for_one_command);
        Self { terminal, is_given }
    }

    /// The stop signal of the terminal, if it may reach us while the command does not hear it.
    pub(crate) fn stop_to_hear(&self) -> Option<Signal> {
        (!self.is_given).then_some(Signal::TSTP)
    }
}

/// What the leader is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It runs.
    Running,
    /// It was stopped by this signal.
    Stopped(i32),
    /// It ended.
    Ended(Outcome),
}

impl Job {
    /// Starts `command` in a group of its own, and with the terminal if it is to have it.
    pub(crate) fn start(mut command: Command, stage: Stage) -> Result<Self, Failure> {
        // What cannot take the terminal itself is given it a moment later.
        let mut refusal = None;
        if stage.is_given
            && let Ok((foreground, may_be_refused)) = in_foreground(&command)
        {
            (command, refusal) = (foreground, Some(may_be_refused));
        }
        let leader = spawn(&mut command).map_err(|error| cannot_run(&command, &error))?;
        let (group, has_asked) = (Pid::from_child(&leader), stage.is_given);
        let job = Self {
            leader,
            group,
            stage,
            has_asked,
            own_stops: 0,
            was_passed_a_key: false,
            refusal,
        };
        job.give_terminal();
        Ok(job)
    }

    /// The group's id.
    pub(crate) fn group(&self) -> Pid {
        self.group
    }

    /// Signals the whole group. One that has gone needs no signal. Returns whether we may: a command
    /// can have become another user's.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        kill_process_group(self.group, signal) != Err(Errno::PERM)
    }

    /// Passes on what we were sent.
    pub(crate) fn forward(&mut self, signal: Signal) {
        self.was_passed_a_key |= OF_KEYS.contains(&signal);
        self.send(signal);
    }

    /// Signals the group. A stopped command could not act on what is to end it.
    fn send(&self, signal: Signal) {
        self.signal(signal);
        if [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signal) {
            self.signal(Signal::CONT);
        }
    }

    /// Looks at the leader without reaping it.
    pub(crate) fn progress(&self) -> Result<Progress, Failure> {
        let how = WaitIdOptions::EXITED
            | WaitIdOptions::STOPPED
            | WaitIdOptions::NOHANG
            | WaitIdOptions::NOWAIT;
        let seen = waitid(WaitId::Pid(self.group), how)
            .map_err(|error| Failure::ours("cannot wait for the command", &error.into()))?;
        let Some(status) = seen else { return Ok(Progress::Running) };
        Ok(match (status.exit_status(), status.terminating_signal(), status.stopping_signal()) {
            (Some(code), _, _) => {
                let code = u8::try_from(code & 0xff).unwrap_or(u8::MAX);
                Progress::Ended(Outcome::Exited(code))
            }
            (_, Some(signal), _) => Progress::Ended(Outcome::Killed(signal)),
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
        if let Some(terminal) = &self.stage.terminal
            && self.has_asked
        {
            terminal.give_to(self.group);
        }
    }

    /// Answers to the leader's having been stopped by `signal`. Returns whether it may go on now.
    pub(crate) async fn stopped(&mut self, signal: i32, continued: &mut Signals) -> bool {
        let Some(terminal) = &self.stage.terminal else { return false };
        let asks = [Signal::TTIN, Signal::TTOU].into_iter().find(|it| it.as_raw() == signal);
        match asks {
            Some(_) if terminal.is_of(self.group) => true,
            Some(asks) => {
                self.has_asked = true;
                terminal.is_ours() || self.stop_in_background(asks, continued).await
            }
            // Ctrl-Z: the shell must get the terminal back, and see us stopped.
            None if terminal.is_of(self.group) => {
                terminal.take_from(self.group);
                // The terminal told the command's group only. Ours is told here, all of it, since a
                // script that waits for us has to stop with us.
                let _cannot_fail = kill_current_process_group(Signal::TSTP);
                if self.stage.is_given {
                    until_continued(continued).await;
                } else {
                    self.own_stops += 1;
                    stop_ourselves(Signal::TTOU, continued).await;
                }
                true
            }
            None => false,
        }
    }

    /// We are a background job, and the command asks for the terminal. We stop as it did, which a
    /// shell shows, and its `fg` then gives us the terminal.
    async fn stop_in_background(&self, asks: Signal, continued: &mut Signals) -> bool {
        if stop_ourselves(asks, continued).await {
            return true;
        }
        // No shell is left that could ever say `fg`. The kernel hangs up on those who are stopped then.
        self.send(Signal::HUP);
        false
    }

    /// We were sent a stop signal that the command did not get from the terminal: both stop.
    /// Otherwise the command would work on while nobody keeps its lock alive. Returns whether it may
    /// go on now; not after a signal of our own making.
    pub(crate) async fn stop_with_us(&mut self, continued: &mut Signals) -> bool {
        if let Some(left) = self.own_stops.checked_sub(1) {
            self.own_stops = left;
            return false;
        }
        self.signal(Signal::TSTP);
        // The others of our group got their own.
        stop_ourselves(Signal::TTOU, continued).await;
        true
    }

    /// Takes the terminal back and buries the leader, which has ended in this way; the same, with
    /// whether it alone can have heard a key.
    pub(crate) fn bury(&mut self, outcome: Outcome) -> Outcome {
        let terminal = self.stage.terminal.as_ref();
        let had_it = terminal.is_some_and(|terminal| terminal.take_from(self.group));
        if had_it && !self.stage.is_given {
            // Whoever shares our group, in a pipeline, may have been stopped for want of it.
            let _cannot_fail = kill_current_process_group(Signal::CONT);
        }
        let _status_is_known = self.leader.wait();
        if had_it && !self.was_passed_a_key { outcome.alone() } else { outcome }
    }

    /// Why the leader, which has ended, did not become the command, if it did not.
    pub(crate) fn refusal(&mut self) -> Option<Failure> {
        self.refusal.take().and_then(Refusal::heard)
    }

    /// Waits until nobody of the group is left; SIGKILL at `kill_at`. For after the burial of a
    /// command that was stopped. Returns whether all are dead: those of another user may live on.
    pub(crate) async fn wait_for_stragglers(&self, kill_at: Instant) -> bool {
        while Instant::now() < kill_at {
            if is_gone(self.group) {
                return true;
            }
            sleep(GROUP_POLL).await;
        }
        self.signal(Signal::KILL);
        let give_up_at = Instant::now() + KILL_SHOWS_MAX;
        while Instant::now() < give_up_at && !is_gone(self.group) {
            sleep(GROUP_POLL).await;
        }
        is_gone(self.group) || is_dead(self.group)
    }
}

/// Starts `command` in a group of its own, by the shell if it is a script for that.
fn spawn(command: &mut Command) -> io::Result<Child> {
    command.process_group(0);
    command.spawn().or_else(|error| match by_the_shell(command, &error) {
        Some(mut script) => script.process_group(0).spawn(),
        None => Err(error),
    })
}

/// Stops this process until it is continued. Returns false, soon, if it was not stopped because
/// nobody could continue it.
///
/// SIGTSTP is caught, so it would not do; SIGTTIN and SIGTTOU do the same, and are ignored, too, where
/// there is no shell.
async fn stop_ourselves(by: Signal, continued: &mut Signals) -> bool {
    let _cannot_fail = kill_process(getpid(), by);
    until_continued(continued).await
}

/// After a stop signal to ourselves: returns when we are continued, or soon and with false if we were
/// not stopped.
async fn until_continued(continued: &mut Signals) -> bool {
    timeout(STOP_SHOWS_MAX, continued.next()).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_command_is_127_and_an_unrunnable_one_126() {
        let command = Command::new("prog");
        let code = |kind| cannot_run(&command, &io::Error::from(kind)).exit;
        assert_eq!(code(io::ErrorKind::NotFound), 127);
        assert_eq!(code(io::ErrorKind::PermissionDenied), 126);
        assert_eq!(code(io::ErrorKind::InvalidInput), 126);
    }
}
