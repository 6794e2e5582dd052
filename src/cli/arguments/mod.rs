//! The commands and their flags.
//!
//! There are two kinds of flags. Those of one command are written here with clap's derive. Settings
//! are flags, variables and keys of the file at once, and come from the table in `settings`. Both
//! end in [`Asked`].
#![allow(clippy::doc_markdown, reason = "these comments are the help that users read")]

pub(super) mod complete;
pub(super) mod generate;
mod looking;
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

pub(crate) use self::looking::{
    EventsArgs, MembersArgs, PingArgs, StatusArgs, TakeoverArgs, TopArgs,
};
use self::mistakes::{advised, empty_variable};
use crate::cli::access::AccessArgs;
use crate::cli::bench::BenchArgs;
use crate::cli::demo::DemoArgs;
use crate::cli::settings::sources::FILE_FLAG;
use crate::cli::settings::values;
use crate::cli::settings::{Row, TABLE};
use crate::cli::text::answer;
use crate::cli::text::errors::{Failure, exit};

/// What the user typed.
pub(crate) struct Asked {
    /// What to do.
    pub(crate) command: Command,
    /// Settings given as flags, and the file's name.
    pub(crate) flags: BTreeMap<&'static str, String>,
}

/// A lock service: named locks over TCP, first come, first served, a fencing token in every grant.
#[derive(Parser)]
#[command(name = "coordinator", version, disable_help_subcommand = false)]
#[command(
    help_template = "{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}"
)]
#[command(override_usage = "coordinator [COMMAND] [OPTIONS]", styles = STYLES)]
#[command(before_help = COMMANDS, after_help = AFTER)]
struct Cli {
    /// The command; serve by default.
    #[command(subcommand)]
    command: Option<Command>,
}

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold());

const COMMANDS: &str = "\
Run:
  serve        Run the coordinator (the default command)
  lock         Run a command while holding a lock
  try          Like lock, but fail at once if the lock is busy
  hold         Hold a lock in the foreground
  acquire      Acquire a lock and hold it in the background
  held         Check that an acquired lock is still held

Inspect:
  status, ls   Show locks, holders and waiters
  events       Stream what happens to lock requests
  top          Watch waits, locks and sessions live; revoke grants
  ping         Check that a coordinator answers, and how fast
  members      Show who takes part in a cluster, and who leads it

Act:
  release      Release an acquired lock, or revoke a grant (--force)
  bench        Benchmark a coordinator
  takeover     Have another member lead when leader and standby are lost
  demo         See it: a coordinator, its page, and clients that contend

More:
  access       Make credentials, check an access file, and ask what it allows
  config       Show the settings in force and where each came from; check them
  completions  Print a shell completion script
  man          Print a manual page
  help         Print this help, or the help of a command";

