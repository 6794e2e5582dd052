//! How each kind of setting is written, whether as a flag, in the environment or in the file.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::client::SERVERS_MAX;
use coordinator::http::{HttpHost, NotAHost};
use coordinator::journal::Distance;
use coordinator::server::MESSAGES_PER_SECOND_MIN;
use coordinator::tls::ClientAuth;
use coordinator::types::{Identity, Ttl};

/// The port of locks: L-O-C-K on a telephone's keypad.
pub(crate) const PORT_DEFAULT: u16 = 5625;

/// What can be set, and therefore read from text.
pub(crate) trait Value: Sized {
    /// Reads the value. The error completes "`ttl` is "5x": …".
    fn parse(text: &str) -> Result<Self, String>;
}

/// The coordinator's address for a client: a host and a port, resolved when connecting. Several of
/// them, with commas between, are tried in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerAddress(pub(crate) String);

/// What becomes of the command when its lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLost {
    /// It is stopped before the lock can be another's.
    Kill,
    /// It goes on, and its user is told.
    Warn,
}

/// What stands before a server that is reached by TLS.
const SECURE_SCHEME: &str = "tls://";

/// The name of a host, as a certificate has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl Value for HostName {
    fn parse(text: &str) -> Result<Self, String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if text.is_empty() || !text.chars().all(is_name) {
            return Err("not the name of a host; expected locks.internal or an address".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand(pub(crate) ClientAuth);

impl Value for Demand {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self(ClientAuth::Required)),
            "optional" => Ok(Self(ClientAuth::Optional)),
            _ => Err("expected required or optional".to_owned()),
        }
    }
}

impl Value for ServerAddress {
    fn parse(text: &str) -> Result<Self, String> {
        let is_other =
            |text: &&str| text.contains("://") && !text.trim().starts_with(SECURE_SCHEME);
        if let Some((_, rest)) = text.split(',').find(is_other).and_then(|it| it.split_once("://"))
        {
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            return Err(format!("a URL, not an address; write {host}, or with TLS tls://{host}"));
        }
        let servers: Vec<&str> = text.split(',').map(str::trim).collect();
        if servers.len() > SERVERS_MAX {
            return Err(format!("{} servers; at most {SERVERS_MAX} are allowed", servers.len()));
        }
        let one = |text: &str| match text.strip_prefix(SECURE_SCHEME) {
            Some(text) => Some(format!("{SECURE_SCHEME}{}", server(text.trim_end_matches('/'))?)),
            None => server(text),
        };
        let whole: Option<Vec<String>> = servers.into_iter().map(one).collect();
        let wrong = "not an address; expected HOST:PORT, or several separated by commas";
        whole.map(|servers| Self(servers.join(","))).ok_or_else(|| wrong.to_owned())
    }
}

/// A server with its port, if it is one.
fn server(text: &str) -> Option<String> {
    match text.rsplit_once(':') {
        _ if text.is_empty() || text.contains(char::is_whitespace) => None,
        // An IPv6 address without its port: colons, and no bracket before the last of them.
        Some((host, _)) if host.contains(':') && !host.ends_with(']') => {
            let is_bracketed = text.starts_with('[');
            let address = if is_bracketed { text.to_owned() } else { format!("[{text}]") };
            Some(format!("{address}:{PORT_DEFAULT}"))
        }
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Some(text.to_owned())
        }
        Some(_) => None,
        None => Some(format!("{text}:{PORT_DEFAULT}")),
    }
}

impl Value for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        let numeric = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}"),
            None => text.to_owned(),
        };
        let meant = || "not an address to listen on; expected ADDRESS:PORT, such as 0.0.0.0:5625";
        numeric.parse().map_err(|_| meant().to_owned())
    }
}

impl Value for Duration {
    fn parse(text: &str) -> Result<Self, String> {
        duration(text).ok_or_else(|| {
            let why = if is_in_months(text) {
                "M means months; for minutes write 5m"
            } else {
                "not a duration; expected 10s, 5m or 1h30m"
            };
            why.to_owned()
        })
    }
}

impl Value for Ttl {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(<Duration as Value>::parse(text)?)
            .map_err(|_| "a lease lasts from 2s to 1h".to_owned())
    }
}

