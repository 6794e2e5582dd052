//! `coordinator serve`: the coordinator as a process.
//!
//! This file has the process around [`Server`]: a log, a port file, signals, and messages for
//! failures at the start. SIGTERM or SIGINT once: save and stop, or if nothing is kept, stop when
//! holders have finished. Twice: stop at once. SIGHUP: read the settings again. SIGUSR1: tell the
//! state to the log. SIGUSR2: nothing, but it would end the process otherwise.

pub(crate) mod check;
mod notify;
mod pieces;
mod reread;
mod serving;
mod watched;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use coordinator::election::ElectionError;
use coordinator::http::{HttpOptions, HttpPort, MetricsFor, Reloads};
use coordinator::server::{
    Audit, AuditPlace, AuditWriter, Config, Data, LostState, ServerError, ServerHandle, StaleState,
    StoreError,
};
use coordinator::tls::{ClientAuth, ServerTls};
use coordinator::wire::PROTOCOL;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use self::pieces::Pieces;
use self::reread::{Again, Reread};
use self::serving::Serving;
use crate::cli::log as logging;
use crate::cli::process::signals::Signals;
use crate::cli::settings::values::PORT_DEFAULT;
use crate::cli::settings::{Settings, contradictions};
use crate::cli::text::errors::{Failure, exit, reason, shell_word};

/// The commit that was built, if whoever built it said so.
const COMMIT: Option<&str> = option_env!("COORDINATOR_COMMIT");

/// Serves until it is told to stop.
pub(crate) fn run(
    settings: &Settings,
    flags: BTreeMap<&'static str, String>,
) -> Result<ExitCode, Failure> {
    contradictions::first(contradictions::of_a_server(settings))?;
    logging::start(&settings.log, settings.log_format)
        .map_err(|error| Failure::ours("cannot start the log", &error))?;
    // The server's actors all live on this thread. A set of tasks polls what it waits for whenever one of
    // them wakes up: within a set of its own, that is polled only when it has something to do itself.
    let mut serving = FuturesUnordered::from_iter([serve(settings, flags)]);
    let serving = async { serving.next().await.unwrap_or(Ok(ExitCode::SUCCESS)) };
    let served = super::on_a_runtime(tokio::task::LocalSet::new().run_until(serving));
    // Also the reason why it could not serve: whoever reads the log may stand still.
    Ok(match served {
        Ok(code) => {
            logging::end("");
            code
        }
        Err(failure) => failure.report_by(logging::end),
    })
}

/// What a server hears of. Of a file that got longer than is allowed (`ulimit -f`) it hears from the
/// write as well, and must not end by it.
const SIGNALS: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2, Signal::XFSZ];

