//! The texts, word for word.

use coordinator::wire::{Mode, Waiter};

use super::*;
use coordinator::types::{FencingToken, Identity, LockName, OwnerId, RequestId, SessionId};

const ATTEMPT: Attempt<'_> = Attempt {
    verb: None,
    server: "127.0.0.1:5625",
    lock: "deploy",
    command: " -- …",
    busy: exit::BUSY,
    within: None,
    mode: Some(Mode::Exclusive),
};

fn holder(token: u64) -> Holder {
    Holder {
        owner: OwnerId(0),
        request: RequestId(1),
        session: SessionId(1),
        identity: "ci-7 (ann@build7, pid 8123)".parse().unwrap(),
        peer: "10.0.0.7:41000".to_owned(),
        mode: Mode::Exclusive,
        token: FencingToken::new(token),
        held_ms: 252_000,
        note: "deploy v2.3".parse().unwrap(),
        connected: true,
    }
}

fn waiter(waiting_ms: u64) -> Waiter {
    Waiter {
        owner: OwnerId(0),
        request: RequestId(1),
        session: SessionId(2),
        identity: "bob@build8:99".parse().unwrap(),
        peer: "10.0.0.8:41000".to_owned(),
        mode: Mode::Exclusive,
        waiting_ms,
        note: "".parse().unwrap(),
    }
}

fn status(holders: Vec<Holder>, waiters: Vec<Waiter>) -> LockStatus {
    LockStatus {
        name: "deploy".parse().unwrap(),
        holder_count: holders.len() as u64,
        waiter_count: waiters.len() as u64,
        holders,
        waiters,
    }
}

#[test]
fn a_busy_lock_names_its_holder_its_queue_and_how_to_wait() {
    let lock = Box::new(status(vec![holder(1881)], vec![waiter(238_000), waiter(3_000)]));
    let failure = ATTEMPT.failed(&Error::Busy { lock });
    assert_eq!(failure.exit, 75);
    assert_eq!(
        failure.plain(),
        "error: \"deploy\" is busy
  held by  ci-7 (ann@build7, pid 8123, 10.0.0.7)  for 4m12s  token 1881  note \"deploy v2.3\"
  queue    2 waiting, longest 3m58s
  hint: wait for it with `coordinator lock -w 10m deploy -- …`
"
    );
}

#[test]
fn a_holder_that_is_cut_off_is_said_to_be() {
    let lock = Box::new(status(vec![Holder { connected: false, ..holder(7) }], vec![]));
    let text = ATTEMPT.failed(&Error::Busy { lock }).plain();
    assert!(text.contains("  note \"deploy v2.3\"  [disconnected]\n"), "{text}");
}

#[test]
fn a_crowd_of_holders_is_counted() {
    let shared = |token| Holder { mode: Mode::Shared, note: "".parse().unwrap(), ..holder(token) };
    let lock = Box::new(status((1..=5).map(shared).collect(), vec![]));
    let text = ATTEMPT.failed(&Error::Busy { lock }).plain();
    assert_eq!(text.matches("held by").count(), 3, "{text}");
    assert!(text.contains("token 1  shared\n"), "{text}");
    assert!(text.contains("\n  and      2 more\n"), "{text}");
}

#[test]
fn a_wait_that_was_too_short_says_how_long_it_was() {
    let lock = Box::new(status(vec![holder(7)], vec![]));
    let attempt = Attempt { busy: 9, ..ATTEMPT };
    let timeout = Duration::from_secs(90);
    let failure = attempt.failed(&Error::TimedOut { lock, timeout, position: None });
    assert_eq!(failure.exit, 9);
    let text = failure.plain();
    assert!(text.starts_with("error: \"deploy\" did not become free within 1m30s\n"), "{text}");
    assert!(
        text.ends_with("  hint: see who is in line with `coordinator status deploy`\n"),
        "{text}"
    );
}

#[test]
fn no_server_says_where_and_what_next() {
    let source = io::Error::from(io::ErrorKind::ConnectionRefused);
    let failure = no_server("127.0.0.1:5625", &source);
    assert_eq!(failure.exit, 69);
    assert_eq!(
        failure.plain(),
        "error: no coordinator answers at 127.0.0.1:5625 (connection refused)
  hint: start one with `coordinator serve`, or name another with --server or COORDINATOR_SERVER
"
    );
}

