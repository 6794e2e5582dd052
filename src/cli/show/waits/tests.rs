//! The drawing of who waits for whom.

use coordinator::wire::{After, Mode, Pause, ServerStatus};

use super::*;
use coordinator::types::{FencingToken, OwnerId, RequestId, SessionId};

fn holder(session: u128, identity: &str, owner: u64, token: u64) -> Holder {
    Holder {
        session: SessionId::new(session),
        identity: identity.parse().unwrap(),
        peer: "127.0.0.1:41000".to_owned(),
        owner: OwnerId::new(owner),
        request: RequestId::new(token),
        mode: Mode::Exclusive,
        token: FencingToken::new(token),
        held_ms: 252_000,
        note: "".parse().unwrap(),
        connected: true,
    }
}

fn waiter(session: u128, identity: &str, owner: u64) -> Waiter {
    Waiter {
        session: SessionId::new(session),
        identity: identity.parse().unwrap(),
        peer: "127.0.0.1:41000".to_owned(),
        owner: OwnerId::new(owner),
        request: RequestId(99),
        mode: Mode::Exclusive,
        waiting_ms: 3_000,
        note: "".parse().unwrap(),
    }
}

fn lock(name: &str, holders: Vec<Holder>, waiters: Vec<Waiter>) -> LockStatus {
    LockStatus {
        name: name.parse().unwrap(),
        holder_count: holders.len() as u64,
        waiter_count: waiters.len() as u64,
        holders,
        waiters,
    }
}

/// A deploy for which bob waits, who holds what eve waits for.
fn chain() -> Vec<LockStatus> {
    let ci = Holder {
        peer: "10.0.0.7:4100".to_owned(),
        note: "deploy v2.3".parse().unwrap(),
        ..holder(1, "ci-7 (ann@build7, pid 8123)", 0, 1881)
    };
    let reader = Waiter { mode: Mode::Shared, ..waiter(3, "eve@build9:7", 0) };
    vec![
        lock("deploy", vec![ci], vec![waiter(2, "bob@build8:12", 7), waiter(4, "joe@b:1", 0)]),
        lock("migrations", vec![holder(2, "bob@build8:12", 7, 1880)], vec![reader]),
        lock("unrelated", vec![holder(2, "bob@build8:12", 7, 1879)], vec![]),
    ]
}

#[test]
fn the_tree_grows_from_those_who_wait_for_nothing() {
    assert_eq!(
        tree(&chain(), &[], Lines::Unicode),
        "\
ci-7 (ann@build7, pid 8123, 10.0.0.7)
└─ holds \"deploy\" for 4m12s  token 1881  note \"deploy v2.3\"
   ├─ 1st in line: bob@build8:12 owner 7 for 3s
   │  └─ holds \"migrations\" for 4m12s  token 1880
   │     └─ 1st in line: eve@build9:7 for 3s  shared
   └─ 2nd in line: joe@b:1 for 3s
"
    );
    let ascii = tree(&chain(), &[], Lines::Ascii);
    assert!(ascii.contains("\n   |- 1st in line: bob"), "{ascii}");
    assert!(ascii.contains("\n   |  `- holds \"migrations\""), "{ascii}");
    assert!(ascii.is_ascii(), "{ascii}");
}

#[test]
fn who_has_no_owner_holds_nothing_while_it_waits() {
    let mut locks = chain();
    locks[0].waiters[0].owner = OwnerId(0);
    locks[1].holders[0].owner = OwnerId(0);
    let text = tree(&locks, &[], Lines::Unicode);
    assert!(text.contains("\n   ├─ 1st in line: bob@build8:12 for 3s\n   └─ 2nd"), "{text}");
    assert!(text.contains("\nbob@build8:12\n└─ holds \"migrations\""), "{text}");
}

#[test]
fn a_lock_is_drawn_once_and_a_circle_has_an_end() {
    let locks = [
        lock("a", vec![holder(1, "ann", 1, 5)], vec![waiter(2, "bob", 1)]),
        lock("b", vec![holder(2, "bob", 1, 6)], vec![waiter(1, "ann", 1), waiter(3, "eve", 0)]),
    ];
    assert_eq!(
        tree(&locks, &[], Lines::Unicode),
        "\
ann owner 1, who waits for \"b\"
└─ holds \"a\" for 4m12s  token 5
   └─ 1st in line: bob owner 1 for 3s
      └─ holds \"b\" for 4m12s  token 6
         ├─ 1st in line: ann owner 1 for 3s
         │  └─ holds \"a\" for 4m12s  token 5  (a cycle)
         └─ 2nd in line: eve for 3s
"
    );
    let twice = vec![waiter(2, "bob", 1)];
    let locks = [
        lock("a", vec![holder(1, "ann", 1, 5)], twice.clone()),
        lock("b", vec![holder(1, "ann", 1, 5)], twice),
        lock("c", vec![holder(2, "bob", 1, 6)], vec![waiter(3, "eve", 0)]),
    ];
    let text = tree(&locks, &[], Lines::Unicode);
    assert_eq!(text.matches("1st in line: eve").count(), 1, "{text}");
    assert!(text.ends_with("      └─ holds \"c\" for 4m12s  token 6  (see above)\n"), "{text}");
}

