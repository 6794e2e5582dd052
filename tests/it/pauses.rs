//! A lock that nobody holds and nobody gets, and one whose holder is away: who asks is told until when.

use coordinator::wire::{Attach, ClientMessage, ServerMessage};
use rustix::process::Signal;

use crate::raw::{Raw, hello_for, request};
use crate::support::{Server, eventually, run, start};
use coordinator::types::RequestId;

/// A lock that was lost by a holder who had asked for a delay of a minute.
fn lost_with_delay(server: &Server) -> u64 {
    let holder = start(server.client(&[
        "lock",
        "--as",
        "ci-7",
        "--lock-delay",
        "1m",
        "printer",
        "sleep",
        "60",
    ]));
    let token = server.held("printer");
    let release =
        ["release", "printer", "--force", "--token", &token.to_string()].map(str::to_owned);
    let words: Vec<&str> = release.iter().map(String::as_str).collect();
    assert_eq!(run(server.client(&words)).code(), Some(0));
    assert_eq!(holder.end().code(), Some(70));
    token
}

#[test]
fn a_lock_that_is_kept_free_after_a_loss_says_so_everywhere() {
    let server = Server::start();
    let token = lost_with_delay(&server);

    let busy = run(server.client(&["lock", "-n", "printer", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    assert!(busy.err.contains("held by  nobody, but kept free for "), "{}", busy.err);
    assert!(busy.err.contains(" more: its holder was lost\n  before   ci-7"), "{}", busy.err);
    assert!(busy.err.contains(&format!("token {token}\n")), "{}", busy.err);

    let late = run(server.client(&["lock", "-w", "10ms", "printer", "--", "true"]));
    assert!(late.err.contains("nobody, but kept free for "), "{}", late.err);

    for words in [&["status"][..], &["status", "printer"]] {
        let status = run(server.client(words));
        assert!(status.out.contains("nobody, kept free for "), "{}", status.out);
    }
    let status = run(server.client(&["status", "printer"]));
    assert_eq!(status.code(), Some(1), "nobody holds it");

    let lock = server.lock("printer").unwrap();
    let pause = &lock["pauses"][0];
    assert_eq!((&pause["after"], &pause["token"]), (&"loss".into(), &token.into()));
    assert_eq!(pause["length_ms"], 60_000);
    assert!(pause["left_ms"].as_u64() <= Some(60_000) && lock["free_ms"] == pause["left_ms"]);

    // Who waits is told the same.
    let waiter = start(server.client(&["lock", "printer", "--", "true"]));
    waiter.says("waiting for \"printer\": kept free for ");
}

#[test]
fn a_delay_goes_on_after_an_orderly_restart() {
    let server = Server::start_durable();
    let token = lost_with_delay(&server);
    let server = server.stop_and_restart();
    let pause = server.lock("printer").unwrap()["pauses"][0].clone();
    assert_eq!((&pause["token"], &pause["length_ms"]), (&token.into(), &60_000.into()));
    assert!(pause["identity"].as_str().unwrap().starts_with("ci-7 ("), "{pause}");
}

#[test]
fn who_is_told_that_a_lock_is_busy_hears_whether_its_holder_is_there_and_until_when() {
    let server = Server::start();
    let mut holder = Raw::connect(&server);
    holder.say(&[hello_for(Attach::New, 60_000, None), request(1, "printer")]);
    let token = server.held("printer");
    let busy = run(server.client(&["try", "printer", "--", "true"]));
    assert!(!busy.err.contains("[disconnected]"), "{}", busy.err);
    assert!(!busy.err.contains("at the latest"), "it may renew for ever: {}", busy.err);
    assert_eq!(server.lock("printer").unwrap()["free_ms"], serde_json::Value::Null);

    drop(holder);
    eventually("the holder is gone", || {
        let lock = server.lock("printer")?;
        (lock["holders"][0]["connected"] == false).then_some(())
    });
    let busy = run(server.client(&["try", "printer", "--", "true"]));
    assert_eq!(busy.code(), Some(75));
    assert!(busy.err.contains(&format!("token {token}  [disconnected]\n")), "{}", busy.err);
    assert!(busy.err.contains(" at the latest, unless its holder comes back\n"), "{}", busy.err);
    let status = run(server.client(&["status", "printer"]));
    assert_eq!(status.code(), Some(0), "it is held");
    assert!(status.out.contains("\nfree in ") && status.out.contains(" at the latest"));
    assert!(server.lock("printer").unwrap()["free_ms"].as_u64() <= Some(60_000));
}

#[test]
fn a_holder_with_a_short_linger_keeps_nobody_waiting_for_its_lease() {
    let server = Server::start();
    let words = ["lock", "--ttl", "5m", "--linger", "0", "printer", "sleep", "60"];
    let holder = start(server.client(&words));
    server.held("printer");
    holder.signal(Signal::KILL);
    let next = run(server.client(&["lock", "-w", "1m", "printer", "--", "true"]));
    assert_eq!(next.code(), Some(0), "{}", next.err);
}

#[test]
fn a_lock_delay_that_is_too_long_is_a_mistake_that_is_named() {
    let server = Server::start();
    let words = ["lock", "--lock-delay", "61s", "printer", "--", "true"];
    let refused = run(server.client(&words));
    assert_eq!(refused.code(), Some(2));
    assert!(refused.err.contains("--lock-delay") && refused.err.contains("60s at most"));
}

#[test]
fn questions_about_no_possible_lock_are_answered_no() {
    let server = Server::start();
    let mut observer = Raw::connect(&server);
    let query = coordinator::wire::Query::Outlook { name: "two\nlines".to_owned() };
    observer.say(&[
        hello_for(Attach::Observer, 0, None),
        ClientMessage::Inspect { query_id: 4, query },
    ]);
    assert!(matches!(observer.hear(), ServerMessage::Welcome { .. }));
    assert!(matches!(observer.hear(), ServerMessage::Rejected { request: RequestId(4), .. }));
}
