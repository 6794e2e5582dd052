//! A command that has the terminal before it begins: `coordinator __run PROGRAM ARGUMENTS…`.
//!
//! The command under a lock has a process group of its own. On a terminal that group must be the
//! foreground group, or Ctrl-C and Ctrl-Z reach us instead. If we handed the terminal over after
//! starting the command, there would be a moment in between in which they do. So what is started
//! first is this: it takes the terminal for its own group, and then becomes the command.
//!
//! A command that cannot be run has not had its turn, where a turn counts. Its 127 could be the
//! command's own. So the reason comes through a pipe, which is opened by the name that `/proc` has
//! for it, and therefore is not the command's to inherit.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::again::{by_the_shell, our_program, with_environment_of};
use super::terminal::Terminal;
use crate::cli::text::errors::{Failure, exit, reason};

/// The word that tells our program to be this. In no help, for nobody types it.
pub(crate) const WORD: &str = "__run";

/// `command`, begun by taking the terminal; and where to hear that it could not be run.
pub(crate) fn in_foreground(command: &Command) -> io::Result<(Command, Refusal)> {
    let (heard, open) = io::pipe()?;
    rustix::io::ioctl_fionbio(&heard, true)?;
    let place = format!("/proc/{}/fd/{}", std::process::id(), open.as_raw_fd());
    let mut whole = our_program()?;
    whole.arg(WORD).arg(place).arg(command.get_program()).args(command.get_args());
    with_environment_of(&mut whole, command);
    Ok((whole, Refusal { heard, _open: open, program: command.get_program().to_owned() }))
}

/// Where it is heard that a command could not be run.
pub(crate) struct Refusal {
    /// Gets the error's number. Never blocks.
    heard: PipeReader,
    /// Open for as long as somebody may open it by its name.
    _open: PipeWriter,
    /// The command.
    program: OsString,
}

impl Refusal {
    /// Why it could not be run, once what was started has ended; none if it could.
    pub(crate) fn heard(mut self) -> Option<Failure> {
        let mut number = [0; size_of::<i32>()];
        self.heard.read_exact(&mut number).ok()?;
        let error = io::Error::from_raw_os_error(i32::from_le_bytes(number));
        Some(cannot_run(&Command::new(self.program), &error))
    }
}

/// Takes the terminal and becomes the command. Returns only if there is no such command.
pub(crate) fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(place), Some(program)) = (words.next(), words.next()) else {
        return ExitCode::FAILURE;
    };
    let heard_there = File::options().write(true).open(place);
    if let Some(terminal) = Terminal::controlling() {
        terminal.take();
    }
    let mut command = Command::new(program);
    let error = become_command(command.args(words));
    let failure = cannot_run(&command, &error);
    let told = heard_there
        .and_then(|mut place| place.write_all(&error.raw_os_error().ok_or(error)?.to_le_bytes()));
    if told.is_ok() { ExitCode::from(failure.exit) } else { failure.report() }
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