/// The longest lease that a coordinator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TtlMax(pub(crate) Ttl);

impl Value for TtlMax {
    fn parse(text: &str) -> Result<Self, String> {
        // Who asks for no ttl has the default, so that much is always allowed.
        match Ttl::new(<Duration as Value>::parse(text)?) {
            Ok(ttl) if ttl >= Ttl::default() => Ok(Self(ttl)),
            Ok(_) | Err(_) => Err("must be between 10s and 1h".to_owned()),
        }
    }
}

/// How far events are written down before anything is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalDistance(pub(crate) Option<Distance>);

impl Value for JournalDistance {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self(None)),
            "process" => Ok(Self(Some(Distance::Process))),
            "machine" => Ok(Self(Some(Distance::Machine))),
            _ => Err("expected off, process or machine".to_owned()),
        }
    }
}

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        }
    }
}

impl Value for usize {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("must be at least 1".to_owned()),
            Ok(number) => Ok(number),
            Err(_) => Err("not a number".to_owned()),
        }
    }
}

/// So many threads; there may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Threads(pub(crate) usize);

/// More threads than processors help nobody.
const THREADS_MAX: usize = 256;

impl Value for Threads {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count) if count <= THREADS_MAX => Ok(Self(count)),
            Ok(_) => Err(format!("must be at most {THREADS_MAX}")),
            Err(_) => Err("not a number".to_owned()),
        }
    }
}

/// A number of messages a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageRate(pub(crate) NonZeroU32);

impl Value for MessageRate {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rate) if rate >= MESSAGES_PER_SECOND_MIN => Ok(Self(rate)),
            Ok(_) => Err(format!("must be at least {MESSAGES_PER_SECOND_MIN}")),
            Err(_) => Err("not a number".to_owned()),
        }
    }
}

/// Names by which the HTTP port may be called, besides its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostNames(pub(crate) Vec<HttpHost>);

impl Value for HostNames {
    fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|_| !text.is_empty());
        let names: Result<_, _> = names.map(str::parse).collect();
        names.map(Self).map_err(|wrong: NotAHost| format!("which is {wrong}"))
    }
}

/// So many looks in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looks(pub(crate) u32);

/// More in a second are no limit: they take most of the coordinator's time.
const LOOKS_MAX: u32 = 10_000;

impl Value for Looks {
    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(looks) if (1..=LOOKS_MAX).contains(&looks) => Ok(Self(looks)),
            Ok(_) => Err(format!("and must be between 1 and {LOOKS_MAX}")),
            Err(_) => Err("which is no number".to_owned()),
        }
    }
}

/// So many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// What one turn may have for one connection has to fit twice.
const SIZE_MIN: usize = 32 << 20;

impl Value for Size {
    fn parse(text: &str) -> Result<Self, String> {
        match size(text) {
            Some(bytes) if bytes >= SIZE_MIN => Ok(Self(bytes)),
            Some(_) => Err("must be at least 32MiB".to_owned()),
            None => Err("not a size; expected 64MiB or 1GiB".to_owned()),
        }
    }
}

impl Value for OnLost {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "kill" => Ok(Self::Kill),
            "warn" => Ok(Self::Warn),
            _ => Err("expected kill or warn".to_owned()),
        }
    }
}

impl Value for Identity {
    fn parse(text: &str) -> Result<Self, String> {
        Self::new(text).map_err(|error| error.to_string())
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        // Those with a home to put there were expanded before.
        if text == "~" || text.starts_with("~/") {
            return Err("HOME is not set".to_owned());
        }
        Ok(Self::from(text))
    }
}

/// Nothing was set: the setting is off.
impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::parse(text).map(Some) }
    }
}

/// A length of time: `10s`, `5m`, `1h30m`, `250ms`; a plain number, whole or not, is seconds.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        return Duration::try_from_secs_f64(text.parse().ok()?).ok();
    }
    if is_in_months(text) {
        return None;
    }
    humantime::parse_duration(text).ok()
}