async fn serve(
    settings: &Settings,
    flags: BTreeMap<&'static str, String>,
) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let mut signals = Signals::listen(SIGNALS)
        .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
    log::info!("{}, protocol {PROTOCOL}, pid {}", version(), std::process::id());
    allow_connections(config(settings).connections_open_max());
    // Until address and directory are ours, the file in its place may be that of another.
    let mut port_file = settings.port_file.as_deref().map(PortFile::beside).transpose()?;
    // Before the state is touched, as the other port.
    let http_listener = bind_http(settings)?;
    let pieces = Pieces::whole(settings, SystemTime::now()).map_err(|flaw| flaw.failure)?;
    for doubt in contradictions::doubts(settings).iter().chain(&pieces.doubts) {
        log::warn!("{doubt}");
    }
    let (who, expires) = (pieces.open_to(), pieces.expires());
    let names_nobody = pieces.names_nobody();
    let mut config = config(settings);
    let tls = pieces.tls.map(ServerTls::start).transpose();
    config.tls = tls.map_err(|why| Failure::new(exit::LOST, why.to_string()))?;
    config.peer_tls = settings.peer_tls();
    if let Some(access) = pieces.access {
        config.access = Arc::new(access);
    }
    let tls = config.tls.clone();
    let audit = open_audit(settings)?;
    if let Some((audit, _)) = &audit {
        config.audit = audit.clone();
        audit.note("start", "ok", format!("{}, {who}", version()));
    }
    let server = Serving::bind(&config, settings)?;
    let address = server.local_addr();
    let handle = server.handle();
    handle.certificates_expire(expires);
    let (audit_log, handle_of) = (config.audit.clone(), handle.clone());
    let again = Again { tls: tls.clone(), audit: audit_log, handle: handle_of, names_nobody };
    let reread = Reread::start(settings, flags, again)
        .map_err(|error| Failure::ours("cannot reload settings", &error))?;
    // Until it is dropped at the end, when nothing is left to be said.
    let open = |listener| open_http(listener, &server, settings, tls, reread.for_http());
    let _http = http_listener.map(open).transpose()?;
    if let Some(file) = &mut port_file {
        file.write(address)?;
    }
    let how = shown(settings).map_or(String::new(), |shown| format!(" by TLS, clients {shown}"));
    log::info!("locks on {address}{how}, {}, {who}", server.whereabouts(settings));
    if let Some(address) = server.redis_addr() {
        log::info!("the Redis dialect on {address}{how}, for locks, not for data");
    }
    if !address.ip().is_loopback() && settings.access_file.is_none() {
        log::warn!(
            "{address} can be reached from other machines, and anyone who reaches it can take any \
            lock (--allow-anyone)"
        );
    }
    let ready = started.elapsed().as_secs_f64() * 1e3;
    let at = at(address, settings);
    log::info!("ready in {ready:.1} ms; try: coordinator lock {at}demo -- sleep 5");
    notify::ready();
    tokio::task::spawn_local(notify::beat(server.looker()));

    let running = server.run();
    tokio::pin!(running);
    let mut asked = 0_u32;
    loop {
        tokio::select! {
            ended = &mut running => {
                config.audit.note("stop", "ok", "");
                return ended.map(|()| ExitCode::SUCCESS).map_err(|error| cannot_serve(&error));
            }
            signal = signals.next() => match signal {
                Signal::HUP => reread.ask(),
                Signal::USR1 => tell_state(&handle),
                Signal::USR2 | Signal::XFSZ => {}
                _ => {
                    asked += 1;
                    obey(asked, signal, settings, &handle);
                }
            }
        }
    }
}

/// What clients show to prove who they are, besides credentials; none: there is no TLS.
fn shown(settings: &Settings) -> Option<&'static str> {
    settings.tls_cert.as_ref()?;
    Some(match (&settings.tls_client_ca, settings.tls_client_auth.0) {
        (None, _) => "show nothing",
        (Some(_), ClientAuth::Required) => "must show a certificate",
        (Some(_), ClientAuth::Optional) => "may show a certificate",
    })
}

/// Opens the audit log, if there is to be one. Its writer is to be dropped last.
fn open_audit(settings: &Settings) -> Result<Option<(Audit, AuditWriter)>, Failure> {
    let Some(file) = &settings.audit_log else { return Ok(None) };
    let place = match file.as_os_str() {
        name if name == "-" => AuditPlace::StandardError,
        _ => AuditPlace::File(file.clone()),
    };
    Audit::open(place).map(Some).map_err(|error| no_audit_log(file, &error))
}

fn no_audit_log(file: &Path, error: &io::Error) -> Failure {
    let what = format!("cannot write the audit log {} ({})", file.display(), reason(error));
    in_the_way(error, what).hint(match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "--audit-log names it; a unit of systemd writes only to its StateDirectory= and ReadWritePaths="
        }
        _ => "--audit-log names it",
    })
}

