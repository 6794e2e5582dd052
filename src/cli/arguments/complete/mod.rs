//! Completion of a command line: `coordinator __complete WORDS…`. The completions of shells only
//! ask this and show the answer. The last word is the one at the cursor, and may be empty.
//!
//! The answer is candidates, one a line, each with its meaning behind a tab if it has one. The last
//! line is for the shell's own candidates: `:files`, `:dirs`, `:none`, or `:command N` for another
//! command that begins with the Nth of the words.
//!
//! Names of locks are asked of the coordinator. If it does not answer at once, there are none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::{Arg, ValueEnum};
use clap_complete::Shell;
use coordinator::Observer;

use super::grammar;
use crate::cli::log::LEVELS;
use crate::cli::settings::Settings;
use crate::cli::settings::sources::{FILE_FLAG, Sources};
use crate::cli::text::answer;

/// The word that tells our program to be this. In no help, for nobody types it.
pub(crate) const WORD: &str = "__complete";

/// How long somebody who pressed a key is kept waiting for names of locks.
const NAMES_TIMEOUT: Duration = Duration::from_millis(400);
/// Of more names nobody could choose.
const NAMES_MAX: usize = 1000;

/// Answers, whatever the words are: a completion that complains is in the way.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let Answer { candidates, then } = answer(&words, &names_in_use);
    let mut text = String::new();
    for Candidate { value, meaning } in candidates {
        text.push_str(&value);
        if !meaning.is_empty() {
            text.push('\t');
            text.push_str(&meaning);
        }
        text.push('\n');
    }
    let from;
    text.push_str(match then {
        Then::Nothing => ":none",
        Then::Files => ":files",
        Then::Directories => ":dirs",
        Then::Command(first) => {
            from = format!(":command {first}");
            &from
        }
    });
    text.push('\n');
    answer::raw(text.as_bytes()).map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

/// What could come next.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// What we know ourselves.
    candidates: Vec<Candidate>,
    /// What the shell is to add.
    then: Then,
}

/// A word that could come next.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    /// The whole word.
    value: String,
    /// A few words of help, or nothing.
    meaning: String,
}

/// What the shell is to add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Then {
    #[default]
    Nothing,
    Files,
    Directories,
    /// What comes after a command of its own that begins with the word of this number.
    Command(usize),
}

/// Where the cursor is.
struct Cursor {
    /// The command whose flags these are: the program itself, or one of its commands.
    command: clap::Command,
    /// The flag whose value comes next.
    flag: Option<Arg>,
    /// How many words came that are no flags.
    positionals: usize,
    /// Where a command of its own begins.
    own_command: Option<usize>,
    /// The settings among the flags: where the coordinator is may be one.
    settings: BTreeMap<&'static str, String>,
}

/// What could come next after `words`, the last of which is at the cursor.
fn answer(words: &[String], names: &dyn Fn(&Cursor) -> Vec<String>) -> Answer {
    let mut grammar = grammar();
    grammar.build();
    let (current, before) = words.split_last().map_or(("", &[][..]), |(last, all)| (last, all));
    let at = read(grammar, before);
    if let Some(from) = at.own_command {
        return Answer { then: Then::Command(from), ..Answer::default() };
    }
    if let Some(flag) = &at.flag {
        return values(flag, &at, names).that_begin_with(current);
    }
    if let Some((name, _)) = current.split_once('=').filter(|_| current.starts_with("--")) {
        let Some(flag) = long(&at.command, name) else { return Answer::default() };
        let mut all = values(&flag, &at, names);
        for candidate in &mut all.candidates {
            candidate.value = format!("{name}={}", candidate.value);
        }
        return all.that_begin_with(current);
    }
    if current.starts_with('-') {
        return flags(&at.command).that_begin_with(current);
    }
    if at.command.has_subcommands() {
        return commands(&at.command).that_begin_with(current);
    }
    match at.command.get_positionals().nth(at.positionals) {
        Some(arg) if arg.is_trailing_var_arg_set() => {
            Answer { then: Then::Command(before.len()), ..Answer::default() }
        }
        Some(arg) => values(arg, &at, names).that_begin_with(current),
        None => Answer::default(),
    }
}

/// Goes over the words before the cursor.
fn read(grammar: clap::Command, before: &[String]) -> Cursor {
    let mut at = Cursor {
        command: grammar,
        flag: None,
        positionals: 0,
        own_command: None,
        settings: BTreeMap::new(),
    };
    for (i, word) in before.iter().enumerate() {
        if let Some(flag) = at.flag.take() {
            // Shells that take `--on-lost=kill` apart leave the sign in between.
            if word == "=" {
                at.flag = Some(flag);
            } else {
                at.note(&flag, word);
            }
        } else if word == "--" {
            at.own_command = at.takes_a_command().then_some(i + 1);
            if at.own_command.is_some() {
                return at;
            }
        } else if word.starts_with("--") {
            let (name, value) =
                word.split_once('=').map_or((word.as_str(), None), |(n, v)| (n, Some(v)));
            if let Some(flag) = long(&at.command, name).filter(takes_a_value) {
                match value {
                    Some(value) => at.note(&flag, value),
                    None => at.flag = Some(flag),
                }
            }
        } else if word.len() > 1 && word.starts_with('-') {
            at.flag = last_short(&at.command, &word[1..]);
        } else if at.command.has_subcommands() {
            match at.command.find_subcommand(word) {
                Some(command) => at.command = command.clone(),
                None => return at,
            }
        } else if at.awaits_the_command() {
            at.own_command = Some(i);
            return at;
        } else {
            at.positionals += 1;
        }
    }
    at
}

