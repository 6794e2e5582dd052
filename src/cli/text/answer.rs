//! The answer to a command, on standard output. One that cannot be written (to a full disk) is a
//! failure. A reader who has gone away (`coordinator status | head -1`) is none.

use std::io;

use super::errors::{Failure, exit, reason};
use super::output::{try_print, try_raw};

/// Prints what was asked for.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    told(try_print(text))
}

/// The same; whether it has a reader, for those to whom one who has gone away matters.
pub(crate) fn print_read(text: &str) -> Result<bool, Failure> {
    let printed = try_print(text);
    let is_unread = printed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    told(printed).map(|()| !is_unread)
}

/// Prints a line that was asked for.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Writes bytes as they are, for papers that carry their own form.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    told(try_raw(bytes))
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
