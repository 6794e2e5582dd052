//! `coordinator serve` as a process: start, mistakes, stop.

use std::net::TcpListener;

use coordinator::wire::ServerMessage;
use rustix::process::Signal;

use crate::proxy::Proxy;
use crate::raw::{Raw, hello};
use crate::support::{Home, Server, eventually, run, start};

#[test]
fn it_says_where_it_is_and_stops_in_order() {
    let server = Server::start();
    let port_file = server.home.path("port");
    server.process.signal(Signal::TERM);
    let done = server.process.end();
    assert_eq!(done.code(), Some(0));
    assert!(done.err.contains(&format!("locks on {}, no state on disk", server.address)));
    assert!(done.err.contains(&format!("try: coordinator lock --server {} demo", server.address)));
    assert!(!port_file.exists(), "nobody may take an old port for a living one");
}

#[test]
fn a_bare_coordinator_serves() {
    let home = Home::new();
    let port_file = home.path("p");
    let mut command = home.coordinator(&["--ephemeral", "--listen", "127.0.0.1:0", "--port-file"]);
    command.arg(&port_file);
    let server = start(command);
    eventually("it is ready", || port_file.exists().then_some(()));
    server.signal(Signal::INT);
    assert_eq!(server.end().code(), Some(0));
}

#[test]
fn a_holder_may_finish_while_the_server_drains() {
    let server = Server::start();
    let go_on = server.home.path("go-on");
    let script = format!("while ! test -e {}; do sleep 0.01; done; exit 3", go_on.display());
    let holder = start(server.client(&["lock", "demo", "-c", &script]));
    server.held("demo");
    let waiter = start(server.client(&["lock", "demo", "--", "true"]));
    server.waited_for_by("demo", 1);
    server.process.signal(Signal::TERM);
    let waiter = waiter.end();
    assert_eq!(waiter.code(), Some(69), "{}", waiter.err);
    assert!(waiter.err.contains("is shutting down"), "{}", waiter.err);
    std::fs::write(&go_on, "").unwrap();
    assert_eq!(holder.end().code(), Some(3));
    assert_eq!(server.process.end().code(), Some(0));
}

#[test]
fn a_server_says_what_its_orderly_end_will_be() {
    let kept = Home::new();
    let data = kept.path("data").to_str().unwrap().to_owned();
    for (home, flags, ending) in [
        (kept, vec!["--data-dir", &data], ": saving and stopping; a second signal stops at once"),
        (Home::new(), vec!["--ephemeral"], ": draining, then stopping; a second signal"),
    ] {
        let server = Server::start_with(home, &flags);
        server.process.signal(Signal::TERM);
        let done = server.process.end();
        assert_eq!(done.code(), Some(0));
        assert!(done.err.contains(ending), "{}", done.err);
    }
}

#[test]
fn a_second_signal_stops_it_at_once() {
    let server = Server::start_with(Home::new(), &["--ephemeral", "--drain-timeout", "1h"]);
    let holder = start(server.client(&["lock", "demo", "--", "sleep", "60"]));
    server.held("demo");
    server.process.signal(Signal::TERM);
    eventually("it drains", || {
        let refused = run(server.client(&["try", "other", "--", "true"]));
        (refused.code() == Some(69)).then_some(())
    });
    server.process.signal(Signal::TERM);
    assert_eq!(server.process.end().code(), Some(0));
    assert_eq!(holder.end().code(), Some(70));
}

#[test]
fn a_port_in_use_is_told_with_advice() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = run(Home::new().coordinator(&["serve", "--ephemeral", "--listen", &address]));
    assert_eq!(done.code(), Some(75));
    let error = format!("error: cannot listen on {address} (the address is in use)\n  hint: ");
    assert!(done.err.contains(&error), "{}", done.err);
}

/// The unit gives up on a mistake in the settings, and on nothing else.
#[test]
fn what_may_pass_by_itself_has_another_exit_code_than_a_mistake() {
    let unit = include_str!("../../packaging/systemd/coordinator.service");
    let given_up = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
    assert_eq!(given_up, Some("2"));
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (flags, code) in [
        // An address of a network for documentation is no machine's.
        (&["--ephemeral", "--allow-anyone", "--listen", "192.0.2.1:5625"][..], 75),
        (
            &[
                "--ephemeral",
                "--listen",
                "127.0.0.1:0",
                "--http-listen",
                "192.0.2.1:5626",
                "--allow-anyone",
            ],
            75,
        ),
        (&["--ephemeral", "--listen", "127.0.0.1:0", "--http-listen", &taken], 75),
        (&["--ephemeral", "--listen", "127.0.0.1:0", "--audit-log", "/nowhere/audit"], 75),
        (&["--ephemeral", "--listen", "127.0.0.1:0", "--port-file", "/nowhere/port"], 75),
        (&["--listen", "127.0.0.1:0", "--data-dir", "/proc/nowhere/data"], 75),
        (&["--listen", "127.0.0.1:0", "--data-dir", "/dev/null/data"], 2),
        (&["--ephemeral", "--listen", "nowhere"], 2),
    ] {
        let done = run(home.coordinator(&[&["serve"], flags].concat()));
        assert_eq!(done.code(), Some(code), "{flags:?}: {}", done.err);
    }
}

#[test]
fn a_data_directory_serves_one_coordinator_at_a_time() {
    let home = Home::new();
    let data = home.path("data").to_str().unwrap().to_owned();
    let server = Server::start_with(home, &["--data-dir", &data]);
    let second = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let done = run(server.home.coordinator(&second));
    assert_eq!(done.code(), Some(75));
    assert!(done.err.contains(&data) && done.err.contains("  hint: "), "{}", done.err);
}

