//! Rate limiting of the log: how much of it one peer can fill.
//!
//! A line of the log costs us some hundred bytes, and its cause may cost a peer four. So an address
//! may cause some lines of each [`Topic`] in an interval, more than an honest one does. Further
//! ones are counted, and told in one line when the interval is over: `2990 more protocol errors
//! like these from 10.0.0.9 in the last 10 s`.
//!
//! The memory for it is bounded. An address counts by its network where addresses are for the
//! taking (IPv6: 64 bits). Those beyond [`PLACES_MAX`] share the allowance of *elsewhere*.
//!
//! Lines of debug and trace are not limited: their readers want all of them.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use log::{Level, log, log_enabled};
use tokio::time::Instant;

/// How long lines are counted before it is told how many were left out.
const INTERVAL: Duration = Duration::from_secs(10);
/// Lines of one topic that one address may cause in an interval.
const LINES_PER_PLACE_MAX: u32 = 10;
/// The same for sessions: many short commands on one machine are nothing unusual.
const SESSION_LINES_PER_PLACE_MAX: u32 = 200;
/// The same for grants and their ends. Many short jobs on one machine, or behind one gateway, are
/// nothing unusual, and somebody may want to know of each.
const GRANT_LINES_PER_PLACE_MAX: u32 = 1000;
/// The same for each kind of entries of the audit log that strangers can cause.
const AUDITED_PER_PLACE_MAX: u32 = 100;
/// So many times as much is for all those together of whom no address is known, or no place is left.
const ELSEWHERE: u32 = 5;
/// Addresses and topics that are counted apart in an interval.
const PLACES_MAX: usize = 1024;
/// Addresses that are named when an interval is over; the rest is told in a sum.
const NAMED_MAX: usize = 8;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Topic {
    /// A peer broke the protocol.
    ProtocolError,
    /// A peer was one too many.
    Refusal,
    /// More handshakes are under way with an address than may be.
    Crowd,
    /// Connections cannot be accepted, mostly for want of file descriptors, which peers can use up.
    NotAccepted,
    /// A peer does not read.
    SlowReader,
    /// An address sends more than it may.
    TooFast,
    /// A request would never have been granted.
    Deadlock,
    /// A reclaim with a proof that is none.
    WrongSeal,
    /// A session was lost, or came back after a crash; or any began or ended, at debug.
    Session,
    /// Somebody was granted something, or holds it no more.
    Grant,
    /// Somebody wants a lock taken away. What was done is always told: it has cost a grant and a record.
    Revoke,
    /// A principal was told that it may not.
    Denial,
    /// The same, in the audit log.
    AuditedDenial,
    /// A connection was refused, in the audit log.
    AuditedRefusal,
}

impl Topic {
    /// The level of its lines.
    fn level(self) -> Level {
        match self {
            Self::ProtocolError
            | Self::Refusal
            | Self::Crowd
            | Self::NotAccepted
            | Self::SlowReader
            | Self::TooFast
            | Self::Deadlock
            | Self::Denial
            | Self::AuditedDenial
            | Self::AuditedRefusal
            | Self::WrongSeal => Level::Warn,
            Self::Session | Self::Grant | Self::Revoke => Level::Info,
        }
    }

    /// Lines that one place may cause in an interval.
    fn lines_max(self, place: Place) -> u32 {
        let of_one = match self {
            Self::Session => SESSION_LINES_PER_PLACE_MAX,
            Self::AuditedDenial | Self::AuditedRefusal => AUDITED_PER_PLACE_MAX,
            Self::Grant => GRANT_LINES_PER_PLACE_MAX,
            Self::ProtocolError
            | Self::Refusal
            | Self::Crowd
            | Self::NotAccepted
            | Self::SlowReader
            | Self::TooFast
            | Self::Deadlock
            | Self::WrongSeal
            | Self::Denial
            | Self::Revoke => LINES_PER_PLACE_MAX,
        };
        match place {
            Place::Network(_) => of_one,
            Place::Elsewhere => of_one * ELSEWHERE,
        }
    }

    /// What there were more of.
    fn name(self) -> &'static str {
        match self {
            Self::ProtocolError => "protocol errors",
            Self::Refusal => "refused connections",
            Self::Crowd => "handshakes that waited",
            Self::NotAccepted => "failures to accept",
            Self::SlowReader => "slow readers",
            Self::TooFast => "pauses in reading",
            Self::Deadlock => "refused deadlocks",
            Self::WrongSeal => "reclaims with a wrong seal",
            Self::Session => "lines about sessions",
            Self::Grant => "lines about grants",
            Self::Revoke => "attempts to revoke",
            Self::Denial | Self::AuditedDenial => "denials",
            Self::AuditedRefusal => "refusals",
        }
    }
}