/// A number of bytes: `64MiB`, `1GiB`, `65536KiB`; a plain number is bytes.
fn size(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Whether something is counted by `M`, which is a month to some and a minute to others.
pub(crate) fn is_in_months(text: &str) -> bool {
    text.split(|c: char| c.is_ascii_digit() || c.is_whitespace()).any(|unit| unit == "M")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_a_binary_unit_and_a_least_value() {
        assert_eq!(Size::parse("32MiB"), Ok(Size(32 << 20)));
        assert_eq!(Size::parse("2GiB"), Ok(Size(2 << 30)));
        assert_eq!(Size::parse("65536KiB"), Ok(Size(64 << 20)));
        assert_eq!(Size::parse("33554432"), Ok(Size(32 << 20)));
        assert_eq!(Size::parse("33554431"), Err("must be at least 32MiB".to_owned()));
        for bad in ["", "MiB", "64MB", "64M", "64 MiB", "-1GiB", "1.5GiB", "99999999999GiB"] {
            let told = Size::parse(bad).unwrap_err();
            assert_eq!(told, "not a size; expected 64MiB or 1GiB", "{bad:?}");
        }
    }

    #[test]
    fn a_plain_number_is_seconds() {
        assert_eq!(duration("5"), Some(Duration::from_secs(5)));
        assert_eq!(duration("0.25"), Some(Duration::from_millis(250)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
    }

    #[test]
    fn a_length_may_have_several_units() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1m 30s"), Some(Duration::from_secs(90)));
    }

    #[test]
    fn what_is_no_length_is_refused() {
        for text in
            ["", "soon", "-5", "5 parsecs", "1..5", ".", "1e3", "inf", "NaN", "s", "5M", "1h 5 M"]
        {
            assert_eq!(duration(text), None, "{text:?}");
        }
        assert_eq!(duration("99999999999999999999999"), None);
    }

    #[test]
    fn the_longest_ttl_is_between_the_default_of_10_seconds_and_an_hour() {
        for (text, is_one) in [("9999ms", false), ("10s", true), ("1h", true), ("3601s", false)] {
            assert_eq!(TtlMax::parse(text).is_ok(), is_one, "{text}");
        }
    }

    #[test]
    fn a_server_without_a_port_has_the_usual_one() {
        let parse = |text| ServerAddress::parse(text).map(|address| address.0);
        assert_eq!(parse("locks:99").unwrap(), "locks:99");
        assert_eq!(parse("locks").unwrap(), "locks:5625");
        assert_eq!(parse("[::1]:99").unwrap(), "[::1]:99");
        assert_eq!(parse("[::1]").unwrap(), "[::1]:5625");
        assert_eq!(parse("::1").unwrap(), "[::1]:5625");
        for bad in ["", ":5625", "locks:", "locks:http", "locks:70000", "a b:1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_others_take_for_a_server_is_told_apart() {
        let refused = |text| ServerAddress::parse(text).unwrap_err();
        assert!(refused("http://host:1/x").ends_with("; write host:1, or with TLS tls://host:1"));
    }

    #[test]
    fn a_month_is_not_taken_for_a_minute() {
        assert!(<Duration as Value>::parse("5M").unwrap_err().contains("for minutes write 5m"));
        assert_eq!(duration("5m"), Some(Duration::from_secs(300)));
    }

    #[test]
    fn several_servers_have_commas_between_and_each_its_port() {
        let parse = |text| ServerAddress::parse(text).map(|address| address.0);
        assert_eq!(parse("a:1,b, ::1").unwrap(), "a:1,b:5625,[::1]:5625");
        for bad in ["a:1,", ",", "a:1,,b:1", "a:1,b:http", "a:1 b:1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(
            parse("tls://a, tls://[::1]:1/,b").unwrap(),
            "tls://a:5625,tls://[::1]:1,b:5625"
        );
        let many = |count| ServerAddress::parse(&vec!["a"; count].join(","));
        assert!(many(SERVERS_MAX).is_ok());
        assert!(many(SERVERS_MAX + 1).unwrap_err().starts_with("17 servers"));
    }

    #[test]
    fn the_words_for_yes_and_no_are_few() {
        assert_eq!(bool::parse("yes"), Ok(true));
        assert_eq!(bool::parse("0"), Ok(false));
        assert!(bool::parse("maybe").is_err());
    }
}
