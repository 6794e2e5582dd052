//! The log of `coordinator serve`: on standard error, a line an event.
//!
//! Whoever logs makes a line, no longer than [`LINE_LEN_MAX`], and leaves the writing to the thread of
//! the [queue](super::log_queue): a standard error that nobody reads stops nothing. The filter can be
//! another one from any moment on.
//!
//! Under systemd the journal knows the time, so lines carry none there.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt::{self, Write as _};
use std::io;
use std::panic;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::log_queue::Queue;
use super::values::Value;
use super::visible::Escaper;

/// Longest line, in bytes, with its end.
const LINE_LEN_MAX: usize = 1024;
/// At the end of a line that was longer.
const CUT: &str = " … (cut)";
/// How long the end of the process waits for the last lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// What was asked for by a signal is told whatever the filter says.
const ASKED_FOR: &str = "coordinator::summary";

/// Levels, as people write them.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

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
                return Err(format!("and {level:?} is none of {}", LEVELS.join(", ")));
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Filter {
    /// Whether a filter in `RUST_LOG`, which everything written in Rust listens to, says anything
    /// about us: one that only names the parts of others would silence our log.
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
    /// What is logged.
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
pub(crate) fn start(filter: &Filter) -> io::Result<()> {
    let journal = env::var_os("JOURNAL_STREAM").is_some();
    let time = if journal { Time::Known } else { Time::Told };
    let look = Look { time, color: AutoStream::choice(&io::stderr()) };
    let filter = RwLock::new(filter.build());
    let logger = Arc::new(Logger { filter, look, queue: Queue::default() });
    let writer = Arc::clone(&logger);
    thread::Builder::new().name("log".to_owned()).spawn(move || {
        writer.queue.write_all(io::stderr(), |text| look.line(Level::Warn, None, &text));
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
            self.queue.put(self.look.line(Level::Error, None, &text).as_bytes());
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
            // Other crates' lines must not be taken for ours.
            let target = record.target();
            let is_ours = target.starts_with("coordinator") && record.level() < Level::Trace;
            let from = (!is_ours).then_some(target);
            let line = logger.look.line(record.level(), from, record.args());
            logger.queue.put(line.as_bytes());
        }
    }

    fn flush(&self) {
        self.0.queue.flush(FLUSH_MAX);
    }
}

impl Look {
    /// A line with its end.
    fn line(self, level: Level, from: Option<&str>, text: &dyn fmt::Display) -> String {
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
        let _cut = match from {
            None => write!(line, "{text}"),
            Some(target) => write!(line, "{text} [{target}]"),
        };
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
    /// What is there so far.
    text: String,
    /// Makes visible what comes.
    escaper: Escaper,
    /// Whether more came than fits.
    is_cut: bool,
}

impl Line {
    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str(CUT);
        }
        self.text.push('\n');
        self.text
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
mod tests {
    use super::*;

    const LOOK: Look = Look { time: Time::Known, color: ColorChoice::Never };

    #[test]
    fn a_filter_is_a_level_or_levels_by_target() {
        for good in
            ["info", "DEBUG", "off", "warn,coordinator=debug", "coordinator::server=trace", ""]
        {
            assert!(Filter::parse(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused_instead_of_silencing_the_log() {
        assert!(Filter::parse("debgu").is_err());
        assert!(Filter::parse("info,coordinator=loud").is_err());
    }

    #[test]
    fn a_line_has_1_kib_and_what_is_longer_is_cut_visibly() {
        let room = LINE_LEN_MAX - "INFO  ".len() - CUT.len() - 1;
        let line = |len| LOOK.line(Level::Info, None, &"x".repeat(len));
        assert_eq!(line(room), format!("INFO  {}\n", "x".repeat(room)));
        assert_eq!(line(room + 1), format!("INFO  {}{CUT}\n", "x".repeat(room)));
        assert_eq!(line(room + 1).len(), LINE_LEN_MAX);
        let of_locks = LOOK.line(Level::Info, None, &"🔒".repeat(LINE_LEN_MAX));
        assert!(of_locks.len() <= LINE_LEN_MAX && of_locks.ends_with(" … (cut)\n"), "{of_locks}");
    }

    #[test]
    fn no_work_is_put_into_what_is_cut() {
        use std::cell::Cell;
        struct Steps<'a>(&'a Cell<usize>);
        impl fmt::Display for Steps<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                for _ in 0..1_000_000 {
                    self.0.set(self.0.get() + 1);
                    f.write_str("step ")?;
                }
                Ok(())
            }
        }
        let steps = Cell::new(0);
        LOOK.line(Level::Info, None, &Steps(&steps));
        assert!(steps.get() <= LINE_LEN_MAX / "step ".len(), "{}", steps.get());
    }

    #[test]
    fn a_line_is_one_line_and_shows_what_it_holds() {
        let text = "a\nINFO  forged\u{2028}\u{202e}\u{1b}[2J";
        let line = LOOK.line(Level::Warn, Some("elsewhere"), &text);
        assert_eq!(line, "WARN  a\\nINFO  forged\\u{2028}\\u{202e}\\u{1b}[2J [elsewhere]\n");
    }

    #[test]
    fn a_filter_for_others_is_not_ours() {
        for ours in ["debug", "hyper=warn,info", "coordinator=debug", "coordinator::server", "Off"]
        {
            assert!(Filter::concerns_us(ours), "{ours:?}");
        }
        for others in ["sqlx", "hyper,tower=debug", "myapp=debug", "[span{field=x}]=debug", ""] {
            assert!(!Filter::concerns_us(others), "{others:?}");
        }
    }
}
