//! What a port has besides its socket and its coordinator.

use super::guard::HttpHost;
use super::reload::Reloads;
#[cfg(feature = "tls")]
use crate::tls::ServerTls;

/// What a port has besides its socket and its coordinator.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HttpOptions {
    /// Names that it may be called by, besides addresses of this machine.
    pub hosts: Vec<HttpHost>,
    /// Who is told metrics.
    pub metrics: MetricsFor,
    /// Has the configuration read again; none: nobody can.
    pub reloads: Option<Reloads>,
    /// With this it speaks TLS, with the certificate of the lock port. Clients may show one.
    #[cfg(feature = "tls")]
    pub tls: Option<ServerTls>,
}

/// Who is told metrics. No name that a client chooses is in them, but how busy a service is, is in them, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsFor {
    /// Who may see every lock; without an access file that is everybody.
    #[default]
    WhoSeesAll,
    /// Whoever reaches the port.
    Anybody,
}
