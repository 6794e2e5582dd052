//! The record of a keeper: a line when it holds its lock, and one when it does not any more.

use std::ffi::OsStr;

use serde::{Deserialize, Serialize};

use crate::cli::text::words;

/// The form of the records that this program writes.
const FORM: u32 = 1;
/// No record is longer: 64 names of 255 bytes, escaped, have room.
pub(super) const RECORD_LEN_MAX: u64 = 256 * 1024;

/// What is held, and who keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The form of the record.
    pub(crate) coordinator_keeper: u32,
    /// The keeper's process.
    pub(crate) pid: i32,
    /// Where that number means this process: containers count for themselves. Empty if that is not known.
    pub(crate) pid_namespace: String,
    /// The locks.
    pub(crate) locks: Vec<String>,
    /// The token of the grant.
    pub(crate) token: u64,
    /// The session that holds them.
    pub(crate) session: String,
    /// The length of its lease, in milliseconds.
    pub(crate) ttl_ms: u32,
    /// Where the coordinator is.
    pub(crate) server: String,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ending {
    /// It was given back.
    Released,
    /// It was given back, and there was no answer: it is free when its lease ends, at the latest.
    Unanswered,
    /// It was lost before, for this reason.
    Lost(String),
}

/// A record as far as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// The hold.
    pub(crate) record: Record,
    /// How it ended, if it has.
    pub(crate) ending: Option<Ending>,
}

impl Record {
    /// The form that this program writes.
    pub(crate) const FORM: u32 = FORM;

    /// The locks, for people.
    pub(crate) fn names(&self) -> String {
        words::names(self.locks.iter().map(String::as_str))
    }
}

/// A line of the file.
pub(super) fn line(thing: &impl Serialize) -> String {
    // Neither has a map with keys that are no text, which alone could fail.
    serde_json::to_string(thing).unwrap_or_default() + "\n"
}

/// Reads a file; none if it is not that of a keeper. A line without its end is still being written.
pub(super) fn parse(text: &str) -> Option<Written> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let record: Record = serde_json::from_str(lines.next()?).ok()?;
    let ending = lines.next().and_then(|line| serde_json::from_str(line).ok());
    (record.coordinator_keeper == FORM).then_some(Written { record, ending })
}

/// Whether a path can be one of several in a variable, and a line of text.
pub(super) fn can_be_listed(path: &OsStr) -> bool {
    path.to_str().is_some_and(|path| !path.contains(|c: char| c == ':' || c.is_control()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn record() -> Record {
        Record {
            coordinator_keeper: FORM,
            pid: 4711,
            pid_namespace: "pid:[4026531836]".to_owned(),
            locks: vec!["it's".to_owned(), "b c".to_owned()],
            token: 7,
            session: "ab".to_owned(),
            ttl_ms: 10_000,
            server: "127.0.0.1:5625".to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_as_far_as_it_is_written() {
        let first = line(&record());
        for ending in [Ending::Released, Ending::Unanswered, Ending::Lost("so\nit is".to_owned())] {
            let last = line(&ending);
            let whole = parse(&format!("{first}{last}")).unwrap();
            assert_eq!((whole.record, whole.ending), (record(), Some(ending)));
            let half = &last[..last.len() - 1];
            assert_eq!(parse(&format!("{first}{half}")).unwrap().ending, None);
        }
        assert_eq!(parse(first.trim_end()), None);
    }

    #[test]
    fn what_no_keeper_wrote_is_no_record() {
        let later = line(&Record { coordinator_keeper: FORM + 1, ..record() });
        for text in ["", "\n", "export PATH=/bin\n", "{}\n", &later] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