const AFTER: &str = "\
Try:
  coordinator                         in one terminal
  coordinator lock demo -- sleep 5    in two others
  coordinator demo                    all of it at once, in a browser";

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Run the coordinator.
    ///
    /// Listens until SIGTERM or SIGINT. The first signal saves all sessions, holders and queues,
    /// and stops; the next start resumes from there. With --ephemeral, it drains instead: waiters
    /// are rejected, and holders may finish first. A second signal stops at once.
    Serve,
    /// Run a command while holding a lock.
    ///
    /// Waits for the lock, runs COMMAND (without a shell, arguments unchanged) and releases the
    /// lock. COMMAND finds COORDINATOR_LOCK, COORDINATOR_LOCKS, COORDINATOR_FENCING_TOKEN,
    /// COORDINATOR_SESSION and COORDINATOR_SERVER in its environment. Without COMMAND, prints one
    /// line and holds the lock until SIGINT, SIGTERM or the end of standard input.
    #[command(after_help = EXIT_CODES)]
    Lock(LockArgs),
    /// Run a command while holding a lock, or exit with 75 at once if the lock is busy.
    #[command(after_help = EXIT_CODES)]
    Try(LockArgs),
    /// Hold a lock in the foreground.
    ///
    /// Waits for the lock, prints one line, and holds the lock until SIGINT, SIGTERM, or an end set
    /// by the options below.
    #[command(after_help = HOLD_CODES)]
    Hold(HoldArgs),
    /// Acquire a lock and hold it in the background.
    /// Waits for the lock and returns once it is held. A background process, the keeper, holds it
    /// until `coordinator release`. That command finds the keeper by variables, printed for a
    /// shell (--export) or as NAME=VALUE lines (--env), or by a file that you name (--keeper):
    ///
    ///   v=$(coordinator acquire deploy --export --while-pid $$) && eval "$v" || exit
    ///   make deploy
    ///   coordinator release
    #[command(after_help = HOLD_CODES, verbatim_doc_comment)]
    Acquire(AcquireArgs),
    /// Check that an acquired lock is still held.
    /// Exits with 0 if the lock is held, 70 if it was lost, 1 if nothing was acquired here.
    Held(HeldArgs),
    /// Show locks, holders and waiters.
    #[command(visible_alias = "ls")]
    Status(StatusArgs),
    /// Stream what happens to lock requests.
    ///
    /// Prints one line per event, from now until Ctrl-C: a request is received, queued, granted,
    /// released, cancelled, lost or rejected. A slow reader exerts no backpressure: it misses
    /// events, and a line says how many. Times are UTC, by the coordinator's clock.
    Events(EventsArgs),
    /// Watch waits, locks, sessions and events live; revoke grants.
    ///
    /// Shows first who has waited longest, and for whom. Looks into a lock, filters, sorts, and revokes a
    /// grant after its lock's name and a reason are typed. ? shows the keys. What is shown is as old as
    /// the corner says. Without a terminal, or with --once, prints one screen and ends.
    Top(TopArgs),
    /// Check that a coordinator answers, and how fast.
    Ping(PingArgs),
    /// Show who takes part in a cluster, and who leads it.
    ///
    /// Asks etcd, so it answers also when no coordinator does. HEARD is how long ago a member has said so, by
    /// its own clock: every 5 s, while it lives. Exits with 1 if nobody leads.
    Members(MembersArgs),
    /// Have another member lead when leader and standby are lost.
    ///
    /// While a standby is in sync, nobody but leader and standby takes the lead. If both are lost with
    /// what they knew, somebody has to say so. Another member then leads with a grace period, in which
    /// holders reclaim; places in queues are lost. It counts for the term that is named, and no other.
    Takeover(TakeoverArgs),
    /// Release an acquired lock, or revoke a grant (--force).
    ///
    /// Without --force: releases what `coordinator acquire` holds for this shell or job, all of it
    /// or only NAME. Exits with 70 if a lock had already been lost, 1 if nothing was acquired.
    ///
    /// With --force: revokes the grant of NAME that has this token. Its holder is notified of the
    /// loss, and the next waiter is granted the lock. The token, shown by `coordinator status
    /// NAME`, keeps a newer holder from being hit by mistake.
    Release(ReleaseArgs),
    /// Benchmark a coordinator.
    ///
    /// Connects, requests locks and releases them, as fast as answers arrive (closed loop) or at a
    /// given rate (open loop). Checks every answer: a broken promise of the coordinator ends the
    /// run with exit code 70.
    Bench(BenchArgs),
    /// See it: a coordinator, its page, and clients that contend.
    ///
    /// Starts a coordinator of its own that keeps nothing, opens its page on a free port of this machine,
    /// and has a few clients queue, deadlock and get stuck. Prints the address of the page, and the credential
    /// with which locks can be broken there. Ctrl-C ends all of it.
    Demo(DemoArgs),
    /// Make credentials, check an access file, and ask what it allows.
    ///
    /// new-credential PRINCIPAL prints a new credential on standard output, and its line of the access file
    /// on standard error. check [FILE] tells of all mistakes in an access file. may PRINCIPAL VERB LOCK says
    /// which line allows it, or exits with 77.
    Access(AccessArgs),
    /// Show the settings in force and where each came from.
    ///
    /// check tells, besides, of all mistakes that serve would find in them, in the access file, the certificates
    /// and the data directory. Starts and changes nothing; exits with 2 if there is a mistake.
    Config(ConfigArgs),
    /// Print a shell completion script.
    Completions(CompletionsArgs),
    /// Print a manual page.
    Man(ManArgs),
}

const EXIT_CODES: &str = "\
Exit codes:
  COMMAND's own; 128+n if signal n killed it
  2    usage error                    75   busy, or timed out (see -E)
  69   no coordinator answers         76   protocol error
  70   lock lost, command stopped     77   not authorised
  74   output cannot be written       130  Ctrl-C while waiting
  126  command cannot be run          127  command not found";

const HOLD_CODES: &str = "\
Exit codes:
  0    lock held (acquire); held until the requested end (hold)
  2    usage error                    75   busy, or timed out (see -E)
  69   no coordinator answers         76   protocol error
  70   lock lost                      77   not authorised
  74   output cannot be written       130  Ctrl-C while waiting";