#[test]
fn fellow_holders_are_named_and_counted() {
    let shared = |n: u64| Holder { mode: Mode::Shared, ..holder(n.into(), &format!("s{n}"), 0, n) };
    let mut config = lock("config", (1..=6).map(shared).collect(), vec![waiter(9, "ann", 0)]);
    config.holder_count = 9;
    assert_eq!(
        tree(&[config], &[], Lines::Unicode),
        "\
s1
└─ holds \"config\" for 4m12s  token 1  shared  with s2, s3, s4 and 5 more
   └─ 1st in line: ann for 3s
"
    );
}

#[test]
fn a_lock_that_nobody_holds_is_drawn_too() {
    let free = lock("free", vec![], vec![waiter(1, "ann", 0)]);
    let expected = "nobody holds \"free\"\n└─ 1st in line: ann for 3s\n";
    let free = [free];
    assert_eq!(tree(&free, &[], Lines::Unicode), expected);
    let pause = Pause {
        after: After::Grant,
        session: SessionId::new(1),
        identity: "cron@db1:77".parse().unwrap(),
        token: FencingToken::new(1650),
        granted_ms: 60_000,
        length_ms: 3_600_000,
        left_ms: 3_540_000,
    };
    let kept = Outlook { name: free[0].name.clone(), free_ms: None, pauses: vec![pause] };
    let text = tree(&free, &[kept], Lines::Unicode);
    let why = ": kept for 59m more: at least 1h from its grant 1m ago, cron@db1:77  token 1650";
    assert!(text.lines().next().unwrap().ends_with(why), "{text}");
    assert_eq!(tree(&[], &[], Lines::Unicode), "nobody waits\n");
    let held = lock("held", vec![holder(1, "ann", 0, 1)], vec![]);
    assert_eq!(tree(&[held], &[], Lines::Unicode), "nobody waits\n");
}

#[test]
fn what_is_left_out_is_counted() {
    let crowd = |n| (0..n).map(|n| waiter(n, "ann", 0)).collect::<Vec<_>>();
    let mut queue = lock("queue", vec![holder(1, "bob", 0, 1)], crowd(30));
    queue.waiter_count = 500;
    let text = tree(&[queue], &[], Lines::Unicode);
    assert_eq!(text.lines().count(), 2 + WAITERS_MAX + 1);
    assert!(text.ends_with("\n   └─ … and 480 more\n"), "{text}");

    let one = |n: u64| lock(&format!("{n:04}"), vec![holder(n.into(), "bob", 0, n)], crowd(1));
    let many: Vec<_> = (0..2000).map(one).collect();
    let text = tree(&many, &[], Lines::Unicode);
    assert_eq!(text.lines().count(), LINES_MAX + 1);
    assert!(text.ends_with("more locks with waiters\n"), "{text}");
}

#[test]
fn however_long_the_chain_the_tree_is_bounded() {
    let link = |n: u64| {
        let name = format!("{n:05}");
        let waits = vec![waiter(u128::from(n) + 1, "ann", 1)];
        lock(&name, vec![holder(n.into(), "ann", 1, n)], waits)
    };
    let locks: Vec<_> = (0..20_000).map(link).collect();
    let text = tree(&locks, &[], Lines::Unicode);
    assert!(text.contains("└─ … and so on\n"));
    assert!(text.lines().count() <= LINES_MAX + 1);
}

#[test]
fn the_locale_says_what_can_be_shown() {
    let lines = |locale: &str| Lines::of(Some(locale.to_owned()));
    assert_eq!(lines("de_DE.UTF-8"), Lines::Unicode);
    assert_eq!(lines("C.utf8"), Lines::Unicode);
    assert_eq!(lines("C"), Lines::Ascii);
    assert_eq!(Lines::of(None), Lines::Ascii);
}

#[test]
fn programs_are_told_what_waiters_hold() {
    let server = ServerStatus::default();
    let json = as_json(&Seen {
        journal: None,
        cluster: None,
        server,
        locks: chain(),
        outlooks: vec![],
        sessions: None,
    });
    assert_eq!(json["locks"][0]["waiters"][0]["holds"], json!(["migrations"]));
    assert_eq!(json["locks"][0]["waiters"][0]["owner"], 7);
    assert_eq!(json["locks"][0]["waiters"][1]["holds"], json!([]));
    let described = include_str!("../../../../docs/status-json.md");
    for name in json["locks"][0]["waiters"][0].as_object().unwrap().keys() {
        assert!(described.contains(&format!("`{name}`")), "{name} is not described");
    }
}
