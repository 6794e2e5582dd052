//! Connections that mean no good, or die at a bad moment.

use super::*;
use crate::access::parse;
use crate::server::audit::{Audit, AuditPlace};
use crate::server::desk::turn::Promise;
use crate::types::Credential;

/// The credential of somebody: their name, over and over.
fn credential(name: &str) -> Credential {
    let mut bits = [0; 32];
    bits.iter_mut().zip(name.bytes().cycle()).for_each(|(bit, byte)| *bit = byte);
    Credential::from_random(bits)
}

/// An access file in which these may do this with all locks. `a=b` is somebody with the credential of another.
fn access(principals: &[(&str, &str)]) -> Access {
    let text: Vec<String> = principals
        .iter()
        .map(|(name, verbs)| {
            let (name, shows) = name.split_once('=').unwrap_or((name, name));
            let digest = Digest::of(credential(shows).reveal());
            let may = format!("may = [ {{ do = [{verbs}], names = [\"*\"] }} ]");
            match name {
                "anyone" => format!("[anyone]\n{may}\n"),
                name => {
                    format!("[[principal]]\nname = {name:?}\ncredentials = [\"{digest}\"]\n{may}\n")
                }
            }
        })
        .collect();
    parse(&text.concat()).map_err(|all| all[0].to_string()).unwrap().access
}

const LOCK: &str = "\"lock\", \"see\"";

impl Redis {
    /// A connection of somebody.
    fn come(bench: &Bench, name: &str) -> Self {
        let mut redis = Self::knock(bench, None);
        assert_eq!(redis.say(&format!("AUTH {}", credential(name).reveal())), "+OK");
        redis.talk.trust();
        redis
    }
}

#[test]
fn whoever_is_dismissed_while_it_waits_has_left_the_line() {
    let bench = Bench::ruled(access(&[("ann", LOCK), ("bob", LOCK)]));
    let (mut ann, mut bob) = (Redis::come(&bench, "ann"), Redis::come(&bench, "bob"));
    assert_eq!(ann.say("SET order ann NX"), "+OK");
    bob.send(&["COORDINATOR.WAIT order bob"]);
    assert_eq!(bench.figures().counts.waiting, 1);
    let renewed = access(&[("ann", LOCK), ("bob=bert", LOCK)]);
    bench.turn(|desk, now| desk.change_rules(renewed.into(), now));
    bench.settle();
    assert!(
        bob.heard().ends_with("-WRONGPASS invalid username-password pair or user is disabled.")
    );
    assert_eq!(bench.figures().counts.waiting, 0);
    assert_eq!(ann.say("DEL order"), ":1");
    assert_eq!(ann.say("SET order ann NX"), "+OK");
}

#[test]
fn whoever_guesses_hears_later_from_the_eleventh_time_on_and_is_closed_each_time() {
    let bench = Bench::ruled(access(&[("ann", LOCK)]));
    let peer = Some(SocketAddr::from(([10, 0, 0, 9], 1)));
    let guess = |line: &str| {
        let mut redis = Redis::knock(&bench, peer);
        redis.send(&[line, "PING"]);
        redis
    };
    let mine = format!("AUTH ann {}", credential("bob").reveal());
    for line in ["AUTH guess", "HELLO 3 AUTH ann guess", &mine, "AUTH bob guess"] {
        let heard = guess(line).heard();
        assert!(heard.starts_with("-WRONGPASS") && !heard.contains("PONG"), "{line}: {heard}");
    }
    for _ in 4..10 {
        assert!(guess("AUTH guess").heard().starts_with("-WRONGPASS"));
    }
    let late = guess("AUTH guess");
    assert_eq!(late.heard(), "");
    bench.pass(Duration::from_millis(999));
    assert_eq!(late.heard(), "");
    bench.pass(Duration::from_millis(1));
    assert!(late.heard().starts_with("-WRONGPASS"));
    assert_eq!(Redis::come(&bench, "ann").say("PING"), "+PONG", "elsewhere nobody waits");
}

