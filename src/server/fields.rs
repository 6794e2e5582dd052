//! Structured fields of a log line: `lock="deploy" token=7`. The printer of the log sees them apart
//! from the sentence, and can make an object of them.

use std::fmt;

use log::kv::Value;
use log::{Level, Record};

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
}

/// Whether lines of this level are logged.
pub(super) fn is_logged(level: Level) -> bool {
    // First without a look at the filter, which is dearer.
    level <= log::max_level() && log::log_enabled!(target: TARGET, level)
}
