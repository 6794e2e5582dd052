//! `coordinator acquire`: has a lock kept by a process of its own, and prints the variables for
//! later steps.
//!
//! The keeper (`keeper`) does everything about the lock. This command starts it, waits until it
//! reports the lock as held, and lets it go on when all is said. If this command ends before, so
//! does the keeper.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ExitCode, Stdio};

use super::file::KeptFile;
use super::process::{GO_ON, WORD};
use super::record::Record;
use super::variables::{env_lines, exports, variables};
use crate::cli::arguments::{AcquireArgs, Form, fail_in_eval};
use crate::cli::lock::hold::ENDING;
use crate::cli::process::again::our_program;
use crate::cli::process::child::code_of_signal;
use crate::cli::process::on_a_thread;
use crate::cli::process::signals::Signals;
use crate::cli::text::answer;
use crate::cli::text::errors::{Failure, exit, shell_word};

/// Starts a keeper, and returns when it holds the lock.
pub(crate) fn run(args: &AcquireArgs) -> Result<ExitCode, Failure> {
    crate::cli::on_a_runtime(async {
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
                Some(place) => held(args, &place, go_on),
                // It has said why.
                None => Ok(failed(code_of(&mut child))),
            },
            signal = signals.next() => {
                drop(go_on);
                let _gone = child.wait();
                Ok(failed(code_of_signal(signal.as_raw())))
            }
        }
    })
}

fn failed(code: u8) -> ExitCode {
    fail_in_eval(code);
    ExitCode::from(code)
}

/// Our program once more, with our words, so that it asks for what we were asked for.
fn start() -> std::io::Result<Child> {
    let mut command = our_program()?;
    command.arg(WORD).args(std::env::args_os().skip(1));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

/// The lock is held: says so, then lets the keeper go on. Until then it gives the lock back if we fail.
fn held(args: &AcquireArgs, place: &Path, go_on: Option<ChildStdin>) -> Result<ExitCode, Failure> {
    let lost = || Failure::new(exit::LOST, "the keeper process died, and the lock is lost with it");
    let record = KeptFile::open(place).and_then(|mut file| file.read());
    let record = record.ok().flatten().ok_or_else(lost)?.record;
    print(args.form, &record, place, &sentence(&record, place))?;
    let told = go_on.map(|mut go_on| go_on.write_all(&[GO_ON]));
    if matches!(told, Some(Ok(()))) { Ok(ExitCode::SUCCESS) } else { Err(lost()) }
}

/// What people are told.
fn sentence(record: &Record, place: &Path) -> String {
    let (names, token) = (record.names(), record.token);
    let place = shell_word(&place.to_string_lossy());
    format!("holding {names} token {token} until `coordinator release --keeper {place}`")
}

/// Prints what is held, as it was asked for.
pub(crate) fn print(
    form: Form,
    record: &Record,
    place: &Path,
    sentence: &str,
) -> Result<(), Failure> {
    let variables = || variables(record, place);
    match form {
        Form { export: true, .. } => answer::print(&exports(&variables())),
        Form { env: true, .. } => answer::print(&env_lines(&variables())),
        Form { .. } => answer::line(sentence),
    }
}

/// The keeper's exit code, as if it were ours.
fn code_of(child: &mut Child) -> u8 {
    let Ok(status) = child.wait() else { return exit::LOST };
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let by_signal = || status.signal().map(code_of_signal);
    code.or_else(by_signal).unwrap_or(exit::LOST)
}
