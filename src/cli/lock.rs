//! `coordinator lock` and `coordinator try`: a command under a lock.
//!
//! ```text
//! connect ─▶ wait in line ─▶ held ─▶ command runs ─▶ command ended ─▶ release ─▶ its exit code
//!    │            │                       │
//!    69        75, 130                lease in danger, or lost ─▶ SIGTERM ─▶ SIGKILL ─▶ 70
//! ```
//!
//! Everything happens on one thread, so that signals, the lease and the command's fate are looked
//! at one after the other. `supervise` watches the command, `plan` has the arithmetic of stopping
//! it in time, `watchdog` does it when this process is stopped or dead.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::process::{Command, ExitCode};
use std::time::Duration;

use coordinator::types::{IDENTITY_LEN_MAX, Identity};
use coordinator::{Client, Error, LockGuard};
use rustix::process::Signal;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::args::LockArgs;
use super::child::code_of_signal;
use super::errors::{self, Attempt, Failure, shell_word};
use super::output;
use super::plan::{KILL_AFTER_MAX, Plan};
use super::settings::Settings;
use super::signals::{FOR_COMMANDS, Signals};
use super::supervise::{Rules, supervise};
use super::terminal::{self, Terminal};
use super::values::OnLost;
use super::waiting::{self, Place};
use super::watchdog::Watchdog;
use super::words;

/// How long the answer to our release may take before we leave it to the lease.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// Runs the command, or holds the lock if there is none.
pub(crate) fn run(args: &LockArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    super::on_a_runtime(async {
        let heard =
            Heard::listen().map_err(|error| Failure::ours("cannot hear signals", &error))?;
        run_listening(args, settings, heard).await
    })
}

/// The signals that matter here, heard from the very beginning so that none is missed.
pub(crate) struct Heard {
    /// Those for the command.
    pub(crate) forwarded: Signals,
    /// Something became of the command.
    pub(crate) child: Signals,
    /// We were continued.
    pub(crate) continued: Signals,
}

impl Heard {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            forwarded: Signals::listen_unless_ignored(FOR_COMMANDS)?,
            child: Signals::listen([Signal::CHILD])?,
            continued: Signals::listen([Signal::CONT])?,
        })
    }
}

async fn run_listening(
    args: &LockArgs,
    settings: &Settings,
    mut heard: Heard,
) -> Result<ExitCode, Failure> {
    // It gets ready while we are in line.
    let watchdog = watchdog(args, settings);
    let (client, guard) = match acquire(args, settings, &mut heard.forwarded).await? {
        Acquired::Held(client, guard) => (client, guard),
        Acquired::Interrupted(signal) => {
            return Ok(ExitCode::from(code_of_signal(signal.as_raw())));
        }
    };
    let plan = Plan { ttl: client.ttl(), kill_after: settings.kill_after };
    let rules = Rules { plan, on_lost: settings.on_lost };
    let outcome = match command(args, settings, &client, &guard) {
        Some(command) => supervise(command, &guard, rules, watchdog, heard).await,
        None => hold(&guard, rules, heard).await,
    };
    let released = timeout(RELEASE_MAX, guard.release()).await;
    if let (Ok(_), Ok(Err(Error::Lost { reason, .. }))) = (&outcome, released) {
        let why = errors::lost(reason, None);
        let names = words::names(args.names());
        output::tell(&format!("warning: lost {names} before the release: {why}"));
    }
    // A server that does not answer forgets us when the lease ends.
    let _forgotten = timeout(RELEASE_MAX, client.close()).await;
    outcome
}

/// The process that stops the command if this one cannot, if it is to be stopped.
fn watchdog(args: &LockArgs, settings: &Settings) -> Option<Watchdog> {
    words_of(args)?;
    match settings.on_lost {
        OnLost::Kill => {}
        OnLost::Warn => return None,
    }
    // Without it all promises hold but one, so that is no reason to refuse the lock.
    let tell = |error: &io::Error| {
        let why = errors::reason(error);
        output::tell(&format!("warning: no watchdog ({why}): kill -9 would leave the command"));
    };
    Watchdog::start(settings.kill_after.min(KILL_AFTER_MAX)).inspect_err(tell).ok()
}

/// How the wait for the lock ended.
enum Acquired {
    /// The lock is held.
    Held(Client, LockGuard),
    /// The user would not wait any longer.
    Interrupted(Signal),
}

