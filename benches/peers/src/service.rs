//! The services: found, started on a free port with a directory of their own, and ended with the
//! run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::future::pending;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use coordinator::tls::TlsOptions;
use coordinator::types::Mode;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Failure;
use crate::echo::Echo;
use crate::etcd::Etcd;
use crate::load::{
    self, Connections, Coordinator, Error, Extent, Link, Locks, Outcome, Peer, Plan, Priority,
    Rhythm,
};
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::secure::{self, Security};
use crate::zookeeper::ZooKeeper;

/// How long a service may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a first hello may take: a service may accept connections before it answers.
const GREETING_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at whether it is.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How long connecting to the coordinator may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where Debian puts ZooKeeper.
const ZOOKEEPER_JAR: &str = "/usr/share/java/zookeeper.jar";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A server that does nothing: the limit.
    Echo(Security),
    /// Us.
    Coordinator(Journal, Security),
    /// Redis.
    Redis,
    /// etcd.
    Etcd,
    /// ZooKeeper.
    ZooKeeper,
    /// Postgres, by its advisory locks.
    Postgres,
}

/// How far what the coordinator says is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    /// Not at all, as the echo server keeps nothing.
    Off,
    /// As it comes: it outlives the process.
    Process,
    /// It outlives the machine: it is synced before anything is said.
    Machine,
}

impl Journal {
    /// As `--journal` has it.
    fn distance(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Process => "process",
            Self::Machine => "machine",
        }
    }
}

impl Kind {
    /// The coordinator as it comes.
    pub(crate) const US: Self = Self::Coordinator(Journal::Process, Security::Plain);
    /// All of them, in the order of the tables.
    pub(crate) const ALL: [Self; 6] = [
        Self::Echo(Security::Plain),
        Self::US,
        Self::Coordinator(Journal::Off, Security::Plain),
        Self::Redis,
        Self::Etcd,
        Self::ZooKeeper,
    ];
    /// Those that answer when all is on disk; Postgres, whose advisory locks never are, for comparison.
    pub(crate) const DURABLE: [Self; 4] = [
        Self::Coordinator(Journal::Machine, Security::Plain),
        Self::Etcd,
        Self::ZooKeeper,
        Self::Postgres,
    ];
    /// Those whose connections can be secured, plain first. The echo server has no journal, so the coordinator has
    /// none here: what is told is what TLS costs.
    pub(crate) const SECURED: [Self; 6] = [
        Self::Echo(Security::Plain),
        Self::Echo(Security::Tls),
        Self::Echo(Security::Mutual),
        Self::Coordinator(Journal::Off, Security::Plain),
        Self::Coordinator(Journal::Off, Security::Tls),
        Self::Coordinator(Journal::Off, Security::Mutual),
    ];

    /// Its name in results and tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo(Security::Plain) => "echo",
            Self::Echo(Security::Tls) => "echo-tls",
            Self::Echo(Security::Mutual) => "echo-mutual",
            Self::Coordinator(Journal::Off, Security::Plain) => "coordinator-off",
            Self::Coordinator(Journal::Process, Security::Plain) => "coordinator",
            Self::Coordinator(Journal::Machine, Security::Plain) => "coordinator-machine",
            Self::Coordinator(_, Security::Tls) => "coordinator-tls",
            Self::Coordinator(_, Security::Mutual) => "coordinator-mutual",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Etcd => "etcd",
            Self::ZooKeeper => "zookeeper",
        }
    }

    /// How its connections are made.
    fn security(self) -> Security {
        match self {
            Self::Echo(security) | Self::Coordinator(_, security) => security,
            Self::Redis | Self::Etcd | Self::ZooKeeper | Self::Postgres => Security::Plain,
        }
    }

    /// What it says of its version, in a line; of those that have one.
    pub(crate) fn version(self, coordinator: &Path) -> Option<String> {
        let said = |program: &Path| {
            let output = std::process::Command::new(program).arg("--version").output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
        };
        match self {
            Self::Echo(_) => None,
            Self::Coordinator(..) => said(coordinator),
            Self::Postgres => said(&postgres_programs()?.join("postgres")),
            Self::Redis => {
                let words = said(Path::new("redis-server"))?;
                Some(words.split(" sha=").next()?.to_owned())
            }
            Self::Etcd => said(Path::new("etcd")),
            // Its jar is a link to one with the version in its name.
            Self::ZooKeeper => {
                let jar = fs::canonicalize(ZOOKEEPER_JAR).ok()?;
                Some(jar.file_stem()?.to_string_lossy().into_owned())
            }
        }
    }

    /// What of it is missing on this machine, and how Debian calls the package that has it.
    fn missing(self, coordinator: &Path) -> Option<String> {
        let package = |what: &str, package: &str| {
            Some(format!("{what} is not installed (Debian: apt-get install {package})"))
        };
        match self {
            Self::Coordinator(..) if !coordinator.exists() => {
                Some(format!("{} is not there; build it first", coordinator.display()))
            }
            Self::Redis if !is_in_path("redis-server") => package("redis-server", "redis-server"),
            Self::Etcd if !is_in_path("etcd") => package("etcd", "etcd-server"),
            Self::ZooKeeper if !Path::new(ZOOKEEPER_JAR).exists() || !is_in_path("java") => {
                package("ZooKeeper", "zookeeper")
            }
            Self::Postgres if postgres_programs().is_none() => package("Postgres", "postgresql"),
            Self::Echo(_)
            | Self::Coordinator(..)
            | Self::Redis
            | Self::Etcd
            | Self::ZooKeeper
            | Self::Postgres => None,
        }
    }
}

