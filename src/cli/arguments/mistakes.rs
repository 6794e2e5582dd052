//! Mistakes on the command line, told so that the next try is right.
//!
//! The parser knows what looks alike; here is what it cannot know: what people meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Asked, Command, parse};
use crate::cli::settings::TABLE;
use crate::cli::settings::sources::FILE_FLAG;
use crate::cli::text::errors::Failure;

/// The mistake of a script whose variable is empty: `coordinator lock $NAME -- $COMMAND` promises
/// both, and would otherwise take the command for the name, or hold the lock for nothing.
pub(super) fn empty_variable(words: &[OsString]) -> Option<Failure> {
    let is_locking = words.get(1).is_some_and(|word| word == "lock" || word == "try");
    let end = words.iter().position(|word| word == "--").filter(|_| is_locking)?;
    let hint = |failure: Failure| {
        failure.hint("write `coordinator lock NAME -- COMMAND…`; is a script variable empty?")
    };
    match parse(words[..end].iter().cloned()) {
        Err(error) if is_nameless(&error) => {
            Some(hint(Failure::usage("no lock is named before `--`")))
        }
        Ok(Asked { command: Command::Lock(before) | Command::Try(before), .. })
            if before.command.is_empty() && before.script.is_none() && end + 1 == words.len() =>
        {
            Some(hint(Failure::usage("no command follows `--`")))
        }
        // Another mistake, told by whoever finds it in the whole; or it is the command's own `--`.
        _ => None,
    }
}

/// Whether it is the lock's name that is missing, and not what another flag wants beside it.
fn is_nameless(error: &clap::Error) -> bool {
    error.kind() == ErrorKind::MissingRequiredArgument
        && matches!(
            error.get(ContextKind::InvalidArg),
            Some(ContextValue::Strings(missing)) if missing.iter().any(|it| it == "<NAME>")
        )
}

/// The same mistake with better advice, where clap knows only what looks alike.
pub(super) fn advised(mut error: clap::Error, words: &[OsString]) -> clap::Error {
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let advice = match error.kind() {
        ErrorKind::UnknownArgument => {
            // "To pass it as a value, use `--`": nobody who mistyped a flag wanted that.
            drop(error.remove(ContextKind::Suggested));
            advice_on_argument(first, error.get(ContextKind::InvalidArg))
        }
        ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(word)) => advice_on_command(word),
            _ => None,
        },
        _ => None,
    };
    if let Some(advice) = advice {
        error.remove(ContextKind::SuggestedSubcommand);
        let advice = ContextValue::StyledStrs(vec![advice.into()]);
        error.insert(ContextKind::Suggested, advice);
    }
    error
}

/// What those want who give an argument that there is not.
fn advice_on_argument(first: &str, argument: Option<&ContextValue>) -> Option<String> {
    let Some(ContextValue::String(argument)) = argument else { return None };
    let is_of_commands = |flag: &str| flag == FILE_FLAG || TABLE.iter().any(|row| row.key == flag);
    if let Some(flag) = first.strip_prefix("--").map(|it| it.split('=').next().unwrap_or(it)) {
        let advice = format!("--{flag} comes after the command: coordinator COMMAND --{flag} …");
        return is_of_commands(flag).then_some(advice);
    }
    let is_command = matches!(first, "acquire" | "hold") && !argument.starts_with('-');
    is_command
        .then(|| format!("`{first}` runs no command; `coordinator lock NAME -- COMMAND…` does"))
}

/// What those want who name a command that there is not.
fn advice_on_command(word: &str) -> Option<String> {
    let advice = match word {
        "unlock" | "free" => {
            "the lock of `coordinator lock` is free when its command ends; `release` ends what \
            `acquire` holds, or revokes a holder's lock"
        }
        "version" => "`coordinator --version`",
        _ => return None,
    };
    Some(advice.to_owned())
}
