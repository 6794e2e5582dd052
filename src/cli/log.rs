//! The log of `coordinator serve`: on standard error, a line an event.
//!
//! Under systemd the journal knows the time, so lines carry none there.

use std::env;
use std::io::Write;

use log::Level;

use super::values::Value;

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

/// Starts logging.
pub(crate) fn start(filter: &Filter) {
    let journal = env::var_os("JOURNAL_STREAM").is_some();
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter.0).format(move |line, record| {
        if !journal {
            write!(line, "{} ", line.timestamp_millis())?;
        }
        let level = record.level();
        let style = line.default_level_style(level);
        write!(line, "{style}{level:<5}{style:#} {}", record.args())?;
        // Other crates' lines must not be taken for ours.
        let target = record.target();
        if !target.starts_with("coordinator") || level >= Level::Trace {
            write!(line, " [{target}]")?;
        }
        writeln!(line)
    });
    // Somebody else's logger is as good.
    let _already = builder.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
