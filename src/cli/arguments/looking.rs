//! The flags of commands that look: `status`, `events`, `top`, `ping`.
#![allow(clippy::doc_markdown, reason = "these comments are the help that users read")]

use std::time::Duration;

use super::duration;

/// `status`.
#[derive(clap::Args)]
pub(crate) struct StatusArgs {
    /// Only this lock, with all its waiters.
    pub(crate) name: Option<String>,
    /// Print JSON; docs/status-json.md describes it.
    #[arg(long)]
    pub(crate) json: bool,
    /// List the sessions, too.
    #[arg(long, conflicts_with = "name")]
    pub(crate) sessions: bool,
    /// Draw the wait-for graph as a tree: who waits for whom.
    #[arg(long, conflicts_with_all = ["name", "sessions"])]
    pub(crate) waits: bool,
}

/// `events`.
#[derive(clap::Args)]
pub(crate) struct EventsArgs {
    /// Only events of this lock.
    pub(crate) name: Option<String>,
    /// Print JSON, one object per line; docs/status-json.md describes them.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `top`.
#[derive(clap::Args)]
pub(crate) struct TopArgs {
    /// Print one screen as text, and end.
    #[arg(long)]
    pub(crate) once: bool,
    /// Time between two looks, at least 250ms.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub(crate) interval: Duration,
}

/// `members`.
#[derive(clap::Args)]
pub(crate) struct MembersArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `takeover`.
#[derive(clap::Args)]
pub(crate) struct TakeoverArgs {
    /// Leader and standby are both lost, and will not come back with what they knew.
    #[arg(long, required = true)]
    pub(crate) after_loss: bool,
    /// The term of that leader, as `coordinator members` shows it.
    #[arg(long, value_name = "TERM")]
    pub(crate) term: u64,
}

/// `ping`.
#[derive(clap::Args)]
pub(crate) struct PingArgs {
    /// Only whether it answers at all: with a refusal, too, so that a probe needs no credential.
    #[arg(long, conflicts_with = "count")]
    pub(crate) alive: bool,
    /// Number of round trips to measure.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) count: u32,
}
