//! A command that has the terminal before it begins: `coordinator __run PROGRAM ARGUMENTS…`.
//!
//! The command under a lock has a process group of its own. On a terminal that group must be the
//! foreground group, or Ctrl-C and Ctrl-Z reach us instead. If we handed the terminal over after
//! starting the command, there would be a moment in between in which they do. So what is started
//! first is this: it takes the terminal for its own group, and then becomes the command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::again::{by_the_shell, our_program, with_environment_of};
use super::terminal::Terminal;
use crate::cli::text::errors::{Failure, exit, reason};

/// The word that tells our program to be this. In no help, for nobody types it.
pub(crate) const WORD: &str = "__run";

/// `command`, begun by taking the terminal.
pub(crate) fn in_foreground(command: &Command) -> io::Result<Command> {
    let mut whole = our_program()?;
    whole.arg(WORD).arg(command.get_program()).args(command.get_args());
    with_environment_of(&mut whole, command);
    Ok(whole)
}

/// Takes the terminal and becomes the command. Returns only if there is no such command.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(program) = words.next() else { return ExitCode::FAILURE };
    if let Some(terminal) = Terminal::controlling() {
        terminal.take();
    }
    let mut command = Command::new(program);
    let error = become_command(command.args(words));
    cannot_run(&command, &error).report()
}

/// Becomes `command`. Returns only to say why that cannot be.
pub(crate) fn become_command(command: &mut Command) -> io::Error {
    let error = command.exec();
    match by_the_shell(command, &error) {
        Some(mut script) => script.exec(),
        None => error,
    }
}

/// Why the command did not start: 127 if it is not there, 126 if it is and cannot be run.
pub(crate) fn cannot_run(command: &Command, error: &io::Error) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(exit::NO_SUCH_COMMAND, format!("command not found: {program:?}"))
                .hint("no shell is involved; to run a script, use -c")
        }
        _ => Failure::new(exit::CANNOT_RUN, format!("cannot run {program:?} ({})", reason(error))),
    }
}
