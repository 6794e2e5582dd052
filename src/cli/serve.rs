//! `coordinator serve`: the coordinator as a process.
//!
//! What is here is what a process needs around [`Server`]: a log, a port file, signals, and words
//! for what can go wrong at the start. SIGTERM or SIGINT once: save and stop, or if
//! nothing is kept, stop when holders have finished. Twice: stop at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use coordinator::server::{Config, Data, Server, ServerError, ServerHandle, StaleState};
use coordinator::wire::PROTOCOL;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::errors::{Failure, exit, reason};
use super::log as logging;
use super::settings::{Origin, Settings};
use super::signals::Signals;
use super::values::PORT_DEFAULT;

/// The commit that was built, if whoever built it said so.
const COMMIT: Option<&str> = option_env!("COORDINATOR_COMMIT");

/// Serves until it is told to stop.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode, Failure> {
    check(settings)?;
    logging::start(&settings.log);
    // The server's actors all live on this thread.
    super::on_a_runtime(tokio::task::LocalSet::new().run_until(serve(settings)))
}

async fn serve(settings: &Settings) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let mut signals = Signals::listen([Signal::TERM, Signal::INT])
        .map_err(|error| Failure::ours("cannot hear signals", &error))?;
    log::info!("{}, protocol {PROTOCOL}, pid {}", version(), std::process::id());
    allow_connections(settings.connections_max);
    // One that an earlier run left behind must not be taken for ours.
    let port_file = settings.port_file.as_deref().map(PortFile::new).transpose()?;
    let server = Server::bind(config(settings)).await.map_err(|error| cannot_serve(&error))?;
    let address = server.local_addr();
    let handle = server.handle();
    if let Some(file) = &port_file {
        file.write(address)?;
    }
    log::info!("locks on {address}, {}, epoch {}", state(settings), server.epoch());
    if !address.ip().is_loopback() {
        log::warn!(
            "{address} can be reached from other machines, and whoever reaches it can take any lock"
        );
    }
    let ready = started.elapsed().as_secs_f64() * 1e3;
    log::info!("ready in {ready:.1} ms; try: coordinator lock {}demo -- sleep 5", at(address));

    let running = server.run();
    tokio::pin!(running);
    let mut asked = 0_u32;
    loop {
        tokio::select! {
            () = &mut running => return Ok(ExitCode::SUCCESS),
            signal = signals.next() => {
                asked += 1;
                obey(asked, signal, settings, &handle);
            }
        }
    }
}

/// Files that are open besides connections: the log, the state, the runtime's own.
const FILES_BESIDES: u64 = 64;

/// Every connection is an open file, and the usual limit on those is far too low for a server. Takes
/// what the system allows us, and says so if that is less than is wanted.
fn allow_connections(connections_max: usize) {
    let wanted = connections_max as u64 + FILES_BESIDES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let (Some(now), allowed) = (current, maximum.unwrap_or(u64::MAX)) else { return };
    if now < wanted && now < allowed {
        let raised = Rlimit { current: Some(wanted.min(allowed)), maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!("cannot open more than {now} files at a time: {error}");
        }
    }
    if allowed < wanted {
        log::warn!(
            "the system allows {allowed} open files, so fewer connections than the \
             {connections_max} of --connections-max; `ulimit -n` or LimitNOFILE= raise that"
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
    log::info!("{name}: {}; once more stops at once", ending(settings));
    handle.drain();
}

/// What an orderly end is here.
fn ending(settings: &Settings) -> &'static str {
    // What is kept goes on after the next start, so nobody has to be waited for.
    if settings.ephemeral { "stopping when holders have finished" } else { "saving and stopping" }
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
        return "nothing is kept (ephemeral)".to_owned();
    }
    format!("state in {}", settings.data_dir.display())
}

/// How a client has to be told where we are, if it has to.
fn at(address: SocketAddr) -> String {
    let usual = SocketAddr::from(([127, 0, 0, 1], PORT_DEFAULT));
    let here = match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        _ => address,
    };
    if here == usual { String::new() } else { format!("--server {here} ") }
}

