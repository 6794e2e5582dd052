//! What commands mean, in words of locks.

use std::time::Duration;

use super::fake::{Fake, WALL, name};
use crate::redis::{Look, Reply};
use crate::types::MARK_LEN_MAX;

const NIL: Reply = Reply::Nil;

fn number(number: i64) -> Reply {
    Reply::Integer(number)
}

fn is_error(reply: &Reply, start: &str) -> bool {
    matches!(reply, Reply::Error(sentence) if sentence.starts_with(start))
}

#[test]
fn whoever_comes_first_has_the_key_until_it_frees_it() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("SET order mine NX PX 30000"), Reply::OK);
    assert_eq!(redis.say("SET order yours NX PX 30000"), NIL);
    assert_eq!(redis.say("SETNX order yours"), number(0));
    assert_eq!(redis.say("GET order"), Reply::text("mine"));
    assert_eq!(redis.say("PTTL order"), number(30_000));
    assert_eq!(redis.say("TTL order"), number(30));
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), number(1));
    assert_eq!(redis.say("DEL order other"), number(1));
    assert_eq!(redis.say("SETNX order yours"), number(1));
    assert_eq!(redis.say("TTL order"), number(-1));
    assert_eq!(redis.say("TTL other"), number(-2));
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), number(2));
    assert_eq!(redis.say("COORDINATOR.TOKEN other"), NIL);
}

#[test]
fn a_set_for_which_others_are_in_line_is_not_granted() {
    let mut redis = Fake::new();
    redis.kept.insert(name("order"));
    assert_eq!(redis.say("SET order mine NX PX 30000"), NIL);
    assert_eq!(redis.say("SET order mine NX PXAT 1"), NIL);
    // To whoever asks for the value before, nothing would say that it has the lock.
    for line in ["SET order mine", "SET order mine NX PX 30000 GET", "SET order mine GET"] {
        assert!(is_error(&redis.say(line), "COORDINATOR 'order' is kept for others"), "{line}");
    }
    assert_eq!(redis.say("SET order mine XX GET"), NIL);
    assert_eq!(redis.say("MSETNX a 1 order 2"), number(0));
    assert_eq!((redis.say("EXISTS a order"), redis.freed), (number(0), 1));
}

#[test]
fn a_set_in_any_case_hands_the_key_over_as_redis_does() {
    let mut redis = Fake::new();
    redis.say("SET order mine PX 30000");
    assert_eq!(redis.say("SET order yours PX 500"), Reply::OK);
    assert_eq!(
        (redis.say("GET order"), redis.say("PTTL order")),
        (Reply::text("yours"), number(500))
    );
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), number(1));
    redis.say("SET order mine PX 30000");
    // Its holder sets it again: a new end, or none.
    assert_eq!(redis.say("SET order mine PX 40000"), Reply::OK);
    assert_eq!(redis.say("PTTL order"), number(40_000));
    assert_eq!(redis.say("SET order mine KEEPTTL"), Reply::OK);
    assert_eq!(redis.say("PTTL order"), number(40_000));
    assert_eq!(redis.say("SET order mine"), Reply::OK);
    assert_eq!(redis.say("PTTL order"), number(-1));
}

#[test]
fn a_set_of_what_is_set_changes_value_and_end() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("SET order mine XX PX 1"), NIL);
    redis.say("SET order mine NX PX 30000");
    assert_eq!(redis.say("SET order later XX PX 500"), Reply::OK);
    assert_eq!(
        (redis.say("GET order"), redis.say("PTTL order")),
        (Reply::text("later"), number(500))
    );
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), number(1));
    assert_eq!(redis.say("SET order x XX GET PX 600"), Reply::text("later"));
    assert_eq!(redis.say("SET other x NX GET"), NIL);
    assert_eq!(redis.say("SET other y NX GET"), Reply::text("x"));
}

