//! The state machine that a journal is replayed into.

use std::io::{self, Write};

/// A state that records are applied to: the same ones in the same order make the same machine.
pub trait Machine {
    /// Goes one record on.
    ///
    /// # Errors
    ///
    /// If the record says nothing that can be done, in words for the log.
    fn apply(&mut self, number: u64, record: &[u8]) -> Result<(), String>;

    /// Writes down all of it, so that it can be made again.
    ///
    /// # Errors
    ///
    /// If `to` does not take it.
    fn checkpoint(&self, to: &mut dyn Write) -> io::Result<()>;
}
