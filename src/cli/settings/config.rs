//! `coordinator config`: the settings in force, and where each came from.

use std::process::ExitCode;

use serde_json::json;

use super::{InForce, Origin, Settings, TABLE};
use crate::cli::arguments::ConfigArgs;
use crate::cli::text::answer;
use crate::cli::text::errors::Failure;
use crate::cli::text::table::Table;

/// Prints the settings.
pub(crate) fn run(args: &ConfigArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    if args.json {
        answer::line(&format!("{:#}", as_json(&settings.in_force)))?;
    } else {
        answer::print(&as_table(&settings.in_force))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_table(in_force: &[InForce]) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
    for InForce { key, text, origin } in in_force {
        let text = if text.is_empty() { "-" } else { text };
        table.row([(*key).to_owned(), text.to_owned(), place(origin)]);
    }
    table.render()
}

fn as_json(in_force: &[InForce]) -> serde_json::Value {
    let settings = TABLE.iter().zip(in_force).map(|(row, InForce { key, text, origin })| {
        let value = (!text.is_empty()).then_some(text);
        json!({"key": key, "value": value, "from": place(origin), "variable": row.variable()})
    });
    json!({ "settings": settings.collect::<Vec<_>>() })
}

fn place(origin: &Origin) -> String {
    match origin {
        Origin::Flag => "flag".to_owned(),
        Origin::Environment(name) => name.clone(),
        Origin::File(path, line) => format!("{}:{line}", path.display()),
        Origin::Default => "default".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<InForce> {
        vec![
            InForce { key: "listen", text: "127.0.0.1:0".into(), origin: Origin::Flag },
            InForce {
                key: "log",
                text: "debug".into(),
                origin: Origin::Environment("RUST_LOG".into()),
            },
            InForce {
                key: "ttl",
                text: "30s".into(),
                origin: Origin::File("/etc/coordinator/config.toml".into(), 3),
            },
            InForce { key: "port-file", text: String::new(), origin: Origin::Default },
        ]
    }

    #[test]
    fn each_setting_says_where_it_came_from() {
        assert_eq!(
            as_table(&some()),
            "\
SETTING    VALUE        FROM
listen     127.0.0.1:0  flag
log        debug        RUST_LOG
ttl        30s          /etc/coordinator/config.toml:3
port-file  -            default
"
        );
    }

    #[test]
    fn a_setting_that_is_off_is_null_for_programs() {
        let json = as_json(&some());
        assert_eq!(json["settings"][1]["from"], "RUST_LOG");
        assert!(json["settings"][3]["value"].is_null());
    }
}
