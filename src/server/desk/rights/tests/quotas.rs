//! Quotas, and what the audit log has of those who ask for more.

use super::*;
use crate::server::audit::{Audit, AuditPlace, AuditWriter};

#[test]
fn quotas_are_their_principals_and_nobody_elses() {
    let quotas = "sessions-max = 2\nconnections-max = 3\nrequests-per-second = 2";
    let may = "may = [ { do = [\"lock\", \"see\"], names = [\"*\"] } ]";
    let bench = Bench::ruled(access(&[("ann", &format!("{may}\n{quotas}")), BOB]));
    let first = bench.session("ann");
    let _second = bench.session("ann");
    let third = bench.come("ann");
    third.submit(vec![hello(Attach::New)]);
    bench.settle();
    assert_eq!(refusal(&third).1, RejectionCode::TooManySessions);
    let _observer = bench.observer("ann");
    let fourth = bench.come("ann");
    fourth.submit(vec![hello(Attach::Observer)]);
    assert_eq!(refusal(&fourth).0, GoodbyeCode::TooManyConnections);
    let _other = bench.session("bob");
    assert_eq!(code(&bench, &first, request(1, "a")), None);
    assert_eq!(code(&bench, &first, request(2, "b")), None);
    assert_eq!(code(&bench, &first, request(3, "c")), Some(RejectionCode::SlowDown));
    // What is repeated is no more.
    assert_eq!(code(&bench, &first, request(2, "b")), None);
    bench.pass(Duration::from_secs(1));
    assert_eq!(code(&bench, &first, request(3, "c")), None);
    // A session that is over makes room, and one that lost its connection does not.
    first.submit(vec![ClientMessage::Goodbye]);
    bench.settle();
    bench.session("ann");
}

#[test]
fn what_is_denied_counts_as_a_request() {
    let may = "may = [ { do = [\"lock\"], names = [\"a\"] } ]\nrequests-per-second = 3";
    let bench = Bench::ruled(access(&[("ann", may), BOB]));
    let (ann, observer) = (bench.session("ann"), bench.observer("ann"));
    let forbidden = Some(RejectionCode::Forbidden);
    assert_eq!(code(&bench, &ann, request(1, "b")), forbidden);
    assert_eq!(code(&bench, &observer, look_at("b")), forbidden);
    let revoke = ClientMessage::Revoke { query_id: 9, name: "b".into(), token: FencingToken(1) };
    assert_eq!(code(&bench, &observer, revoke), forbidden);
    let slow_down = Some(RejectionCode::SlowDown);
    assert_eq!(code(&bench, &ann, request(1, "b")), slow_down);
    assert_eq!(code(&bench, &observer, look_at("b")), slow_down);
    assert_eq!(bench.denials().iter().map(|(_, count)| count).sum::<u64>(), 3);
    bench.pass(Duration::from_secs(1));
    assert_eq!(code(&bench, &ann, request(1, "b")), forbidden);
}

#[test]
fn who_comes_back_is_let_in_however_many_connections_there_are() {
    let max = "connections-max = 1";
    let bench = Bench::ruled(access(&[("ann", &format!("{}\n{max}", ANN.1)), BOB]));
    let (_lost, session, secret) = bench.session_of("ann");
    let resume = |secret| Attach::Resume { session, secret, generation: Generation(2) };
    let wrong = bench.come("ann");
    wrong.submit(vec![hello(resume(Secret::new(1)))]);
    assert_eq!(refusal(&wrong).1, RejectionCode::UnknownSession);
    let back = bench.come("ann");
    back.submit(vec![hello(resume(secret))]);
    assert!(matches!(back.take()[..], [ServerMessage::Welcome { .. }]));
    let another = bench.come("ann");
    another.submit(vec![hello(Attach::Observer)]);
    assert_eq!(refusal(&another).0, GoodbyeCode::TooManyConnections);
}

