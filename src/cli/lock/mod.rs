//! `coordinator lock` and `coordinator try`: a command under a lock.
//!
//! ```text
//! connect ─▶ wait in line ─▶ held ─▶ command runs ─▶ command ended ─▶ release ─▶ its exit code
//!    │            │                       │
//!    69        75, SIGINT             lease in danger, or lost ─▶ SIGTERM ─▶ SIGKILL ─▶ 70
//! ```
//!
//! Everything happens on one thread, so that signals, the lease and the command's fate are looked
//! at one after the other. `supervise` watches the command, `plan` has the arithmetic of stopping
//! it in time, `watchdog` does it when this process is stopped or dead.

pub(super) mod above;
pub(super) mod hold;
pub(super) mod nested;
pub(super) mod plan;
mod supervise;
mod waiting;

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::io;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use coordinator::types::{FencingToken, IDENTITY_LEN_MAX, Identity, RejectionCode};
use coordinator::wire::{LockStatus, Mode, Outlook};
use coordinator::{Client, Error, LockGuard};
use rustix::process::Signal;
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

use self::above::Held;
use self::nested::Nesting;
use self::plan::{KILL_AFTER_MAX, Plan};
use self::supervise::{Rules, supervise};
use self::waiting::{Place, Waiter};
use crate::cli::arguments::{LockArgs, Wanted};
use crate::cli::process::foreground::{become_command, cannot_run};
use crate::cli::process::outcome::Outcome;
use crate::cli::process::signals::{FOR_COMMANDS, Signals};
use crate::cli::process::terminal;
use crate::cli::settings::Settings;
use crate::cli::settings::credential::CREDENTIAL;
use crate::cli::settings::values::OnLost;
use crate::cli::text::aside;
use crate::cli::text::errors;
use crate::cli::text::errors::{Attempt, Failure, LastAnswer, shell_word};
use crate::cli::text::outlook::{self, Prospect};
use crate::cli::text::output;
use crate::cli::text::visible;
use crate::cli::text::words;
use crate::cli::watchdog::Watchdog;

/// How long the answer to our release may take before we leave it to the lease.
const RELEASE_MAX: Duration = Duration::from_secs(2);
/// The same for who is told to end meanwhile.
const HURRY_MAX: Duration = Duration::from_millis(300);
/// However little someone wants to wait: as long as this, if need be, for the connection.
const CONNECT_MIN: Duration = Duration::from_secs(1);
/// The shortest wait in line, for who was long in connecting.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How long the answer may take that the time is up.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Longer waits are for ever; a timer has no more room.
const WAIT_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// After a crash of the coordinator, who is to run once in a period asks so often whether it may.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs the command, or holds the lock if there is none.
pub(crate) fn run(args: &LockArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let args = &with_period(args)?;
    let outcome = super::on_a_runtime(async {
        let heard =
            Heard::listen().map_err(|error| Failure::ours("cannot listen for signals", &error))?;
        run_listening(args, settings, heard).await
    });
    outcome.map(Outcome::ours)
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
) -> Result<Outcome, Failure> {
    if words_of(args).is_none() && hold::has_no_input() {
        return Err(nothing_to_hold_for(args));
    }
    let nesting = if args.reentrant { Nesting::Reentrant } else { Nesting::Refused };
    match heard.forwarded.or(nested::grant_above(args, nesting, settings)).await {
        Ok(above) => {
            if let Some(grant) = above? {
                return Err(become_nested(args, settings, &grant));
            }
        }
        Err(signal) => return Ok(Outcome::interrupted(signal)),
    }
    // It gets ready while we are in line.
    let watchdog = watchdog(args, settings);
    let (client, guard) =
        match acquire(args, settings, &mut heard.forwarded, Advice::of(args)).await? {
            Acquired::Held(client, guard) => (client, guard),
            Acquired::Interrupted(signal) => return Ok(Outcome::interrupted(signal)),
            Acquired::NotAgain => return Ok(Outcome::Exited(0)),
        };
    let plan = Plan { ttl: client.ttl(), kill_after: settings.kill_after };
    let rules = Rules { plan, on_lost: settings.on_lost };
    let outcome = match command(args, settings, &client, &guard) {
        Some(command) => supervise(command, (&client, &guard), rules, watchdog, &mut heard).await,
        None => hold::until_input_ends(&guard, plan, &mut heard.forwarded).await,
    };
    if outcome.as_ref().is_err_and(Failure::is_of_the_start) {
        // What did not begin has not had its turn.
        guard.cancel();
        let _forgotten = timeout(RELEASE_MAX, client.close()).await;
        return outcome;
    }
    let given_back = give_back(client, guard, &mut heard.forwarded).await;
    if let (Ok(_), GivenBack::Lost(why)) = (&outcome, given_back) {
        let names = words::names(args.names());
        output::tell(&format!("warning: lost {names} before the release: {why}"));
    }
    outcome
}