pub(crate) fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// A service of our own. Ends when it is dropped.
pub(crate) struct Service {
    /// What it is.
    pub(crate) kind: Kind,
    /// Its process.
    child: Child,
    /// Where it is.
    pub(crate) address: String,
    /// What it stores, and what it says.
    directory: TempDir,
}

impl Service {
    /// Starts it and waits until it is ready. With a word about why, if it is not there.
    pub(crate) async fn start(
        kind: Kind,
        coordinator: &Path,
        flags: &[&str],
    ) -> Result<Self, Failure> {
        if let Some(missing) = kind.missing(coordinator) {
            return Err(missing.into());
        }
        let directory = tempfile::tempdir()?;
        let coordinator = std::path::absolute(coordinator)?;
        if kind.security() != Security::Plain {
            secure::issue(directory.path());
        }
        let (mut command, address) = command(kind, &coordinator, directory.path())?;
        let log = File::create(directory.path().join("log"))?;
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.kill_on_drop(true).spawn()?;
        let mut service = Self { kind, child, address: address.unwrap_or_default(), directory };
        service.ready().await?;
        Ok(service)
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it as nothing else can, and starts it again at once, with what it has stored and where it
    /// was. Gives the moment of the start.
    pub(crate) async fn crash_and_restart(
        &mut self,
        coordinator: &Path,
        flags: &[&str],
    ) -> Result<Instant, Failure> {
        let (coordinator, directory) = (std::path::absolute(coordinator)?, self.directory.path());
        self.child.kill().await?;
        let began = Instant::now();
        let mut command = serve(&coordinator, &self.address, &directory.join("data"));
        let log = File::options().append(true).open(directory.join("log"))?;
        command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = command.kill_on_drop(true).spawn()?;
        let plan = trial();
        while self.greet(&plan).await.is_err() {
            if self.child.try_wait()?.is_some() || began.elapsed() > READY_TIMEOUT {
                return Err("the coordinator did not come back".into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(began)
    }

    /// Lines of its log with these words.
    pub(crate) fn lines_with(&self, words: &str) -> Result<Vec<String>, Failure> {
        let log = fs::read_to_string(self.directory.path().join("log"))?;
        Ok(log.lines().filter(|line| line.contains(words)).map(str::to_owned).collect())
    }

    async fn ready(&mut self) -> Result<(), Failure> {
        let give_up_at = Instant::now() + READY_TIMEOUT;
        let plan = trial();
        loop {
            if self.address.is_empty()
                && let Ok(port) = fs::read_to_string(port_file(self.directory.path()))
            {
                self.address = format!("127.0.0.1:{}", port.trim());
            }
            if !self.address.is_empty()
                && let Ok(Ok(())) = timeout(GREETING_TIMEOUT, self.greet(&plan)).await
            {
                return Ok(());
            }
            let has_ended = self.child.try_wait()?.is_some();
            if has_ended || Instant::now() > give_up_at {
                let log = fs::read_to_string(self.directory.path().join("log"))?;
                let name = self.kind.name();
                return Err(format!("{name} did not become ready; it says:\n{log}").into());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Says hello and goodbye, as if for this plan: on each connection that it has.
    pub(crate) async fn greet(&self, plan: &Plan) -> Result<(), Error> {
        let (address, plan) = (self.address.clone(), plan.clone());
        match self.kind {
            Kind::Echo(_) => greet(Echo::new(address, self.tls(), &plan), &plan).await,
            Kind::Coordinator(..) => greet(us(address, self.tls(), &plan), &plan).await,
            Kind::Postgres => greet(Postgres { address, plan: plan.clone() }, &plan).await,
            Kind::Redis => greet(Redis::new(address, plan.clone()).await?, &plan).await,
            Kind::Etcd => greet(Etcd { address, plan: plan.clone() }, &plan).await,
            Kind::ZooKeeper => greet(ZooKeeper { address, plan: plan.clone() }, &plan).await,
        }
    }

    /// Takes a measurement of it.
    pub(crate) async fn measure(&self, plan: &Plan) -> Result<Outcome, Error> {
        let (address, plan) = (self.address.clone(), plan.clone());
        match self.kind {
            Kind::Echo(_) => {
                let peer = Echo::new(address, self.tls(), &plan);
                self.measure_as(peer, plan).await
            }
            Kind::Coordinator(..) => {
                let peer = us(address, self.tls(), &plan);
                self.measure_as(peer, plan).await
            }
            Kind::Redis => {
                let peer = Redis::new(address, plan.clone()).await?;
                self.measure_as(peer, plan).await
            }
            Kind::Etcd => self.measure_as(Etcd { address, plan: plan.clone() }, plan).await,
            Kind::Postgres => self.measure_as(Postgres { address, plan: plan.clone() }, plan).await,
            Kind::ZooKeeper => {
                if plan.keep == Connections::PerIteration {
                    // The nodes below which locks are made are not part of a pair.
                    self.greet(&plan).await?;
                }
                self.measure_as(ZooKeeper { address, plan: plan.clone() }, plan).await
            }
        }
    }

    /// Takes a measurement of it, while something else goes on.
    pub(crate) async fn measure_beside(
        &self,
        plan: &Plan,
        beside: Option<&Plan>,
    ) -> Result<Outcome, Error> {
        let Some(beside) = beside else { return self.measure(plan).await };
        let (measured, beside) = tokio::join!(self.measure(plan), self.measure(beside));
        beside?;
        measured
    }

    /// How its connections are secured, if they are.
    fn tls(&self) -> Option<TlsOptions> {
        self.kind.security().options(self.directory.path())
    }

    /// Takes a measurement of it, by who speaks to it in some other way.
    pub(crate) async fn measure_as(&self, peer: impl Peer, plan: Plan) -> Result<Outcome, Error> {
        load::measure(peer, plan, self.pid(), pending(), |_| ()).await
    }
}

/// A coordinator, as a peer.
pub(crate) fn us(server: String, tls: Option<TlsOptions>, plan: &Plan) -> Coordinator {
    let tls = tls.map(|tls| (secure::HOST.to_owned(), tls));
    let (connect_timeout, credential) = (CONNECT_TIMEOUT, None);
    Coordinator { server, tls, credential, connect_timeout, plan: plan.clone() }
}

async fn greet(peer: impl Peer, plan: &Plan) -> Result<(), Error> {
    for number in 0..plan.connections {
        let mut link = peer.connect(number).await?;
        link.greet().await?;
        link.leave().await?;
    }
    Ok(())
}

/// A plan with one connection, for a first hello.
fn trial() -> Plan {
    Plan {
        connections: 1,
        threads: 1,
        locks: Locks::Own,
        mode: Mode::Exclusive,
        rhythm: Rhythm::Steps,
        keep: Connections::Kept,
        priority: Priority::Usual,
        warmup: Duration::ZERO,
        extent: Extent::Pairs(1),
        prefix: "trial".to_owned(),
    }
}

fn port_file(directory: &Path) -> PathBuf {
    directory.join("port")
}

/// A port that nobody has, for programs that cannot take one by themselves.
pub(crate) fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// How a coordinator is started.
fn serve(coordinator: &Path, address: &str, data: &Path) -> Command {
    let mut command = Command::new(coordinator);
    command.args(["serve", "--listen", address, "--ttl-max", "1h", "--data-dir"]).arg(data);
    command.args(["--connections-max", "100000", "--sessions-max", "1000000"]);
    command
}

/// Where Debian puts Postgres' programs.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    programs.filter(|programs| programs.join("postgres").exists()).max()
}

/// How Postgres is started, with a data directory of its own. It does not run as root: then it is the
/// user that Debian has for it.
fn postgres(directory: &Path, data: &Path, port: u16) -> Result<Command, Failure> {
    let programs = postgres_programs().ok_or("Postgres is not installed")?;
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if is_root {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        std::process::Command::new("chown").arg("postgres").arg(data).status()?;
    }
    let words = |program: &str| {
        let user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"];
        let user = user.iter().filter(|_| is_root).map(|word| OsString::from(*word));
        user.chain([programs.join(program).into_os_string()]).collect::<Vec<OsString>>()
    };
    let initdb = words("initdb");
    let made = std::process::Command::new(&initdb[0])
        .args(&initdb[1..])
        .args(["--auth=trust", "--username=postgres", "-D"])
        .arg(data)
        .stdout(Stdio::null())
        .status()?;
    if !made.success() {
        return Err("initdb failed".into());
    }
    let server = words("postgres");
    let mut command = Command::new(&server[0]);
    command.args(&server[1..]).arg("-D").arg(data).args(["-p", &port.to_string()]);
    command.args(["-c", "max_connections=1000", "-c", "listen_addresses=127.0.0.1"]);
    command.arg("-k").arg(data);
    Ok(command)
}

/// How it is started, each as its makers advise for one machine and with the durability that is its
/// default; and its address, if it does not tell that itself.
fn command(
    kind: Kind,
    coordinator: &Path,
    directory: &Path,
) -> Result<(Command, Option<String>), Failure> {
    let data = directory.join("data");
    fs::create_dir(&data)?;
    let (mut command, address) = match kind {
        Kind::Echo(security) => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("echo").arg("--port-file").arg(port_file(directory));
            command.args(security.flags(directory));
            (command, None)
        }
        Kind::Coordinator(journal, security) => {
            let mut command = serve(coordinator, "127.0.0.1:0", &data);
            command.args(["--journal", journal.distance()]).args(security.flags(directory));
            command.arg("--port-file").arg(port_file(directory));
            (command, None)
        }
        Kind::Postgres => {
            let port = free_port()?;
            (postgres(directory, &data, port)?, Some(format!("127.0.0.1:{port}")))
        }
        Kind::Redis => {
            let port = free_port()?;
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"]).arg(data);
            // A lock need not be on disk, and Redis would fork to write it there.
            command.args(["--save", "", "--appendonly", "no"]);
            (command, Some(format!("127.0.0.1:{port}")))
        }
        Kind::Etcd => {
            let (clients, peers) = (free_port()?, free_port()?);
            let url = |port| format!("http://127.0.0.1:{port}");
            let mut command = Command::new("etcd");
            command.arg("--data-dir").arg(data).args(["--log-level", "error"]);
            for flag in ["--listen-client-urls", "--advertise-client-urls"] {
                command.args([flag, &url(clients)]);
            }
            for flag in ["--listen-peer-urls", "--initial-advertise-peer-urls"] {
                command.args([flag, &url(peers)]);
            }
            command.args(["--initial-cluster", &format!("default={}", url(peers))]);
            (command, Some(format!("127.0.0.1:{clients}")))
        }
        Kind::ZooKeeper => {
            let port = free_port()?;
            let config = directory.join("zoo.cfg");
            let text = format!(
                "tickTime=2000\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\n\
                 maxClientCnxns=0\nadmin.enableServer=false\n",
                data.display()
            );
            fs::write(&config, text)?;
            let mut command = Command::new("java");
            command.args(["-cp", ZOOKEEPER_JAR]);
            command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(config);
            (command, Some(format!("127.0.0.1:{port}")))
        }
    };
    command.current_dir(directory);
    without_settings(&mut command);
    Ok((command, address))
}

/// Takes from a program the coordinator's settings that are in our environment.
pub(crate) fn without_settings(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COORDINATOR_") {
            command.env_remove(name);
        }
    }
    command
}
