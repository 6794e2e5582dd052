//! An etcd of a test's own: the real program, in a directory of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::free_port::free_port;
use crate::support::DEADLINE;

/// A running etcd; it dies with this.
pub(crate) struct Etcd {
    child: Child,
    /// Where it keeps what it knows.
    directory: TempDir,
    setup: Setup,
}

/// How one is started.
#[derive(Clone)]
struct Setup {
    /// Which of its cluster.
    number: usize,
    /// The ports of each of its cluster: for clients, and for the others.
    ports: Vec<[u16; 2]>,
    /// How clients speak with it.
    scheme: &'static str,
    /// What else is said on its command line.
    more: Vec<String>,
}

impl Etcd {
    pub(crate) fn start() -> Self {
        Self::start_with("http", &[])
    }

    /// One whose clients prove themselves, and it itself, by certificates.
    pub(crate) fn start_with_tls(ca: &Path, certificate: &Path, key: &Path) -> Self {
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let more = [
            flag("cert-file", certificate),
            flag("key-file", key),
            flag("trusted-ca-file", ca),
            "--client-cert-auth".to_owned(),
        ];
        Self::start_with("https", &more)
    }

    /// One whose simple tokens are good for so long.
    pub(crate) fn start_with_tokens(ttl: Duration) -> Self {
        Self::start_with("http", &[format!("--auth-token-ttl={}", ttl.as_secs())])
    }

    fn start_with(scheme: &'static str, more: &[String]) -> Self {
        Self::start_all(1, scheme, more).remove(0)
    }

    /// Three that are one.
    pub(crate) fn start_three() -> Vec<Self> {
        Self::start_all(3, "http", &[])
    }

    /// So many that are one; with other ports, if somebody has taken one of them.
    fn start_all(count: usize, scheme: &'static str, more: &[String]) -> Vec<Self> {
        loop {
            let ports: Vec<_> = (0..count).map(|_| [free_port(), free_port()]).collect();
            let mut all: Vec<Self> = (0..count)
                .map(|number| {
                    let (ports, more) = (ports.clone(), more.to_vec());
                    let setup = Setup { number, ports, scheme, more };
                    let directory = tempfile::tempdir().unwrap();
                    Self { child: setup.spawn(&directory), directory, setup }
                })
                .collect();
            if all.iter_mut().all(Self::is_up) {
                return all;
            }
        }
    }

    /// Whether it listens; not if another has taken its port.
    fn is_up(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if TcpStream::connect(("127.0.0.1", self.setup.client_port())).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("an etcd does not listen after {DEADLINE:?}");
    }

    pub(crate) fn url(&self) -> String {
        self.setup.client_url()
    }

    /// It is killed.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It is started again, with what it has on disk.
    pub(crate) fn revive(&mut self) {
        self.child = self.setup.spawn(&self.directory);
        assert!(self.is_up());
    }

    /// It stands still, or goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = Pid::from_child(&self.child);
        kill_process(id, signal).unwrap();
    }

    /// Whether it leads those that are one with it.
    pub(crate) fn leads(&self) -> bool {
        let told = self.post("/v3/maintenance/status", "{}");
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told["leader"] == told["header"]["member_id"]
    }

    /// Puts a backup of it into a file.
    pub(crate) fn save(&self, file: &Path) {
        etcdctl(&["--endpoints", &self.url(), "snapshot", "save", &file.display().to_string()]);
    }

    /// It was killed, and is started again with a backup. By all its names it has the id of before.
    pub(crate) fn restore(&mut self, file: &Path) {
        self.restore_with(file, &[]);
    }

    /// The same, as another one: it has a token of its own.
    pub(crate) fn restore_as_another(&mut self, file: &Path) {
        self.restore_with(file, &["--initial-cluster-token", "restored"]);
    }

    fn restore_with(&mut self, file: &Path, token: &[&str]) {
        let Setup { number, .. } = self.setup;
        let (name, peer) = (format!("etcd-{number}"), self.setup.peer_url(number));
        self.directory = tempfile::tempdir().unwrap();
        let place = self.directory.path().join("etcd").display().to_string();
        let (file, all) = (file.display().to_string(), format!("{name}={peer}"));
        let words = ["snapshot", "restore", &file, "--data-dir", &place, "--name", &name];
        let more = ["--initial-cluster", &all, "--initial-advertise-peer-urls", &peer];
        etcdctl(&[&words[..], &more, token].concat());
        self.revive();
    }

    /// Says something to its gateway for JSON, which is part of it.
    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.setup.client_port())).unwrap();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: etcd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        // It may be cut into chunks, of which each has its length before it.
        answer.lines().find(|line| line.starts_with('{')).unwrap_or_default().to_owned()
    }
}

/// Has the program of that name do something.
fn etcdctl(words: &[&str]) {
    let done = Command::new("etcdctl").env("ETCDCTL_API", "3").args(words).output();
    let done = done.expect("etcdctl is missing: install etcd-client");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

impl Setup {
    fn client_port(&self) -> u16 {
        self.ports[self.number][0]
    }

    fn client_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.client_port())
    }

    fn peer_url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[number][1])
    }

    fn spawn(&self, directory: &TempDir) -> Child {
        let Self { number, .. } = self;
        let (client, peer) = (self.client_url(), self.peer_url(*number));
        let all: Vec<_> =
            (0..self.ports.len()).map(|it| format!("etcd-{it}={}", self.peer_url(it))).collect();
        let program = std::env::var_os("ETCD").unwrap_or_else(|| "etcd".into());
        Command::new(program)
            .arg(format!("--name=etcd-{number}"))
            .arg(format!("--data-dir={}", directory.path().join("etcd").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster={}", all.join(",")))
            .args(["--heartbeat-interval=50", "--election-timeout=500"])
            .args(&self.more)
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is missing: install etcd-server, or name it with $ETCD")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
