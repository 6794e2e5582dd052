//! Manual pages: what the grammar says, and what it cannot say: variables, files, exit codes.

use std::fmt::Write as _;
use std::io;

use clap::Command;
use clap_mangen::Man;

use crate::cli::keeper::places as keeper;
use crate::cli::settings::sources::FILE_VARIABLE;
use crate::cli::settings::{Foreign, Row};
use crate::cli::text::errors::exit;

/// What `lock` and `try` give to the command, and `acquire` to the steps that follow.
const GIVEN: [(&str, &str); 6] = [
    ("COORDINATOR_LOCK", "NAME."),
    ("COORDINATOR_LOCKS", "NAME and the names of --and, one per line."),
    ("COORDINATOR_FENCING_TOKEN", "Fencing token of the grant, greater than any before."),
    ("COORDINATOR_SESSION", "Id of the session that holds the locks."),
    ("COORDINATOR_SERVER", "Address of the coordinator."),
    (
        "COORDINATOR_HELD",
        "One line per lock held by this and outer commands: token, session, name.",
    ),
];

/// The page of the program, or of a command of it, with the settings that it takes.
pub(crate) fn page(command: &Command, rows: &[&'static Row]) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let man = Man::new(command.clone()).manual("coordinator").source(version(command));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let name = command.get_name();
    let text =
        [environment(name, rows), files(name), exit_status(name), examples(name), see_also(name)];
    page.extend_from_slice(text.concat().as_bytes());
    Ok(page)
}

fn version(command: &Command) -> String {
    let version = command.get_version().unwrap_or(env!("CARGO_PKG_VERSION"));
    format!("coordinator {version}")
}

fn environment(name: &str, rows: &[&'static Row]) -> String {
    let mut text = section("ENVIRONMENT");
    if name == "coordinator" {
        paragraph(
            &mut text,
            "Each setting on the page of a command is a variable, too: \
            --drain-timeout is COORDINATOR_DRAIN_TIMEOUT. A flag overrides its variable; a variable \
            overrides the file.",
        );
    }
    for row in rows {
        entry(&mut text, &row.variable(), &format!("As --{}: {}", row.key, row.help));
        match row.foreign {
            Foreign::None => {}
            Foreign::BeforeFile(other, _) | Foreign::AfterFile(other) => {
                let what = format!("Used where {} is not set.", row.variable());
                entry(&mut text, other, &what);
            }
        }
    }
    entry(&mut text, FILE_VARIABLE, "As --config: the configuration file.");
    if name == "serve" {
        entry(
            &mut text,
            "NOTIFY_SOCKET",
            "Set by systemd for Type=notify: the socket for READY=1, STATUS=, RELOADING=1 and STOPPING=1.",
        );
        entry(
            &mut text,
            "WATCHDOG_USEC, WATCHDOG_PID",
            "Set by systemd for WatchdogSec=: how often WATCHDOG=1 is expected, and from which process.",
        );
    }
    entry(&mut text, "NO_COLOR", "If set, output has no colours.");
    if matches!(name, "acquire" | "held" | "release") {
        entry(
            &mut text,
            keeper::VARIABLE,
            "Keeper files of the acquired locks, separated by colons.",
        );
    }
    let given = match name {
        "lock" | "try" => "COMMAND finds:",
        "acquire" | "held" => "--export and --env print COORDINATOR_KEEPER and:",
        _ => "",
    };
    if !given.is_empty() {
        text.push_str(".PP\n");
        paragraph(&mut text, given);
        for (variable, what) in GIVEN {
            entry(&mut text, variable, what);
        }
    }
    if name == "serve" {
        entry(
            &mut text,
            "JOURNAL_STREAM",
            "Set by systemd: if it names standard error, log lines carry no time.",
        );
    }
    text
}

fn files(name: &str) -> String {
    let mut text = section("FILES");
    let all = [
        (
            "$XDG_CONFIG_HOME/coordinator/config.toml",
            "Settings, one key each: drain-timeout = \"30s\". \
            Usually ~/.config/coordinator/config.toml.",
        ),
        ("/etc/coordinator/config.toml", "The same, if the file above does not exist."),
    ];
    for (file, what) in all {
        entry(&mut text, file, what);
    }
    if name == "serve" || name == "coordinator" {
        entry(
            &mut text,
            "$XDG_STATE_HOME/coordinator",
            "The data directory, usually \
            ~/.local/state/coordinator, or systemd's STATE_DIRECTORY: state, snapshot, journal, and \
            lock, which keeps out a second coordinator.",
        );
    }
    if matches!(name, "acquire" | "held" | "release") {
        entry(
            &mut text,
            "$XDG_RUNTIME_DIR/coordinator",
            "Keeper files, one per `coordinator acquire`, unless --keeper names another. Without \
            that \
            variable: coordinator-UID in the directory for temporary files.",
        );
    }
    text
}

/// What is told by exit codes, and which commands do.
fn exit_status(name: &str) -> String {
    let mut text = section("EXIT STATUS");
    let of_locking = is_locking(name);
    if of_locking {
        entry(&mut text, "the command's own", "The command exited by itself.");
        entry(
            &mut text,
            "128 + n",
            "Signal n killed the command, or ended the wait for the lock: 130 for Ctrl-C.",
        );
    } else {
        entry(&mut text, "0", success(name));
    }
    let codes = [
        (
            exit::NO_SUCH_THING,
            "Nothing to act on. release --force: nobody holds the lock with that token; \
            status NAME: the lock is free; held, release: nothing was acquired.",
            matches!(name, "coordinator" | "release" | "status" | "held"),
        ),
        (exit::USAGE, "Usage error, or invalid settings.", true),
        (
            exit::NO_SERVER,
            "No coordinator answers, or it is shutting down, or it has too many connections.",
            !matches!(name, "serve" | "access" | "config" | "completions" | "demo" | "man"),
        ),
        (exit::LOST, "The lock was lost, and the command was stopped.", of_locking),
        (exit::LOST, "The lock was lost.", matches!(name, "hold" | "acquire" | "held" | "release")),
        (exit::LOST, "The state could not be saved completely.", name == "serve"),
        (exit::LOST, "The coordinator broke a promise.", name == "bench"),
        (
            exit::LOST,
            "The lock was lost. serve: the state could not be saved completely.",
            name == "coordinator",
        ),
        (exit::NOT_WRITTEN, "The output cannot be written, for example to a full disk.", true),
        (
            exit::BUSY,
            "The lock is busy, the wait timed out, or waiting would deadlock.",
            of_locking || matches!(name, "coordinator" | "hold" | "acquire"),
        ),
        (
            exit::BUSY,
            "Not started, and what is in the way may pass: an address in use or not there yet, a data directory \
            that another uses or that is not mounted.",
            name == "serve",
        ),
        (
            exit::PROTOCOL,
            "The other side does not speak the protocol.",
            !matches!(name, "serve" | "access" | "config" | "completions" | "demo" | "man"),
        ),
        (
            exit::DENIED,
            "Not authorised: no credential or certificate was shown that is known, or no rule of the access \
            file allows it.",
            !matches!(name, "serve" | "config" | "completions" | "demo" | "man"),
        ),
        (exit::CANNOT_RUN, "The command cannot be run.", of_locking),
        (exit::NO_SUCH_COMMAND, "The command was not found.", of_locking),
    ];
    for (code, what, _) in codes.into_iter().filter(|(.., is_told)| *is_told) {
        entry(&mut text, &code.to_string(), what);
    }
    if matches!(name, "hold" | "acquire") {
        entry(&mut text, "128 + n", "Signal n ended the wait for the lock: 130 for Ctrl-C.");
    }
    if matches!(name, "events" | "bench") {
        entry(&mut text, "130", "Ctrl-C ended it.");
    }
    text
}

/// What the exit code 0 says.
fn success(name: &str) -> &'static str {
    match name {
        "status" => "The status was printed. With NAME: the lock is held.",
        "serve" => "The coordinator stopped as requested.",
        "demo" => "Ctrl-C ended it.",
        "acquire" => "The lock is held, by a background process.",
        "hold" => "The lock was held until the requested end.",
        "held" => "The acquired locks are still held, as the coordinator confirms.",
        "release" => "The locks are released; with --force, revoked.",
        _ => "Success.",
    }
}

fn examples(name: &str) -> String {
    let lines: &[&str] = match name {
        "coordinator" => &["coordinator", "coordinator lock demo -- sleep 5"],
        "lock" => &[
            "coordinator lock nightly -n -- ./backup",
            "coordinator lock deploy --and migrations -w 10m -- make release",
            "coordinator lock backup --once-per 1h -- ./backup",
            "coordinator lock deploy --supersede -- ./deploy",
        ],
        "try" => &["coordinator try nightly -- ./backup"],
        "hold" => &["coordinator hold deploy --max 10m"],
        "acquire" => &[
            "v=$(coordinator acquire deploy -w 10m --export --while-pid $$) && eval \"$v\" || exit\n\
             ./step-1\n\
             coordinator held >/dev/null || exit\n\
             ./step-2\n\
             coordinator release",
        ],
        "held" => &["coordinator held >/dev/null || exit"],
        "release" => &["coordinator release", "coordinator release deploy --force --token 1881"],
        "events" => &["coordinator events deploy"],
        "members" => &["coordinator members --cluster prod --etcd https://etcd-1:2379"],
        "takeover" => &[
            "coordinator takeover --cluster prod --etcd https://etcd-1:2379 --after-loss --term 7",
        ],
        "ping" => &["coordinator ping --count 1"],
        "top" => &["coordinator top", "coordinator top --once"],
        "config" => &["coordinator config"],
        "bench" => &["coordinator bench --help"],
        "demo" => &["coordinator demo", "coordinator demo --scene crowd --page-port 8080"],
        "status" => &["coordinator status deploy", "coordinator status --json"],
        "serve" => &[
            "coordinator serve --listen 0.0.0.0:5625 --access-file /etc/coordinator/access.toml",
            "coordinator serve --cluster prod --etcd https://etcd-1:2379 --advertise a.internal:5625",
        ],
        "access" => &[
            "coordinator access new-credential billing > billing.credential",
            "coordinator access check /etc/coordinator/access.toml",
            "coordinator access may billing lock billing/invoices",
        ],
        "completions" => &[
            "mkdir -p ~/.local/share/bash-completion/completions",
            "coordinator completions bash > ~/.local/share/bash-completion/completions/coordinator",
            "coordinator completions zsh > ~/.zfunc/_coordinator",
            "coordinator completions fish > ~/.config/fish/completions/coordinator.fish",
        ],
        "man" => &["coordinator man lock | man -l -"],
        _ => return String::new(),
    };
    let mut text = section("EXAMPLES");
    for line in lines {
        let lines: Vec<_> = line.lines().map(escaped).collect();
        let _infallible = writeln!(text, ".PP\n.nf\n.RS 4\n{}\n.RE\n.fi", lines.join("\n"));
    }
    text
}

fn see_also(name: &str) -> String {
    let pages: &[&str] = match name {
        "coordinator" => &["coordinator-lock", "coordinator-acquire", "coordinator-serve"],
        "lock" | "try" => &["coordinator", "coordinator-acquire", "flock"],
        "hold" | "held" | "release" => &["coordinator", "coordinator-lock", "coordinator-acquire"],
        "acquire" => {
            &["coordinator", "coordinator-lock", "coordinator-held", "coordinator-release"]
        }
        _ => &["coordinator"],
    };
    let pages: Vec<_> = pages.iter().map(|page| format!("\\fB{}\\fR(1)", escaped(page))).collect();
    let mut text = section("SEE ALSO");
    let _infallible = writeln!(text, "{}", pages.join(", "));
    text
}

fn is_locking(name: &str) -> bool {
    matches!(name, "lock" | "try")
}

fn section(title: &str) -> String {
    format!(".SH \"{title}\"\n")
}

fn entry(text: &mut String, term: &str, what: &str) {
    let _infallible = writeln!(text, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(what));
}

fn paragraph(text: &mut String, what: &str) {
    let _infallible = writeln!(text, "{}", escaped(what));
}

/// Text that roff takes for nothing but text.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    // A dot or a quote at the beginning of a line would be an order.
    match text.chars().next() {
        Some('.' | '\'') => format!("\\&{text}"),
        _ => text,
    }
}
