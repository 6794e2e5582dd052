//! The keeper itself: `coordinator __keep acquire …`, with the words that `acquire` was given.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;
use std::time::Duration;

use coordinator::{Client, LockGuard};
use rustix::process::{Signal, setsid};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::file::{KeptFile, new_place, place_of};
use super::record::{Ending, Record};
use crate::cli::arguments as args;
use crate::cli::arguments::{AcquireArgs, Command};
use crate::cli::lock::hold::{Bounds, ENDING, End, until_end};
use crate::cli::lock::nested;
use crate::cli::lock::nested::Nesting;
use crate::cli::lock::plan::Plan;
use crate::cli::lock::{Acquired, Advice, GivenBack, acquire, give_back};
use crate::cli::process::inherited::close_inherited;
use crate::cli::process::life::Life;
use crate::cli::process::on_a_thread;
use crate::cli::process::outcome::code_of_signal;
use crate::cli::process::signals::Signals;
use crate::cli::settings::Settings;
use crate::cli::text::errors::{Failure, exit, reason};
use crate::cli::text::words;
use crate::cli::{on_a_runtime, settings_in_force};

/// The word that makes a `coordinator` a keeper. In no help, for nobody types it.
pub(crate) const WORD: &str = "__keep";
/// What `acquire` says when it has said all that it had to say.
pub(crate) const GO_ON: u8 = b'g';
/// How long it may take for that.
const GO_ON_MAX: Duration = Duration::from_secs(10);
/// The longest that is held for nobody who is known.
const UNBOUND_MAX: Duration = Duration::from_secs(86_400);
/// What ps(1) and killall(1) know it by; at most 15 bytes.
#[cfg(any(target_os = "linux", target_os = "android"))]
const NAME: &std::ffi::CStr = c"lock-keeper";

/// Keeps what the command line asks for. What goes wrong before it is held is told here.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    close_inherited();
    // No terminal's Ctrl-C, and no hang-up; whoever starts us is no leader of a group.
    let _cannot_fail = setsid();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _cosmetic = rustix::thread::set_name(NAME);
    let words: Vec<_> = std::iter::once("coordinator".into()).chain(words).collect();
    let asked = match args::read(&words) {
        Ok(asked) => asked,
        Err(told) => return told,
    };
    let Command::Acquire(args) = &asked.command else { return ExitCode::from(exit::USAGE) };
    let kept = settings_in_force(&asked)
        .and_then(|settings| on_a_runtime(async { Keeper::begin(args, &settings)?.keep().await }));
    kept.unwrap_or_else(|failure| failure.report())
}

/// A keeper that is about to hold something.
struct Keeper<'a> {
    /// The arguments.
    args: &'a AcquireArgs,
    /// Settings of this run.
    settings: &'a Settings,
    /// Signals that end it.
    signals: Signals,
    /// Words of the process that started us; their end, if that has gone.
    starter: oneshot::Receiver<Option<u8>>,
    /// When to end by itself.
    bounds: Bounds,
    /// Where it is written down.
    file: KeptFile,
}

impl<'a> Keeper<'a> {
    fn begin(args: &'a AcquireArgs, settings: &'a Settings) -> Result<Self, Failure> {
        // Whatever is ignored: it is how `release` ends us.
        let always = [Signal::TERM];
        let others = ENDING.into_iter().filter(|signal| !always.contains(signal));
        let signals = Signals::listen_unless_ignored(others)
            .and_then(|mut signals| signals.add(always).map(|()| signals))
            .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
        let life = args.until.while_pid.map(Life::of).transpose()?;
        let max = args.until.max.or(life.is_none().then_some(UNBOUND_MAX));
        let place = match &args.keeper {
            Some(named) => place_of(named)?,
            None => new_place()?,
        };
        let file = KeptFile::claim(&place)?;
        let starter = on_a_thread(|| {
            let mut word = [0];
            matches!(io::stdin().read(&mut word), Ok(1)).then_some(word[0])
        });
        Ok(Self { args, settings, signals, starter, bounds: Bounds { life, max }, file })
    }

