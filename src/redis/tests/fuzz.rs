//! Fuzzing of what clients say: streams that are almost right, in pieces of any size. They are understood
//! in one way, every request has one answer, and nothing costs more memory than it may.

use bytes::BytesMut;

use super::fake::{Fake, WALL};
use super::requests::{cut, written};
use crate::redis::{Flushing, Protocol, Requests, Scripts, Step, Talk, perform};
use crate::testing::fuzz::{Random, fuzz};

const EXECUTIONS: u64 = 10_000;
const BYTES_MAX: u64 = 4 << 20;

/// Words of which commands are made.
const WORDS: [&[u8]; 48] = [
    b"SET", b"GET", b"DEL", b"SETNX", b"MSETNX", b"EXISTS", b"PEXPIRE", b"EXPIRE", b"PEXPIREAT", b"PERSIST",
    b"PTTL", b"TTL", b"GETEX", b"GETDEL", b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH", b"EVAL", b"EVALSHA",
    b"SCRIPT", b"LOAD", b"HELLO", b"AUTH", b"CLIENT", b"SETNAME", b"INFO", b"RESET", b"QUIT", b"FLUSHDB",
    b"COORDINATOR.WAIT", b"COORDINATOR.TOKEN", b"TIMEOUT", b"NX", b"XX", b"PX", b"PXAT", b"KEEPTTL", b"a", b"b",
    b"0", b"1", b"-1", b"500", b"9223372036854775807", b"",
    b"if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
];

fn stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..random.below(12) {
        let words: Vec<&[u8]> = (0..=random.below(7)).map(|_| *random.pick(&WORDS)).collect();
        if random.once_in(5) {
            stream.extend(words.join(&b' '));
            stream.extend_from_slice(b"\r\n");
        } else {
            stream.extend(written(&words));
        }
    }
    for _ in 0..random.below(3) {
        let at = random.below(stream.len());
        match random.below(3) {
            0 if !stream.is_empty() => stream[at] = random.next().to_le_bytes()[0],
            1 => stream.truncate(at),
            _ => stream.insert(at, *random.pick(b"*$\r\n19-\"'")),
        }
    }
    stream
}

fn answer(step: Step, locks: &mut Fake, out: &mut BytesMut) {
    let reply = match step {
        Step::Say(reply) | Step::Forget(reply) | Step::Leave(reply) => reply,
        Step::Enter { then, .. } => then,
        Step::Do(deed) => perform(&deed, locks),
        Step::Together(steps) => {
            return steps.into_iter().for_each(|step| answer(step, locks, out));
        }
    };
    reply.print(Protocol::Resp3, out);
}

#[test]
fn fuzzed_requests_are_understood_in_one_way_and_answered() {
    fuzz("fuzzed_requests", EXECUTIONS, BYTES_MAX, |mut random| {
        let stream = stream(&mut random);
        let whole = cut(Requests::unproven(), &stream, || usize::MAX);
        let piece_max = *random.pick(&[1, 3, 16]);
        assert_eq!(whole, cut(Requests::unproven(), &stream, || 1 + random.below(piece_max)));
        let mut locks = Fake::new();
        let flushing = *random.pick(&[Flushing::Allowed, Flushing::Refused]);
        let mut talk = Talk::unproven(1, Scripts::default().into(), flushing);
        talk.trust();
        for words in whole.0 {
            let mut out = BytesMut::new();
            answer(talk.hear(&words, WALL).step, &mut locks, &mut out);
            assert!(out.ends_with(b"\r\n") || out.is_empty());
        }
    });
}
