//! Signals as a stream, and which of them are not for us.
//!
//! A signal that was ignored at our start stays ignored, by us and by our children. In this way
//! nohup(1) lets a job outlive its terminal, and a shell keeps Ctrl-C from a background job. To
//! listen would end that, and a command started later would not inherit it. So whoever starts us is
//! asked first, once: `/proc` knows what is ignored, until somebody listens. (Elsewhere, and for
//! SIGPIPE, which Rust ignores before we begin, nobody can be asked without unsafe code; there
//! nothing counts as ignored.)

use std::fs;
use std::future::poll_fn;
use std::io;
use std::sync::OnceLock;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// Signals that users send to stop, or to talk to, a command.
pub(crate) const FOR_COMMANDS: [Signal; 6] =
    [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Signals that have come, in no particular order; equal ones may be merged, as signals are.
pub(crate) struct Signals {
    /// One stream each.
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Listens for those of `signals` that were not ignored when we were started.
    pub(crate) fn listen_unless_ignored(
        signals: impl IntoIterator<Item = Signal>,
    ) -> io::Result<Self> {
        let ignored = Ignored::at_start();
        Self::listen(signals.into_iter().filter(|signal| !ignored.contains(*signal)))
    }

    /// Listens for `signals` from now on; from now on, too, they do nothing by themselves.
    pub(crate) fn listen(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let stream = |signal: Signal| {
            let stream = unix::signal(SignalKind::from_raw(signal.as_raw()))?;
            unblock(signal);
            Ok((signal, stream))
        };
        Ok(Self { streams: signals.into_iter().map(stream).collect::<io::Result<_>>()? })
    }

    /// Listens for these besides.
    pub(crate) fn add(&mut self, signals: impl IntoIterator<Item = Signal>) -> io::Result<()> {
        let more = Self::listen(signals)?;
        self.streams.extend(more.streams);
        Ok(())
    }

    /// What `work` gives, or the signal that came before that.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Signal> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            signal = self.next() => Err(signal),
        }
    }

    /// The next signal. Nothing is missed if this is dropped and called again.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if let Poll::Ready(Some(())) = stream.poll_recv(context) {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Whoever started us may have blocked it, and a mask is inherited.
fn unblock(signal: Signal) {
    use nix::sys::signal::{SigSet, Signal as Blocked};

    if let Ok(signal) = Blocked::try_from(signal.as_raw()) {
        let _cannot_fail = SigSet::from_iter([signal]).thread_unblock();
    }
}

/// Whether a signal was ignored when we were started.
pub(crate) fn was_ignored(signal: Signal) -> bool {
    Ignored::at_start().contains(signal)
}

/// The signals that were ignored when we were started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ignored {
    /// A bit for each, the lowest for signal 1.
    bits: u64,
}

impl Ignored {
    /// What was ignored when this was asked for the first time, which is before anybody listened:
    /// listening asks.
    fn at_start() -> Self {
        static AT_START: OnceLock<Ignored> = OnceLock::new();
        *AT_START.get_or_init(|| {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            Self::in_status(&status).unwrap_or_default()
        })
    }

    /// What the text of a `/proc/PID/status` says.
    fn in_status(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        Some(Self { bits: u64::from_str_radix(line.trim(), 16).ok()? })
    }

    fn contains(self, signal: Signal) -> bool {
        let bit = u32::try_from(signal.as_raw() - 1).ok();
        bit.and_then(|bit| self.bits.checked_shr(bit)).is_some_and(|bits| bits & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_from_proc() {
        let text = "Name:\tcoordinator\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001007\n";
        let ignored = Ignored::in_status(text).unwrap();
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::PIPE] {
            assert!(ignored.contains(signal), "{signal:?}");
        }
        assert!(!ignored.contains(Signal::TERM));
        assert!(!ignored.contains(Signal::CHILD));
    }

    #[test]
    fn nothing_is_ignored_where_nobody_knows() {
        for text in ["", "SigIgn:\tnonsense\n", "SigBlk:\t0000000000000001\n"] {
            let ignored = Ignored::in_status(text).unwrap_or_default();
            assert!(!ignored.contains(Signal::HUP), "{text:?}");
        }
    }
}
