//! `coordinator config check`: what a start would say of the configuration, without starting.
//!
//! A start ends at the first mistake. Here all of them are told. Nothing is bound, made, locked or written, so it can be
//! asked beside a coordinator that runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use coordinator::server::check_data;
use rustix::fs::{Access, access};
use serde_json::json;

use super::pieces::Pieces;
use super::{PortFile, cannot_serve, no_audit_log};
use crate::cli::settings::sources::Sources;
use crate::cli::settings::{InForce, Settings, TABLE, config, contradictions};
use crate::cli::text::answer;
use crate::cli::text::errors::{Failure, exit};
use crate::cli::text::output;
use crate::cli::text::words;

/// What was found.
#[derive(Default)]
struct Found {
    /// The configuration file, if there is one.
    file: Option<PathBuf>,
    /// What would be in force.
    in_force: Vec<InForce>,
    /// What a start would refuse.
    mistakes: Vec<Failure>,
    /// What it would warn of.
    doubts: Vec<String>,
}

/// Tells all that a start would find wrong with what these flags, the environment and the file say.
pub(crate) fn run(
    is_json: bool,
    flags: BTreeMap<&'static str, String>,
) -> Result<ExitCode, Failure> {
    let found = Found::look(flags, SystemTime::now());
    let code = if found.mistakes.is_empty() { ExitCode::SUCCESS } else { exit::USAGE.into() };
    if is_json {
        answer::line(&format!("{:#}", found.as_json()))?;
        return Ok(code);
    }
    answer::print(&config::as_table(&found.in_force))?;
    for doubt in &found.doubts {
        output::tell(&format!("warning: {doubt}"));
    }
    for mistake in &found.mistakes {
        let _told = mistake.report();
    }
    answer::line(&format!("\n{}", found.verdict()))?;
    Ok(code)
}

/// The files that a start would write, and cannot. Nothing is made.
fn unwritable(settings: &Settings) -> Vec<Failure> {
    let log = settings.audit_log.as_deref().filter(|file| *file != Path::new("-"));
    let log = log.and_then(|file| may_write(file).err().map(|why| no_audit_log(file, &why)));
    let port = settings.port_file.as_deref();
    // It is made beside, and put in the place of whatever is there.
    let port = port.and_then(|file| may_make(file).err().map(|why| PortFile::failed(file, &why)));
    log.into_iter().chain(port).collect()
}

fn may_write(file: &Path) -> io::Result<()> {
    match fs::metadata(file) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(access(file, Access::WRITE_OK)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => may_make(file),
        Err(error) => Err(error),
    }
}

fn may_make(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|it| !it.as_os_str().is_empty());
    Ok(access(parent.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)?)
}

impl Found {
    fn look(flags: BTreeMap<&'static str, String>, now: SystemTime) -> Self {
        let (sources, mistakes) = Sources::gather(flags);
        let (settings, wrong) = Settings::gather(&sources);
        let mut found =
            Self { file: sources.file().map(PathBuf::from), mistakes, ..Self::default() };
        let is_wrong = |key: &str| wrong.iter().any(|(wrong, _)| *wrong == key);
        if let Some(settings) = settings {
            // Of a setting that is wrong nobody knows what it would contradict.
            let all = contradictions::of_every_command(&settings)
                .into_iter()
                .chain(contradictions::of_a_server(&settings));
            let all = all.filter(|it| !it.keys.iter().any(|key| is_wrong(key)));
            let mut told: Vec<Failure> = all.map(|it| it.failure).collect();
            let (pieces, unusable) = Pieces::read(&settings, now);
            told.extend(unusable.into_iter().map(|flaw| flaw.failure));
            if !settings.ephemeral
                && !settings.is_clustered()
                && !settings.data_dir.as_os_str().is_empty()
            {
                told.extend(check_data(&settings.data_dir).err().map(|why| cannot_serve(&why)));
            }
            told.extend(settings.is_clustered().then(|| settings.arbiter().err()).flatten());
            told.extend(unwritable(&settings));
            found.mistakes.extend(wrong.into_iter().map(|(_, mistake)| mistake));
            found.mistakes.extend(told);
            found.doubts = contradictions::doubts(&settings);
            found.doubts.extend(pieces.doubts);
            found.in_force = settings.in_force;
        } else {
            found.mistakes.extend(wrong.into_iter().map(|(_, mistake)| mistake));
        }
        found
    }

    fn verdict(&self) -> String {
        let file = match &self.file {
            Some(file) => format!("configuration file {}", file.display()),
            None => "no configuration file".to_owned(),
        };
        let count = |of: usize, one: &str| words::count(of as u64, one);
        let warnings = count(self.doubts.len(), "warning");
        match self.mistakes.len() {
            0 => format!("{file}: no mistakes, {warnings}"),
            many => {
                format!("{file}: {}, {warnings}; serve would not start", count(many, "mistake"))
            }
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let mistakes = self.mistakes.iter().map(|mistake| {
            let (what, facts, hint) = mistake.parts();
            json!({"what": what, "facts": facts, "hint": hint})
        });
        json!({
            "file": self.file,
            "settings": config::all_as_json(TABLE, &self.in_force),
            "mistakes": mistakes.collect::<Vec<_>>(),
            "warnings": self.doubts,
        })
    }
}