    /// Gets the lock, and keeps it until it is to end.
    async fn keep(mut self) -> Result<ExitCode, Failure> {
        let advice = Advice::of_holding("acquire", &self.args.wanted);
        let wanted = &self.args.wanted;
        let acquired = async {
            let above = nested::grant_above(wanted, Nesting::Refused, self.settings);
            match self.signals.or(above).await {
                Ok(above) => _ = above?,
                Err(signal) => return Ok(Acquired::Interrupted(signal)),
            }
            acquire(wanted, self.settings, &mut self.signals, advice).await
        };
        let acquired = tokio::select! {
            biased;
            acquired = acquired => acquired,
            // Whoever started us has gone, and nobody wants it any more.
            _ = &mut self.starter => Ok(Acquired::Interrupted(Signal::HUP)),
        };
        let (client, guard) = match acquired {
            Ok(Acquired::Held(client, guard)) => (client, guard),
            Ok(Acquired::Interrupted(signal)) => {
                self.file.remove();
                return Ok(ExitCode::from(code_of_signal(signal.as_raw())));
            }
            Ok(Acquired::NotAgain) => {
                self.file.remove();
                return Ok(ExitCode::SUCCESS);
            }
            Err(failure) => {
                self.file.remove();
                return Err(failure);
            }
        };
        let plan = Plan { ttl: client.ttl(), kill_after: self.settings.kill_after };
        let said = self.say_held(&client, &guard);
        let is_wanted = said.is_ok()
            && matches!(timeout(GO_ON_MAX, &mut self.starter).await, Ok(Ok(Some(GO_ON))));
        if !is_wanted {
            give_back(client, guard, &mut self.signals).await;
            self.file.remove();
            return said.map(|()| ExitCode::from(exit::LOST));
        }
        detach();
        let end = until_end(&guard, plan, self.bounds, &mut self.signals).await;
        let is_alone = end == End::Alone;
        let ending = match (give_back(client, guard, &mut self.signals).await, end) {
            (_, End::Lost(why)) | (GivenBack::Lost(why), _) => Ending::Lost(why),
            (_, End::Over(max)) => {
                let max = words::length(max);
                Ending::Lost(format!("it was held for {max}, the limit set by --max"))
            }
            (GivenBack::Freed, _) => Ending::Released,
            (GivenBack::Unanswered, _) => Ending::Unanswered,
        };
        if is_alone {
            // Whoever could ask has gone.
            self.file.remove();
        }
        // There is nobody to tell that it cannot be written; that we are gone tells enough.
        let _written = self.file.write(&ending);
        Ok(ExitCode::SUCCESS)
    }

    /// Writes down what is held, and tells whoever started us where.
    fn say_held(&mut self, client: &Client, guard: &LockGuard) -> Result<(), Failure> {
        let cannot = |what: &str, error: &io::Error| {
            Failure::new(exit::NOT_WRITTEN, format!("cannot write {what} ({})", reason(error)))
        };
        let record = Record {
            coordinator_keeper: Record::FORM,
            pid: std::process::id().cast_signed(),
            pid_namespace: pid_namespace(),
            locks: guard.names().iter().map(|name| name.as_str().to_owned()).collect(),
            token: guard.token().number(),
            session: client.session().to_string(),
            ttl_ms: client.ttl().as_millis(),
            server: self.settings.server.0.clone(),
        };
        self.file.write(&record).map_err(|error| cannot("the record of the held locks", &error))?;
        let mut path = self.file.path().as_os_str().as_bytes().to_vec();
        path.push(b'\n');
        let told = io::stdout().write_all(&path).and_then(|()| io::stdout().flush());
        told.map_err(|error| cannot("the name of the keeper file", &error))
    }
}

/// Which numbering of processes is ours; empty where there is but one.
pub(crate) fn pid_namespace() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid");
    namespace.map_or_else(|_| String::new(), |it| it.to_string_lossy().into_owned())
}

/// Leaves the terminal, the pipes and the directory of whoever started us. Nobody is to wait for
/// their end, and nothing that is said is for there any more.
fn detach() {
    use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

    let Ok(nothing) = File::options().read(true).write(true).open("/dev/null") else { return };
    let _cannot_fail = dup2_stdin(&nothing);
    let _cannot_fail = dup2_stdout(&nothing);
    let _cannot_fail = dup2_stderr(&nothing);
    let _stays = std::env::set_current_dir("/");
}
