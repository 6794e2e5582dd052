//! Every example, against a live server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{Done, Home, Server, run};

/// Where the examples are; built if only this test was.
fn built() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/deps/it-… is this program.
        let program = std::env::current_exe().unwrap();
        let profile = program.parent().and_then(|deps| deps.parent()).unwrap().to_owned();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--target-dir"]);
        cargo.arg(profile.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success());
        profile.join("examples")
    })
}

fn example(home: &Home, name: &str) -> Command {
    home.command(built().join(name))
}

fn against(server: &Server, name: &str) -> Done {
    let mut command = example(&server.home, name);
    command.env("COORDINATOR_SERVER", &server.address);
    let done = run(command);
    assert_eq!(done.code(), Some(0), "{name}: {done:?}");
    done
}

#[test]
fn hello_lock_shows_that_one_holds_and_the_other_waits() {
    let done = against(&Server::start(), "hello_lock");
    assert!(done.out.contains("told: busy"), "{}", done.out);
    assert!(done.out.ends_with("a greater token: true\n"), "{}", done.out);
}

#[test]
fn fenced_write_refuses_the_old_holder() {
    let done = against(&Server::start(), "fenced_write");
    assert!(done.out.contains("is stale"), "{}", done.out);
    assert!(done.out.ends_with("\"by the quick one\"\n"), "{}", done.out);
}

#[test]
fn leader_hands_over_and_is_seen_from_outside() {
    let done = against(&Server::start(), "leader");
    for leads in ["ann leads, term ", "bob leads, term "] {
        // Told by itself, and by who looks on.
        assert_eq!(done.out.matches(leads).count(), 2, "{}", done.out);
    }
    assert!(done.out.ends_with("seen from outside: nobody leads\n"), "{}", done.out);
}

/// Runs an example that starts its own coordinator, with these flags.
fn alone(name: &str, flags: &[&str]) -> Done {
    let mut command = example(&Home::new(), name);
    command.args(flags);
    run(command)
}

#[test]
fn bank_transfer_preserves_the_sum_under_the_locks_and_loses_it_without() {
    let done = alone("bank_transfer", &["--transfers", "40"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.out.contains(", wrong 0\n") && done.out.ends_with("\nsum is 10000\n"), "{done:?}");
    let done = alone("bank_transfer", &["--no-lock", "--transfers", "1000"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(!done.out.ends_with("\nsum is 10000\n") || !done.out.contains(", wrong 0\n"));
    let server = Server::start();
    let flags = ["--transfers", "40", "--accounts", "2", "--server", &server.address];
    let done = alone("bank_transfer", &flags);
    assert!(done.code() == Some(0) && done.out.ends_with("\nsum is 2000\n"), "{done:?}");
}

#[test]
fn philosophers_are_in_a_deadlock_only_if_they_take_fork_after_fork() {
    for philosophers in ["5", "50"] {
        let flags = ["--meals", "3", "--philosophers", philosophers];
        let done = alone("philosophers", &flags);
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(done.out.ends_with(", deadlocks told: 0\n"), "{}", done.out);
        let done = alone("philosophers", &[&flags[..], &["--one-by-one"]].concat());
        assert_eq!(done.code(), Some(0), "{done:?}");
        assert!(!done.out.ends_with(", deadlocks told: 0\n"), "{}", done.out);
    }
}

#[test]
fn blocking_takes_turns() {
    let done = against(&Server::start(), "blocking");
    assert!(done.out.ends_with("3 turns, tokens rising: true\n"), "{}", done.out);
}

#[test]
fn without_a_server_an_example_says_so() {
    let home = Home::new();
    let mut command = example(&home, "hello_lock");
    command.env("COORDINATOR_SERVER", "127.0.0.1:1");
    assert_eq!(run(command).code(), Some(1));
}

fn contention(home: &Home, flags: &[&str]) -> Done {
    let mut command = example(home, "contention");
    command.args(flags);
    run(command)
}

#[test]
fn contention_loses_nothing_under_the_lock() {
    let done = contention(&Home::new(), &["--iterations", "50"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.out.contains("\noverlaps of critical sections: 0\n"), "{}", done.out);
    assert!(done.out.contains("\ntokens strictly rising: yes\n"), "{}", done.out);
    assert!(done.out.ends_with("\nsum is 250\n"), "{}", done.out);
    for line in [
        "Iteration = 49",
        "Sent request to server",
        "Received grant from server",
        "sum is 249",
        "Sent release to server - closing socket",
    ] {
        assert!(done.out.lines().any(|it| it == line), "{line}");
    }
}

#[test]
fn contention_uses_a_server_that_is_there() {
    let server = Server::start();
    let shared = server.home.path("shared").to_str().unwrap().to_owned();
    let flags = ["--quiet", "--clients", "10", "--iterations", "20", "--server", &server.address];
    let kept = ["--keep-connection", "--shared-file", &shared];
    let done = contention(&server.home, &[&flags[..], &kept[..]].concat());
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.out.ends_with("\nsum is 200\n"), "{}", done.out);
    assert_eq!(std::fs::read_to_string(&shared).unwrap().trim(), "200");
    let status = run(server.client(&["status", "--json"]));
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["server"]["grants"], 200);
}

#[test]
fn contention_loses_increments_without_the_lock() {
    let done = contention(&Home::new(), &["--quiet", "--no-lock", "--iterations", "200"]);
    assert_eq!(done.code(), Some(0), "{done:?}");
    assert!(done.out.contains(" of 1000 increments lost"), "{}", done.out);
}
