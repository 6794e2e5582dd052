//! The words behind a command's name, taken one after the other.

use std::borrow::Cow;
use std::time::Duration;

use smol_str::SmolStr;

use crate::redis::deed::{KEYS_MAX, Keys, TERM_MS_MAX};
use crate::redis::reply::Reply;
use crate::redis::request::{Words, number};
use crate::redis::unit::Unit;
use crate::types::{LockName, MARK_LEN_MAX, Mark};

/// Longest name of an option.
const OPTION_LEN_MAX: usize = 16;

/// A *no*, to be answered.
pub(super) type No = Reply;

/// The words of a command that are not taken yet.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    words: &'a Words,
    next: usize,
}

impl<'a> Arguments<'a> {
    /// Those behind the first so many words.
    pub(super) fn behind(words: &'a Words, next: usize) -> Self {
        Self { words, next }
    }

    /// How many are left.
    pub(super) fn left(&self) -> usize {
        self.words.len().saturating_sub(self.next)
    }

    /// That there are too few or too many.
    pub(super) fn miscounted(&self) -> No {
        let command = shown(self.words.get(0).unwrap_or_default());
        Reply::error(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// The next one.
    pub(super) fn word(&mut self) -> Result<&'a [u8], No> {
        let word = self.words.get(self.next).ok_or_else(|| self.miscounted())?;
        self.next += 1;
        Ok(word)
    }

    /// The next one, in capitals, if there is any.
    /// One that is longer than any is nothing.
    pub(super) fn option(&mut self) -> Option<SmolStr> {
        let word = self.words.get(self.next)?;
        self.next += 1;
        let mut capitals = [0; OPTION_LEN_MAX];
        let option = capitals.get_mut(..word.len()).and_then(|option| {
            option.copy_from_slice(word);
            option.make_ascii_uppercase();
            std::str::from_utf8(option).ok()
        });
        Some(option.map(SmolStr::new).unwrap_or_default())
    }

    /// That there are no more.
    pub(super) fn end(&self) -> Result<(), No> {
        if self.left() == 0 { Ok(()) } else { Err(self.miscounted()) }
    }

    /// The next one, which is a key.
    pub(super) fn key(&mut self) -> Result<LockName, No> {
        key(self.word()?)
    }

    /// So many keys.
    pub(super) fn keys(&mut self, count: usize) -> Result<Keys, No> {
        if count > KEYS_MAX {
            return Err(Reply::error(format!("ERR at most {KEYS_MAX} keys in one command")));
        }
        (0..count).map(|_| self.key()).collect()
    }

    /// All that are left, at least one, which are keys.
    pub(super) fn all_keys(&mut self) -> Result<Keys, No> {
        if self.left() == 0 {
            return Err(self.miscounted());
        }
        self.keys(self.left())
    }

    /// The next one, which is a value.
    pub(super) fn mark(&mut self) -> Result<Mark, No> {
        mark(self.word()?)
    }

    /// The next one, which is a number.
    pub(super) fn number(&mut self) -> Result<i64, No> {
        number(self.word()?).ok_or_else(not_a_number)
    }

    /// The next one, which is a time that is yet to pass.
    pub(super) fn length(&mut self, unit: Unit) -> Result<Duration, No> {
        let count = self.number()?;
        let length = u64::try_from(count).ok().filter(|count| *count > 0);
        let length = length.and_then(|count| bounded(unit, count));
        length.ok_or_else(|| self.invalid_expire())
    }

    /// That a time is not one for which a key can be set.
    pub(super) fn invalid_expire(&self) -> No {
        let command = shown(self.words.get(0).unwrap_or_default());
        Reply::error(format!("ERR invalid expire time in '{command}' command"))
    }
}

/// So many of a unit, if that is not too long.
pub(crate) fn bounded(unit: Unit, count: u64) -> Option<Duration> {
    let length = unit.length(count.min(TERM_MS_MAX + 1));
    (length <= Duration::from_millis(TERM_MS_MAX)).then_some(length)
}

/// A word as a key, which is a lock's name.
fn key(word: &[u8]) -> Result<LockName, No> {
    let text = std::str::from_utf8(word).map_err(|_| not_a_name("it is not UTF-8"))?;
    LockName::new(text).map_err(|why| not_a_name(&why.to_string()))
}

fn not_a_name(why: &str) -> No {
    Reply::error(format!("ERR a key is the name of a lock here, and this is none: {why}"))
}

/// A word as a value.
fn mark(word: &[u8]) -> Result<Mark, No> {
    Mark::new(word).ok_or_else(|| {
        let len = word.len();
        Reply::error(format!(
            "ERR the value has {len} bytes; at most {MARK_LEN_MAX} are allowed: it is to tell holders \
             apart, this is a lock service"
        ))
    })
}

/// What Redis says of what is no number.
pub(super) fn not_a_number() -> No {
    Reply::error("ERR value is not an integer or out of range")
}

/// What Redis says of what it does not understand.
pub(super) fn syntax() -> No {
    Reply::error("ERR syntax error")
}

/// The beginning of a word, as it can be shown in an answer.
pub(super) fn shown(word: &[u8]) -> Cow<'static, str> {
    const SHOWN_BYTES_MAX: usize = 64;
    let short = word.get(..SHOWN_BYTES_MAX).unwrap_or(word);
    Cow::Owned(short.escape_ascii().to_string())
}
