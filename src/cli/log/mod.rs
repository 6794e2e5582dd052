//! The log of `coordinator serve`: on standard error, a line an event.
//!
//! A logging thread makes a line, no longer than [`LINE_LEN_MAX`], and leaves the writing to the
//! thread of the [queue](self::queue). A standard error that nobody reads stops nothing. The filter
//! can be another one from any moment on.
//!
//! A line is text, or an object of JSON with the keys `ts`, `level`, `target` and `msg`, and a key for
//! each field. Where standard error is the journal of systemd, which knows the time, text carries none.

mod json;
mod queue;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use log::kv::{self, Key, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};

use self::queue::Queue;
use crate::cli::settings::values::Value;
use crate::cli::text::visible::Escaper;

/// Longest line, in bytes, with its end.
pub(crate) const LINE_LEN_MAX: usize = 1024;
/// At the end of a line that was longer.
pub(crate) const CUT: &str = " … (cut)";
/// The part of the program that speaks of the log itself.
const OWN: &str = "coordinator::log";
/// How long the end of the process waits for the last lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// What was asked for by a signal is told whatever the filter says.
const ASKED_FOR: &str = "coordinator::summary";

/// Levels, as people write them.
pub(crate) const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What to log: a level, or a list of levels by target as in `RUST_LOG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter(pub(crate) String);

impl Value for Filter {
    /// A word that is no level would be taken for a target, and the log would fall silent.
    fn parse(text: &str) -> Result<Self, String> {
        let directives = text.split('/').next().unwrap_or_default();
        for directive in directives.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let level = match directive.split_once('=') {
                Some((_, level)) => level,
                None if directive.contains("::") || directive == "coordinator" => continue,
                None => directive,
            };
            if !LEVELS.contains(&level.to_lowercase().as_str()) {
                return Err(format!(
                    "{level:?} is not a level; expected one of {}",
                    LEVELS.join(", ")
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Filter {
    /// Whether a filter in `RUST_LOG` says anything about us, because everything written in Rust
    /// listens to it. One that only names the parts of others would silence our log.
    pub(crate) fn concerns_us(text: &str) -> bool {
        let directives = text.split('/').next().unwrap_or_default();
        let is_ours = |directive: &str| {
            let target = directive.split('=').next().unwrap_or_default();
            target.starts_with("coordinator") || LEVELS.contains(&directive.to_lowercase().as_str())
        };
        Self::parse(text).is_ok() && directives.split(',').map(str::trim).any(is_ours)
    }

    fn build(&self) -> env_filter::Filter {
        env_filter::Builder::new().parse(&self.0).build()
    }
}

/// The log of this process, once it is started.
static LOG: OnceLock<Arc<Logger>> = OnceLock::new();

/// Makes lines of records.
struct Logger {
    /// Filter of lines.
    filter: RwLock<env_filter::Filter>,
    /// How lines look.
    look: Look,
    /// Where they go.
    queue: Queue,
}

/// How lines look.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Whether lines say when.
    time: Time,
    /// Whether levels have colours.
    color: ColorChoice,
    /// Of what lines are made.
    format: LogFormat,
}

/// Of what lines of the log are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Words, and fields behind them.
    Text,
    /// An object each.
    Json,
}

impl Value for LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// Whether lines say when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// They do.
    Told,
    /// The reader of the log adds it.
    Known,
}

/// Starts logging. Called once, by the command that serves.
///
/// # Errors
///
/// If there is no thread for it.
pub(crate) fn start(filter: &Filter, format: LogFormat) -> io::Result<()> {
    let journal = env::var("JOURNAL_STREAM").ok();
    let time = match journal {
        Some(journal) if is_stream(io::stderr(), &journal) => Time::Known,
        Some(_) | None => Time::Told,
    };
    let look = Look { time, color: AutoStream::choice(&io::stderr()), format };
    let filter = RwLock::new(filter.build());
    let logger = Arc::new(Logger { filter, look, queue: Queue::default() });
    let writer = Arc::clone(&logger);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        writer.queue.write_all(io::stderr(), |text| look.own(Level::Warn, text));
    })?;
    // Somebody else's logger is as good.
    if log::set_boxed_logger(Box::new(Front(Arc::clone(&logger)))).is_ok() {
        log::set_max_level(logger.max_level());
    }
    // The usual report of a panic is written to standard error by whoever panics, and waits for it.
    let to_tell = Arc::clone(&logger);
    panic::set_hook(Box::new(move |info| to_tell.panicked(info)));
    let _only_once = LOG.set(logger);
    Ok(())
}

/// Whether a stream is the one that systemd says is its journal, by `device:inode`. A child may have
/// been given another one, with the same environment.
fn is_stream(stream: impl AsFd, journal: &str) -> bool {
    let stat = rustix::fs::fstat(stream);
    stat.is_ok_and(|stat| journal == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Logs by another filter from now on.
pub(crate) fn set_filter(filter: &Filter) {
    if let Some(logger) = LOG.get() {
        *logger.filter.write().unwrap_or_else(PoisonError::into_inner) = filter.build();
        log::set_max_level(logger.max_level());
    }
}

/// Logs what was asked for by a signal, whatever the filter.
pub(crate) fn tell(text: &str) {
    log::info!(target: ASKED_FOR, "{text}");
}

/// How many lines were dropped because nobody read them.
pub(crate) fn dropped() -> u64 {
    LOG.get().map_or(0, |logger| logger.queue.dropped_ever())
}

/// Writes the last words of this process, lines with their ends, behind the log: as far as that can be
/// done within [`FLUSH_MAX`].
pub(crate) fn end(last_words: &str) {
    if let Some(logger) = LOG.get() {
        let plain = anstream::adapter::strip_str(last_words).to_string();
        let text = if logger.look.color == ColorChoice::Never { &plain } else { last_words };
        logger.queue.put(text.as_bytes());
        logger.queue.flush(FLUSH_MAX);
    }
}

impl Logger {
    fn is_enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == ASKED_FOR || self.filter().enabled(metadata)
    }

    fn filter(&self) -> std::sync::RwLockReadGuard<'_, env_filter::Filter> {
        self.filter.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reaches us at all: info in any case, for what is asked for.
    fn max_level(&self) -> LevelFilter {
        self.filter().filter().max(LevelFilter::Info)
    }

    /// Tells of a panic: what the standard library would, but for the waiting.
    fn panicked(&self, info: &panic::PanicHookInfo<'_>) {
        let said = format!("{info}");
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => backtrace.to_string(),
            _ => String::new(),
        };
        for text in said.lines().chain(backtrace.lines()) {
            self.queue.put(self.look.own(Level::Error, text).as_bytes());
        }
        self.queue.flush(FLUSH_MAX);
    }
}

/// What the facade is given; it wants one that is all its own.
struct Front(Arc<Logger>);

impl Log for Front {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.is_enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        let Self(logger) = self;
        if record.target() == ASKED_FOR || logger.filter().matches(record) {
            logger.queue.put(logger.look.line(record).as_bytes());
        }
    }

    fn flush(&self) {
        self.0.queue.flush(FLUSH_MAX);
    }
}

impl Look {
    /// A line of what the log has to say about itself.
    fn own(self, level: Level, text: &str) -> String {
        let mut record = Record::builder();
        self.line(&record.level(level).target(OWN).args(format_args!("{text}")).build())
    }

    /// A line with its end.
    fn line(self, record: &Record<'_>) -> String {
        match self.format {
            LogFormat::Text => self.text(record),
            LogFormat::Json => json::object(record, SystemTime::now()),
        }
    }

    fn text(self, record: &Record<'_>) -> String {
        let level = record.level();
        let mut line = Line::default();
        if self.time == Time::Told {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            let _infallible = write!(line.text, "{now} ");
        }
        let style = match self.color {
            ColorChoice::Never => Style::new(),
            ColorChoice::Auto | ColorChoice::AlwaysAnsi | ColorChoice::Always => style_of(level),
        };
        let _infallible = write!(line.text, "{style}{level:<5}{style:#} ");
        // It ends early if it is too long.
        let _cut = line.tell(record);
        line.finish()
    }
}

fn style_of(level: Level) -> Style {
    match level {
        Level::Error => AnsiColor::Red.on_default().bold(),
        Level::Warn => AnsiColor::Yellow.on_default(),
        Level::Info => AnsiColor::Green.on_default(),
        Level::Debug => AnsiColor::Blue.on_default(),
        Level::Trace => AnsiColor::Cyan.on_default(),
    }
}

/// A line in the making. It takes no more than fits, so that no work is put into the rest, and
/// nothing that a terminal could misread, line ends included.
#[derive(Default)]
struct Line {
    /// The text so far.
    text: String,
    /// Makes visible what comes.
    escaper: Escaper,
    /// Whether more came than fits.
    is_cut: bool,
}

impl Line {
    /// What a record says: its words, its fields, and where it is from.
    fn tell(&mut self, record: &Record<'_>) -> fmt::Result {
        write!(self, "{}", record.args())?;
        let _told = record.key_values().visit(&mut FieldsAsText { line: self, last: None });
        // Other crates' lines must not be taken for ours.
        let target = record.target();
        let is_ours = target.starts_with("coordinator") && record.level() < Level::Trace;
        if is_ours { Ok(()) } else { write!(self, " [{target}]") }
    }

    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str(CUT);
        }
        self.text.push('\n');
        self.text
    }
}

/// Writes fields behind the words: ` lock="a","b" token=7`.
struct FieldsAsText<'a, 'k> {
    /// Where to.
    line: &'a mut Line,
    /// The name of the field before: one that comes again goes on.
    last: Option<Key<'k>>,
}

impl<'k> VisitSource<'k> for FieldsAsText<'_, 'k> {
    fn visit_pair(&mut self, key: Key<'k>, value: kv::Value<'k>) -> Result<(), kv::Error> {
        match &self.last {
            Some(last) if *last == key => write!(self.line, ",")?,
            Some(_) | None => write!(self.line, " {key}=")?,
        }
        self.last = Some(key);
        match value.to_borrowed_str() {
            Some(text) => write!(self.line, "{text:?}")?,
            None => write!(self.line, "{value}")?,
        }
        Ok(())
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            let before = self.text.len();
            self.escaper.push(c, &mut self.text);
            if self.text.len() + CUT.len() + 1 > LINE_LEN_MAX {
                self.text.truncate(before);
                self.is_cut = true;
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
