//! The addresses of a coordinator.

use std::fmt;
use std::sync::Arc;

use super::error::Error;

/// The port on which coordinators listen for lock clients: L-O-C-K on a keypad.
pub const PORT_DEFAULT: u16 = 5625;
/// More servers than this are not tried.
pub const SERVERS_MAX: usize = 16;

/// One server, or several that are tried in this order: each a `host:port`, or a host for the port
/// 5625. In a text they are separated by commas.
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
    /// Each with its port.
    all: Arc<[Arc<str>]>,
    /// All of them, for people.
    name: Arc<str>,
}

impl Servers {
    fn new<Text: AsRef<str>>(texts: impl IntoIterator<Item = Text>) -> Self {
        let mut all: Vec<Arc<str>> = Vec::new();
        for text in texts {
            let named = text.as_ref().split(',').map(str::trim).filter(|server| !server.is_empty());
            all.extend(named.map(|server| Arc::from(with_port(server))));
        }
        let name = all.join(",").into();
        Self { all: all.into(), name }
    }

    /// How they are called in errors.
    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// One of them.
    pub(super) fn server(&self, number: usize) -> Option<&Arc<str>> {
        self.all.get(number)
    }

    /// The same, if there is any, and not too many.
    pub(super) fn checked(self) -> Result<Self, Error> {
        match self.len() {
            0 => Err(Error::invalid("no server is named", "pass HOST:PORT of the coordinator")),
            1..=SERVERS_MAX => Ok(self),
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
    fn there_is_a_server_and_there_are_not_too_many() {
        assert!(matches!(Servers::from(" ,").checked(), Err(Error::InvalidRequest { .. })));
        let many = |count| Servers::from(vec!["a"; count]).checked();
        assert!(many(SERVERS_MAX).is_ok());
        assert!(matches!(many(SERVERS_MAX + 1), Err(Error::InvalidRequest { .. })));
    }
}
