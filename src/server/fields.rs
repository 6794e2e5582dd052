//! Structured fields of a log line: `lock="deploy" token=7`. The printer of the log sees them apart
//! from the sentence, and can make an object of them.

use std::{fmt, mem};

use super::audit::{Audit, Entry};
use log::kv::Value;
use log::{Level, Record, warn};

/// The part of the program that these lines come from, for filters.
const TARGET: &str = "coordinator::server::log_lines";

/// The fields of a line, in the order in which they are told. A name that comes several times in a row
/// is a list.
#[derive(Default)]
pub(super) struct Fields<'a>(Vec<(&'static str, Value<'a>)>);

impl<'a> Fields<'a> {
    /// A text, which is told in quotes, or a number.
    pub(super) fn add(&mut self, name: &'static str, value: impl Into<Value<'a>>) {
        self.0.push((name, value.into()));
    }

    /// What is told as it shows itself.
    pub(super) fn add_shown<T: fmt::Display>(&mut self, name: &'static str, value: &'a T) {
        self.0.push((name, Value::from_display(value)));
    }

    /// Logs them behind a sentence.
    pub(super) fn log(&self, level: Level, sentence: fmt::Arguments<'_>) {
        let fields: &[(&str, Value<'_>)] = &self.0;
        let mut record = Record::builder();
        record.level(level).target(TARGET).module_path_static(Some(TARGET));
        log::logger().log(&record.args(sentence).key_values(&fields).build());
    }

    /// The same, to be logged later.
    pub(super) fn line(&self, level: Level, sentence: fmt::Arguments<'_>) -> Line {
        let keep = |(name, value): &(&'static str, Value<'a>)| (*name, Kept::of(value));
        Line { level, sentence: sentence.to_string(), fields: self.0.iter().map(keep).collect() }
    }
}

/// A line that is yet to be logged: what it tells is not certain so far.
#[derive(Debug)]
pub(super) struct Line {
    /// How much it matters.
    level: Level,
    /// What happened.
    sentence: String,
    /// To whom, and what with.
    fields: Vec<(&'static str, Kept)>,
}

/// The value of a field, as the printer sees it.
#[derive(Debug)]
enum Kept {
    /// Told in quotes.
    Text(String),
    Number(u64),
    /// Told as it is.
    Shown(String),
}

impl Kept {
    fn of(value: &Value<'_>) -> Self {
        match (value.to_borrowed_str(), value.to_u64()) {
            (Some(text), _) => Self::Text(text.to_owned()),
            (None, Some(number)) => Self::Number(number),
            (None, None) => Self::Shown(value.to_string()),
        }
    }
}

impl Line {
    /// What it was made of.
    fn fields(&self) -> Fields<'_> {
        let mut fields = Fields::default();
        for (name, value) in &self.fields {
            match value {
                Kept::Text(text) => fields.add(name, text.as_str()),
                Kept::Number(number) => fields.add(name, *number),
                Kept::Shown(shown) => fields.add_shown(name, shown),
            }
        }
        fields
    }

    fn log(&self) {
        self.fields().log(self.level, format_args!("{}", self.sentence));
    }
}

/// Most lines that wait. More are only counted.
const LINES_MAX: usize = 16 * 1024;

/// Lines that wait until what they tell is certain (rule J1). So the log tells of no grant that a
/// crash has undone.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// In the order in which it happened.
    held: Vec<Line>,
    /// What goes to the audit log, in that order, too.
    entries: Vec<(Audit, Entry)>,
    /// How many were too many.
    left_out: u64,
}

impl Lines {
    /// One more.
    pub(super) fn push(&mut self, line: Line) {
        if self.held.len() < LINES_MAX {
            self.held.push(line);
        } else {
            self.left_out += 1;
        }
    }

    /// An entry of the audit log.
    pub(super) fn audit(&mut self, audit: &Audit, entry: Entry) {
        if self.entries.len() < LINES_MAX {
            self.entries.push((audit.clone(), entry));
        } else {
            audit.lose();
        }
    }

    /// Takes those of a later turn.
    pub(super) fn append(&mut self, later: &mut Self) {
        if !later.is_empty() {
            later.held.drain(..).for_each(|line| self.push(line));
            self.left_out += mem::take(&mut later.left_out);
            for (audit, entry) in later.entries.drain(..) {
                self.audit(&audit, entry);
            }
        }
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.entries.is_empty() && self.left_out == 0
    }

    /// Logs all of them.
    pub(super) fn log(&mut self) {
        if self.is_empty() {
            return;
        }
        mem::take(&mut self.held).iter().for_each(Line::log);
        for (audit, entry) in mem::take(&mut self.entries) {
            audit.tell(entry);
        }
        let left_out = mem::take(&mut self.left_out);
        if left_out > 0 {
            warn!("{left_out} lines are left out here: the journal took too long");
        }
    }
}

/// Whether lines of this level are logged.
pub(super) fn is_logged(level: Level) -> bool {
    // First without a look at the filter, which is dearer.
    level <= log::max_level() && log::log_enabled!(target: TARGET, level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SessionId;

    /// A line that says nothing.
    fn line() -> Line {
        Fields::default().line(Level::Info, format_args!("granted"))
    }

    #[test]
    fn a_line_that_is_logged_later_has_the_fields_that_it_would_have_had_at_once() {
        let session = SessionId::new(7);
        let mut fields = Fields::default();
        fields.add("lock", "deploy");
        fields.add("lock", "7");
        fields.add("token", 7_u64);
        fields.add("held", 3_usize);
        fields.add_shown("session", &session);
        let line = fields.line(Level::Info, format_args!("granted"));
        let kinds = |fields: &Fields<'_>| {
            let kind = |(name, value): &(&'static str, Value<'_>)| {
                let text = value.to_borrowed_str().map(str::to_owned);
                (*name, text, value.to_u64(), value.to_string())
            };
            fields.0.iter().map(kind).collect::<Vec<_>>()
        };
        let (at_once, later) = (kinds(&fields), kinds(&line.fields()));
        assert_eq!(at_once[..4], later[..4]);
        assert_eq!((later[4].0, &later[4].3), ("session", &session.to_string()));
    }

    #[test]
    fn so_many_lines_wait_and_of_one_more_only_the_number_is_kept() {
        let mut lines = Lines::default();
        for _ in 0..LINES_MAX {
            lines.push(line());
        }
        assert_eq!((lines.held.len(), lines.left_out), (LINES_MAX, 0));
        let mut later = Lines::default();
        later.push(line());
        lines.append(&mut later);
        assert!(later.is_empty());
        assert_eq!((lines.held.len(), lines.left_out), (LINES_MAX, 1));
        lines.log();
        assert!(lines.is_empty());
    }
}
