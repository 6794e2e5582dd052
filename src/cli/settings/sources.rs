//! Where settings come from: this command line, the environment, the file.
//!
//! A key of the file that is no setting is a mistake, and the setting it is nearest to is named. A
//! variable is different. Kubernetes puts `COORDINATOR_SERVICE_HOST` and `COORDINATOR_PORT` into
//! every container beside a service of our name. So an unknown `COORDINATOR_…` is a mistake only if
//! it is within two letters of a setting, and most of it is right.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::TABLE;
use crate::cli::text::errors::{Failure, reason};

/// Variables that `coordinator lock` gives to its command, and that a `coordinator` run by that
/// command therefore meets; and the one that is a credential, and no setting that is shown.
const VARIABLES_GIVEN: [&str; 7] = [
    "COORDINATOR_CREDENTIAL",
    "COORDINATOR_HELD",
    "COORDINATOR_LOCK",
    "COORDINATOR_LOCKS",
    "COORDINATOR_FENCING_TOKEN",
    "COORDINATOR_SESSION",
    "COORDINATOR_SERVER",
];
/// What our variables begin with.
const PREFIX: &str = "COORDINATOR_";
/// The variable that names the file; not itself a setting, since it must be known before them.
pub(crate) const FILE_VARIABLE: &str = "COORDINATOR_CONFIG";
/// The flag that names the file.
pub(crate) const FILE_FLAG: &str = "config";
/// A file with more in it than this is no configuration.
const FILE_LEN_MAX: u64 = 1024 * 1024;
/// Further from every setting than this, and a variable was not meant for us.
const TYPO_DISTANCE_MAX: usize = 2;

/// All that was said, before anyone decides whom to believe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources {
    /// Values of flags, by setting.
    flags: BTreeMap<&'static str, String>,
    /// The environment; variables that are empty count as not set.
    environment: BTreeMap<String, String>,
    /// The file, if there is one.
    file: Option<File>,
}

/// A configuration file that was read.
#[derive(Clone, Debug)]
struct File {
    /// Where it is.
    path: PathBuf,
    /// Its entries, by setting.
    entries: BTreeMap<&'static str, Entry>,
}

/// A setting in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The value, as a flag would have it.
    pub(crate) text: String,
    /// The line it is on, from 1.
    pub(crate) line: usize,
}

impl Sources {
    /// Reads the environment and the file beside `flags`.
    pub(crate) fn read(flags: BTreeMap<&'static str, String>) -> Result<Self, Failure> {
        let (sources, mistakes) = Self::gather(flags);
        or_the_first(sources, mistakes)
    }

    /// The same, with all that is wrong beside what could be read.
    pub(crate) fn gather(mut flags: BTreeMap<&'static str, String>) -> (Self, Vec<Failure>) {
        let mut mistakes = Vec::new();
        let mut environment = Vec::new();
        for (name, text) in env::vars_os() {
            let Ok(name) = name.into_string() else { continue };
            match text.into_string() {
                Ok(text) => environment.push((name, text)),
                // Anybody else's may be what it likes.
                Err(_) if name.starts_with(PREFIX) => {
                    mistakes.push(Failure::usage(format!("{name} is not UTF-8 text")));
                }
                Err(_) => {}
            }
        }
        let file = flags.remove(FILE_FLAG);
        let mut sources = Self::beside(flags, environment, &mut mistakes);
        match sources.find_file(file.map(PathBuf::from)) {
            Ok(Some((path, text))) => {
                let entries = entries(&path, &text, &mut mistakes);
                sources.file = Some(File { path, entries });
            }
            Ok(None) => {}
            Err(failure) => mistakes.push(failure),
        }
        (sources, mistakes)
    }

    /// Sources without a file, and what is wrong with them.
    fn beside(
        flags: BTreeMap<&'static str, String>,
        environment: impl IntoIterator<Item = (String, String)>,
        mistakes: &mut Vec<Failure>,
    ) -> Self {
        let environment: BTreeMap<String, String> =
            environment.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        for name in environment.keys().filter(|name| name.starts_with(PREFIX)) {
            mistakes.extend(check_variable(name).err());
        }
        Self { flags, environment, file: None }
    }

