//! All that happens in a run, line by line, and what it comes to: two runs with the same seed must
//! come to the same.

#![allow(clippy::print_stdout, reason = "a trace is shown to whoever asks for it")]

use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

/// What becomes of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Only their digest is kept.
    Digested,
    /// They are kept.
    Kept,
    /// They are printed at once.
    Printed,
}

/// Where everybody writes down what happens. No line says anything that is random by the operating
/// system, as names of sessions are.
#[derive(Clone)]
pub(super) struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    /// When the run began.
    origin: Instant,
    /// What is done with lines.
    lines: Lines,
    /// Those that are kept.
    kept: Vec<String>,
    /// The current one, kept for its memory.
    line: String,
    /// Of all so far.
    digest: DefaultHasher,
}

impl Trace {
    /// One that begins now.
    pub(super) fn new(lines: Lines) -> Self {
        let (origin, digest) = (Instant::now(), DefaultHasher::new());
        Self(Arc::new(Mutex::new(Inner {
            origin,
            lines,
            kept: vec![],
            line: String::new(),
            digest,
        })))
    }

    /// Microseconds since the beginning.
    pub(super) fn now_us(&self) -> u64 {
        let origin = self.0.lock().unwrap().origin;
        u64::try_from(origin.elapsed().as_micros()).unwrap()
    }

    /// Writes a line down.
    pub(super) fn say(&self, what: fmt::Arguments<'_>) {
        let Inner { origin, lines, kept, line, digest } = &mut *self.0.lock().unwrap();
        line.clear();
        let at = origin.elapsed().as_micros();
        write!(line, "{at:>12} {what}").unwrap();
        digest.write(line.as_bytes());
        match lines {
            Lines::Digested => {}
            Lines::Kept => kept.push(line.clone()),
            Lines::Printed => println!("{line}"),
        }
    }

    /// What all lines come to.
    pub(super) fn digest(&self) -> u64 {
        self.0.lock().unwrap().digest.finish()
    }

    /// The lines that were kept.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().kept)
    }
}
