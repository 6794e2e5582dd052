//! Starts coordinators and runs commands against them, with deadlines.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::mem;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use coordinator::{Servers, TlsOptions};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::free_port::FreePort;
use crate::wall_clock::{WallClock, tidy_up_after};

/// Longer than anything here takes, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How long a process that a test leaves behind may take to end.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Between two looks at what is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Waits until `done` gives something; panics with `what` at the deadline.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + DEADLINE;
    loop {
        if let Some(it) = done() {
            return it;
        }
        assert!(Instant::now() < give_up_at, "still not: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// A directory with nothing in it but what the test puts there.
pub(crate) struct Home {
    directory: TempDir,
    /// The time of day for all commands in here; none: the true one.
    wall_clock: Option<WallClock>,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), wall_clock: None }
    }

    /// One in which no coordinator writes a journal, so that a crash is followed by a grace period.
    pub(crate) fn without_journal() -> Self {
        let home = Self::new();
        fs::create_dir_all(home.path(".config/coordinator")).unwrap();
        fs::write(home.path(".config/coordinator/config.toml"), "journal = \"off\"\n").unwrap();
        home
    }

    fn under_a_wall_clock() -> Self {
        let home = Self::new();
        let clock = WallClock::new(home.path("time of day"));
        Self { wall_clock: Some(clock), ..home }
    }

    pub(crate) fn wall_clock(&self) -> &WallClock {
        self.wall_clock.as_ref().expect("this home was not made with one")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A file that can be executed, with just this in it; its path.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// A command in which nothing of this machine's settings shows.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if [
                "COORDINATOR_",
                "XDG_",
                "RUST_LOG",
                "STATE_DIRECTORY",
                "JOURNAL_STREAM",
                "NOTIFY_SOCKET",
            ]
            .iter()
            .any(|ours| name.starts_with(ours))
            {
                command.env_remove(&name);
            }
        }
        command.env("HOME", self.directory.path()).stdin(Stdio::null());
        if let Some(clock) = &self.wall_clock {
            clock.govern(&mut command);
        }
        command
    }

    /// `coordinator` with these words.
    pub(crate) fn coordinator(&self, words: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_coordinator"));
        command.args(words);
        command
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// As a shell has it: a death by signal n is 128 + n.
    pub(crate) fn code_in_a_shell(&self) -> Option<i32> {
        self.code().or(self.status.signal().map(|signal| 128 + signal))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A process that is killed if the test ends before it.
pub(crate) struct Running {
    pid: Pid,
    ended: mpsc::Receiver<Output>,
    /// What has come over its standard error, if that is a pipe of ours.
    err: Arc<Mutex<Vec<u8>>>,
}

/// Starts `command` and reads what it prints.
pub(crate) fn start(command: Command) -> Running {
    start_logging_to(Stdio::piped(), command)
}

/// The same, with its standard error somewhere else.
pub(crate) fn start_logging_to(log: Stdio, mut command: Command) -> Running {
    let child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    Running::watch(child)
}

/// Runs `command` to its end.
pub(crate) fn run(command: Command) -> Done {
    start(command).end()
}

/// Runs `command` to its end with `input` on its standard input.
pub(crate) fn run_with_input(mut command: Command, input: &str) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Running::watch(child).end()
}

impl Running {
    fn watch(mut child: Child) -> Self {
        let pid = Pid::from_child(&child);
        let (tell, ended) = mpsc::channel();
        let err = Arc::new(Mutex::new(Vec::new()));
        let (pipe, kept) = (child.stderr.take(), Arc::clone(&err));
        let reader = thread::spawn(move || {
            let mut part = [0; 4096];
            let Some(mut pipe) = pipe else { return };
            while let Ok(count @ 1..) = pipe.read(&mut part) {
                kept.lock().unwrap().extend_from_slice(&part[..count]);
            }
        });
        let kept = Arc::clone(&err);
        thread::spawn(move || {
            let mut output = child.wait_with_output().unwrap();
            reader.join().unwrap();
            output.stderr = mem::take(&mut kept.lock().unwrap());
            tell.send(output)
        });
        Self { pid, ended, err }
    }

    /// What it has said over its standard error until now.
    pub(crate) fn err_so_far(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().unwrap()).into_owned()
    }

    /// Waits until it has said this over its standard error.
    pub(crate) fn says(&self, what: &str) {
        eventually(what, || self.err_so_far().contains(what).then_some(()));
    }

    pub(crate) fn id(&self) -> String {
        self.pid.as_raw_nonzero().to_string()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn end(self) -> Done {
        let ended = self.ended.recv_timeout(DEADLINE);
        let ended =
            ended.unwrap_or_else(|_| panic!("the command goes on and on: {}", self.err_so_far()));
        ended.into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // First as a user would, so that `coordinator lock` takes its command along.
        for (signal, patience) in [(Signal::TERM, Duration::ZERO), (Signal::KILL, LAST_WORDS)] {
            let ended = self.ended.recv_timeout(patience);
            if !matches!(ended, Err(mpsc::RecvTimeoutError::Timeout)) {
                return;
            }
            let _gone = kill_process(self.pid, signal);
        }
    }
}

/// How a coordinator is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// By whoever comes.
    Open,
    /// By mutual TLS, and what clients may do stands in an access file.
    Guarded,
}