    /// Sources without a file.
    #[cfg(test)]
    pub(crate) fn new(
        flags: BTreeMap<&'static str, String>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let mut mistakes = Vec::new();
        let sources = Self::beside(flags, environment, &mut mistakes);
        or_the_first(sources, mistakes)
    }

    /// The same with what the file at `path` says.
    #[cfg(test)]
    pub(crate) fn with_file(mut self, path: PathBuf, text: &str) -> Result<Self, Failure> {
        let mut mistakes = Vec::new();
        let entries = entries(&path, text, &mut mistakes);
        self.file = Some(File { path, entries });
        or_the_first(self, mistakes)
    }

    /// The file that was read, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// What a flag says.
    pub(crate) fn flag(&self, key: &str) -> Option<&str> {
        self.flags.get(key).map(String::as_str)
    }

    /// What a variable says.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// The same without a variable.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// A directory that a variable names. One that is not absolute counts as not set, as the XDG
    /// standard says: it would be another one wherever we are started.
    fn directory(&self, name: &str) -> Option<&str> {
        self.variable(name).filter(|path| Path::new(path).is_absolute())
    }

    /// `path` with the home directory for a `~` at its beginning, which shells replace only in what
    /// they read themselves.
    pub(crate) fn expanded(&self, path: &str) -> String {
        match (path.strip_prefix('~'), self.directory("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
                format!("{home}{rest}")
            }
            _ => path.to_owned(),
        }
    }

    /// What the file says, and which file that is.
    pub(crate) fn in_file(&self, key: &str) -> Option<(&Path, &Entry)> {
        let file = self.file.as_ref()?;
        Some((&file.path, file.entries.get(key)?))
    }

    /// Where state lives if nobody says: `$XDG_STATE_HOME/coordinator`, mostly
    /// `~/.local/state/coordinator`. Empty where there is no home.
    pub(crate) fn state_directory(&self) -> String {
        let home = self.directory("HOME").map(|home| format!("{home}/.local/state"));
        let state = self.directory("XDG_STATE_HOME").map(str::to_owned).or(home);
        state.map_or_else(String::new, |state| format!("{state}/coordinator"))
    }

    /// The user's own credential; empty if nobody knows where home is.
    pub(crate) fn credential_file(&self) -> String {
        let home = self.directory("HOME").map(|home| format!("{home}/.config"));
        let own = self.directory("XDG_CONFIG_HOME").map(str::to_owned).or(home);
        own.map_or_else(String::new, |own| format!("{own}/coordinator/credential"))
    }

    /// The file that was named, which must be there, or one in a usual place, which need not.
    fn find_file(&self, flag: Option<PathBuf>) -> Result<Option<(PathBuf, String)>, Failure> {
        let named = flag.or_else(|| self.variable(FILE_VARIABLE).map(PathBuf::from));
        if let Some(path) = named {
            let path = PathBuf::from(self.expanded(&path.to_string_lossy()));
            return match read(&path) {
                Ok(text) => Ok(Some((path, text))),
                Err(error) => Err(unreadable(&path, &error)
                    .hint(format!("it was named by --{FILE_FLAG} or {FILE_VARIABLE}"))),
            };
        }
        let home = self.directory("HOME").map(|home| format!("{home}/.config"));
        let own = self.directory("XDG_CONFIG_HOME").map(str::to_owned).or(home);
        for place in own.into_iter().chain(["/etc".to_owned()]) {
            let path = PathBuf::from(place).join("coordinator/config.toml");
            match read(&path) {
                Ok(text) => return Ok(Some((path, text))),
                Err(error) if is_absence(&error) => {}
                // What it says may be where the coordinator is: without it another might be asked.
                Err(error) => {
                    return Err(unreadable(&path, &error).hint(format!(
                        "make it readable, or name another file; --{FILE_FLAG} /dev/null is no file"
                    )));
                }
            }
        }
        Ok(None)
    }
}

