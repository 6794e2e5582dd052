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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;

    use crate::cli::settings::sources::Sources;
    use crate::cli::settings::{Row, Settings, TABLE};

    /// Where the packages' file of settings is.
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/config.toml");
    const HEAD: &str = "\
# Settings of coordinator, of the service and of its clients. Each line that begins with `#key` is a
# setting with its default: take the # away to change it. What a change needs, and what else is said of
# each: `coordinator config`, coordinator-serve(1).
";
    /// Longest line of a comment, its `# ` included.
    const COLUMNS_MAX: usize = 100;

    /// The file in which all settings stand and none is set.
    fn file_of_the_packages() -> String {
        let mut text = HEAD.to_owned();
        for row in TABLE {
            text.push('\n');
            let mut line = "#".to_owned();
            for word in row.help.split_whitespace() {
                if line.len() + 1 + word.len() > COLUMNS_MAX {
                    writeln!(text, "{line}").unwrap();
                    line = "#".to_owned();
                }
                line.push(' ');
                line.push_str(word);
            }
            writeln!(text, "{line}\n{}", set(row)).unwrap();
        }
        text
    }

    fn set(row: &Row) -> String {
        let value = match row.default_text() {
            _ if row.is_switch() => "false".to_owned(),
            text if text.is_empty() || text.parse::<u64>().is_ok() => text,
            text => format!("{text:?}"),
        };
        match value.as_str() {
            "" => format!("#{} = {:?}    # none by default", row.key, row.placeholder),
            _ => format!("#{} = {value}", row.key),
        }
    }

    #[test]
    fn the_packages_have_a_file_of_all_settings_that_sets_none() {
        let expected = file_of_the_packages();
        if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
            std::fs::write(FILE, &expected).unwrap();
        }
        let told = std::fs::read_to_string(FILE).unwrap();
        assert_eq!(told, expected, "UPDATE_GOLDENFILES=1 cargo test the_packages_have writes it");
        let nothing = || Sources::new(BTreeMap::new(), []).unwrap();
        let all = |sources| Settings::resolve(&sources).unwrap().in_force;
        let as_it_is = nothing().with_file("c.toml".into(), &told).unwrap();
        assert_eq!(all(as_it_is), all(nothing()));
        let mut with_all = String::new();
        // One of them says something only beside another, which has no default.
        let alone = |line: &&str| {
            !["# none by default", "#tls-client-auth", "#leader-lease"]
                .iter()
                .any(|it| line.contains(it))
        };
        for line in told.lines().filter(alone) {
            match line.strip_prefix('#') {
                Some(set) if !set.is_empty() && !set.starts_with(' ') => with_all += set,
                _ => with_all += line,
            }
            with_all.push('\n');
        }
        let values =
            |sources| -> Vec<_> { all(sources).into_iter().map(|it| (it.key, it.text)).collect() };
        let set = nothing().with_file("c.toml".into(), &with_all).unwrap();
        assert_eq!(values(set), values(nothing()), "a default is written as it is read");
    }
}
