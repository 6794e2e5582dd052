//! A channel to an endpoint: how it is connected, and encrypted.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::error::EtcdError;
use super::{DOUBLINGS_MAX, EtcdOptions};

/// A connection that is silent for so long is looked at, and is given half of that to answer.
const PING_AFTER: Duration = Duration::from_secs(2);

/// One endpoint.
pub(super) struct Member {
    /// Its address, for people.
    pub(super) name: String,
    /// The connection, made when it is needed, and again when it broke.
    pub(super) channel: Channel,
    /// The cluster of etcds that it was of when it answered last; 0: it has yet to answer, since it did not.
    pub(super) said: AtomicU64,
}

/// A channel to one endpoint.
pub(super) fn member(url: &str, options: &EtcdOptions) -> Result<Member, EtcdError> {
    let wrong = |why: &str| EtcdError::Address { url: url.to_owned(), why: why.to_owned() };
    let is_secure = match url.split_once("://") {
        Some(("http", _)) => false,
        Some(("https", _)) => true,
        Some(_) => return Err(wrong("it begins with neither http:// nor https://")),
        None => return Err(wrong("it does not begin with http:// or https://")),
    };
    let endpoint =
        Endpoint::from_shared(url.to_owned()).map_err(|error| wrong(&deepest(&error)))?;
    if endpoint.uri().port().is_none() {
        return Err(wrong("it has no port"));
    }
    let mut endpoint = endpoint
        .connect_timeout(options.patience * (1 << DOUBLINGS_MAX))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PING_AFTER / 2);
    if is_secure {
        let certificates = |error| EtcdError::Certificates { why: deepest(&error) };
        endpoint = endpoint.tls_config(tls(options)).map_err(certificates)?;
    }
    let (name, channel) = (url.to_owned(), endpoint.connect_lazy());
    Ok(Member { name, channel, said: AtomicU64::new(0) })
}

/// Whom to trust, and what to show.
fn tls(options: &EtcdOptions) -> ClientTlsConfig {
    let mut tls = ClientTlsConfig::new();
    if let Some(ca) = &options.ca {
        tls = tls.ca_certificate(Certificate::from_pem(ca));
    }
    if let Some((certificate, key)) = &options.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    tls
}

/// The cause behind all causes.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
