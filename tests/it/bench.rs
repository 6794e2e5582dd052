//! `coordinator bench` against a real coordinator.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Done, Home, Running, Server, eventually, run, start};

/// What a measurement says to programs.
fn measured(done: &Done) -> Value {
    assert_eq!(done.code(), Some(0), "{done:?}");
    serde_json::from_str(&done.out).unwrap()
}

fn bench(server: &Server, flags: &[&str]) -> Done {
    run(server.client(&[&["bench", "--json"], flags].concat()))
}

/// Starts a measurement of an hour, and waits until it is well under way.
fn endless(server: &Server) -> Running {
    let running = start(server.client(&["bench", "--json", "--duration", "1h"]));
    eventually("locks are granted", || {
        let status = run(server.client(&["status", "--json"]));
        let status: Value = serde_json::from_str(&status.out).unwrap();
        (status["server"]["grants"].as_u64()? > 100).then_some(())
    });
    running
}

#[test]
fn so_many_pairs_are_measured_and_checked() {
    let server = Server::start();
    let pid = server.process.id();
    let json = measured(&bench(&server, &["--pairs", "1000", "--server-pid", &pid]));
    assert_eq!(json["pairs"], 1000);
    assert_eq!(json["grants_checked"], 1000);
    assert_eq!(json["complete"], true);
    assert_eq!(json["server"], server.address);
    assert_eq!(json["workload"]["mode"]["kind"], "exclusive");
    for latency in ["acquire_ns", "release_ns"] {
        let [count, p50, max] =
            ["count", "p50", "max"].map(|it| json[latency][it].as_u64().unwrap());
        assert!(count == 1000 && 0 < p50 && p50 <= max, "{json}");
    }
    assert_eq!(json["hand_over_ns"], Value::Null);
    assert!(json["server_cpu_ns_per_pair"].as_f64().unwrap() > 0.0);

    let status = run(server.client(&["status", "--json"]));
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["server"]["grants"], 1000);
    assert_eq!(status["server"]["locks"], 0, "nothing is left behind");
}

#[test]
fn one_lock_goes_from_hand_to_hand() {
    let server = Server::start();
    let json = measured(&bench(&server, &["--same-lock", "--pairs", "500", "--threads", "2"]));
    assert_eq!(json["pairs"], 500);
    assert!(json["hand_over_ns"]["count"].as_u64().unwrap() > 250, "{json}");
}

#[test]
fn a_connection_can_be_made_for_each_pair() {
    let server = Server::start();
    for flags in [&["--connections", "3"][..], &["--connections", "3", "--same-lock"]] {
        let flags = [flags, &["--connection-per-iteration", "--pairs", "100"]].concat();
        let json = measured(&bench(&server, &flags));
        assert_eq!(json["pairs"], 100);
        assert_eq!(json["workload"]["connection_per_iteration"], true);
    }
}

#[test]
fn every_mode_and_rhythm_can_be_measured() {
    let server = Server::start();
    for flags in [
        &["--depth", "64", "--pairs", "1000"][..],
        &["--mode", "shared", "--same-lock", "--pairs", "1000"],
        &["--mode", "2/5", "--same-lock", "--pairs", "1000"],
        &["--mode", "2/5", "--rate", "5000", "--pairs", "100"],
        &["--duration", "50ms", "--warmup", "50ms"],
    ] {
        let json = measured(&bench(&server, flags));
        assert!(json["pairs"].as_u64().unwrap() > 0, "{flags:?}: {json}");
    }
}

#[test]
fn people_get_a_table() {
    let server = Server::start();
    let done = run(server.client(&["bench", "--pairs", "100", "--connections", "2"]));
    assert_eq!((done.code(), done.err.as_str()), (Some(0), ""));
    assert!(done.out.starts_with("2 connections, locks of their own, exclusive, closed loop, 100"));
    assert!(done.out.contains("\n100 pairs in "), "{}", done.out);
}

#[test]
fn ctrl_c_shows_what_was_measured_so_far() {
    let server = Server::start();
    let running = endless(&server);
    running.signal(Signal::INT);
    let done = running.end();
    assert_eq!(done.code(), Some(130), "{done:?}");
    let json: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(json["complete"], false);
    assert!(json["pairs"].as_u64().unwrap() > 0);
}

#[test]
fn a_server_that_goes_away_is_69() {
    let server = Server::start();
    let running = endless(&server);
    server.end_by(Signal::KILL);
    let done = running.end();
    assert_eq!(done.code(), Some(69), "{done:?}");
    assert!(done.err.starts_with("error: no coordinator answers at "), "{}", done.err);
    assert_eq!(done.out, "");
}

#[test]
fn no_server_is_69_and_wrong_usage_is_2() {
    let home = Home::new();
    let done = run(home.coordinator(&["bench", "--server", "127.0.0.1:1"]));
    assert_eq!(done.code(), Some(69));
    assert!(done.err.contains("(connection refused)\n"), "{}", done.err);
    for flags in [
        &["--depth", "2", "--same-lock"][..],
        &["--mode", "6/5"],
        &["--duration", "0"],
        &["--no-such-flag"],
        &["--server-pid", "4194305"],
    ] {
        let done = run(home.coordinator(&[&["bench", "--server", "127.0.0.1:1"], flags].concat()));
        assert_eq!(done.code(), Some(2), "{flags:?}: {}", done.err);
        assert!(done.err.starts_with("error: "), "{flags:?}: {}", done.err);
    }
}