#[test]
fn a_file_of_ours_that_is_no_good_is_no_fault_of_the_server() {
    let failure = no_server("tls://there", &io::Error::other(TlsError::NoSystemBundle));
    assert_eq!(failure.exit, 2);
    assert!(
        failure
            .plain()
            .starts_with("error: no connection to tls://there was made: this system has no bundle")
    );
}

#[test]
fn a_crowd_is_told_of_as_such() {
    let (server, code) = ("127.0.0.1:5625".into(), GoodbyeCode::TooManyConnections);
    let message = "10000 connections are open, the limit".to_owned();
    let failure = ATTEMPT.failed(&Error::Dismissed { server, code, message });
    assert_eq!(failure.exit, 69);
    assert_eq!(
        failure.plain(),
        "error: the coordinator at 127.0.0.1:5625 has too many connections: 10000 connections are open, the limit
  hint: retry later; its operator can raise --connections-max or --connections-per-address-max
"
    );
}

#[test]
fn every_rejection_has_an_exit_code_that_a_script_can_act_on() {
    let code = |code| ATTEMPT.rejected(code, "why").exit;
    for code in RejectionCode::ALL {
        let exit = ATTEMPT.rejected(*code, "why").exit;
        assert!([1, 2, 69, 75, 76, 77].contains(&exit), "{code}: {exit}");
    }
    assert_eq!(code(RejectionCode::Busy), 75);
    assert_eq!(code(RejectionCode::TimedOut), 75);
    assert_eq!(code(RejectionCode::InvalidLockName), 2);
    assert_eq!(code(RejectionCode::PermitsDiffer), 75);
    assert_eq!(code(RejectionCode::Superseded), 75);
    assert_eq!(code(RejectionCode::TooManySessions), 75);
    assert_eq!(code(RejectionCode::Draining), 69);
    assert_eq!(code(RejectionCode::Unsupported), 76);
    assert_eq!(code(RejectionCode::NoSuchGrant), 1);
    assert_eq!(code(RejectionCode::AlreadyHeld), 75);
    assert_eq!(code(RejectionCode::Deadlock), 75);
    assert_eq!(code(RejectionCode::TooManyWatches), 75);
    assert_eq!(code(RejectionCode::Unknown(9999)), 76);
}

#[test]
fn a_lock_in_use_with_another_size_names_both() {
    let held = Holder { mode: Mode::Permits { take: 1, of: 3 }, ..holder(1881) };
    let lock = status(vec![held], vec![]);
    let said = |mode, error: Error| {
        let failure = Attempt { mode, ..ATTEMPT }.failed(&error);
        assert_eq!(failure.exit, 75);
        failure.plain().lines().next().unwrap_or_default().to_owned()
    };
    let busy = |mode| said(Some(mode), Error::Busy { lock: Box::new(lock.clone()) });
    assert_eq!(
        busy(Mode::Permits { take: 2, of: 5 }),
        "error: \"deploy\" is busy: in use as a semaphore of 3, and you asked for a semaphore of 5"
    );
    assert_eq!(
        busy(Mode::Shared),
        "error: \"deploy\" is busy: in use as a semaphore of 3, and you asked for a plain lock"
    );
    assert_eq!(busy(Mode::Permits { take: 3, of: 3 }), "error: \"deploy\" is busy");
    let (timeout, lock) = (Duration::from_secs(2), Box::new(lock.clone()));
    assert_eq!(
        said(Some(Mode::Exclusive), Error::TimedOut { lock, timeout, position: None }),
        "error: \"deploy\" did not become free within 2s: in use as a semaphore of 3, and you \
         asked for a plain lock"
    );
}

#[test]
fn a_deadlock_says_who_waits_for_whom() {
    let link = |identity: &str, lock: &str, held_with| CycleLink {
        session: SessionId(1),
        identity: Identity::new(identity).unwrap(),
        owner: OwnerId(1),
        request: RequestId(1),
        lock: LockName::new(lock).unwrap(),
        held_with,
    };
    let deploy = link("ann@build7:1", "deploy", Some(FencingToken(7)));
    let links = vec![deploy, link("bob@build8:2", "migrations", None)];
    let cycle = Cycle { links, is_cut: false };
    let failure = ATTEMPT.failed(&Error::Deadlock { cycle });
    assert_eq!(failure.exit, 75);
    assert_eq!(
        failure.plain(),
        "error: waiting for \"deploy\" would deadlock: each waits for the next
  ann@build7:1 waits for \"deploy\", held by the next with token 7
  bob@build8:2 waits for \"migrations\", behind the next in line
  hint: one of them has to release what it holds; then retry
"
    );
}

