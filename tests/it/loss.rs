//! What becomes of a command whose lock is lost.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Server, eventually, line_in, lives, run, start, start_logging_to};

fn revoke(server: &Server, name: &str, token: u64) -> Option<i32> {
    run(server.client(&["release", name, "--force", "--token", &token.to_string()])).code()
}

#[test]
fn a_command_whose_lock_was_taken_away_is_stopped() {
    let server = Server::start();
    let pid = server.home.path("grandchild");
    let script = format!("sleep 60 & echo $! > {}; wait", pid.display());
    let command = start(server.client(&["lock", "demo", "-c", &script]));
    let grandchild = line_in(&pid);
    let token = server.held("demo");
    assert_eq!(revoke(&server, "demo", token + 1), Some(1), "another token hits nobody");
    assert_eq!(revoke(&server, "demo", token), Some(0));
    let done = command.end();
    assert_eq!(done.code(), Some(70));
    assert!(done.err.starts_with("error: lost \"demo\" after "), "{}", done.err);
    assert!(done.err.contains(": an operator revoked it; stopped `sh -c "), "{}", done.err);
    assert!(done.err.contains(&format!("  hint: its token was {token}: ")), "{}", done.err);
    assert!(!lives(&grandchild));
}

#[test]
fn a_command_that_ignores_sigterm_is_killed() {
    let server = Server::start();
    let ready = server.home.path("ready");
    let script =
        format!("trap '' TERM; echo yes > {}; while :; do sleep 0.01; done", ready.display());
    let command = start(server.client(&["lock", "--kill-after", "0.2", "demo", "-c", &script]));
    line_in(&ready);
    assert_eq!(revoke(&server, "demo", server.held("demo")), Some(0));
    assert_eq!(command.end().code(), Some(70));
}

#[test]
fn a_grandchild_that_ignores_sigterm_is_killed_although_its_parent_went() {
    let server = Server::start();
    let pid = server.home.path("grandchild");
    let inner =
        format!("trap \"\" TERM; echo $$ > {}; while :; do sleep 0.01; done", pid.display());
    let script = format!("sh -c '{inner}' & wait");
    let command = start(server.client(&["lock", "--kill-after", "0.3", "demo", "-c", &script]));
    let grandchild = line_in(&pid);
    assert_eq!(revoke(&server, "demo", server.held("demo")), Some(0));
    assert_eq!(command.end().code(), Some(70));
    eventually("it has gone", || (!lives(&grandchild)).then_some(()));
}

#[test]
fn a_command_may_be_allowed_to_go_on() {
    let server = Server::start();
    let go_on = server.home.path("go-on");
    let script = format!("while ! test -e {}; do sleep 0.01; done; exit 5", go_on.display());
    let command = start(server.client(&["lock", "--on-lost", "warn", "demo", "-c", &script]));
    assert_eq!(revoke(&server, "demo", server.held("demo")), Some(0));
    eventually("it is lost", || server.lock("demo").is_none().then_some(()));
    fs::write(&go_on, "").unwrap();
    let done = command.end();
    assert_eq!(done.code(), Some(5));
    assert!(done.err.contains("warning: "), "{}", done.err);
}

#[test]
fn a_server_that_dies_takes_its_locks_with_it() {
    let server = Server::start();
    let command = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    let holding = {
        let mut command = server.client(&["lock", "other"]);
        let (input, kept_open) = std::io::pipe().unwrap();
        command.stdin(input);
        (start(command), kept_open)
    };
    server.held("demo");
    server.held("other");
    server.process.signal(Signal::KILL);
    let done = command.end();
    assert_eq!(done.code(), Some(70));
    assert!(done.err.contains("stopped `sleep 60`"), "{}", done.err);
    assert_eq!(holding.0.end().code(), Some(70));
}

#[test]
fn a_command_is_dead_before_a_silent_server_gives_its_lock_away() {
    let server = Server::start();
    let pid = server.home.path("command");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done", pid.display());
    let words = ["lock", "--ttl", "2s", "demo", "-c", &script];
    let command = start(server.client(&words));
    let pid = line_in(&pid);
    // Whatever keep-alive was answered last was sent before this moment.
    let silent_since = Instant::now();
    server.process.signal(Signal::STOP);
    eventually("the command is dead", || (!lives(&pid)).then_some(()));
    let lived = silent_since.elapsed();
    server.process.signal(Signal::CONT);
    assert!(lived < Duration::from_secs(2), "it lived for {lived:?}, longer than the lease");
    let done = command.end();
    assert_eq!(done.code(), Some(70));
    assert!(done.err.contains(": no answer from the coordinator for 1s; stopped "), "{}", done.err);
}

#[test]
fn whoever_watches_is_told_of_a_loss_while_the_command_takes_its_time() {
    let server = Server::start();
    let (ready, go_on) = (server.home.path("ready"), server.home.path("go-on"));
    let script = format!(
        "trap '' TERM; echo yes > {}; while ! test -e {}; do sleep 0.01; done",
        ready.display(),
        go_on.display()
    );
    let words = ["lock", "--ttl", "1m", "--kill-after", "10", "demo", "-c", &script];
    let log = server.home.path("log");
    let output = fs::File::create(&log).unwrap();
    let command = start_logging_to(output.into(), server.client(&words));
    line_in(&ready);
    assert_eq!(revoke(&server, "demo", server.held("demo")), Some(0));
    let told = line_in(&log);
    fs::write(&go_on, "").unwrap();
    assert_eq!(command.end().code(), Some(70));
    let written = fs::read_to_string(&log).unwrap();
    let ended = &written[told.len()..];
    assert!(told.starts_with("warning: lost \"demo\": an operator revoked it; `sh -c "), "{told}");
    assert!(told.ends_with("is being stopped"), "{told}");
    assert!(ended.contains("; stopped `sh -c "), "{ended}");
}
