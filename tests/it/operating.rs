//! What an operator sees and does while the coordinator runs: its log, its signals.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::iter;
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use coordinator::wire::{ClientMessage, ServerMessage};
use rustix::process::Signal;

use crate::raw::{Raw, hello, request};
use crate::support::{DEADLINE, Home, Server, eventually, run, start};
use coordinator::types::RequestId;

/// Requests that make more lines than the log and a pipe have room for.
const REQUESTS: u64 = 1000;

/// A log that is read while it is written.
struct Log(mpsc::Receiver<String>);

impl Log {
    fn of_a_server(flags: &[&str]) -> (Server, Self) {
        let (reader, writer) = pipe().unwrap();
        let server = Server::start_logging_to(Stdio::from(writer), flags);
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            // A test that is over reads no more, and the coordinator must not wait for it.
            BufReader::new(reader).lines().map_while(Result::ok).for_each(|line| {
                let _ = tell.send(line);
            });
        });
        (server, Self(lines))
    }

    /// Waits for a line with `part` in it.
    fn until(&self, part: &str) -> String {
        let missing = |_| panic!("the log does not say {part:?}");
        let next = || self.0.recv_timeout(DEADLINE).unwrap_or_else(missing);
        iter::repeat_with(next).find(|line| line.contains(part)).unwrap()
    }
}

/// A coordinator that logs everything into a pipe.
fn logging_into_a_pipe() -> (Server, PipeReader) {
    let (reader, writer) = pipe().unwrap();
    (Server::start_logging_to(Stdio::from(writer), &["--log", "debug"]), reader)
}

/// Has requests granted and released that each make some long lines.
fn chatter(server: &Server) {
    let mut raw = Raw::connect(server);
    raw.say(&[hello()]);
    assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
    let name = "n".repeat(255);
    for id in 1..=REQUESTS {
        raw.say(&[request(id, &name)]);
        let ServerMessage::Grant { token, .. } = raw.hear() else { panic!() };
        raw.say(&[ClientMessage::Release { request: RequestId::new(id), token }]);
        assert!(matches!(raw.hear(), ServerMessage::Released { .. }));
    }
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_service_nor_its_end() {
    let (server, log) = logging_into_a_pipe();
    chatter(&server);
    assert_eq!(run(server.client(&["lock", "demo", "--", "true"])).code(), Some(0));
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().code(), Some(0));
    drop(log);
}

#[test]
fn a_log_that_is_read_again_says_how_many_lines_were_dropped() {
    let (server, log) = logging_into_a_pipe();
    chatter(&server);
    let mut lines = BufReader::new(log).lines().map(Result::unwrap);
    let said = lines.find(|line| line.contains(" dropped: the log was not read in time"));
    let said = said.expect("the log ended");
    assert!(said.contains(" WARN ") && said.contains(" lines dropped"), "{said}");
    server.process.signal(Signal::TERM);
    let last = lines.last().unwrap();
    assert!(last.ends_with("INFO  stopped"), "{last}");
    assert_eq!(server.process.end().code(), Some(0));
}

#[test]
fn why_it_cannot_serve_is_the_last_line_of_its_log() {
    let home = Home::new();
    let done = run(home.coordinator(&["--listen", "127.0.0.1:0", "--data-dir", "/dev/null/x"]));
    assert_eq!(done.code(), Some(2));
    let told: Vec<&str> = done.err.lines().collect();
    assert!(told[0].contains("INFO  coordinator "), "{}", done.err);
    assert!(told[1].starts_with("error: cannot use the data directory "), "{}", done.err);
    assert!(told[2].starts_with("  hint: "), "{}", done.err);
}

#[test]
fn a_peer_that_talks_nonsense_again_and_again_fills_no_log() {
    let server = Server::start();
    for _ in 0..200 {
        let mut peer = TcpStream::connect(&server.address).unwrap();
        peer.write_all(&[255; 4]).unwrap();
    }
    eventually("all are counted", || {
        let status = run(server.client(&["status", "--json"])).out;
        status.contains("\"protocol_errors\": 200").then_some(())
    });
    server.process.signal(Signal::TERM);
    let log = server.process.end().err;
    assert_eq!(log.matches("WARN  protocol error ").count(), 10, "{log}");
    assert!(log.contains(" 190 more protocol errors like these from 127.0.0.1 in "), "{log}");
}

