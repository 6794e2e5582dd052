//! `coordinator completions` and `coordinator man`: papers made from the grammar itself.

use std::process::ExitCode;

use clap_complete::Shell;

use super::manual;
use super::{CompletionsArgs, ManArgs, grammar, rows_of};
use crate::cli::text::answer;
use crate::cli::text::errors::Failure;

/// Prints completions for a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut static_script = Vec::new();
    let script = match args.shell {
        Shell::Bash => include_bytes!("completions/coordinator.bash").as_slice(),
        Shell::Fish => include_bytes!("completions/coordinator.fish"),
        Shell::Zsh => include_bytes!("completions/coordinator.zsh"),
        // These know the grammar, and no more.
        other => {
            clap_complete::generate(other, &mut grammar(), "coordinator", &mut static_script);
            &static_script
        }
    };
    answer::raw(script)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page of the program or of one command.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let mut whole = grammar();
    whole.build();
    let page = match &args.command {
        None => whole,
        Some(name) => match whole.find_subcommand(name) {
            Some(command) => command.clone(),
            None => {
                return Err(Failure::usage(format!("there is no command {name:?}"))
                    .hint("`coordinator help` lists them"));
            }
        },
    };
    let rows: Vec<_> = rows_of(page.get_name()).collect();
    let text = manual::page(&page, &rows)
        .map_err(|error| Failure::ours("cannot write the manual", &error))?;
    answer::raw(&text)?;
    Ok(ExitCode::SUCCESS)
}
