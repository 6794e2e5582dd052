//! Connections of the Redis dialect at the desk, beside native ones.

mod hostile;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::access::{Access, CertificateName, Digest, Proof};
use crate::redis::{Flushing, Scripts, Talk, Words};
use crate::server::desk::testing::{Bench, Client};
use crate::server::ledger::Ledger;
use crate::server::testing::{request, try_request};
use crate::testing::fuzz::Random;
use crate::types::RequestId;
use crate::wire::{ClientMessage, ServerMessage};

const WALL: Duration = Duration::from_secs(1_800_000_000);
const FREE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";

/// A client of the dialect.
struct Redis {
    bench: Bench,
    client: Client,
    talk: Talk,
}

impl Redis {
    fn connect(bench: &Bench) -> Self {
        let mut talk = Talk::unproven(1, Arc::<Scripts>::default(), Flushing::Refused);
        talk.trust();
        Self { bench: bench.clone(), client: bench.connect_redis(None), talk }
    }

    /// One that has come from there, and has to prove who it is.
    fn knock(bench: &Bench, peer: Option<SocketAddr>) -> Self {
        let talk = Talk::unproven(1, Arc::<Scripts>::default(), Flushing::Refused);
        Self { bench: bench.clone(), client: bench.connect_redis(peer), talk }
    }

    /// Says these lines in one read.
    fn send(&mut self, lines: &[&str]) {
        let words = |line: &&str| Words::of(line.split(' ').map(str::as_bytes));
        self.send_words(&lines.iter().map(words).collect::<Vec<_>>());
    }

    fn send_words(&mut self, requests: &[Words]) {
        self.submit_words(requests);
        self.bench.settle();
    }

    /// Says these lines, and looks at nothing else.
    fn submit(&mut self, lines: &[&str]) {
        let words = |line: &&str| Words::of(line.split(' ').map(str::as_bytes));
        self.submit_words(&lines.iter().map(words).collect::<Vec<_>>());
    }

    fn submit_words(&mut self, requests: &[Words]) {
        let hear = |words| {
            let mut said = self.talk.hear(words, WALL);
            if let Step::Enter { credential, .. } = &mut said.step {
                let credential = credential.take().map(|shown| Digest::of(shown.reveal()));
                self.client.prove(Proof { credential, ..Proof::default() });
            }
            said
        };
        let said = requests.iter().map(hear).collect();
        let (connection, name) = (self.client.connection(), None);
        let unheard = Arc::new(Ledger::default()).open().submit(0);
        let submit = SubmitRedis { connection, said, name, unheard };
        self.bench.turn(|desk, now| {
            desk.hear_redis(submit, now);
            desk.finish_turn(now)
        });
    }

    fn say(&mut self, line: &str) -> String {
        self.send(&[line]);
        self.heard()
    }

    fn free(&mut self, key: &str, value: &str) -> String {
        let words = ["EVAL", FREE, "1", key, value];
        self.send_words(&[Words::of(words.map(str::as_bytes))]);
        self.heard()
    }

    /// What has come, its line ends made spaces.
    fn heard(&self) -> String {
        let delivered = self.client.take_deliveries();
        let frames = delivered.into_iter().flat_map(|deliver| deliver.frames);
        String::from_utf8(frames.collect()).unwrap().replace("\r\n", " ").trim_end().to_owned()
    }
}

fn is_granted(client: &Client) -> bool {
    client.take().iter().any(|message| matches!(message, ServerMessage::Grant { .. }))
}

#[test]
fn both_kinds_of_clients_have_the_same_locks() {
    let bench = Bench::new();
    let (native, mut redis) = (bench.open(), Redis::connect(&bench));
    assert_eq!(redis.say("SET order mine NX PX 30000"), "+OK");
    native.submit(vec![try_request(1, "order")]);
    bench.settle();
    assert!(!is_granted(&native));
    native.submit(vec![request(2, "order")]);
    bench.settle();
    assert_eq!(redis.free("order", "other"), ":0");
    assert!(!is_granted(&native));
    assert_eq!(redis.free("order", "mine"), ":1");
    assert!(is_granted(&native));
    assert_eq!(redis.say("SET order mine NX"), "$-1");
    assert!(redis.say("DEL order").starts_with("-COORDINATOR 'order' is held by a native client"));
}

