//! Refusals of those who prove nobody. An address that tries again and again hears so later.
//!
//! Credentials cannot be guessed. But whoever tries makes a connection, a handshake, a line of the log each time, and
//! tries the sooner again the sooner it hears *no*. So from the eleventh time in a minute on it waits a second. Few are
//! kept waiting at a time, for each has a connection; whoever finds no room hears at once.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::access::Unproven;
use crate::types::{ConnectionId, Origin, Timestamp};

/// So many refusals of an address in a minute are told at once.
pub(super) const PROMPT_PER_MINUTE_MAX: u32 = 10;
/// How much later the next ones are told.
pub(super) const DELAY: Duration = Duration::from_secs(1);
/// Those that wait to hear, at a time.
pub(super) const WAITING_MAX: usize = 64;
/// Refusals are counted for so long.
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses that are counted apart.
const ORIGINS_MAX: usize = 1_024;

/// Who was refused, and who is yet to hear so.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Of each address, when its minute began, and how many refusals there were since.
    counted: HashMap<Origin, (Timestamp, u32), RandomState>,
    /// Those that wait to hear: when they do, and why they are refused.
    waiting: VecDeque<(Timestamp, ConnectionId, Unproven)>,
}

impl Refusals {
    /// Whether a connection that proves nobody hears so at once. If not, it waits here.
    pub(super) fn is_prompt(
        &mut self,
        connection: ConnectionId,
        origin: Option<Origin>,
        why: Unproven,
        now: Timestamp,
    ) -> bool {
        let Some(origin) = origin else { return true };
        if self.count(origin, now) <= PROMPT_PER_MINUTE_MAX || self.waiting.len() >= WAITING_MAX {
            return true;
        }
        self.waiting.push_back((now.after(DELAY), connection, why));
        false
    }

    /// Counts a refusal. Says how many there were in this minute.
    fn count(&mut self, origin: Origin, now: Timestamp) -> u32 {
        let is_over = |since: Timestamp| since.after(MINUTE) <= now;
        if self.counted.len() >= ORIGINS_MAX && !self.counted.contains_key(&origin) {
            self.counted.retain(|_, (since, _)| !is_over(*since));
            if self.counted.len() >= ORIGINS_MAX {
                // So many addresses at a time are one.
                return u32::MAX;
            }
        }
        let (since, count) = self.counted.entry(origin).or_insert((now, 0));
        if is_over(*since) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count
    }

    /// When the next one hears.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        self.waiting.front().map(|(at, ..)| *at)
    }

    /// Who hears by now, and why it is refused.
    pub(super) fn next_due(&mut self, now: Timestamp) -> Option<(ConnectionId, Unproven)> {
        self.waiting.front().filter(|(at, ..)| *at <= now)?;
        let (_, connection, why) = self.waiting.pop_front()?;
        Some((connection, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(millis * 1_000)
    }

    fn from(host: u8) -> Origin {
        Origin::of([10, 0, 0, host].into())
    }

    fn hears(refusals: &mut Refusals, id: u64, host: u8, millis: u64) -> bool {
        refusals.is_prompt(ConnectionId::new(id), Some(from(host)), Unproven::Nobody, at(millis))
    }

    #[test]
    fn from_the_eleventh_refusal_in_a_minute_on_an_address_hears_a_second_later_and_no_other_does()
    {
        let mut refusals = Refusals::default();
        assert!((1..=10).all(|id| hears(&mut refusals, id, 9, 0)));
        assert!(!hears(&mut refusals, 11, 9, 5));
        assert!(hears(&mut refusals, 12, 8, 5));
        assert_eq!(refusals.next_deadline(), Some(at(1_005)));
        assert_eq!(refusals.next_due(at(1_004)), None);
        let due = Some((ConnectionId::new(11), Unproven::Nobody));
        assert_eq!(refusals.next_due(at(1_005)), due);
        assert_eq!(refusals.next_due(at(9_000)), None);
        assert!(hears(&mut refusals, 13, 9, 60_000), "another minute");
    }

    #[test]
    fn as_many_wait_as_allowed_and_one_more_hears_at_once() {
        let mut refusals = Refusals::default();
        (0..10).for_each(|id| assert!(hears(&mut refusals, id, 9, 0)));
        let waits = (0..=64).filter(|id| !hears(&mut refusals, 100 + id, 9, 0)).count();
        assert_eq!(waits, WAITING_MAX);
    }

    #[test]
    fn more_addresses_than_are_counted_are_one_and_none_is_remembered_for_ever() {
        let mut refusals = Refusals::default();
        let origin = |n: usize| {
            let [_, _, a, b] = u32::try_from(n).unwrap().to_be_bytes();
            Some(Origin::of([10, 1, a, b].into()))
        };
        let mut hears = |n: usize, millis| {
            refusals.is_prompt(ConnectionId::new(1), origin(n), Unproven::Nothing, at(millis))
        };
        assert!((0..ORIGINS_MAX).all(|n| hears(n, 0)));
        assert!(!hears(ORIGINS_MAX, 0));
        assert!(hears(ORIGINS_MAX, 60_000));
        assert_eq!(refusals.counted.len(), 1);
    }
}
