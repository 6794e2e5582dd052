//! Watches over a command and its lock until one of them ends.

use std::process::Command;
use std::time::{Duration, Instant};

use coordinator::types::LostReason;
use coordinator::{Client, LockGuard};
use rustix::process::Signal;
use tokio::time::sleep_until;

use super::Heard;
use super::plan::{Plan, STALL_MIN};
use crate::cli::process::child::{Job, Progress, Stage};
use crate::cli::process::orphans;
use crate::cli::process::outcome::{Outcome, code_of_signal};
use crate::cli::process::signals::Signals;
use crate::cli::settings::values::OnLost;
use crate::cli::text::aside;
use crate::cli::text::errors;
use crate::cli::text::errors::Failure;
use crate::cli::text::words;
use crate::cli::watchdog::Watchdog;

/// What to do when the lock is in danger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// When to stop the command, if it is to be stopped.
    pub(crate) plan: Plan,
    /// Whether it is.
    pub(crate) on_lost: OnLost,
}

/// The command is being stopped because its lock is lost, or soon will be.
struct Stopping {
    /// Why the lock is lost, for people.
    why: String,
    /// How long the lock had been held.
    after: Duration,
    /// When SIGKILL follows; none once it was sent.
    kill_at: Option<Instant>,
    /// When it was to follow, for what is left of the group afterwards.
    deadline: Instant,
    /// When to tell that the command still runs; none once that was told.
    tell_at: Option<Instant>,
    /// Whether we may signal it: a command can have become another user's.
    is_ours: bool,
}

/// How long stopping, and then killing, may take before it is told.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Why a lock is lost, if we could neither keep it nor see that it ended.
const STOOD_STILL: &str = "this process was stopped until its lease ended";

/// A command at work under a lock.
struct Watch<'a> {
    /// The command.
    job: Job,
    /// The watchdog, which stops it if we cannot; none if nobody is to. Gone before the command is
    /// reaped.
    watchdog: Option<Watchdog>,
    /// State that is shown of it.
    shown: String,
    /// The lock.
    guard: &'a LockGuard,
    /// The session that holds it.
    client: &'a Client,
    /// Rules for the case of danger.
    rules: Rules,
    /// Since when it is held.
    since: Instant,
    /// Until when it is believed in; kept here because a lost guard knows no more than *now*.
    valid_until: Instant,
    /// When to look whether the lease was renewed.
    look_at: Instant,
    /// Whether the user was told of a loss and chose to go on.
    warned: bool,
    /// Set once the command is being stopped.
    stopping: Option<Stopping>,
}

/// Runs `command` while `guard` is held; its exit code, or the loss.
pub(crate) async fn supervise(
    command: Command,
    (client, guard): (&Client, &LockGuard),
    rules: Rules,
    watchdog: Option<Watchdog>,
    heard: &mut Heard,
) -> Result<Outcome, Failure> {
    let shown = show(&command);
    let valid_until = guard.valid_until();
    let stage = Stage::here();
    // Before there is a command that has to stop with us.
    let mut stops = Signals::listen_unless_ignored(stage.stop_to_hear())
        .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
    let mut watch = Watch {
        job: Job::start(command, stage)?,
        watchdog,
        shown,
        guard,
        client,
        rules,
        since: Instant::now(),
        valid_until,
        look_at: rules.plan.look_at(Instant::now(), valid_until),
        warned: false,
        stopping: None,
    };
    if let Some(watchdog) = &mut watch.watchdog {
        watchdog.watch(watch.job.group(), valid_until, client.session_key());
    }
    // Those that ended before we listened.
    watch.reap_orphans();
    let lost = guard.lost();
    tokio::pin!(lost);
    let outcome = loop {
        match watch.job.progress()? {
            Progress::Ended(outcome) => break outcome,
            Progress::Stopped(signal) if watch.stopping.is_none() => {
                if watch.job.stopped(signal, &mut heard.continued).await {
                    watch.resume();
                }
            }
            Progress::Stopped(_) | Progress::Running => {}
        }
        let wake_at = watch.wake_at();
        tokio::select! {
            biased;
            reason = &mut lost, if watch.stopping.is_none() && !watch.warned => watch.lose(reason),
            () = sleep_until(wake_at.into()) => watch.wake(),
            _ = heard.continued.next() => watch.resume(),
            signal = heard.forwarded.next() => watch.job.forward(signal),
            _ = stops.next() => {
                if watch.job.stop_with_us(&mut heard.continued).await {
                    watch.resume();
                }
            }
            _ = heard.child.next() => watch.reap_orphans(),
        }
    };
    watch.end(outcome).await
}

