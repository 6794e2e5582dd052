//! What a connection is told about itself and about the server.

use std::time::Duration;

use super::{Flushing, NAME_LEN_MAX, Own, Step, Talk};
use crate::redis::deed::Deed;
use crate::redis::reply::{Protocol, Reply};
use crate::redis::request::{Words, number};
use crate::types::ShownCredential;

/// The version of Redis whose answers these are.
const REDIS_VERSION: &str = "7.2.0";
/// The name of `AUTH` for whoever gives none.
const DEFAULT_USER: &[u8] = b"default";

impl Talk {
    /// Answers what is said about the connection.
    pub(super) fn own(&mut self, own: Own, words: &Words, wall: Duration) -> Step {
        let first = words.get(1);
        Step::Say(match own {
            Own::Ping => match first {
                None => Reply::Simple("PONG"),
                Some(said) => Reply::Bulk(said.to_vec()),
            },
            Own::Echo => match first {
                Some(said) if words.len() == 2 => Reply::Bulk(said.to_vec()),
                _ => miscounted("echo"),
            },
            Own::Hello => return self.hello(words),
            Own::Auth => return auth(words),
            Own::Client => self.client(words),
            Own::Select => match first.and_then(number) {
                Some(0) => Reply::OK,
                Some(_) => Reply::error("ERR DB index is out of range: a lock service has one, 0"),
                None => Reply::error("ERR invalid DB index"),
            },
            Own::Info => Reply::text(info()),
            Own::Command => command(first),
            Own::Config => match first.unwrap_or_default().to_ascii_uppercase().as_slice() {
                b"GET" => Reply::Map(Vec::new()),
                _ => Reply::error("ERR a lock service is configured where it is started"),
            },
            Own::Role => {
                let replicas = Reply::Array(Vec::new());
                vec![Reply::text("master"), Reply::Integer(0), replicas].into()
            }
            Own::Time => {
                let micros = wall.subsec_micros().to_string();
                vec![Reply::text(wall.as_secs().to_string()), Reply::text(micros)].into()
            }
            Own::Replicas => Reply::Integer(0),
            Own::Script => self.script(words),
            Own::Flush => match self.flushing {
                Flushing::Allowed if self.queue.is_some() => Reply::error(
                    "ERR FLUSHDB takes as long as there are locks; say it without MULTI",
                ),
                Flushing::Allowed => return Step::Do(Deed::Flush),
                Flushing::Refused => Reply::error(
                    "ERR FLUSHDB would take all locks from their holders; start the coordinator with \
                     --redis-allow-flush if that is what you want",
                ),
            },
            Own::Quit => return Step::Leave(Reply::OK),
            // These are taken before they come here.
            Own::Multi | Own::Exec | Own::Discard | Own::Reset => Reply::error("ERR syntax error"),
        })
    }

