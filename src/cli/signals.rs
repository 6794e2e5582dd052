//! Signals as a stream.

use std::future::poll_fn;
use std::io;
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
    /// Listens for `signals` from now on; from now on, too, they do nothing by themselves.
    pub(crate) fn listen(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let stream =
            |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        Ok(Self { streams: signals.into_iter().map(stream).collect::<io::Result<_>>()? })
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
