//! Answers, as both versions of RESP write them.

use std::borrow::Cow;

use bytes::BytesMut;

/// The version of the protocol that a client has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What everybody understands.
    #[default]
    Resp2,
    /// Maps are maps, and nothing has a sign of its own.
    Resp3,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A word of ours.
    Simple(&'static str),
    /// A *no*: a code in capitals, then a sentence.
    Error(Cow<'static, str>),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(Vec<u8>),
    /// Nothing, in the place of bytes.
    Nil,
    /// Nothing, in the place of an array.
    NilArray,
    /// Several.
    Array(Vec<Reply>),
    /// Pairs; for whoever does not know maps, an array.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// What most are answered.
    pub const OK: Self = Self::Simple("OK");

    /// Bytes of a text.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Bulk(text.as_ref().as_bytes().to_vec())
    }

    /// A *no* of ours.
    pub fn error(sentence: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(sentence.into())
    }

    /// Whether it is a *no*.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// Writes it behind what there is.
    pub fn print(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Self::Simple(word) => line(out, b'+', word.as_bytes()),
            Self::Error(sentence) => error(out, sentence),
            Self::Integer(number) => head(out, b':', *number),
            Self::Bulk(bytes) => {
                head(out, b'$', length(bytes.len()));
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Self::Nil | Self::NilArray if protocol == Protocol::Resp3 => {
                out.extend_from_slice(b"_\r\n");
            }
            Self::Nil => out.extend_from_slice(b"$-1\r\n"),
            Self::NilArray => out.extend_from_slice(b"*-1\r\n"),
            Self::Array(parts) => {
                head(out, b'*', length(parts.len()));
                for part in parts {
                    part.print(protocol, out);
                }
            }
            Self::Map(pairs) => {
                match protocol {
                    Protocol::Resp2 => head(out, b'*', length(2 * pairs.len())),
                    Protocol::Resp3 => head(out, b'%', length(pairs.len())),
                }
                for (key, value) in pairs {
                    key.print(protocol, out);
                    value.print(protocol, out);
                }
            }
        }
    }
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

fn head(out: &mut BytesMut, sign: u8, number: i64) {
    let (mut digits, mut at) = ([0; 20], 20);
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&[sign]);
    if number < 0 {
        out.extend_from_slice(b"-");
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut BytesMut, sign: u8, text: &[u8]) {
    out.extend_from_slice(&[sign]);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

/// An error is one line, whatever a client had it say: a line end in it would begin another answer.
fn error(out: &mut BytesMut, sentence: &str) {
    if !sentence.contains(['\r', '\n']) {
        return line(out, b'-', sentence.as_bytes());
    }
    line(out, b'-', sentence.replace("\r\n", " ").replace(['\r', '\n'], " ").as_bytes());
}

impl From<Vec<Reply>> for Reply {
    fn from(parts: Vec<Reply>) -> Self {
        Self::Array(parts)
    }
}
