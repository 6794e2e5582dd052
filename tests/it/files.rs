//! What `coordinator serve` keeps in files, and what becomes of it when somebody meddles with them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Done, Home, Server, eventually, run};

/// A coordinator with its state in `data` of its home.
fn durable() -> Server {
    let home = Home::new();
    let data = home.path("data").to_str().unwrap().to_owned();
    Server::start_with(home, &["--data-dir", &data, "--drain-timeout", "200ms"])
}

/// A start on what is in that directory, with these flags besides, that is expected to fail with this exit code.
fn refused(home: &Home, flags: &[&str], code: i32) -> Done {
    let data = home.path("data").to_str().unwrap().to_owned();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let done = run(home.coordinator(&[&serve, flags].concat()));
    assert_eq!(done.code(), Some(code), "{}", done.err);
    done
}

fn unsaved_ms(server: &Server) -> u64 {
    let status = run(server.client(&["status", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    json["server"]["unsaved_ms"].as_u64().unwrap()
}

fn harmed_while_it_runs(harm: impl FnOnce(&Path)) {
    let server = durable();
    assert_eq!(unsaved_ms(&server), 0);
    harm(&server.home.path("data"));
    // Nothing has to be saved meanwhile: it is noticed all the same.
    eventually("it is noticed", || (unsaved_ms(&server) > 0).then_some(()));
    server.process.signal(Signal::TERM);
    let done = server.process.end();
    assert_eq!(done.code(), Some(70), "{}", done.err);
    assert!(done.err.contains("was deleted or replaced"), "{}", done.err);
    assert!(done.err.contains("with 0 requests, held or waiting: "), "{}", done.err);
    assert!(!done.err.contains("all state is saved"), "{}", done.err);
}

#[test]
fn a_data_directory_that_is_deleted_while_it_runs_is_noticed_and_the_stop_fails() {
    harmed_while_it_runs(|data| fs::remove_dir_all(data).unwrap());
}

#[test]
fn a_data_directory_that_is_replaced_while_it_runs_is_noticed_and_the_stop_fails() {
    harmed_while_it_runs(|data| {
        fs::rename(data, data.with_extension("bak")).unwrap();
        fs::create_dir(data).unwrap();
    });
}

#[test]
fn a_data_directory_that_is_put_back_in_time_is_used_again() {
    let server = durable();
    let (data, away) = (server.home.path("data"), server.home.path("away"));
    fs::rename(&data, &away).unwrap();
    eventually("it is noticed", || (unsaved_ms(&server) > 0).then_some(()));
    fs::rename(&away, &data).unwrap();
    eventually("it is noticed", || (unsaved_ms(&server) == 0).then_some(()));
    server.process.signal(Signal::TERM);
    let done = server.process.end();
    assert_eq!(done.code(), Some(0), "{}", done.err);
}

#[test]
fn a_second_start_on_a_directory_in_use_leaves_the_port_file_of_the_first() {
    let server = durable();
    let port_file = server.home.path("port");
    let done = refused(&server.home, &["--port-file", port_file.to_str().unwrap()], 75);
    assert!(done.err.contains("another coordinator uses"), "{}", done.err);
    let port = fs::read_to_string(&port_file).unwrap();
    assert!(server.address.ends_with(port.trim()));
    let beside = fs::read_dir(port_file.parent().unwrap()).unwrap();
    let left = beside
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("port."));
    assert_eq!(left.count(), 0, "nothing is left beside it");
}

#[test]
fn a_state_that_others_can_read_is_refused_with_the_chmod_to_type() {
    let server = durable();
    let state = server.home.path("data/state");
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);
    let home = server.end_by(Signal::TERM).home;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).unwrap();
    let done = refused(&home, &[], 2);
    let hint = format!("hint: chmod 600 {}", state.display());
    assert!(done.err.contains(&hint), "{}", done.err);
}

#[test]
fn a_damaged_state_is_refused_until_its_loss_is_accepted_and_then_nobody_is_granted_at_once() {
    let server = durable();
    let home = server.end_by(Signal::TERM).home;
    fs::write(home.path("data/state"), b"").unwrap();
    let done = refused(&home, &[], 2);
    assert!(done.err.contains("data/state is damaged: it is empty"), "{}", done.err);
    assert!(done.err.contains("--accept-lost-state"), "{}", done.err);
    let data = home.path("data").to_str().unwrap().to_owned();
    let _gone = fs::remove_file(home.path("port"));
    let server = Server::start_with(home, &["--data-dir", &data, "--accept-lost-state"]);
    let done = run(server.client(&["lock", "--no-wait", "demo", "true"]));
    assert_ne!(done.code(), Some(0), "somebody may believe in it: {}", done.err);
}
