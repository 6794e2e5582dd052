//! What becomes of a setting that changes while the server runs.

use super::Row;

/// When another value of a setting holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reload {
    /// From a SIGHUP on: the value, and what is in the file that it names.
    Sighup,
    /// From the next start of the server on.
    Restart,
    /// With the next command: it is none of the server's.
    Command,
}

/// Settings that a SIGHUP takes over. Whether there is TLS and whether there are rules is settled at the
/// start, so another file may take the place of one, and none may come or go.
const TAKEN_OVER: [&str; 7] =
    ["access-file", "log", "tls-cert", "tls-client-auth", "tls-client-ca", "tls-crl", "tls-key"];

impl Reload {
    /// As `coordinator config` shows it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sighup => "yes",
            Self::Restart => "restart",
            Self::Command => "-",
        }
    }
}

impl Row {
    /// When another value of it holds.
    pub(crate) fn reload(&self) -> Reload {
        if !self.commands.contains(&"serve") {
            Reload::Command
        } else if TAKEN_OVER.contains(&self.key) {
            Reload::Sighup
        } else {
            Reload::Restart
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::TABLE;

    #[test]
    fn what_a_sighup_takes_over_are_settings_of_the_server() {
        let of = |reload| TABLE.iter().filter(move |row| row.reload() == reload);
        let mut taken: Vec<_> = of(Reload::Sighup).map(|row| row.key).collect();
        taken.sort_unstable();
        assert_eq!(taken, TAKEN_OVER);
        assert!(of(Reload::Restart).any(|row| row.key == "listen"));
        assert!(of(Reload::Command).any(|row| row.key == "ttl"));
    }
}