#[test]
fn tokens_rise_across_a_restart() {
    let home = Home::new();
    let data = home.path("data").to_str().unwrap().to_owned();
    let server = Server::start_with(home, &["--data-dir", &data]);
    let token = |server: &Server| {
        let script = "echo $COORDINATOR_FENCING_TOKEN";
        run(server.client(&["lock", "demo", "-c", script])).out.trim().parse::<u64>().unwrap()
    };
    let before = token(&server);
    server.process.signal(Signal::KILL);
    let Server { home, process, .. } = server;
    process.end();
    std::fs::remove_file(home.path("port")).unwrap();
    let server = Server::start_with(home, &["--data-dir", &data]);
    assert!(token(&server) > before);
}

#[test]
fn tokens_rise_though_nothing_is_kept_however_soon_the_next_start_comes() {
    let token = |server: &Server| {
        let script = "echo $COORDINATOR_FENCING_TOKEN";
        run(server.client(&["lock", "demo", "-c", script])).out.trim().parse::<u64>().unwrap()
    };
    let mut latest = 0;
    for _ in 0..3 {
        let server = Server::start();
        let first = token(&server);
        assert!(first > latest, "{first} after {latest}");
        latest = token(&server);
        server.process.signal(Signal::KILL);
    }
}

#[test]
fn a_crowd_shuts_out_neither_a_holder_that_comes_back_nor_an_operator() {
    let server = Server::start_with(Home::new(), &["--ephemeral", "--connections-max", "4"]);
    let proxy = Proxy::to(&server.address);
    let mut holding = server.client(&["lock", "job", "-c", "sleep 60"]);
    holding.env("COORDINATOR_SERVER", &proxy.address);
    let holder = start(holding);
    let token = server.held("job");
    let newcomer = || {
        let mut peer = Raw::connect(&server);
        peer.say(&[hello()]);
        matches!(peer.hear(), ServerMessage::Welcome { .. }).then_some(peer)
    };
    // All that one address may have; and when the holder is cut off, its place too.
    let mut others: Vec<Raw> = Vec::new();
    eventually("two more are let in", || {
        others.extend(newcomer());
        (others.len() == 2).then_some(())
    });
    assert!(newcomer().is_none());
    proxy.cut();
    // Of who looks again and again, the last connection may still be about to end.
    let look = || {
        let status = run(server.client(&["status", "--json", "job"]));
        let json: serde_json::Value = serde_json::from_str(&status.out).ok()?;
        Some(json["locks"][0]["holders"][0].clone())
    };
    eventually("the holder is back, and its place taken or not", || {
        others.extend(newcomer());
        (look()?["connected"] == true).then_some(())
    });
    assert_eq!(eventually("somebody looks", look)["token"], token);
    // Which limit depends on whether the holder was back before its place was taken.
    eventually("who is new is told of the limit", || {
        let refused = run(server.client(&["lock", "other", "--", "true"]));
        assert_eq!(refused.code(), Some(69), "{}", refused.err);
        let limits = ["3 connections from", "4 connections are open"];
        let is_told =
            |limit: &&str| refused.err.contains(&format!("has too many connections: {limit}"));
        limits.iter().any(is_told).then_some(())
    });
    let token = token.to_string();
    eventually("the operator takes the lock away", || {
        let released = run(server.client(&["release", "job", "--force", "--token", &token]));
        (released.code() == Some(0)).then_some(())
    });
    assert_eq!(holder.end().code(), Some(70));
}

#[test]
fn the_operators_mistakes_are_2() {
    let home = Home::new();
    for flags in [
        &["--data-dir", "/dev/null/state"][..],
        &["--listen", "nowhere"],
        &["--drain-timeout", "soon"],
        &["--log", "debgu"],
        &["--ephemeral", "--data-dir", "x"],
        &["--ephemeral", "--port-file", "/dev/null/port"],
        &["--config", "/dev/null/none.toml"],
        &["--no-such-flag"],
    ] {
        let done = run(home.coordinator(&[&["serve", "--listen", "127.0.0.1:0"], flags].concat()));
        assert_eq!(done.code(), Some(2), "{flags:?}: {}", done.err);
        assert!(done.err.contains("error: "), "{flags:?}: {}", done.err);
    }
}

#[test]
fn who_asks_for_a_longer_lease_than_is_allowed_is_told_the_limit() {
    let refused = |server: &Server, ttl| {
        let done = run(server.client(&["lock", "--ttl", ttl, "demo", "--", "true"]));
        (done.code(), done.err)
    };
    let usual = Server::start();
    assert_eq!(refused(&usual, "10m"), (Some(0), String::new()));
    let (code, told) = refused(&usual, "601s");
    assert_eq!(code, Some(2));
    assert!(told.contains("a ttl of 601s is longer than the 600s that this"), "{told}");
    let generous = Server::start_with(Home::new(), &["--ephemeral", "--ttl-max", "1h"]);
    assert_eq!(refused(&generous, "1h"), (Some(0), String::new()));
}

#[test]
fn listening_beyond_this_machine_takes_a_word_and_is_warned_of() {
    let home = Home::new();
    let port_file = home.path("p");
    let words = ["--ephemeral", "--listen", "0.0.0.0:0", "--port-file"];
    let mut command = home.coordinator(&words);
    command.arg(&port_file);
    let refused = run(command);
    assert_eq!(refused.code(), Some(2));
    assert!(refused.err.contains("say --allow-anyone"), "{}", refused.err);
    let mut command = home.coordinator(&words);
    command.arg(&port_file).arg("--allow-anyone");
    let server = start(command);
    eventually("it is ready", || port_file.exists().then_some(()));
    server.signal(Signal::TERM);
    assert!(server.end().err.contains("WARN  0.0.0.0:"));
}
