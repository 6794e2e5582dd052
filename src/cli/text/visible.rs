//! Text of strangers, made visible: what a terminal could misread is shown escaped.
//!
//! Names, notes and identities come from clients, and messages from whatever answers at an address.
//! A character that is invisible, or moves its neighbours, appears as `\u{202e}`. These are
//! controls, overrides of the direction, zero widths, blanks other than the plain one, and
//! unassigned code points. Quotes tell where a text begins and ends wherever that could be in
//! doubt.
//!
//! The standard library knows the printable characters, and escapes the rest for [`Debug`]. It
//! leaves out some invisible letters and marks, listed here.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Marks that may stand on one letter. Real scripts need three; hundreds would cover other lines.
const MARKS_PER_LETTER_MAX: usize = 4;

/// Takes characters one after the other, and writes each so that it can be seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Escaper {
    /// Whether there is a letter that marks can stand on.
    on_letter: bool,
    /// How many stand on it.
    marks: usize,
}

/// What a terminal makes of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Shows it.
    Plain,
    /// Shows it on the one before.
    Mark,
    /// Shows nothing, or something else.
    Misread,
}

impl Kind {
    fn of(c: char) -> Self {
        if matches!(c, ' '..='~') {
            return Self::Plain;
        }
        if c.is_whitespace() || shows_nothing(c) {
            return Self::Misread;
        }
        // Behind a letter, `Debug` escapes what is not printable; alone, a mark as well.
        let mut buffer = *b"a\0\0\0\0";
        let end = 1 + c.encode_utf8(&mut buffer[1..]).len();
        let is_printable = std::str::from_utf8(&buffer[..end])
            .is_ok_and(|behind_a_letter| behind_a_letter.escape_debug().count() == 2);
        match (is_printable, c.escape_debug().count()) {
            (false, _) => Self::Misread,
            (true, 1) => Self::Plain,
            (true, _) => Self::Mark,
        }
    }
}

/// Letters and marks without a form of their own (Unicode's `Default_Ignorable_Code_Point`), as far as
/// they are not of a category that is never printable.
fn shows_nothing(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

impl Escaper {
    /// Writes `c`, escaped if need be; says whether it was written as it is.
    pub(crate) fn push(&mut self, c: char, out: &mut String) -> bool {
        let kind = Kind::of(c);
        let as_it_is = match kind {
            Kind::Plain => true,
            Kind::Mark => self.on_letter && self.marks < MARKS_PER_LETTER_MAX,
            Kind::Misread => false,
        };
        if as_it_is {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
        match kind {
            Kind::Mark if as_it_is => self.marks += 1,
            Kind::Plain | Kind::Mark | Kind::Misread => {
                *self = Self { on_letter: kind == Kind::Plain && c != ' ', marks: 0 };
            }
        }
        as_it_is
    }
}

/// `text` with what could be misread escaped, and nothing else changed: for whole sentences.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut escaper) = (String::with_capacity(text.len()), Escaper::default());
    for c in text.chars() {
        escaper.push(c, &mut shown);
    }
    Cow::Owned(shown)
}

/// `text` between quotes: for names in sentences.
pub(crate) fn quoted(text: &str) -> String {
    let (mut shown, mut escaper) = (String::from('"'), Escaper::default());
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            shown.push('\\');
        }
        escaper.push(c, &mut shown);
    }
    shown.push('"');
    shown
}

/// `text` between quotes, with everything escaped that is not ASCII: for what looks like something else.
pub(crate) fn spelled(text: &str) -> String {
    let spell = |c: char| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() };
    quoted(text).chars().map(spell).collect()
}

/// What is seen of a character: nothing of some, and a blank is a blank.
pub(crate) fn as_seen(c: char) -> Option<char> {
    match Kind::of(c) {
        Kind::Plain | Kind::Mark => Some(c),
        Kind::Misread if c.is_whitespace() => Some(' '),
        Kind::Misread => None,
    }
}

/// `text` as a cell of a table. It is quoted if its reader could be wrong about what it is, where
/// it ends, or who wrote what stands in brackets.
pub(crate) fn cell(text: &str) -> String {
    if is_tame(text) && !text.contains(" (") && !text.contains(" [") {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// Who someone says to be: as it is, if that is a word, or one as `coordinator lock --as` makes it,
/// `ci-7 (ann@build7, pid 8123)`. Anything else could be taken for what we say of others, and is quoted.
pub(crate) fn identity(text: &str) -> Cow<'_, str> {
    let is_word = |text: &str| {
        let ours = [' ', '(', ')', '[', ']', ','];
        !text.is_empty() && is_tame(text) && !text.contains(ours) && text != "nobody"
    };
    let is_given = || {
        let (name, rest) = text.split_once(" (")?;
        let (user_at_host, pid) = rest.strip_suffix(')')?.split_once(", pid ")?;
        let is_pid = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
        Some(is_word(name) && is_word(user_at_host) && is_pid)
    };
    if is_word(text) || is_given() == Some(true) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(quoted(text))
    }
}

