//! Settings that contradict each other, or of which one says nothing beside another.
//!
//! A setting that has no effect is one that its author takes for another: a coordinator that keeps no state
//! although its directory is named, or that asks for no certificates although their authority is. Such a pair is
//! refused by its names. What only looks odd is a doubt, and told by `coordinator config check` and the log.
//!
//! What is said by a flag may void what a file says: that is what flags are for. So a pair contradicts itself only if
//! the setting that says nothing was said at least as emphatically as the one that voids it.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf, absolute};

use super::{Foreign, Origin, Settings, TABLE};
use crate::cli::text::errors::Failure;

/// Settings that do not go together.
#[derive(Clone, Debug)]
pub(crate) struct Contradiction {
    /// Which.
    pub(crate) keys: Vec<&'static str>,
    /// What is wrong with them, and what to do.
    pub(crate) failure: Failure,
}

/// Settings that name files: an empty one would protect nothing.
const FILES: [&str; 14] = [
    "access-file",
    "audit-log",
    "credential-file",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "tls-crl",
    "server-ca",
    "client-cert",
    "client-key",
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "etcd-password-file",
];
/// Each says nothing without the other.
const NEEDS: [(&str, &str); 19] = [
    ("tls-key", "tls-cert"),
    ("tls-cert", "tls-key"),
    ("tls-client-ca", "tls-cert"),
    ("tls-crl", "tls-client-ca"),
    ("tls-client-auth", "tls-client-ca"),
    ("client-cert", "client-key"),
    ("client-key", "client-cert"),
    ("cluster", "etcd"),
    ("etcd", "cluster"),
    ("advertise", "cluster"),
    ("member-name", "cluster"),
    ("leader-lease", "cluster"),
    ("peer-listen", "cluster"),
    ("peer-ca", "cluster"),
    ("peer-ca", "tls-cert"),
    ("etcd-cert", "etcd-key"),
    ("etcd-key", "etcd-cert"),
    ("etcd-user", "etcd-password-file"),
    ("etcd-password-file", "etcd-user"),
];
/// Files that a server writes to, and those that it reads.
const WRITTEN: [&str; 2] = ["audit-log", "port-file"];
const READ: [&str; 10] = [
    "access-file",
    "tls-cert",
    "tls-key",
    "tls-client-ca",
    "tls-crl",
    "peer-ca",
    "etcd-ca",
    "etcd-cert",
    "etcd-key",
    "etcd-password-file",
];
/// What says nothing where no state is kept.
const OF_STATE: [(&str, &str); 4] = [
    ("data-dir", "has no effect"),
    ("journal", "writes nothing"),
    ("accept-stale-state", "accepts nothing"),
    ("accept-lost-state", "accepts nothing"),
];
/// What says nothing where the state is in etcd.
const OF_DIRECTORY: [(&str, &str); 1] = [("accept-lost-state", "accepts nothing")];
/// What says whom to trust and what to show, by TLS only.
const OF_TLS_CLIENTS: [&str; 3] = ["server-ca", "server-name", "client-cert"];

/// The first of some, if there are any.
pub(crate) fn first(contradictions: Vec<Contradiction>) -> Result<(), Failure> {
    contradictions.into_iter().next().map_or(Ok(()), |first| Err(first.failure))
}

/// Those that every command refuses: what they say of encryption is less than it reads.
pub(crate) fn of_every_command(settings: &Settings) -> Vec<Contradiction> {
    let empty = FILES.into_iter().filter(|key| settings.is_empty(key)).map(|key| {
        let failure = Failure::usage(format!("{key} is empty"));
        contradiction([key], failure.hint("name a file; is a script variable empty?"))
    });
    let alone = NEEDS.into_iter().filter(|(key, needed)| {
        settings.is_said(key) && !settings.is_empty(key) && !settings.is_said(needed)
    });
    let alone = alone.map(|(key, needed)| {
        let failure = Failure::usage(format!("{key} says nothing without {needed}"));
        contradiction(
            [key, needed],
            failure.hint(format!(
                "set --{needed}, too; `coordinator config` shows what is set, and where"
            )),
        )
    });
    // What a parent or a file says of others is not meant for the server of this command.
    let is_plain = !settings.server.0.contains("tls://");
    let unused =
        OF_TLS_CLIENTS.into_iter().filter(|key| is_plain && settings.strength(key) == FLAG);
    let unused = unused.map(|key| {
        let server = &settings.server.0;
        let failure = Failure::usage(format!("--{key} says nothing without TLS"));
        contradiction(
            [key, "server"],
            failure.hint(format!("--server tls://{server} connects by TLS")),
        )
    });
    empty.chain(alone).chain(unused).collect()
}

