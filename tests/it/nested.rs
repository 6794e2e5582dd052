//! A lock asked for by the command of a lock.

use std::process::Command;

use crate::support::{Server, run};

const BINARY: &str = env!("CARGO_BIN_EXE_coordinator");

/// `coordinator lock` with these words, and a script that finds the program as `$0`.
fn outer(server: &Server, words: &[&str], script: &str) -> Command {
    let mut command = server.client(&["lock"]);
    command.args(words).args(["--", "sh", "-c", script, BINARY]);
    command
}

#[test]
fn who_would_wait_for_itself_is_told_so() {
    let server = Server::start();
    for inner in
        ["lock demo", "try demo", "lock -w 1h demo", "lock other --and demo", "lock -s demo"]
    {
        let done = run(outer(&server, &["demo"], &format!("\"$0\" {inner} -- echo inner")));
        assert_eq!((done.code(), done.out.as_str()), (Some(2), ""), "{inner}: {}", done.err);
        let told = "error: \"demo\" is held by the command that runs this (token ";
        assert!(done.err.starts_with(told), "{}", done.err);
        assert!(done.err.contains("`coordinator lock --reentrant demo -- …`"), "{}", done.err);
    }
}

#[test]
fn a_lock_further_above_is_found_too() {
    let server = Server::start();
    let script = "\"$0\" lock between --and more -- \"$0\" lock demo -- true";
    let done = run(outer(&server, &["demo"], script));
    assert_eq!(done.code(), Some(2), "{}", done.err);
    assert!(done.err.contains("\"demo\" is held by the command"), "{}", done.err);
}

#[test]
fn a_command_may_run_under_the_grant_that_is_there() {
    let server = Server::start();
    let script = "echo $COORDINATOR_FENCING_TOKEN $COORDINATOR_SESSION; \
                  \"$0\" lock between -- \"$0\" lock --reentrant demo -- \
                  sh -c 'echo $COORDINATOR_FENCING_TOKEN $COORDINATOR_SESSION; \
                  echo $COORDINATOR_LOCK; exit 5'";
    let done = run(outer(&server, &["demo"], script));
    assert_eq!(done.code(), Some(5), "{}", done.err);
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[2], "demo");
    // Not what is held above, and not in this mode.
    for (above, inner) in [(&["demo"][..], "demo --and other"), (&["-s", "demo"], "-x demo")] {
        let script = format!("\"$0\" lock --reentrant {inner} -- true");
        let done = run(outer(&server, above, &script));
        assert_eq!(done.code(), Some(2), "{}", done.err);
        assert!(done.err.contains("--reentrant needs all locks to be held by an outer command"));
    }
    // Where nothing is held above it is a lock like any other.
    let done = run(server.client(&["lock", "--reentrant", "demo", "-c", "echo $COORDINATOR_HELD"]));
    assert!(done.out.ends_with(" demo\n"), "{}", done.out);
}

#[test]
fn what_can_be_held_twice_may_be() {
    let server = Server::start();
    let shared = run(outer(&server, &["-s", "demo"], "\"$0\" lock -s demo -- true"));
    assert_eq!(shared.code(), Some(0), "{}", shared.err);
    let permits = ["--permits", "2", "pool"];
    let script = "\"$0\" lock --permits 2 pool -- true";
    assert_eq!(run(outer(&server, &permits, script)).code(), Some(0));
    let script = "\"$0\" lock --permits 2 --take 2 pool -- true";
    assert_eq!(run(outer(&server, &permits, script)).code(), Some(2));
}

#[test]
fn whoever_outlives_the_lock_above_takes_it_like_others() {
    let server = Server::start();
    let held = run(outer(&server, &["demo"], "echo $COORDINATOR_HELD")).out;
    assert!(held.contains(" demo"), "{held}");
    let mut daemon = server.client(&["lock", "demo", "--", "true"]);
    daemon.env("COORDINATOR_HELD", held);
    assert_eq!(run(daemon).code(), Some(0));
}