/// Whether a text can stand without quotes between others.
fn is_tame(text: &str) -> bool {
    text == text.trim() && !text.starts_with('"') && !text.contains("  ") && escaped(text) == text
}

/// JSON with what could be misread escaped, which changes nothing of what it says: outside of strings
/// there is no such character.
pub(crate) fn json(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        // What JSON itself has between values.
        if c == '\n' || Kind::of(c) != Kind::Misread {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let _infallible = write!(shown, "\\u{unit:04x}");
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind that a terminal misreads.
    const MISREAD: [char; 26] = [
        '\u{1b}',
        '\n',
        '\u{7f}',
        '\u{85}',
        '\u{9b}',
        '\u{a0}',
        '\u{ad}',
        '\u{34f}',
        '\u{61c}',
        '\u{115f}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{202a}',
        '\u{202e}',
        '\u{2028}',
        '\u{2029}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{3000}',
        '\u{feff}',
        '\u{e000}',
        '\u{ffff}',
        '\u{e0041}',
    ];

    #[test]
    fn what_a_terminal_could_misread_is_escaped_in_every_form() {
        for c in MISREAD {
            let text = format!("a{c}b");
            let all = [escaped(&text).into_owned(), quoted(&text), cell(&text)];
            for shown in all.into_iter().chain([identity(&text).into_owned(), json(&text)]) {
                let is_json_blank = c == '\n' && shown == text;
                assert!(!shown.contains(c) || is_json_blank, "{c:?} in {shown}");
                assert!(shown.contains('\\') || is_json_blank, "{c:?} in {shown}");
            }
        }
    }

    #[test]
    fn letters_of_all_scripts_are_shown_as_they_are() {
        for text in
            ["deploy", "größer", "cafe\u{301}", "部署", "развёртывание", "งาน", "🔒", "שלום"]
        {
            assert_eq!(escaped(text), text);
            assert_eq!(cell(text), text);
            assert_eq!(quoted(text), format!("\"{text}\""));
        }
    }

    #[test]
    fn marks_stand_on_letters_and_only_a_few_on_each() {
        assert_eq!(escaped("\u{301}a"), "\\u{301}a");
        assert_eq!(escaped("a \u{301}"), "a \\u{301}");
        let on_one = |marks| format!("a{}", "\u{301}".repeat(marks));
        assert_eq!(escaped(&on_one(MARKS_PER_LETTER_MAX)), on_one(MARKS_PER_LETTER_MAX));
        let one_past = format!("{}\\u{{301}}", on_one(MARKS_PER_LETTER_MAX));
        assert_eq!(escaped(&on_one(MARKS_PER_LETTER_MAX + 1)), one_past);
    }

    #[test]
    fn a_cell_is_quoted_where_its_end_or_its_author_could_be_in_doubt() {
        for plain in ["orders/42", "deploy v2.3", "it's", "a\\b", "f(x)"] {
            assert_eq!(cell(plain), plain);
        }
        assert_eq!(cell("deploy "), "\"deploy \"");
        assert_eq!(cell("   "), "\"   \"");
        assert_eq!(cell("a  4m  7"), "\"a  4m  7\"");
        assert_eq!(cell("\"a\""), "\"\\\"a\\\"\"");
        assert_eq!(cell("a (looks like another name)"), "\"a (looks like another name)\"");
    }

    #[test]
    fn an_identity_cannot_say_what_we_say() {
        for plain in ["ann@b7:8", "ci-7", "ci-7 (ann@b7, pid 8)"] {
            assert_eq!(identity(plain), plain);
        }
        for forged in [
            "ann@b7:8 (10.0.0.9)",
            "ci-7 (ann@b7, pid 8, 10.0.0.9)",
            "ci-7 (ann@b7, pid 8) [disconnected]",
            "ann  4m  7",
            "nobody",
            "eve owner 7",
            "eve, ann",
        ] {
            assert_eq!(identity(forged), format!("\"{forged}\""));
        }
    }

    #[test]
    fn escaped_json_says_the_same() {
        let text: String = MISREAD.into_iter().chain("\u{1f512}\"\\é".chars()).collect();
        let shown = json(&serde_json::to_string(&text).unwrap());
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        assert!(!shown.contains(['\u{2028}', '\u{2029}', '\u{85}', '\u{202e}']), "{shown}");
    }
}