#[test]
fn a_session_counts_before_it_is_welcome() {
    let max = "sessions-max = 1";
    let bench = Bench::ruled(access(&[("ann", &format!("{}\n{max}", ANN.1)), BOB]));
    // So that a longer lease has to be on disk first.
    let _other = bench.session("bob");
    let long = || wire::Hello { ttl_ms: 300_000, ..wire::Hello::new(Attach::New, "") };
    let (first, second) = (bench.come("ann"), bench.come("ann"));
    first.submit(vec![ClientMessage::Hello(long())]);
    second.submit(vec![ClientMessage::Hello(long())]);
    assert_eq!(refusal(&second).1, RejectionCode::TooManySessions);
    bench.settle();
    assert!(matches!(first.take()[..], [ServerMessage::Welcome { .. }]));
    // One that is refused does not count.
    first.submit(vec![ClientMessage::Goodbye]);
    bench.settle();
    let refused = bench.come("ann");
    let too_long = wire::Hello { ttl_ms: u32::MAX, ..wire::Hello::new(Attach::New, "") };
    refused.submit(vec![ClientMessage::Hello(too_long)]);
    let for_long = bench.come("ann");
    let not_allowed = wire::Hello { ttl_ms: 3_600_000, ..wire::Hello::new(Attach::New, "") };
    for_long.submit(vec![ClientMessage::Hello(not_allowed)]);
    bench.settle();
    assert_eq!(refusal(&for_long).1, RejectionCode::InvalidTtl);
    bench.session("ann");
}

/// What is written of what a bench does meanwhile, line by line.
fn audited(bench: &Bench, act: impl FnOnce()) -> Vec<serde_json::Value> {
    let log = open(bench);
    act();
    written(bench, log)
}

/// An audit log for a bench.
fn open(bench: &Bench) -> (tempfile::TempDir, AuditWriter) {
    let directory = tempfile::tempdir().unwrap();
    let (audit, writer) = Audit::open(AuditPlace::File(directory.path().join("audit"))).unwrap();
    bench.audit(audit);
    (directory, writer)
}

/// What is written in it by now. It is closed.
fn written(
    bench: &Bench,
    (directory, writer): (tempfile::TempDir, AuditWriter),
) -> Vec<serde_json::Value> {
    bench.settle();
    bench.audit(Audit::default());
    drop(writer);
    let text = std::fs::read_to_string(directory.path().join("audit")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_audit_log_has_some_denials_of_an_address_and_counts_the_rest() {
    let bench = bench();
    let ann = bench.session("ann");
    let log = open(&bench);
    for _ in 0..5_000 {
        answers(&bench, &ann, request(1, "b"));
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    answers(&bench, &ann, request(1, "b"));
    let written = written(&bench, log);
    // Of an address that is not known there may be five times as many.
    let (denied, rest) = written.split_at(500);
    assert!(denied.iter().all(|line| line["result"] == "denied"));
    assert_eq!(rest[0]["event"], "left_out");
    let reason = rest[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("4500 more denials"), "{reason}");
    assert_eq!((&rest[1]["result"], rest.len()), (&"denied".into(), 2));
}

#[test]
fn the_audit_log_says_whose_session_ended_and_what_a_quota_refused() {
    let max = "sessions-max = 1";
    let bench = Bench::ruled(access(&[("ann", &format!("{}\n{max}", ANN.1)), BOB]));
    let ann = bench.session("ann");
    let written = audited(&bench, || {
        let second = bench.come("ann");
        second.submit(vec![hello(Attach::New)]);
        assert_eq!(refusal(&second).1, RejectionCode::TooManySessions);
        ann.disconnect();
        bench.pass(Duration::from_secs(11));
    });
    assert_eq!(written[0]["result"], "refused", "{written:?}");
    assert_eq!(written[0]["principal"], "ann");
    let last = written.last().unwrap();
    assert_eq!((&last["result"], &last["reason"]), (&"ended".into(), &"expired".into()));
    assert_eq!(last["principal"], "ann", "{last}");
}

#[test]
fn whatever_is_answered_no_is_counted_by_its_code() {
    let bench = bench();
    let observer = bench.observer("bob");
    let count = |code: RejectionCode| {
        let figures = bench.figures();
        let found = figures.told.rejections().find(|(name, _)| *name == code.name());
        found.map_or(0, |(_, count)| count)
    };
    let revoke_for = |reason: &str| ClientMessage::RevokeFor {
        query_id: 9,
        name: "a".into(),
        token: FencingToken(1),
        reason: reason.into(),
    };
    let long = "x".repeat(4_096);
    for (message, code) in [
        (request(1, "a"), RejectionCode::SessionNeeded),
        (look_at(""), RejectionCode::InvalidLockName),
        (revoke_for(&long), RejectionCode::InvalidNote),
    ] {
        assert_eq!(self::code(&bench, &observer, message), Some(code));
        assert_eq!(count(code), 1, "{code:?}");
    }
    let mistaken = bench.come("bob");
    let identity = "x".repeat(4_096);
    mistaken.submit(vec![ClientMessage::Hello(wire::Hello::new(Attach::New, &identity))]);
    let (_, code, _) = refusal(&mistaken);
    assert_eq!(count(code), 1, "{code:?}");
}
