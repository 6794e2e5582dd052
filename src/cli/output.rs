//! The only place that writes to standard output and standard error.
//!
//! Text may carry colours; they reach terminals only, and not there either if `NO_COLOR` is set. A
//! reader who has gone away (`coordinator status | head -1`) is no error.

use std::io::{self, Write};

/// Prints what was asked for.
pub(crate) fn print(text: &str) {
    put(&mut anstream::stdout(), text);
}

/// Prints a line that was asked for.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints a line of many; fails once nobody can read them any more.
pub(crate) fn try_line(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush())
}

/// Tells people something that is not the answer itself.
pub(crate) fn tell(text: &str) {
    put(&mut anstream::stderr(), &format!("{text}\n"));
}

/// Shows `text` in place of what was shown so before; on terminals only.
pub(crate) fn show_in_place(text: &str) {
    put(&mut anstream::stderr(), &format!("\r\x1b[K{text}"));
}

/// Writes bytes as they are, for papers that carry their own form.
pub(crate) fn raw(bytes: &[u8]) {
    let mut out = io::stdout();
    let _gone = out.write_all(bytes).and_then(|()| out.flush());
}

/// Nothing sensible can be done if the reader is gone, so nothing is.
fn put(out: &mut impl Write, text: &str) {
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
