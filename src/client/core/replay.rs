//! Replay of the corpus of traces by this core: it still says the same (conformance test).
//!
//! If a rule was changed on purpose, `scripts/traces` makes the corpus anew.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::types::{RequestId, Timestamp, Ttl};
use crate::wire::{ClientMessage, Extra, Request, decode};

use super::trace::Trace;
use super::{Ask, Core, Introduction, Reconnect};

/// The corpus, unpacked by the Python that other tests need too: no crate is worth it.
fn corpus() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/traces/core-1.xz");
    let unpack = "import lzma, sys; sys.stdout.buffer.write(lzma.open(sys.argv[1]).read())";
    let output = Command::new("python3").args(["-c", unpack]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn at(word: &str) -> Timestamp {
    Timestamp::from_micros(word.parse().unwrap())
}

fn bytes(word: &str) -> Vec<u8> {
    let pairs = word.as_bytes().chunks(2);
    let digits = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// The core that the first line tells of.
fn begin(words: &[&str]) -> Core {
    let field = |number: usize, name: &str| {
        let value = words[number].strip_prefix(name).unwrap();
        (value != "-").then_some(value)
    };
    let ttl_ms: u64 = field(2, "ttl=").unwrap().parse().unwrap();
    let introduction = Introduction {
        ttl: (ttl_ms > 0).then(|| Ttl::new(Duration::from_millis(ttl_ms)).unwrap()),
        linger_ms: field(3, "linger=").map(|ms| ms.parse().unwrap()),
        identity: field(7, "identity=").unwrap().replace("%20", " "),
    };
    let reconnect = field(4, "attempt=").map(|attempt| Reconnect {
        attempt_max: Duration::from_micros(attempt.parse().unwrap()),
        seed: field(5, "seed=").unwrap().parse().unwrap(),
        servers: field(6, "servers=").unwrap().parse().unwrap(),
    });
    let mut core = Core::new(introduction, reconnect, at(words[1]));
    core.trace = Trace::kept();
    core
}

/// What a request asked for, from its first message.
fn ask(message: &str) -> Ask {
    let (request, extras) = match decode(&bytes(message)).unwrap() {
        ClientMessage::Request(request) => (request, Vec::new()),
        ClientMessage::RequestWith { request, extras } => (*request, extras),
        other => panic!("{other:?}"),
    };
    let (mut at_least_ms, mut supersedes) = (0, false);
    for extra in extras {
        match extra {
            Extra::AtLeast { ms } => at_least_ms = ms,
            Extra::Supersede => supersedes = true,
        }
    }
    let Request { owner, converts, wait, progress, lock_delay_ms, note, claims, .. } = request;
    Ask { owner, converts, wait, progress, lock_delay_ms, at_least_ms, supersedes, note, claims }
}

/// Whether the core does what the line says, or something it then is asked about.
fn live(core: &mut Core, words: &[&str]) -> bool {
    let id = || RequestId::new(words[1].parse().unwrap());
    match words[0] {
        "tick" => core.tick(at(words[1])),
        "receive" => core.receive(decode(&bytes(words[2])).unwrap(), at(words[1])),
        "connected" => core.connected(at(words[1])),
        "lost" => core.connection_lost(at(words[1])),
        "second" => {
            core.second_connected(at(words[1]));
        }
        "second_receive" => core.receive_second(decode(&bytes(words[2])).unwrap(), at(words[1])),
        "second_lost" => core.second_lost(at(words[1])),
        "request" => assert_eq!(core.request(ask(words[3]), at(words[2])), id()),
        "release" => core.release(id(), at(words[2])),
        "cancel" => core.cancel(id()),
        "goodbye" => core.goodbye(),
        "broken" => core.protocol_broken("", Timestamp::default()),
        "stranger" => core.protocol_broken("", at(words[1])),
        "sent" => core.drain_messages().for_each(drop),
        "told" => drop(core.take_effects()),
        _ => return false,
    }
    true
}

#[test]
fn the_corpus_of_traces_is_what_this_core_lives_through() {
    let corpus = corpus();
    let mut count = 0;
    for life in corpus.split("new ").skip(1) {
        let life = format!("new {life}");
        let mut core = None;
        for line in life.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match &mut core {
                None => core = Some(begin(&words)),
                Some(core) => {
                    live(core, &words);
                }
            }
        }
        let mut core = core.unwrap();
        core.note_state();
        let lived = core.trace.take();
        let told = life.split_once('\n').unwrap().1;
        let agree = lived.lines().zip(told.lines()).take_while(|(one, other)| one == other).count();
        let (one, other) = (lived.lines().nth(agree), told.lines().nth(agree));
        // A life may end between an input and what is said to it.
        assert!(
            other.is_none(),
            "life {count}, line {}: it is\n{one:?}, and was\n{other:?}\n\
             If that is meant to be, make the corpus anew: scripts/traces",
            agree + 2
        );
        count += 1;
    }
    assert!(count > 300, "{count} lives");
}