/// Takes the port for probes and metrics, if there is to be one. Whoever did not ask for one does without,
/// if that is another's.
fn bind_http(settings: &Settings) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = settings.http_listen else { return Ok(None) };
    match HttpPort::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.is_said("http-listen") => {
            let why = reason(&error);
            let failure =
                in_the_way(&error, format!("cannot listen on {address} for HTTP ({why})"));
            Err(failure.hint("--http-listen takes another address, or none: --http-listen ''"))
        }
        Err(error) => {
            let why = reason(&error);
            log::warn!(
                "no HTTP on {address} ({why}): probes and metrics are not answered; --http-listen takes \
                 another address, or none"
            );
            Ok(None)
        }
    }
}

/// Answers probes and Prometheus there.
fn open_http(
    listener: TcpListener,
    server: &Serving,
    settings: &Settings,
    tls: Option<ServerTls>,
    reloads: Reloads,
) -> Result<HttpPort, Failure> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut options = HttpOptions::default();
    options.hosts.clone_from(&settings.http_host.0);
    options.reloads = Some(reloads);
    options.tls = tls;
    let is_open = settings.access_file.is_none() || settings.metrics_open;
    if settings.metrics_open {
        options.metrics = MetricsFor::Anybody;
    }
    let port = HttpPort::open(listener, server.looker(), options)
        .map_err(|error| Failure::ours("cannot answer HTTP", &error))?;
    let address = port.local_addr();
    log::info!("page, probes and metrics on {scheme}://{address}");
    if !address.ip().is_loopback() {
        let metrics = if is_open { "metrics, and " } else { "" };
        log::warn!(
            "{address} can be reached from other machines, and whoever reaches it can read {metrics}\
            locks as far as the access file lets anyone see them"
        );
    }
    Ok(port)
}

/// Files that are open besides connections: the log, the state, the runtime's own, connections for HTTP.
const FILES_BESIDES: u64 = 64 + 256;

/// Every connection is an open file, and the usual limit on those is far too low for a server. Takes
/// what the system allows us, and says so if that is less than is wanted.
fn allow_connections(connections: usize) {
    let wanted = connections as u64 + FILES_BESIDES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let (Some(now), allowed) = (current, maximum.unwrap_or(u64::MAX)) else { return };
    if now < wanted && now < allowed {
        let raised = Rlimit { current: Some(wanted.min(allowed)), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!("cannot raise the limit of {now} open files: {error}");
        }
    }
    if allowed < wanted {
        log::warn!(
            "the system allows {allowed} open files, fewer than the {wanted} that \
            --connections-max may need; raise the limit with `ulimit -n` or LimitNOFILE="
        );
    }
}

/// Does what the `asked`th signal asks for.
fn obey(asked: u32, signal: Signal, settings: &Settings, handle: &ServerHandle) {
    let name = if signal == Signal::INT { "SIGINT" } else { "SIGTERM" };
    if asked > 1 {
        log::info!("{name} again: stopping at once");
        handle.stop();
        return;
    }
    log::info!("{name}: {}; a second signal stops at once", ending(settings));
    notify::stopping(ending(settings));
    handle.drain();
}

/// Tells how things are, to the log.
fn tell_state(handle: &ServerHandle) {
    handle.tell_state();
    logging::tell(&format!("log: dropped={}", logging::dropped()));
}

/// What an orderly end is here.
fn ending(settings: &Settings) -> &'static str {
    // What is kept goes on after the next start, so nobody has to be waited for.
    if settings.is_clustered() {
        "handing over, if it leads, and stopping"
    } else if settings.ephemeral {
        "draining, then stopping"
    } else {
        "saving and stopping"
    }
}

/// `coordinator 0.1.0 (3f2a9c1b7e)`.
fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    match COMMIT {
        Some(commit) => format!("coordinator {version} ({commit})"),
        None => format!("coordinator {version}"),
    }
}

/// Where state is, or that there is none.
fn state(settings: &Settings) -> String {
    if settings.ephemeral {
        return "no state on disk (ephemeral)".to_owned();
    }
    format!("state in {}", settings.data_dir.display())
}

