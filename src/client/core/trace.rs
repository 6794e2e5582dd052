//! Traces: the life of a core as text, with every input and its time, and every output, one line
//! each.
//!
//! `scripts/traces` has the tests here and the simulations write down what their cores live
//! through, and makes a corpus of it, `docs/traces/`. Clients in other languages replay it and must
//! say the same (conformance). So must this core, or the corpus is made anew. `docs/protocol.md`
//! explains the lines.
//!
//! Only tests are built with this, and nothing is written unless `CORE_TRACE_DIR` is set.

use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use serde::Serialize;

use crate::types::Timestamp;
use crate::wire::{ClientMessage, encode_frame};

use super::{Core, Effect, End, Introduction, Reconnect, Refusal, Welcome};

/// A life is cut off after so many bytes: the beginning of one is one too.
const TRACE_BYTES_MAX: usize = 120_000;

/// What was written down so far.
#[derive(Default)]
pub(super) struct Trace {
    /// Where to; none: nothing is written.
    file: Option<PathBuf>,
    /// The lines.
    lines: String,
    /// The latest state that is among them.
    state: String,
}

// What was written down has proofs in it, which a core does not show.
impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

impl Trace {
    /// One that is written to the directory that the environment names.
    fn from_environment() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let file = std::env::var_os("CORE_TRACE_DIR").map(|directory| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("unnamed").replace("::", ".");
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            PathBuf::from(directory).join(format!("{name}-{}-{number}.trace", std::process::id()))
        });
        Self { file, lines: String::new(), state: String::new() }
    }

    /// One that is read back, by [`Trace::take`].
    pub(super) fn kept() -> Self {
        Self { file: Some(PathBuf::new()), lines: String::new(), state: String::new() }
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.lines)
    }

    fn is_on(&self) -> bool {
        self.file.is_some() && self.lines.len() < TRACE_BYTES_MAX
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(file) = self.file.take().filter(|file| !file.as_os_str().is_empty()) {
            std::fs::write(file, &self.lines).expect("CORE_TRACE_DIR is there");
        }
    }
}

impl Core {
    /// The first line.
    pub(super) fn note_new(
        &mut self,
        introduction: &Introduction,
        reconnect: Option<&Reconnect>,
        now: Timestamp,
    ) {
        self.trace = Trace::from_environment();
        if self.trace.is_on() {
            self.trace.lines = first_line(introduction, reconnect, now);
        }
    }

    /// An input.
    pub(super) fn note(&mut self, input: fmt::Arguments<'_>) {
        if self.trace.is_on() {
            self.note_state();
            let _ = writeln!(self.trace.lines, "{input}");
        }
    }

    /// An input with a message in it.
    pub(super) fn note_message(&mut self, input: fmt::Arguments<'_>, message: &impl Serialize) {
        if self.trace.is_on() {
            let message = hex(message);
            self.note(format_args!("{input} {message}"));
        }
    }

    /// What was to be said over the second connection.
    pub(super) fn note_said(&mut self, message: &ClientMessage) {
        if self.trace.is_on() {
            let _ = writeln!(self.trace.lines, "said {}", hex(message));
        }
    }

    /// Messages are taken.
    pub(super) fn note_sent(&mut self) {
        if self.trace.is_on() {
            self.note_state();
            self.trace.lines += "sent";
            for message in &self.messages {
                let _ = write!(self.trace.lines, " {}", hex(message));
            }
            self.trace.lines.push('\n');
        }
    }

    /// Effects are taken.
    pub(super) fn note_told(&mut self) {
        if self.trace.is_on() {
            self.note_state();
            self.trace.lines += "told";
            for effect in &self.effects {
                let _ = write!(self.trace.lines, " {}", told(effect));
            }
            self.trace.lines.push('\n');
        }
    }

    /// What can be seen of the core after the latest input, if that changed.
    pub(super) fn note_state(&mut self) {
        let state = self.state_line();
        if state != self.trace.state {
            let _ = writeln!(self.trace.lines, "{state}");
            self.trace.state = state;
        }
    }

    fn state_line(&self) -> String {
        format!(
            "state {} {} {} {} {} {} {} {}",
            or_none(self.next_deadline().map(Timestamp::as_micros)),
            or_none(self.connection()),
            or_none(self.second_connection()),
            if self.is_open() { "open" } else { "away" },
            or_none(self.lease().map(|lease| lease.believed_until().as_micros())),
            or_none(self.lease().map(|lease| lease.doubtful_from().as_micros())),
            ended(self.trouble()),
            or_none(self.hint(self.connection()).or_else(|| self.hint(self.second_connection()))),
        )
    }
}

fn first_line(
    introduction: &Introduction,
    reconnect: Option<&Reconnect>,
    now: Timestamp,
) -> String {
    format!(
        "new {} ttl={} linger={} attempt={} seed={} servers={} identity={}\n",
        now.as_micros(),
        introduction.ttl.map_or(0, crate::types::Ttl::as_millis),
        or_none(introduction.linger_ms),
        or_none(reconnect.map(|reconnect| reconnect.attempt_max.as_micros())),
        or_none(reconnect.map(|reconnect| reconnect.seed)),
        or_none(reconnect.map(|reconnect| reconnect.servers)),
        introduction.identity.replace(' ', "%20"),
    )
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// The payload of a message's frame.
fn hex(message: &impl Serialize) -> String {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).expect("it fits a frame");
    frame[4..].iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn ended(end: &End) -> String {
    match end {
        End::Closed => "closed".to_owned(),
        End::Disconnected => "disconnected".to_owned(),
        End::Silent(silence) => format!("silent/{}", silence.as_micros()),
        End::Dismissed { code, rejection, .. } => {
            format!("dismissed/{}/{}", code.number(), rejection.number())
        }
        End::Deposed { epoch } => format!("deposed/{epoch}"),
        End::Broken(_) => "broken".to_owned(),
    }
}

fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Rejected(rejection) => format!("rejected/{}", rejection.code.number()),
        Refusal::Lost(reason) => format!("lost/{}", reason.number()),
        Refusal::Away => "away".to_owned(),
        Refusal::Forgotten => "forgotten".to_owned(),
        Refusal::Ended => "ended".to_owned(),
    }
}

fn told(effect: &Effect) -> String {
    match effect {
        Effect::Welcomed(Welcome { session, epoch, ttl, secret, generation }) => format!(
            "welcomed:{session}:{:032x}:{generation}:{}:{}",
            secret.reveal(),
            epoch.number(),
            ttl.as_millis()
        ),
        Effect::Granted { request, token } => {
            format!("granted:{request}:{token}")
        }
        Effect::Replaced { request } => format!("replaced:{request}"),
        Effect::Queued { request, position } => format!("queued:{request}:{position}"),
        Effect::Refused { request, refusal } => {
            format!("refused:{request}:{}", refused(refusal))
        }
        Effect::Released { request, outcome } => {
            let outcome = outcome.as_ref().map_or_else(refused, |()| "ok".to_owned());
            format!("released:{request}:{outcome}")
        }
        Effect::Doubted { request, until } => {
            format!("doubted:{request}:{}", until.as_micros())
        }
        Effect::Confirmed { request } => format!("confirmed:{request}"),
        Effect::Lost { request, reason } => {
            format!("lost:{request}:{}", reason.number())
        }
        Effect::Seen { look, answer } => format!("seen:{look}:{}", hex(answer)),
        Effect::Interrupted { look } => format!("interrupted:{look}"),
        Effect::Unseen { look, refusal } => format!("unseen:{look}:{}", refused(refusal)),
    }
}
