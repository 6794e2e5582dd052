//! Small words that many texts share: how long, how many, who.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use coordinator::LockGuard;
use coordinator::types::{LockName, OwnerId, Ttl};
use coordinator::wire::Mode;

use super::visible;

/// A length as people say it: `4m12s`, `31s`, `250ms`. Two units at most, the lesser ones cut.
pub(crate) fn length(length: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let seconds = length.as_secs();
    let Some(at) = UNITS.iter().position(|(size, _)| seconds >= *size) else {
        return match length.as_millis() {
            // Nobody holds a lock for nothing, or waits for it.
            0 => "<1ms".to_owned(),
            ms => format!("{ms}ms"),
        };
    };
    let (size, unit) = UNITS[at];
    let whole = format!("{}{unit}", seconds / size);
    match UNITS.get(at + 1) {
        Some((lesser, name)) if seconds % size / lesser > 0 => {
            format!("{whole}{}{name}", seconds % size / lesser)
        }
        _ => whole,
    }
}

/// A length that the wire counts in milliseconds.
pub(crate) fn millis(ms: u64) -> String {
    length(Duration::from_millis(ms))
}

/// How long until a session ends, if it does.
pub(crate) fn lease_left(ms: u64) -> String {
    if ms == u64::MAX { "no end".to_owned() } else { millis(ms) }
}

/// A length as a setting is written: exact, and read back as the same.
pub(crate) fn setting(length: Duration) -> String {
    humantime::format_duration(length).to_string().replace(' ', "")
}

/// The same for a lease.
pub(crate) fn ttl(ttl: Ttl) -> String {
    setting(ttl.length())
}

/// So many bytes as a setting is written: in the largest unit of which they are a whole number.
pub(crate) fn size(bytes: usize) -> String {
    let unit = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let whole = unit.iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    whole.map_or(bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// `1 lock`, `2 locks`.
pub(crate) fn count(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// `1st`, `2nd`, `3rd`, `11th`.
pub(crate) fn ordinal(number: u64) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// Who someone is, with the machine they speak from: `ci-7 (ann@build7, pid 8123, 10.0.0.7)`.
///
/// Our own machine goes without saying.
pub(crate) fn who(identity: &str, peer: &str) -> String {
    let identity = shown(identity);
    match machine(peer) {
        None => identity.into_owned(),
        Some(ip) => match identity.strip_suffix(')') {
            Some(open) => format!("{open}, {ip})"),
            None => format!("{identity} ({ip})"),
        },
    }
}

/// The user whose process this is; by number where there is no name for it, as in many containers.
pub(crate) fn user() -> String {
    let number = || format!("uid{}", rustix::process::getuid().as_raw());
    whoami::username().unwrap_or_else(|_| number())
}

/// The part of an identity that names its owner: `ci-7` of `ci-7 (ann@build7, pid 8123)`.
pub(crate) fn who_in_short(identity: &str) -> Cow<'_, str> {
    match shown(identity) {
        Cow::Borrowed(plain) => plain.split(" (").next().unwrap_or(plain).into(),
        quoted @ Cow::Owned(_) => quoted,
    }
}

/// What someone calls themselves, as far as they do.
fn shown(identity: &str) -> Cow<'_, str> {
    if identity.is_empty() { "someone".into() } else { visible::identity(identity) }
}

/// The address in `peer`, unless it is this machine's own or none at all.
fn machine(peer: &str) -> Option<IpAddr> {
    let ip = peer.parse::<SocketAddr>().ok()?.ip();
    (!ip.is_loopback()).then_some(ip)
}

/// Names of locks: `"deploy", "migrations"`.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted = names.into_iter().map(visible::quoted);
    quoted.collect::<Vec<_>>().join(", ")
}

/// The names of the locks that are held by `guard`.
pub(crate) fn locks_of(guard: &LockGuard) -> String {
    names(guard.names().iter().map(LockName::as_str))
}

/// The owner within its session, where there is one.
pub(crate) fn owner(owner: OwnerId) -> String {
    if owner == OwnerId::NONE { String::new() } else { owner.to_string() }
}

/// The mode, where it has to be said: nothing for an exclusive lock.
pub(crate) fn mode(mode: Mode) -> Option<String> {
    match mode {
        Mode::Exclusive => None,
        Mode::Shared => Some("shared".to_owned()),
        Mode::Permits { take, of } => Some(format!("{take} of {of} permits")),
    }
}

/// `a semaphore of 3`: what a lock is in use as by who has it in this mode.
pub(crate) fn used_as(mode: Mode) -> String {
    match mode {
        Mode::Exclusive | Mode::Shared => "a plain lock".to_owned(),
        Mode::Permits { of, .. } => format!("a semaphore of {of}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_has_two_units_at_most() {
        let said = |ms| millis(ms);
        assert_eq!(said(0), "<1ms");
        assert_eq!(length(Duration::from_micros(999)), "<1ms");
        assert_eq!(said(1), "1ms");
        assert_eq!(said(999), "999ms");
        assert_eq!(said(31_400), "31s");
        assert_eq!(said(60_000), "1m");
        assert_eq!(said(252_000), "4m12s");
        assert_eq!(said(3_605_000), "1h");
        assert_eq!(said(3_900_000), "1h5m");
        assert_eq!(said(90_000_000), "1d1h");
    }

    #[test]
    fn a_setting_is_read_back_as_it_was() {
        for ms in [1, 500, 1_500, 10_000, 90_000, 3_600_000] {
            let length = Duration::from_millis(ms);
            assert_eq!(humantime::parse_duration(&setting(length)).unwrap(), length);
        }
    }

    #[test]
    fn places_are_counted_as_people_do() {
        let said: Vec<String> = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111].map(ordinal).into();
        assert_eq!(
            said,
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"]
        );
    }

    #[test]
    fn the_other_machine_is_named_and_our_own_is_not() {
        assert_eq!(who("ci-7 (ann@b7, pid 8)", "10.0.0.7:99"), "ci-7 (ann@b7, pid 8, 10.0.0.7)");
        assert_eq!(who("ann@b7:8", "10.0.0.7:99"), "ann@b7:8 (10.0.0.7)");
        assert_eq!(who("ann@b7:8", "127.0.0.1:99"), "ann@b7:8");
        assert_eq!(who("", "[2001:db8::1]:99"), "someone (2001:db8::1)");
        assert_eq!(who_in_short("ci-7 (ann@b7, pid 8)"), "ci-7");
        assert_eq!(who_in_short("ann@b7:8"), "ann@b7:8");
    }

    #[test]
    fn who_claims_another_machine_is_quoted_and_the_true_one_stands_outside() {
        let forged = "ann@b7 (x, pid 8, 10.0.0.7)";
        assert_eq!(who(forged, "10.0.0.9:99"), format!("\"{forged}\" (10.0.0.9)"));
        assert_eq!(who(forged, "127.0.0.1:99"), format!("\"{forged}\""));
        assert_eq!(who_in_short("ann for 3m (x)"), "\"ann for 3m (x)\"");
        assert_eq!(who("eve\u{202e}", ""), "\"eve\\u{202e}\"");
    }
}