/// How a client has to be told where we are and what it shows, if it has to.
fn at(address: SocketAddr, settings: &Settings) -> String {
    let usual = SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT));
    let here = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        _ => address,
    };
    let is_secure = settings.tls_cert.is_some();
    let mut flags = String::new();
    if here != usual || is_secure {
        let scheme = if is_secure { "tls://" } else { "" };
        flags = format!("--server {scheme}{here} ");
    }
    let must_show =
        settings.tls_client_ca.is_some() && settings.tls_client_auth.0 == ClientAuth::Required;
    for (is_needed, what) in [
        (is_secure, "--server-ca CA.pem "),
        (must_show, "--client-cert CERT.pem --client-key KEY.pem "),
        (settings.access_file.is_some() && !must_show, "--credential-file FILE "),
    ] {
        flags.push_str(if is_needed { what } else { "" });
    }
    flags
}

fn config(settings: &Settings) -> Config {
    let mut config = Config::default();
    config.listen = settings.listen;
    config.redis_listen = settings.redis_listen;
    config.redis_allow_flush = settings.redis_allow_flush;
    config.data = if settings.ephemeral {
        Data::Ephemeral
    } else {
        Data::Directory(settings.data_dir.clone())
    };
    config.limits.ttl_max = settings.ttl_max.0;
    config.limits.sessions_max = settings.sessions_max;
    config.limits.claims_per_session_max = settings.claims_per_session_max;
    config.limits.waiters_per_lock_max = settings.waiters_per_lock_max;
    config.connections_max = settings.connections_max;
    config.unread_bytes_max = settings.unread_max.0;
    config.connections_per_address_max = settings.connections_per_address_max;
    config.looks_per_second = settings.looks_per_second.0;
    config.messages_per_second_max = settings.messages_per_second_max.map(|rate| rate.0);
    config.limits.sessions_per_address_max = settings.sessions_per_address_max;
    config.io_threads = settings.io_threads.0;
    config.handshake_timeout = settings.handshake_timeout;
    config.journal = settings.journal.0;
    config.drain_timeout = settings.drain_timeout;
    config.stale_state =
        if settings.accept_stale_state { StaleState::Accept } else { StaleState::Refuse };
    config.lost_state =
        if settings.accept_lost_state { LostState::Accept } else { LostState::Refuse };
    config
}

/// That the system does not give what a start needs. Most of that passes by itself: an address comes with its
/// interface, a directory with its mount. So a service is started again, unless it is certainly a mistake. What is
/// not permitted, or read-only, stays so, except of a data directory: where it is mounted is another's until then.
fn in_the_way(error: &io::Error, what: String) -> Failure {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::AlreadyExists
        | Kind::NotADirectory
        | Kind::IsADirectory
        | Kind::InvalidInput
        | Kind::InvalidFilename
        | Kind::ReadOnlyFilesystem
        | Kind::PermissionDenied => Failure::usage(what),
        _ => Failure::new(exit::BUSY, what),
    }
}

/// That an address cannot be had, with the setting that names another; and who may be there already.
fn cannot_listen(listen: SocketAddr, source: &io::Error, setting: &str, there: &str) -> Failure {
    let what = format!("cannot listen on {listen} ({})", reason(source));
    in_the_way(source, what).hint(match source.kind() {
        io::ErrorKind::AddrInUse => format!("{there}; choose another address with {setting}"),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 are reserved; choose another with {setting}")
        }
        _ => format!("{setting} needs an address of this machine"),
    })
}

