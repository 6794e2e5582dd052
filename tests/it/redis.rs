//! The Redis dialect of the real program: the same locks as native clients, over crashes and stops.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::Value;

use crate::access::{credential, principal};
use crate::support::{DEADLINE, Home, Server, eventually, run, start};

/// A coordinator that speaks the dialect, and its log in a file.
struct Both {
    server: Server,
}

/// A client of the dialect, which speaks by lines.
struct Redis(BufReader<TcpStream>);

impl Both {
    fn start(flags: &[&str]) -> Self {
        Self::start_in(Home::new(), flags)
    }

    fn start_in(home: Home, flags: &[&str]) -> Self {
        let line = "exec \"$0\" serve --listen 127.0.0.1:0 --redis-listen 127.0.0.1:0 --port-file port \"$@\" 2>log";
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        command.args(flags);
        Self { server: Server::start_by_command(home, command) }
    }

    /// Ends it by a signal and starts it again, with the same state.
    fn again_after(self, signal: Signal) -> Self {
        let stopped = self.server.end_by(signal);
        let _of_the_killed = fs::remove_file(stopped.home.path("port"));
        Self::start_in(stopped.home, &[])
    }

    fn connect(&self) -> Redis {
        let log = self.server.home.path("log");
        let address = eventually("the log tells the port", || {
            let log = fs::read_to_string(&log).ok()?;
            let line = log.lines().find(|line| line.contains("the Redis dialect on "))?;
            let address = line.split("dialect on ").nth(1)?.split([',', ' ']).next()?;
            Some(address.to_owned())
        });
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Redis(BufReader::new(stream))
    }
}

impl Redis {
    fn send(&mut self, line: &str) {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
    }

    /// One answer: its line, and the line behind it if that is bytes.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        if line.starts_with('$') && line != "$-1\r\n" {
            line.clear();
            self.0.read_line(&mut line).unwrap();
        }
        line.trim_end().to_owned()
    }

    fn say(&mut self, line: &str) -> String {
        self.send(line);
        self.hear()
    }
}

#[test]
fn redis_and_native_clients_exclude_each_other_and_see_each_other() {
    let both = Both::start(&[]);
    let mut redis = both.connect();
    assert_eq!(redis.say("SET order mine NX PX 600000"), "+OK");
    let tried = run(both.server.client(&["try", "order", "--", "true"]));
    assert_ne!(tried.code(), Some(0), "{tried:?}");
    let held = both.server.lock("order").unwrap();
    let holder = held["holders"][0]["identity"].as_str().unwrap().to_owned();
    assert!(holder.starts_with("redis 127.0.0.1:"), "{holder}");
    let token = both.server.held("order");
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), format!(":{token}"));

    let _native = start(both.server.client(&["lock", "printer", "--", "sleep", "1000"]));
    both.server.held("printer");
    assert_eq!(redis.say("SET printer mine NX PX 1000"), "$-1");
    assert!(redis.say("GET printer").starts_with("coordinator:"));
    assert!(
        redis.say("DEL printer").starts_with("-COORDINATOR 'printer' is held by a native client")
    );

    assert_eq!(redis.say("DEL order"), ":1");
    let now = run(both.server.client(&["try", "order", "--", "true"]));
    assert_eq!(now.code(), Some(0), "{now:?}");
}

#[test]
fn what_is_held_is_held_after_a_crash_and_a_stop_for_the_rest_of_its_time() {
    let mut both = Both::start(&[]);
    let mut redis = both.connect();
    assert_eq!(redis.say("SET long mine NX PX 600000"), "+OK");
    assert_eq!(redis.say("SET endless mine NX"), "+OK");
    assert_eq!(redis.say("SET freed mine NX"), "+OK");
    assert_eq!(redis.say("DEL freed"), ":1");
    let token = redis.say("COORDINATOR.TOKEN long");
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL] {
        both = both.again_after(signal);
        let mut redis = both.connect();
        assert_eq!(redis.say("SET long yours NX PX 1"), "$-1", "{signal:?}");
        assert_eq!(redis.say("SET endless yours NX PX 1"), "$-1", "{signal:?}");
        assert_eq!(redis.say("SET freed yours NX"), "+OK", "nobody has it, and nobody waits");
        assert_eq!(redis.say("DEL freed"), ":1");
        assert_eq!(redis.say("COORDINATOR.TOKEN long"), token);
        let left: u64 = redis.say("PTTL long")[1..].parse().unwrap();
        assert!((500_000..=600_000).contains(&left), "{left}");
        assert_eq!(redis.say("PTTL endless"), ":-1");
    }
    // Its holder is known by its value still.
    let mut redis = both.connect();
    let free = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    assert_eq!(redis.say(&format!("EVAL \"{free}\" 1 long yours")), ":0");
    assert_eq!(redis.say(&format!("EVAL \"{free}\" 1 long mine")), ":1");
}

