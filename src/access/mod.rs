//! Access: who may do what (authentication and authorization).
//!
//! ```text
//!   proof ──▶ Access ──▶ Principal ──may(verb, lock)──▶ the rule that allows it, or none
//!     │                      ▲
//!     └ credential,          └ the access file, parsed
//!       certificate, none
//! ```
//!
//! A *principal* is somebody with a proof. The access file names all principals, and rules for each.
//!
//! The one idea: *rules only allow* (default deny, allow-list). There is no denial and no order. One more
//! rule can therefore never take anything away, and what no rule allows is denied.
//!
//! A server without an access file has one principal, [`Access::open`]: anyone, who may do everything.
//! So there is one way through the code, with and without a file.
//!
//! Never here: a socket, a clock, a lock table, a log line, a decision about who gets a lock.

mod badge;
mod names;
#[cfg(feature = "access")]
mod parse;
mod principal;
mod proof;
mod rules;
#[cfg(test)]
mod tests;
mod verb;

pub use badge::{Allowed, Badge, Denied, Method, Sight, Unproven, to};
pub use names::{Names, NamesError};
#[cfg(feature = "access")]
pub use parse::{Mistake, Parsed, parse};
pub use principal::{
    Access, PRINCIPAL_NAME_LEN_MAX, Principal, PrincipalName, PrincipalNameError, Quotas,
};
pub use proof::{CertificateName, CertificateNameError, Digest, DigestError, Proof};
pub use rules::{Rule, Rules};
pub use verb::{Verb, Verbs};
