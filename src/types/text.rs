//! Texts that a client chooses and others see: lock names, notes, identities.
//!
//! All of it ends up on terminals, in logs, in JSON and in lists of one name a line. So none of it
//! may hold control characters or line ends. The code that shows it escapes the other misleading
//! characters.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use smol_str::SmolStr;

/// Longest lock name, in bytes of UTF-8.
pub const LOCK_NAME_LEN_MAX: usize = 255;
/// Longest note, in bytes of UTF-8.
pub const NOTE_LEN_MAX: usize = 255;
/// Longest identity, in bytes of UTF-8.
pub const IDENTITY_LEN_MAX: usize = 128;

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// A lock needs a name of at least one byte.
    #[error("it is empty")]
    Empty,
    /// The text is longer than its kind may be.
    #[error("it has {len} bytes; at most {max} are allowed")]
    TooLong {
        /// Bytes that were given.
        len: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// A line end (U+2028, U+2029; the others are control characters) would make two lines of one.
    #[error("it contains a line end at byte {at}")]
    LineEnd {
        /// Where the first one is.
        at: usize,
    },
    /// A control character would garble whoever prints the text.
    #[error("it contains a control character at byte {at}")]
    ControlCharacter {
        /// Where the first one is.
        at: usize,
    },
}

fn check(text: &str, max: usize) -> Result<(), TextError> {
    if text.len() > max {
        return Err(TextError::TooLong { len: text.len(), max });
    }
    // As nearly every text.
    if is_plain(text.as_bytes()) {
        return Ok(());
    }
    let is_line_end = |c| matches!(c, '\u{2028}' | '\u{2029}');
    match text.char_indices().find(|(_, c)| c.is_control() || is_line_end(*c)) {
        Some((at, c)) if is_line_end(c) => Err(TextError::LineEnd { at }),
        Some((at, _)) => Err(TextError::ControlCharacter { at }),
        None => Ok(()),
    }
}

/// Whether all of it is printable ASCII, seen eight bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk::<8>() else {
        return text.iter().all(|byte| matches!(byte, b' '..=b'~'));
    };
    let (words, _) = text.as_chunks::<8>();
    words.iter().chain([last]).all(|word| is_plain_word(u64::from_le_bytes(*word)))
}

/// The same of eight bytes. The uppermost bit of one that is not shows in what it is, is less than a space, or
/// is more than `~` (Anderson, *Bit Twiddling Hacks*: `hasless`, `hasmore`).
fn is_plain_word(word: u64) -> bool {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let less = word.wrapping_sub(EACH * u64::from(b' ')) & !word;
    let more = word.wrapping_add(EACH * u64::from(0x7f - b'~'));
    (word | less | more) & (EACH << 7) == 0
}

