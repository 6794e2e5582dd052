//! What known scripts do. Each is called as its library calls it.

use super::fake::{Fake, name};
use crate::redis::script::{Answer, Rest};
use crate::redis::unit::Unit;
use crate::redis::{Deed, Look, Reply, Script, ScriptCall, perform};

/// Runs a script against these locks.
fn run(redis: &mut Fake, script: Script, keys: &[&str], arguments: &[&str]) -> Reply {
    let keys = keys.iter().map(|key| name(key)).collect();
    let arguments = arguments.iter().map(|argument| argument.as_bytes().to_vec()).collect();
    perform(&Deed::Script(Box::new(ScriptCall { script, keys, arguments })), redis)
}

fn number(number: i64) -> Reply {
    Reply::Integer(number)
}

/// `a` is mine, `b` is another's, `c` is a native client's; the rest is free.
fn locks() -> Fake {
    let mut redis = Fake::new();
    redis.say("SET a mine PX 1000");
    redis.say("SET b other PX 2000");
    redis.hold_natively("c");
    redis
}

#[test]
fn only_what_is_mine_is_freed() {
    let free = |answer| Script::Free { value: 0, answer };
    let mut redis = locks();
    for value in ["min", "mine2", "", "MINE"] {
        assert_eq!(run(&mut redis, free(Answer::Number), &["a"], &[value]), number(0), "{value}");
    }
    redis.say("SET e mine");
    let each = free(Answer::Count);
    assert_eq!(run(&mut redis, each, &["b", "a", "c", "d", "e"], &["mine"]), number(2));
    assert_eq!((redis.say("EXISTS a b c e"), redis.freed), (number(2), 2));
    assert_eq!(run(&mut redis, free(Answer::True), &["b"], &["mine"]), Reply::Nil);
    assert_eq!(run(&mut redis, free(Answer::True), &["b"], &["other"]), number(1));
    let mut redis = locks();
    assert_eq!(
        run(&mut redis, Script::Free { value: 1, answer: Answer::Number }, &["a"], &["0", "mine"]),
        number(1)
    );
}

#[test]
fn a_script_about_one_key_leaves_alone_what_is_said_behind_it() {
    let mut redis = locks();
    redis.say("SET d mine PX 1000");
    for (script, arguments) in [
        (
            Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::Number },
            &["mine", "50"][..],
        ),
        (Script::Extend { value: 0, unit: Unit::Seconds, answer: Answer::True }, &["mine", "50"]),
        (Script::Free { value: 0, answer: Answer::Number }, &["mine"]),
        (Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Number }, &["mine", "50"]),
        (Script::Free { value: 0, answer: Answer::True }, &["mine"]),
    ] {
        assert_eq!(run(&mut redis, script, &["a", "d"], arguments), number(1), "{script:?}");
        assert_eq!(redis.say("PTTL d"), number(1_000), "{script:?}");
    }
    assert_eq!((redis.say("EXISTS a"), redis.say("EXISTS d")), (number(0), number(1)));
}

#[test]
fn all_is_freed_or_nothing_where_a_script_says_so() {
    let mut redis = locks();
    redis.say("SET d mine");
    assert_eq!(run(&mut redis, Script::FreeAll, &["a", "b"], &["mine"]), Reply::Nil);
    assert_eq!(redis.freed, 0);
    assert_eq!(run(&mut redis, Script::FreeAll, &["a", "d"], &["mine"]), Reply::OK);
    assert_eq!(redis.freed, 2);
}

#[test]
fn what_is_gone_is_told_from_what_is_anothers() {
    let mut redis = locks();
    for (key, said, content) in
        [("b", 0, Reply::error("ERROR")), ("c", 0, Reply::error("ERROR")), ("d", -1, Reply::OK)]
    {
        assert_eq!(run(&mut redis, Script::FreeOrGone, &[key], &["mine"]), number(said));
        assert_eq!(run(&mut redis, Script::FreeUnlessGone, &[key], &["mine"]), content);
    }
    assert_eq!(run(&mut redis, Script::FreeOrGone, &["a"], &["mine"]), number(1));
}