#[test]
fn a_native_clients_lock_is_seen_and_not_touched() {
    let mut redis = Fake::new();
    redis.hold_natively("order");
    assert_eq!(redis.say("SET order mine NX"), NIL);
    assert_eq!(redis.say("GET order"), Reply::text("coordinator:ann"));
    assert_eq!(redis.say("EXISTS order"), number(1));
    assert_eq!(redis.say("PTTL order"), number(10_000));
    assert_eq!(redis.say("COORDINATOR.TOKEN order"), number(99));
    for line in [
        "SET order mine",
        "SET order coordinator:ann",
        "SET order mine XX",
        "DEL order",
        "UNLINK order",
        "GETDEL order",
        "PEXPIRE order 1",
        "EXPIRE order 0",
        "PERSIST order",
    ] {
        let said = redis.say(line);
        assert!(
            is_error(&said, "COORDINATOR 'order' is held by a native client, ann"),
            "{line}: {said:?}"
        );
    }
    let free = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
    assert_eq!(redis.script(free, &["order"], &["coordinator:ann"]), number(0));
    assert!(matches!(redis.keys[&name("order")], Look::Theirs { .. }));
}

#[test]
fn an_end_is_set_as_redis_sets_it() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("PEXPIRE order 100"), number(0));
    redis.say("SET order mine");
    for (line, done, left) in [
        ("PEXPIRE order 100 XX", 0, -1),
        ("PEXPIRE order 100 GT", 0, -1),
        ("PEXPIRE order 900 LT", 1, 900),
        ("PEXPIRE order 100 NX", 0, 900),
        ("PEXPIRE order 800 GT", 0, 900),
        ("PEXPIRE order 1000 GT", 1, 1_000),
        ("EXPIRE order 2", 1, 2_000),
        ("PERSIST order", 1, -1),
        ("PERSIST order", 0, -1),
        ("EXPIREAT order 1800000003", 1, 3_000),
        ("PEXPIREAT order 1800000000004", 1, 4),
    ] {
        assert_eq!(redis.say(line), number(done), "{line}");
        assert_eq!(redis.say("PTTL order"), number(left), "{line}");
    }
    assert_eq!(redis.say("PEXPIRETIME order"), number(1_800_000_000_004));
    assert_eq!(redis.say("EXPIRETIME order"), number(1_800_000_001));
    assert_eq!(redis.say("GETEX order EX 9"), Reply::text("mine"));
    assert_eq!(redis.say("TTL order"), number(9));
    assert_eq!(redis.say("GETEX order PERSIST"), Reply::text("mine"));
    assert_eq!(redis.say("TTL order"), number(-1));
}

#[test]
fn an_end_that_has_passed_frees_the_key() {
    for line in [
        "PEXPIRE order 0",
        "EXPIRE order -1",
        "PEXPIREAT order 1",
        "SET order mine PXAT 1",
        "SET order x XX PXAT 1",
        "GETEX order PXAT 1",
    ] {
        let mut redis = Fake::new();
        redis.say("SET order mine");
        redis.say(line);
        assert_eq!(redis.say("EXISTS order"), number(0), "{line}");
    }
    let mut redis = Fake::new();
    assert_eq!(redis.say("SET order mine NX PXAT 1"), Reply::OK);
    assert_eq!(redis.say("EXISTS order"), number(0));
}

#[test]
fn a_time_is_as_long_as_allowed_and_not_longer() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("SET order mine NX PX 9007199254740991"), Reply::OK);
    assert_eq!(redis.say("PTTL order"), number(9_007_199_254_740_991));
    for line in [
        "SET a b PX 9007199254740992",
        "SET a b PX 0",
        "SET a b PX -1",
        "SET a b EX 9223372036854775807",
        "PSETEX a 0 b",
        "PEXPIRE order 9007199254740992",
        "EXPIRE order 9223372036854775807",
    ] {
        let said = redis.say(line);
        assert!(is_error(&said, "ERR invalid expire time"), "{line}: {said:?}");
    }
    for line in ["SET a b PX x", "SET a b PX 1.5", "SET a b PX 99999999999999999999", "EXPIRE a x"]
    {
        assert!(is_error(&redis.say(line), "ERR value is not an integer"), "{line}");
    }
}