/// What came of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GivenBack {
    /// The lock is free.
    Freed,
    /// It was lost before, for this reason.
    Lost(String),
    /// There was no answer in time: it is free when the lease ends, at the latest.
    Unanswered,
}

/// Releases the lock and ends the session; hastily if `signals` say that we are to end.
pub(crate) async fn give_back(
    client: Client,
    guard: LockGuard,
    signals: &mut Signals,
) -> GivenBack {
    let mut longest = RELEASE_MAX;
    let released = tokio::select! {
        biased;
        released = timeout(RELEASE_MAX, guard.release()) => match released {
            Ok(Ok(())) => GivenBack::Freed,
            Ok(Err(Error::Lost { reason, .. })) => {
                GivenBack::Lost(errors::lost(reason, LastAnswer::Unknown))
            }
            Ok(Err(_)) | Err(_) => GivenBack::Unanswered,
        },
        () = hurry(signals) => {
            longest = Duration::ZERO;
            GivenBack::Unanswered
        }
    };
    // A server that does not answer forgets us when the lease ends.
    tokio::select! {
        biased;
        _ = timeout(longest, client.close()) => {}
        () = hurry(signals) => {}
    }
    released
}

/// Returns soon after a signal that is to end us. It may be one that has ended the command as well, and
/// an answer of a coordinator that is there takes no longer.
async fn hurry(signals: &mut Signals) {
    hold::until_told(signals).await;
    sleep(HURRY_MAX).await;
}

/// The mistake of a script that means to hold a lock for what follows.
fn nothing_to_hold_for(args: &LockArgs) -> Failure {
    let what = format!(
        "{} would be released at once: there is no command, and standard input is empty",
        words::names(args.names())
    );
    let name = shell_word(&args.name);
    Failure::usage(what).hint(format!(
        "`coordinator acquire {name}` holds it in the background, `coordinator hold {name}` in the \
        foreground"
    ))
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
        output::tell(&format!(
            "warning: no watchdog ({why}): after a kill -9 of this process, the \
            command would keep running"
        ));
    };
    let kill_after = settings.kill_after.min(KILL_AFTER_MAX);
    // A pause that was asked for is for a command that did not come to its own end; it follows a loss.
    let wants_pause = args.lock_delay.is_some_and(|delay| !delay.is_zero());
    Watchdog::start(kill_after, (!wants_pause).then_some(settings)).inspect_err(tell).ok()
}

/// How the wait for the lock ended.
pub(crate) enum Acquired {
    /// The lock is held.
    Held(Client, LockGuard),
    /// The user would not wait any longer.
    Interrupted(Signal),
    /// It was to be held once in a period, and was.
    NotAgain,
}

/// What is said to who finds the lock busy: how to wait for it.
#[derive(Clone, Debug)]
pub(crate) struct Advice {
    /// The command that was to get it, if it is not `lock`.
    verb: Option<&'static str>,
    /// What follows the lock's name.
    rest: String,
}

impl Advice {
    fn of(args: &LockArgs) -> Self {
        let mut rest = others_of(args);
        if words_of(args).is_some() {
            rest.push_str(" -- …");
        }
        Self { verb: None, rest }
    }

    /// For a command without one of its own to run.
    pub(crate) fn of_holding(verb: &'static str, wanted: &Wanted) -> Self {
        Self { verb: Some(verb), rest: others_of(wanted) }
    }
}

