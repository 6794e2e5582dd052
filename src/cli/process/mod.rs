//! Processes, signals and terminals: what commands are run with.

pub(super) mod again;
pub(super) mod child;
pub(super) mod foreground;
pub(super) mod life;
pub(super) mod orphans;
pub(super) mod signals;
pub(super) mod terminal;
