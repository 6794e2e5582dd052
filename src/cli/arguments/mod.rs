//! The commands and their flags.
//!
//! There are two kinds of flags. Those of one command are written here with clap's derive. Settings
//! are flags, variables and keys of the file at once, and come from the table in `settings`. Both
//! end in [`Asked`].
#![allow(clippy::doc_markdown, reason = "these comments are the help that users read")]

pub(super) mod complete;
pub(super) mod generate;
mod manual;
mod mistakes;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use coordinator::types::{AT_LEAST_MAX, LOCK_DELAY_MAX};

use self::mistakes::{advised, empty_variable};
use crate::cli::bench::BenchArgs;
use crate::cli::keeper::acquire;
use crate::cli::settings::sources::FILE_FLAG;
use crate::cli::settings::values;
use crate::cli::settings::{Row, TABLE};
use crate::cli::text::errors::{Failure, exit};
use crate::cli::text::output;

/// What the user typed.
pub(crate) struct Asked {
    /// What to do.
    pub(crate) command: Command,
    /// Settings given as flags, and the file's name.
    pub(crate) flags: BTreeMap<&'static str, String>,
}

/// A lock service: named locks over TCP, first come first served, a fencing token in every grant.
#[derive(Parser)]
#[command(name = "coordinator", version, disable_help_subcommand = false)]
#[command(
    help_template = "{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}"
)]
#[command(override_usage = "coordinator [COMMAND] [OPTIONS]", styles = STYLES)]
#[command(before_help = COMMANDS, after_help = AFTER)]
struct Cli {
    /// What to do; serve, if nothing is said.
    #[command(subcommand)]
    command: Option<Command>,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold());

const COMMANDS: &str = "\
Run:
  serve        Be the coordinator (also without a command)
  lock         Run a command while holding a lock
  try          The same, but do not wait for the lock
  hold         Hold a lock until told to end
  acquire      Hold a lock for the steps that follow
  held         Ask whether what was acquired is still held

Look:
  status, ls   Who holds what, and who waits
  events       What happens to requests, as it happens
  ping         Ask whether a coordinator answers

Act:
  release      Give back what was acquired; or take a lock away from its holder
  bench        Measure how fast a coordinator is

More:
  config       The settings in force, and where each came from
  completions  Completions for a shell
  man          Manual pages
  help         This, or the help of a command";