/// What is wrong, and what the operator can do about it.
fn cannot_serve(error: &ServerError) -> Failure {
    match error {
        ServerError::Listen { listen, source } => {
            let there = "perhaps a coordinator already runs there (check with `coordinator ping`)";
            cannot_listen(*listen, source, "--listen", there)
        }
        ServerError::ListenForRedis { listen, source } => {
            let there = "perhaps Redis runs there, or a coordinator";
            cannot_listen(*listen, source, "--redis-listen", there)
        }
        ServerError::ListenForStandbys { listen, source } => {
            let there = "perhaps another member of the cluster runs there";
            cannot_listen(*listen, source, "--peer-listen", there)
        }
        ServerError::DataInUse { .. } => Failure::new(exit::BUSY, error.to_string())
            .hint("stop that one, or give this one its own --data-dir"),
        ServerError::DataUnusable { directory, source } => {
            let why = match source.kind() {
                io::ErrorKind::AlreadyExists => "it is not a directory".to_owned(),
                _ => reason(source),
            };
            let what = format!("cannot use the data directory {} ({why})", directory.display());
            let failure = match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Failure::new(exit::BUSY, what)
                }
                _ => in_the_way(source, what),
            };
            failure.hint("name another with --data-dir, or keep no state with --ephemeral")
        }
        ServerError::DataExposed { path, chmod, .. } => Failure::usage(error.to_string())
            .hint(format!("chmod {chmod} {}", shell_word(&path.to_string_lossy()))),
        ServerError::Store {
            source: StoreError::Damaged { .. } | StoreError::Format { .. },
            ..
        } => Failure::usage(error.to_string()).hint(
            "restore the data directory from a backup, or start once with --accept-lost-state, \
            which sets damaged files aside; docs/guarantees.md says what that costs",
        ),
        ServerError::RedisWithoutJournal => Failure::usage(error.to_string()).hint(
            "leave out --journal off, or --redis-listen; with --ephemeral nothing is kept anyway",
        ),
        ServerError::Cluster(ElectionError::Etcd(_)) => Failure::usage(error.to_string())
            .hint("--etcd names its endpoints, as in https://etcd-1:2379,https://etcd-2:2379"),
        ServerError::StaleState { .. } => Failure::usage(error.to_string())
            .hint("check the clock; if it is right, start once with --accept-stale-state"),
        _ => Failure::new(exit::LOST, error.to_string()),
    }
}

/// The file that tells others the port. It appears complete, and goes when we stop.
struct PortFile {
    /// Where it is to be.
    path: PathBuf,
    /// Where it is until it is complete.
    beside: PathBuf,
    /// The file itself: whatever else is in its place by then is left alone.
    file: File,
}

