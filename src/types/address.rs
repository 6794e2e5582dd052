//! The address of a server, as servers tell it to clients.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest address of a server, in bytes: the longest name that there can be, a colon and a port.
pub const SERVER_ADDRESS_LEN_MAX: usize = 253 + 1 + 5;

/// Why a text is no address of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerAddressError {
    /// No name has so many bytes.
    #[error("it has {len} bytes; at most {SERVER_ADDRESS_LEN_MAX} are allowed")]
    TooLong {
        /// Bytes that were given.
        len: usize,
    },
    /// The port is missing, or is none.
    #[error("it needs a port from 1 to 65535, as in host:5625")]
    Port,
    /// What stands before the port is no name and no address.
    #[error("its host is no name and no IP address (an IPv6 address stands in brackets)")]
    Host,
}

/// Where clients find a server: a name or an IP address, and a port. An IPv6 address stands in brackets.
///
/// A server says so about another one, and perhaps lies. So it has no more than a name can have:
/// nothing that garbles a terminal, and nothing that is looked at before it is looked up.
///
/// # Examples
///
/// ```
/// use coordinator::types::ServerAddress;
///
/// let leader: ServerAddress = "b.internal:5625".parse()?;
/// assert_eq!((leader.host(), leader.port()), ("b.internal", 5625));
/// assert!(ServerAddress::new("b.internal").is_err());
/// # Ok::<(), coordinator::types::ServerAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress {
    /// Host, colon, port.
    text: Box<str>,
    /// Length of the host, with its brackets.
    host_len: usize,
    /// The port.
    port: u16,
}

impl ServerAddress {
    /// The address that `text` is.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ServerAddressError> {
        let text = text.as_ref();
        if text.len() > SERVER_ADDRESS_LEN_MAX {
            return Err(ServerAddressError::TooLong { len: text.len() });
        }
        let (host, port) = text.rsplit_once(':').ok_or(ServerAddressError::Port)?;
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ServerAddressError::Port);
        }
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(ServerAddressError::Port)?;
        if !is_name(host) && !is_bracketed_v6(host) {
            return Err(ServerAddressError::Host);
        }
        Ok(Self { text: text.into(), host_len: host.len(), port })
    }

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host alone, without brackets.
    pub fn host(&self) -> &str {
        let host = &self.text[..self.host_len];
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Names of machines, and IPv4 addresses.
fn is_name(host: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    host.bytes().all(is_plain) && host.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_bracketed_v6(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok())
}

impl FromStr for ServerAddress {
    type Err = ServerAddressError;

    fn from_str(text: &str) -> Result<Self, ServerAddressError> {
        Self::new(text)
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("b:1", "b", 1),
            ("10.0.0.7:5625", "10.0.0.7", 5625),
            ("[::1]:65535", "::1", 65_535),
            ("lock_3.prod.internal:7", "lock_3.prod.internal", 7),
        ] {
            let address = ServerAddress::new(text).unwrap();
            assert_eq!((address.host(), address.port(), address.as_str()), (host, port, text));
        }
    }

    #[test]
    fn nothing_else_is_one() {
        use ServerAddressError::{Host, Port};
        for (text, why) in [
            ("", Port),
            ("b", Port),
            ("b:", Port),
            ("b:0", Port),
            ("b:65536", Port),
            ("b:+1", Port),
            (":1", Host),
            ("::1:1", Host),
            ("[::1:1", Host),
            ("[b]:1", Host),
            ("-b:1", Host),
            ("a b:1", Host),
            ("a\u{1b}[2J:1", Host),
            ("tls://b:1", Host),
            ("b,c:1", Host),
            ("bücher:1", Host),
        ] {
            assert_eq!(ServerAddress::new(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn a_name_of_the_greatest_length_is_one_and_a_longer_one_is_not() {
        let of = |len: usize| ServerAddress::new(format!("{}:65535", "x".repeat(len - 6)));
        assert!(of(SERVER_ADDRESS_LEN_MAX).is_ok());
        let len = SERVER_ADDRESS_LEN_MAX + 1;
        assert_eq!(of(len), Err(ServerAddressError::TooLong { len }));
    }
}
