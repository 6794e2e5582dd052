//! Everything that can be set, in one table.
//!
//! A row gives a setting's name, its kind, its default, the commands that take it as a flag, and a
//! line of help. The flags, the environment variables, the keys of the file and `coordinator
//! config` all come from the row. A setting called `drain-timeout` is `--drain-timeout`,
//! `COORDINATOR_DRAIN_TIMEOUT`, and `drain-timeout` in the file; the first of them that is there
//! holds, else the default. Two settings listen to a foreign variable as well, because users expect
//! it. The log filter listens to `RUST_LOG` (as a variable: before the file, in `serve` only, and
//! only if it speaks of us). The data directory listens to systemd's `STATE_DIRECTORY` (as a
//! default: after the file).
//!
//! Every setting is read on every run, also where no command asks for it. So a mistake in the file
//! is told at once, not on the day it matters.
#![allow(clippy::doc_markdown, reason = "the table's comments are the help that users read")]

pub(super) mod cluster;
pub(super) mod config;
pub(crate) mod contradictions;
pub(crate) mod credential;
pub(crate) mod files;
pub(crate) mod reload;
pub(super) mod sources;
pub(super) mod tls;
pub(super) mod values;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coordinator::election::ClusterName;
use coordinator::http::HTTP_PORT;
use coordinator::server::Config;
use coordinator::types::{Identity, ServerAddress as Advertised, Ttl};

use self::cluster::{Endpoints, LeaderLease, MemberName};
use self::sources::Sources;
use self::values::{
    Demand, HostName, HostNames, JournalDistance, Looks, MessageRate, OnLost, PORT_DEFAULT,
    ServerAddress, Size, Threads, TtlMax, Value,
};
use crate::cli::log::{Filter, LogFormat};
use crate::cli::text::errors::Failure;
use crate::cli::text::words;

/// Commands that talk to a coordinator.
const CLIENTS: &[&str] = &[
    "lock", "try", "hold", "acquire", "held", "status", "events", "top", "ping", "release", "bench",
];
/// Commands that hold a lock.
const HOLDERS: &[&str] = &["lock", "try", "hold", "acquire"];
/// Those of them that run a command under it.
const LOCKERS: &[&str] = &["lock", "try"];
/// The command that is a coordinator.
const SERVERS: &[&str] = &["serve"];
/// Commands that ask etcd about a cluster.
const MEMBERS: &[&str] = &["serve", "members", "takeover"];
/// Commands that show a credential, and the one that is shown it.
const IN_CLEAR: &[&str] = &[
    "serve", "lock", "try", "hold", "acquire", "held", "status", "events", "top", "ping",
    "release", "bench",
];
/// Commands that read who may do what.
const RULERS: &[&str] = &["serve", "access"];

/// One setting, apart from its kind.
pub(crate) struct Row {
    /// Its name: `drain-timeout`.
    pub(crate) key: &'static str,
    /// What stands for its value in help; empty for a switch, which takes none.
    pub(crate) placeholder: &'static str,
    /// The commands that take it as a flag; `config` takes all.
    pub(crate) commands: &'static [&'static str],
    /// A sentence of help.
    pub(crate) help: &'static str,
    /// A variable that is not ours but is heeded too.
    pub(crate) foreign: Foreign,
    /// What holds if nothing is said.
    default: fn(&Sources) -> String,
}

/// A variable of someone else's that sets one of ours.
#[derive(Clone, Copy)]
pub(crate) enum Foreign {
    /// There is none.
    None,
    /// It counts as environment: it beats the file. Where it is not meant for us, which the function
    /// knows, it counts as not set.
    BeforeFile(&'static str, fn(&str) -> bool),
    /// It counts as a default: the file beats it.
    AfterFile(&'static str),
}

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag of this command line.
    Flag,
    /// A variable of this name.
    Environment(String),
    /// A line of a file.
    File(PathBuf, usize),
    /// Nowhere: it is the default.
    Default,
}

/// A setting in force, as `coordinator config` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Its name.
    pub(crate) key: &'static str,
    /// Its value, as it was written.
    pub(crate) text: String,
    /// Where it came from.
    pub(crate) origin: Origin,
}