/// Everything that a server with these flags has logged when it has served `clients` and stopped.
fn log_of(flags: &[&str], clients: impl FnOnce(&Server)) -> String {
    let flags: Vec<&str> = ["--ephemeral"].iter().chain(flags).copied().collect();
    let server = Server::start_with(Home::new(), &flags);
    clients(&server);
    server.process.signal(Signal::TERM);
    let Server { process, home: _home, .. } = server;
    process.end().err
}

/// Takes a lock and gives it back so many times, in one session.
fn work(server: &Server, lock: &str, times: u64) -> Raw {
    let mut raw = Raw::connect(server);
    raw.say(&[hello()]);
    assert!(matches!(raw.hear(), ServerMessage::Welcome { .. }));
    for id in 1..=times {
        raw.say(&[request(id, lock)]);
        let ServerMessage::Grant { token, .. } = raw.hear() else { panic!() };
        raw.say(&[ClientMessage::Release { request: RequestId::new(id), token }]);
        assert!(matches!(raw.hear(), ServerMessage::Released { .. }));
    }
    raw
}

#[test]
fn who_had_a_lock_and_for_how_long_is_in_the_log_that_is_kept_by_default() {
    let log = log_of(&[], |server| {
        let as_ann = ["lock", "deploy", "--and", "db", "--as", "ann@ci", "true"];
        assert_eq!(run(server.client(&as_ann)).code(), Some(0));
    });
    let line = |what: &str| log.lines().find(|line| line.contains(what)).unwrap_or_default();
    let (granted, released) = (line("INFO  granted "), line("INFO  released "));
    for line in [granted, released] {
        let at = line.split(' ').next().unwrap_or_default();
        assert!(humantime::parse_rfc3339(at).is_ok(), "{log}");
        for part in [
            "lock=\"deploy\",\"db\"",
            "token=",
            "identity=\"ann@ci (",
            "peer=127.0.0.1:",
            "session=",
        ] {
            assert!(line.contains(part), "{part}: {log}");
        }
    }
    assert!(released.contains(" held_ms="), "{log}");
    assert!(!log.contains("session opened") && !log.contains("session ended"), "{log}");
}

#[test]
fn a_worker_that_is_granted_again_and_again_gets_ten_lines_and_a_sum_and_hides_nobody() {
    let log = log_of(&[], |server| {
        let worker = work(server, "queue-7", 10 + 23);
        assert_eq!(run(server.client(&["lock", "deploy", "true"])).code(), Some(0));
        drop(worker);
    });
    for what in ["INFO  granted lock=\"queue-7\"", "INFO  released lock=\"queue-7\""] {
        assert_eq!(log.matches(what).count(), 10, "{log}");
    }
    assert_eq!(log.matches("granted lock=\"deploy\"").count(), 1, "{log}");
    assert!(log.contains("INFO  granted 23 more times in the last "), "{log}");
    let all = log_of(&["--log", "debug"], |server| drop(work(server, "queue-7", 33)));
    assert_eq!(all.matches("INFO  granted lock=\"queue-7\"").count(), 33);
    let none = log_of(&["--log", "warn"], |server| drop(work(server, "queue-7", 33)));
    assert_eq!(none, "");
}

#[test]
fn the_log_is_objects_of_json_where_that_is_asked_for() {
    let log = log_of(&["--log-format", "json"], |server| {
        assert_eq!(run(server.client(&["lock", "deploy", "--as", "ann", "true"])).code(), Some(0));
    });
    let objects = log.lines().map(|line| {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|why| panic!("{why}: {log}"))
    });
    let objects: Vec<_> = objects.collect();
    for object in &objects {
        for key in ["ts", "level", "target", "msg"] {
            assert!(object[key].is_string(), "{key}: {object}");
        }
    }
    let of =
        |msg: &str| objects.iter().find(|it| it["msg"] == msg).unwrap_or_else(|| panic!("{log}"));
    let granted = of("granted");
    assert_eq!((&granted["lock"]), "deploy");
    assert!(granted["identity"].as_str().unwrap().starts_with("ann"), "{granted}");
    assert!(granted["token"].is_u64() && granted["session"].is_string(), "{granted}");
    assert_eq!(of("released")["token"], granted["token"]);
    assert_eq!(of("stopped")["level"], "info");
}