#[test]
fn a_set_is_understood_in_any_order_or_not_at_all() {
    for line in
        ["SET a b PX 5 NX", "set a b nx px 5", "SET a b NX PXAT 1800000000005", "PSETEX a 5 b"]
    {
        let mut redis = Fake::new();
        assert_eq!(redis.say(line), Reply::OK, "{line}");
        assert_eq!(redis.say("PTTL a"), number(5), "{line}");
    }
    let mut redis = Fake::new();
    for line in [
        "SET a b NX XX",
        "SET a b PX 5 EX 5",
        "SET a b KEEPTTL PX 5",
        "SET a b c",
        "SET a b NX NX",
        "EXPIRE a 5 ZZ",
        "GETEX a NX",
        "COORDINATOR.WAIT a b NX",
    ] {
        assert!(is_error(&redis.say(line), "ERR syntax error"), "{line}");
    }
    for line in [
        "SET a",
        "SET",
        "GET",
        "GET a b",
        "DEL",
        "SETNX a b c",
        "MSETNX a",
        "MSETNX",
        "TTL",
        "SET a b PX",
        "EXPIRE a",
        "PERSIST a b",
        "COORDINATOR.TOKEN",
        "WATCH",
        "ECHO",
    ] {
        assert!(is_error(&redis.say(line), "ERR wrong number of arguments"), "{line}");
    }
}

#[test]
fn a_key_is_a_lock_name_and_a_value_is_short() {
    let mut redis = Fake::new();
    let long = "k".repeat(256);
    for key in ["", "a\nb", &long] {
        let said = redis.say_words(&["SET", key, "mine"]);
        assert!(is_error(&said, "ERR a key is the name of a lock here"), "{said:?}");
    }
    let value = "v".repeat(MARK_LEN_MAX + 1);
    assert_eq!(redis.say_words(&["SET", &long[1..], &value[1..], "NX"]), Reply::OK);
    assert!(is_error(
        &redis.say_words(&["SET", "a", &value, "NX"]),
        "ERR the value has 1025 bytes"
    ));
    assert_eq!(redis.say_words(&["STRLEN", &long[1..]]), number(1024));
    assert_eq!(redis.say("TYPE a"), Reply::Simple("none"));
}

#[test]
fn whoever_takes_this_for_a_store_of_data_is_told_what_it_is() {
    let mut redis = Fake::new();
    for line in [
        "HSET a b c",
        "LPUSH a b",
        "SUBSCRIBE a",
        "KEYS *",
        "GETSET a b",
        "INCR a",
        "APPEND a b",
        "XADD",
        "A-NAME-THAT-IS-LONGER-THAN-ANY-COMMAND-IS",
        "\u{7f}",
    ] {
        let said = redis.say(line);
        assert!(is_error(&said, "ERR unknown command '"), "{line}: {said:?}");
        let Reply::Error(sentence) = said else { continue };
        assert!(sentence.contains("this is a lock service") && sentence.len() < 250, "{sentence}");
    }
}

#[test]
fn libraries_hear_what_they_expect_when_they_connect() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("PING"), Reply::Simple("PONG"));
    assert_eq!(redis.say("ping hello"), Reply::text("hello"));
    let Reply::Map(greeting) = redis.say("HELLO 3 SETNAME worker") else { panic!() };
    assert!(greeting.contains(&(Reply::text("proto"), number(3))));
    assert_eq!(redis.say("CLIENT GETNAME"), Reply::text("worker"));
    assert_eq!(redis.say("CLIENT SETINFO LIB-NAME x"), Reply::OK);
    assert_eq!(redis.say("CLIENT ID"), number(7));
    assert_eq!(redis.say("SELECT 0"), Reply::OK);
    assert!(is_error(&redis.say("SELECT 1"), "ERR DB index is out of range"));
    assert!(is_error(&redis.say("HELLO 4"), "NOPROTO"));
    assert!(is_error(&redis.say("CONFIG SET a b"), "ERR"));
    assert_eq!(redis.say("WAIT 1 100"), number(0));
    let Reply::Bulk(info) = redis.say("INFO") else { panic!() };
    let info = String::from_utf8(info).unwrap();
    for line in [
        "redis_version:7.2.0",
        "redis_mode:standalone",
        "arch_bits:64",
        "cluster_enabled:0",
        "role:master",
        "loading:0",
    ] {
        assert!(info.lines().any(|it| it == line), "{line}");
    }
    let time = vec![Reply::text(WALL.as_secs().to_string()), Reply::text("0")].into();
    assert_eq!(redis.say("TIME"), time);
    assert_eq!(redis.say("RESET"), Reply::Simple("RESET"));
    assert_eq!(redis.say("CLIENT GETNAME"), NIL);
    assert_eq!(redis.say("QUIT"), Reply::OK);
}

