//! `coordinator config`: the settings in force, and where each came from.

use std::process::ExitCode;

use serde_json::json;

use super::reload::Reload;
use super::{InForce, Origin, Row, Settings, TABLE};
use crate::cli::arguments::ConfigArgs;
use crate::cli::text::answer;
use crate::cli::text::errors::Failure;
use crate::cli::text::table::Table;

/// Prints the settings.
pub(crate) fn run(args: &ConfigArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    if args.json {
        let all = all_as_json(TABLE, &settings.in_force);
        answer::line(&format!("{:#}", json!({ "settings": all })))?;
    } else {
        answer::print(&as_table(&settings.in_force))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings, for people.
pub(crate) fn as_table(in_force: &[InForce]) -> String {
    let mut table = Table::new(&["SETTING", "VALUE", "FROM", "RELOAD"]);
    for InForce { key, text, origin } in in_force {
        let text = if text.is_empty() { "-" } else { text };
        let row = TABLE.iter().find(|row| row.key == *key);
        let reload = row.map_or("", |row| row.reload().as_str());
        table.row([(*key).to_owned(), text.to_owned(), place(origin), reload.to_owned()]);
    }
    table.render()
}

/// The settings, for programs: each row with what is in force of it.
pub(crate) fn all_as_json(rows: &[Row], in_force: &[InForce]) -> Vec<serde_json::Value> {
    let all = in_force.iter().map(|InForce { key, text, origin }| {
        let value = (!text.is_empty()).then_some(text);
        let row = rows.iter().find(|row| row.key == *key);
        let reload = row.map(|row| match row.reload() {
            Reload::Sighup => "sighup",
            Reload::Restart => "restart",
            Reload::Command => "command",
        });
        let variable = row.map(Row::variable);
        json!({"key": key, "value": value, "from": place(origin), "variable": variable, "reload": reload})
    });
    all.collect()
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
SETTING    VALUE        FROM                            RELOAD
listen     127.0.0.1:0  flag                            restart
log        debug        RUST_LOG                        yes
ttl        30s          /etc/coordinator/config.toml:3  -
port-file  -            default                         restart
"
        );
    }

    #[test]
    fn a_setting_that_is_off_is_null_for_programs() {
        let json = all_as_json(TABLE, &some());
        assert_eq!(json[1]["from"], "RUST_LOG");
        assert!(json[3]["value"].is_null());
        assert_eq!((&json[1]["reload"], &json[2]["reload"]), (&json!("sighup"), &json!("command")));
    }
}