/// Gets the lock.
pub(crate) async fn acquire(
    args: &Wanted,
    settings: &Settings,
    interrupts: &mut Signals,
    advice: Advice,
) -> Result<Acquired, Failure> {
    let server = settings.server.0.as_str();
    let servers = settings.servers()?;
    let Advice { verb, rest } = advice;
    let attempt = Attempt {
        server,
        lock: &args.name,
        verb,
        command: &rest,
        busy: args.conflict_exit_code,
        within: args.timeout,
        mode: Some(mode(args)),
    };
    let identity = settings.identity.as_ref().map(identity).transpose()?;
    let patience = Patience::of(args, settings);
    let (names, place, known) = (args.names(), Place::default(), OnceCell::new());
    let acquired = async {
        let mut builder =
            Client::builder().ttl(settings.ttl.length()).connect_timeout(patience.connect);
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        if let Some(linger) = args.linger {
            builder = builder.linger(linger);
        }
        let client = builder.connect(&servers).await?;
        let client = known.get_or_init(|| client);
        loop {
            let asked = timeout(patience.answer, request(args, client, &place, patience)).await;
            if !may_be_free_soon(args, &asked) {
                return asked.ok().transpose();
            }
            sleep(ASK_AGAIN).await;
        }
    };
    let acquired = timeout(patience.whole, acquired);
    let plan = Plan { ttl: settings.ttl, kill_after: settings.kill_after };
    let waiter = Waiter {
        servers: &servers,
        locks: &names,
        mode: mode(args),
        place: &place,
        client: &known,
        plan,
    };
    let telling = async {
        if args.quiet { std::future::pending().await } else { waiting::tell(waiter).await }
    };
    let outcome = tokio::select! {
        biased;
        acquired = acquired => acquired.map_err(|_| None).and_then(|acquired| {
            // One that has no answer in time has none.
            acquired.transpose().ok_or(None)
        }),
        signal = interrupts.next() => Err(Some(signal)),
        never = telling => never,
    };
    // What comes next is not to mix with what was shown.
    aside::settled().await;
    match outcome {
        Ok(Ok(guard)) => match known.into_inner() {
            Some(client) => Ok(Acquired::Held(client, guard)),
            None => Err(attempt.silent(patience.since.elapsed())),
        },
        Ok(Err(Error::Busy { lock })) if args.once_per.is_some() => {
            if terminal::is_watched() && !args.quiet {
                let prospect = outlook::of(&servers, &lock).await;
                tell_not_again(&lock, prospect.lock.as_ref());
            }
            Ok(Acquired::NotAgain)
        }
        Ok(Err(error)) => {
            let prospect = match &error {
                Error::Busy { lock } | Error::TimedOut { lock, .. } => {
                    outlook::of(&servers, lock).await
                }
                _ => Prospect::default(),
            };
            Err(attempt.failed_until(&error, &prospect))
        }
        Err(Some(signal)) => Ok(Acquired::Interrupted(signal)),
        Err(None) => Err(attempt.silent(patience.since.elapsed())),
    }
}

/// The same with the period in which it is to run once, which is something that has a begin and an end.
fn with_period(args: &LockArgs) -> Result<LockArgs, Failure> {
    match args.once_per {
        Some(Duration::ZERO) => Err(Failure::usage("--once-per 0 is not a period")),
        Some(_) if words_of(args).is_none() => {
            Err(Failure::usage("--once-per needs a command to run once per period")
                .hint("`coordinator lock NAME --at-least 1h` holds a lock without one"))
        }
        period => {
            let mut args = args.clone();
            args.wanted.once_per = period;
            Ok(args)
        }
    }
}

/// Whether an answer is of a coordinator that cannot say yet, and is asked again.
fn may_be_free_soon(args: &Wanted, asked: &Result<Result<LockGuard, Error>, Elapsed>) -> bool {
    let is_grace =
        |error: &Error| matches!(error, Error::Rejected { code: RejectionCode::Grace, .. });
    args.once_per.is_some() && matches!(asked, Ok(Err(error)) if is_grace(error))
}

/// Why the command is not run: a person wants to know, a mail of cron's is not to be about it.
fn tell_not_again(lock: &LockStatus, outlook: Option<&Outlook>) {
    let why = match (lock.holders.first(), outlook.and_then(outlook::why_kept)) {
        (Some(holder), _) => format!("held by {}", words::who(&holder.identity, &holder.peer)),
        (None, Some(kept)) => kept,
        (None, None) => "not free".to_owned(),
    };
    output::tell(&format!("not run: {} is {why}", visible::quoted(&lock.name)));
}

/// How long the whole may take: to connect, to wait in line, to be answered.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From when on it is counted.
    since: Instant,
    /// For the connection.
    connect: Duration,
    /// For each answer. The coordinator ends the wait itself, if it is there.
    answer: Duration,
    /// For everything.
    whole: Duration,
}

