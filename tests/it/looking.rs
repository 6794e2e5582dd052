//! What `events` and `status --waits` show of what others do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use coordinator::wire::{self, ClientMessage, ServerMessage};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::raw::{Raw, hello, request};
use crate::support::{DEADLINE, Home, Server, eventually, run, start};
use coordinator::types::{OwnerId, RejectionCode, RequestId};

/// A command whose lines are looked at while it runs.
pub(crate) struct Listener {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Listener {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || out.lines().try_for_each(|line| tell.send(line.unwrap())));
        Self { child, lines }
    }

    /// The next line, if there is one.
    pub(crate) fn try_next(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("no line comes")
    }

    /// Has something happen to a lock until that is heard: so the listener listens. Of that lock
    /// there may be more to hear. Gives the first line.
    fn awaken(&self, server: &Server, lock: &str) -> String {
        eventually("events are heard", || {
            assert_eq!(run(server.client(&["lock", lock, "--", "true"])).code(), Some(0));
            self.lines.try_recv().ok()
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// An exclusive request by this owner.
fn owned(id: u64, name: &str, asks: u64) -> ClientMessage {
    let mut message = request(id, name);
    if let ClientMessage::Request(wire::Request { owner, .. }) = &mut message {
        *owner = OwnerId::new(asks);
    }
    message
}

/// Two owners, each of which holds a lock; the first waits for the second's.
fn chain(server: &Server) -> (Raw, u64) {
    let mut raw = Raw::connect(server);
    raw.say(&[hello(), owned(1, "a", 1), owned(2, "b", 2), owned(3, "b", 1)]);
    assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
    let ServerMessage::Grant { request: RequestId(1), token, .. } = raw.hear() else { panic!() };
    assert!(matches!(raw.hear(), ServerMessage::Grant { request: RequestId(2), .. }));
    assert!(matches!(raw.hear(), ServerMessage::Queued { request: RequestId(3), .. }));
    (raw, token.number())
}

#[test]
fn waits_are_drawn_as_a_tree() {
    let server = Server::start();
    let idle = run(server.client(&["status", "--waits"]));
    assert!(idle.out.ends_with("\nnobody waits\n"), "{}", idle.out);
    let (_raw, token) = chain(&server);
    let _waiter = start(server.client(&["lock", "--as", "ci-7", "a", "--", "true"]));
    server.waited_for_by("a", 1);

    let mut command = server.client(&["status", "--waits"]);
    command.env_remove("LC_ALL").env_remove("LC_CTYPE").env("LANG", "C.UTF-8");
    let tree = run(command).out;
    let lines: Vec<&str> = tree.lines().skip(2).collect();
    assert_eq!(lines.len(), 5, "{tree}");
    assert_eq!(lines[0], "raw owner 2");
    assert!(lines[1].starts_with("└─ holds \"b\" for "), "{tree}");
    assert!(lines[2].starts_with("   └─ 1st in line: raw owner 1 for "), "{tree}");
    assert!(lines[3].starts_with("      └─ holds \"a\" for "), "{tree}");
    assert!(lines[3].ends_with(&format!("  token {token}")), "{tree}");
    assert!(lines[4].starts_with("         └─ 1st in line: ci-7 ("), "{tree}");

    let mut command = server.client(&["status", "--waits"]);
    command.env_remove("LC_ALL").env_remove("LC_CTYPE").env("LANG", "C");
    assert!(run(command).out.is_ascii());

    let json = run(server.client(&["status", "--waits", "--json"]));
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["locks"][1]["waiters"][0]["holds"][0], "a");
    assert_eq!(json["locks"][1]["waiters"][0]["owner"], 1);
    // An owner is shown where there is one.
    let one = run(server.client(&["status", "a"]));
    assert!(one.out.starts_with("LOCK  HOLDER  OWNER  FOR"), "{}", one.out);
}

#[test]
fn events_are_told_line_by_line() {
    let server = Server::start();
    let all = Listener::start(server.client(&["events"]));
    let json = Listener::start(server.client(&["events", "--json"]));
    let other = Listener::start(server.client(&["events", "other"]));
    all.awaken(&server, "rooster");
    json.awaken(&server, "rooster");

    let done =
        run(server.client(&["lock", "--as", "ci-7", "demo", "--and", "extra", "--", "true"]));
    assert_eq!(done.code(), Some(0), "{}", done.err);
    let words =
        |line: &str| line.split("  ").map(|word| word.trim().to_owned()).collect::<Vec<_>>();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let line = all.next();
        if line.contains("\"demo\", \"extra\"") {
            assert!(line.starts_with("20") && line.contains("Z  "), "{line}");
            assert!(line.contains("  ci-7 ("), "{line}");
            seen.push(words(&line)[1].clone());
        }
    }
    assert_eq!(seen, ["requested", "granted", "released"]);
    let granted = loop {
        let event: Value = serde_json::from_str(&json.next()).unwrap();
        if event["what"] == "granted" && event["claims"][0]["name"] == "demo" {
            break event;
        }
    };
    assert!(granted["token"].as_u64().unwrap() > 0);
    assert_eq!(granted["claims"][1]["mode"]["kind"], "exclusive");
    assert_eq!(granted["session"].as_str().unwrap().len(), 32);

    let of_other = other.awaken(&server, "other");
    assert!(of_other.contains("\"other\""), "{of_other}");
}

#[test]
fn a_deadlock_is_refused_told_and_logged() {
    let server = Server::start();
    let listener = Listener::start(server.client(&["events", "b"]));
    listener.awaken(&server, "b");
    let (mut raw, _) = chain(&server);
    raw.say(&[owned(4, "a", 2)]);
    let ServerMessage::Rejected {
        request: RequestId(4), code: RejectionCode::Deadlock, cycle, ..
    } = raw.hear()
    else {
        panic!()
    };
    assert_eq!(cycle.links.len(), 2);
    raw.say(&[owned(5, "b", 2)]);
    let ServerMessage::Rejected { request: RequestId(5), code: RejectionCode::AlreadyHeld, .. } =
        raw.hear()
    else {
        panic!()
    };
    let told = loop {
        let line = listener.next();
        if line.contains("  rejected ") {
            break line;
        }
    };
    assert!(
        told.contains("raw #5  \"b\"  AlreadyHeld: the same owner already holds \"b\""),
        "{told}"
    );
    raw.say(&[ClientMessage::Goodbye]);
    assert!(raw.is_closed());
    let Server { process, home: _home, .. } = server;
    process.signal(Signal::TERM);
    let log = process.end().err;
    let warning = log.lines().find(|line| line.contains("deadlock refused")).expect("a warning");
    for part in [
        "owner 2, request 4 waits for \\\"a\\\"",
        "owner 1, request 3 waits for \\\"b\\\"",
        "token ",
    ] {
        assert!(warning.contains(part), "{warning}");
    }
}

#[test]
fn events_end_with_their_reader_with_ctrl_c_and_with_the_server() {
    let server = Server::start();
    let mut unread = Listener::start(server.client(&["events"]));
    unread.awaken(&server, "rooster");
    let mut interrupted = Listener::start(server.client(&["events"]));
    interrupted.awaken(&server, "rooster");
    kill_process(Pid::from_child(&interrupted.child), Signal::INT).unwrap();
    let ended = interrupted.child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(2));

    let mut piped = server.home.command("sh");
    piped.args(["-c", "\"$0\" events | head -n 1"]).arg(env!("CARGO_BIN_EXE_coordinator"));
    piped.env("COORDINATOR_SERVER", &server.address);
    let mut piped = Listener::start(piped);
    let ended = eventually("it ends with its reader", || {
        run(server.client(&["lock", "demo", "--", "true"]));
        piped.child.try_wait().unwrap()
    });
    assert!(ended.success());

    server.process.signal(Signal::KILL);
    assert_eq!(unread.child.wait().unwrap().code(), Some(69));
    let mut told = String::new();
    std::io::Read::read_to_string(&mut unread.child.stderr.take().unwrap(), &mut told).unwrap();
    assert!(told.starts_with("error: no coordinator answers at 127.0.0.1:"), "{told}");
    assert!(told.contains("\n  hint: start one with `coordinator serve`"), "{told}");
}