/// Settings that contradict each other on one command line.
fn check(settings: &Settings) -> Result<(), Failure> {
    let data_dir = settings.in_force.iter().find(|it| it.key == "data-dir");
    if settings.ephemeral && data_dir.is_some_and(|it| it.origin == Origin::Flag) {
        return Err(Failure::usage("--ephemeral keeps nothing, so --data-dir has no use")
            .hint("leave one of them out"));
    }
    Ok(())
}

fn config(settings: &Settings) -> Config {
    let mut config = Config::default();
    config.listen = settings.listen;
    config.data = if settings.ephemeral {
        Data::Ephemeral
    } else {
        Data::Directory(settings.data_dir.clone())
    };
    config.limits.sessions_max = settings.sessions_max;
    config.limits.claims_per_session_max = settings.claims_per_session_max;
    config.limits.waiters_per_lock_max = settings.waiters_per_lock_max;
    config.connections_max = settings.connections_max;
    config.unread_bytes_max = settings.unread_max.0;
    config.io_threads = settings.io_threads.0;
    config.handshake_timeout = settings.handshake_timeout;
    config.drain_timeout = settings.drain_timeout;
    config.stale_state =
        if settings.accept_stale_state { StaleState::Accept } else { StaleState::Refuse };
    config
}

/// What is wrong, and what the operator can do about it.
fn cannot_serve(error: &ServerError) -> Failure {
    match error {
        ServerError::Listen { listen, source } => {
            let failure = Failure::usage(format!("cannot listen on {listen} ({})", reason(source)));
            match source.kind() {
                io::ErrorKind::AddrInUse => failure.hint(
                    "perhaps a coordinator runs there already (`coordinator ping`); \
                     --listen takes another address",
                ),
                io::ErrorKind::PermissionDenied => {
                    failure.hint("ports below 1024 are reserved; --listen takes another address")
                }
                _ => failure.hint("--listen takes an address of this machine"),
            }
        }
        ServerError::DataInUse { .. } => Failure::usage(error.to_string())
            .hint("stop that one, or give this one its own --data-dir"),
        ServerError::DataUnusable { directory, source } => Failure::usage(format!(
            "cannot use the data directory {} ({})",
            directory.display(),
            reason(source)
        ))
        .hint("name another with --data-dir, or keep nothing with --ephemeral"),
        ServerError::StaleState { .. } => Failure::usage(error.to_string())
            .hint("check the clock; if it is right, start once with --accept-stale-state"),
        _ => Failure::new(exit::LOST, error.to_string()),
    }
}

/// The file that tells others the port. It appears complete, and goes when we stop.
struct PortFile {
    /// Where it is.
    path: PathBuf,
}

impl PortFile {
    fn new(path: &Path) -> Result<Self, Failure> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Self::failed(path, &error))
            }
            _ => Ok(Self { path: path.to_owned() }),
        }
    }

    fn write(&self, address: SocketAddr) -> Result<(), Failure> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(format!(".{}", std::process::id()));
        let written = fs::write(&beside, format!("{}\n", address.port()))
            .and_then(|()| fs::rename(&beside, &self.path));
        written.map_err(|error| Self::failed(&self.path, &error))
    }

    fn failed(path: &Path, error: &io::Error) -> Failure {
        Failure::usage(format!("cannot write the port file {} ({})", path.display(), reason(error)))
            .hint("--port-file takes a file in a directory that can be written")
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // Whoever removed it before us meant to.
        let _gone = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_where_we_are_unless_that_is_the_usual_place() {
        assert_eq!(at("127.0.0.1:5625".parse().unwrap()), "");
        assert_eq!(at("0.0.0.0:5625".parse().unwrap()), "");
        assert_eq!(at("127.0.0.1:99".parse().unwrap()), "--server 127.0.0.1:99 ");
        assert_eq!(at("10.0.0.7:5625".parse().unwrap()), "--server 10.0.0.7:5625 ");
    }

    #[test]
    fn a_port_in_use_is_the_operators_mistake() {
        let listen = "127.0.0.1:5625".parse().unwrap();
        let source = io::Error::from(io::ErrorKind::AddrInUse);
        let failure = cannot_serve(&ServerError::Listen { listen, source });
        assert_eq!(failure.exit, 2);
        assert_eq!(
            failure.plain(),
            "error: cannot listen on 127.0.0.1:5625 (the address is in use)
  hint: perhaps a coordinator runs there already (`coordinator ping`); --listen takes another address
"
        );
    }
}
