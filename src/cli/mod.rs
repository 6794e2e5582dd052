//! The command line: arguments become calls to the library, answers become text.
//!
//! The one idea: *a command is a function from arguments and settings to an exit code or a
//! [`Failure`]*, and everything that can be decided without a terminal, a socket or a process is
//! decided in pure functions beside it, which the tests call with plain values.
//!
//! ```text
//! args ──▶ sources (flags, environment, file) ──▶ settings ──▶ one command ──▶ exit code
//!                                                                └──▶ Failure ──▶ error, hint
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `args` | the commands and their flags |
//! | `settings`, `sources`, `values` | what can be set, where it may come from, how it is written |
//! | `serve`, `notify`, `reread`, `log`, `log_json`, `log_queue` | the coordinator as a process: port file, signals, what it tells |
//! | `lock`, `nested`, `waiting`, `supervise`, `orphans`, `plan`, `child`, `again`, `foreground`, `terminal`, `signals` | a command under a lock, dead before the lock is another's |
//! | `hold` | a lock without a command |
//! | `acquire`, `keeper`, `held` | a lock for several steps: a process of its own keeps it |
//! | `watchdog` | the same when that process is stopped or dead: a process of its own |
//! | `status`, `waits` | who holds what and who waits, as tables; who waits for whom, as a tree |
//! | `events`, `ping`, `release`, `config`, `papers`, `manual`, `complete` | the small commands |
//! | `json` | what programs are told: names that are promised |
//! | `bench` | the load generator and what it measures |
//! | `errors`, `words`, `visible`, `twins`, `table`, `output`, `aside` | texts: what happened, who, what next |
//!
//! Never here: a rule about locks, `unsafe`, a `print` outside `output`. Nobody imports this room.
//! `docs/cli.md` is its page for users.

mod acquire;
mod again;
mod args;
mod aside;
mod bench;
mod child;
mod complete;
mod config;
mod errors;
mod events;
mod foreground;
mod held;
mod hold;
mod journal;
mod json;
mod keeper;
mod life;
mod lock;
mod log;
mod log_json;
mod log_queue;
mod manual;
mod mistakes;
mod nested;
mod notify;
mod orphans;
mod outlook;
mod output;
mod papers;
mod ping;
mod plan;
mod release;
mod reread;
mod serve;
mod settings;
mod signals;
mod sources;
mod status;
mod supervise;
mod table;
mod terminal;
mod twins;
mod values;
mod visible;
mod waiting;
mod waits;
mod watchdog;
mod words;

use std::future::Future;
use std::process::ExitCode;

use self::log::Filter;
use args::Command;
pub(crate) use args::{Asked, read_command_line};
pub(crate) use errors::Failure;
pub(crate) use settings::Settings;

/// Does what `coordinator lock` starts our program for, if that is what this process is.
pub(crate) fn helper() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let word = words.next()?;
    if word == watchdog::WORD {
        Some(watchdog::run(words))
    } else if word == foreground::WORD {
        Some(foreground::run(words))
    } else if word == keeper::WORD {
        Some(keeper::run(words))
    } else if word == complete::WORD {
        Some(complete::run(words))
    } else {
        None
    }
}

/// The settings that hold for this run.
pub(crate) fn settings_in_force(asked: &Asked) -> Result<Settings, Failure> {
    let sources = sources::Sources::read(asked.flags.clone())?;
    match asked.command {
        Command::Serve => {
            if let Some(text) = sources.variable(RUST_LOG).filter(|it| !Filter::concerns_us(it)) {
                output::tell(&format!("warning: {RUST_LOG} is {text:?}, which is not heeded here"));
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

/// Does what was asked.
pub(crate) fn run(asked: Asked, settings: &Settings) -> Result<ExitCode, Failure> {
    match asked.command {
        Command::Serve => serve::run(settings, asked.flags),
        Command::Lock(args) => lock::run(&args, settings),
        Command::Try(args) => lock::run(&args.without_waiting()?, settings),
        Command::Hold(args) => hold::run(&args, settings),
        Command::Acquire(args) => acquire::run(&args),
        Command::Held(args) => on_a_runtime(held::run(args, settings)),
        Command::Status(args) => on_a_runtime(status::run(args, settings)),
        Command::Events(args) => on_a_runtime(events::run(args, settings)),
        Command::Ping(args) => on_a_runtime(ping::run(args, settings)),
        Command::Release(args) => on_a_runtime(release::run(args, settings)),
        Command::Bench(args) => on_a_runtime(bench::run(args, settings)),
        Command::Config(args) => config::run(&args, settings),
        Command::Completions(args) => papers::completions(&args),
        Command::Man(args) => papers::man(&args),
    }
}

/// Tells what went wrong; its exit code.
pub(crate) fn fail(failure: &Failure) -> ExitCode {
    acquire::fail_in_eval(failure.exit);
    failure.report()
}

/// Runs a client's work to its end on this thread.
fn on_a_runtime<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::ours("cannot start", &error))?.block_on(work)
}
