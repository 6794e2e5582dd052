//! `coordinator access`: credentials, and who may do what, asked without a coordinator.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coordinator::access::{Access, Digest, Mistake, Parsed, PrincipalName, Verb, parse};
use coordinator::types::{Credential, LockName};

use super::settings::{Settings, files};
use super::text::answer;
use super::text::errors::{Failure, exit, reason, shell_word};
use super::text::output;
use super::text::words;

/// A longer access file is no access file: it would name a hundred thousand principals.
const FILE_LEN_MAX: u64 = 16 * 1024 * 1024;
/// Of more mistakes than this, the rest is counted.
const MISTAKES_TOLD_MAX: usize = 20;
/// Rights of those who could write rules into the file.
const OTHERS_WRITE: u32 = 0o022;

/// `access`.
#[derive(clap::Args)]
pub(crate) struct AccessArgs {
    /// What to do.
    action: AccessAction,
    /// What to do it with.
    words: Vec<String>,
}

/// What `access` does.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum AccessAction {
    /// Make a credential for a principal.
    NewCredential,
    /// Tell of all mistakes in an access file.
    Check,
    /// Say whether, and by which line, a principal may do something with a lock.
    May,
}

/// Does what was asked.
pub(crate) fn run(args: &AccessArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let words: Vec<&str> = args.words.iter().map(String::as_str).collect();
    match (args.action, &words[..]) {
        (AccessAction::NewCredential, [name]) => new_credential(name),
        (AccessAction::Check, []) => check(&file_of(settings)?),
        (AccessAction::Check, [file]) => check(Path::new(file)),
        (AccessAction::May, [principal, verb, lock @ ..]) if lock.len() <= 1 => {
            may(&file_of(settings)?, principal, verb, lock.first().copied())
        }
        (AccessAction::NewCredential, _) => {
            Err(Failure::usage("new-credential takes the name of one principal")
                .hint("coordinator access new-credential billing"))
        }
        (AccessAction::Check, _) => Err(Failure::usage("check takes one access file")
            .hint("coordinator access check /etc/coordinator/access.toml")),
        (AccessAction::May, _) => {
            Err(Failure::usage("may takes a principal, a verb and the name of a lock")
                .hint("coordinator access may billing lock billing/invoices"))
        }
    }
}

fn file_of(settings: &Settings) -> Result<PathBuf, Failure> {
    settings.access_file.clone().ok_or_else(|| {
        Failure::usage("no access file is named")
            .hint("name one with --access-file or COORDINATOR_ACCESS_FILE")
    })
}

/// Prints a credential, and what the access file has of it.
fn new_credential(name: &str) -> Result<ExitCode, Failure> {
    let name = principal_name(name)?;
    if name.is_anyone() {
        return Err(Failure::usage("no principal is called anyone")
            .hint("write [anyone] for those who show nothing, or choose another name"));
    }
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|failure| {
        let what = format!("the operating system provides no random numbers: {failure}");
        Failure::new(exit::LOST, what)
    })?;
    let credential = Credential::from_random(bits);
    let digest = Digest::of(credential.reveal());
    output::tell(&format!(
        "for the access file, under name = \"{name}\":\n  credentials = [\"{digest}\"]\nfor {name}, in a file of \
        its own (chmod 600) that --credential-file names, and nowhere else:"
    ));
    answer::line(credential.reveal())?;
    Ok(ExitCode::SUCCESS)
}

fn principal_name(text: &str) -> Result<PrincipalName, Failure> {
    PrincipalName::new(text).map_err(|why| Failure::usage(format!("{text:?}: {why}")))
}