#[test]
fn a_hold_ends_when_it_was_to_and_its_connection_has_no_part_in_that() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    assert_eq!(first.say("SET order first NX PX 5000"), "+OK");
    first.client.disconnect();
    bench.pass(Duration::from_millis(4_999));
    assert_eq!(second.say("PTTL order"), ":1");
    assert_eq!(second.say("SET order second NX"), "$-1");
    bench.pass(Duration::from_millis(1));
    assert_eq!(second.say("SET order second NX"), "+OK");
}

#[test]
fn whoever_waits_hears_of_the_grant_and_then_of_what_it_said_behind_it() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    first.say("SET order first NX");
    second.send(&["COORDINATOR.WAIT order second PX 4000", "GET order", "PTTL order"]);
    assert_eq!(second.heard(), "");
    bench.pass(Duration::from_secs(9));
    assert_eq!(first.say("DEL order"), ":1");
    bench.settle();
    let heard = second.heard();
    assert!(heard.starts_with(':') && heard.ends_with("$6 second :4000"), "{heard}");
    first.send(&["COORDINATOR.WAIT order first TIMEOUT 1000"]);
    bench.pass(Duration::from_millis(999));
    assert_eq!(first.heard(), "");
    bench.pass(Duration::from_millis(1));
    assert_eq!(first.heard(), "$-1");
}

#[test]
fn the_time_of_one_who_waited_ends_to_the_millisecond_however_short_it_is() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    first.say("SET order first NX");
    second.send(&["COORDINATOR.WAIT order second PX 7"]);
    bench.pass(Duration::from_secs(30));
    first.say("DEL order");
    bench.pass(Duration::from_millis(6));
    assert_eq!(first.say("SET order third NX"), "$-1");
    bench.pass(Duration::from_millis(1));
    assert_eq!(first.say("SET order third NX"), "+OK");
}

#[test]
fn whoever_is_gone_waits_no_longer() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    first.say("SET order first NX");
    second.send(&["COORDINATOR.WAIT order second"]);
    assert_eq!(bench.figures().counts.waiting, 1);
    second.client.disconnect();
    assert_eq!(bench.figures().counts.waiting, 0);
    assert_eq!(first.say("DEL order"), ":1");
    assert_eq!(first.say("SET order third NX"), "+OK");
}

#[test]
fn a_transaction_is_not_done_if_what_it_watched_has_changed() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    let lines = ["MULTI", "DEL order", "EXEC"];
    first.say("SET order first NX");
    first.say("WATCH order");
    second.say("DEL order");
    second.say("SET order first NX");
    first.send(&lines);
    assert_eq!(first.heard(), "+OK +QUEUED *-1");
    first.say("WATCH order");
    first.send(&lines);
    assert_eq!(first.heard(), "+OK +QUEUED *1 :1");
    first.say("SET order first NX PX 5000");
    for line in ["PEXPIRE order 9000", "PERSIST order"] {
        first.say("WATCH order");
        second.say(line);
        first.send(&lines);
        assert_eq!(first.heard(), "+OK +QUEUED *-1", "{line}");
    }
    first.say("SET order first PX 5000");
    first.say("WATCH order");
    bench.pass(Duration::from_millis(10));
    first.send(&lines);
    assert_eq!(first.heard(), "+OK +QUEUED *1 :1", "that time passes changes nothing");
    let keys: Vec<String> = (0..=wait::WATCHED_MAX).map(|key| format!("WATCH {key}")).collect();
    for (at, line) in keys.iter().enumerate() {
        assert_eq!(first.say(line) == "+OK", at < wait::WATCHED_MAX);
    }
}

