//! The variables that later steps of a job are told.

use std::fmt::Write as _;
use std::path::Path;

use coordinator::types::FencingToken;

use super::places;
use super::record::Record;
use crate::cli::lock::{above, nested};

/// What later steps are told of a record, as the command of `coordinator lock` is.
pub(super) fn variables(record: &Record, place: &Path) -> Vec<(&'static str, String)> {
    let names: Vec<&str> = record.locks.iter().map(String::as_str).collect();
    let held = nested::variable(FencingToken::new(record.token), &record.session, &names);
    let first = names.first().copied().unwrap_or_default();
    vec![
        (places::VARIABLE, places::variable(place).to_string_lossy().into_owned()),
        ("COORDINATOR_LOCK", first.to_owned()),
        ("COORDINATOR_LOCKS", names.join("\n")),
        ("COORDINATOR_FENCING_TOKEN", record.token.to_string()),
        ("COORDINATOR_SESSION", record.session.clone()),
        ("COORDINATOR_SERVER", record.server.clone()),
        (above::VARIABLE, held.trim_end().to_owned()),
    ]
}

/// Variables as a shell reads them, whichever that is of the family of `sh`.
pub(super) fn exports(variables: &[(&'static str, String)]) -> String {
    variables.iter().fold(String::new(), |mut text, (name, value)| {
        let _infallible = writeln!(text, "export {name}='{}'", value.replace('\'', r"'\''"));
        text
    })
}

/// Variables as lines `NAME=VALUE`. Values of several lines have no place there and are left out; the
/// record has them.
pub(super) fn env_lines(variables: &[(&'static str, String)]) -> String {
    let short = variables.iter().filter(|(_, value)| !value.contains('\n'));
    short.fold(String::new(), |mut text, (name, value)| {
        let _infallible = writeln!(text, "{name}={value}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_names_as_they_are() {
        let variables = [("A", "it's $(x) `y` \"z\"\nb".to_owned())];
        assert_eq!(exports(&variables), "export A='it'\\''s $(x) `y` \"z\"\nb'\n");
        assert_eq!(env_lines(&[("A", "a\nb".to_owned()), ("B", "c d".to_owned())]), "B=c d\n");
    }
}