impl Cursor {
    /// Whether a command of its own can be among the words.
    fn takes_a_command(&self) -> bool {
        self.command.get_positionals().any(Arg::is_trailing_var_arg_set)
    }

    /// Whether the next word that is no flag begins it.
    fn awaits_the_command(&self) -> bool {
        let next = self.command.get_positionals().nth(self.positionals);
        next.is_some_and(Arg::is_trailing_var_arg_set)
    }

    /// Remembers what could say where the coordinator is.
    fn note(&mut self, flag: &Arg, value: &str) {
        let keys = ["server", FILE_FLAG];
        if let Some(key) = keys.into_iter().find(|key| flag.get_id() == key) {
            self.settings.insert(key, value.to_owned());
        }
    }
}

impl Answer {
    fn that_begin_with(mut self, current: &str) -> Self {
        self.candidates.retain(|candidate| candidate.value.starts_with(current));
        self
    }
}

fn takes_a_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// The flag of this name, with its two dashes.
fn long(command: &clap::Command, name: &str) -> Option<Arg> {
    let name = name.strip_prefix("--")?;
    let has_name = |arg: &&Arg| {
        arg.get_long() == Some(name)
            || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    command.get_arguments().find(has_name).cloned()
}

/// The last of several flags of one letter, if its value comes with the next word.
fn last_short(command: &clap::Command, letters: &str) -> Option<Arg> {
    let mut letters = letters.chars();
    while let Some(letter) = letters.next() {
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(letter));
        if let Some(arg) = arg.filter(|arg| takes_a_value(arg)) {
            return letters.as_str().is_empty().then(|| arg.clone());
        }
    }
    None
}

/// The flags of a command.
fn flags(command: &clap::Command) -> Answer {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let candidates = shown.filter_map(|arg| {
        let value = format!("--{}", arg.get_long()?);
        Some(Candidate { value, meaning: meaning(arg.get_help()) })
    });
    Answer { candidates: candidates.collect(), then: Then::Nothing }
}

/// The commands below a command.
fn commands(command: &clap::Command) -> Answer {
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let candidates = shown.map(|command| Candidate {
        value: command.get_name().to_owned(),
        meaning: meaning(command.get_about()),
    });
    Answer { candidates: candidates.collect(), then: Then::Nothing }
}

/// The first line of help.
fn meaning(help: Option<&clap::builder::StyledStr>) -> String {
    let text = help.map(ToString::to_string).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // What a variable is called, and the default, is in the help.
    line.split(" [").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// The values that an argument can have.
fn values(arg: &Arg, at: &Cursor, names: &dyn Fn(&Cursor) -> Vec<String>) -> Answer {
    let plain = |values: Vec<String>| Answer {
        candidates: values
            .into_iter()
            .map(|value| Candidate { value, meaning: String::new() })
            .collect(),
        then: Then::Nothing,
    };
    let placeholder =
        arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let possible = arg.get_possible_values();
    match (arg.get_id().as_str(), placeholder) {
        ("shell", _) => plain(Shell::value_variants().iter().map(ToString::to_string).collect()),
        _ if !possible.is_empty() => {
            plain(possible.iter().map(PossibleValue::get_name).map(str::to_owned).collect())
        }
        // The page of a command.
        ("command", _) => commands(&grammar()),
        ("name" | "others", _) => plain(names(at)),
        ("log", _) => plain(LEVELS.map(str::to_owned).to_vec()),
        ("mode", _) => plain(["exclusive", "shared"].map(str::to_owned).to_vec()),
        (_, "FILE") => Answer { then: Then::Files, ..Answer::default() },
        (_, "DIR") => Answer { then: Then::Directories, ..Answer::default() },
        (_, either) if either.contains('|') => {
            plain(either.split('|').map(str::to_owned).collect())
        }
        _ => Answer::default(),
    }
}

/// The names of the locks that are in use.
fn names_in_use(at: &Cursor) -> Vec<String> {
    let settings = Sources::read(at.settings.clone()).and_then(|it| Settings::resolve(&it));
    let Ok(settings) = settings else { return Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let Ok(servers) = settings.servers() else { return Vec::new() };
    let ask = async {
        let observer = Observer::connect_timeout(servers, NAMES_TIMEOUT).await?;
        observer.locks().await
    };
    let locks = runtime.block_on(async { tokio::time::timeout(NAMES_TIMEOUT, ask).await });
    let Ok(Ok(locks)) = locks else { return Vec::new() };
    let mut names: Vec<String> = locks.into_iter().map(|lock| lock.name.into()).collect();
    // What would be something else on a line of ours, or taken for a flag.
    names.retain(|name| !name.starts_with('-') && !name.chars().any(char::is_control));
    names.sort_unstable();
    names.truncate(NAMES_MAX);
    names
}

#[cfg(test)]
mod tests;
