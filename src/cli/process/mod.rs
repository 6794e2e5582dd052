//! Processes, signals and terminals: what commands are run with.

pub(super) mod again;
pub(super) mod child;
pub(super) mod foreground;
pub(super) mod group;
pub(super) mod inherited;
pub(super) mod life;
pub(super) mod orphans;
pub(super) mod outcome;
pub(super) mod signals;
pub(super) mod terminal;

use tokio::sync::oneshot;

/// Does `work`, which may block for long, on a thread of its own, which ends with the process: what
/// blocks cannot be called off.
pub(crate) fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> oneshot::Receiver<T> {
    let (tell, told) = oneshot::channel();
    std::thread::spawn(move || tell.send(work()));
    told
}