const AFTER: &str = "\
Try:
  coordinator                         in one terminal
  coordinator lock demo -- sleep 5    in two others";

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Be the coordinator.
    ///
    /// Listens until SIGTERM or SIGINT. Once: saves everything, so that the next start continues
    /// where this one stopped; with --ephemeral, waiters are told and holders may finish first.
    /// Twice: stops at once.
    Serve,
    /// Run a command while holding a lock.
    ///
    /// Waits for the lock, runs COMMAND (no shell, arguments as given), releases. The command finds
    /// COORDINATOR_LOCK, COORDINATOR_LOCKS, COORDINATOR_FENCING_TOKEN, COORDINATOR_SESSION and
    /// COORDINATOR_SERVER in its environment. Without a command, prints one line and holds the lock
    /// until SIGINT, SIGTERM or the end of standard input.
    #[command(after_help = EXIT_CODES)]
    Lock(LockArgs),
    /// Run a command under a lock, or exit 75 at once if it is busy.
    #[command(after_help = EXIT_CODES)]
    Try(LockArgs),
    /// Hold a lock until told to end.
    ///
    /// Waits for the lock, prints one line, and holds it until SIGINT, SIGTERM, or what is said below.
    #[command(after_help = HOLD_CODES)]
    Hold(HoldArgs),
    /// Hold a lock for the steps that follow.
    ///
    /// Waits for the lock and returns when it is held: a process in the background keeps it until
    /// `coordinator release`. What that needs is printed for the shell (--export) or for a file of
    /// variables (--env), or is in a file that is named here (--keeper):
    ///
    ///   eval "$(coordinator acquire deploy --export --while-pid $$)"
    ///   make deploy
    ///   coordinator release
    #[command(after_help = HOLD_CODES, verbatim_doc_comment)]
    Acquire(AcquireArgs),
    /// Ask whether what was acquired is still held.
    ///
    /// The exit code is 0 if it is, 70 if it was lost, 1 if nothing was acquired here.
    Held(HeldArgs),
    /// Who holds what, and who waits.
    #[command(visible_alias = "ls")]
    Status(StatusArgs),
    /// What happens to requests, as it happens.
    ///
    /// A line for each event, from now on until Ctrl-C: a request comes, is queued, granted, released,
    /// cancelled, lost or rejected. If they come faster than they are read, some are left out, and a
    /// line says how many; the coordinator never waits for a reader. Times are UTC, by the
    /// coordinator's clock.
    Events(EventsArgs),
    /// Ask whether a coordinator answers, and how fast.
    Ping(PingArgs),
    /// Give back what was acquired; or take a lock away from its holder.
    ///
    /// Without --force: gives back what `coordinator acquire` holds for this shell or job, all of it or
    /// only NAME. The exit code is 70 if it was lost before, 1 if there is nothing to give back.
    ///
    /// With --force: takes the lock from whoever holds it. The holder is told and stops believing; the lock goes to the next in line. The token (see
    /// `coordinator status NAME`) makes sure that nobody newer is hit.
    Release(ReleaseArgs),
    /// Measure how fast a coordinator is.
    ///
    /// Connects, asks for locks and releases them, as fast as answers come or at a given rate. Checks
    /// every answer: a promise that the coordinator breaks ends the measurement with exit code 70.
    Bench(BenchArgs),
    /// The settings in force, and where each came from.
    Config(ConfigArgs),
    /// Print completions for a shell.
    Completions(CompletionsArgs),
    /// Print a manual page.
    Man(ManArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  the command's own; 128+n if signal n ended it
  2    wrong usage                    75   busy, or timed out (see -E)
  69   no coordinator answers         76   protocol error
  70   lock lost, command stopped     77   not authorised
  74   output cannot be written       130  Ctrl-C while waiting
  126  the command cannot be run      127  the command does not exist";

const HOLD_CODES: &str = "\
Exit codes:
  0    held (acquire); held until it was to end (hold)
  2    wrong usage                    75   busy, or timed out (see -E)
  69   no coordinator answers         76   protocol error
  70   lock lost                      130  Ctrl-C while waiting
  74   output cannot be written";

/// Which locks are wanted, how, and for how long they are waited for.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Wanted {
    /// The lock.
    pub(crate) name: String,
    /// Another lock, to be held together with the first and in the same mode: all or none.
    #[arg(long = "and", value_name = "NAME")]
    pub(crate) others: Vec<String>,
    /// Do not wait (as `coordinator try`).
    #[arg(short = 'n', long, visible_alias = "nb")]
    pub(crate) nonblock: bool,
    /// Wait at most this long (10s, 5m; a plain number is seconds; 0 is -n), connecting included.
    #[arg(short = 'w', long, visible_alias = "wait", value_name = "DURATION")]
    #[arg(value_parser = duration, overrides_with = "nonblock")]
    pub(crate) timeout: Option<Duration>,
    /// Exit code when the lock is busy or the time is up, instead of 75.
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::BUSY, hide_default_value = true)]
    pub(crate) conflict_exit_code: u8,
    /// Hold the lock together with other shared holders.
    #[arg(short = 's', long, overrides_with = "exclusive", conflicts_with = "permits")]
    pub(crate) shared: bool,
    /// Hold the lock alone (the default).
    #[arg(short = 'x', visible_short_alias = 'e', long, conflicts_with = "permits")]
    pub(crate) exclusive: bool,
    /// A semaphore: at most N at once. Who asks with another N waits until all who hold it are gone.
    #[arg(long, value_name = "N")]
    pub(crate) permits: Option<u32>,
    /// How many of the permits this one takes.
    #[arg(long, value_name = "K", default_value_t = 1, requires = "permits")]
    pub(crate) take: u32,
    /// Keep the locks free for so long before another gets them, if they are lost (60s at most).
    #[arg(long, value_name = "DURATION", value_parser = lock_delay)]
    pub(crate) lock_delay: Option<Duration>,
    /// Let nobody else have the locks for so long from the grant on, however quick the command is (7d at
    /// most).
    #[arg(long, value_name = "DURATION", value_parser = at_least)]
    #[arg(conflicts_with_all = ["shared", "permits"])]
    pub(crate) at_least: Option<Duration>,
    /// Newest first, one pending: end older requests for the locks that wait with --supersede, and
    /// give way to newer ones while waiting (exit 75).
    #[arg(long)]
    pub(crate) supersede: bool,
    /// The period in which a command is to run once; of `lock` only, which says so.
    #[arg(skip)]
    pub(crate) once_per: Option<Duration>,
    /// How long a broken connection keeps the locks, if not for the rest of the lease.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) linger: Option<Duration>,
    /// What for, shown to others.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) note: String,
    /// Do not tell who holds the lock while waiting for it.
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// `lock` and `try`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LockArgs {
    /// What to hold.
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// Run the command once in a period, on whichever machine comes first; the others do nothing and
    /// exit 0.
    #[arg(long, value_name = "DURATION", value_parser = period)]
    #[arg(conflicts_with_all = ["shared", "permits", "timeout", "at_least", "supersede", "reentrant"])]
    pub(crate) once_per: Option<Duration>,
    /// If this runs under the lock already, run the command under the same grant.
    #[arg(long)]
    pub(crate) reentrant: bool,
    /// Run this with `sh -c` instead of a command.
    #[arg(short = 'c', value_name = "SCRIPT", conflicts_with = "command")]
    pub(crate) script: Option<String>,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true)]
    pub(crate) command: Vec<OsString>,
}

