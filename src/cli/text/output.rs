//! The only place that writes to standard output and standard error.
//!
//! Text may carry colours; they reach terminals only, and not there either if `NO_COLOR` is set. A
//! reader who has gone away (`coordinator status | head -1`) is no error. Output that cannot be
//! written (to a full disk) is one.

use std::io::{self, Write};

use super::errors::{Failure, exit, reason};

/// Prints what was asked for.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    told(put(&mut anstream::stdout(), text.as_bytes()))
}

/// Prints a line that was asked for.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Prints a line of many; fails once nobody can read them any more.
pub(crate) fn try_line(text: &str) -> io::Result<()> {
    put(&mut anstream::stdout(), format!("{text}\n").as_bytes())
}

/// Writes bytes as they are, for papers that carry their own form.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    told(put(&mut io::stdout(), bytes))
}

/// What it means that something was written, or was not.
pub(crate) fn told(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let why = reason(&error);
            Err(Failure::new(exit::NOT_WRITTEN, format!("cannot write the output ({why})")))
        }
        _ => Ok(()),
    }
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