async fn acquire(
    args: &LockArgs,
    settings: &Settings,
    interrupts: &mut Signals,
) -> Result<Acquired, Failure> {
    let server = settings.server.0.as_str();
    let (rest, busy) = (rest_of(args), args.conflict_exit_code);
    let attempt = Attempt { server, lock: &args.name, command: &rest, busy };
    let identity = settings.identity.as_ref().map(identity).transpose()?;
    let (names, place) = (args.names(), Place::default());
    let acquired = async {
        let mut builder =
            Client::builder().ttl(settings.ttl.length()).connect_timeout(settings.connect_timeout);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let client = builder.connect(server).await?;
        let guard = request(args, &client, &place).await?;
        Ok((client, guard))
    };
    tokio::select! {
        biased;
        acquired = acquired => match acquired {
            Ok((client, guard)) => Ok(Acquired::Held(client, guard)),
            Err(error) => Err(attempt.failed(&error)),
        },
        signal = interrupts.next() => Ok(Acquired::Interrupted(signal)),
        never = waiting::show(server, &names, &place) => never,
    }
}

async fn request(args: &LockArgs, client: &Client, place: &Place) -> Result<LockGuard, Error> {
    let mut request = client.lock_all([] as [&str; 0]).note(args.note.as_str());
    for name in args.names() {
        request = match args.permits {
            Some(of) => request.permits(name, args.take, of),
            None if args.shared => request.shared(name),
            None => request.exclusive(name),
        };
    }
    if let Some(longest) = args.timeout {
        request = request.timeout(longest);
    }
    if args.nonblock {
        request = request.nonblocking();
    }
    let place = place.clone();
    request.on_queued(move |position| place.set(position)).await
}

/// `ci-7 (ann@build7, pid 8123)`.
fn identity(id: &Identity) -> Result<String, Failure> {
    let user = whoami::username().unwrap_or_else(|_| "unknown".to_owned());
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    let whole = format!("{id} ({user}@{host}, pid {})", std::process::id());
    match Identity::new(whole.as_str()) {
        Ok(_) => Ok(whole),
        Err(_) => Err(Failure::usage(format!("--as {} is too long", shell_word(id.as_str())))
            .hint(format!("with user, host and pid, {IDENTITY_LEN_MAX} bytes have room"))),
    }
}

/// What follows the first lock's name in the advice to wait.
fn rest_of(args: &LockArgs) -> String {
    let mut rest = String::new();
    for name in &args.others {
        rest.push_str(" --and ");
        rest.push_str(&shell_word(name));
    }
    if words_of(args).is_some() {
        rest.push_str(" -- …");
    }
    rest
}

/// The words of the command that was asked for.
fn words_of(args: &LockArgs) -> Option<Vec<&OsStr>> {
    match &args.script {
        Some(script) => Some(vec!["sh".as_ref(), "-c".as_ref(), script.as_ref()]),
        None if args.command.is_empty() => None,
        None => Some(args.command.iter().map(AsRef::as_ref).collect()),
    }
}

/// The command, with what it is told about its lock.
fn command(
    args: &LockArgs,
    settings: &Settings,
    client: &Client,
    guard: &LockGuard,
) -> Option<Command> {
    let words = words_of(args)?;
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("COORDINATOR_LOCK", &args.name)
        .env("COORDINATOR_LOCKS", args.names().join("\n"))
        .env("COORDINATOR_FENCING_TOKEN", guard.token().to_string())
        .env("COORDINATOR_SESSION", client.session().to_string())
        .env("COORDINATOR_SERVER", &settings.server.0);
    Some(command)
}

/// Holds the lock until SIGINT, SIGTERM or the end of standard input.
async fn hold(guard: &LockGuard, rules: Rules, mut heard: Heard) -> Result<ExitCode, Failure> {
    let held_since = std::time::Instant::now();
    output::line(&format!("holding {} token {}", words::locks_of(guard), guard.token()))?;
    let end_of_input = end_of_input();
    tokio::select! {
        biased;
        reason = guard.lost() => {
            let after = held_since.elapsed();
            let silence = rules.plan.silence(std::time::Instant::now(), guard.valid_until());
            Err(errors::lost_lock(guard, after, &errors::lost(reason, Some(silence)), ""))
        }
        () = until_orderly_end(&mut heard.forwarded) => Ok(ExitCode::SUCCESS),
        () = end_of_input => Ok(ExitCode::SUCCESS),
    }
}

/// Other signals have nobody to be forwarded to.
async fn until_orderly_end(signals: &mut Signals) {
    while ![Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT].contains(&signals.next().await) {}
}

/// Resolves when standard input ends.
///
/// A background job that reads its terminal is stopped by the kernel, and one that is stopped loses
/// its lock; it holds until it is told to end.
async fn end_of_input() {
    let is_ours = || Terminal::controlling().is_none_or(|terminal| terminal.is_ours());
    if terminal::is_input() && !is_ours() {
        return std::future::pending().await;
    }
    let (tell, told) = oneshot::channel();
    // A thread of its own, which ends with the process: a blocked read cannot be called off.
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while matches!(io::stdin().read(&mut buffer), Ok(1..)) {}
        let _gone = tell.send(());
    });
    let _ended = told.await;
}