/// What the text types have in common, written once.
macro_rules! text_type {
    ($name:ident, $inner:ty, $noun:literal) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;
            fn try_from(text: String) -> Result<Self, TextError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0.into()
            }
        }

        impl From<$name> for $inner {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <$inner>::deserialize(deserializer)?;
                Self::new(text).map_err(|why| {
                    D::Error::custom(format_args!(concat!("invalid ", $noun, ": {}"), why))
                })
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                *self.0 == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                *self.0 == **other
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

/// The name of a lock: 1 to [`LOCK_NAME_LEN_MAX`] bytes of UTF-8 without control characters
/// and line ends.
///
/// A name is only text; `orders/42` has no parent. Up to 23 bytes need no memory of their own.
///
/// # Examples
///
/// ```
/// use coordinator::types::{LockName, TextError};
///
/// assert_eq!(LockName::new("orders/42").unwrap().as_str(), "orders/42");
/// assert_eq!(LockName::new("").unwrap_err(), TextError::Empty);
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName(SmolStr);

impl LockName {
    /// Takes `text` as a lock name.
    ///
    /// # Errors
    ///
    /// If the text is empty, longer than [`LOCK_NAME_LEN_MAX`] bytes, or holds a control character
    /// or a line end.
    pub fn new(text: impl Into<SmolStr>) -> Result<Self, TextError> {
        let text = text.into();
        if text.is_empty() {
            return Err(TextError::Empty);
        }
        check(&text, LOCK_NAME_LEN_MAX)?;
        Ok(Self(text))
    }
}

text_type!(LockName, SmolStr, "lock name");

/// The purpose of a request, in its user's words, shown to waiters and observers; may be empty.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Note(Box<str>);

impl Note {
    /// Takes `text` as a note.
    ///
    /// # Errors
    ///
    /// If the text is longer than [`NOTE_LEN_MAX`] bytes or holds a control character
    /// or a line end.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, TextError> {
        let text = text.into();
        check(&text, NOTE_LEN_MAX)?;
        Ok(Self(text))
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

text_type!(Note, Box<str>, "note");

/// The identity of a session, shown to waiters and observers: `user@host:pid` unless its client
/// chooses another. It proves nothing.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Identity(Box<str>);

impl Identity {
    /// Takes `text` as an identity.
    ///
    /// # Errors
    ///
    /// If the text is longer than [`IDENTITY_LEN_MAX`] bytes or holds a control character
    /// or a line end.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, TextError> {
        let text = text.into();
        check(&text, IDENTITY_LEN_MAX)?;
        Ok(Self(text))
    }
}

text_type!(Identity, Box<str>, "identity");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_name_may_have_255_bytes_and_not_one_more() {
        assert!(LockName::new("x".repeat(LOCK_NAME_LEN_MAX)).is_ok());
        let len = LOCK_NAME_LEN_MAX + 1;
        assert_eq!(
            LockName::new("x".repeat(len)),
            Err(TextError::TooLong { len, max: LOCK_NAME_LEN_MAX })
        );
    }

    #[test]
    fn every_byte_is_plain_or_not_wherever_it_stands() {
        for len in 1..=25 {
            for at in 0..len {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'x'; len];
                    text[at] = byte;
                    let is_plain_byte = (b' '..=b'~').contains(&byte);
                    assert_eq!(is_plain(&text), is_plain_byte, "{byte} at {at} of {len}");
                }
            }
        }
        assert!(is_plain(b""));
    }

    #[test]
    fn a_note_and_an_identity_may_be_empty_and_as_long_as_their_limit() {
        assert!(Note::new("").is_ok());
        assert!(Note::new("n".repeat(NOTE_LEN_MAX)).is_ok());
        assert!(Note::new("n".repeat(NOTE_LEN_MAX + 1)).is_err());
        assert!(Identity::new("").is_ok());
        assert!(Identity::new("i".repeat(IDENTITY_LEN_MAX)).is_ok());
        assert!(Identity::new("i".repeat(IDENTITY_LEN_MAX + 1)).is_err());
    }

    #[test]
    fn no_text_is_more_than_one_line_by_any_rule_of_lines() {
        assert_eq!(LockName::new("a\u{2028}b"), Err(TextError::LineEnd { at: 1 }));
        assert_eq!(Note::new("größer\u{2029}"), Err(TextError::LineEnd { at: 8 }));
        for end in ['\n', '\u{b}', '\u{c}', '\r', '\u{1c}', '\u{85}', '\u{2028}', '\u{2029}'] {
            assert!(LockName::new(format!("a{end}b")).is_err(), "{end:?}");
            assert!(Note::new(format!("a{end}b")).is_err(), "{end:?}");
            assert!(Identity::new(format!("a{end}b")).is_err(), "{end:?}");
        }
    }

    #[test]
    fn no_text_can_carry_an_escape_sequence_to_a_terminal() {
        assert_eq!(LockName::new("a\x1b[2Jb"), Err(TextError::ControlCharacter { at: 1 }));
        assert_eq!(Note::new("a\nb"), Err(TextError::ControlCharacter { at: 1 }));
        assert_eq!(Identity::new("\u{9b}"), Err(TextError::ControlCharacter { at: 0 }));
    }
}