#[test]
fn of_a_deadlock_that_is_too_long_to_tell_the_beginning_is_told() {
    let link = |owner: u64| CycleLink {
        session: SessionId(1),
        identity: Identity::new("ann@a:1").unwrap(),
        owner: OwnerId(owner),
        request: RequestId(1),
        lock: LockName::new("x").unwrap(),
        held_with: None,
    };
    let facts = |count: u64| {
        let told = circle(&Cycle { links: (1..=count).map(link).collect(), is_cut: true });
        (told.len(), told.last().cloned())
    };
    let more = Some("and so on: the cycle is too long to list".to_owned());
    assert_eq!(facts(0), (1, more.clone()));
    assert_eq!(facts(3), (4, more.clone()));
    assert_eq!(facts(30), (LINKS_NAMED_MAX + 1, more));
}

#[test]
fn advice_can_be_pasted_into_a_shell() {
    assert_eq!(shell_word("orders/42"), "orders/42");
    assert_eq!(shell_word("a b"), "'a b'");
    assert_eq!(shell_word("it's"), r"'it'\''s'");
    assert_eq!(shell_word("$(rm)"), "'$(rm)'");
    assert_eq!(shell_word("--note=x"), "--note=x");
    assert_eq!(shell_word(""), "''");
}

#[test]
fn a_loss_says_why() {
    let ten = LastAnswer::Ago(Duration::from_secs(10));
    assert_eq!(lost(LostReason::Expired, ten), "no answer from the coordinator for 10s");
    assert_eq!(lost(LostReason::Revoked, ten), "an operator revoked it");
    assert_eq!(lost(LostReason::Stopped, LastAnswer::Unknown), "the coordinator stopped");
    assert!(lost(LostReason::Refused, ten).contains("still in the access file"));
    assert_eq!(
        lost(LostReason::Expired, LastAnswer::Valid),
        "the coordinator does not know its session any more: was its state lost?"
    );
}

#[test]
fn what_others_said_cannot_move_the_terminal() {
    let message = "no\u{1b}[2J\nerror: forged \u{202e}".to_owned();
    let failure = ATTEMPT.failed(&Error::Protocol { server: "here:1".into(), message });
    let text = failure.plain();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("no\\u{1b}[2J\\nerror: forged \\u{202e}"), "{text}");
    let lock =
        Box::new(LockStatus { name: "dep\u{202e}loy".parse().unwrap(), ..status(vec![], vec![]) });
    let failure = Attempt { lock: "dep\u{202e}loy", ..ATTEMPT }.failed(&Error::Busy { lock });
    assert!(failure.plain().starts_with("error: \"dep\\u{202e}loy\" is busy\n"), "{failure:?}");
    assert!(failure.plain().contains("lock -w 10m $'dep\\U0000202eloy' -- "), "{failure:?}");
}

/// Rule R11.
#[test]
fn a_revocation_without_an_answer_is_not_called_failed() {
    let silent = io::Error::new(io::ErrorKind::TimedOut, "no message from it for 5s");
    let failure = ATTEMPT.not_revoked(&Error::Unavailable {
        server: "127.0.0.1:5625".into(),
        source: std::sync::Arc::new(silent),
    });
    assert_eq!(failure.exit, 69);
    assert_eq!(
        failure.plain(),
        "error: not known whether \"deploy\" was revoked: no coordinator answers at 127.0.0.1:5625 (no answer in time)\n  \
         hint: it may be done all the same, once the coordinator can save its state; `coordinator status deploy` shows who holds it\n"
    );
    let no = Error::Rejected { code: RejectionCode::Forbidden, message: "ann may not".to_owned() };
    assert!(ATTEMPT.not_revoked(&no).plain().starts_with("error: not revoked: ann may not\n"));
}
