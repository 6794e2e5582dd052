//! What is nobody else's for a while though nobody holds it: a job that was quick has had its turn.

use std::fs;

use rustix::process::Signal;

use crate::support::{Server, eventually, run, start};

fn pause(server: &Server, name: &str) -> serde_json::Value {
    server.lock(name).map_or(serde_json::Value::Null, |lock| lock["pauses"][0].clone())
}

#[test]
fn a_quick_holder_leaves_its_lock_to_nobody_until_its_time_is_over() {
    let server = Server::start();
    let first = ["lock", "--as", "ci-7", "--at-least", "1h", "nightly", "--", "true"];
    assert_eq!(run(server.client(&first)).code(), Some(0));

    let busy = run(server.client(&["lock", "-n", "nightly", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    assert!(busy.err.contains("held by  nobody, but kept for "), "{}", busy.err);
    assert!(busy.err.contains(" more: at least 1h from its grant "), "{}", busy.err);
    assert!(busy.err.contains("\n  before   ci-7"), "{}", busy.err);
    let status = run(server.client(&["status", "nightly"]));
    assert_eq!(status.code(), Some(1), "nobody holds it");
    assert!(status.out.contains("nobody, kept for "), "{}", status.out);
    let kept = pause(&server, "nightly");
    assert_eq!((&kept["after"], &kept["length_ms"]), (&"grant".into(), &3_600_000.into()));

    let token = kept["token"].to_string();
    let freed = run(server.client(&["release", "nightly", "--force", "--token", &token]));
    assert_eq!(freed.code(), Some(0), "{}", freed.err);
    assert_eq!(run(server.client(&["lock", "-n", "nightly", "--", "true"])).code(), Some(0));
}

#[test]
fn a_job_runs_once_in_a_period_whatever_comes_of_it() {
    let server = Server::start();
    let job = ["lock", "--once-per", "1h", "nightly", "-c", "echo ran; exit 3"];
    let first = run(server.client(&job));
    assert_eq!((first.code(), &first.out[..]), (Some(3), "ran\n"), "{}", first.err);
    let second = run(server.client(&job));
    assert_eq!((second.code(), &second.out[..], &second.err[..]), (Some(0), "", ""));
    // A tick that comes a little early is not to be left out.
    assert_eq!(pause(&server, "nightly")["length_ms"], 3_240_000);
}

#[test]
fn who_comes_while_the_job_runs_does_nothing_either() {
    let server = Server::start();
    let holder = start(server.client(&["lock", "--once-per", "1h", "nightly", "sleep", "60"]));
    server.held("nightly");
    let other = run(server.client(&["lock", "--once-per", "1h", "nightly", "echo", "ran"]));
    assert_eq!((other.code(), &other.out[..], &other.err[..]), (Some(0), "", ""));
    holder.signal(Signal::TERM);
    assert_eq!(holder.end().code(), Some(143));
    assert_eq!(pause(&server, "nightly")["after"], "grant");
}

#[test]
fn a_job_that_could_not_be_started_has_not_had_its_turn() {
    let server = Server::start();
    let job = ["lock", "--once-per", "1h", "nightly", "/no/such/job"];
    assert_eq!(run(server.client(&job)).code(), Some(127));
    let other = run(server.client(&["lock", "--once-per", "1h", "nightly", "echo", "ran"]));
    assert_eq!((other.code(), &other.out[..]), (Some(0), "ran\n"), "{}", other.err);
}

#[test]
fn what_is_kept_survives_its_holder() {
    let server = Server::start();
    let words = ["lock", "--linger", "0", "--at-least", "1h", "nightly", "sleep", "60"];
    let holder = start(server.client(&words));
    server.held("nightly");
    holder.signal(Signal::KILL);
    eventually("it is only kept", || {
        let lock = server.lock("nightly")?;
        (lock["holder_count"] == 0 && lock["pauses"][0]["after"] == "grant").then_some(())
    });
}

#[test]
fn an_orderly_restart_forgets_nothing_of_what_is_kept() {
    let server = Server::start_durable();
    assert_eq!(
        run(server.client(&["lock", "--once-per", "1h", "nightly", "true"])).code(),
        Some(0)
    );
    let before = pause(&server, "nightly");
    let server = server.stop_and_restart();
    let after = pause(&server, "nightly");
    assert_eq!((&after["token"], &after["length_ms"]), (&before["token"], &before["length_ms"]));
    assert!(after["left_ms"].as_u64() <= before["left_ms"].as_u64());
}

#[test]
fn after_a_crash_a_holder_that_is_there_keeps_the_rest_and_others_are_waited_out() {
    let server = Server::start_durable_without_journal();
    let go = server.home.path("go");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.05; done", go.display());
    let ttl = ["lock", "--ttl", "2s", "--at-least"];
    let holder = start(server.client(&[&ttl[..], &["1h", "there", "-c", &script]].concat()));
    let token = server.held("there");
    let gone = run(server.client(&[&ttl[..], &["1h", "gone", "true"]].concat()));
    assert_eq!(gone.code(), Some(0));

    let server = server.crash_and_restart();
    // Who does not wait cannot be told yet whether its time has come; it asks until it can.
    let job = ["lock", "--ttl", "2s", "--once-per", "1h", "gone", "echo", "ran"];
    let other = run(server.client(&job));
    assert_eq!((other.code(), &other.out[..]), (Some(0), "ran\n"), "{}", other.err);

    assert_eq!(server.held("there"), token);
    fs::write(go, "").unwrap();
    assert_eq!(holder.end().code(), Some(0));
    let kept = pause(&server, "there");
    assert_eq!((&kept["after"], &kept["token"]), (&"grant".into(), &token.into()));
    assert!(kept["length_ms"].as_u64().is_some_and(|left| left < 3_600_000), "{kept}");
}

#[test]
fn what_cannot_be_kept_is_a_mistake_that_is_named() {
    let server = Server::start();
    let weeks = run(server.client(&["lock", "--at-least", "8d", "nightly", "true"]));
    assert_eq!(weeks.code(), Some(2));
    assert!(weeks.err.contains("--at-least") && weeks.err.contains("7d at most"), "{}", weeks.err);
    let nothing = run(server.client(&["lock", "--once-per", "1h", "nightly"]));
    assert_eq!(nothing.code(), Some(2));
    assert!(nothing.err.contains("--once-per needs a command"), "{}", nothing.err);
    assert_eq!(run(server.client(&["lock", "--once-per", "0", "nightly", "true"])).code(), Some(2));
}
