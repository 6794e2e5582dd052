//! The addresses of a coordinator.

use std::fmt;
use std::sync::Arc;

use super::error::Error;
#[cfg(feature = "tls")]
use crate::tls::TlsOptions;
use crate::types::{Credential, ServerAddress};

/// The port on which coordinators listen for lock clients: L-O-C-K on a keypad.
pub const PORT_DEFAULT: u16 = 5625;
/// More servers than this are not tried.
pub const SERVERS_MAX: usize = 16;

/// One server, or several that are tried in this order: each a `host:port`, or a host for the port
/// 5625. In a text they are separated by commas. The connection to `tls://host:port` is encrypted, and the
/// server has to prove that it is that host (feature `tls`).
///
/// Several are for one coordinator that can be reached, or run, at one of several places. Coordinators
/// of different state are different services: who asks the one does not exclude those who ask the other.
///
/// # Examples
///
/// ```
/// use coordinator::Servers;
///
/// let servers = Servers::from("a.internal,b.internal:7000");
/// assert_eq!(servers.to_string(), "a.internal:5625,b.internal:7000");
/// assert_eq!(servers, Servers::from(["a.internal", "b.internal:7000"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// In their order.
    all: Arc<[Server]>,
    /// All of them, for people.
    name: Arc<str>,
    /// Whom those are trusted by that are reached by TLS.
    #[cfg(feature = "tls")]
    tls: TlsOptions,
    /// What proves to them who this is.
    credential: Option<Credential>,
    /// Whether that may be sent to other machines without TLS.
    may_be_read: bool,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Host and port.
    pub(super) address: String,
    /// Whether it is reached by TLS.
    pub(super) is_secure: bool,
}

/// What stands before a server that is reached by TLS.
const SECURE_SCHEME: &str = "tls://";

impl Servers {
    fn new<Text: AsRef<str>>(texts: impl IntoIterator<Item = Text>) -> Self {
        let mut all: Vec<Server> = Vec::new();
        for text in texts {
            let named = text.as_ref().split(',').map(str::trim).filter(|server| !server.is_empty());
            all.extend(named.map(Server::new));
        }
        let names: Vec<String> = all.iter().map(ToString::to_string).collect();
        Self {
            all: all.into(),
            name: names.join(",").into(),
            #[cfg(feature = "tls")]
            tls: TlsOptions::new(),
            credential: None,
            may_be_read: false,
        }
    }

