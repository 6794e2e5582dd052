//! Who may ask what, and what every answer says to browsers.
//!
//! A page of a stranger can have its name resolve to 127.0.0.1 (*DNS rebinding*), and then read
//! whatever is answered here. So a request under another name than its own is not answered. Probes
//! and metrics are an exception: they are called by all kinds of names and addresses, and tell
//! nothing of anybody.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue,
    REFERRER_POLICY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, StatusCode, Uri};

/// What is answered whatever it is called.
const CALLED_ANYHOW: [&str; 5] = ["/livez", "/healthz", "/readyz", "/leaderz", "/metrics"];
/// How long what comes behind the headers may be. Nothing here reads it.
pub(super) const BODY_BYTES_MAX: u64 = 4 * 1024;

/// What every answer says: that nothing here is to be run, framed, guessed, kept or told to others.
pub(super) fn headers() -> [(HeaderName, HeaderValue); 6] {
    let name = HeaderName::from_static;
    let value = HeaderValue::from_static;
    [
        (
            CONTENT_SECURITY_POLICY,
            value(
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                 img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                 require-trusted-types-for 'script'; trusted-types 'none'",
            ),
        ),
        (X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        (REFERRER_POLICY, value("no-referrer")),
        (name("cross-origin-opener-policy"), value("same-origin")),
        (name("cross-origin-resource-policy"), value("same-origin")),
        (CACHE_CONTROL, value("no-store")),
    ]
}

/// A name by which the port may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpHost(String);

impl FromStr for HttpHost {
    type Err = NotAHost;

    fn from_str(text: &str) -> Result<Self, NotAHost> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        let is_address = bare(text).parse::<IpAddr>().is_ok();
        if is_address || !text.is_empty() && text.chars().all(is_plain) {
            Ok(Self(bare(text).to_ascii_lowercase()))
        } else {
            Err(NotAHost)
        }
    }
}

impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// That is no name of a host, without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no name of a host: write locks.internal, without a port")]
pub struct NotAHost;

/// Decides what is answered.
#[derive(Debug)]
pub(super) struct Guard {
    /// Where the port is.
    address: IpAddr,
    /// Other names that it may be called by.
    hosts: Vec<HttpHost>,
}

/// Why something is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is called by a name that is not its own.
    Misdirected,
    /// More comes behind the headers than may.
    TooLarge,
    /// It says twice what can only be once.
    Ambiguous,
}

impl Refusal {
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Ambiguous => StatusCode::BAD_REQUEST,
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Misdirected => {
                "this is not a name of mine; if it is meant to be, the operator names it in http-host\n"
            }
            Self::TooLarge => {
                "what comes behind the headers has 4 KiB at most, and Content-Length says how much it is\n"
            }
            Self::Ambiguous => "more than one Host\n",
        }
    }
}

impl Guard {
    pub(super) fn new(address: IpAddr, hosts: Vec<HttpHost>) -> Self {
        Self { address, hosts }
    }

    /// Whether what these headers ask for is answered.
    pub(super) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let long = headers.get(CONTENT_LENGTH).is_some_and(|length| {
            let length = length.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            length.is_none_or(|length| length > BODY_BYTES_MAX)
        });
        if long || headers.contains_key(TRANSFER_ENCODING) {
            return Err(Refusal::TooLarge);
        }
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Refusal::Ambiguous);
        }
        if CALLED_ANYHOW.contains(&uri.path()) {
            return Ok(());
        }
        let said = host.and_then(|host| host.to_str().ok());
        // Of a whole address in the request line, that is what counts (RFC 9112, section 3.2.2).
        let said = uri.authority().map(axum::http::uri::Authority::as_str).or(said);
        if said.is_some_and(|host| self.is_ours(host)) { Ok(()) } else { Err(Refusal::Misdirected) }
    }

    /// Whether that is what this port is called.
    fn is_ours(&self, host: &str) -> bool {
        let host = bare(host).to_ascii_lowercase();
        let is_here = match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().is_loopback() || address == self.address,
            Err(_) => host == "localhost",
        };
        is_here || self.hosts.iter().any(|ours| ours.0 == host)
    }
}

/// A host without its port and its brackets.
fn bare(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    match host.rsplit_once(':') {
        // More colons than one are an address of IPv6.
        Some((name, port)) if !name.contains(':') && port.bytes().all(|it| it.is_ascii_digit()) => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let hosts = vec!["Locks.Internal".parse().unwrap()];
        Guard::new("10.0.0.7".parse().unwrap(), hosts)
    }

    fn admit(path: &str, headers: &[(HeaderName, &str)]) -> Result<(), Refusal> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value): (_, HeaderValue)| {
            map.append(name, value);
        });
        guard().admit(&path.parse().unwrap(), &map)
    }

    #[test]
    fn only_our_own_names_are_answered() {
        let ours = [
            "localhost",
            "LOCALHOST:5626",
            "127.0.0.1",
            "127.0.0.2:80",
            "[::1]",
            "[::1]:5626",
            "10.0.0.7:5626",
            "locks.internal",
            "locks.internal:5626",
        ];
        for host in ours {
            assert_eq!(admit("/", &[(HOST, host)]), Ok(()), "{host}");
        }
        let others = [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "10.0.0.8",
            "",
            "0.0.0.0",
            "locks.internal.",
            "[::2]",
            "127.0.0.1@evil.example",
            "evil.example:127",
        ];
        for host in others {
            assert_eq!(admit("/", &[(HOST, host)]), Err(Refusal::Misdirected), "{host}");
        }
        assert_eq!(admit("/", &[]), Err(Refusal::Misdirected));
    }

    #[test]
    fn a_whole_address_in_the_request_line_counts_and_not_the_header_beside_it() {
        let host = [(HOST, "localhost")];
        assert_eq!(admit("http://evil.example/", &host), Err(Refusal::Misdirected));
        assert_eq!(admit("http://localhost/", &[(HOST, "evil.example")]), Ok(()));
    }

    #[test]
    fn probes_may_call_by_any_name_but_not_by_two() {
        for path in CALLED_ANYHOW {
            assert_eq!(admit(path, &[(HOST, "pod-7.example")]), Ok(()), "{path}");
            let two = [(HOST, "localhost"), (HOST, "evil.example")];
            assert_eq!(admit(path, &two), Err(Refusal::Ambiguous), "{path}");
        }
    }

    #[test]
    fn a_body_may_be_as_long_as_allowed_and_not_one_byte_longer() {
        for (length, admitted) in [
            ("0", Ok(())),
            ("4096", Ok(())),
            ("4097", Err(Refusal::TooLarge)),
            ("x", Err(Refusal::TooLarge)),
        ] {
            assert_eq!(admit("/metrics", &[(CONTENT_LENGTH, length)]), admitted, "{length}");
        }
        let chunked = [(TRANSFER_ENCODING, "chunked")];
        assert_eq!(admit("/metrics", &chunked), Err(Refusal::TooLarge));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_without_a_port() {
        for text in ["locks.internal", "10.0.0.7", "::1", "[::1]"] {
            assert!(text.parse::<HttpHost>().is_ok(), "{text}");
        }
        for text in ["", "a b", "http://x", "a/b", "x:80", "é"] {
            assert_eq!(text.parse::<HttpHost>(), Err(NotAHost), "{text}");
        }
    }
}