impl PortFile {
    /// A new file beside it, empty: that it can be made is to be known before anything else is done.
    fn beside(path: &Path) -> Result<Self, Failure> {
        let mut beside = path.to_owned().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // In a directory that others can write too, a link may stand in its place.
        let made = match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => OpenOptions::new().write(true).create_new(true).open(&beside),
        };
        match made {
            Ok(file) => Ok(Self { path: path.to_owned(), beside, file }),
            Err(error) => Err(Self::failed(path, &error)),
        }
    }

    /// Puts it in the place of whatever is there.
    fn write(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let written = writeln!(self.file, "{}", address.port());
        let written = written.and_then(|()| fs::rename(&self.beside, &self.path));
        written.map_err(|error| Self::failed(&self.path, &error))
    }

    fn failed(path: &Path, error: &io::Error) -> Failure {
        let what = format!("cannot write the port file {} ({})", path.display(), reason(error));
        in_the_way(error, what).hint("--port-file needs a file in a writable directory")
    }

    fn is_ours(&self, path: &Path) -> io::Result<bool> {
        let (there, ours) = (fs::symlink_metadata(path)?, self.file.metadata()?);
        Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // Whoever removed or replaced it before us meant to.
        for path in [&self.beside, &self.path] {
            if self.is_ours(path).unwrap_or(false) {
                let _gone = fs::remove_file(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::sources::Sources;

    fn at(address: &str, file: &str) -> String {
        let sources = Sources::new(BTreeMap::new(), []).unwrap();
        let sources = sources.with_file("c.toml".into(), file).unwrap();
        super::at(address.parse().unwrap(), &Settings::resolve(&sources).unwrap())
    }

    #[test]
    fn a_client_is_told_where_we_are_unless_that_is_the_usual_place_and_what_it_has_to_show() {
        assert_eq!(at("127.0.0.1:5625", ""), "");
        assert_eq!(at("0.0.0.0:5625", ""), "");
        assert_eq!(at("127.0.0.1:99", ""), "--server 127.0.0.1:99 ");
        assert_eq!(at("10.0.0.7:5625", ""), "--server 10.0.0.7:5625 ");
        let tls = "tls-cert = \"c\"\ntls-key = \"k\"\n";
        let secure = at("0.0.0.0:5625", tls);
        assert_eq!(secure, "--server tls://127.0.0.1:5625 --server-ca CA.pem ");
        let ruled = at("127.0.0.1:5625", "access-file = \"a\"");
        assert_eq!(ruled, "--credential-file FILE ");
        let mutual =
            at("127.0.0.1:5625", &format!("{tls}tls-client-ca = \"a\"\naccess-file = \"a\""));
        assert!(mutual.ends_with("--client-cert CERT.pem --client-key KEY.pem "), "{mutual}");
    }

    #[test]
    fn what_is_forbidden_stays_so_except_where_something_is_yet_to_be_mounted() {
        let denied: fn() -> io::Error = || io::ErrorKind::PermissionDenied.into();
        let read_only: fn() -> io::Error = || io::ErrorKind::ReadOnlyFilesystem.into();
        let gone = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(in_the_way(&gone, String::new()).exit, exit::BUSY);
        for lasting in [denied, read_only] {
            assert_eq!(no_audit_log(Path::new("audit"), &lasting()).exit, exit::USAGE);
            let unusable =
                ServerError::DataUnusable { directory: "data".into(), source: lasting() };
            assert_eq!(cannot_serve(&unusable).exit, exit::BUSY);
        }
    }

    #[test]
    fn a_port_file_is_never_written_through_a_link_and_anothers_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, victim) = (directory.path().join("port"), directory.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        let beside = directory.path().join(format!("port.{}", std::process::id()));
        for link in [&path, &beside] {
            std::os::unix::fs::symlink(&victim, link).unwrap();
        }
        let address = "127.0.0.1:99".parse().unwrap();
        let mut ours = PortFile::beside(&path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), victim, "it may be another's");
        ours.write(address).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "99\n");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let mut anothers = PortFile::beside(&path).unwrap();
        anothers.write(address).unwrap();
        drop(ours);
        assert!(path.exists());
        drop(anothers);
        assert!(!path.exists() && !beside.exists());
    }

    #[test]
    fn what_others_can_read_comes_with_the_chmod_to_type() {
        let path = "/var/lib/coordinator/state".into();
        let failure = cannot_serve(&ServerError::DataExposed { path, mode: 0o644, chmod: "600" });
        assert_eq!(failure.exit, 2);
        assert_eq!(
            failure.plain(),
            "error: others can access /var/lib/coordinator/state (mode 0644), and anyone with access can \
             take over any session
  hint: chmod 600 /var/lib/coordinator/state
"
        );
    }

    #[test]
    fn a_port_in_use_may_be_free_later() {
        let listen = "127.0.0.1:5625".parse().unwrap();
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = cannot_serve(&ServerError::Listen { listen, source });
        assert_eq!(failure.exit, exit::BUSY);
        assert_eq!(
            failure.plain(),
            "error: cannot listen on 127.0.0.1:5625 (the address is in use)
  hint: perhaps a coordinator already runs there (check with `coordinator ping`); choose another address with --listen
"
        );
        let listen = "127.0.0.1:6379".parse().unwrap();
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = cannot_serve(&ServerError::ListenForRedis { listen, source });
        assert!(failure.plain().contains("perhaps Redis runs there"), "{}", failure.plain());
        assert!(failure.plain().contains("with --redis-listen"), "{}", failure.plain());
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = cannot_serve(&ServerError::ListenForStandbys { listen, source });
        assert!(failure.plain().contains("with --peer-listen"), "{}", failure.plain());
    }
}
