//! Lists, a page at a time.
//!
//! The coordinator's own pages are as long as a frame has room for, so the end of one of ours may be in the
//! middle of one of those. A cursor has the run, the place where the coordinator's page begins, and between which
//! two entries of that it stands: the last that was told, and the next. If one is gone meanwhile, the other says
//! where to go on. If both are, the page is told from its beginning: something may be told twice, and nothing is left
//! out.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::line::Line;
use crate::http::problem::Problem;
use crate::types::Epoch;
use crate::wire::{Query, ServerMessage};

/// Most entries of a page.
pub(super) const LIMIT_MAX: usize = 200;
/// Pages of the coordinator that are looked at for one of ours.
const LOOKS_MAX: usize = 20;

/// Where a page begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cursor {
    /// The place at which the coordinator's page begins.
    place: u64,
    /// Between which entries of that page; none: before all of them.
    between: Option<Between>,
}

/// Two neighbours of a list, by their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Between {
    /// Was told last.
    told: u64,
    /// Was to be told next.
    next: u64,
}

impl Between {
    /// How many of these entries are told. Of two answers the lower one counts, for an entry may have gone and come
    /// back elsewhere.
    fn told_of(self, digests: &[u64]) -> usize {
        let place = |digest| digests.iter().position(|it| *it == digest);
        let (behind, at) = (place(self.told).map(|told| told + 1), place(self.next));
        behind.into_iter().chain(at).min().unwrap_or(0)
    }
}

impl Cursor {
    /// From a text like `18.40960` or `18.40960.51be0f.7a`, of this run.
    fn parse(text: &str, epoch: Epoch) -> Result<Self, Problem> {
        let wrong = || Problem::bad_request("that is no cursor of this list");
        let mut parts = text.split('.');
        let mut number = |radix| {
            let part = parts.next()?;
            Some(u64::from_str_radix(part, radix).map_err(|_| wrong()))
        };
        let run = number(10).ok_or_else(wrong)??;
        let place = number(10).ok_or_else(wrong)??;
        let between = match (number(16).transpose()?, number(16).transpose()?) {
            (None, _) => None,
            (Some(told), Some(next)) => Some(Between { told, next }),
            (Some(_), None) => return Err(wrong()),
        };
        if parts.next().is_some() {
            return Err(wrong());
        }
        if run != epoch.number() {
            return Err(Problem::gone());
        }
        Ok(Self { place, between })
    }

    fn text(self, epoch: Epoch) -> String {
        let Self { place, between } = self;
        match between {
            None => format!("{epoch}.{place}"),
            Some(Between { told, next }) => format!("{epoch}.{place}.{told:x}.{next:x}"),
        }
    }
}

/// Entries of the coordinator's page, and the place where its next begins.
pub(super) type Opened<T> = (Vec<T>, Option<u64>);

/// A list of something.
pub(super) struct List<T> {
    /// Asks for a page of it.
    pub(super) ask: fn(u64) -> Query,
    /// Takes the page out of the answer.
    pub(super) open: fn(ServerMessage) -> Option<Opened<T>>,
    /// What tells an entry from all others.
    pub(super) key: fn(&T) -> String,
}

impl<T> List<T> {
    /// The entries that are wanted, from where a cursor says, and the cursor of those behind them.
    pub(super) async fn page(
        &self,
        line: &mut Line,
        cursor: Option<&str>,
        limit: usize,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let epoch = line.epoch;
        let cursor = cursor.map(|text| Cursor::parse(text, epoch)).transpose()?;
        let Cursor { mut place, mut between } = cursor.unwrap_or_default();
        let mut page = Vec::new();
        for _ in 0..LOOKS_MAX {
            let answer = line.look((self.ask)(place)).await?;
            let (entries, next) = (self.open)(answer).ok_or_else(Problem::unavailable)?;
            let digest = |entry: &T| digest(&(self.key)(entry));
            let told = between.take().map_or(0, |between| {
                between.told_of(&entries.iter().map(digest).collect::<Vec<_>>())
            });
            let mut latest = None;
            for entry in entries.into_iter().skip(told) {
                if !wanted(&entry) {
                    continue;
                }
                if page.len() == limit {
                    let between = latest.map(|told| Between { told, next: digest(&entry) });
                    let cursor = Cursor { place, between };
                    return Ok((page, Some(cursor.text(epoch))));
                }
                latest = Some(digest(&entry));
                page.push(entry);
            }
            match next {
                Some(next) => place = next,
                None => return Ok((page, None)),
            }
        }
        Ok((page, Some(Cursor { place, between: None }.text(epoch))))
    }
}

fn digest(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_where_it_was_whichever_of_the_two_neighbours_is_gone() {
        let between = Between { told: 3, next: 4 };
        for (entries, told) in [
            (&[1, 2, 3, 4, 5][..], 3),
            (&[1, 2, 4, 5], 2),
            (&[2, 3, 5], 2),
            (&[1, 5, 6], 0),
            // One of them came back elsewhere.
            (&[1, 2, 4, 5, 3], 2),
            (&[1, 2, 3, 5, 4], 3),
            (&[], 0),
        ] {
            assert_eq!(between.told_of(entries), told, "{entries:?}");
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_in_its_run() {
        let epoch = Epoch::new(18);
        for cursor in [
            Cursor::default(),
            Cursor { place: 40_960, between: None },
            Cursor { place: u64::MAX, between: Some(Between { told: u64::MAX, next: 0 }) },
        ] {
            assert_eq!(Cursor::parse(&cursor.text(epoch), epoch).unwrap(), cursor);
            assert!(Cursor::parse(&cursor.text(Epoch::new(17)), epoch).is_err());
        }
        for text in [
            "",
            "18",
            "18.",
            "18.x",
            "18.1.",
            "18.1.x",
            "18.1.2",
            "18.1.2.x",
            "18.1.2.3.4",
            "18.-1",
            "é",
        ] {
            assert!(Cursor::parse(text, epoch).is_err(), "{text}");
        }
    }
}
