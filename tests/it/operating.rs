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
        raw.say(&[ClientMessage::Release { request: id, token }]);
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
    log.until("SIGHUP: changed, but only after a restart: sessions-max");
    lock("after");
    log.until("grant sent");
    write("log = \"loud\"\n");
    server.process.signal(Signal::HUP);
    let told = log.until("ERROR SIGHUP: settings stay as they are: ");
    assert!(told.contains("c.toml:1: log is \"loud\""), "{told}");
    lock("last");
    log.until("grant sent");
    fs::remove_file(&file).unwrap();
    server.process.signal(Signal::HUP);
    log.until("ERROR SIGHUP: settings stay as they are: cannot read the configuration");
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
    let told = log.until("INFO  state: sessions=1 connections=");
    assert!(told.contains(" locks=1 held=1 waiting=0 grants=1 expired=0"), "{told}");
    let told = log.until("INFO  state: version=");
    assert!(told.contains(&format!(" last_token={token} ")), "{told}");
    assert!(told.contains(" grace_ms=0 unsaved_ms=0"), "{told}");
    log.until("INFO  counters: protocol_errors=0 slow_readers=0 handshake_timeouts=0");
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
        assert!(told.contains(" peer=127.0.0.1:") && told.contains("\"demo\""), "{told}");
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
    assert!(told.contains(&format!(" session={session:032x} identity=\"raw\" peer=")), "{told}");
    assert_eq!(holder.end().code(), Some(70));
}
