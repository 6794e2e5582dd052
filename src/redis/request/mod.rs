//! Requests of RESP, cut out of a stream: however they come in pieces, and bounded whatever they claim.
//!
//! A client says an array of strings, in both versions of the protocol:
//!
//! ```text
//!   *3\r\n $3\r\nSET\r\n $5\r\norder\r\n $4\r\nmine\r\n
//! ```
//!
//! Whoever types into a terminal says a line instead (*inline command*). Nothing else is a request: no
//! number, no map, no array in an array.
//!
//! *Bounded.* No memory is taken for what is only claimed. A word is copied once, as its bytes come, and
//! no byte is looked at twice however slowly they come. Before a peer has proven who it is, it may say
//! less.

mod inline;
mod words;

use bytes::{Buf, BytesMut};

pub use self::words::Words;

/// Most words of a request: a script with as many keys and values as a request of locks may have.
pub const WORDS_MAX: usize = 192;
/// Longest word, in bytes: a script.
pub const WORD_BYTES_MAX: usize = 64 * 1024;
/// Most bytes that all words of a request have together.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;
/// The same of an inline command.
pub const INLINE_BYTES_MAX: usize = 4 * 1024;
/// Most words before it is proven who speaks.
pub const WORDS_UNPROVEN_MAX: usize = 10;
/// Longest word until then.
pub const WORD_UNPROVEN_BYTES_MAX: usize = 4 * 1024;
/// Longest number: of more digits there is none that counts something.
const DIGITS_MAX: usize = 20;
/// Longest line that says how much follows: its first byte, the number, and the end.
const COUNT_LINE_BYTES_MAX: usize = 1 + DIGITS_MAX + 2;
/// What begins a record of TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// Why what a peer says is no request. Nothing that follows can be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The number of words is no number, or there would be too many.
    #[error("invalid multibulk length, at most {max} are allowed")]
    WordCount {
        /// How many there may be.
        max: usize,
    },
    /// The length of a word is no number, or it would be too long.
    #[error("invalid bulk length, at most {max} are allowed")]
    WordLength {
        /// How long one may be.
        max: usize,
    },
    /// All words together would be too long.
    #[error("too big request, at most {REQUEST_BYTES_MAX} bytes are allowed")]
    TooBig,
    /// In the place of a word there is something else.
    #[error("expected '$', got '{}'", .got.escape_ascii())]
    NotAString {
        /// Its first byte.
        got: u8,
    },
    /// A word is not followed by the end of its line.
    #[error("a word goes on behind its length")]
    NoLineEnd,
    /// An inline command is too long.
    #[error("too big inline request, at most {INLINE_BYTES_MAX} bytes are allowed")]
    InlineTooBig,
    /// A quote in an inline command is not closed.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline command holds a byte that nobody types.
    #[error("neither an array nor a line of text")]
    NotText,
    /// The peer means another kind of port.
    #[error("this port speaks the protocol of Redis, and that was {0}")]
    Foreign(&'static str),
}

/// How much a peer may say in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    words: usize,
    word_bytes: usize,
}

/// Cuts requests out of a stream.
#[derive(Debug)]
pub struct Requests {
    /// How much one may have.
    bounds: Bounds,
    /// So much of what is unread holds no line end.
    scanned: usize,
    /// The request that has begun.
    begun: Option<Begun>,
    /// Why nothing is understood any more.
    malformed: Option<Malformed>,
    /// Memory for the next request.
    spare: Words,
}

/// A request of which the beginning has come.
#[derive(Debug)]
struct Begun {
    /// What there is of it.
    words: Words,
    /// How many words are to come, that which has begun included.
    left: usize,
    /// How many bytes of the word that has begun are to come, if one has.
    word_left: Option<usize>,
}

impl Default for Requests {
    fn default() -> Self {
        Self::unproven()
    }
}

impl Requests {
    /// Those of a peer that may yet be anybody.
    pub fn unproven() -> Self {
        let bounds = Bounds { words: WORDS_UNPROVEN_MAX, word_bytes: WORD_UNPROVEN_BYTES_MAX };
        Self { bounds, scanned: 0, begun: None, malformed: None, spare: Words::default() }
    }

    /// Takes the memory of a request that is understood, for the next one.
    pub fn reuse(&mut self, words: Words) {
        self.spare = words.cleared();
    }

    /// From now on, the peer may say as much as anybody.
    pub fn trust(&mut self) {
        self.bounds = Bounds { words: WORDS_MAX, word_bytes: WORD_BYTES_MAX };
    }

    /// So many bytes are kept of a request that has begun.
    pub fn kept(&self) -> usize {
        self.begun.as_ref().map_or(0, |begun| begun.words.bytes())
    }

    /// Takes the next request out of what is unread; none if it has not come whole. Empty ones are passed
    /// over, as they are by Redis.
    ///
    /// # Errors
    ///
    /// If it is none. Then there is no next one, and it is said again.
    pub fn next(&mut self, unread: &mut BytesMut) -> Result<Option<Words>, Malformed> {
        if let Some(malformed) = &self.malformed {
            return Err(malformed.clone());
        }
        let next = self.advance(unread);
        if let Err(malformed) = &next {
            self.malformed = Some(malformed.clone());
            self.begun = None;
        }
        next
    }