    /// `HELLO [version [AUTH user password] [SETNAME name]]`.
    fn hello(&mut self, words: &Words) -> Step {
        let protocol = match words.get(1).map(number) {
            None => self.protocol,
            Some(Some(2)) => Protocol::Resp2,
            Some(Some(3)) => Protocol::Resp3,
            Some(_) => {
                return Step::Say(Reply::error("NOPROTO unsupported protocol version"));
            }
        };
        let (mut at, mut shown) = (2, None);
        while let Some(option) = words.get(at) {
            match (option.to_ascii_uppercase().as_slice(), words.get(at + 1), words.get(at + 2)) {
                (b"AUTH", Some(user), Some(password)) => {
                    (shown, at) = (Some((user, password)), at + 3);
                }
                (b"SETNAME", Some(name), _) => match self.call_itself(name) {
                    Reply::Error(no) => return Step::Say(Reply::Error(no)),
                    _ => at += 2,
                },
                _ => return Step::Say(Reply::error("ERR Syntax error in HELLO")),
            }
        }
        if shown.is_none() && !self.is_trusted {
            return Step::Say(Reply::error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                 HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                 select the RESP protocol version at the same time",
            ));
        }
        self.protocol = protocol;
        let then = self.greeting();
        match shown {
            None => Step::Say(then),
            Some((user, password)) => enter(user, password, then),
        }
    }

    fn greeting(&self) -> Reply {
        let version = match self.protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        };
        let id = i64::try_from(self.id).unwrap_or(i64::MAX);
        Reply::Map(vec![
            (Reply::text("server"), Reply::text("redis")),
            (Reply::text("version"), Reply::text(REDIS_VERSION)),
            (Reply::text("proto"), Reply::Integer(version)),
            (Reply::text("id"), Reply::Integer(id)),
            (Reply::text("mode"), Reply::text("standalone")),
            (Reply::text("role"), Reply::text("master")),
            (Reply::text("modules"), Reply::Array(Vec::new())),
        ])
    }

    fn client(&mut self, words: &Words) -> Reply {
        let what = words.get(1).unwrap_or_default().to_ascii_uppercase();
        match (what.as_slice(), words.get(2)) {
            (b"SETNAME", Some(name)) if words.len() == 3 => self.call_itself(name),
            (b"GETNAME", None) if self.name.is_empty() => Reply::Nil,
            (b"GETNAME", None) => Reply::Bulk(self.name.clone()),
            (b"ID", None) => Reply::Integer(i64::try_from(self.id).unwrap_or(i64::MAX)),
            (b"SETINFO" | b"NO-EVICT" | b"NO-TOUCH", Some(_)) => Reply::OK,
            (b"INFO", None) => {
                Reply::text(format!("id={} name={} lib-name= lib-ver=\n", self.id, self.name()))
            }
            _ => Reply::error(
                "ERR CLIENT has SETNAME, GETNAME, ID, INFO, SETINFO, NO-EVICT and NO-TOUCH here",
            ),
        }
    }

    /// Gives the connection a name, which has no spaces, as in Redis.
    fn call_itself(&mut self, name: &[u8]) -> Reply {
        if name.len() > NAME_LEN_MAX {
            return Reply::error(format!("ERR a name has at most {NAME_LEN_MAX} bytes here"));
        }
        if !name.iter().all(u8::is_ascii_graphic) {
            return Reply::error(
                "ERR Client names cannot contain spaces, newlines or special characters.",
            );
        }
        (self.name, self.is_renamed) = (name.to_vec(), true);
        Reply::OK
    }
}

/// What libraries look for when they connect.
fn info() -> String {
    format!(
        "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\narch_bits:64\r\n\
         server_name:coordinator\r\ncoordinator_version:{}\r\n\
         # Clients\r\nconnected_clients:1\r\n\
         # Persistence\r\nloading:0\r\n\
         # Replication\r\nrole:master\r\nconnected_slaves:0\r\n\
         # Cluster\r\ncluster_enabled:0\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// `AUTH [user] password`.
fn auth(words: &Words) -> Step {
    match (words.get(1), words.get(2)) {
        (Some(password), None) => enter(DEFAULT_USER, password, Reply::OK),
        (Some(user), Some(password)) if words.len() == 3 => enter(user, password, Reply::OK),
        _ => Step::Say(miscounted("auth")),
    }
}

fn enter(user: &[u8], password: &[u8], then: Reply) -> Step {
    let user = (user != DEFAULT_USER).then(|| String::from_utf8_lossy(user).into_owned());
    // One that is no text is shown, too, and proves nobody.
    let credential = ShownCredential::new(String::from_utf8_lossy(password));
    Step::Enter { user, credential: Some(credential), then }
}

fn command(what: Option<&[u8]>) -> Reply {
    match what.unwrap_or_default().to_ascii_uppercase().as_slice() {
        b"COUNT" => Reply::Integer(0),
        b"DOCS" => Reply::Map(Vec::new()),
        _ => Reply::Array(Vec::new()),
    }
}

fn miscounted(command: &str) -> Reply {
    Reply::error(format!("ERR wrong number of arguments for '{command}' command"))
}