impl Patience {
    fn of(args: &Wanted, settings: &Settings) -> Self {
        let connect = settings.connect_timeout;
        let is_said = settings.is_said("connect-timeout");
        let never = args.nonblock || args.once_per.is_some();
        let wait = if never { Some(Duration::ZERO) } else { args.timeout };
        let connect = match wait {
            None => connect,
            // Who does not wait at all waits for the network all the same, and may say how long.
            Some(Duration::ZERO) if is_said => connect,
            Some(wait) => connect.min(wait.max(CONNECT_MIN)),
        };
        let whole = wait.map_or(WAIT_MAX, |wait| wait.max(connect).saturating_add(ANSWER_MAX));
        let answer = whole.min(WAIT_MAX);
        // A crash of the coordinator is waited out, so that the period is not left out.
        let whole = if args.once_per.is_some() { WAIT_MAX } else { answer };
        Self { since: Instant::now(), connect, answer, whole }
    }
}

async fn request(
    args: &Wanted,
    client: &Client,
    place: &Place,
    patience: Patience,
) -> Result<LockGuard, Error> {
    let mut request = client.lock_all([] as [&str; 0]).note(args.note.as_str());
    for name in args.names() {
        request = match args.permits {
            Some(of) => request.permits(name, args.take, of),
            None if args.shared => request.shared(name),
            None => request.exclusive(name),
        };
    }
    if let Some(longest) = args.timeout {
        // Connecting was a part of it; who is connected waits a moment at least.
        let left = longest.saturating_sub(patience.since.elapsed());
        request = request.timeout(left.max(WAIT_MIN.min(longest)));
    }
    if args.nonblock || args.once_per.is_some() {
        request = request.nonblocking();
    }
    // A clock that ticks a little early is not to find the period before this still going on.
    if let Some(length) = args.at_least.or(args.once_per.map(|period| period / 10 * 9)) {
        request = request.at_least(length);
    }
    if args.supersede {
        request = request.supersede();
    }
    if let Some(delay) = args.lock_delay {
        request = request.lock_delay(delay);
    }
    let place = place.clone();
    request.on_queued(move |position| place.set(position)).await
}

/// How the locks are wanted.
fn mode(args: &Wanted) -> Mode {
    match args.permits {
        Some(of) => Mode::Permits { take: args.take, of },
        None if args.shared => Mode::Shared,
        None => Mode::Exclusive,
    }
}

/// `ci-7 (ann@build7, pid 8123)`.
fn identity(id: &Identity) -> Result<String, Failure> {
    let user = words::user();
    let host = whoami::hostname().unwrap_or_else(|_| "unknown".to_owned());
    let whole = format!("{id} ({user}@{host}, pid {})", std::process::id());
    match Identity::new(whole.as_str()) {
        Ok(_) => Ok(whole),
        Err(_) => Err(Failure::usage(format!("--as {} is too long", shell_word(id.as_str())))
            .hint(format!("the limit is {IDENTITY_LEN_MAX} bytes, with user, host and pid"))),
    }
}

/// The other locks, as they follow the first lock's name.
fn others_of(args: &Wanted) -> String {
    let mut rest = String::new();
    for name in &args.others {
        rest.push_str(" --and ");
        rest.push_str(&shell_word(name));
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
    let session = client.session().to_string();
    let mut command = command_under(args, settings, guard.token(), &session)?;
    command.env(above::VARIABLE, nested::variable(guard.token(), &session, &args.names()));
    Some(command)
}

/// The command, with what it is told about a grant.
fn command_under(
    args: &LockArgs,
    settings: &Settings,
    token: FencingToken,
    session: &str,
) -> Option<Command> {
    let words = words_of(args)?;
    let (program, arguments) = words.split_first()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("COORDINATOR_LOCK", &args.name)
        .env("COORDINATOR_LOCKS", args.names().join("\n"))
        .env("COORDINATOR_FENCING_TOKEN", token.to_string())
        .env("COORDINATOR_SESSION", session)
        .env("COORDINATOR_SERVER", &settings.server.0);
    settings.tell_tls(&mut command);
    // A secret of ours: whoever needs it there is told its file.
    command.env_remove(CREDENTIAL);
    Some(command)
}

/// Becomes the command under a grant of whoever runs this, who also sees to its end. Returns only to
/// say why that cannot be.
fn become_nested(args: &LockArgs, settings: &Settings, grant: &Held) -> Failure {
    match command_under(args, settings, grant.token, &grant.session) {
        Some(mut command) => {
            let error = become_command(&mut command);
            cannot_run(&command, &error)
        }
        None => Failure::usage("--reentrant needs a command to run under the existing grant"),
    }
}