/// Most is said of the locks.
impl Deref for LockArgs {
    type Target = Wanted;

    fn deref(&self) -> &Wanted {
        &self.wanted
    }
}

/// When to stop holding without having been told to.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Until {
    /// Hold as long as this process lives; in a script: $$.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) while_pid: Option<i32>,
    /// Hold at most this long; `acquire` without --while-pid holds for a day at most.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) max: Option<Duration>,
}

/// `hold`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct HoldArgs {
    /// What to hold.
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// For how long.
    #[command(flatten)]
    pub(crate) until: Until,
    /// Hold until standard input ends.
    #[arg(long)]
    pub(crate) until_eof: bool,
}

/// How variables are printed.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Form {
    /// Print variables for a shell: eval "$(coordinator acquire … --export)".
    #[arg(long, conflicts_with = "env")]
    pub(crate) export: bool,
    /// Print variables as lines NAME=VALUE, for $GITHUB_ENV and the like.
    #[arg(long)]
    pub(crate) env: bool,
}

/// `acquire`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AcquireArgs {
    /// What to hold.
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// For how long.
    #[command(flatten)]
    pub(crate) until: Until,
    /// Write down what is held in FILE, for `held` and `release`.
    #[arg(long, value_name = "FILE")]
    pub(crate) keeper: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub(crate) form: Form,
}

/// `held`.
#[derive(clap::Args)]
pub(crate) struct HeldArgs {
    /// Only this lock.
    pub(crate) name: Option<String>,
    /// The file that `acquire` was told to write; else what COORDINATOR_KEEPER names.
    #[arg(long, value_name = "FILE")]
    pub(crate) keeper: Option<PathBuf>,
    /// What to print.
    #[command(flatten)]
    pub(crate) form: Form,
}

