//! `coordinator bench`: how fast a coordinator is, and whether it keeps its promises meanwhile.
//!
//! | file | holds |
//! |---|---|
//! | `args` | the flags, and the plan that they make |
//! | `load` | the load generator: it knows neither flags nor texts |
//! | `report` | what came out, as a table for people |
//!
//! `docs/performance.md` is its page for users: what is measured, and how.

mod args;
mod load;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use coordinator::Error as Answered;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::Signal;

pub(crate) use self::args::BenchArgs;
use self::load::{Coordinator, Error, Extent, Outcome, Progress};
use crate::cli::process::signals::Signals;
use crate::cli::process::terminal;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure, exit};

/// Measures, and prints what came out.
pub(crate) async fn run(args: BenchArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let plan = args.plan()?;
    let server = settings.server.0.clone();
    if server.contains(',') {
        return Err(Failure::usage(format!("bench measures one coordinator, not {server}"))
            .hint("name one with --server"));
    }
    let (address, is_secure) = match server.strip_prefix("tls://") {
        Some(address) => (address, true),
        None => (server.as_str(), false),
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let peer = Coordinator {
        server: address.to_owned(),
        tls: is_secure.then(|| (host.to_owned(), settings.tls_options())),
        credential: settings.credential()?,
        connect_timeout: settings.connect_timeout,
        plan: plan.clone(),
    };
    let mut signals = Signals::listen_unless_ignored([Signal::INT, Signal::TERM])
        .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
    let mut caught = None;
    let interrupted = async { caught = Some(signals.next().await) };

    let bar = Bar::new(plan.extent, args.quiet || !terminal::is_watched());
    let measured =
        load::measure(peer, plan, args.server_pid, interrupted, |progress| bar.show(progress));
    let measured = measured.await;
    bar.finish();
    let outcome = measured.map_err(|error| failure(&server, error))?;
    if args.json {
        answer::line(&json(&server, &outcome))?;
    } else {
        answer::print(&report::table(&outcome))?;
    }
    Ok(caught.map_or(ExitCode::SUCCESS, interrupted_by))
}

/// The exit code of a command that a signal ended before its work was done.
fn interrupted_by(signal: Signal) -> ExitCode {
    let number = u8::try_from(signal.as_raw()).unwrap_or(0);
    ExitCode::from(exit::SIGNAL_BASE.saturating_add(number))
}

fn json(server: &str, outcome: &Outcome) -> String {
    let mut json = outcome.to_json();
    json["version"] = env!("CARGO_PKG_VERSION").into();
    json["server"] = server.into();
    json.to_string()
}

/// What is said about an error, with the codes that other commands have for the same.
fn failure(server: &str, error: Error) -> Failure {
    let attempt = Attempt { server, busy: exit::BUSY, ..Attempt::default() };
    let server = Arc::from(server);
    match error {
        Error::Connection(source) => {
            attempt.failed(&Answered::Unavailable { server, source: Arc::new(source) })
        }
        Error::Dismissed { code, message } => {
            attempt.failed(&Answered::Dismissed { server, code, message })
        }
        Error::Rejected { code, message } => attempt.failed(&Answered::Rejected { code, message }),
        Error::Protocol(message) => attempt.failed(&Answered::Protocol { server, message }),
        Error::Violation(violation) => {
            Failure::new(exit::LOST, format!("the coordinator broke a promise: {violation}"))
                .hint("this is a defect; please report it, with the flags and the server's log")
        }
        Error::NoProcess { .. } => Failure::usage(error.to_string())
            .hint("--server-pid needs the id of a process on this machine"),
        Error::Silent(_) => Failure::new(
            exit::NO_SERVER,
            format!("the coordinator at {server} stopped answering: {error}"),
        ),
    }
}

/// Shows how far it is, where somebody watches.
struct Bar {
    /// The bar itself.
    bar: ProgressBar,
    /// How much there is to do.
    extent: Extent,
}

impl Bar {
    fn new(extent: Extent, is_hidden: bool) -> Self {
        let bar = if is_hidden {
            ProgressBar::hidden()
        } else {
            let len = match extent {
                Extent::For(duration) => duration.as_millis(),
                Extent::Pairs(pairs) => pairs.into(),
            };
            ProgressBar::new(u64::try_from(len).unwrap_or(u64::MAX))
        };
        // The template is valid; were it not, the bar would have its usual form.
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
            bar.set_style(style);
        }
        Self { bar, extent }
    }

    fn show(&self, progress: Progress) {
        match progress {
            Progress::Connecting => self.bar.set_message("connecting"),
            Progress::WarmingUp => self.bar.set_message("warming up"),
            Progress::Measured { pairs, elapsed } => {
                let position = match self.extent {
                    Extent::For(_) => u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    Extent::Pairs(_) => pairs,
                };
                self.bar.set_position(position);
                self.bar.set_message(format!("{pairs} pairs"));
            }
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
