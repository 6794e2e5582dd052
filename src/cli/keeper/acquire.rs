//! `coordinator acquire`: has a lock kept by a process of its own, and prints the variables for
//! later steps.
//!
//! The keeper (`keeper`) does everything about the lock. This command starts it, waits until it
//! reports the lock as held, and lets it go on when all is said. If this command ends before, so
//! does the keeper.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use super::file::KeptFile;
use super::process::{GO_ON, WORD};
use super::record::Record;
use super::variables::{env_lines, exports, variables};
use crate::cli::arguments::{AcquireArgs, Form, fail_in_eval};
use crate::cli::lock::hold::{ENDING, refuse_success};
use crate::cli::process::again::our_program;
use crate::cli::process::on_a_thread;
use crate::cli::process::outcome::{Outcome, code_of_signal};
use crate::cli::process::signals::Signals;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Failure, exit, shell_word};

/// Starts a keeper, and returns when it holds the lock.
pub(crate) fn run(args: &AcquireArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    refuse_success(&args.wanted)?;
    let outcome = crate::cli::on_a_runtime(async {
        // Before there is a child, whose end is told nobody if its signal is ignored.
        let _child = Signals::listen([Signal::CHILD])
            .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
        let mut signals = Signals::listen_unless_ignored(ENDING)
            .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
        let mut child =
            start().map_err(|error| Failure::ours("cannot start a keeper process", &error))?;
        let (go_on, said) = (child.stdin.take(), child.stdout.take());
        let place = on_a_thread(move || {
            let mut line = Vec::new();
            BufReader::new(said?).read_until(b'\n', &mut line).ok()?;
            (line.pop() == Some(b'\n')).then(|| PathBuf::from(OsString::from_vec(line)))
        });
        tokio::select! {
            biased;
            place = place => match place.ok().flatten() {
                Some(place) => held(args, settings, &place, go_on).map(|()| Outcome::Exited(0)),
                // It has said why.
                None => Ok(failed(Outcome::Exited(code_of(&mut child)))),
            },
            signal = signals.next() => {
                drop(go_on);
                let _gone = child.wait();
                Ok(failed(Outcome::interrupted(signal)))
            }
            () = nobody_reads() => {
                drop(go_on);
                let _gone = child.wait();
                Err(unread())
            }
        }
    });
    outcome.map(Outcome::ours)
}

fn failed(outcome: Outcome) -> Outcome {
    fail_in_eval(outcome.code());
    outcome
}

/// Returns once the other end of standard output is closed: a shell that was to evaluate what is
/// printed has gone.
async fn nobody_reads() {
    let closed = on_a_thread(|| {
        let output = io::stdout();
        let mut looked_at = [PollFd::new(&output, PollFlags::empty())];
        while poll(&mut looked_at, None) == Err(Errno::INTR) {}
        // A pipe says the first, a socket the second.
        looked_at[0].revents().intersects(PollFlags::ERR | PollFlags::HUP)
    });
    if closed.await != Ok(true) {
        std::future::pending::<()>().await;
    }
}

/// What is acquired, and told nobody, would be held by a keeper that nobody knows.
fn unread() -> Failure {
    Failure::new(exit::NOT_WRITTEN, "nobody reads the output any more, so nothing is held")
}

/// Our program once more, with our words, so that it asks for what we were asked for.
fn start() -> std::io::Result<Child> {
    let mut command = our_program()?;
    command.arg(WORD).args(std::env::args_os().skip(1));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

/// The lock is held: says so, then lets the keeper go on. Until then it gives the lock back if we fail.
fn held(
    args: &AcquireArgs,
    settings: &Settings,
    place: &Path,
    go_on: Option<ChildStdin>,
) -> Result<(), Failure> {
    let lost = || Failure::new(exit::LOST, "the keeper process died, and the lock is lost with it");
    let record = KeptFile::open(place).and_then(|mut file| file.read());
    let record = record.ok().flatten().ok_or_else(lost)?.record;
    let said = text(args.form, &record, place, settings, &sentence(&record, place));
    answer::print_read(&said)?.then_some(()).ok_or_else(unread)?;
    let told = go_on.map(|mut go_on| go_on.write_all(&[GO_ON]));
    if matches!(told, Some(Ok(()))) { Ok(()) } else { Err(lost()) }
}

/// What people are told.
fn sentence(record: &Record, place: &Path) -> String {
    let (names, token) = (record.names(), record.token);
    let place = shell_word(&place.to_string_lossy());
    format!("holding {names} token {token} until `coordinator release --keeper {place}`")
}

/// What is said of what is held, as it was asked for.
pub(crate) fn text(
    form: Form,
    record: &Record,
    place: &Path,
    settings: &Settings,
    sentence: &str,
) -> String {
    let variables = || variables(record, place, settings);
    match form {
        Form { export: true, .. } => exports(&variables()),
        Form { env: true, .. } => env_lines(&variables()),
        Form { .. } => format!("{sentence}\n"),
    }
}

/// The keeper's exit code, as if it were ours.
fn code_of(child: &mut Child) -> u8 {
    let Ok(status) = child.wait() else { return exit::LOST };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let by_signal = || status.signal().map(code_of_signal);
    code.or_else(by_signal).unwrap_or(exit::LOST)
}