impl Row {
    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("COORDINATOR_{}", self.key.to_uppercase().replace('-', "_"))
    }

    /// What holds on every machine if nothing is said; empty if there is no such thing.
    pub(crate) fn default_text(&self) -> String {
        if self.is_switch() { String::new() } else { (self.default)(&Sources::default()) }
    }

    /// Whether it names a file or a directory.
    fn is_path(&self) -> bool {
        ["DIR", "FILE"].contains(&self.placeholder)
    }

    /// Whether it is a flag without a value.
    pub(crate) fn is_switch(&self) -> bool {
        self.placeholder.is_empty()
    }
}

/// Makes the table, the settings as a struct, and the way from one to the other.
macro_rules! settings {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $default:expr,
        $key:literal $placeholder:literal $commands:expr, $foreign:expr;)+) => {
        /// All settings, in the order in which they are shown.
        pub(crate) const TABLE: &[Row] = &[$(Row {
            key: $key,
            placeholder: $placeholder,
            commands: $commands,
            help: concat!($($help),+).trim_ascii(),
            foreign: $foreign,
            default: $default,
        }),+];

        /// The settings that hold for this run.
        #[derive(Clone, Debug)]
        pub(crate) struct Settings {
            $($(#[doc = $help])+ pub(crate) $field: $kind,)+
            /// All of them as they were written, and where.
            pub(crate) in_force: Vec<InForce>,
        }

        impl Settings {
            /// Whether somebody set this, and it is not just the default.
            pub(crate) fn is_said(&self, key: &str) -> bool {
                self.in_force.iter().any(|it| it.key == key && it.origin != Origin::Default)
            }

            /// Takes each setting from the first source that has it.
            pub(crate) fn resolve(sources: &Sources) -> Result<Self, Failure> {
                let (settings, mistakes) = Self::gather(sources);
                if let Some((_, mistake)) = mistakes.into_iter().next() {
                    return Err(mistake);
                }
                // A setting without a value is a mistake.
                let settings = settings.ok_or_else(|| Failure::usage("a setting has no value"))?;
                contradictions::first(contradictions::of_every_command(&settings))?;
                Ok(settings)
            }

            /// The same, with all mistakes, each by its setting. One that is wrong has its default, so that
            /// the others can be looked at, too.
            pub(crate) fn gather(
                sources: &Sources,
            ) -> (Option<Self>, Vec<(&'static str, Failure)>) {
                let in_force: Vec<InForce> =
                    TABLE.iter().map(|row| in_force(row, sources)).collect();
                let (mut mistakes, mut rest) = (Vec::new(), TABLE.iter().zip(&in_force));
                $(let $field = rest.next().and_then(|(row, said)| {
                    read_or_default::<$kind>(row, said, sources, &mut mistakes)
                });)+
                let ($(Some($field),)+) = ($($field,)+) else { return (None, mistakes) };
                (Some(Self { $($field,)+ in_force }), mistakes)
            }
        }
    };
}

settings! {
    /// Address to listen on; port 0 takes a free port.
    listen: SocketAddr = |_| format!("127.0.0.1:{PORT_DEFAULT}"),
        "listen" "ADDRESS:PORT" SERVERS, Foreign::None;
    /// Directory for the durable state; by default $STATE_DIRECTORY, else the user's state
    /// directory.
    data_dir: PathBuf = Sources::state_directory,
        "data-dir" "DIR" SERVERS, Foreign::AfterFile("STATE_DIRECTORY");
    /// Keep no state on disk; for tests and demonstrations.
    ephemeral: bool = |_| "false".to_owned(),
        "ephemeral" "" SERVERS, Foreign::None;
    /// Durability of the journal (write-ahead log): process survives a crash of the coordinator,
    /// machine a power cut, too. With off, a crash is followed by a grace period of the longest
    /// lease.
    journal: JournalDistance = |_| "process".to_owned(),
        "journal" "off|process|machine" SERVERS, Foreign::None;
    /// Start even if the stored state is more than a year old.
    accept_stale_state: bool = |_| "false".to_owned(),
        "accept-stale-state" "" SERVERS, Foreign::None;
    /// Start even if the stored state is damaged, and set the damaged files aside.
    accept_lost_state: bool = |_| "false".to_owned(),
        "accept-lost-state" "" SERVERS, Foreign::None;
    /// Cluster of coordinators to take part in, one of which leads; its state is in etcd.
    cluster: Option<ClusterName> = |_| String::new(),
        "cluster" "NAME" MEMBERS, Foreign::None;
    /// Address of this coordinator for clients, as the others tell them; by default that of --listen.
    advertise: Option<Advertised> = |_| String::new(),
        "advertise" "HOST:PORT" SERVERS, Foreign::None;
    /// Name of this coordinator in its cluster; by default the address of --advertise.
    member_name: Option<MemberName> = |_| String::new(),
        "member-name" "NAME" SERVERS, Foreign::None;
    /// Endpoints of etcd, which says who leads the cluster.
    etcd: Endpoints = |_| String::new(),
        "etcd" "URL,…" MEMBERS, Foreign::None;
    /// Certificates of the authorities that prove etcd, in PEM.
    etcd_ca: Option<PathBuf> = |_| String::new(),
        "etcd-ca" "FILE" MEMBERS, Foreign::None;
    /// Certificate to show to etcd, in PEM.
    etcd_cert: Option<PathBuf> = |_| String::new(),
        "etcd-cert" "FILE" MEMBERS, Foreign::None;
    /// Key of --etcd-cert, in PEM.
    etcd_key: Option<PathBuf> = |_| String::new(),
        "etcd-key" "FILE" MEMBERS, Foreign::None;
    /// User of etcd.
    etcd_user: Option<String> = |_| String::new(),
        "etcd-user" "NAME" MEMBERS, Foreign::None;
    /// File with the password of --etcd-user.
    etcd_password_file: Option<PathBuf> = |_| String::new(),
        "etcd-password-file" "FILE" MEMBERS, Foreign::None;
    /// How long a leader decides without an answer of etcd, between 1s and 30s; another one leads that long
    /// after it has died.
    leader_lease: LeaderLease = |_| "2s".to_owned(),
        "leader-lease" "DURATION" SERVERS, Foreign::None;
    /// Address to listen on for standbys, which follow this one while it leads; without, none is in sync.
    peer_listen: Option<SocketAddr> = |_| String::new(),
        "peer-listen" "ADDRESS:PORT" SERVERS, Foreign::None;
    /// Certificates of the authorities that prove members to each other, in PEM, with --tls-cert; by default those of
    /// --tls-client-ca, or the system's.
    peer_ca: Option<PathBuf> = |_| String::new(),
        "peer-ca" "FILE" SERVERS, Foreign::None;
    /// File to write the port to as soon as the coordinator is ready.
    port_file: Option<PathBuf> = |_| String::new(),
        "port-file" "FILE" SERVERS, Foreign::None;
    /// With --ephemeral: how long holders may continue after SIGTERM (drain).
    drain_timeout: Duration = |_| words::setting(Config::default().drain_timeout),
        "drain-timeout" "DURATION" SERVERS, Foreign::None;
    /// Longest time for a new connection to complete its handshake.
    handshake_timeout: Duration = |_| words::setting(Config::default().handshake_timeout),
        "handshake-timeout" "DURATION" SERVERS, Foreign::None;
    /// Number of I/O threads for connections; with 0, the coordinator's own thread does it all.
    io_threads: Threads = |_| Config::default().io_threads.to_string(),
        "io-threads" "N" SERVERS, Foreign::None;
    /// Maximum number of connections.
    connections_max: usize = |_| Config::default().connections_max.to_string(),
        "connections-max" "N" SERVERS, Foreign::None;
    /// Maximum number of connections from one address; by default three quarters of
    /// --connections-max.
    connections_per_address_max: Option<usize> = |_| String::new(),
        "connections-per-address-max" "N" SERVERS, Foreign::None;
    /// Maximum messages per second from one address, at least 1000; beyond it, reading is delayed. No
    /// limit by default.
    messages_per_second_max: Option<MessageRate> = |_| String::new(),
        "messages-per-second-max" "N" SERVERS, Foreign::None;
    /// Maximum size of unread output, all connections together; beyond it, the connections with the
    /// most are closed.
    unread_max: Size = |_| words::size(Config::default().unread_bytes_max),
        "unread-max" "SIZE" SERVERS, Foreign::None;
    /// Longest lease that a client may ask for, between 10s and 1h. A crash without a journal is
    /// followed by a grace period of the longest lease in use.
    ttl_max: TtlMax = |_| words::ttl(Config::default().limits.ttl_max),
        "ttl-max" "DURATION" SERVERS, Foreign::None;
    /// Maximum number of sessions.
    sessions_max: usize = |_| Config::default().limits.sessions_max.to_string(),
        "sessions-max" "N" SERVERS, Foreign::None;
    /// Maximum number of sessions from one address; by default three quarters of --sessions-max.
    sessions_per_address_max: Option<usize> = |_| String::new(),
        "sessions-per-address-max" "N" SERVERS, Foreign::None;
    /// Maximum number of locks that one session holds and waits for, together.
    claims_per_session_max: usize =
        |_| Config::default().limits.claims_per_session_max.to_string(),
        "claims-per-session-max" "N" SERVERS, Foreign::None;
    /// Maximum number of requests waiting for one lock.
    waiters_per_lock_max: usize = |_| Config::default().limits.waiters_per_lock_max.to_string(),
        "waiters-per-lock-max" "N" SERVERS, Foreign::None;
    /// Address for probes and Prometheus, over HTTP; empty: none. By default 127.0.0.1:5626, if --listen
    /// has the default port.
    http_listen: Option<SocketAddr> = http_beside,
        "http-listen" "ADDRESS:PORT" SERVERS, Foreign::None;
    /// Address for clients of the Redis dialect; empty: none. For locks, not for data.
    redis_listen: Option<SocketAddr> = |_| String::new(),
        "redis-listen" "ADDRESS:PORT" SERVERS, Foreign::None;
    /// Let FLUSHDB free all locks that clients of the Redis dialect hold; for tests.
    redis_allow_flush: bool = |_| "false".to_owned(),
        "redis-allow-flush" "" SERVERS, Foreign::None;
    /// Host names of the HTTP port, separated by commas, besides localhost and its own address.
    http_host: HostNames = |_| String::new(),
        "http-host" "HOST,…" SERVERS, Foreign::None;
    /// Tell metrics to whoever reaches the HTTP port; with --access-file, only principals that may see all locks
    /// are told them otherwise.
    metrics_open: bool = |_| "false".to_owned(),
        "metrics-open" "" SERVERS, Foreign::None;
    /// Certificate of the coordinator, in PEM, with those that it builds on: both ports speak TLS only.
    tls_cert: Option<PathBuf> = |_| String::new(),
        "tls-cert" "FILE" SERVERS, Foreign::None;
    /// Key of --tls-cert, in PEM.
    tls_key: Option<PathBuf> = |_| String::new(),
        "tls-key" "FILE" SERVERS, Foreign::None;
    /// Certificates of the authorities that prove clients, in PEM (mutual TLS).
    tls_client_ca: Option<PathBuf> = |_| String::new(),
        "tls-client-ca" "FILE" SERVERS, Foreign::None;
    /// Whether clients must show a certificate, with --tls-client-ca; never on the HTTP port.
    tls_client_auth: Demand = |_| "required".to_owned(),
        "tls-client-auth" "required|optional" SERVERS, Foreign::None;
    /// Revoked certificates of clients, in PEM; clients of unknown status are refused then.
    tls_crl: Option<PathBuf> = |_| String::new(),
        "tls-crl" "FILE" SERVERS, Foreign::None;
    /// Who may do what: principals, their credentials and certificates, and rules. Without it, whoever reaches
    /// the port may do everything.
    access_file: Option<PathBuf> = |_| String::new(),
        "access-file" "FILE" RULERS, Foreign::None;
    /// Let anyone who reaches the port do everything, also from other machines, without --access-file.
    allow_anyone: bool = |_| "false".to_owned(),
        "allow-anyone" "" SERVERS, Foreign::None;
    /// File of the audit log, one JSON object per line: who was let in or refused, was denied what, took which
    /// lock away; - is standard error. Opened anew by SIGHUP.
    audit_log: Option<PathBuf> = |_| String::new(),
        "audit-log" "FILE" SERVERS, Foreign::None;
    /// Maximum number of looks (pages of status) in a second, all observers together.
    looks_per_second: Looks = |_| Config::default().looks_per_second.to_string(),
        "looks-per-second" "N" SERVERS, Foreign::None;
    /// Log level (error, warn, info, debug, trace), or a filter in the syntax of RUST_LOG.
    log: Filter = |_| "info".to_owned(),
        "log" "FILTER" SERVERS, Foreign::BeforeFile("RUST_LOG", Filter::concerns_us);
    /// Log format: text, or one JSON object per line.
    log_format: LogFormat = |_| "text".to_owned(),
        "log-format" "text|json" SERVERS, Foreign::None;
    /// Address of the coordinator, with TLS tls://HOST:PORT; several, separated by commas, are tried in
    /// this order.
    server: ServerAddress = |_| format!("127.0.0.1:{PORT_DEFAULT}"),
        "server" "HOST:PORT,…" CLIENTS, Foreign::None;
    /// Certificates of the authorities that prove the coordinator, in PEM; by default the system's.
    server_ca: Option<PathBuf> = |_| String::new(),
        "server-ca" "FILE" CLIENTS, Foreign::None;
    /// Name that the coordinator's certificate must have; by default the host of --server.
    server_name: Option<HostName> = |_| String::new(),
        "server-name" "NAME" CLIENTS, Foreign::None;
    /// Certificate to show to the coordinator, in PEM, with those that it builds on (mutual TLS).
    client_cert: Option<PathBuf> = |_| String::new(),
        "client-cert" "FILE" CLIENTS, Foreign::None;
    /// Key of --client-cert, in PEM.
    client_key: Option<PathBuf> = |_| String::new(),
        "client-key" "FILE" CLIENTS, Foreign::None;
    /// File of the credential that proves who you are, where the coordinator has an access file; by default
    /// $XDG_CONFIG_HOME/coordinator/credential, if it is there. COORDINATOR_CREDENTIAL is one itself.
    credential_file: PathBuf = Sources::credential_file,
        "credential-file" "FILE" CLIENTS, Foreign::None;
    /// Show the credential to other machines without TLS, too (of serve: take it): whoever is in between can
    /// read it.
    credential_in_clear: bool = |_| "false".to_owned(),
        "credential-in-clear" "" IN_CLEAR, Foreign::None;
    /// Longest time to connect.
    connect_timeout: Duration = |_| "5s".to_owned(),
        "connect-timeout" "DURATION" CLIENTS, Foreign::None;
    /// Your identity, shown to others; by default user@host:pid.
    identity: Option<Identity> = |_| String::new(),
        "as" "ID" HOLDERS, Foreign::None;
    /// Length of the lease: how long the lock outlives the client's last sign of life. From 2s to
    /// the coordinator's --ttl-max (10m by default).
    ttl: Ttl = |_| words::ttl(Ttl::default()),
        "ttl" "DURATION" HOLDERS, Foreign::None;
    /// Time between SIGTERM and SIGKILL when the lock is lost; at most a third of the ttl.
    kill_after: Duration = |_| "5s".to_owned(),
        "kill-after" "DURATION" LOCKERS, Foreign::None;
    /// What to do with the command when its lock is lost.
    on_lost: OnLost = |_| "kill".to_owned(),
        "on-lost" "kill|warn" LOCKERS, Foreign::None;
}

/// The usual port for probes, beside the usual port for locks: whoever runs several on a machine says
/// where each answers.
fn http_beside(sources: &Sources) -> String {
    let listen = TABLE.iter().find(|row| row.key == "listen").map(|row| in_force(row, sources));
    let usual = format!(":{PORT_DEFAULT}");
    match listen {
        Some(listen) if listen.text.ends_with(&usual) => format!("127.0.0.1:{HTTP_PORT}"),
        Some(_) | None => String::new(),
    }
}

/// The first of a row's sources that says something.
fn in_force(row: &Row, sources: &Sources) -> InForce {
    let variable = row.variable();
    let flag = || sources.flag(row.key).map(|text| (text.to_owned(), Origin::Flag));
    let environment = |name: &str| {
        sources.variable(name).map(|text| (text.to_owned(), Origin::Environment(name.to_owned())))
    };
    let file = || {
        let (path, entry) = sources.in_file(row.key)?;
        Some((entry.text.clone(), Origin::File(path.to_owned(), entry.line)))
    };
    let (before, after) = match row.foreign {
        Foreign::None => (None, None),
        Foreign::BeforeFile(name, is_ours) => (Some((name, is_ours)), None),
        Foreign::AfterFile(name) => (None, Some(name)),
    };
    let before = || {
        let (name, is_ours) = before?;
        environment(name).filter(|(text, _)| is_ours(text))
    };
    let (text, origin) = flag()
        .or_else(|| environment(&variable))
        .or_else(before)
        .or_else(file)
        .or_else(|| after.and_then(environment).map(first_of_list))
        .unwrap_or_else(|| ((row.default)(sources), Origin::Default));
    let text = if row.is_path() { sources.expanded(&text) } else { text };
    InForce { key: row.key, text, origin }
}

/// systemd separates several state directories by colons; ours is the first.
fn first_of_list((text, origin): (String, Origin)) -> (String, Origin) {
    (text.split(':').next().unwrap_or_default().to_owned(), origin)
}

/// Reads a value, or takes note of what is wrong with it and has the default instead.
fn read_or_default<T: Value>(
    row: &Row,
    said: &InForce,
    sources: &Sources,
    mistakes: &mut Vec<(&'static str, Failure)>,
) -> Option<T> {
    match read(said) {
        Ok(value) => Some(value),
        Err(mistake) => {
            mistakes.push((row.key, mistake));
            T::parse(&(row.default)(sources)).ok()
        }
    }
}

/// Reads a value, or says where it was written and what is wrong with it.
fn read<T: Value>(InForce { key, text, origin }: &InForce) -> Result<T, Failure> {
    T::parse(text).map_err(|wrong| {
        let place = match origin {
            Origin::Flag => format!("--{key}"),
            Origin::Environment(name) => name.clone(),
            Origin::File(path, line) => format!("{}:{line}: {key}", path.display()),
            Origin::Default => format!("the default of {key}"),
        };
        Failure::usage(format!("{place} is {text:?}: {wrong}"))
            .hint("`coordinator config` shows the settings in force and where each came from")
    })
}

#[cfg(test)]
mod tests;
