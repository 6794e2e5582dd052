//! Until when a list of revoked certificates is good.
//!
//! What verifies certificates knows that, and tells nobody before it refuses one for it. A list is read here as far as its
//! two moments (RFC 5280, section 5.1). What is of another form has no end that is known.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tags of DER.
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// The days before 1970 of a calendar whose years begin in March of the year 0.
const DAYS_TO_1970: u64 = 719_468;

/// When the next list was to take the place of this one, in DER.
pub(super) fn next_update(list: &[u8]) -> Option<SystemTime> {
    let signed = Fields(list).inside(SEQUENCE)?;
    let mut fields = Fields(signed).inside(SEQUENCE).map(Fields)?;
    let (mut tag, _version) = fields.next()?;
    if tag == INTEGER {
        (tag, _) = fields.next()?;
    }
    let (issuer, _) = fields.next()?;
    let (_this_update, _) = fields.next()?;
    let (kind, text) = fields.next()?;
    if (tag, issuer) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    moment(kind, std::str::from_utf8(text).ok()?)
}

/// What follows one another in DER.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next one: its tag, and what is in it.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, len], rest) = self.0.split_first_chunk()?;
        let (len, rest) = match len {
            0..=0x7f => (usize::from(len), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(len - 0x80))?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (inside, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, inside))
    }

    /// What is in the next one, if it has this tag.
    fn inside(mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(is, _)| *is == tag).map(|(_, inside)| inside)
    }
}

/// `YYMMDDhhmmssZ`, of the years 1950 to 2049, or `YYYYMMDDhhmmssZ`.
fn moment(kind: u8, text: &str) -> Option<SystemTime> {
    let digits = text.strip_suffix('Z').filter(|it| it.bytes().all(|it| it.is_ascii_digit()))?;
    let (year, rest) = match (kind, digits.len()) {
        (UTC_TIME, 12) => {
            let year: u64 = digits.get(..2)?.parse().ok()?;
            (year + if year < 50 { 2000 } else { 1900 }, digits.get(2..)?)
        }
        (GENERALIZED_TIME, 14) => (digits.get(..4)?.parse().ok()?, digits.get(4..)?),
        _ => return None,
    };
    let pair = |at: usize| rest.get(at..at + 2)?.parse::<u64>().ok();
    let (month, day, hour) = (pair(0)?, pair(2)?, pair(4)?);
    let (minute, second) = (pair(6)?, pair(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let of_march = if month < 3 { year.checked_sub(1)? } else { year };
    let months = (month + 9) % 12;
    let days = of_march * 365 + of_march / 4 - of_march / 100 + of_march / 400;
    let days = (days + (153 * months + 2) / 5 + day - 1).saturating_sub(DAYS_TO_1970);
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_in_both_forms_and_nothing_else_is_one() {
        let at = |kind, text| {
            let at = moment(kind, text)?.duration_since(UNIX_EPOCH).unwrap();
            Some(at.as_secs())
        };
        assert_eq!(at(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(at(UTC_TIME, "270115080000Z"), Some(1_800_000_000));
        assert_eq!(at(GENERALIZED_TIME, "20270115080000Z"), Some(1_800_000_000));
        assert_eq!(at(GENERALIZED_TIME, "20000229235959Z"), Some(951_868_799));
        assert_eq!(at(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400));
        assert_eq!(at(UTC_TIME, "500101000000Z"), Some(0), "long over");
        for text in ["", "Z", "2701150800Z", "270115080000", "27011508000xZ", "271315080000Z"] {
            assert_eq!(at(UTC_TIME, text), None, "{text}");
        }
        assert_eq!(at(SEQUENCE, "270115080000Z"), None);
    }

    /// Whatever the bytes are, none beyond them is read.
    #[test]
    fn what_is_cut_off_anywhere_has_no_end_that_is_known() {
        let whole = [
            &[0x30, 0x1d, 0x30, 0x1b, INTEGER, 1, 1, SEQUENCE, 0, SEQUENCE, 0, UTC_TIME, 0][..],
            &[GENERALIZED_TIME, 0x0f],
            b"20270115080000Z",
        ]
        .concat();
        assert!(next_update(&whole).is_none(), "a length that is none of its own");
        let mut whole = whole;
        (whole[1], whole[3]) = (0x1c, 0x1a);
        assert_eq!(next_update(&whole), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        for len in 0..whole.len() {
            assert_eq!(next_update(&whole[..len]), None, "{len}");
        }
    }
}