#[test]
fn whoever_waits_for_what_is_not_allowed_any_more_hears_so_by_the_same_word() {
    let bench = Bench::ruled(access(&[("ann", LOCK), ("bob", LOCK)]));
    let (mut ann, mut bob) = (Redis::come(&bench, "ann"), Redis::come(&bench, "bob"));
    assert_eq!(ann.say("SET order ann NX"), "+OK");
    bob.send(&["COORDINATOR.WAIT order bob"]);
    let renewed = access(&[("ann", LOCK), ("bob", "\"see\"")]);
    bench.turn(|desk, now| desk.change_rules(renewed.into(), now));
    bench.settle();
    let told = bob.heard();
    assert!(told.starts_with("-NOPERM "), "{told}");
    assert_eq!(bench.figures().counts.waiting, 0);
    assert!(bob.say("SET free bob NX").starts_with("-NOPERM "));
}

#[test]
fn whoever_shows_nothing_is_anyone_if_anyone_may_lock_and_can_be_somebody_afterwards() {
    let bench = Bench::ruled(access(&[("ann", LOCK), ("anyone", LOCK)]));
    let mut redis = Redis::knock(&bench, None);
    redis.send(&[]);
    redis.talk.trust();
    assert_eq!(redis.say("SET order mine NX"), "+OK");
    assert_eq!(redis.say(&format!("AUTH {}", credential("ann").reveal())), "+OK");
    assert!(redis.say("DEL order").starts_with("-NOPERM"), "that is anyone's");
    let bench = Bench::ruled(access(&[("ann", LOCK), ("anyone", "\"see\"")]));
    let mut redis = Redis::knock(&bench, None);
    redis.send(&[]);
    redis.talk.trust();
    assert!(redis.say("SET order mine NX").starts_with("-NOPERM"), "it sees, and does not lock");
    assert_eq!(redis.say("GET order"), "$-1");
}

#[test]
fn nothing_is_prolonged_or_granted_in_line_that_cannot_be_written_down() {
    let bench = Bench::new();
    bench.turn(|desk, _| {
        desk.speak_redis(true);
        desk.turn()
    });
    bench.begin_journal();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    let mut third = Redis::connect(&bench);
    assert_eq!(first.say("SET order first NX PX 5000"), "+OK");
    second.send(&["COORDINATOR.WAIT order second"]);
    third.send(&["COORDINATOR.WAIT order third"]);
    bench.end_journal();
    for line in ["PEXPIRE order 60000", "SET order other XX", "PERSIST order", "SET free mine NX"] {
        assert!(first.say(line).starts_with("-COORDINATOR the journal"), "{line}");
    }
    assert_eq!(first.free("order", "first"), ":1", "what a crash undoes harms nobody");
    for waiter in [&second, &third] {
        assert!(waiter.heard().starts_with("-COORDINATOR the journal"));
    }
    assert_eq!(bench.figures().counts.held, 0);
    bench.begin_journal();
    assert_eq!(first.say("SET order first NX PX 5000"), "+OK");
    let promise = |redis: &Redis| redis.client.take_deliveries().pop().map(|it| it.promise);
    first.send(&["PEXPIRE order 60000"]);
    assert_eq!(promise(&first), Some(Promise::Recorded));
}

#[test]
fn neither_kind_of_client_keeps_the_other_waiting_for_ever_however_much_it_says() {
    let bench = Bench::new();
    let hog = bench.open();
    let mut redis = Redis::connect(&bench);
    hog.submit(vec![ClientMessage::KeepAlive { sequence: 1 }; 100_000]);
    let words = |line: &str| Words::of(line.split(' ').map(str::as_bytes));
    let said = vec![redis.talk.hear(&words("PING"), WALL)];
    let unheard = Arc::new(Ledger::default()).open().submit(0);
    let connection = redis.client.connection();
    let submit = SubmitRedis { connection, said, name: None, unheard };
    bench.turn(|desk, now| {
        desk.hear_redis(submit, now);
        desk.finish_turn(now)
    });
    let mut turns = 0;
    let heard = loop {
        let heard = redis.heard();
        if !heard.is_empty() || !bench.look() {
            break heard;
        }
        turns += 1;
    };
    assert_eq!(heard, "+PONG");
    assert!(turns <= 4, "{turns} turns");
    assert!(bench.look(), "the other still has much to say");
}

