//! Why a measurement ends before its time.

use std::io;

use coordinator::types::{GoodbyeCode, RejectionCode};

use super::checks::Violation;

/// Why a measurement ends before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// There is no connection, or none any more.
    #[error("connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The server closed the connection and said why.
    #[error("the server ended the session ({code}): {message}")]
    Dismissed {
        /// Why.
        code: GoodbyeCode,
        /// Why, for people.
        message: String,
    },
    /// The server answered *no*.
    #[error("rejected ({code}): {message}")]
    Rejected {
        /// Why.
        code: RejectionCode,
        /// Why, for people.
        message: String,
    },
    /// The server does not speak the protocol.
    #[error("{0}")]
    Protocol(String),
    /// The server broke a promise.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// There is no such process to be watched.
    #[error("cannot read the CPU time of process {pid} ({source})")]
    NoProcess {
        /// The process.
        pid: u32,
        /// Why.
        source: io::Error,
    },
    /// Some connections still waited for an answer long after the end.
    #[error("no answer within {0:?} after the end")]
    Silent(std::time::Duration),
}