#[test]
fn only_what_is_mine_is_extended() {
    let extend = |unit, answer| Script::Extend { value: 0, unit, answer };
    let mut redis = locks();
    let plain = extend(Unit::Millis, Answer::Number);
    for key in ["b", "c", "d"] {
        assert_eq!(run(&mut redis, plain, &[key], &["mine", "9000"]), number(0));
    }
    assert_eq!(run(&mut redis, plain, &["a"], &["mine", "9000"]), number(1));
    assert_eq!(redis.say("PTTL a"), number(9_000));
    assert_eq!(
        run(&mut redis, extend(Unit::Seconds, Answer::True), &["a"], &["mine", "5"]),
        number(1)
    );
    assert_eq!(redis.say("PTTL a"), number(5_000));
    assert_eq!(
        run(&mut redis, extend(Unit::Seconds, Answer::Number), &["a"], &["mine", "-1"]),
        number(1)
    );
    assert_eq!(redis.say("PTTL a"), number(-1));
    redis.say("SET d mine PX 10");
    let several = extend(Unit::Millis, Answer::Count);
    assert_eq!(run(&mut redis, several, &["a", "d"], &["mine", "70"]), number(2));
    assert_eq!((redis.say("PTTL a"), redis.say("PTTL d")), (number(70), number(70)));
    assert_eq!(run(&mut redis, several, &["a", "b"], &["mine", "80"]), number(0));
    assert_eq!(redis.say("PTTL a"), number(70));
    assert_eq!(
        run(&mut redis, extend(Unit::Millis, Answer::Ok), &["a", "b"], &["mine", "80"]),
        Reply::Nil
    );
    assert_eq!(run(&mut redis, plain, &["a"], &["mine", "0"]), number(1));
    assert_eq!(redis.say("EXISTS a"), number(0));
}

#[test]
fn an_extension_is_added_or_takes_the_place_of_what_is_left() {
    let mut redis = locks();
    assert_eq!(run(&mut redis, Script::ExtendBy, &["a"], &["mine", "500", "0"]), number(1));
    assert_eq!(redis.say("PTTL a"), number(1_500));
    assert_eq!(run(&mut redis, Script::ExtendBy, &["a"], &["mine", "500", "1"]), number(1));
    assert_eq!(redis.say("PTTL a"), number(500));
    assert_eq!(run(&mut redis, Script::ExtendBy, &["b"], &["mine", "500", "1"]), number(0));
    redis.say("PERSIST a");
    assert_eq!(run(&mut redis, Script::ExtendBy, &["a"], &["mine", "500", "0"]), number(0));
}

#[test]
fn an_extension_that_comes_too_late_is_told_so() {
    let mut redis = locks();
    let pair = |said, left| Reply::from(vec![number(said), number(left)]);
    let run = |redis: &mut Fake, key, least| {
        run(redis, Script::ExtendInTime, &[key], &["mine", least, "9000"])
    };
    assert_eq!(run(&mut redis, "d", "10"), pair(-1, -2));
    assert_eq!(run(&mut redis, "a", "1001"), pair(0, 1_000));
    assert_eq!(run(&mut redis, "b", "10"), pair(-1, 2_000));
    assert_eq!(run(&mut redis, "a", "1000"), pair(1, 1_000));
    assert_eq!(redis.say("PTTL a"), number(9_000));
}