/// Tells of all mistakes.
fn check(file: &Path) -> Result<ExitCode, Failure> {
    let Parsed { access, doubts } = read(file)?;
    for doubt in &doubts {
        output::tell(&format!("warning: {}:{doubt}", file.display()));
    }
    let anyone = if access.named("anyone").is_some() { "and anyone" } else { "and nobody else" };
    let principals = words::count(access.principals().len() as u64, "principal");
    answer::line(&format!("{}: {principals}, {anyone}", file.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Says whether something is allowed, and by which line.
fn may(file: &Path, principal: &str, verb: &str, lock: Option<&str>) -> Result<ExitCode, Failure> {
    let access = read(file)?.access;
    let Some(principal) = access.named(principal) else {
        return Err(Failure::usage(format!("{} has no principal {principal:?}", file.display()))
            .hint(format!("it has {}", names(&access))));
    };
    let verbs = Verb::ALL.map(Verb::as_str).join(", ");
    let verb = Verb::from_text(verb).ok_or_else(|| {
        Failure::usage(format!("no verb {verb:?}")).hint(format!("there is {verbs}"))
    })?;
    let rule = match (verb, lock) {
        (Verb::Admin, None) => principal.rules.may_administer(),
        (Verb::Admin, Some(_)) => {
            return Err(Failure::usage("admin is about no lock").hint("leave out the lock"));
        }
        (_, None) => {
            return Err(Failure::usage(format!("which lock may {} {verb}?", principal.name))
                .hint("name the lock behind the verb"));
        }
        (_, Some(lock)) => {
            let lock = LockName::new(lock)
                .map_err(|why| Failure::usage(format!("{lock:?} is no name of a lock: {why}")))?;
            principal.rules.may(verb, &lock)
        }
    };
    if let Some(rule) = rule {
        answer::line(&format!("yes, by line {}", rule.line))?;
        return Ok(ExitCode::SUCCESS);
    }
    let rules = principal.rules.written().iter();
    let all: Vec<String> = rules.map(|rule| format!("{} {}", rule.verbs, rule.names)).collect();
    let all = if all.is_empty() { "do nothing".to_owned() } else { all.join("; ") };
    answer::line(&format!("no; {} may {all}", principal.name))?;
    Ok(ExitCode::from(exit::DENIED))
}

fn names(access: &Access) -> String {
    let names = access.principals().iter().map(|principal| principal.name.as_str());
    let anyone = access.named("anyone").map(|_| "anyone");
    let names: Vec<&str> = names.chain(anyone).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Reads an access file, which nobody else may have written to.
pub(crate) fn read(file: &Path) -> Result<Parsed, Failure> {
    let shown = file.display();
    let unreadable = |error: io::Error| {
        Failure::usage(format!("cannot read the access file {shown} ({})", reason(&error)))
            .hint("--access-file names it")
    };
    let mut opened = files::open(file).map_err(unreadable)?;
    let mode = opened.metadata().map_err(unreadable)?.mode();
    if mode & OTHERS_WRITE != 0 {
        let what =
            format!("the access file {shown} can be written by others (mode {:o})", mode & 0o7777);
        let chmod = format!("chmod go-w {}", shell_word(&file.to_string_lossy()));
        return Err(Failure::usage(what).hint(chmod));
    }
    let mut text = String::new();
    let len =
        opened.by_ref().take(FILE_LEN_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if len as u64 > FILE_LEN_MAX {
        return Err(Failure::usage(format!("the access file {shown} is longer than 16 MiB")));
    }
    parse(&text).map_err(|mistakes| mistaken(file, &mistakes))
}

fn mistaken(file: &Path, mistakes: &[Mistake]) -> Failure {
    let line = |mistake: &Mistake| format!("{}:{mistake}", file.display());
    let mut facts: Vec<String> = mistakes.iter().take(MISTAKES_TOLD_MAX).map(line).collect();
    if mistakes.len() > facts.len() {
        facts.push(format!("and {} more", mistakes.len() - facts.len()));
    }
    let count = mistakes.len();
    let plural = if count == 1 { "mistake" } else { "mistakes" };
    Failure::usage(format!("{count} {plural} in the access file, so it says nothing"))
        .with_facts(facts)
}