/// Those that a server refuses, too.
pub(crate) fn of_a_server(settings: &Settings) -> Vec<Contradiction> {
    let mut all = Vec::new();
    all.extend(openness(settings));
    all.extend(state(settings));
    all.extend(one_port(settings));
    all.extend(one_file(settings));
    all
}

/// Files that would be written over.
fn one_file(settings: &Settings) -> Vec<Contradiction> {
    let mut all = Vec::new();
    for written in WRITTEN {
        let Some(ours) = settings.place(written) else { continue };
        let others = READ.into_iter().chain(WRITTEN).filter(|read| *read != written);
        let same = others.clone().find(|read| settings.place(read).as_ref() == Some(&ours));
        if let Some(read) = same {
            let what =
                format!("--{written} and --{read} name the same file, which would be written over");
            let failure = Failure::usage(what).hint("name another file for one of the two");
            all.push(contradiction([written, read], failure));
        }
        let files = settings.in_force.iter().filter_map(|it| match &it.origin {
            Origin::File(path, _) => Some(path),
            Origin::Flag | Origin::Environment(_) | Origin::Default => None,
        });
        if let Some(path) = files.into_iter().find(|path| Place::of(path) == ours) {
            let path = path.display();
            let what =
                format!("--{written} names the configuration {path}, which would be written over");
            all.push(contradiction([written], Failure::usage(what).hint("name another file")));
        }
    }
    all
}

/// Where a file is, however it is spelled.
#[derive(PartialEq, Eq)]
enum Place {
    /// One that is there: its device, and its number on that.
    There(u64, u64),
    /// One that is not: its name, in a directory that may be there.
    Missing(PathBuf),
}

impl Place {
    fn of(path: &Path) -> Self {
        if let Ok(found) = fs::metadata(path) {
            return Self::There(found.dev(), found.ino());
        }
        let whole = absolute(path).unwrap_or_else(|_| path.to_owned());
        let directory = whole.parent().and_then(|it| fs::canonicalize(it).ok());
        match directory.zip(whole.file_name()) {
            Some((directory, name)) => Self::Missing(directory.join(name)),
            None => Self::Missing(whole),
        }
    }
}

/// What may be meant, and probably is not.
pub(crate) fn doubts(settings: &Settings) -> Vec<String> {
    let limits = [
        (
            "connections-per-address-max",
            settings.connections_per_address_max,
            "connections-max",
            settings.connections_max,
        ),
        (
            "sessions-per-address-max",
            settings.sessions_per_address_max,
            "sessions-max",
            settings.sessions_max,
        ),
    ];
    let idle = limits.into_iter().filter(|(_, one, _, all)| one.is_some_and(|one| one > *all));
    let mut doubts: Vec<String> = idle
        .map(|(key, _, whole, most)| {
            format!("{key} limits nothing: it is more than {whole}, which is {most}")
        })
        .collect();
    let is_open = settings.access_file.is_none();
    if settings.http_listen.is_none() && settings.is_said("http-host") {
        doubts.push("http-host says nothing without http-listen".to_owned());
    }
    if settings.metrics_open && (is_open || settings.http_listen.is_none()) {
        let without = if is_open { "access-file" } else { "http-listen" };
        doubts.push(format!("metrics-open says nothing without {without}"));
    }
    let is_optional = settings.text("tls-client-auth") == "optional";
    if is_optional && settings.tls_client_ca.is_some() && is_open {
        doubts.push(
            "with tls-client-auth = \"optional\" and without access-file, who shows no certificate may do \
            everything"
                .to_owned(),
        );
    }
    let is_clear = |url: &&String| url.starts_with("http://") && !is_of_this_machine(url);
    if let Some(url) = settings.etcd.0.iter().find(is_clear) {
        doubts.push(format!(
            "{url} is not encrypted: whoever is in between can read the key that proves sessions"
        ));
    }
    if settings.is_said("ttl") && settings.ttl > settings.ttl_max.0 {
        let (ttl, most) = (settings.text("ttl"), settings.text("ttl-max"));
        doubts.push(format!("ttl is {ttl}, and a coordinator with ttl-max = {most} refuses that"));
    }
    doubts
}