impl Wanted {
    /// All the locks.
    pub(crate) fn names(&self) -> Vec<&str> {
        let others = self.others.iter().map(String::as_str);
        std::iter::once(self.name.as_str()).chain(others).collect()
    }
}

impl LockArgs {
    /// The same as `coordinator try` means it.
    pub(crate) fn without_waiting(self) -> Result<Self, Failure> {
        match self.timeout {
            None => Ok(Self { wanted: Wanted { nonblock: true, ..self.wanted }, ..self }),
            Some(_) => {
                Err(Failure::usage("`coordinator try` does not wait, so it takes no --timeout")
                    .hint("`coordinator lock -w 10s …` waits for 10 seconds at most"))
            }
        }
    }
}

/// `status`.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Only this lock, with all who wait for it.
    pub(crate) name: Option<String>,
    /// For programs; docs/status-json.md describes it.
    #[arg(long)]
    pub(crate) json: bool,
    /// List the sessions too.
    #[arg(long, conflicts_with = "name")]
    pub(crate) sessions: bool,
    /// Draw who waits for whom, as a tree.
    #[arg(long, conflicts_with_all = ["name", "sessions"])]
    pub(crate) waits: bool,
}

/// `events`.
#[derive(clap::Args)]
pub(crate) struct EventsArgs {
    /// Only of requests for this lock.
    pub(crate) name: Option<String>,
    /// For programs: an object a line; docs/status-json.md describes them.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ping`.
#[derive(clap::Args)]
pub(crate) struct PingArgs {
    /// How often to ask.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}

/// `release`.
#[derive(clap::Args)]
pub(crate) struct ReleaseArgs {
    /// The lock; without it, all that was acquired here.
    pub(crate) name: Option<String>,
    /// The file that `acquire` was told to write; else what COORDINATOR_KEEPER names.
    #[arg(long, value_name = "FILE", conflicts_with = "force")]
    pub(crate) keeper: Option<PathBuf>,
    /// With --force: the token of the grant that is to end.
    #[arg(long, value_name = "T", requires_all = ["name", "force"])]
    pub(crate) token: Option<u64>,
    /// Yes, take it from someone who believes to hold it.
    #[arg(long, requires = "token")]
    pub(crate) force: bool,
}

/// `config`.
#[derive(clap::Args)]
pub(crate) struct ConfigArgs {
    /// For programs.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `completions`.
#[derive(clap::Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// `man`.
#[derive(clap::Args)]
pub(crate) struct ManArgs {
    /// The command whose page is wanted, if not that of the program.
    pub(crate) command: Option<String>,
}

/// The whole command line: the derived part, and the settings as flags of their commands.
pub(crate) fn grammar() -> clap::Command {
    let mut grammar = Cli::command().args_override_self(true);
    // Flags of `serve` without saying `serve`: understood, but told of only there.
    grammar = grammar.args(rows_of("serve").map(|row| flag(row).hide(true)));
    grammar = grammar.arg(file_flag().hide(true));
    // What is said twice is meant as it was said last: scripts add to what they were given.
    grammar = grammar.mut_subcommands(|command| command.args_override_self(true));
    // `--token -1` is a wrong value, not a flag that there is not.
    grammar = grammar.mut_subcommands(|command| {
        command.mut_args(|arg| {
            let has_value = arg.get_action().takes_values() && !arg.is_positional();
            if has_value { arg.allow_negative_numbers(true) } else { arg }
        })
    });
    let names: Vec<String> =
        grammar.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names.iter().filter(|name| rows_of(name).next().is_some()) {
        grammar = grammar
            .mut_subcommand(name, |command| command.args(rows_of(name).map(flag)).arg(file_flag()));
    }
    grammar
}

/// The settings that the command takes as flags.
pub(crate) fn rows_of(command: &str) -> impl Iterator<Item = &'static Row> {
    TABLE.iter().filter(move |row| command == "config" || row.commands.contains(&command))
}

fn flag(row: &'static Row) -> Arg {
    let arg = Arg::new(row.key).long(row.key).help_heading("Settings");
    let mut help = format!("{} [{}]", row.help, row.variable());
    if row.is_switch() {
        return arg.action(ArgAction::SetTrue).help(help);
    }
    let default = row.default_text();
    if !default.is_empty() {
        let _infallible = write!(help, " [default: {default}]");
    }
    arg.value_name(row.placeholder).allow_negative_numbers(true).help(help)
}

fn file_flag() -> Arg {
    Arg::new(FILE_FLAG)
        .long(FILE_FLAG)
        .value_name("FILE")
        .help_heading("Settings")
        .help("Where settings are written down [COORDINATOR_CONFIG]")
}

/// Reads the command line; help, versions and mistakes are told here, and end in an exit code.
pub(crate) fn read_command_line() -> Result<Asked, ExitCode> {
    read(&std::env::args_os().collect::<Vec<_>>())
}

/// The same for these words.
pub(crate) fn read(words: &[OsString]) -> Result<Asked, ExitCode> {
    if let Some(mistake) = empty_variable(words) {
        return Err(mistake.report());
    }
    parse(words.to_vec()).map_err(|error| {
        let error = advised(error, words);
        let code = u8::try_from(error.exit_code()).unwrap_or(exit::USAGE);
        if error.use_stderr() {
            acquire::fail_in_eval(code);
        }
        output::told(error.print()).map_or_else(|failure| failure.report(), |()| code.into())
    })
}

/// Reads a command line.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Asked, clap::Error> {
    let matches = grammar().try_get_matches_from(words)?;
    let own = settings_given(&matches);
    let command = Cli::from_arg_matches(&matches)?.command;
    let flags = match (matches.subcommand(), own.keys().next()) {
        (Some((name, _)), Some(key)) => {
            return Err(grammar().error(
                ErrorKind::ArgumentConflict,
                format!("--{key} comes after the command: coordinator {name} --{key} …"),
            ));
        }
        (Some((_, matches)), None) => settings_given(matches),
        (None, _) => own,
    };
    Ok(Asked { command: command.unwrap_or(Command::Serve), flags })
}

/// The settings among what was given.
fn settings_given(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let mut given = BTreeMap::new();
    for row in TABLE.iter().filter(|row| row.is_switch()) {
        if matches!(matches.try_get_one::<bool>(row.key), Ok(Some(true))) {
            given.insert(row.key, "true".to_owned());
        }
    }
    let keys = TABLE.iter().filter(|row| !row.is_switch()).map(|row| row.key);
    for key in keys.chain([FILE_FLAG]) {
        if let Ok(Some(text)) = matches.try_get_one::<String>(key) {
            given.insert(key, text.clone());
        }
    }
    given
}

fn duration(text: &str) -> Result<Duration, String> {
    values::duration(text).ok_or_else(|| {
        let is_month = values::is_in_months(text);
        let why =
            if is_month { "M is a month; write 5m for minutes" } else { "write 10s, 5m or 1h30m" };
        why.to_owned()
    })
}

/// A length of at most `longest`, which is said if it is longer.
fn at_most(text: &str, longest: Duration, said: &str) -> Result<Duration, String> {
    match duration(text)? {
        length if length > longest => Err(format!("{said} at most")),
        length => Ok(length),
    }
}

fn lock_delay(text: &str) -> Result<Duration, String> {
    at_most(text, LOCK_DELAY_MAX, "60s")
}

fn at_least(text: &str) -> Result<Duration, String> {
    at_most(text, AT_LEAST_MAX, "7d")
}

/// Nine tenths of a period are kept.
fn period(text: &str) -> Result<Duration, String> {
    at_most(text, AT_LEAST_MAX / 9 * 10, "7d 18h 40m")
}

#[cfg(test)]
mod tests;
