//! The terminal, and whose it is.
//!
//! A command in a process group of its own can read the terminal, and get Ctrl-C from it, only
//! while its group is the *foreground group*. So we hand it over as a shell does, and take it back
//! when the command ends or stops. Taking it back happens from the background, for which the kernel
//! would stop us with SIGTTOU; it does not where that signal is blocked. (Catching it instead would
//! hang: the system call would be restarted, and refused, for ever.)

use std::io::{self, IsTerminal, Stdin};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Blocked};
use rustix::process::{Pid, getpgrp};
use rustix::termios::{tcgetpgrp, tcgetwinsize, tcsetpgrp};

/// Standard input, if it is a terminal.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Where it is.
    stdin: Stdin,
}

impl Terminal {
    /// The terminal that standard input is, if it is one.
    pub(crate) fn on_stdin() -> Option<Self> {
        let stdin = io::stdin();
        stdin.is_terminal().then_some(Self { stdin })
    }

    /// Whether it is ours now: we are no background job.
    pub(crate) fn is_ours(&self) -> bool {
        self.is_of(getpgrp())
    }

    /// Whether `group` is the foreground group.
    pub(crate) fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.stdin).is_ok_and(|foreground| foreground == group)
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

    /// Takes the terminal back from `group`, if that still has it.
    pub(crate) fn take_from(&self, group: Pid) {
        if self.is_of(group) {
            self.set_foreground(getpgrp());
        }
    }

    /// Failing means that the terminal has gone, and then nobody needs it.
    fn set_foreground(&self, group: Pid) {
        let mut background_write = SigSet::empty();
        background_write.add(Blocked::SIGTTOU);
        let Ok(before) = background_write.thread_swap_mask(SigmaskHow::SIG_BLOCK) else { return };
        let _gone = tcsetpgrp(&self.stdin, group);
        let _cannot_fail = before.thread_set_mask();
    }
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