#[test]
fn who_waits_stands_in_one_line_with_native_clients_and_leaves_it_with_its_connection() {
    let both = Both::start(&[]);
    let mut first = both.connect();
    assert_eq!(first.say("SET order first NX"), "+OK");
    let mut gone = both.connect();
    gone.send("COORDINATOR.WAIT order gone PX 600000");
    both.server.waited_for_by("order", 1);
    let native = start(both.server.client(&["lock", "order", "--", "true"]));
    both.server.waited_for_by("order", 2);
    let mut last = both.connect();
    last.send("COORDINATOR.WAIT order last PX 600000\r\nPING");
    both.server.waited_for_by("order", 3);
    assert_eq!(both.connect().say("SET order hasty NX"), "$-1");
    drop(gone);
    both.server.waited_for_by("order", 2);
    assert_eq!(first.say("DEL order"), ":1");
    assert_eq!(native.end().code(), Some(0));
    let token = last.hear();
    assert_eq!(token, format!(":{}", both.server.held("order")));
    assert_eq!(last.hear(), "+PONG", "what was said behind it is answered behind it");
    assert_eq!(last.say("GET order"), "last");
    assert_eq!(both.connect().say("COORDINATOR.WAIT order late TIMEOUT 1"), "$-1");
}

#[test]
fn a_hold_ends_by_itself_and_the_next_in_line_has_it() {
    let both = Both::start(&["--ephemeral"]);
    let (mut first, mut second) = (both.connect(), both.connect());
    assert_eq!(first.say("SET order first NX PX 300"), "+OK");
    assert!(second.say("COORDINATOR.WAIT order second PX 600000").starts_with(':'));
    assert_eq!(first.say("GET order"), "second");
}

#[test]
fn a_pipeline_of_thousands_is_answered_in_order_and_nobody_else_waits_for_it() {
    let both = Both::start(&["--ephemeral"]);
    let mut busy = both.connect();
    let mut writer = busy.0.get_ref().try_clone().unwrap();
    let count = 20_000;
    let said = std::thread::spawn(move || {
        let pipeline: Vec<String> = (0..count).map(|number| format!("ECHO {number}\r\n")).collect();
        writer.write_all(pipeline.concat().as_bytes()).unwrap();
    });
    assert_eq!(both.connect().say("PING"), "+PONG");
    for number in 0..count {
        assert_eq!(busy.hear(), number.to_string());
    }
    said.join().unwrap();
    let mut half = both.connect();
    half.send("SET a b NX\r\nGET a");
    half.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    half.0.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "+OK\r\n$1\r\nb\r\n");
}

