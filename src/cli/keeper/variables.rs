//! The variables that later steps of a job are told.

use std::fmt::Write as _;
use std::path::Path;

use coordinator::types::FencingToken;

use super::places;
use super::record::Record;
use crate::cli::lock::{above, nested};
use crate::cli::settings::Settings;
use crate::cli::settings::credential::CREDENTIAL;

/// What later steps are told of a record, and of how to reach the coordinator, as the command of
/// `coordinator lock` is.
pub(super) fn variables(
    record: &Record,
    place: &Path,
    settings: &Settings,
) -> Vec<(&'static str, String)> {
    let names: Vec<&str> = record.locks.iter().map(String::as_str).collect();
    let held = nested::variable(FencingToken::new(record.token), &record.session, &names);
    let first = names.first().copied().unwrap_or_default();
    let mut variables = vec![
        (places::VARIABLE, places::variable(place).to_string_lossy().into_owned()),
        ("COORDINATOR_LOCK", first.to_owned()),
        ("COORDINATOR_LOCKS", names.join("\n")),
        ("COORDINATOR_FENCING_TOKEN", record.token.to_string()),
        ("COORDINATOR_SESSION", record.session.clone()),
        ("COORDINATOR_SERVER", record.server.clone()),
        (above::VARIABLE, held.trim_end().to_owned()),
    ];
    for (name, value) in settings.trust() {
        match value {
            Some(value) => variables.push((name, value.to_string_lossy().into_owned())),
            // It would count for more than the file that a flag named.
            None if name == CREDENTIAL => variables.push((name, String::new())),
            None => {}
        }
    }
    variables
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
    use super::super::record::tests::record;
    use super::*;
    use crate::cli::settings::sources::Sources;

    #[test]
    fn a_shell_reads_names_as_they_are() {
        let variables = [("A", "it's $(x) `y` \"z\"\nb".to_owned())];
        assert_eq!(exports(&variables), "export A='it'\\''s $(x) `y` \"z\"\nb'\n");
        assert_eq!(env_lines(&[("A", "a\nb".to_owned()), ("B", "c d".to_owned())]), "B=c d\n");
    }

    #[test]
    fn later_steps_trust_the_coordinator_as_this_one_does() {
        let flags = [
            ("server", "tls://locks"),
            ("server-ca", "/ca.pem"),
            ("server-name", "locks"),
            ("client-cert", "/own.pem"),
            ("client-key", "/own.key"),
            ("credential-file", "/secret"),
            ("credential-in-clear", "true"),
        ];
        let flags = flags.into_iter().map(|(key, text)| (key, text.to_owned())).collect();
        let settings = Settings::resolve(&Sources::new(flags, []).unwrap()).unwrap();
        let printed = env_lines(&variables(&record(), Path::new("/kept"), &settings));
        let of_trust = "COORDINATOR_SERVER_CA=/ca.pem\nCOORDINATOR_SERVER_NAME=locks\n\
                        COORDINATOR_CLIENT_CERT=/own.pem\nCOORDINATOR_CLIENT_KEY=/own.key\n\
                        COORDINATOR_CREDENTIAL_FILE=/secret\nCOORDINATOR_CREDENTIAL=\n\
                        COORDINATOR_CREDENTIAL_IN_CLEAR=true\n";
        assert!(printed.ends_with(of_trust), "{printed}");
    }
}
