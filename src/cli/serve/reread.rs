//! Settings, read again while the server runs (SIGHUP).
//!
//! Only the log filter, the access rules, and what is in the files for TLS, can change without a restart; of the other
//! settings that have changed it is said that they wait for one. A file that cannot be read changes nothing. The file may be where
//! reading takes for ever, so that is done by a thread of its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use coordinator::server::{Audit, ServerHandle};
use coordinator::tls::ServerTls;

use super::notify;
use super::rules::Rules;
use crate::cli::log as logging;
use crate::cli::settings::sources::Sources;
use crate::cli::settings::{InForce, Origin, Settings, TABLE};
use crate::cli::text::errors::Failure;

/// The setting that can change.
const CAN_CHANGE: &str = "log";

/// Reads settings again when it is asked to.
pub(crate) struct Reread {
    /// To the thread. Who asks while another has just asked, asks for the same.
    asked: SyncSender<()>,
}

/// What is read again besides the settings.
pub(super) struct Again {
    /// The files for TLS.
    pub(super) tls: Option<ServerTls>,
    /// The access file.
    pub(super) access: Option<Rules>,
    /// The audit log, which is opened anew, and told of other rules.
    pub(super) audit: Audit,
    /// The server, which is told of other rules.
    pub(super) handle: ServerHandle,
}

impl Again {
    /// Has other rules hold, if they can be read.
    fn read_rules(&mut self) {
        let Some(rules) = &mut self.access else { return };
        match rules.read_again() {
            Ok(()) => {
                self.handle.change_rules(rules.in_force());
                self.audit.note("rules", "ok", rules.told());
                logging::tell(&format!("SIGHUP: access file reloaded, {}", rules.told()));
            }
            Err(failure) => {
                let why = failure.in_one_line();
                log::error!("SIGHUP: access rules unchanged: {why}");
                self.audit.note("rules", "refused", why);
            }
        }
    }
}

impl Reread {
    /// Gets ready. The server runs by `settings`, which `flags` were a source of.
    pub(crate) fn start(
        settings: &Settings,
        flags: BTreeMap<&'static str, String>,
        mut again: Again,
    ) -> io::Result<Self> {
        let (asked, asks) = sync_channel(1);
        let mut at_start = settings.clone();
        thread::Builder::new().name("settings".to_owned()).spawn(move || {
            while asks.recv().is_ok() {
                notify::reloading();
                let read = Sources::read(flags.clone());
                apply(&mut at_start, read.and_then(|sources| Settings::resolve(&sources)));
                again.audit.reopen();
                again.tls.iter().for_each(read_again);
                again.read_rules();
                notify::ready();
            }
        })?;
        Ok(Self { asked })
    }

    /// Has the settings read again, soon.
    pub(crate) fn ask(&self) {
        let _will_be_read_anyway = self.asked.try_send(());
    }
}

/// Takes over what can be, and tells the log of the rest. `ours` is what the server runs by.
fn apply(ours: &mut Settings, read: Result<Settings, Failure>) {
    let read = match read {
        Ok(read) => read,
        Err(failure) => {
            let why = failure.in_one_line();
            return log::error!("SIGHUP: settings unchanged: {why}");
        }
    };
    let waiting = waiting(&ours.in_force, &read.in_force);
    if read.log == ours.log {
        let filter = &ours.log.0;
        logging::tell(&format!("SIGHUP: settings reloaded, the log filter is still {filter:?}"));
    } else {
        logging::set_filter(&read.log);
        let (was, is, origin) = (&ours.log.0, &read.log.0, origin_of(&read));
        logging::tell(&format!("SIGHUP: the log filter is {is:?} now ({origin}), it was {was:?}"));
        ours.log = read.log;
    }
    if !waiting.is_empty() {
        log::warn!("SIGHUP: changed, but effective only after a restart: {}", waiting.join(", "));
    }
}

/// Shows and asks for what the files for TLS have now, from the next connection on.
fn read_again(tls: &ServerTls) {
    match tls.read_again() {
        Ok(()) => logging::tell("SIGHUP: certificates reloaded, for new connections"),
        Err(why) => log::error!("SIGHUP: certificates unchanged: {why}"),
    }
}

/// Where the log filter came from.
fn origin_of(settings: &Settings) -> String {
    let found = settings.in_force.iter().find(|it| it.key == CAN_CHANGE);
    match found.map(|it| &it.origin) {
        Some(Origin::File(path, line)) => format!("{}:{line}", path.display()),
        Some(Origin::Environment(name)) => name.clone(),
        Some(Origin::Flag) => format!("--{CAN_CHANGE}"),
        Some(Origin::Default) | None => "the default".to_owned(),
    }
}

/// The server's settings that have changed and cannot be taken over.
fn waiting(ours: &[InForce], read: &[InForce]) -> Vec<&'static str> {
    let is_other = |key: &str, ours: &InForce| {
        key != CAN_CHANGE && read.iter().any(|it| it.key == key && it.text != ours.text)
    };
    let of_the_server = TABLE.iter().filter(|row| row.commands.contains(&"serve"));
    of_the_server
        .filter(|row| ours.iter().any(|it| it.key == row.key && is_other(row.key, it)))
        .map(|row| row.key)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: &str) -> Settings {
        let sources = Sources::new(BTreeMap::new(), []).unwrap();
        Settings::resolve(&sources.with_file("c.toml".into(), file).unwrap()).unwrap()
    }

    #[test]
    fn what_waits_for_a_restart_is_named_and_what_concerns_clients_is_not() {
        let ours = settings("sessions-max = 5\nttl = \"20s\"\nlog = \"info\"\n");
        let read = settings("sessions-max = 6\nttl = \"30s\"\nlog = \"warn\"\n");
        assert_eq!(waiting(&ours.in_force, &read.in_force), ["sessions-max"]);
        assert!(waiting(&ours.in_force, &ours.in_force).is_empty());
    }

    #[test]
    fn settings_that_cannot_be_read_change_nothing() {
        let mut ours = settings("log = \"info\"\n");
        apply(&mut ours, Err(Failure::usage("c.toml:1: nonsense")));
        assert_eq!(ours.log.0, "info");
        apply(&mut ours, Ok(settings("log = \"warn\"\n")));
        assert_eq!(ours.log.0, "warn");
        assert_eq!(origin_of(&settings("\nlog = \"warn\"\n")), "c.toml:2");
    }
}
