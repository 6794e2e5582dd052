//! Why etcd did not do what it was asked.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

/// Why etcd did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EtcdError {
    /// A list of endpoints that is empty, or too long.
    #[error("{count} etcd endpoints: between 1 and {max} are needed")]
    Endpoints {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// What was given as an address is none.
    #[error("{url:?} is not the address of an etcd, as in https://etcd-1:2379: {why}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificates cannot be used.
    #[error("the certificates for etcd cannot be used: {why}")]
    Certificates {
        /// What is wrong with them.
        why: String,
    },
    /// No endpoint has answered. What was asked may have been done nevertheless.
    #[error("no etcd has answered: {0}")]
    Unavailable(Attempts),
    /// Only another cluster of etcds answers than the one that is believed. Nothing was asked of it that changes
    /// something.
    #[error(
        "another etcd answers than before (its cluster id is {other:x}, and was {known:x}): {attempts}"
    )]
    Other {
        /// The one that is believed.
        known: u64,
        /// The one that answers.
        other: u64,
        /// What was tried.
        attempts: Attempts,
    },
    /// The endpoints are of different etcds.
    #[error("the endpoints are of several etcds, and have to be of one: {0}")]
    Several(Attempts),
    /// Too few have said whose they are.
    #[error(
        "{answered} of {count} etcd endpoints have said whose they are. The first time more than half have to, for \
         there could be another etcd among them; leave out what is gone: {attempts}"
    )]
    TooFew {
        /// How many have.
        answered: usize,
        /// How many there are.
        count: usize,
        /// What came of the others.
        attempts: Attempts,
    },
    /// Etcd says no, and any other of its members would.
    #[error("etcd at {endpoint} refused: {message}{}", hint(message))]
    Refused {
        /// Who.
        endpoint: String,
        /// What it said.
        message: String,
    },
    /// Etcd said something that is no answer.
    #[error("etcd at {endpoint} gave an answer without {what}")]
    Answer {
        /// Who.
        endpoint: String,
        /// What is not in it.
        what: &'static str,
    },
}

/// What was tried, in its order.
#[derive(Debug)]
pub struct Attempts(
    /// The endpoint, and what came of it.
    pub Vec<(String, String)>,
);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (endpoint, why)) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "; " };
            write!(f, "{comma}{endpoint}: {why}")?;
        }
        Ok(())
    }
}

/// What to do about a refusal.
fn hint(message: &str) -> &'static str {
    if message.contains("database space exceeded") {
        "; compact and defragment it, then disarm its alarm"
    } else if message.contains("permission denied") {
        "; its user needs to read and write all keys below /coordinator/"
    } else if message.contains("user name is empty") {
        "; it wants a user and a password, or a client certificate"
    } else if message.contains("authentication failed") {
        "; is the password right?"
    } else {
        ""
    }
}

/// What an endpoint has refused.
pub(super) fn refusal(endpoint: &str, status: &Status) -> EtcdError {
    let message = status.message().trim_start_matches("etcdserver: ").to_owned();
    EtcdError::Refused { endpoint: endpoint.to_owned(), message }
}

/// Whether another member of etcd might say something else.
pub(super) fn is_final(status: &Status) -> bool {
    match status.code() {
        Code::PermissionDenied
        | Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::Unauthenticated
        | Code::Unimplemented => true,
        // A full disk is everybody's; too much work is not.
        Code::ResourceExhausted => status.message().contains("space"),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}

/// Whether the proof of who asks is too old, or there is none yet.
pub(super) fn wants_proof(status: &Status) -> bool {
    let message = status.message();
    status.code() == Code::Unauthenticated
        || status.code() == Code::InvalidArgument
            && (message.contains("user name is empty")
                || message.contains("revision of auth store"))
}

/// The cause behind all causes: *connection refused* instead of *transport error*.
pub(super) fn cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(deeper) = cause.and_then(Error::source) {
        cause = Some(deeper);
    }
    cause.map_or_else(|| status.message().to_owned(), ToString::to_string)
}
