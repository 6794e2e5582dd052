//! What is asked of a running server.

/// What is asked of a server. Only ever goes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Serve.
    Serving,
    /// Stop in order.
    Draining,
    /// Stop at once.
    Stopping,
}
