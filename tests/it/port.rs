//! A coordinator whose HTTP port answers, for tests of what it says.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::access::{credential, principal};
use crate::support::{DEADLINE, Home, Running, Server, eventually, run, start};

/// May have what is hers.
pub(crate) const ANN: &str = "may = [ { do = [\"lock\", \"see\"], names = [\"a\", \"a/*\"] } ]";
const OPS: &str = "may = [ { do = [\"see\", \"break\"], names = [\"*\"] }, { do = [\"admin\"] } ]";
/// May lock everything.
pub(crate) const BOB: &str = "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]";

/// A coordinator whose HTTP port answers.
pub(crate) struct Port {
    pub(crate) server: Server,
    pub(crate) http: String,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Its headers, in small letters.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Port {
    /// One with principals: `ann` has what is hers, `bob` locks everything, `ops` breaks everything.
    pub(crate) fn guarded() -> Self {
        let home = Home::new();
        let text = principal("ann", ANN) + &principal("bob", BOB) + &principal("ops", OPS);
        private(&home.path("access.toml"), &text);
        for name in ["ann", "bob", "ops", "mallory"] {
            private(&home.path(name), credential(name).reveal());
        }
        Self::start(home, "--access-file access.toml --audit-log audit")
    }

    /// One where everybody may read.
    pub(crate) fn open() -> Self {
        Self::start(Home::new(), "")
    }

    pub(crate) fn start(home: Home, flags: &str) -> Self {
        Self::start_with(home, &format!("--ephemeral {flags}"))
    }

    /// One that may keep its state.
    pub(crate) fn start_with(home: Home, flags: &str) -> Self {
        let line = format!(
            "exec \"$0\" serve --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
             --port-file port {flags} 2>log"
        );
        let mut command = home.command("sh");
        let program = env!("CARGO_BIN_EXE_coordinator");
        command.current_dir(home.path(".")).args(["-c", &line, program]);
        let server = Server::start_by_command(home, command);
        let http = eventually("the log names the port", || {
            let log = fs::read_to_string(server.home.path("log")).ok()?;
            let (_, rest) = log.split_once("probes and metrics on http")?;
            let (_, rest) = rest.split_once("://")?;
            rest.split_once('\n').map(|(address, _)| address.to_owned())
        });
        Self { server, http }
    }

    /// A command of a client that shows who it is.
    pub(crate) fn client(&self, who: &str, words: &[&str]) -> Command {
        let mut command = self.server.client(words);
        let file = self.server.home.path(who);
        if file.exists() {
            command.env("COORDINATOR_CREDENTIAL_FILE", file);
        }
        command
    }

    /// Somebody holds a lock, and others wait for it.
    pub(crate) fn contended(&self, who: &str, name: &str, waiters: usize) -> Vec<Running> {
        let hold =
            || start(self.client(who, &["hold", name, "--note", &format!("note of {name}")]));
        let mut all = vec![hold()];
        let lock = || {
            let status = run(self.client("bob", &["status", "--json", name]));
            serde_json::from_str::<Value>(&status.out).ok()
        };
        let count = |field: &str| lock().and_then(|it| it["locks"][0][field].as_u64());
        eventually("it is held", || (count("holder_count")? == 1).then_some(()));
        all.extend((0..waiters).map(|_| hold()));
        let waiters = waiters as u64;
        eventually("others wait", || (count("waiter_count")? == waiters).then_some(()));
        all
    }

    pub(crate) fn connect(
        &self,
        method: &str,
        path: &str,
        who: Option<&str>,
        rest: &str,
    ) -> TcpStream {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let shown = who.map(|who| credential(who).reveal().to_owned());
        let shown = shown.map_or_else(String::new, |it| format!("Authorization: Bearer {it}\r\n"));
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{shown}{rest}");
        // What is refused is perhaps not read to its end.
        let _ = stream.write_all(head.as_bytes());
        stream
    }

    pub(crate) fn ask(&self, method: &str, path: &str, who: Option<&str>, rest: &str) -> Answer {
        let rest = format!("Connection: close\r\n{rest}");
        let mut bytes = Vec::new();
        let _ = self.connect(method, path, who, &rest).read_to_end(&mut bytes);
        let answer = String::from_utf8(bytes).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    pub(crate) fn get(&self, path: &str, who: Option<&str>) -> Answer {
        self.ask("GET", path, who, "\r\n")
    }

    pub(crate) fn post(&self, path: &str, who: Option<&str>, headers: &str, body: &str) -> Answer {
        let rest = format!("{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        self.ask("POST", path, who, &rest)
    }

    pub(crate) fn revoke(&self, who: Option<&str>, name: &str, token: u64, reason: &str) -> Answer {
        let body = serde_json::json!({"token": token, "reason": reason}).to_string();
        self.post(&format!("/api/v1/locks/{name}/revoke"), who, OURS, &body)
    }

    /// A stream, read until a text is in it; what came.
    pub(crate) fn stream_until(
        &self,
        path: &str,
        who: Option<&str>,
        is_done: impl Fn(&str) -> bool,
    ) -> String {
        let stream = self.connect("GET", path, who, "\r\n");
        read_until(stream, is_done)
    }
}

/// What a question that changes something has to show.
pub(crate) const OURS: &str = "X-Coordinator: 1\r\nContent-Type: application/json\r\n";

pub(crate) fn read_until(mut stream: TcpStream, is_done: impl Fn(&str) -> bool) -> String {
    let (mut heard, mut bytes) = (String::new(), vec![0; 65536]);
    while !is_done(&heard) {
        let read = stream.read(&mut bytes).unwrap();
        assert_ne!(read, 0, "the stream has ended: {heard}");
        heard += &String::from_utf8_lossy(&bytes[..read]);
    }
    heard
}

/// A file that nobody else may read.
pub(crate) fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