#[test]
fn all_are_taken_or_none() {
    let take = Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Count };
    let mut redis = locks();
    assert_eq!(run(&mut redis, take, &["d", "b"], &["mine", "100"]), number(0));
    assert_eq!(run(&mut redis, take, &["d", "c"], &["mine", "100"]), number(0));
    assert_eq!(redis.say("EXISTS d"), number(0));
    assert_eq!(run(&mut redis, take, &["d", "e"], &["mine", "100"]), number(2));
    assert_eq!((redis.say("PTTL d"), redis.say("GET e")), (number(100), Reply::text("mine")));
    redis.kept.insert(name("g"));
    assert_eq!(run(&mut redis, take, &["f", "g"], &["mine", "100"]), number(0));
    assert_eq!(redis.say("EXISTS f g"), number(0));

    let each =
        |redis: &mut Fake, keys: &[&str]| run(redis, Script::TakeEach, keys, &["1", "2", "300"]);
    let no = |place, key| vec![number(0), number(place), Reply::text(key)].into();
    assert_eq!(each(&mut redis, &["h", "b"]), no(2, "b"));
    assert_eq!(each(&mut redis, &["h", "g"]), no(1, "h"));
    assert_eq!(each(&mut redis, &["h", "i"]), vec![number(1), number(2)].into());
    assert_eq!((redis.say("GET h"), redis.say("GET i")), (Reply::text("1"), Reply::text("2")));
    let seconds = Script::Take { value: 0, unit: Unit::Seconds, answer: Answer::Number };
    assert_eq!(run(&mut redis, seconds, &["j"], &["mine", "-1"]), number(1));
    assert_eq!(redis.say("TTL j"), number(-1));
}

#[test]
fn a_key_that_is_said_twice_is_one_key() {
    let take = Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Count };
    let mut redis = locks();
    assert_eq!(run(&mut redis, take, &["d", "d"], &["mine", "100"]), number(2));
    assert_eq!(redis.say("MSETNX e 1 f 2 e 3"), number(1));
    assert_eq!(redis.say("GET e"), Reply::text("3"));
    redis.kept.insert(name("h"));
    assert_eq!(redis.say("MSETNX g 1 g 2 h 3"), number(0));
    assert_eq!(redis.say("EXISTS g"), number(0));
    assert_eq!(run(&mut redis, Script::FreeAll, &["d", "d"], &["mine"]), Reply::OK);
    let over = Script::Extend { value: 0, unit: Unit::Millis, answer: Answer::Number };
    assert_eq!(run(&mut redis, over, &["a", "a"], &["mine", "0"]), number(1));
    assert_eq!(redis.say("DEL b b"), number(1));
}

#[test]
fn what_is_free_is_taken_and_what_is_mine_is_extended() {
    for (answer, yes, no) in [
        (Answer::True, number(1), Reply::Nil),
        (Answer::OkOrError, Reply::OK, Reply::error("ERROR")),
        (Answer::NumberOrMinusOne, number(1), number(-1)),
        (Answer::Number, number(1), number(0)),
    ] {
        let (mut redis, script) = (locks(), Script::TakeOrExtend { answer });
        assert_eq!(run(&mut redis, script, &["a"], &["mine", "50"]), yes);
        assert_eq!(run(&mut redis, script, &["b"], &["mine", "50"]), no);
        assert_eq!(run(&mut redis, script, &["c"], &["mine", "50"]), no);
        assert_eq!(run(&mut redis, script, &["d"], &["mine", "50"]), yes);
        assert_eq!((redis.say("PTTL a"), redis.say("PTTL d")), (number(50), number(50)));
        assert_eq!(redis.say("COORDINATOR.TOKEN a"), number(1));
    }
    let (mut redis, script) = (locks(), Script::TakeOrExtendIfAllowed);
    assert_eq!(run(&mut redis, script, &["d"], &["mine", "50", "no"]), Reply::Nil);
    assert_eq!(run(&mut redis, script, &["a"], &["mine", "50", "no"]), Reply::OK);
    assert_eq!(run(&mut redis, script, &["d"], &["mine", "50", "yes"]), Reply::OK);
}

#[test]
fn what_begins_as_mine_is_obtained_again_and_nothing_else() {
    let mut redis = Fake::new();
    let obtain = |redis: &mut Fake, keys: &[&str], value| {
        run(redis, Script::Obtain, keys, &[value, "4", "100"])
    };
    assert_eq!(obtain(&mut redis, &["a", "b"], "tokn-first"), Reply::OK);
    assert_eq!(obtain(&mut redis, &["a", "b"], "tokn-second"), Reply::OK);
    assert_eq!(redis.say("GET b"), Reply::text("tokn-second"));
    assert_eq!(obtain(&mut redis, &["a", "b"], "toke-third"), Reply::Nil);
    assert_eq!(obtain(&mut redis, &["a", "c"], "tokn-third"), Reply::Nil);
    assert_eq!(run(&mut redis, Script::Obtain, &["a"], &["other", "0", "100"]), Reply::Nil);
    redis.say("SET short tok");
    assert_eq!(obtain(&mut redis, &["short"], "tokn"), Reply::Nil);
}