#[test]
fn nobody_frees_all_locks_unless_that_is_allowed() {
    let mut redis = Fake::new();
    redis.say("SET order mine");
    assert!(is_error(&redis.say("FLUSHDB"), "ERR FLUSHDB would take all locks"));
    assert_eq!((redis.say("EXISTS order"), redis.say("DBSIZE")), (number(1), number(1)));
}

#[test]
fn a_transaction_is_done_at_its_end_and_all_of_it() {
    let mut redis = Fake::new();
    let queued = Reply::Simple("QUEUED");
    assert_eq!(redis.say("MULTI"), Reply::OK);
    assert!(is_error(&redis.say("MULTI"), "ERR MULTI calls can not be nested"));
    assert!(is_error(&redis.say("WATCH a"), "ERR WATCH inside MULTI"));
    for line in ["SET a b NX", "GET a", "PING", "DEL a"] {
        assert_eq!(redis.say(line), queued);
    }
    assert!(redis.keys.is_empty());
    let all = vec![Reply::OK, Reply::text("b"), Reply::Simple("PONG"), number(1)];
    assert_eq!(redis.say("EXEC"), all.into());
    assert!(is_error(&redis.say("EXEC"), "ERR EXEC without MULTI"));
    redis.say("MULTI");
    redis.say("SET a b");
    assert_eq!(redis.say("DISCARD"), Reply::OK);
    assert!(is_error(&redis.say("DISCARD"), "ERR DISCARD without MULTI"));
    assert!(redis.keys.is_empty());
}

#[test]
fn a_transaction_in_which_something_was_wrong_is_not_done() {
    let mut redis = Fake::new();
    for wrong in ["HSET a b c", "SET a", "GET"] {
        redis.say("MULTI");
        redis.say("SET a b");
        redis.say(wrong);
        assert!(is_error(&redis.say("EXEC"), "EXECABORT"), "{wrong}");
        assert!(redis.keys.is_empty());
    }
    redis.say("MULTI");
    for _ in 0..crate::redis::QUEUED_MAX {
        assert_eq!(redis.say("PING"), Reply::Simple("QUEUED"));
    }
    assert!(is_error(&redis.say("PING"), "ERR a transaction has at most"));
    assert!(is_error(&redis.say("EXEC"), "EXECABORT"));
}

#[test]
fn a_wait_in_a_transaction_is_a_try_and_tells_the_token() {
    let mut redis = Fake::new();
    assert_eq!(redis.say("COORDINATOR.WAIT order mine PX 500 TIMEOUT 1000"), number(1));
    assert_eq!(redis.say("COORDINATOR.WAIT order yours"), NIL);
    let Look::Ours(ours) = &redis.keys[&name("order")] else { panic!() };
    assert_eq!(ours.left, Some(Duration::from_millis(500)));
}

#[test]
fn several_keys_are_deleted_or_none_is() {
    let mut fake = Fake::new();
    assert_eq!(fake.say("SET a mine NX"), Reply::OK);
    fake.hold_natively("b");
    assert!(fake.say("DEL a b").is_error());
    assert_eq!(fake.say("EXISTS a"), Reply::Integer(1));
    assert_eq!(fake.say("DEL a c"), Reply::Integer(1));
}
