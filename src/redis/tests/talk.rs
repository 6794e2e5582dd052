//! The manners of connections.

use std::sync::Arc;

use super::fake::WALL;
use crate::redis::script::{UNKNOWN_REMEMBERED_MAX, sha1, to_hex};
use crate::redis::{Flushing, Protocol, Reply, Scripts, Step, Talk, Unknown, Words};

#[test]
fn the_log_is_told_of_each_unknown_script_and_command_once_and_of_a_bounded_number() {
    let scripts = Arc::<Scripts>::default();
    let mut talk = Talk::unproven(1, Arc::clone(&scripts), Flushing::Refused);
    talk.trust();
    let mut say = |words: &[&str]| {
        talk.hear(&Words::of(words.iter().map(|word| word.as_bytes())), WALL);
        talk.take_unknown()
    };
    let Some(Unknown::Script { hash, start }) = say(&["EVAL", "return 'x\n'", "0"]) else {
        panic!()
    };
    assert_eq!((hash.len(), &*start), (40, "return \\'x\\n\\'"));
    assert_eq!(say(&["EVAL", "return 'x\n'", "0"]), None);
    assert_eq!(say(&["SCRIPT", "LOAD", "return 'x\n'"]), None);
    assert_eq!(say(&["lpush", "a", "b"]), Some(Unknown::Command("LPUSH".into())));
    assert_eq!(say(&["LPUSH", "a", "c"]), None);
    assert_eq!(say(&["GET"]), None, "it is known, and miscounted");
    assert_eq!(say(&["a\nb"]), None, "no name");
    let met = (0..2 * UNKNOWN_REMEMBERED_MAX).filter(|it| say(&[&format!("X{it}")]).is_some());
    assert_eq!(met.count(), UNKNOWN_REMEMBERED_MAX - 1);
}

#[test]
fn who_speaks_is_not_changed_within_a_transaction() {
    for line in [&["AUTH", "secret"][..], &["HELLO", "3", "AUTH", "ann", "secret"], &["HELLO", "3"]]
    {
        let mut talk = Talk::unproven(1, Arc::<Scripts>::default(), Flushing::Refused);
        talk.trust();
        let mut say =
            |words: &[&str]| talk.hear(&Words::of(words.iter().map(|word| word.as_bytes())), WALL);
        say(&["MULTI"]);
        let said = say(line);
        assert!(matches!(said.step, Step::Say(Reply::Error(_))), "{line:?}: {said:?}");
        let said = say(&["EXEC"]);
        let Step::Forget(Reply::Error(no)) = said.step else { panic!("{line:?}: {said:?}") };
        assert!(no.starts_with("EXECABORT"), "{no}");
        assert_eq!(said.protocol, Protocol::Resp2);
        assert!(matches!(say(line).step, Step::Say(Reply::Map(_)) | Step::Enter { .. }));
    }
}

#[test]
fn until_it_is_known_who_speaks_nothing_is_done_of_what_is_said() {
    let scripts = Arc::<Scripts>::default();
    let free = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
    let mut known = Talk::unproven(1, Arc::clone(&scripts), Flushing::Allowed);
    known.trust();
    let mut stranger = Talk::unproven(2, Arc::clone(&scripts), Flushing::Allowed);
    let say = |talk: &mut Talk, words: &[&str]| {
        talk.hear(&Words::of(words.iter().map(|word| word.as_bytes())), WALL)
    };
    say(&mut known, &["SCRIPT", "LOAD", free]);
    for words in [
        &["SCRIPT", "FLUSH"][..],
        &["SCRIPT", "LOAD", free],
        &["EVAL", "return 1", "0"],
        &["MULTI"],
        &["CLIENT", "SETNAME", "x"],
        &["FLUSHALL"],
        &["HELLO", "3"],
        &["LPUSH", "a", "b"],
        &["PING"],
    ] {
        let said = say(&mut stranger, words);
        let Step::Say(Reply::Error(no)) = &said.step else { panic!("{words:?}: {said:?}") };
        assert!(no.starts_with("NOAUTH"), "{words:?}: {no}");
        assert_eq!(said.protocol, Protocol::Resp2);
    }
    assert_eq!((stranger.take_unknown(), stranger.take_new_name()), (None, None));
    let said = say(&mut known, &["SCRIPT", "EXISTS", &to_hex(&sha1(free.as_bytes()))]);
    let exists = Reply::Array(vec![Reply::Integer(1)]);
    assert!(matches!(said.step, Step::Say(reply) if reply == exists), "it was not flushed");
    assert!(matches!(say(&mut stranger, &["AUTH", "\u{fffd}"]).step, Step::Enter { .. }));
    assert!(matches!(say(&mut stranger, &["QUIT"]).step, Step::Leave(_)));
}