impl Watch<'_> {
    /// Buries those that nobody else will.
    fn reap_orphans(&mut self) {
        let watchdog = &mut self.watchdog;
        orphans::reap(self.job.group(), |child| {
            watchdog.as_mut().is_some_and(|watchdog| watchdog.reap(child))
        });
    }

    /// When something is due without anything happening.
    fn wake_at(&self) -> Instant {
        match &self.stopping {
            // SIGCHLD tells of its end.
            Some(stopping) => {
                let due = stopping.kill_at.into_iter().chain(stopping.tell_at).min();
                due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
            }
            None => self.look_at,
        }
    }

    /// Something is due: SIGKILL, a remark, or a look at the lease.
    fn wake(&mut self) {
        let now = Instant::now();
        if self.stopping.is_some() {
            return self.go_on_stopping(now);
        }
        let plan = self.rules.plan;
        if self.guard.is_held() {
            self.valid_until = self.guard.valid_until();
            self.move_deadline(self.valid_until);
            let stop_at = plan.stop_at(self.valid_until);
            if stop_at > now {
                self.look_at = plan.look_at(now, self.valid_until);
                return;
            }
            if let Some(later) = Plan::reprieve(self.look_at, now, self.valid_until) {
                self.look_at = later;
                return;
            }
        }
        match self.rules.on_lost {
            OnLost::Kill => self.stop(LostReason::Expired),
            // The loss itself will be told when it happens; until then there is hope.
            OnLost::Warn => self.look_at = now + plan.ttl.length() / 10,
        }
    }

    /// The next step of stopping, if it is due. Whoever watches is told what takes long.
    fn go_on_stopping(&mut self, now: Instant) {
        let Some(stopping) = &mut self.stopping else { return };
        let is_due = |at: &Instant| *at <= now;
        if stopping.kill_at.as_ref().is_some_and(is_due) {
            stopping.kill_at = None;
            stopping.is_ours |= self.job.signal(Signal::KILL);
            stopping.tell_at = Some(now + TELL_AFTER);
        } else if stopping.tell_at.as_ref().is_some_and(is_due) {
            stopping.tell_at = None;
            let (names, why, shown) = (words::locks_of(self.guard), &stopping.why, &self.shown);
            let what = match (stopping.kill_at, stopping.is_ours) {
                (Some(_), _) => "is being stopped",
                (None, true) => "was killed and has not ended yet",
                (None, false) => "cannot be killed (another user's) and keeps running",
            };
            aside::tell(&format!("warning: lost {names}: {why}; {shown} {what}"));
        }
    }

    /// The lock is lost.
    fn lose(&mut self, reason: LostReason) {
        match self.rules.on_lost {
            OnLost::Kill => self.stop(reason),
            OnLost::Warn => {
                self.warned = true;
                let (names, why) = (words::locks_of(self.guard), self.why(reason));
                aside::tell(&format!("warning: lost {names}: {why}; {} keeps running", self.shown));
            }
        }
    }

    /// Asks the command to end, and sets the time for telling it.
    fn stop(&mut self, reason: LostReason) {
        let kill_at = self.rules.plan.kill_at(reason, Instant::now(), self.valid_until);
        let why = self.why(reason);
        let after = self.since.elapsed();
        self.move_deadline(kill_at);
        let now = Instant::now();
        self.stopping = Some(Stopping {
            why,
            after,
            kill_at: Some(kill_at),
            deadline: kill_at,
            tell_at: Some(now + TELL_AFTER),
            is_ours: self.job.signal(Signal::TERM),
        });
        self.go_on_stopping(now);
        // A stopped command cannot act on SIGTERM; it has its time to do so.
        self.job.signal(Signal::CONT);
    }

    /// We were continued: so is the command, unless its lock was lost meanwhile.
    fn resume(&mut self) {
        let lost = !self.guard.is_held();
        match self.rules.on_lost {
            OnLost::Kill if lost && self.stopping.is_none() => self.stop(LostReason::Expired),
            OnLost::Kill if lost => {}
            OnLost::Kill | OnLost::Warn => self.job.resume(),
        }
    }

    /// The command must be dead by then, whether or not we are there to see to it.
    fn move_deadline(&mut self, dead_by: Instant) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.move_deadline(dead_by, self.client.session_key());
        }
    }

    fn why(&self, reason: LostReason) -> String {
        let now = Instant::now();
        let stood_still = now >= self.look_at + STALL_MIN && now >= self.valid_until;
        if reason == LostReason::Expired && stood_still {
            return STOOD_STILL.to_owned();
        }
        let is_held = self.guard.is_held();
        errors::lost(reason, self.rules.plan.last_answer(now, self.valid_until, is_held))
    }

    /// The command has ended.
    async fn end(mut self, outcome: Outcome) -> Result<Outcome, Failure> {
        let bitten = self.watchdog.take().is_some_and(|watchdog| {
            let was_due = watchdog.is_due();
            watchdog.dismiss();
            was_due && outcome.code() == code_of_signal(Signal::KILL.as_raw())
        });
        let outcome = self.job.bury(outcome);
        if let Some(refusal) = self.job.refusal() {
            return Err(refusal);
        }
        if bitten && self.stopping.is_none() {
            let what = format!("; stopped {}", self.shown);
            return Err(errors::lost_lock(self.guard, self.since.elapsed(), STOOD_STILL, &what));
        }
        let Some(stopping) = self.stopping else { return Ok(outcome) };
        let are_dead = self.job.wait_for_stragglers(stopping.deadline.into()).await;
        let what = match (are_dead, stopping.is_ours) {
            (true, true) => format!("; stopped {}", self.shown),
            (true, false) => format!("; {} could not be stopped, and has ended", self.shown),
            (false, _) => format!("; could not stop all of {}", self.shown),
        };
        Err(errors::lost_lock(self.guard, stopping.after, &stopping.why, &what))
    }
}

/// Most characters of a command that are shown.
const SHOWN_LEN_MAX: usize = 60;

/// The command as a user would recognise it, on one line.
fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let on_one_line = |c: char| if c.is_control() { ' ' } else { c };
    let shown = words.map(|word| -> String {
        let word: String = word.to_string_lossy().chars().map(on_one_line).collect();
        errors::shell_word(&word)
    });
    let line = shown.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_LEN_MAX) {
        Some((end, _)) => format!("`{}…`", &line[..end]),
        None => format!("`{line}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_it_could_be_typed() {
        let mut command = Command::new("make");
        command.args(["deploy", "TO=a b"]);
        assert_eq!(show(&command), "`make deploy 'TO=a b'`");
    }

    #[test]
    fn a_long_command_is_cut_and_one_of_many_lines_is_shown_on_one() {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("a\nb{}", "ö".repeat(SHOWN_LEN_MAX))]);
        let shown = show(&command);
        assert!(shown.starts_with("`sh -c 'a b"), "{shown}");
        assert_eq!(shown.chars().count(), SHOWN_LEN_MAX + "`…`".chars().count());
    }
}