/// Refuses what would let other machines do everything, unless that is what was asked for.
fn openness(settings: &Settings) -> Vec<Contradiction> {
    if settings.allow_anyone && settings.access_file.is_some() {
        let failure = Failure::usage("--allow-anyone says nothing beside --access-file").hint(
            "remove one of the two; [anyone] in the access file is for those who show nothing",
        );
        return vec![contradiction(["allow-anyone", "access-file"], failure)];
    }
    if settings.allow_anyone || settings.access_file.is_some() {
        return Vec::new();
    }
    let open = settings.ports().into_iter().filter_map(|(key, address)| {
        let address = address.filter(|it| !it.ip().to_canonical().is_loopback())?;
        let failure = Failure::usage(format!(
            "--{key} {address} can be reached from other machines, and anyone there could do everything"
        ));
        // As the address was said: in a container, say, there may be no command line to add a flag to.
        let [rules, anyone] = match settings.in_force.iter().find(|it| it.key == key)?.origin {
            Origin::Environment(_) => {
                ["COORDINATOR_ACCESS_FILE=FILE", "COORDINATOR_ALLOW_ANYONE=true"]
            }
            Origin::File(..) => ["access-file = \"FILE\"", "allow-anyone = true"],
            Origin::Flag | Origin::Default => ["--access-file", "--allow-anyone"],
        };
        let hint = format!(
            "{rules} says who may do what (docs/operations.md shows how to write one); if anyone is \
            meant, say {anyone}"
        );
        Some(contradiction([key, "access-file", "allow-anyone"], failure.hint(hint)))
    });
    open.collect()
}

