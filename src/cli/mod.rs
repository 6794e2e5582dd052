//! The command line: arguments become calls to the library, answers become text.
//!
//! The one idea: *a command is a function from arguments and settings to an exit code or a
//! [`Failure`]*. Every decision that needs no terminal, socket or process is in pure functions
//! beside it, which the tests call with plain values.
//!
//! ```text
//! args ──▶ sources (flags, environment, file) ──▶ settings ──▶ one command ──▶ exit code
//!                                                                └──▶ Failure ──▶ error, hint
//! ```
//!
//! | place | holds |
//! |---|---|
//! | `arguments` | the commands and their flags; mistakes, completions, manual pages |
//! | `access` | credentials, and what an access file allows |
//! | `settings` | what can be set, where it may come from, how it is written; `config` |
//! | `serve` | the coordinator as a process: port file, signals, settings read anew |
//! | `log` | what the coordinator tells: lines, objects, and a queue that waits for nobody |
//! | `lock` | a command under a lock, dead before the lock is another's; `hold`, without a command |
//! | `keeper` | a lock for several steps, kept by a process of its own: `acquire`, `held`, `release` |
//! | `watchdog` | the same when that process is stopped or dead: a process of its own |
//! | `show` | `status`, `events`, `ping`, `members`: holders and waiters, for people and programs |
//! | `top` | the same on a whole screen, live; and the end of what blocks others |
//! | `bench` | the load generator and what it measures |
//! | `process` | processes, signals and terminals |
//! | `text` | texts: what happened, who, what next |
//!
//! Never here: a rule about locks, `unsafe`, a `print` outside `text/output.rs`. Nobody imports this room.
//! `docs/cli.md` is its page for users.

mod access;
mod arguments;
mod bench;
mod demo;
mod keeper;
mod lock;
mod log;
mod process;
mod serve;
mod settings;
mod show;
mod text;
mod top;
mod watchdog;

use std::future::Future;
use std::process::ExitCode;

pub(crate) use self::arguments::{Asked, read_command_line};
use self::arguments::{Command, ConfigAction, ConfigArgs};
use self::log::Filter;
pub(crate) use self::settings::Settings;
pub(crate) use self::text::errors::Failure;

/// Does what `coordinator lock` starts our program for, if that is what this process is.
pub(crate) fn helper() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let word = words.next()?;
    if word == watchdog::WORD {
        Some(watchdog::run(words))
    } else if word == process::foreground::WORD {
        Some(process::foreground::run(words))
    } else if word == keeper::WORD {
        Some(keeper::run(words))
    } else if word == arguments::complete::WORD {
        Some(arguments::complete::run(words))
    } else {
        None
    }
}

/// The settings that hold for this run.
pub(crate) fn settings_in_force(asked: &Asked) -> Result<Settings, Failure> {
    let sources = settings::sources::Sources::read(asked.flags.clone())?;
    match asked.command {
        Command::Serve => {
            if let Some(text) = sources.variable(RUST_LOG).filter(|it| !Filter::concerns_us(it)) {
                text::output::tell(&format!(
                    "warning: {RUST_LOG} is {text:?}, without a level for us: ignored"
                ));
            }
            Settings::resolve(&sources)
        }
        Command::Config(_) => Settings::resolve(&sources),
        // To the others it is a variable of the command's.
        _ => Settings::resolve(&sources.without(RUST_LOG)),
    }
}

/// The variable that programs written in Rust take for the filter of their log.
const RUST_LOG: &str = "RUST_LOG";

/// Does what was asked, by the settings that hold.
pub(crate) fn obey(asked: Asked) -> Result<ExitCode, Failure> {
    match asked.command {
        // It tells of mistakes, and so has to live with them.
        Command::Config(ConfigArgs { action: Some(ConfigAction::Check), json }) => {
            serve::check::run(json, asked.flags)
        }
        _ => settings_in_force(&asked).and_then(|settings| run(asked, &settings)),
    }
}

/// Does what was asked.
fn run(asked: Asked, settings: &Settings) -> Result<ExitCode, Failure> {
    match asked.command {
        Command::Serve => serve::run(settings, asked.flags),
        Command::Lock(args) => lock::run(&args, settings),
        Command::Try(args) => lock::run(&args.without_waiting()?, settings),
        Command::Hold(args) => lock::hold::run(&args, settings),
        Command::Acquire(args) => keeper::acquire::run(&args, settings),
        Command::Held(args) => on_a_runtime(keeper::held::run(args, settings)),
        Command::Status(args) => on_a_runtime(show::status::run(args, settings)),
        Command::Events(args) => on_a_runtime(show::events::run(args, settings)),
        Command::Top(args) => on_a_runtime(top::run(args, settings)),
        Command::Members(args) => on_a_runtime(show::members::run(args, settings)),
        Command::Takeover(args) => on_a_runtime(show::members::take_over(args, settings)),
        Command::Ping(args) => on_a_runtime(show::ping::run(args, settings)),
        Command::Release(args) => on_a_runtime(keeper::release::run(args, settings)),
        Command::Bench(args) => on_a_runtime(bench::run(args, settings)),
        Command::Demo(args) => on_a_runtime(demo::run(args)),
        Command::Access(args) => access::run(&args, settings),
        Command::Config(args) => settings::config::run(&args, settings),
        Command::Completions(args) => arguments::generate::completions(&args),
        Command::Man(args) => arguments::generate::man(&args),
    }
}

/// Tells what went wrong; its exit code.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    arguments::fail_in_eval(failure.exit);
    failure.report()
}

/// Runs a client's work to its end on this thread.
fn on_a_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::ours("cannot start", &error))?.block_on(work)
}
