//! What is asked of a server: said by handles, heard by the server and by those who look.

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
