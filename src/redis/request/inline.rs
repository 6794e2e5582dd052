//! Inline commands: a line of words, as somebody types it. Quotes hold a word together.

use super::{Malformed, Words};

/// Words with which a browser begins, or somebody who would have it say something to this port.
const FOREIGN: [(&[u8], &str); 5] = [
    (b"GET /", "HTTP"),
    (b"HEAD /", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"Host:", "HTTP"),
];

/// The words of a line.
pub(super) fn words(line: &[u8], max: usize) -> Result<Words, Malformed> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if let Some((_, what)) = FOREIGN.iter().find(|(start, _)| line.starts_with(start)) {
        return Err(Malformed::Foreign(what));
    }
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Malformed::NotText);
    }
    let (mut words, mut rest) = (Words::default(), line.trim_ascii_start());
    while !rest.is_empty() {
        if words.len() == max {
            return Err(Malformed::WordCount { max });
        }
        rest = word(rest, &mut words)?.trim_ascii_start();
    }
    Ok(words)
}

/// Takes one word; gives what follows it.
fn word<'a>(mut rest: &'a [u8], words: &mut Words) -> Result<&'a [u8], Malformed> {
    let Some(&quote @ (b'"' | b'\'')) = rest.first() else {
        let is_end = |byte: &u8| byte.is_ascii_whitespace();
        let end = rest.iter().position(is_end).unwrap_or(rest.len());
        words.push(&rest[..end]);
        return Ok(&rest[end..]);
    };
    rest = &rest[1..];
    loop {
        match *rest {
            [] => return Err(Malformed::UnbalancedQuotes),
            [b'\\', escaped, ref more @ ..] => {
                let byte = match (quote, escaped) {
                    (b'"', b'n') => b'\n',
                    (b'"', b'r') => b'\r',
                    (b'"', b't') => b'\t',
                    (b'\'', other) if other != b'\'' => {
                        words.add(b"\\");
                        other
                    }
                    (_, other) => other,
                };
                words.add(&[byte]);
                rest = more;
            }
            [byte, ref more @ ..] if byte == quote => {
                words.end();
                if more.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                    return Err(Malformed::UnbalancedQuotes);
                }
                return Ok(more);
            }
            [byte, ref more @ ..] => {
                words.add(&[byte]);
                rest = more;
            }
        }
    }
}
