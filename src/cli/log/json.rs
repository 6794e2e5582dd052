//! Lines of the log as objects of JSON, for those who collect logs.
//!
//! Each has the keys `ts`, `level`, `target` and `msg`, then those of its fields; a field that has several
//! values is a list. `cut` is there, and true, if something of the line was left out for its length: an
//! object is never cut in the middle.

use std::time::SystemTime;

use log::Record;
use log::kv::{self, Key, VisitSource};
use serde_json::{Map, Value, json};

use super::{CUT, LINE_LEN_MAX};

/// An object, and the end of the line.
pub(crate) fn object(record: &Record<'_>, now: SystemTime) -> String {
    let mut object = Map::new();
    let ts = humantime::format_rfc3339_millis(now).to_string();
    let level = record.level().as_str().to_lowercase();
    object.insert("ts".to_owned(), ts.into());
    object.insert("level".to_owned(), level.into());
    object.insert("target".to_owned(), record.target().into());
    object.insert("msg".to_owned(), String::new().into());
    let msg = shortened(record, room_in(&object));
    object.insert("msg".to_owned(), msg.into());
    let _told = record.key_values().visit(&mut FieldsOf(&mut object));
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    line
}

/// Bytes that may still be added to an object, so that the mark fits that something was left out.
fn room_in(object: &Map<String, Value>) -> usize {
    let so_far = json!(object).to_string().len();
    (LINE_LEN_MAX - 1).saturating_sub(so_far + r#","cut":true"#.len())
}

/// What a record says, as far as it fits into so many bytes of JSON.
fn shortened(record: &Record<'_>, room: usize) -> String {
    let mut said = Limited { text: String::new(), left: room, is_cut: false };
    let _cut = std::fmt::write(&mut said, *record.args());
    if said.is_cut { said.text + CUT } else { said.text }
}

/// Takes as many letters as fit, and leaves room for the mark that there were more.
struct Limited {
    /// The text so far.
    text: String,
    /// So many more bytes of JSON fit.
    left: usize,
    /// Whether more came than fits.
    is_cut: bool,
}

impl std::fmt::Write for Limited {
    fn write_str(&mut self, more: &str) -> std::fmt::Result {
        for c in more.chars() {
            let len = escaped_len(c);
            if self.left < len + CUT.len() {
                self.is_cut = true;
                return Err(std::fmt::Error);
            }
            self.left -= len;
            self.text.push(c);
        }
        Ok(())
    }
}

/// How long a letter is in JSON, at most.
fn escaped_len(c: char) -> usize {
    match c {
        '"' | '\\' => 2,
        c if c < ' ' => r"\u0000".len(),
        c => c.len_utf8(),
    }
}

/// Adds fields to an object, as far as they fit.
struct FieldsOf<'a>(&'a mut Map<String, Value>);

impl<'k> VisitSource<'k> for FieldsOf<'_> {
    fn visit_pair(&mut self, key: Key<'k>, value: kv::Value<'k>) -> Result<(), kv::Error> {
        let Self(object) = self;
        let value: Value = match (value.to_borrowed_str(), value.to_u64()) {
            (Some(text), _) => text.into(),
            (None, Some(number)) => number.into(),
            (None, None) => value.to_string().into(),
        };
        // With its name, the colon and the comma, or the brackets of a list.
        let len = value.to_string().len() + key.as_str().len() + r#","":[]"#.len();
        if len > room_in(object) {
            object.insert("cut".to_owned(), true.into());
            return Ok(());
        }
        match object.get_mut(key.as_str()) {
            None => {
                object.insert(key.to_string(), value);
            }
            Some(Value::Array(several)) => several.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
        Ok(())
    }
}