#[test]
fn a_long_read_is_heard_in_turns_and_all_of_it_is_answered_in_order() {
    let bench = Bench::new();
    let mut redis = Redis::connect(&bench);
    let lines: Vec<String> =
        (0..5_000).flat_map(|key| [format!("SET {key} v NX"), format!("DEL {key}")]).collect();
    redis.send(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(redis.heard(), vec!["+OK :1"; 5_000].join(" "));
    let mut half = Redis::connect(&bench);
    let words = |line: &String| Words::of(line.split(' ').map(str::as_bytes));
    let said = lines.iter().map(|line| half.talk.hear(&words(line), WALL)).collect();
    let (connection, name) = (half.client.connection(), None);
    let unheard = Arc::new(Ledger::default()).open().submit(0);
    let submit = SubmitRedis { connection, said, name, unheard };
    bench.turn(|desk, now| {
        desk.hear_redis(submit, now);
        desk.hear_end(connection, now);
        desk.finish_turn(now)
    });
    bench.settle();
    assert_eq!(half.heard(), vec!["+OK :1"; 5_000].join(" "), "its end came behind that");
}

#[test]
fn nothing_is_granted_that_cannot_be_written_down_where_that_is_promised() {
    let bench = Bench::new();
    bench.turn(|desk, _| {
        desk.speak_redis(true);
        desk.turn()
    });
    let mut redis = Redis::connect(&bench);
    assert!(
        redis.say("SET order mine NX").starts_with("-COORDINATOR the journal cannot be written")
    );
    assert!(redis.say("COORDINATOR.WAIT order mine").starts_with("-COORDINATOR the journal"));
    bench.begin_journal();
    assert_eq!(redis.say("SET order mine NX"), "+OK");
}

#[test]
fn a_replay_has_the_same_holds_with_the_same_ends() {
    let bench = Bench::new();
    bench.begin_journal();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    first.say("SET a first NX PX 5000");
    first.say("SET b first NX");
    second.send(&["COORDINATOR.WAIT a second PX 3000"]);
    first.say("PEXPIRE b 70000");
    first.say("SET b other XX KEEPTTL");
    bench.pass(Duration::from_secs(6));
    let [lived, replayed] = bench.lived_and_replayed();
    assert_eq!(lived, replayed);
    let next = bench.restarted(Access::open());
    let mut third = Redis::connect(&next);
    assert_eq!(third.say("GET b"), "$5 other");
    assert_eq!(third.say("GET a"), "$6 second");
    assert_eq!(third.say("SET a third NX"), "$-1");
}

/// Who believes to hold a lock, and until when.
struct Belief {
    who: usize,
    until: u64,
}

/// Clients of both kinds, time, and crashes, by chance. Nobody is told that it holds what another has a
/// reason to believe that it holds.
fn simulate(seed: u64) {
    let mut random = Random::new(seed);
    let mut bench = Bench::new();
    bench.begin_journal();
    let (mut now, mut believed) = (0_u64, BTreeMap::<String, Belief>::new());
    let mut talkers: Vec<Redis> = (0..3).map(|_| Redis::connect(&bench)).collect();
    let native = |bench: &Bench| bench.open();
    let mut natives: Vec<Client> = (0..2).map(|_| native(&bench)).collect();
    let mut latest = 0;
    let believe = |believed: &mut BTreeMap<String, Belief>, key: &str, who, now, until| {
        if let Some(other) = believed.get(key) {
            assert!(other.until <= now, "seed {seed}: {key} is {}'s, and {who}'s", other.who);
        }
        believed.insert(key.to_owned(), Belief { who, until });
    };
    for _ in 0..120 {
        let key = (*random.pick(&["a", "b"])).to_owned();
        let who = random.below(talkers.len());
        let term = 1 + random.below(4_000) as u64;
        match random.below(9) {
            0..=2 => {
                let line = format!("SET {key} {who} NX PX {term}");
                if talkers[who].say(&line) == "+OK" {
                    believe(&mut believed, &key, who, now, now + term);
                }
            }
            3 if talkers[who].free(&key, &who.to_string()) == ":1" => {
                believed.remove(&key);
            }
            4 => {
                let line = format!("PEXPIRE {key} {term}");
                // Only by whoever believes to hold it.
                if believed.get(&key).is_some_and(|it| it.who == who && it.until > now)
                    && talkers[who].say(&line) == ":1"
                {
                    believed.insert(key, Belief { who, until: now + term });
                }
            }
            5 => {
                let line = format!("COORDINATOR.WAIT {key} {who} PX {term} TIMEOUT 1");
                talkers[who].send(&[&line]);
                bench.pass(Duration::from_millis(1));
                now += 1;
                if talkers[who].heard().starts_with(':') {
                    // At the earliest it was granted a moment ago, at the latest now.
                    believe(&mut believed, &key, who, now, now - 1 + term);
                }
            }
            6 => {
                let at = random.below(natives.len());
                latest += 1;
                natives[at].submit(vec![try_request(latest, &key)]);
                bench.settle();
                let told = natives[at].take();
                let granted = told.iter().find_map(|message| match message {
                    ServerMessage::Grant { token, .. } => Some(*token),
                    _ => None,
                });
                if let Some(token) = granted {
                    believe(&mut believed, &key, 100 + at, now, u64::MAX);
                    if random.once_in(2) {
                        let request = RequestId::new(latest);
                        natives[at].submit(vec![ClientMessage::Release { request, token }]);
                        bench.settle();
                        believed.remove(&key);
                    }
                }
            }
            7 => {
                let length = random.below(1_500) as u64;
                bench.pass(Duration::from_millis(length));
                now += length;
            }
            8 if random.once_in(6) => {
                let [lived, replayed] = bench.lived_and_replayed();
                assert_eq!(lived, replayed, "seed {seed}");
                bench = bench.restarted(Access::open());
                bench.begin_journal();
                talkers = (0..3).map(|_| Redis::connect(&bench)).collect();
                natives = (0..2).map(|_| native(&bench)).collect();
                // Native holders of before do not come back, and lose what they have in a lease.
                bench.pass(Duration::from_secs(20));
                believed.retain(|_, belief| belief.who < 100);
                now += 20_000;
            }
            _ => {}
        }
        for native in &natives {
            native.submit(vec![ClientMessage::KeepAlive { sequence: 1 }]);
        }
    }
}

#[test]
fn both_kinds_of_clients_exclude_each_other_whatever_happens() {
    for seed in 1..=300 {
        simulate(seed);
    }
}

#[test]
fn all_locks_are_freed_a_few_in_a_turn_and_others_are_heard_meanwhile() {
    const COUNT: usize = crate::engine::PLACES_LOOKED_AT_MAX + 10;
    let bench = Bench::new();
    let (mut holder, mut other) = (Redis::connect(&bench), Redis::connect(&bench));
    for number in 0..COUNT {
        assert_eq!(holder.say(&format!("SET {number} mine NX")), "+OK");
    }
    let native = bench.open();
    native.submit(vec![request(1, "native")]);
    bench.settle();
    let mut flushing = Redis::connect(&bench);
    flushing.talk = Talk::unproven(1, Arc::<Scripts>::default(), Flushing::Allowed);
    flushing.talk.trust();
    flushing.submit(&["FLUSHDB", "DBSIZE"]);
    other.submit(&["PING"]);
    assert_eq!((flushing.heard(), other.heard()), (String::new(), String::new()));
    assert!(bench.look());
    assert_eq!(flushing.heard(), "+OK :1", "that of the native client is left");
    assert_eq!(other.heard(), "+PONG");
    flushing.submit(&["MULTI", "FLUSHDB", "EXEC"]);
    bench.settle();
    assert!(flushing.heard().contains("-ERR FLUSHDB takes as long as there are locks"));
}

/// It may prove somebody else yet, and so is not sent away.
#[test]
fn one_connection_too_many_of_a_certificate_hears_of_the_limit_and_the_audit_log_has_it() {
    let text = "[[principal]]\nname = \"ann\"\ncertificates = [\"dns:ann.internal\"]\n\
        may = [ { do = [\"lock\"], names = [\"*\"] } ]\nconnections-max = 1\n";
    let bench = Bench::ruled(crate::access::parse(text).unwrap().access);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, writer) =
        crate::server::Audit::open(crate::server::AuditPlace::File(file.clone())).unwrap();
    bench.audit(audit);
    let come = || {
        let mut redis = Redis::knock(&bench, None);
        let certified = vec![CertificateName::new("dns:ann.internal").unwrap()];
        redis.client.prove(Proof { certified, ..Proof::default() });
        redis.send(&[]);
        redis
    };
    let (mut first, mut second) = (come(), come());
    // As its reader does once it hears that it is known.
    first.talk.trust();
    assert_eq!(first.say("SET order mine NX PX 30000"), "+OK");
    let full = "-ERR max number of clients reached: ann has 1 connections, its limit";
    assert_eq!(second.say("SET order other NX"), full);
    bench.audit(crate::server::Audit::default());
    writer.end();
    let audited = std::fs::read_to_string(&file).unwrap();
    let refused = |line: &&str| line.contains("sign_in") && line.contains("its limit");
    assert_eq!(audited.lines().filter(refused).count(), 1, "{audited}");
}