    fn advance(&mut self, unread: &mut BytesMut) -> Result<Option<Words>, Malformed> {
        loop {
            if self.begun.is_none() {
                match unread.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(count) = self.count(unread) else { return Ok(None) };
                        self.begin(count)?;
                    }
                    Some(&TLS_HANDSHAKE) => return Err(Malformed::Foreign("TLS")),
                    Some(_) => match self.line(unread)? {
                        Some(words) if words.is_empty() => {}
                        words => return Ok(words),
                    },
                }
                continue;
            }
            if !self.take_words(unread)? {
                return Ok(None);
            }
            if let Some(Begun { words, .. }) = self.begun.take() {
                return Ok(Some(words));
            }
        }
    }

    /// A request of so many words begins, or an empty one is over.
    fn begin(&mut self, count: Option<i64>) -> Result<(), Malformed> {
        let max = self.bounds.words;
        let count = count.ok_or(Malformed::WordCount { max })?;
        match usize::try_from(count) {
            Ok(0) | Err(_) => Ok(()),
            Ok(left) if left <= max => {
                let words = std::mem::take(&mut self.spare);
                self.begun = Some(Begun { words, left, word_left: None });
                Ok(())
            }
            Ok(_) => Err(Malformed::WordCount { max }),
        }
    }

    /// Takes what there is of the words. Says whether that is all of them.
    fn take_words(&mut self, unread: &mut BytesMut) -> Result<bool, Malformed> {
        let max = self.bounds.word_bytes;
        loop {
            let Some(begun) = &mut self.begun else { return Ok(true) };
            if begun.left == 0 {
                return Ok(true);
            }
            match begun.word_left {
                None => {
                    match unread.first() {
                        None => return Ok(false),
                        Some(b'$') => {}
                        Some(&got) => return Err(Malformed::NotAString { got }),
                    }
                    let before = begun.words.bytes();
                    let Some(length) = self.count(unread) else { return Ok(false) };
                    let length = length.and_then(|length| usize::try_from(length).ok());
                    let length = length.filter(|length| *length <= max);
                    let length = length.ok_or(Malformed::WordLength { max })?;
                    if before + length > REQUEST_BYTES_MAX {
                        return Err(Malformed::TooBig);
                    }
                    if let Some(begun) = &mut self.begun {
                        begun.word_left = Some(length);
                    }
                }
                Some(0) => {
                    let Some(end) = unread.first_chunk::<2>() else { return Ok(false) };
                    if end != b"\r\n" {
                        return Err(Malformed::NoLineEnd);
                    }
                    unread.advance(2);
                    begun.words.end();
                    (begun.left, begun.word_left) = (begun.left - 1, None);
                }
                Some(left) => {
                    let now = left.min(unread.len());
                    if now == 0 {
                        return Ok(false);
                    }
                    begun.words.add(&unread[..now]);
                    unread.advance(now);
                    begun.word_left = Some(left - now);
                }
            }
        }
    }

    /// The number on the line that comes next, behind its first byte. None: it has not come whole. In it,
    /// none: that is no number.
    #[expect(clippy::option_option, reason = "two questions, both answered by their caller")]
    fn count(&mut self, unread: &mut BytesMut) -> Option<Option<i64>> {
        let Some(end) = self.line_end(unread) else {
            return (unread.len() > COUNT_LINE_BYTES_MAX).then_some(None);
        };
        let line = &unread[..=end];
        let digits = line.get(1..end.saturating_sub(1)).filter(|_| line.ends_with(b"\r\n"));
        let number = digits.filter(|it| it.len() <= DIGITS_MAX).and_then(number);
        unread.advance(end + 1);
        Some(number)
    }

    /// The words of an inline command. None: it has not come whole.
    fn line(&mut self, unread: &mut BytesMut) -> Result<Option<Words>, Malformed> {
        let Some(end) = self.line_end(unread) else {
            let is_long = unread.len() > INLINE_BYTES_MAX;
            return if is_long { Err(Malformed::InlineTooBig) } else { Ok(None) };
        };
        if end > INLINE_BYTES_MAX {
            return Err(Malformed::InlineTooBig);
        }
        let line = unread.split_to(end + 1);
        inline::words(&line[..end], self.bounds.words).map(Some)
    }

    /// Where the first line ends.
    fn line_end(&mut self, unread: &BytesMut) -> Option<usize> {
        let from = self.scanned.min(unread.len());
        let found = unread[from..].iter().position(|byte| *byte == b'\n');
        self.scanned = if found.is_some() { 0 } else { unread.len() };
        found.map(|at| from + at)
    }
}

/// A whole number as the protocol writes it.
pub(super) fn number(digits: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match digits {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_i64;
    for digit in digits {
        let digit = i64::from(digit.wrapping_sub(b'0'));
        if digit > 9 {
            return None;
        }
        // Below nothing, where there is room for one more.
        number = number.checked_mul(10)?.checked_sub(digit)?;
    }
    if is_negative { Some(number) } else { number.checked_neg() }
}
