//! The terminal, and whose it is.
//!
//! A command in a process group of its own can read the terminal, and get Ctrl-C from it, only
//! while its group is the *foreground group*. So we hand it over as a shell does, and take it back
//! when the command ends or stops. Taking it back happens from the background, where the kernel
//! would stop us with SIGTTOU, unless that signal is blocked. (Catching it instead would hang: the
//! system call would be restarted, and refused, for ever.)
//!
//! The terminal is the one that controls our session, not standard input. With its input from a
//! file or a pipe a command may still ask for a password, on `/dev/tty`. It is handed over at once
//! only where nobody else is to use it. In a pipeline the others are of our group, and a pager at
//! the end would be stopped without need. There the command gets the terminal when it asks, which
//! it is stopped for, by SIGTTIN or SIGTTOU.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcgetwinsize, tcsetpgrp};

/// The terminal that controls our session.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The way to it.
    device: OwnedFd,
}

impl Terminal {
    /// The terminal that controls our session, if one does.
    pub(crate) fn controlling() -> Option<Self> {
        let device = match File::options().read(true).write(true).open("/dev/tty") {
            Ok(file) => file.into(),
            // A container may have no such device; standard input may be the terminal all the same.
            Err(_) => io::stdin().as_fd().try_clone_to_owned().ok()?,
        };
        tcgetpgrp(&device).is_ok().then_some(Self { device })
    }

    /// Whether a command should have it from its first moment: it is ours to give, the command's
    /// input, and nobody's but the command's.
    pub(crate) fn is_for_one_command(&self) -> bool {
        is_input() && self.is_ours() && !is_in_pipeline()
    }

    /// Whether it is ours now: we are no background job.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_of(getpgrp())
    }

    /// Whether `group` is the foreground group.
    pub(crate) fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.device).is_ok_and(|foreground| foreground == group)
    }

    /// Hands the terminal to `group`, if it is ours to give.
    pub(crate) fn give_to(&self, group: Pid) {
        if self.is_ours() {
            self.set_foreground(group);
        }
    }

    /// Takes the terminal for our group, from whoever has it.
    pub(crate) fn take(&self) {
        self.set_foreground(getpgrp());
    }

    /// Takes the terminal back from `group`, if that still has it. Returns whether it had.
    pub(crate) fn take_from(&self, group: Pid) -> bool {
        let had = self.is_of(group);
        if had {
            self.set_foreground(getpgrp());
        }
        had
    }

    /// Failing means that the terminal has gone, and then nobody needs it.
    fn set_foreground(&self, group: Pid) {
        let mut background_write = SigSet::empty();
        background_write.add(Blocked::SIGTTOU);
        let Ok(before) = background_write.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
        let _gone = tcsetpgrp(&self.device, group);
        let _cannot_fail = before.thread_set_mask();
    }
}

/// Whether standard input is a terminal.
pub(crate) fn is_input() -> bool {
    io::stdin().is_terminal()
}

/// Whether what we print goes to another program, which may use the terminal, too.
fn is_in_pipeline() -> bool {
    let is_pipe = |output: BorrowedFd<'_>| {
        let metadata = output.try_clone_to_owned().and_then(|it| File::from(it).metadata());
        metadata.is_ok_and(|it| it.file_type().is_fifo() || it.file_type().is_socket())
    };
    is_pipe(io::stdout().as_fd()) || is_pipe(io::stderr().as_fd())
}

/// Whether passing remarks have a reader: standard error is a terminal.
pub(crate) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// How many characters a line of the watcher's terminal has.
pub(crate) fn width() -> usize {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}