    /// The same, with whom to trust, and what to show, where a connection is encrypted.
    ///
    /// # Examples
    ///
    /// ```
    /// use coordinator::{Servers, TlsOptions};
    ///
    /// let tls = TlsOptions::new().server_ca("/etc/coordinator/ca.pem");
    /// let servers = Servers::from("tls://a.internal,tls://b.internal").tls(tls);
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: TlsOptions) -> Self {
        Self { tls, ..self }
    }

    /// Whom to trust, and what to show.
    #[cfg(feature = "tls")]
    pub(super) fn tls_options(&self) -> &TlsOptions {
        &self.tls
    }

    /// The same, with the credential that proves who this is, where the coordinator has an access file. It is
    /// shown over TLS, and to this machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use coordinator::{Credential, Servers};
    ///
    /// # fn example(secret: &str) -> Result<Servers, coordinator::types::CredentialError> {
    /// let servers = Servers::from("tls://locks.internal").credential(secret.parse()?);
    /// # Ok(servers) }
    /// ```
    #[must_use]
    pub fn credential(self, credential: Credential) -> Self {
        Self { credential: Some(credential), ..self }
    }

    /// The same, which shows its credential to other machines without TLS, too: whoever is in between can
    /// read it, and use it.
    #[must_use]
    pub fn credential_in_clear(self) -> Self {
        Self { may_be_read: true, ..self }
    }

    /// The credential to show.
    pub(super) fn shown_credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// Whether there is one that nobody in between may read.
    pub(super) fn keeps_credential_secret(&self) -> bool {
        self.credential.is_some() && !self.may_be_read
    }

    /// How they are called in errors.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// One that another server names, reached as they are.
    pub(super) fn another(&self, address: &ServerAddress) -> Server {
        let is_secure = self.all.first().is_some_and(|server| server.is_secure);
        Server { address: address.to_string(), is_secure }
    }

    /// The place of one among them.
    pub(super) fn place_of(&self, server: &Server) -> Option<usize> {
        self.all.iter().position(|known| known == server)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// One of them.
    pub(super) fn server(&self, number: usize) -> Option<&Server> {
        self.all.get(number)
    }

    /// Whether some are reached by TLS, and some are not.
    fn is_mixed(&self) -> bool {
        let is_secure = self.all.first().is_some_and(|server| server.is_secure);
        self.all.iter().any(|server| server.is_secure != is_secure)
    }

    /// The same, if there is any, and not too many.
    pub(super) fn checked(self) -> Result<Self, Error> {
        match self.len() {
            0 => Err(Error::invalid("no server is named", "pass HOST:PORT of the coordinator")),
            _ if self.is_mixed() => {
                let why = "with tls:// before some, secrets would reach the others in clear";
                Err(Error::invalid("servers with and without TLS", why))
            }
            1..=SERVERS_MAX => match self.all.iter().find(|server| !server.can_be_reached()) {
                None => Ok(self),
                Some(server) => {
                    let why = "this client was built without TLS (feature tls)";
                    Err(Error::invalid(&format!("{server} cannot be reached"), why))
                }
            },
            count => {
                let why = format!("{count} are named; at most {SERVERS_MAX} are allowed");
                Err(Error::invalid("too many servers", why))
            }
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// From whatever is one text.
macro_rules! from_text {
    ($($text:ty),+) => {$(
        impl From<$text> for Servers {
            fn from(text: $text) -> Self {
                Self::new([text])
            }
        }
    )+};
}

from_text!(&str, String, &String, Arc<str>, &Arc<str>);

impl<Text: AsRef<str>, const N: usize> From<[Text; N]> for Servers {
    fn from(texts: [Text; N]) -> Self {
        Self::new(texts)
    }
}

impl<Text: AsRef<str>> From<&[Text]> for Servers {
    fn from(texts: &[Text]) -> Self {
        Self::new(texts)
    }
}

impl<Text: AsRef<str>> From<Vec<Text>> for Servers {
    fn from(texts: Vec<Text>) -> Self {
        Self::new(texts)
    }
}

impl<Text: AsRef<str>> From<&Vec<Text>> for Servers {
    fn from(texts: &Vec<Text>) -> Self {
        Self::new(texts)
    }
}

impl From<&Self> for Servers {
    fn from(servers: &Self) -> Self {
        servers.clone()
    }
}

impl Server {
    fn new(text: &str) -> Self {
        let bare = text.strip_prefix(SECURE_SCHEME);
        let is_secure = bare.is_some();
        // A path's slash, as people end an address of the web.
        let bare = bare.map_or(text, |bare| bare.trim_end_matches('/'));
        Self { address: with_port(bare), is_secure }
    }

    fn can_be_reached(&self) -> bool {
        cfg!(feature = "tls") || !self.is_secure
    }

    /// The host alone, whose name a certificate has to have.
    #[cfg(feature = "tls")]
    pub(super) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_secure { SECURE_SCHEME } else { "" }, self.address)
    }
}

/// `server` with a port: an address of its own, or a host with or without one.
fn with_port(server: &str) -> String {
    let bare_v6 = server.parse::<std::net::Ipv6Addr>().is_ok();
    if bare_v6 {
        format!("[{server}]:{PORT_DEFAULT}")
    } else if server.ends_with(']') || !server.contains(':') {
        format!("{server}:{PORT_DEFAULT}")
    } else {
        server.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_port_has_the_usual_one() {
        assert_eq!(with_port("locks"), "locks:5625");
        assert_eq!(with_port("locks:1"), "locks:1");
        assert_eq!(with_port("::1"), "[::1]:5625");
        assert_eq!(with_port("[::1]"), "[::1]:5625");
        assert_eq!(with_port("[::1]:1"), "[::1]:1");
        assert_eq!(with_port("10.0.0.1"), "10.0.0.1:5625");
    }

    #[test]
    fn servers_are_a_text_with_commas_or_a_list_of_texts() {
        let expected = Servers::from("a:1,b:5625,[::1]:5625");
        assert_eq!(expected.len(), 3);
        assert_eq!(Servers::from(["a:1", "b", "::1"]), expected);
        assert_eq!(Servers::from(vec!["a:1, b".to_owned(), "::1,".to_owned()]), expected);
        assert_eq!(Servers::from(&expected), expected);
        assert_eq!(expected.to_string(), "a:1,b:5625,[::1]:5625");
    }

    #[test]
    fn a_server_of_tls_is_one_with_its_scheme() {
        let servers = Servers::from("tls://a, b,tls://[::1]:1,tls://c:2/");
        assert_eq!(servers.to_string(), "tls://a:5625,b:5625,tls://[::1]:1,tls://c:2");
        assert_eq!(Servers::from(servers.to_string()), servers);
        assert!(servers.checked().is_err(), "a session's secret would go to b in clear");
        assert_eq!(Servers::from("tls://a,tls://b").checked().is_ok(), cfg!(feature = "tls"));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_certificate_is_for_the_host_without_its_port() {
        let servers = Servers::from("tls://a.internal:7,tls://[::1]:1,tls://::1,tls://10.0.0.1");
        let hosts: Vec<&str> = servers.all.iter().map(Server::host).collect();
        assert_eq!(hosts, ["a.internal", "::1", "::1", "10.0.0.1"]);
    }

    #[test]
    fn there_is_a_server_and_there_are_not_too_many() {
        assert!(matches!(Servers::from(" ,").checked(), Err(Error::InvalidRequest { .. })));
        let many = |count| Servers::from(vec!["a"; count]).checked();
        assert!(many(SERVERS_MAX).is_ok());
        assert!(matches!(many(SERVERS_MAX + 1), Err(Error::InvalidRequest { .. })));
    }
}
