//! How a command ended, or the wait for its lock, and how this process then ends: likewise.
//!
//! An exit code of 130 tells a shell that Ctrl-C was handled, and its script goes on. A shell ends its
//! script if the key reached the shell as well, and whoever it waited for *died* of it. So a death by
//! a key's signal is passed on as one, to whoever shares our group, too, if only the command heard it.

use std::process::ExitCode;

use rustix::process::{
    Resource, Rlimit, Signal, getpid, getrlimit, kill_current_process_group, setrlimit,
};

use super::signals::was_ignored;
use crate::cli::text::errors::exit;

/// Signals of keys that end.
pub(super) const OF_KEYS: [Signal; 2] = [Signal::INT, Signal::QUIT];

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(i32),
    /// By this signal, while the terminal was its own: nobody else heard of a key.
    KilledAlone(i32),
}

impl Outcome {
    /// The wait was ended by this signal.
    pub(crate) fn interrupted(by: Signal) -> Self {
        Self::Killed(by.as_raw())
    }

    /// The exit code that tells it, as shells have it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) | Self::KilledAlone(signal) => code_of_signal(signal),
        }
    }

    /// The same of what had the terminal when it ended, and no such signal from us.
    pub(crate) fn alone(self) -> Self {
        match self {
            Self::Killed(signal) => Self::KilledAlone(signal),
            Self::Exited(_) | Self::KilledAlone(_) => self,
        }
    }

    /// Ends this process by the same key; after all else that is to be done. Returns the exit code
    /// where it was no key.
    pub(crate) fn ours(self) -> ExitCode {
        let of_a_key = |number: i32| OF_KEYS.into_iter().find(|it| it.as_raw() == number);
        match self {
            Self::Exited(_) => {}
            Self::Killed(signal) => _ = of_a_key(signal).map(die_by),
            Self::KilledAlone(signal) => {
                if let Some(signal) = of_a_key(signal) {
                    let _cannot_fail = kill_current_process_group(signal);
                    die_by(signal);
                }
            }
        }
        ExitCode::from(self.code())
    }
}

/// Ends this process by a signal. Returns if that cannot be: where it was ignored from the start, and in
/// the first process of a container, which does not die of its own signals.
fn die_by(signal: Signal) {
    if was_ignored(signal) || getpid().is_init() {
        return;
    }
    // The command's core is of interest, ours is not.
    let none = Rlimit { current: Some(0), ..getrlimit(Resource::Core) };
    let _left_behind = setrlimit(Resource::Core, none);
    let _unknown = signal_hook::low_level::emulate_default_handler(signal.as_raw());
}

/// The exit code for death by a signal, as shells have it.
pub(crate) fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |number| exit::SIGNAL_BASE.saturating_add(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn death_by_a_signal_has_the_shells_code() {
        assert_eq!(code_of_signal(2), 130);
        assert_eq!(code_of_signal(9), 137);
        assert_eq!(Outcome::Killed(15).code(), 143);
        assert_eq!(Outcome::Exited(7).alone().code(), 7);
    }
}