/// What was read, unless something is wrong with it.
fn or_the_first(sources: Sources, mistakes: Vec<Failure>) -> Result<Sources, Failure> {
    mistakes.into_iter().next().map_or(Ok(sources), Err)
}

/// Reads a file that is no longer than a configuration.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let len = fs::File::open(path)?.take(FILE_LEN_MAX + 1).read_to_string(&mut text)?;
    if len as u64 > FILE_LEN_MAX {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Whether the file is not there, rather than there and out of reach.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let (path, why) = (path.display(), reason(error));
    Failure::usage(format!("cannot read the configuration {path} ({why})"))
}

/// Refuses a variable that was surely meant to be one of ours.
fn check_variable(name: &str) -> Result<(), Failure> {
    let known: Vec<String> = TABLE.iter().map(super::Row::variable).collect();
    let known = known.iter().map(String::as_str).chain(VARIABLES_GIVEN).chain([FILE_VARIABLE]);
    match nearest(name, known) {
        Some((meant, distance)) if is_typo(name, distance) => {
            Err(Failure::usage(format!("unknown setting {name} in the environment"))
                .hint(format!("did you mean {meant}?")))
        }
        _ => Ok(()),
    }
}

/// Whether so few letters are wrong that most of the name is right.
fn is_typo(name: &str, distance: usize) -> bool {
    let own = name.strip_prefix(PREFIX).unwrap_or(name);
    (1..=TYPO_DISTANCE_MAX).contains(&distance) && 2 * distance < own.len()
}

/// The settings in the text of a file, without those that are wrong.
fn entries(path: &Path, text: &str, mistakes: &mut Vec<Failure>) -> BTreeMap<&'static str, Entry> {
    let place = |at: usize| {
        let line = text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        (line, format!("{}:{line}", path.display()))
    };
    let mut entries = BTreeMap::new();
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            let (_, place) = place(error.span().map_or(0, |span| span.start));
            let what = format!("{place}: {}", error.message().trim_end());
            mistakes.push(Failure::usage(what).hint("the file is TOML: drain-timeout = \"30s\""));
            return entries;
        }
    };
    for (key, value) in table.get_ref() {
        let (line, place) = place(key.span().start);
        match entry(key.get_ref().as_ref(), value.get_ref(), &place) {
            Ok((key, text)) => drop(entries.insert(key, Entry { text, line })),
            Err(failure) => mistakes.push(failure),
        }
    }
    entries
}

/// A setting with its value, as a flag would have it.
fn entry(key: &str, value: &DeValue<'_>, place: &str) -> Result<(&'static str, String), Failure> {
    let Some(row) = TABLE.iter().find(|row| row.key == key) else {
        let meant = nearest(key, TABLE.iter().map(|row| row.key));
        return Err(Failure::usage(format!("{place}: unknown setting {key:?}")).hint(
            match meant {
                Some((meant, distance)) if distance <= key.len() / 2 => {
                    format!("did you mean {meant:?}?")
                }
                _ => "`coordinator config` lists all settings".to_owned(),
            },
        ));
    };
    let text = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(yes) => yes.to_string(),
        // A list is another way to write commas, where those have a meaning.
        DeValue::Array(items)
            if ["server", "http-host"].contains(&row.key)
                && items.iter().all(|item| item.get_ref().is_str()) =>
        {
            let items = items.iter().filter_map(|item| item.get_ref().as_str());
            items.collect::<Vec<_>>().join(",")
        }
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            return Err(Failure::usage(format!("{place}: {key} takes a single value")));
        }
    };
    Ok((row.key, text))
}

/// Which of `known` is written most like `word`, and how many letters differ.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<(&'a str, usize)> {
    known.map(|name| (name, strsim::levenshtein(word, name))).min_by_key(|(_, distance)| *distance)
}