#[test]
fn to_delete_what_another_holds_takes_the_right_to_break_and_leaves_a_line_in_the_audit_log() {
    let may = "\"lock\", \"see\", \"break\"";
    let bench = Bench::ruled(access(&[("ann", LOCK), ("bob", LOCK), ("ops", may)]));
    let (mut ann, mut bob) = (Redis::come(&bench, "ann"), Redis::come(&bench, "bob"));
    let mut ops = Redis::come(&bench, "ops");
    assert_eq!(ann.say("SET a ann NX"), "+OK");
    assert_eq!(ann.say("SET b ann NX"), "+OK");
    assert_eq!(bob.say("SET c bob NX"), "+OK");
    assert!(bob.say("DEL c a").starts_with("-NOPERM"));
    assert_eq!(bob.say("EXISTS c"), ":1", "all or none");
    // Whoever can read the value can say it.
    assert!(bob.free("a", "ann").starts_with("-NOPERM"));
    assert_eq!(ann.say("SET d ann NX"), "+OK");

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, writer) = Audit::open(AuditPlace::File(file.clone())).unwrap();
    bench.audit(audit);
    assert_eq!(ann.say("DEL b"), ":1");
    assert_eq!(ops.say("DEL a"), ":1");
    assert_eq!(ops.say("PEXPIRE c 1"), ":1");
    assert_eq!(ops.free("d", "ann"), ":1");
    bench.audit(Audit::default());
    drop(writer);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let revoked: Vec<_> = lines.iter().filter(|line| line["event"] == "revoke").collect();
    let [freed, changed, freed_by_value] = revoked[..] else { panic!("{text}") };
    assert_eq!([&freed_by_value["principal"], &freed_by_value["lock"]], ["ops", "d"]);
    assert_eq!([&freed["principal"], &freed["lock"]], ["ops", "a"]);
    assert_eq!(freed["reason"], "freed by a client of the Redis dialect");
    assert_eq!(freed["victim"], "ann redis unknown");
    assert_eq!(
        [&changed["lock"], &changed["reason"]],
        ["c", "changed by a client of the Redis dialect"]
    );
}

/// What the audit log says while this is done: of each line, these fields.
fn audited(bench: &Bench, what: impl FnOnce()) -> Vec<[String; 4]> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, writer) = Audit::open(AuditPlace::File(file.clone())).unwrap();
    bench.audit(audit);
    what();
    bench.audit(Audit::default());
    drop(writer);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let said =
        |line: &serde_json::Value, field| line[field].as_str().unwrap_or_default().to_owned();
    let fields = ["event", "result", "principal", "reason"];
    lines
        .filter(|line| line["event"] == "session")
        .map(|line| fields.map(|field| said(&line, field)))
        .collect()
}

#[test]
fn the_audit_log_says_who_was_let_in_and_that_it_is_over() {
    let bench = Bench::ruled(access(&[("ann", LOCK), ("bob", LOCK)]));
    let told = audited(&bench, || {
        let mut ann = Redis::come(&bench, "ann");
        assert_eq!(ann.say(&format!("AUTH {}", credential("bob").reveal())), "+OK");
        assert!(Redis::knock(&bench, None).say("AUTH guess").starts_with("-WRONGPASS"));
        let mut quits = Redis::come(&bench, "ann");
        assert_eq!(quits.say("QUIT"), "+OK");
        ann.client.disconnect();
    });
    let line =
        |result: &str, who: &str, why: &str| ["session", result, who, why].map(str::to_owned);
    assert_eq!(
        told,
        [
            line("opened", "ann", ""),
            line("ended", "ann", "signed in anew"),
            line("opened", "bob", ""),
            line("opened", "ann", ""),
            line("ended", "ann", "goodbye"),
            line("ended", "bob", "disconnected"),
        ]
    );
    let open = Bench::new();
    let told = audited(&open, || {
        let mut redis = Redis::connect(&open);
        redis.say("PING");
        redis.say("PING");
        redis.client.disconnect();
    });
    assert_eq!(told, [line("opened", "", ""), line("ended", "", "disconnected")]);
}

#[test]
fn whoever_may_not_lock_looks_and_frees_as_its_rules_say() {
    let bench =
        Bench::ruled(access(&[("ann", LOCK), ("eye", "\"see\""), ("ops", "\"see\", \"break\"")]));
    let (mut ann, mut eye) = (Redis::come(&bench, "ann"), Redis::come(&bench, "eye"));
    let mut ops = Redis::come(&bench, "ops");
    assert_eq!(ann.say("SET a ann NX"), "+OK");
    assert_eq!(eye.say("GET a"), "$3 ann");
    for line in ["SET b eye NX", "SET b eye NX PXAT 1", "DEL a", "PEXPIRE a 1"] {
        assert!(eye.say(line).starts_with("-NOPERM"), "{line}");
    }
    assert!(ops.say("SET b ops NX").starts_with("-NOPERM"));
    assert_eq!(ops.say("DEL a"), ":1");
}

