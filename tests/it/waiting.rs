//! What a waiter is told, and for how long it waits for a coordinator that does not answer.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Home, Running, Server, eventually, line_in, run, start};

/// `coordinator` with these words, which tells what it has to tell in a file.
fn telling(server: &Server, words: &[&str], file: &Path) -> Command {
    let mut command = server.home.command("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>\"$TOLD\"", env!("CARGO_BIN_EXE_coordinator")]);
    command.args(words).env("TOLD", file).env("COORDINATOR_SERVER", &server.address);
    command
}

fn holder(server: &Server) -> Running {
    let words = ["lock", "--as", "ci-7", "--ttl", "1m", "demo", "--", "sleep", "60"];
    let holder = start(server.client(&words));
    server.held("demo");
    holder
}

#[test]
fn a_waiter_without_a_terminal_says_in_a_line_whom_it_waits_for() {
    let server = Server::start();
    let holder = holder(&server);
    let told = server.home.path("told");
    let waiter = start(telling(&server, &["lock", "demo", "--", "true"], &told));
    server.waited_for_by("demo", 1);
    let quiet = start(server.client(&["lock", "-q", "demo", "--", "true"]));
    let line = line_in(&told);
    assert!(line.starts_with("waiting for \"demo\": held by ci-7 for "), "{line}");
    assert!(line.ends_with(", you are 1st in line"), "{line}");
    holder.signal(Signal::TERM);
    assert_eq!(waiter.end().code(), Some(0));
    assert_eq!(line_in(&told), line, "once");
    let quiet = quiet.end();
    assert_eq!((quiet.code(), quiet.err.as_str()), (Some(0), ""));
}

#[test]
fn a_waiter_says_that_the_coordinator_is_silent_and_that_it_is_back() {
    let server = Server::start();
    let holder = holder(&server);
    let told = server.home.path("told");
    let words = ["lock", "--ttl", "4s", "demo", "--", "echo", "mine"];
    let waiter = start(telling(&server, &words, &told));
    let told_after = |text: &str| {
        let what = format!("{text:?} is told");
        eventually(&what, || fs::read_to_string(&told).ok()?.contains(text).then_some(()));
    };
    told_after("held by ci-7");
    server.process.signal(Signal::STOP);
    told_after(&format!("waiting for \"demo\": no answer from {} for ", server.address));
    server.process.signal(Signal::CONT);
    told_after(&format!("{} answers again\n", server.address));
    holder.signal(Signal::TERM);
    assert_eq!(waiter.end().out, "mine\n");
    assert_eq!(fs::read_to_string(&told).unwrap().matches("no answer").count(), 1);
}

/// Somebody who takes connections and says nothing.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn who_waits_for_so_long_waits_no_longer_for_the_connection() {
    let home = Home::new();
    let (_listener, server) = silent();
    let command = |words: &[&str]| {
        let mut command = home.coordinator(words);
        command.args(["--server", &server, "demo", "--", "true"]);
        command
    };
    // This would outlast the test.
    let done = run(command(&["lock", "-w", "0.5", "--connect-timeout", "5m"]));
    assert_eq!(done.code(), Some(69));
    let told = format!(
        "error: no coordinator answers at {server} (connected, but not welcomed within 1s)\n  \
        hint: read its log: it may be unable to save its state, or stopped"
    );
    assert!(done.err.starts_with(&told), "{}", done.err);
    for words in [&["lock", "-n"][..], &["try"], &["lock", "-w", "0"]] {
        let since = Instant::now();
        assert_eq!(run(command(words)).code(), Some(69));
        assert!(since.elapsed() < Duration::from_secs(5), "as long as for any connection");
    }
    assert_eq!(run(command(&["try", "--connect-timeout", "0.1"])).code(), Some(69));
}

#[test]
fn a_coordinator_that_falls_silent_is_not_waited_for_longer_than_for_the_lock() {
    let server = Server::start();
    let _holder = holder(&server);
    // Long enough for it to be seen waiting.
    let words = ["lock", "--ttl", "1m", "-w", "5", "demo", "--", "true"];
    let waiter = start(server.client(&words));
    server.waited_for_by("demo", 1);
    server.process.signal(Signal::STOP);
    let done = waiter.end();
    server.process.signal(Signal::CONT);
    assert_eq!(done.code(), Some(69), "{}", done.err);
    assert!(done.err.contains("error: no answer from the coordinator at "), "{}", done.err);
}

#[test]
fn a_measurement_of_nobody_ends() {
    let home = Home::new();
    let (_listener, server) = silent();
    for flags in [
        &["--pairs", "1"][..],
        &["--duration", "1s"],
        &["--pairs", "1", "--connection-per-iteration"],
    ] {
        let mut command = home.coordinator(&["bench", "--connect-timeout", "0.2", "--quiet"]);
        command.args(["--server", &server]).args(flags);
        let done = run(command);
        assert_eq!(done.code(), Some(69), "{flags:?}: {}", done.err);
        assert!(done.err.starts_with("error: no coordinator answers at "), "{}", done.err);
    }
}
