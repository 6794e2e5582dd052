//! Reloads that are asked for over HTTP.
//!
//! What a configuration is, is not known here: whoever runs the server reads it, as it does by SIGHUP, and says what
//! became of it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

/// Has the configuration read again. Clones are the same.
#[derive(Clone)]
pub struct Reloads(Arc<dyn Fn(ReloadRequest) -> bool + Send + Sync>);

/// Somebody wants the configuration read again, and may.
#[derive(Debug)]
pub struct ReloadRequest {
    /// The principal.
    pub by: String,
    /// Where it comes from.
    pub peer: Option<SocketAddr>,
    /// Where to say what became of it.
    pub done: oneshot::Sender<Result<Reloaded, Vec<ReloadMistake>>>,
}

/// A configuration that was read without a mistake, and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What has been taken over, in words.
    pub taken_over: Vec<String>,
    /// Settings that have changed and wait for a restart.
    pub waiting: Vec<String>,
    /// What is no mistake, and probably not meant either.
    pub doubts: Vec<String>,
}

/// A mistake in a configuration, by which nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadMistake {
    /// In which piece of it.
    pub piece: String,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Reloads {
    /// By a function that begins it and does not wait for it. It says whether it did: not while another is to begin.
    pub fn new(begin: impl Fn(ReloadRequest) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(begin))
    }

    /// Begins one.
    pub(super) fn begin(&self, request: ReloadRequest) -> bool {
        (self.0)(request)
    }
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reloads")
    }
}
