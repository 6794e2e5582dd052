//! The words of a request, in one piece of memory.

use std::fmt;

use smallvec::SmallVec;

/// So much memory is kept for the next request.
const BYTES_KEPT_MAX: usize = 4 * 1024;

/// A request, word by word. A command has few words, so their ends need no memory of their own.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// All words, one behind the other.
    bytes: Vec<u8>,
    /// Where each of them ends.
    ends: SmallVec<[u32; 8]>,
}

impl Words {
    /// These words.
    pub fn of<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut all = Self::default();
        for word in words {
            all.push(word);
        }
        all
    }

    /// None, with the memory of these if that is little.
    pub(super) fn cleared(mut self) -> Self {
        if self.bytes.capacity() > BYTES_KEPT_MAX {
            return Self::default();
        }
        self.bytes.clear();
        self.ends.clear();
        self
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// How many bytes they have together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The word at a place.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)? as usize;
        let start = at.checked_sub(1).and_then(|before| self.ends.get(before));
        self.bytes.get(start.map_or(0, |start| *start as usize)..end)
    }

    /// All of them from a place on.
    pub fn from(&self, at: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        (at..self.len().max(at)).map(|at| self.get(at).unwrap_or_default())
    }

    /// One more. There are never so many bytes that their number does not fit.
    pub(super) fn push(&mut self, word: &[u8]) {
        self.bytes.extend_from_slice(word);
        self.end();
    }

    /// What was added is a word.
    pub(super) fn end(&mut self) {
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }

    /// A part of a word.
    pub(super) fn add(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = self.from(0).map(|word| String::from_utf8_lossy(word).into_owned());
        f.debug_list().entries(words).finish()
    }
}