#[test]
fn what_is_no_request_is_told_and_closed() {
    let both = Both::start(&["--ephemeral"]);
    for (said, start) in [
        ("*1\r\n:1", "-ERR Protocol error: expected '$', got ':'"),
        ("*99999999", "-ERR Protocol error: invalid multibulk length"),
        ("GET / HTTP/1.1", "-ERR Protocol error: this port speaks the protocol of Redis"),
        ("\u{16}\u{3}\u{1}", "-ERR Protocol error: this port speaks the protocol of Redis"),
    ] {
        let mut redis = both.connect();
        let answer = redis.say(said);
        assert!(answer.starts_with(start), "{answer}");
        let mut rest = Vec::new();
        redis.0.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
    assert_eq!(both.connect().say("QUIT"), "+OK");
}

#[test]
fn without_a_journal_nothing_is_promised_to_this_dialect() {
    let home = Home::new();
    let flags =
        ["serve", "--listen", "127.0.0.1:0", "--redis-listen", "127.0.0.1:0", "--journal", "off"];
    let refused = run(home.coordinator(&flags));
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    assert!(refused.err.contains("their locks need the journal, which is off"), "{refused:?}");
    let flags = ["serve", "--listen", "127.0.0.1:0", "--redis-listen", "0.0.0.0:0", "--ephemeral"];
    let refused = run(home.coordinator(&flags));
    assert_eq!(refused.code(), Some(2), "{refused:?}");
    assert!(refused.err.contains("--redis-listen 0.0.0.0:0 can be reached"), "{refused:?}");
}

#[test]
fn whoever_has_not_proven_who_it_is_does_nothing_and_nobody_more_than_it_may() {
    let home = Home::new();
    let may = |names: &str| format!("may = [ {{ do = [\"lock\", \"see\"], names = [{names}] }} ]");
    let text = principal("ann", &may("\"a\", \"ab\"")) + &principal("bob", &may("\"b\", \"ab\""));
    let file = home.path("access.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let both = Both::start_in(home, &["--access-file", "access.toml"]);
    let secret = |name: &str| credential(name).reveal().to_owned();
    let mut ann = both.connect();
    for line in ["SET a mine NX", "GET a", "PING", "HELLO 3", "COORDINATOR.WAIT a mine"] {
        assert!(ann.say(line).starts_with("-NOAUTH"), "{line}");
    }
    assert_eq!(ann.say(&format!("AUTH {}", secret("ann"))), "+OK");
    assert_eq!(ann.say("SET a mine NX PX 600000"), "+OK");
    assert_eq!(ann.say("SET ab mine NX PX 600000"), "+OK");
    for line in ["SET b mine NX", "GET b", "DEL b", "COORDINATOR.WAIT b mine", "SETNX b mine"] {
        assert!(ann.say(line).starts_with("-NOPERM"), "{line}");
    }
    let status = run({
        let mut command = both.server.client(&["status", "--json", "a"]);
        let file = both.server.home.path("ann");
        fs::write(&file, secret("ann")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        command.env("COORDINATOR_CREDENTIAL_FILE", file);
        command
    });
    assert!(status.out.contains("ann redis 127.0.0.1:"), "{status:?}");

    let mut bob = both.connect();
    assert_eq!(bob.say(&format!("AUTH bob {}", secret("bob"))), "+OK");
    assert_eq!(bob.say("GET ab"), "mine");
    for line in ["DEL ab", "PEXPIRE ab 1", "SET ab yours", "SET ab yours XX PX 1", "GETDEL ab"] {
        assert!(bob.say(line).starts_with("-NOPERM"), "{line}");
    }
    for wrong in [format!("AUTH ann {}", secret("bob")), format!("AUTH {}", secret("mallory"))] {
        let mut other = both.connect();
        assert!(other.say(&wrong).starts_with("-WRONGPASS"));
        assert_eq!(other.0.read(&mut [0]).unwrap(), 0, "it is closed");
    }
    let mut long = both.connect();
    let key = "k".repeat(5_000);
    assert!(
        long.say(&format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}", key.len()))
            .contains("invalid bulk length")
    );
    assert_eq!(ann.say("DEL ab"), ":1");
}

#[test]
fn what_no_connection_keeps_is_shown_as_that_and_not_as_left_alone() {
    let both = Both::start(&["--ephemeral"]);
    let mut redis = both.connect();
    assert_eq!(redis.say("CLIENT SETNAME shop"), "+OK");
    assert_eq!(redis.say("SET order mine NX PX 600000"), "+OK");
    assert_eq!(redis.say("SET endless mine NX"), "+OK");
    let shown = |arguments: &[&str]| run(both.server.client(arguments));
    let order = shown(&["status", "order"]);
    assert!(order.out.contains("\"redis shop@127.0.0.1:"), "{order:?}");
    assert!(order.out.contains("at the latest, unless it is prolonged"), "{order:?}");
    let sessions = shown(&["status", "--sessions"]);
    assert!(sessions.out.contains("no end"), "{sessions:?}");
    let refused = shown(&["try", "order", "--", "true"]);
    assert!(refused.err.contains("at the latest, unless it is prolonged"), "{refused:?}");
    for told in [&order.out, &sessions.out, &refused.err] {
        assert!(!told.contains("disconnected"), "{told}");
    }
    let json: Value =
        serde_json::from_str(&shown(&["status", "--json", "--sessions"]).out).unwrap();
    let kept: Vec<_> = json["sessions"].as_array().unwrap().iter().collect();
    assert!(kept.iter().all(|it| it["connected"] == true && it["ttl_ms"] == 0), "{json}");
    assert!(kept.iter().any(|it| it["lease_left_ms"].is_null()), "{json}");
}

#[test]
fn a_peer_that_is_gone_frees_nothing_that_it_holds() {
    let both = Both::start(&["--ephemeral"]);
    let mut redis = both.connect();
    assert_eq!(redis.say("SET order mine NX PX 600000"), "+OK");
    drop(redis);
    eventually("the coordinator has seen that it is gone", || {
        let status = run(both.server.client(&["status", "--json"]));
        let status: Value = serde_json::from_str(&status.out).ok()?;
        (status["server"]["connections"] == 1).then_some(())
    });
    assert_eq!(both.connect().say("SET order yours NX"), "$-1");
}
