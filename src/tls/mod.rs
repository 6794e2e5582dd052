//! TLS: connections that nobody else can read, to servers and clients that prove who they are.
//!
//! ```text
//!   client ── TCP ── TlsOptions ─▶ Dialed ═══ TLS 1.3 ═══ Accepted ◀─ ServerTls ── TCP ── server
//! ```
//!
//! | file | is about |
//! |---|---|
//! | `files` | certificates, keys and lists in files |
//! | `crl` | until when a list of revoked certificates is good |
//! | `server` | what a server shows and asks for; read again without a restart |
//! | `accepted` | a server's side of a connection |
//! | `handshakes`, `crowd` | the thread that makes a server's handshakes, and whose turn it is |
//! | `movable` | a connection that is handed from that thread to where it is used |
//! | `kept` | what was made of files, until they change |
//! | `client` | whom a client trusts, and what it shows |
//! | `dialed` | a client's side of a connection |
//! | `words` | what went wrong, in words |
//!
//! Only TLS 1.3 is spoken. The cryptography is ring's, chosen here and never as the process's default,
//! which belongs to the program that embeds us.
//!
//! Invariants, as absences:
//! - No way to leave out the verification of a certificate.
//! - No handshake work on a thread that has sessions.
//! - No address that keeps others from their handshakes.
//! - No key and no secret in an error or a log line.

#[cfg(feature = "server")]
mod accepted;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod crl;
#[cfg(feature = "server")]
mod crowd;
#[cfg(feature = "client")]
mod dialed;
mod files;
#[cfg(feature = "server")]
mod handshakes;
#[cfg(feature = "client")]
mod kept;
#[cfg(feature = "server")]
mod movable;
#[cfg(feature = "server")]
mod server;
#[cfg(all(test, feature = "client", feature = "server"))]
mod tests;
mod words;

#[cfg(feature = "server")]
pub(crate) use accepted::Accepted;
#[cfg(feature = "client")]
pub use client::TlsOptions;
#[cfg(feature = "client")]
pub use dialed::Dialed;
pub use files::TlsError;
#[cfg(feature = "server")]
pub use server::{CertificateUse, ClientAuth, Expiry, ReadTls, ServerFiles, ServerTls};
#[cfg(feature = "server")]
pub(crate) use words::is_of_tls;

/// What the lock port speaks (ALPN).
const ALPN_LOCKS: &[u8] = b"coordinator";
