//! Scripts of lock libraries, known by what they say.
//!
//! Nothing here runs Lua. A script is brought into a form in which comments, white space, quotes and
//! capitals do not count, for libraries differ mostly in these. Its hash (SHA-1) is looked for in a table of
//! hashes and meanings. A script that is not there is refused.
//!
//! A text that has the form of another one is taken for it. That is a text of the same words, so nobody
//! gains by it: whatever a known script does, its caller could have it done.

mod table;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

pub use self::table::{Answer, Rest, Script};

/// A hash that names a script.
pub(super) type ScriptHash = [u8; 20];

/// Most texts whose hashes are remembered.
pub(super) const SCRIPTS_REMEMBERED_MAX: usize = 1024;

/// Most texts, and most commands, of which it is remembered that the log was told.
pub(super) const UNKNOWN_REMEMBERED_MAX: usize = 256;

/// Scripts that were said so far. All connections share them.
#[derive(Debug, Default)]
pub struct Scripts {
    /// Those that are known, by the hashes of their texts (`EVALSHA`).
    said: Mutex<HashMap<ScriptHash, Script, RandomState>>,
    /// The hashes of texts that are not, as far as the log was told of them.
    unknown: Mutex<HashSet<ScriptHash>>,
    /// The same of commands.
    commands: Mutex<HashSet<String>>,
}

/// Whether something is met for the first time. When much was, nothing is any more.
fn is_new<T: Hash + Eq>(met: &Mutex<HashSet<T>>, it: T) -> bool {
    let mut met = met.lock().unwrap_or_else(PoisonError::into_inner);
    met.len() < UNKNOWN_REMEMBERED_MAX && met.insert(it)
}

impl Scripts {
    /// The script with this text, which is remembered; and the hash of the text.
    pub(super) fn load(&self, text: &[u8]) -> (ScriptHash, Option<Script>) {
        let hash = sha1(text);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(script) = said.get(&hash) {
            return (hash, Some(*script));
        }
        let Some(script) = known(text) else { return (hash, None) };
        if said.len() >= SCRIPTS_REMEMBERED_MAX {
            // Whoever needs one says it again, as after `SCRIPT FLUSH`.
            said.clear();
        }
        said.insert(hash, script);
        (hash, Some(script))
    }

    /// The script with a text of this hash, if that was said.
    pub(super) fn find(&self, hash: &[u8]) -> Option<Script> {
        let hash = from_hex(hash)?;
        self.said.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).copied()
    }

    /// Forgets all of them.
    pub(super) fn flush(&self) {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the log is to be told of a script that is not known.
    pub(super) fn is_new_script(&self, hash: &ScriptHash) -> bool {
        is_new(&self.unknown, *hash)
    }

    /// Whether it is to be told of a command that is not.
    pub(super) fn is_new_command(&self, command: &str) -> bool {
        is_new(&self.commands, command.to_owned())
    }
}

/// The hash of a text.
pub(super) fn sha1(text: &[u8]) -> ScriptHash {
    let mut hash = ScriptHash::default();
    hash.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, text).as_ref());
    hash
}

/// A hash as people and clients write it.
pub(super) fn to_hex(hash: &ScriptHash) -> String {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(2 * hash.len());
    for byte in hash {
        // A String takes all.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn from_hex(hex: &[u8]) -> Option<ScriptHash> {
    let mut hash = ScriptHash::default();
    if hex.len() != 2 * hash.len() {
        return None;
    }
    let (digits, _) = hex.as_chunks::<2>();
    for (byte, digits) in hash.iter_mut().zip(digits) {
        let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(hash)
}

/// The script with this text, if it is known.
pub(super) fn known(text: &[u8]) -> Option<Script> {
    table::find(&sha1(&plain(text)))
}

/// A text without what does not count.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match rest {
            [b'-', b'-', b'[', b'[', comment @ ..] => behind(comment, b"]]"),
            [b'-', b'-', comment @ ..] => behind(comment, b"\n"),
            _ => {
                match byte {
                    b'\'' => plain.push(b'"'),
                    byte if byte.is_ascii_whitespace() => {}
                    byte => plain.push(byte.to_ascii_lowercase()),
                }
                after
            }
        };
    }
    plain
}

/// What follows the end of a comment.
fn behind<'a>(comment: &'a [u8], end: &[u8]) -> &'a [u8] {
    let at = comment.windows(end.len()).position(|window| window == end);
    at.map_or(&[], |at| &comment[at + end.len()..])
}

#[cfg(test)]
mod tests;