/// Whether a URL is one of this machine.
fn is_of_this_machine(url: &str) -> bool {
    let host = url.trim_start_matches("http://").rsplit_once(':').map_or("", |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// Where state is kept, and what is said of it although it is nowhere.
fn state(settings: &Settings) -> Vec<Contradiction> {
    if settings.is_clustered() {
        let nowhere = settings.data_dir.as_os_str().is_empty() && !settings.ephemeral;
        return in_etcd(settings)
            .into_iter()
            .chain(nowhere.then(|| no_directory(settings)))
            .collect();
    }
    if settings.ephemeral {
        let is_off = |key| ["off", "false"].contains(&settings.text(key));
        let void = OF_STATE
            .into_iter()
            .filter(|(key, _)| settings.is_void(key, "ephemeral") && !is_off(*key));
        return void
            .map(|(key, so)| {
                let what = format!("--ephemeral keeps no state on disk, so --{key} {so}");
                contradiction(
                    [key, "ephemeral"],
                    Failure::usage(what).hint("remove one of the two"),
                )
            })
            .collect();
    }
    if !settings.data_dir.as_os_str().is_empty() {
        return Vec::new();
    }
    vec![no_directory(settings)]
}

/// There is none to keep anything in.
fn no_directory(settings: &Settings) -> Contradiction {
    let failure = if settings.is_said("data-dir") {
        Failure::usage("--data-dir is empty").hint("name a directory; is a script variable empty?")
    } else {
        Failure::usage("no directory to keep state in: HOME is not set").hint(
            "name one with --data-dir or COORDINATOR_DATA_DIR, or keep no state with --ephemeral",
        )
    };
    contradiction(["data-dir"], failure)
}

/// The same of a coordinator whose state is in etcd.
fn in_etcd(settings: &Settings) -> Vec<Contradiction> {
    let is_off = |key| ["off", "false"].contains(&settings.text(key));
    let void = OF_DIRECTORY
        .into_iter()
        .filter(|(key, _)| settings.is_void(key, "cluster") && !is_off(*key));
    let mut all: Vec<Contradiction> = void
        .map(|(key, so)| {
            let what = format!("--cluster keeps its state in etcd, so --{key} {so}");
            contradiction([key, "cluster"], Failure::usage(what).hint("remove one of the two"))
        })
        .collect();
    if settings.redis_listen.is_some() {
        let what =
            "--redis-listen needs a journal that the next leader has, too, and there is none";
        let failure = Failure::usage(what).hint("remove one of --redis-listen and --cluster");
        all.push(contradiction(["redis-listen", "cluster"], failure));
    }
    let is_unwritten = |key: &&str| match *key {
        "ephemeral" => settings.ephemeral,
        _ => settings.text("journal") == "off",
    };
    if settings.peer_listen.is_some()
        && let Some(off) = ["ephemeral", "journal"].into_iter().find(is_unwritten)
    {
        let flag = if off == "journal" { "--journal off" } else { "--ephemeral" };
        let what = format!(
            "--peer-listen sends the journal to standbys, and with {flag} there is none: nobody could follow"
        );
        let failure = Failure::usage(what).hint(format!(
            "leave out {flag}, and a standby takes over with everything; or --peer-listen, and each leader is alone"
        ));
        all.push(contradiction(["peer-listen", off], failure));
    }
    let told = settings.advertise.as_ref().map(|it| it.host().to_owned());
    let host = told.unwrap_or_else(|| settings.listen.ip().to_string());
    if host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
        let what =
            format!("clients cannot connect to {host}, and the others would send them there");
        let failure =
            Failure::usage(what).hint("--advertise names this machine, as in a.internal:5625");
        all.push(contradiction(["advertise", "listen"], failure));
    }
    all
}

/// Two ports that would be one.
fn one_port(settings: &Settings) -> Option<Contradiction> {
    let peers = ("peer-listen", settings.peer_listen);
    let ports: Vec<_> = settings.ports().into_iter().chain([peers]).collect();
    let is_any = |address: SocketAddr| address.ip().is_unspecified();
    for (at, (key, address)) in ports.iter().enumerate() {
        for (other_key, other) in &ports[..at] {
            let (Some(one), Some(other)) = (address, other) else { continue };
            let meet = one.ip() == other.ip() || is_any(*one) || is_any(*other);
            if one.port() != 0 && one.port() == other.port() && meet {
                let what = format!("--{other_key} {other} and --{key} {one} are the same port");
                let failure = Failure::usage(what).hint("give them ports of their own");
                return Some(contradiction([*other_key, *key], failure));
            }
        }
    }
    None
}

fn contradiction<const N: usize>(keys: [&'static str; N], failure: Failure) -> Contradiction {
    Contradiction { keys: keys.to_vec(), failure }
}

/// How emphatically a flag says something.
const FLAG: u8 = 3;

impl Settings {
    /// What was written for a setting.
    fn text(&self, key: &str) -> &str {
        self.in_force.iter().find(|it| it.key == key).map_or("", |it| &it.text)
    }

    /// The addresses on which a server listens, each under its key.
    pub(crate) fn ports(&self) -> [(&'static str, Option<SocketAddr>); 3] {
        [
            ("listen", Some(self.listen)),
            ("http-listen", self.http_listen),
            ("redis-listen", self.redis_listen),
        ]
    }

    /// Where the file of a setting is; none: it names none.
    fn place(&self, key: &str) -> Option<Place> {
        let text = self.text(key);
        let is_nothing = text.is_empty() || key == "audit-log" && text == "-";
        (!is_nothing).then(|| Place::of(Path::new(text)))
    }

    /// Whether somebody set it to nothing.
    fn is_empty(&self, key: &str) -> bool {
        self.is_said(key) && self.text(key).is_empty()
    }

    /// How emphatically a setting was said; 0: not at all.
    fn strength(&self, key: &str) -> u8 {
        let row = TABLE.iter().find(|row| row.key == key);
        let by_default = match row.map(|row| row.foreign) {
            Some(Foreign::AfterFile(name)) => name,
            _ => "",
        };
        match self.in_force.iter().find(|it| it.key == key).map(|it| &it.origin) {
            Some(Origin::Flag) => FLAG,
            // What others say to every program is no more than a default.
            Some(Origin::Environment(name)) if name == by_default => 0,
            Some(Origin::Environment(_)) => 2,
            Some(Origin::File(..)) => 1,
            Some(Origin::Default) | None => 0,
        }
    }

    /// Whether somebody said `key` who would have had to know that `by` leaves it without effect.
    fn is_void(&self, key: &str, by: &str) -> bool {
        self.strength(key) > 0 && self.strength(key) >= self.strength(by)
    }
}

#[cfg(test)]
mod tests;