/// Somebody with these quotas.
fn with_quotas(quotas: &str) -> Access {
    let digest = Digest::of(credential("ann").reveal());
    let text = format!(
        "[[principal]]\nname = \"ann\"\ncredentials = [\"{digest}\"]\n{quotas}\n\
         may = [ {{ do = [\"lock\", \"see\"], names = [\"*\"] }} ]\n"
    );
    parse(&text).map_err(|all| all[0].to_string()).unwrap().access
}

#[test]
fn whoever_polls_asks_as_often_as_it_may_and_frees_and_prolongs_whenever() {
    let bench = Bench::ruled(with_quotas("requests-per-second = 10"));
    let (mut holder, mut other) = (Redis::come(&bench, "ann"), Redis::come(&bench, "ann"));
    let slow = "-COORDINATOR too many requests a second";
    for poll in ["SET order other NX PX 5", "GET order", "PTTL order", "COORDINATOR.TOKEN order"] {
        assert_eq!(holder.say("SET order holder NX PX 60000"), "+OK");
        for asked in 1..10 {
            assert!(!other.say(poll).starts_with(slow), "{poll}, {asked}");
        }
        assert!(other.say(poll).starts_with(slow), "{poll}");
        assert!(other.say("COORDINATOR.WAIT order other").starts_with(slow));
        other.send(&["MULTI", poll, "EXEC"]);
        assert!(other.heard().contains(slow), "{poll}");
        assert_eq!(holder.say("PEXPIRE order 70000"), ":1");
        assert_eq!(holder.free("order", "holder"), ":1");
        bench.pass(Duration::from_secs(2));
    }
}

#[test]
fn whoever_signs_in_anew_keeps_its_place_among_the_connections_of_its_principal() {
    let bench = Bench::ruled(with_quotas("connections-max = 1"));
    let mut ann = Redis::come(&bench, "ann");
    let line = format!("AUTH {}", credential("ann").reveal());
    assert_eq!(ann.say(&line), "+OK");
    let second = Redis::knock(&bench, None).say(&line);
    assert!(second.starts_with("-ERR max number of clients reached"), "{second}");
    ann.client.disconnect();
    assert_eq!(Redis::knock(&bench, None).say(&line), "+OK", "it was counted once");
}

#[test]
fn whoever_waits_is_told_no_token_of_a_hold_that_is_gone_already() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    assert_eq!(first.say("SET order first NX"), "+OK");
    second.send(&["COORDINATOR.WAIT order second"]);
    first.send(&["MULTI", "DEL order", "DEL order", "EXEC"]);
    assert_eq!(first.heard(), "+OK +QUEUED +QUEUED *2 :1 :1");
    assert_eq!(bench.figures().counts.held, 0);
    let told = second.heard();
    assert!(told.starts_with("-COORDINATOR the lock was granted, and freed by another"), "{told}");
    assert_eq!(second.say("PING"), "+PONG");
}

#[test]
fn whoever_waits_is_next_after_all_is_freed() {
    let bench = Bench::new();
    let (mut first, mut second) = (Redis::connect(&bench), Redis::connect(&bench));
    assert_eq!(first.say("SET order first NX"), "+OK");
    second.send(&["COORDINATOR.WAIT order second"]);
    let mut flushing = Redis::connect(&bench);
    flushing.talk = Talk::unproven(1, Arc::<Scripts>::default(), Flushing::Allowed);
    flushing.talk.trust();
    assert_eq!(flushing.say("FLUSHDB"), "+OK");
    let token = flushing.say("COORDINATOR.TOKEN order");
    assert!(token.starts_with(':'), "{token}");
    assert_eq!(second.heard(), token);
    assert_eq!(flushing.say("GET order"), "$6 second");
}

#[test]
fn whoever_comes_or_is_silent_when_the_coordinator_stops_is_told_so_in_its_own_words() {
    let bench = Bench::new();
    let silent = Redis::connect(&bench);
    bench.turn(|desk, now| desk.save(now));
    let late = Redis::connect(&bench);
    for told in [silent, late] {
        assert_eq!(told.heard(), "-COORDINATOR the coordinator stops");
    }
}