#[test]
fn how_long_is_left_is_told_of_what_is_mine() {
    let mut redis = locks();
    redis.say("SET d mine");
    for (rest, ends, endless, not_mine) in [
        (Rest::OrZero, number(1_000), number(0), number(0)),
        (Rest::OrMinusThree, number(1_000), number(-1), number(-3)),
        (Rest::Shortest, number(1_000), number(0), Reply::Nil),
        (Rest::OrError, number(1), number(-1), Reply::error("ERROR")),
    ] {
        assert_eq!(run(&mut redis, Script::Rest(rest), &["a"], &["mine"]), ends);
        assert_eq!(run(&mut redis, Script::Rest(rest), &["d"], &["mine"]), endless);
        for key in ["b", "c", "e"] {
            assert_eq!(run(&mut redis, Script::Rest(rest), &[key], &["mine"]), not_mine);
        }
    }
    let two = vec![Reply::text("mine"), number(1_000)].into();
    assert_eq!(run(&mut redis, Script::Inspect, &["a"], &[]), two);
    assert_eq!(run(&mut redis, Script::Inspect, &["e"], &[]), Reply::Nil);
    let none = vec![Reply::Nil, number(-2)].into();
    assert_eq!(run(&mut redis, Script::Look, &["e"], &[]), none);
}

#[test]
fn a_script_is_found_by_text_and_by_hash_and_no_other_is_run() {
    let mut redis = locks();
    let text = "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    let no =
        redis.say_words(&["EVALSHA", "0123456789012345678901234567890123456789", "1", "a", "mine"]);
    assert!(matches!(no, Reply::Error(why) if why.starts_with("NOSCRIPT")));
    let Reply::Bulk(hash) = redis.say_words(&["SCRIPT", "LOAD", text]) else { panic!() };
    let hash = String::from_utf8(hash).unwrap();
    assert_eq!(
        redis.say_words(&["SCRIPT", "EXISTS", &hash, "x"]),
        vec![number(1), number(0)].into()
    );
    assert_eq!(redis.say_words(&["EVALSHA", &hash, "1", "a", "mine"]), number(1));
    redis.say("SCRIPT FLUSH");
    assert!(redis.say_words(&["EVALSHA", &hash, "1", "a", "mine"]).is_error());
    assert_eq!(redis.script(text, &["b"], &["other"]), number(1));
    assert!(redis.script("return redis.call('flushall')", &[], &[]).is_error());
    assert!(redis.say_words(&["SCRIPT", "LOAD", "return 1"]).is_error());
}

#[test]
fn a_script_called_with_too_little_is_refused() {
    let mut redis = locks();
    let free = Script::Free { value: 0, answer: Answer::Number };
    let take = Script::Take { value: 0, unit: Unit::Millis, answer: Answer::Count };
    for (script, keys, arguments) in [
        (free, &["a"][..], &[][..]),
        (free, &[], &["mine"]),
        (take, &["d"], &["mine"]),
        (take, &["d"], &["mine", "x"]),
        (take, &["d"], &["mine", "0"]),
        (take, &[], &["mine", "10"]),
        (Script::TakeEach, &["d"], &[]),
        (Script::TakeEach, &["d", "e", "f"], &["1", "10"]),
        (Script::ExtendBy, &["a"], &["mine", "5"]),
        (Script::Inspect, &[], &[]),
    ] {
        assert!(run(&mut redis, script, keys, arguments).is_error(), "{script:?}");
    }
    let text = "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    for call in [
        &["EVAL"][..],
        &["EVAL", text],
        &["EVAL", text, "-1"],
        &["EVAL", text, "2", "a"],
        &["EVAL", text, "x"],
    ] {
        assert!(redis.say_words(call).is_error(), "{call:?}");
    }
    assert!(matches!(redis.keys[&name("a")], Look::Ours(_)));
}