#[test]
fn the_log_tells_the_way_of_a_request_to_who_asks_for_it() {
    let server = Server::start_with(Home::new(), &["--ephemeral", "--log", "debug"]);
    let mut raw = Raw::connect(&server);
    raw.say(&[hello(), request(1, "demo"), request(2, "demo")]);
    assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
    let ServerMessage::Grant { request: RequestId(1), token, .. } = raw.hear() else { panic!() };
    assert!(matches!(raw.hear(), ServerMessage::Queued { request: RequestId(2), .. }));
    raw.say(&[ClientMessage::Release { request: RequestId(1), token }, ClientMessage::Goodbye]);
    assert!(raw.is_closed());
    server.process.signal(Signal::TERM);
    let Server { process, home: _home, .. } = server;
    let log = process.end().err;
    let about = |id: u64| format!(" request={id}");
    let mut lines = log.lines();
    for (what, id) in [
        ("DEBUG request received lock=\"demo\" session=", 1),
        ("INFO  granted lock=\"demo\" token=", 1),
        ("DEBUG request received lock=\"demo\" session=", 2),
        ("DEBUG request queued lock=\"demo\" session=", 2),
        ("INFO  released lock=\"demo\" token=", 1),
        ("INFO  granted lock=\"demo\" token=", 2),
        ("INFO  released lock=\"demo\" token=", 2),
    ] {
        let is_next = |line: &str| line.contains(what) && line.contains(&about(id));
        assert!(lines.any(is_next), "{what} {id}: {log}");
    }
}