impl Door {
    /// Puts certificates and an access file into a home. `ann` may do everything.
    fn furnish(self, home: &Home) {
        if self == Self::Open {
            return;
        }
        let authority = Authority::new(&home.path("ca.pem"));
        for (name, host) in [("server", "127.0.0.1"), ("client", "ann.internal")] {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            authority.issue(&[host], &home.path(&cert), &home.path(&key));
        }
        let rules = "[[principal]]\nname = \"ann\"\ncertificates = [\"dns:ann.internal\"]\n\
            may = [ { do = [\"lock\", \"see\", \"break\"], names = [\"*\"] }, { do = [\"admin\"] } ]\n";
        let access = home.path("access.toml");
        fs::write(&access, rules).unwrap();
        fs::set_permissions(&access, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// What the server is started with.
    fn flags(self, home: &Home) -> Vec<OsString> {
        let files = [
            ("--tls-cert", "server.pem"),
            ("--tls-key", "server.key"),
            ("--tls-client-ca", "ca.pem"),
            ("--access-file", "access.toml"),
        ];
        let flags = files.into_iter().filter(|_| self == Self::Guarded);
        flags.flat_map(|(flag, file)| [flag.into(), home.path(file).into_os_string()]).collect()
    }
}

/// A coordinator of the test's own.
pub(crate) struct Server {
    pub(crate) home: Home,
    pub(crate) address: String,
    pub(crate) process: Running,
    door: Door,
    /// Where it is started again; none: it listened on any.
    port: Option<FreePort>,
}

/// A coordinator that has ended.
pub(crate) struct Stopped {
    pub(crate) home: Home,
    address: String,
    door: Door,
    port: Option<FreePort>,
}

impl Stopped {
    /// Starts it again where it was.
    pub(crate) fn restart(self) -> Server {
        self.restart_with(&[])
    }

    /// The same, with these flags.
    pub(crate) fn restart_with(self, flags: &[&str]) -> Server {
        let _of_the_killed = fs::remove_file(self.home.path("port"));
        let server = Server::start_by(start, self.home, &self.address, flags, self.door);
        Server { port: self.port, ..server }
    }
}

impl Server {
    /// One that keeps nothing.
    pub(crate) fn start() -> Self {
        Self::start_with(Home::new(), &["--ephemeral"])
    }

    /// One with these flags besides, ready.
    pub(crate) fn start_with(home: Home, flags: &[&str]) -> Self {
        Self::start_behind(Door::Open, home, flags)
    }

    /// The same, reached by this door.
    pub(crate) fn start_behind(door: Door, home: Home, flags: &[&str]) -> Self {
        door.furnish(&home);
        let port = FreePort::new();
        let server =
            Self::start_by(start, home, &format!("127.0.0.1:{}", port.number), flags, door);
        Self { port: Some(port), ..server }
    }

    /// One that keeps its state, ready.
    pub(crate) fn start_durable() -> Self {
        Self::start_with(Home::new(), &[])
    }

    /// The same, without a journal.
    pub(crate) fn start_durable_without_journal() -> Self {
        Self::start_with(Home::without_journal(), &[])
    }

    /// The same, with a time of day that can be set.
    pub(crate) fn start_under_a_wall_clock() -> Self {
        Self::start_with(Home::under_a_wall_clock(), &[])
    }

    /// Kills it as `kill -9` does, and starts it again at the same address with the same state.
    pub(crate) fn crash_and_restart(self) -> Self {
        self.end_by(Signal::KILL).restart()
    }

    /// Stops it in order, and starts it again at the same address with the same state.
    pub(crate) fn stop_and_restart(self) -> Self {
        self.end_by(Signal::TERM).restart()
    }

    /// Ends it; what is left can be started again.
    pub(crate) fn end_by(self, signal: Signal) -> Stopped {
        self.process.signal(signal);
        self.wait_for_end()
    }

    /// The same, of one that was told to end.
    pub(crate) fn wait_for_end(self) -> Stopped {
        let Self { home, address, process, door, port } = self;
        let id = process.id();
        process.end();
        tidy_up_after(&id);
        Stopped { home, address, door, port }
    }

    /// One with these flags besides that keeps nothing, whose standard error the test has.
    pub(crate) fn start_logging_to(log: Stdio, flags: &[&str]) -> Self {
        let flags = [&["--ephemeral"], flags].concat();
        let start = |command| start_logging_to(log, command);
        Self::start_by(start, Home::new(), "127.0.0.1:0", &flags, Door::Open)
    }

    fn start_by(
        start: impl FnOnce(Command) -> Running,
        home: Home,
        listen: &str,
        flags: &[&str],
        door: Door,
    ) -> Self {
        let mut command = home.coordinator(&["serve", "--listen", listen, "--port-file"]);
        command.arg(home.path("port")).args(flags).args(door.flags(&home));
        Self::ready(home, start(command), door)
    }

    /// One that this command starts, which has it write its port to the file `port`.
    pub(crate) fn start_by_command(home: Home, command: Command) -> Self {
        Self::ready(home, start(command), Door::Open)
    }

    fn ready(home: Home, process: Running, door: Door) -> Self {
        let port_file = home.path("port");
        let port = eventually("the coordinator is ready", || {
            if let Ok(output) = process.ended.try_recv() {
                panic!("the coordinator ended: {:?}", Done::from(output));
            }
            fs::read_to_string(&port_file).ok()
        });
        let address = format!("127.0.0.1:{}", port.trim());
        Self { home, address, process, door, port: None }
    }

    /// `coordinator` with these words, as a client of this server.
    pub(crate) fn client(&self, words: &[&str]) -> Command {
        let mut command = self.home.coordinator(words);
        match self.door {
            Door::Open => command.env("COORDINATOR_SERVER", &self.address),
            Door::Guarded => command
                .env("COORDINATOR_SERVER", format!("tls://{}", self.address))
                .env("COORDINATOR_SERVER_CA", self.home.path("ca.pem"))
                .env("COORDINATOR_CLIENT_CERT", self.home.path("client.pem"))
                .env("COORDINATOR_CLIENT_KEY", self.home.path("client.key")),
        };
        command
    }

    /// Where clients of the library find it.
    pub(crate) fn servers(&self) -> Servers {
        self.servers_at(&self.address)
    }

    /// The same, at another address that leads there.
    pub(crate) fn servers_at(&self, address: &str) -> Servers {
        match self.door {
            Door::Open => Servers::from(address),
            Door::Guarded => {
                let home = &self.home;
                let options = TlsOptions::new().server_ca(home.path("ca.pem"));
                let options = options.client_cert(home.path("client.pem"), home.path("client.key"));
                Servers::from(format!("tls://{address}")).tls(options)
            }
        }
    }

    /// What `status --json` says about one lock; none if it is free.
    pub(crate) fn lock(&self, name: &str) -> Option<serde_json::Value> {
        let mut json: serde_json::Value = eventually("the coordinator answers", || {
            serde_json::from_str(&run(self.client(&["status", "--json", name])).out).ok()
        });
        json["locks"].as_array_mut().unwrap().pop()
    }

    /// Waits until someone holds the lock; the token.
    pub(crate) fn held(&self, name: &str) -> u64 {
        eventually("the lock is held", || self.lock(name)?["holders"][0]["token"].as_u64())
    }

    /// Waits until so many wait for the lock.
    pub(crate) fn waited_for_by(&self, name: &str, waiters: u64) {
        eventually("others wait", || {
            (self.lock(name)?["waiter_count"].as_u64()? == waiters).then_some(())
        });
    }
}

/// Waits until the file holds a line; without its end.
pub(crate) fn line_in(file: &Path) -> String {
    eventually("the file has a line", || {
        fs::read_to_string(file).ok()?.strip_suffix('\n').map(str::to_owned)
    })
}

/// Whether the process lives (one that has ended and waits to be buried does not). As long as any of
/// its threads has not ended, what it had open may be open.
pub(crate) fn lives(pid: &str) -> bool {
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    state(pid).is_some_and(|state| state != 'Z' || threads() > 1)
}

/// Whether the process was stopped and not continued.
pub(crate) fn is_stopped(pid: &str) -> bool {
    state(pid) == Some('T')
}

/// The processes called `name` that the process `parent` has started.
pub(crate) fn started_by(parent: &str, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let pid = entry.unwrap().file_name().into_string().unwrap();
        // `4711 (name) S 4242 …`; those that are no process, or none any more, have none.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((head, tail)) = stat.rsplit_once(") ") else { continue };
        let is_called = head.split_once(" (").is_some_and(|(_, it)| it == name);
        if is_called && tail.split(' ').nth(1) == Some(parent) {
            found.push(pid);
        }
    }
    found
}

/// The letter that the kernel has for what a process does; none if there is no such process.
fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