/// Where lines come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Place {
    /// From this address, or from this network of IPv6.
    Network(IpAddr),
    /// From an address that is not known, or not remembered.
    Elsewhere,
}

impl Place {
    fn of(peer: Option<SocketAddr>) -> Self {
        match peer.map(|peer| peer.ip().to_canonical()) {
            None => Self::Elsewhere,
            Some(ip @ IpAddr::V4(_)) => Self::Network(ip),
            Some(IpAddr::V6(ip)) => {
                let network = ip.to_bits() >> 64 << 64;
                // Its only address, and nobody's network.
                let network = if ip.is_loopback() { ip.to_bits() } else { network };
                Self::Network(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(ip) => ip.fmt(f),
            Self::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

/// Counts the lines that peers cause, and says which may be written.
#[derive(Debug, Default)]
pub(super) struct Chatter {
    /// Locked for a few steps, and for those of the sum once an interval.
    present: Mutex<Option<Interval>>,
}

/// The lines of an interval.
#[derive(Debug)]
struct Interval {
    /// When it began.
    began: Instant,
    /// How many lines each place has caused, of each topic.
    lines: HashMap<(Topic, Place), u32>,
}

/// Lines that were left out.
#[derive(Debug, PartialEq, Eq)]
struct LeftOut {
    /// How many.
    count: u64,
    /// Their topic; none: several.
    topic: Option<Topic>,
    /// Where they came from; none: here and there.
    place: Option<Place>,
    /// In how long.
    within: Duration,
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, topic, place, within } = self;
        let what = topic.map_or("lines", Topic::name);
        write!(f, "{count} more {what} like these from ")?;
        match place {
            Some(place) => write!(f, "{place}")?,
            None => f.write_str("other addresses")?,
        }
        write!(f, " in the last {} s", within.as_secs().max(1))
    }
}

impl Chatter {
    /// Whether a line about `topic` that `peer` caused may be written; it is, if this says so.
    pub(super) fn admits(&self, topic: Topic, peer: Option<SocketAddr>) -> bool {
        if !log_enabled!(topic.level()) {
            return false;
        }
        self.look();
        self.counts(topic, peer)
    }

    /// Counts a line of another log, and says whether it may be written there.
    pub(super) fn counts(&self, topic: Topic, peer: Option<SocketAddr>) -> bool {
        let mut present = self.present();
        let now = Instant::now();
        let interval =
            present.get_or_insert_with(|| Interval { began: now, lines: HashMap::new() });
        interval.admits(topic, Place::of(peer))
    }

    /// What was left out of another log, in words, if the interval is over.
    pub(super) fn take_left_out(&self) -> Vec<String> {
        let left_out = self.take_over(INTERVAL).into_iter();
        left_out.map(|left_out| left_out.to_string()).collect()
    }

    /// The same so far: nothing comes any more.
    #[cfg(feature = "access")]
    pub(super) fn take_rest(&self) -> Vec<String> {
        let left_out = self.take_over(Duration::ZERO).into_iter();
        left_out.map(|left_out| left_out.to_string()).collect()
    }

    /// Tells what was left out, if the interval is over.
    pub(super) fn look(&self) {
        self.end_interval(INTERVAL);
    }

    /// Tells what was left out so far.
    pub(super) fn tell_rest(&self) {
        self.end_interval(Duration::ZERO);
    }

    /// Ends the interval if it has lasted so long.
    fn end_interval(&self, at_least: Duration) {
        for left_out in self.take_over(at_least) {
            log!(left_out.topic.map_or(Level::Warn, Topic::level), "{left_out}");
        }
    }

    fn take_over(&self, at_least: Duration) -> Vec<LeftOut> {
        let is_over = |interval: &mut Interval| interval.began.elapsed() >= at_least;
        let over = self.present().take_if(is_over);
        over.map(Interval::end).unwrap_or_default()
    }

    fn present(&self) -> MutexGuard<'_, Option<Interval>> {
        // Nobody panics while it is locked.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interval {
    /// Counts a line; says whether it may be written.
    fn admits(&mut self, topic: Topic, place: Place) -> bool {
        let is_known = self.lines.contains_key(&(topic, place));
        let place =
            if is_known || self.lines.len() < PLACES_MAX { place } else { Place::Elsewhere };
        let lines = self.lines.entry((topic, place)).or_default();
        *lines = lines.saturating_add(1);
        *lines <= topic.lines_max(place)
    }

    /// What was left out, the most first.
    fn end(self) -> Vec<LeftOut> {
        let within = self.began.elapsed();
        let left_out = |((topic, place), lines): ((Topic, Place), u32)| {
            let count = u64::from(lines.saturating_sub(topic.lines_max(place)));
            LeftOut { count, topic: Some(topic), place: Some(place), within }
        };
        let mut all: Vec<LeftOut> = self.lines.into_iter().map(left_out).collect();
        all.retain(|it| it.count > 0);
        all.sort_unstable_by_key(|it| (u64::MAX - it.count, it.topic, it.place));
        let rest = all.iter().skip(NAMED_MAX).map(|it| it.count).sum();
        all.truncate(NAMED_MAX);
        if rest > 0 {
            all.push(LeftOut { count: rest, topic: None, place: None, within });
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval() -> Interval {
        Interval { began: Instant::now(), lines: HashMap::new() }
    }

    fn peer(text: &str) -> Place {
        Place::of(Some(text.parse().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_breaks_the_protocol_again_and_again_gets_ten_lines_and_a_sum() {
        let mut interval = interval();
        let attacker = peer("10.0.0.9:1");
        let written = (0..3000).filter(|_| interval.admits(Topic::ProtocolError, attacker)).count();
        assert_eq!(written, LINES_PER_PLACE_MAX as usize);
        assert!(interval.admits(Topic::ProtocolError, peer("10.0.0.8:1")), "others have their own");
        assert!(interval.admits(Topic::Session, attacker), "so have other topics");
        tokio::time::advance(INTERVAL).await;
        let told: Vec<String> = interval.end().iter().map(LeftOut::to_string).collect();
        assert_eq!(told, ["2990 more protocol errors like these from 10.0.0.9 in the last 10 s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_interval_begins_with_nothing_and_only_after_the_old_one() {
        let chatter = Chatter::default();
        let fill = || {
            let mut present = chatter.present();
            let interval = present.get_or_insert_with(interval);
            (0..11).filter(|_| interval.admits(Topic::Deadlock, peer("10.0.0.9:1"))).count()
        };
        assert_eq!(fill(), 10);
        let instant = Duration::from_millis(1);
        tokio::time::advance(INTERVAL.saturating_sub(instant)).await;
        chatter.look();
        assert_eq!(fill(), 0);
        tokio::time::advance(instant).await;
        chatter.look();
        assert_eq!(fill(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_addresses_are_told_apart_and_all_beyond_share_one_place() {
        let mut interval = interval();
        let from = |i: usize| peer(&format!("10.{}.{}.1:1", i / 256, i % 256));
        for i in 0..PLACES_MAX {
            assert!(interval.admits(Topic::Refusal, from(i)));
        }
        let written =
            (PLACES_MAX..50_000).filter(|i| interval.admits(Topic::Refusal, from(*i))).count();
        assert_eq!(written, (LINES_PER_PLACE_MAX * ELSEWHERE) as usize);
        assert_eq!(interval.lines.len(), PLACES_MAX + 1);
        assert!(interval.admits(Topic::Refusal, from(0)), "who is known keeps its place");
        let told = interval.end();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].place, Some(Place::Elsewhere));
    }

    #[tokio::test(start_paused = true)]
    async fn few_addresses_are_named_and_the_rest_is_a_sum() {
        let mut interval = interval();
        for i in 0..100 {
            for _ in 0..=LINES_PER_PLACE_MAX {
                interval.admits(Topic::SlowReader, peer(&format!("10.0.0.{i}:1")));
            }
        }
        let told = interval.end();
        assert_eq!(told.len(), NAMED_MAX + 1);
        assert_eq!(
            told[0].to_string(),
            "1 more slow readers like these from 10.0.0.0 in the last 1 s"
        );
        assert_eq!(
            told[NAMED_MAX].to_string(),
            "92 more lines like these from other addresses in the last 1 s"
        );
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        assert_eq!(peer("[2001:db8::1]:1"), peer("[2001:db8::ffff:1]:2"));
        assert_ne!(peer("[2001:db8::1]:1"), peer("[2001:db8:0:1::1]:1"));
        assert_eq!(peer("[::ffff:10.0.0.9]:1"), peer("10.0.0.9:2"));
        assert_eq!(peer("[::1]:1").to_string(), "::1");
    }
}
