//! The only place that writes to standard output and standard error.
//!
//! Text may carry colours; they reach terminals only, and not there either if `NO_COLOR` is set.

use std::io::{self, Write};

/// Prints text.
pub(super) fn try_print(text: &str) -> io::Result<()> {
    put(&mut anstream::stdout(), text.as_bytes())
}

/// Writes bytes as they are, for papers that carry their own form.
pub(super) fn try_raw(bytes: &[u8]) -> io::Result<()> {
    put(&mut io::stdout(), bytes)
}

/// Prints a line of many; fails once nobody can read them any more.
pub(crate) fn try_line(text: &str) -> io::Result<()> {
    put(&mut anstream::stdout(), format!("{text}\n").as_bytes())
}

/// Tells people something that is not the answer itself.
pub(crate) fn tell(text: &str) {
    // Nothing sensible can be done if nobody can be told.
    let _gone = put(&mut anstream::stderr(), format!("{text}\n").as_bytes());
}

/// Shows `text` in place of what was shown so before; on terminals only.
pub(crate) fn show_in_place(text: &str) {
    let _gone = put(&mut anstream::stderr(), format!("\r\x1b[K{text}").as_bytes());
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes).and_then(|()| out.flush())
}
