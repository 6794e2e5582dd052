//! The HTTP port: a page for people, an API for programs, probes and metrics.
//!
//! ```text
//!   kubelet ─────▶ ┌─ a thread of its own ──────────────┐
//!   Prometheus ──▶ │ accept ─▶ hyper ─▶ guard ─▶ routes │ ──Pulse, Gather──▶ Coordinator
//!   browser ─────▶ │              page, survey, api ────│ ──Survey, visits─▶
//!                  └────────────────────────────────────┘
//! ```
//!
//! The one idea: *one more observer*. It asks the Coordinator what an observer may ask, and less often:
//! what many ask for at the same time is asked once. So however many look, and however fast, those who
//! lock notice nothing.
//!
//! | file | is about |
//! |---|---|
//! | `accept`, `places`, `caller` | connections: how many, for how long, how much they may say |
//! | `guard` | who may ask what, and what every answer says to browsers |
//! | `routes`, `answered`, `problem` | the answers, how many there were, what went wrong |
//! | `page` | the files of the page, in a folder of that name |
//! | `api` | what the page asks for: every question is an observer's |
//! | `options`, `reload` | what whoever opens the port says of it |
//! | `glance` | the latest figures, asked for once for all |
//! | `survey` | the walk over the locks that somebody waits for, of which only figures are told |
//! | `metrics`, `process` | figures as text for Prometheus |
//!
//! Invariants, as absences:
//! - No name that a client chooses is in the answer to a probe, or in metrics.
//! - No right is decided here: whoever asks is at the end of a line to the Coordinator, with what it shows.
//! - No cookie is read or set.
//! - Nothing here keeps the lock port from serving: what stands still is this thread.
//!
//! `docs/operations.md` tells operators what to ask and what to do.

mod accept;
mod answered;
mod api;
mod caller;
mod glance;
mod guard;
mod metrics;
mod options;
mod page;
mod places;
mod problem;
mod process;
mod reload;
mod routes;
mod survey;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime;
use tokio::sync::oneshot;

use self::accept::CONNECTIONS_MAX;
use self::guard::Guard;
pub use self::guard::{HttpHost, NotAHost};
pub use self::options::{HttpOptions, MetricsFor};
pub use self::reload::{ReloadMistake, ReloadRequest, Reloaded, Reloads};
use crate::server::{Looker, Secure};

/// The port of the page, of probes and metrics: one above that of the locks.
pub const HTTP_PORT: u16 = 5626;

/// An open port, on a thread of its own. Closed when dropped.
#[derive(Debug)]
pub struct HttpPort {
    /// Where it listens.
    address: SocketAddr,
    /// Says that it is enough by being dropped.
    stop: Option<oneshot::Sender<()>>,
    /// Where it runs; taken when it is waited for.
    thread: Option<JoinHandle<()>>,
}

impl HttpPort {
    /// Takes `address`, so that nobody else can; nothing is answered yet.
    ///
    /// # Errors
    ///
    /// If it is not to be had.
    pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Answers those who come to `listener`, with what `looker` tells.
    ///
    /// # Errors
    ///
    /// If the system has no thread or no file descriptor left.
    pub fn open(listener: TcpListener, looker: Looker, options: HttpOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let secure = Secure {
            #[cfg(feature = "tls")]
            tls: options.tls,
        };
        let guard = Arc::new(Guard::new(address.ip(), options.hosts));
        let (metrics, reloads) = (options.metrics, options.reloads);
        let thread = thread::Builder::new().name("http".to_owned()).spawn(move || {
            process::gives_way();
            runtime.block_on(async move {
                let router = routes::router(looker.clone(), guard, metrics, reloads);
                let serving = accept::serve(listener, looker, router, secure, CONNECTIONS_MAX);
                tokio::select! {
                    biased;
                    // An error, too, says that nobody wants the port any more.
                    _ = stopped => {}
                    () = serving => {}
                }
            });
        })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, with the port that it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpPort {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked; that was reported on its thread.
            let _ = thread.join();
        }
    }
}