/// Which locks are wanted, how, and for how long they are waited for.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Wanted {
    /// Name of the lock.
    pub(crate) name: String,
    /// Another lock, held together with the first, in the same mode: all or none (repeatable).
    #[arg(long = "and", value_name = "NAME")]
    pub(crate) others: Vec<String>,
    /// Do not wait: fail at once if the lock is busy, as `coordinator try` does.
    #[arg(short = 'n', long, visible_alias = "nb")]
    pub(crate) nonblock: bool,
    /// Longest time to wait, connecting included (10s, 5m; a plain number is seconds; 0 is -n).
    #[arg(short = 'w', long, visible_alias = "wait", value_name = "DURATION")]
    #[arg(value_parser = duration, overrides_with = "nonblock")]
    pub(crate) timeout: Option<Duration>,
    /// Exit code for a busy lock or a timeout, instead of 75.
    #[arg(short = 'E', long, value_name = "N", default_value_t = exit::BUSY, hide_default_value = true)]
    pub(crate) conflict_exit_code: u8,
    /// Shared mode: hold the lock together with other shared holders (readers).
    #[arg(short = 's', long, overrides_with = "exclusive", conflicts_with = "permits")]
    pub(crate) shared: bool,
    /// Exclusive mode: hold the lock alone (the default).
    #[arg(short = 'x', visible_short_alias = 'e', long, conflicts_with = "permits")]
    pub(crate) exclusive: bool,
    /// Semaphore of N permits. A request with a different N waits until all holders are gone.
    #[arg(long, value_name = "N")]
    pub(crate) permits: Option<u32>,
    /// Number of permits to take.
    #[arg(long, value_name = "K", default_value_t = 1, requires = "permits")]
    pub(crate) take: u32,
    /// Lock delay: after a loss, keep the locks free for this long (60s at most).
    #[arg(long, value_name = "DURATION", value_parser = lock_delay)]
    pub(crate) lock_delay: Option<Duration>,
    /// Minimum hold time: keep the locks from others for this long after the grant, even if the
    /// command ends sooner (7d at most).
    #[arg(long, value_name = "DURATION", value_parser = at_least)]
    #[arg(conflicts_with_all = ["shared", "permits"])]
    pub(crate) at_least: Option<Duration>,
    /// Newest wins, one pending: cancel older requests waiting with --supersede, and give way to
    /// newer ones (exit 75).
    #[arg(long)]
    pub(crate) supersede: bool,
    /// The period in which a command is to run once; of `lock` only, which says so.
    #[arg(skip)]
    pub(crate) once_per: Option<Duration>,
    /// How long the locks survive a broken connection, by default the rest of the lease.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) linger: Option<Duration>,
    /// Note on what the lock is for, shown to others.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) note: String,
    /// While waiting, do not report who holds the lock.
    #[arg(short = 'q', long)]
    pub(crate) quiet: bool,
}

/// `lock` and `try`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LockArgs {
    /// What to hold.
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// Run the command once per period, on whichever machine comes first; the others do nothing and
    /// exit 0.
    #[arg(long, value_name = "DURATION", value_parser = period)]
    #[arg(conflicts_with_all = ["shared", "permits", "timeout", "at_least", "supersede", "reentrant"])]
    pub(crate) once_per: Option<Duration>,
    /// If an outer command already holds the lock, run under its grant (reentrant).
    #[arg(long)]
    pub(crate) reentrant: bool,
    /// Run SCRIPT with `sh -c` instead of COMMAND.
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
    /// Hold until process PID ends; in a script: $$.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) while_pid: Option<i32>,
    /// Longest time to hold; for `acquire` without --while-pid, a day by default.
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
    /// Print variables for a shell: v=$(coordinator acquire … --export) && eval "$v" || exit.
    #[arg(long, conflicts_with = "env")]
    pub(crate) export: bool,
    /// Print variables as NAME=VALUE lines, for $GITHUB_ENV and the like.
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
    /// Record the held locks in FILE, for `held` and `release`.
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
    /// The FILE of `acquire --keeper`; by default the one that COORDINATOR_KEEPER names.
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

/// `release`.
#[derive(clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Name of the lock; by default everything acquired here.
    pub(crate) name: Option<String>,
    /// The FILE of `acquire --keeper`; by default the one that COORDINATOR_KEEPER names.
    #[arg(long, value_name = "FILE", conflicts_with = "force")]
    pub(crate) keeper: Option<PathBuf>,
    /// With --force: fencing token of the grant to revoke.
    #[arg(long, value_name = "T", requires_all = ["name", "force"])]
    pub(crate) token: Option<u64>,
    /// Revoke the lock from a holder that may still be working under it.
    #[arg(long, requires = "token")]
    pub(crate) force: bool,
    /// With --force: why, for the coordinator's audit log.
    #[arg(long, value_name = "TEXT", requires = "force")]
    pub(crate) reason: Option<String>,
}

/// `config`.
#[derive(clap::Args)]
pub(crate) struct ConfigArgs {
    /// What to do besides; by default the settings are shown.
    pub(crate) action: Option<ConfigAction>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `config` does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigAction {
    /// Tell of all mistakes in the configuration and the files that it names.
    Check,
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
    /// Command to document; by default the program itself.
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
        .help("Configuration file, in TOML [COORDINATOR_CONFIG]")
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
            fail_in_eval(code);
        }
        answer::told(error.print()).map_or_else(|failure| failure.report(), |()| code.into())
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
        let why = if is_month {
            "M means months; for minutes write 5m"
        } else {
            "expected 10s, 5m or 1h30m"
        };
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

/// In `eval "$(coordinator acquire … --export)"` nobody sees our exit code. A shell that has
/// nothing to evaluate is content, and would go on without the lock. So it gets something that
/// fails as we do.
pub(crate) fn fail_in_eval(code: u8) {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "acquire") && words.any(|word| word == "--export") {
        // If that cannot be said either, the shell has gone.
        let _gone = answer::print(&format!("(exit {code})\n"));
    }
}

#[cfg(test)]
mod tests;
