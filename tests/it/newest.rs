//! Newest first, one pending: of those who wait to deploy only the newest is worth it.

use std::fs;

use coordinator::types::RejectionCode;
use coordinator::{Client, Error};
use rustix::process::Signal;

use crate::support::{Server, run, start};

#[test]
fn a_newer_deploy_ends_the_one_that_waits_and_lets_the_one_that_runs_be() {
    let server = Server::start();
    let words = ["lock", "--supersede", "deploy", "--", "sleep", "60"];
    let runs = start(server.client(&words));
    server.held("deploy");
    let log = server.home.path("log");
    let deploy = |who: &str, flag: &[&str]| {
        let script = format!("echo {who} >>{}", log.display());
        let words = ["lock", "--as", who, "-w", "60", "-q", "deploy", "-c", &script];
        start(server.client(&[&words[..6], flag, &words[6..]].concat()))
    };
    let plain = deploy("plain", &[]);
    server.waited_for_by("deploy", 1);
    let older = deploy("older", &["--supersede"]);
    server.waited_for_by("deploy", 2);
    let newer = deploy("newer", &["--supersede"]);
    let older = older.end();
    assert_eq!(older.code(), Some(75), "{}", older.err);
    let why = "error: superseded by a newer request of newer (";
    assert!(older.err.starts_with(why), "{}", older.err);
    assert!(older.err.contains(" for \"deploy\"; nothing was run\n"), "{}", older.err);
    server.waited_for_by("deploy", 2);

    // Who does not wait ends nobody.
    let busy = run(server.client(&["lock", "-n", "--supersede", "deploy", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    assert!(busy.err.starts_with("error: \"deploy\" is busy\n"), "{}", busy.err);

    runs.signal(Signal::TERM);
    assert_eq!(runs.end().code(), Some(143));
    assert_eq!(plain.end().code(), Some(0));
    assert_eq!(newer.end().code(), Some(0));
    assert_eq!(fs::read_to_string(&log).unwrap(), "plain\nnewer\n");
}

#[test]
fn a_waiter_is_superseded_also_after_a_restart_of_the_coordinator() {
    let server = Server::start_durable();
    let hold = ["lock", "--ttl", "1m", "deploy", "--", "sleep", "60"];
    let holder = start(server.client(&hold));
    server.held("deploy");
    let words = ["lock", "--ttl", "1m", "-q", "--supersede", "deploy", "--", "true"];
    let older = start(server.client(&words));
    server.waited_for_by("deploy", 1);
    let server = server.stop_and_restart();
    let newer = start(server.client(&words));
    assert_eq!(older.end().code(), Some(75));
    holder.signal(Signal::TERM);
    assert_eq!(newer.end().code(), Some(0));
}

#[test]
fn the_library_says_that_a_newer_request_came() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&server.address).await.unwrap();
        let held = client.lock("deploy").supersede().await.unwrap();
        // On one thread they are asked in the order in which they are spawned.
        let older = tokio::spawn(client.lock("deploy").supersede().into_future());
        let newer = tokio::spawn(client.lock("deploy").supersede().into_future());
        let over = older.await.unwrap();
        assert!(
            matches!(over, Err(Error::Rejected { code: RejectionCode::Superseded, .. })),
            "{over:?}"
        );
        held.release().await.unwrap();
        assert!(newer.await.unwrap().is_ok());
    });
}