#[test]
fn sighup_changes_the_log_filter_and_a_broken_file_changes_nothing() {
    let home = Home::new();
    let file = home.path("c.toml");
    let (flag, write) = (file.to_str().unwrap(), |text| fs::write(&file, text).unwrap());
    write("log = \"warn\"\n");
    let (server, log) = Log::of_a_server(&["--config", flag]);
    let lock = |name| assert_eq!(run(server.client(&["lock", name, "true"])).code(), Some(0));
    lock("before");
    write("log = \"debug\"\nsessions-max = 7\n");
    server.process.signal(Signal::HUP);
    let changed = format!("the log filter is \"debug\" now ({flag}:1), it was \"warn\"");
    assert!(!log.until(&changed).contains("before"));
    log.until("SIGHUP: changed, but effective only after a restart: sessions-max");
    lock("after");
    log.until("request received");
    write("log = \"loud\"\n");
    server.process.signal(Signal::HUP);
    let told = log.until("ERROR SIGHUP: nothing changed, for a mistake in the settings: ");
    assert!(told.contains("c.toml:1: log is \"loud\""), "{told}");
    lock("last");
    log.until("request received");
    fs::remove_file(&file).unwrap();
    server.process.signal(Signal::HUP);
    log.until("ERROR SIGHUP: nothing changed, for a mistake in the settings: cannot read the configuration");
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().code(), Some(0));
}

#[test]
fn sigusr1_tells_the_state_whatever_the_filter_and_sigusr2_does_nothing() {
    let (server, log) = Log::of_a_server(&["--log", "off"]);
    let holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    let token = server.held("demo");
    server.process.signal(Signal::USR2);
    server.process.signal(Signal::USR1);
    log.until("INFO  log: dropped=0");
    let told = log.until("INFO  state sessions=1 connections=");
    assert!(told.contains(" locks=1 held=1 waiting=0 grants=1 expired=0"), "{told}");
    let told = log.until("INFO  state version=");
    assert!(told.contains(&format!(" last_token={token} ")), "{told}");
    assert!(told.contains(" grace_ms=0 unsaved_ms=0"), "{told}");
    log.until("INFO  counters protocol_errors=0 slow_readers=0 handshake_timeouts=0");
    server.held("demo");
    drop(holder);
}

#[test]
fn the_log_says_who_took_which_lock_from_whom() {
    let (server, log) = Log::of_a_server(&[]);
    let holder = start(server.client(&["lock", "demo", "--as", "ci-7", "--", "sleep", "60"]));
    let token = server.held("demo").to_string();
    let session =
        server.lock("demo").unwrap()["holders"][0]["session"].as_str().unwrap().to_owned();
    let release = |token| run(server.client(&["release", "demo", "--force", "--token", token]));
    assert_eq!(release("5").code(), Some(1));
    for word in ["received", "refused"] {
        let told = log.until(&format!("INFO  revoke {word} connection="));
        assert!(told.contains(" session=none identity=\""), "{told}");
        assert!(told.contains(" peer=127.0.0.1:") && told.contains("demo"), "{told}");
    }
    assert_eq!(release(&token).code(), Some(0));
    let told = log.until("INFO  revoked connection=");
    assert!(told.contains(" session=none identity=\""), "{told}");
    assert!(told.contains(" peer=127.0.0.1:"), "{told}");
    assert!(told.contains(&format!(" lock=\"demo\" token={token} ")), "{told}");
    let from = format!(" holder_session={session} holder_identity=\"ci-7 (");
    assert!(told.contains(&from), "{told}");

    let mut raw = Raw::connect(&server);
    raw.say(&[hello(), request(1, "mine")]);
    let ServerMessage::Welcome { session, .. } = raw.hear() else { panic!() };
    let ServerMessage::Grant { token, .. } = raw.hear() else { panic!() };
    raw.say(&[ClientMessage::Revoke { query_id: 1, name: "mine".into(), token }]);
    let told = log.until("INFO  revoked connection=");
    assert!(told.contains(&format!(" session={session} identity=\"raw\" peer=")), "{told}");
    assert_eq!(holder.end().code(), Some(70));
}
