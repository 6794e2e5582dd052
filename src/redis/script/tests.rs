use super::table::KNOWN_COUNT;
use super::*;
use crate::redis::unit::Unit;

const FREE: Script = Script::Free { value: 0, answer: Answer::Number };

/// As somebody writes it by hand.
const BY_HAND: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

#[test]
fn a_script_is_known_whatever_its_white_space_quotes_capitals_and_comments() {
    for text in [
        BY_HAND.to_owned(),
        BY_HAND.replace('\'', "\""),
        BY_HAND.replace(' ', "\n\t  "),
        BY_HAND.replace("get", "GET").replace("del", "Del"),
        format!("-- mine?\n{BY_HAND} -- that is all"),
        format!("--[[ mine?\n or not ]] {BY_HAND}"),
    ] {
        assert_eq!(known(text.as_bytes()), Some(FREE), "{text}");
    }
}

#[test]
fn a_script_that_says_another_word_is_not_known() {
    for text in [
        BY_HAND.replace("KEYS[1]", "KEYS[2]"),
        BY_HAND.replace("==", "~="),
        BY_HAND.replace("return 0", "return 1"),
        BY_HAND.replace("get", "hget"),
        format!("{BY_HAND} return 1"),
        "return 1".to_owned(),
        String::new(),
        "-- nothing".to_owned(),
        "--[[ never closed".to_owned(),
    ] {
        assert_eq!(known(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn the_hash_of_a_text_is_that_of_redis() {
    assert_eq!(to_hex(&sha1(b"return 1")), "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
}

#[test]
fn a_script_is_found_by_its_hash_once_it_was_said_and_not_after_a_flush() {
    let scripts = Scripts::default();
    let hash = to_hex(&sha1(BY_HAND.as_bytes()));
    assert_eq!(scripts.find(hash.as_bytes()), None);
    assert_eq!(scripts.load(BY_HAND.as_bytes()).1, Some(FREE));
    assert_eq!(scripts.find(hash.as_bytes()), Some(FREE));
    assert_eq!(scripts.find(hash.to_uppercase().as_bytes()), Some(FREE));
    for odd in [&hash.as_bytes()[1..], b"", &[b'g'; 40], "ü".repeat(20).as_bytes()] {
        assert_eq!(scripts.find(odd), None);
    }
    scripts.flush();
    assert_eq!(scripts.find(hash.as_bytes()), None);
}

#[test]
fn no_more_texts_are_remembered_than_may_be() {
    let scripts = Scripts::default();
    for count in 0..=SCRIPTS_REMEMBERED_MAX {
        let text = format!("{BY_HAND}{}", " ".repeat(count));
        assert_eq!(scripts.load(text.as_bytes()).1, Some(FREE));
        // What is not known is not remembered.
        scripts.load(format!("return {count}").as_bytes());
        let said = scripts.said.lock().unwrap().len();
        assert_eq!(said, if count < SCRIPTS_REMEMBERED_MAX { count + 1 } else { 1 });
    }
}

#[test]
fn a_length_is_counted_in_the_unit_of_the_command_in_the_script() {
    for (command, unit) in [("pexpire", Unit::Millis), ("expire", Unit::Seconds)] {
        let text = BY_HAND.replace("'del', KEYS[1]", &format!("'{command}', KEYS[1], ARGV[2]"));
        let answer = Answer::Number;
        assert_eq!(known(text.as_bytes()), Some(Script::Extend { value: 0, unit, answer }));
    }
}

#[test]
fn every_hash_of_the_table_is_one_and_stands_there_once() {
    let mut hashes: Vec<_> = table::hashes().collect();
    assert!(hashes.iter().all(|hash| from_hex(hash.as_bytes()).is_some()));
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), KNOWN_COUNT);
}
