//! A lock that is held without a command: `coordinator hold`, and `coordinator lock` without one.
//!
//! It ends by a signal, the end of standard input, the end of a named process, or a time. It also
//! ends by the loss of the lock. `keeper` holds in the same way, without anybody who waits for it.

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use coordinator::LockGuard;
use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::nested;
use super::nested::Nesting;
use super::plan::Plan;
use super::{Acquired, Advice, GivenBack, acquire, give_back};
use crate::cli::arguments::{HoldArgs, Wanted};
use crate::cli::process::life::Life;
use crate::cli::process::on_a_thread;
use crate::cli::process::outcome::Outcome;
use crate::cli::process::signals::Signals;
use crate::cli::process::terminal;
use crate::cli::process::terminal::Terminal;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::aside;
use crate::cli::text::errors;
use crate::cli::text::errors::Failure;
use crate::cli::text::words;

/// Signals that end a hold in good order.
pub(crate) const ENDING: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Why a lock is not to be held any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Somebody said so.
    Told,
    /// The process for whose sake it was held has ended.
    Alone,
    /// It was held for as long as it may be.
    Over(Duration),
    /// It was lost, for this reason.
    Lost(String),
}

/// When to stop holding, whatever else happens.
pub(crate) struct Bounds {
    /// The process for whose sake the lock is held, if one is named.
    pub(crate) life: Option<Life>,
    /// The longest time.
    pub(crate) max: Option<Duration>,
}

/// Holds until told to end.
pub(crate) fn run(args: &HoldArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    refuse_success(&args.wanted)?;
    let outcome = crate::cli::on_a_runtime(async {
        let mut signals = Signals::listen_unless_ignored(ENDING)
            .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
        let bounds =
            Bounds { life: args.until.while_pid.map(Life::of).transpose()?, max: args.until.max };
        let wanted = &args.wanted;
        match signals.or(nested::grant_above(wanted, Nesting::Refused, settings)).await {
            Ok(above) => _ = above?,
            Err(signal) => return Ok(Outcome::interrupted(signal)),
        }
        let advice = Advice::of_holding("hold", wanted);
        let (client, guard) = match acquire(wanted, settings, &mut signals, advice).await? {
            Acquired::Held(client, guard) => (client, guard),
            Acquired::NotAgain => return Ok(Outcome::Exited(0)),
            Acquired::Interrupted(signal) => return Ok(Outcome::interrupted(signal)),
        };
        let plan = Plan { ttl: client.ttl(), kill_after: settings.kill_after };
        let held_since = Instant::now();
        let printed = say_held(&guard);
        let input_ends = async {
            if let Ok(Err(failure)) = printed.await {
                return Err(failure);
            }
            // Second on a terminal, too.
            if !wanted.quiet {
                let id = std::process::id();
                aside::tell(&format!("hint: Ctrl-C, or `kill {id}`, releases it"));
            }
            if !args.until_eof {
                std::future::pending::<()>().await;
            }
            end_of_input().await;
            Ok(())
        };
        let outcome = tokio::select! {
            biased;
            end = until_end(&guard, plan, bounds, &mut signals) => match end {
                End::Lost(why) => Err(errors::lost_lock(&guard, held_since.elapsed(), &why, "")),
                End::Told | End::Alone | End::Over(_) => Ok(Outcome::Exited(0)),
            },
            ended = input_ends => ended.map(|()| Outcome::Exited(0)),
        };
        match (give_back(client, guard, &mut signals).await, outcome) {
            (GivenBack::Lost(why), Ok(_)) => {
                let names = words::names(wanted.names());
                Err(Failure::new(errors::exit::LOST, format!("lost {names}: {why}")))
            }
            (_, outcome) => outcome,
        }
    });
    outcome.map(Outcome::ours)
}

/// Holds the lock for a `coordinator lock` that has no command: until a signal, or the end of standard
/// input.
pub(crate) async fn until_input_ends(
    guard: &LockGuard,
    plan: Plan,
    signals: &mut Signals,
) -> Result<Outcome, Failure> {
    let held_since = Instant::now();
    let printed = say_held(guard);
    let held = async {
        if let Ok(Err(failure)) = printed.await {
            return Err(failure);
        }
        end_of_input().await;
        Ok(Outcome::Exited(0))
    };
    let unbounded = Bounds { life: None, max: None };
    tokio::select! {
        biased;
        end = until_end(guard, plan, unbounded, signals) => match end {
            End::Lost(why) => Err(errors::lost_lock(guard, held_since.elapsed(), &why, "")),
            End::Told | End::Alone | End::Over(_) => Ok(Outcome::Exited(0)),
        },
        held = held => held,
    }
}

/// To exit with 0 says here that the lock is, or was, held.
pub(crate) fn refuse_success(wanted: &Wanted) -> Result<(), Failure> {
    if wanted.conflict_exit_code != 0 {
        return Ok(());
    }
    Err(Failure::usage("-E 0 would report a busy lock as held")
        .hint("in a script: `if coordinator acquire …; then …; fi`"))
}

/// Waits until the lock is not to be held any more, or is not.
pub(crate) async fn until_end(
    guard: &LockGuard,
    plan: Plan,
    bounds: Bounds,
    signals: &mut Signals,
) -> End {
    let Bounds { life, max } = bounds;
    let over = async {
        match max {
            Some(max) => (sleep(max).await, max).1,
            None => std::future::pending().await,
        }
    };
    let alone = async {
        match life {
            Some(life) => life.ended().await,
            None => std::future::pending().await,
        }
    };
    let mut valid_until = guard.valid_until();
    // Kept, because a lost guard knows no more than *now*.
    let renewed = async {
        loop {
            sleep(plan.ttl.length() / 8).await;
            if guard.is_held() {
                valid_until = guard.valid_until();
            }
        }
    };
    let reason = tokio::select! {
        biased;
        reason = guard.lost() => reason,
        () = until_told(signals) => return End::Told,
        () = alone => return End::Alone,
        max = over => return End::Over(max),
        never = renewed => never,
    };
    let last = plan.last_answer(Instant::now(), valid_until, guard.is_held());
    End::Lost(errors::lost(reason, last))
}

/// Until a signal that ends. Others have nobody to be forwarded to.
pub(super) async fn until_told(signals: &mut Signals) {
    while !ENDING.contains(&signals.next().await) {}
}

/// Says that the lock is held. What cannot be written now must not keep the lease from being renewed.
fn say_held(guard: &LockGuard) -> oneshot::Receiver<Result<(), Failure>> {
    let text = format!("holding {} token {}", words::locks_of(guard), guard.token());
    on_a_thread(move || answer::line(&text))
}

/// Whether standard input is `/dev/null`, as for cron, for services, and for background jobs of a
/// script. Its end is no sign of anybody's.
pub(crate) fn has_no_input() -> bool {
    let input =
        io::stdin().as_fd().try_clone_to_owned().and_then(|it| fs::File::from(it).metadata());
    match (input, fs::metadata("/dev/null")) {
        (Ok(input), Ok(null)) => input.rdev() == null.rdev() && input.rdev() != 0,
        _ => false,
    }
}

/// Resolves when standard input ends.
///
/// A background job that reads its terminal is stopped by the kernel, and a stopped one loses its
/// lock. It holds until it is told to end.
async fn end_of_input() {
    let is_ours = || Terminal::controlling().is_none_or(|terminal| terminal.is_ours());
    if terminal::is_input() && !is_ours() {
        return std::future::pending().await;
    }
    let ended = on_a_thread(|| {
        let mut buffer = [0; 512];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
    });
    let _ended = ended.await;
}
