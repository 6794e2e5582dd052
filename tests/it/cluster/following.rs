//! A standby that follows the leader, and takes over with everything.

use std::fs;
use std::hash::Hasher;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coordinator::etcd::Etcd as Client;
use coordinator::types::{GoodbyeCode, RequestId};
use coordinator::wire::{Attach, ClientMessage, ServerMessage, Standing};
use rustix::process::Signal;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::etcd::Etcd;
use super::serving::{
    Holder, LEASE, LONG, as_strs, flags, greeted, is_answered, leads, sent_to, settled,
};
use super::{live, options, undisturbed};
use crate::certificates::Authority;
use crate::raw::{Raw, hello, hello_for, request};
use crate::support::{Home, Server, eventually, run};

/// What a member that is followed is started with. Nobody waits for its lease: whoever takes over is in sync.
fn peers(etcds: &[&Etcd]) -> Vec<String> {
    peers_within(etcds, LONG)
}

/// The same, with such a lease.
fn peers_within(etcds: &[&Etcd], lease: &str) -> Vec<String> {
    let peers = ["--peer-listen", "127.0.0.1:0"].map(str::to_owned);
    [&flags(etcds, lease)[..], &peers].concat()
}

fn member(etcd: &Etcd) -> Server {
    Server::start_with(Home::new(), &as_strs(&peers(&[etcd])))
}

/// What `coordinator members` says.
pub(super) fn members(etcd: &Etcd, home: &Home) -> serde_json::Value {
    let url = etcd.url();
    let told = run(home.coordinator(&["members", "--cluster", "test", "--etcd", &url, "--json"]));
    serde_json::from_str(&told.out).unwrap_or_default()
}

/// A member whose files get no longer than so many kilobytes, which is as a full disk is.
fn member_on_a_full_disk(etcd: &Etcd, lease: &str) -> Server {
    let home = Home::new();
    let (program, port) = (env!("CARGO_BIN_EXE_coordinator"), home.path("port"));
    let flags = peers_within(&[etcd], lease).join(" ");
    let script = format!(
        "ulimit -f 64; exec {program} serve --listen 127.0.0.1:0 --port-file {} --journal machine {flags}",
        port.display()
    );
    // An empty address for HTTP is none.
    let script = script.replace("--http-listen  ", "--http-listen '' ");
    let mut command = home.command("sh");
    command.args(["-c", &script]);
    Server::start_by_command(home, command)
}

/// Waits until the leader has a standby in sync.
fn synced(etcd: &Etcd, leader: &Server) {
    eventually("a standby is in sync", || {
        (members(etcd, &leader.home)["in_sync"] == true).then_some(())
    });
}

/// Waits until the leader has no standby in sync any more.
fn is_taken_out(etcd: &Etcd, leader: &Server) {
    eventually("it is taken out", || {
        (members(etcd, &leader.home)["in_sync"] == false).then_some(())
    });
}

/// A leader, and a standby in sync with it.
pub(super) fn pair(etcd: &Etcd) -> [Server; 2] {
    pair_with(etcd, &[])
}

/// The same, started with more.
pub(super) fn pair_with(etcd: &Etcd, more: &[&str]) -> [Server; 2] {
    let flags = peers(&[etcd]);
    let flags = [&as_strs(&flags)[..], more].concat();
    let pair = settled([(); 2].map(|()| Server::start_with(Home::new(), &flags)));
    synced(etcd, &pair[0]);
    pair
}

/// Has somebody hold `printer`, and somebody wait for it; the standby knows that, and is in sync still, or again: it is
/// taken out when it stands still for a quarter of a second.
fn holder_and_waiter(etcd: &Etcd, leader: &Server) -> (Holder, Raw) {
    let holder = Holder::of(leader, "printer", 60_000);
    let (mut waiter, _) = greeted(leader, hello());
    waiter.say(&[request(1, "printer")]);
    assert!(matches!(waiter.hear(), ServerMessage::Queued { position: 1, .. }));
    synced(etcd, leader);
    (holder, waiter)
}

/// The holder is still one, somebody waits, and others are granted what is free.
fn goes_on(next: &Server, holder: &mut Holder) {
    let welcome = holder.come_back(next);
    let resumed = matches!(welcome, ServerMessage::Welcome { standing: Standing::Resumed, .. });
    assert!(resumed, "{welcome:?}");
    let lock = next.lock("printer").unwrap();
    assert_eq!(lock["holders"][0]["token"].as_u64(), Some(holder.token.number()));
    assert_eq!(lock["waiter_count"], 1, "its place is kept");
    // Nobody who comes new has to wait for a grace period.
    assert!(Holder::of(next, "scanner", 60_000).token > holder.token);
}

#[test]
fn p6_a_standby_in_sync_takes_over_with_everything_when_the_leader_is_killed() {
    let etcd = Etcd::start();
    let [leader, next] = pair(&etcd);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    goes_on(&next, &mut holder);
}

/// What is free is granted to somebody new long before any lease is over.
fn is_granted_soon(server: &Server, name: &str) {
    let began = Instant::now();
    let _ = Holder::of(server, name, 60_000);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn p6_a_standby_in_sync_takes_over_when_the_machine_of_the_leader_is_silent() {
    let etcd = Etcd::start();
    let [leader, next] = pair(&etcd);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    let mut old = std::mem::replace(&mut holder.raw, Raw::connect(&leader));
    leader.process.signal(Signal::STOP);
    // It reads this when it wakes.
    old.say(&[ClientMessage::Release { request: RequestId::new(1), token: holder.token }]);
    leads(&next);
    goes_on(&next, &mut holder);
    leader.process.signal(Signal::CONT);
    match old.hear() {
        ServerMessage::Goodbye { code: GoodbyeCode::NotLeader, message, .. } => {
            assert_eq!(message, next.address, "and nothing of what it decided since");
        }
        other => panic!("{other:?}"),
    }
    // It follows whoever leads now.
    synced(&etcd, &next);
}

#[test]
fn p8_a_leader_whose_disk_takes_nothing_any_more_says_so_and_its_standby_leads_with_everything() {
    undisturbed(a_disk_takes_nothing_any_more);
}

fn a_disk_takes_nothing_any_more() {
    let etcd = Etcd::start();
    let leader = member_on_a_full_disk(&etcd, LEASE);
    leads(&leader);
    let next = Server::start_with(Home::new(), &as_strs(&peers_within(&[&etcd], LEASE)));
    synced(&etcd, &leader);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    // What is there cannot be made void either.
    let journal = directory_of(&leader.home).join("journal");
    for number in 0..1_100 {
        fs::write(journal.join(format!("other {number}")), "").unwrap();
    }
    let (mut busy, _) = greeted(&leader, hello());
    let asked = (1..2_000).map(|number| request(number, &format!("lock {number}")));
    busy.say(&asked.collect::<Vec<_>>());
    leads(&next);
    goes_on(&next, &mut holder);
    let ended = leader.process.end();
    assert_eq!(ended.code(), Some(70), "{}", ended.err);
    assert!(ended.err.contains("another one leads"), "{}", ended.err);
}

#[test]
fn p7_a_standby_is_given_a_large_table_beside_the_leader_and_takes_over_with_all_of_it() {
    const LOCKS: u64 = 10_000;
    for distance in ["process", "machine"] {
        let etcd = Etcd::start();
        let flags = [&peers(&[&etcd])[..], &["--journal".to_owned(), distance.to_owned()]].concat();
        let start = || Server::start_with(Home::new(), &as_strs(&flags));
        let leader = start();
        leads(&leader);
        let mut busy: Vec<Raw> = Vec::new();
        for session in 0..10 {
            let (mut raw, _) = greeted(&leader, hello_for(Attach::New, 60_000, None));
            for batch in 0..10 {
                let first = batch * 100 + 1;
                let asked = first..first + 100;
                let names = asked.map(|it| request(it, &format!("lock {session} {it}")));
                raw.say(&names.collect::<Vec<_>>());
                for _ in 0..100 {
                    let granted = raw.hear();
                    assert!(matches!(granted, ServerMessage::Grant { .. }), "{granted:?}");
                }
            }
            busy.push(raw);
        }
        let next = start();
        synced(&etcd, &leader);
        let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
        drop(leader.end_by(Signal::KILL));
        leads(&next);
        goes_on(&next, &mut holder);
        for (session, number) in [(0, 1), (9, LOCKS / 10)] {
            assert!(next.lock(&format!("lock {session} {number}")).is_some(), "{session} {number}");
        }
    }
}

#[test]
fn p5_members_prove_each_other_by_certificates_and_what_they_say_is_encrypted() {
    let (etcd, vault) = (Etcd::start(), Home::new());
    let path = |name: &str| vault.path(name).display().to_string();
    for name in ["ours", "others"] {
        let authority = Authority::new(&vault.path(&format!("{name}-ca.pem")));
        let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
        authority.issue(&["127.0.0.1"], &vault.path(&cert), &vault.path(&key));
    }
    let member = |name: &str| {
        let tls = ["--tls-cert", "--tls-key", "--tls-client-ca"].map(str::to_owned);
        let files = [format!("{name}.pem"), format!("{name}.key"), "ours-ca.pem".to_owned()];
        let files = files.map(|file| path(&file));
        let tls: Vec<_> = tls.into_iter().zip(files).flat_map(<[String; 2]>::from).collect();
        Server::start_with(
            Home::new(),
            &as_strs(&[&peers_within(&[&etcd], LEASE)[..], &tls].concat()),
        )
    };
    let names = |server: &Server| (members(&etcd, &server.home)["leader"]["address"]).clone();
    let leader = member("ours");
    eventually("it leads", || (names(&leader) == leader.address.as_str()).then_some(()));
    let (peer, _) = peer_and_key(&etcd);
    let mut stranger = TcpStream::connect(peer).unwrap();
    stranger.write_all(&[7; 64]).unwrap();
    let mut told = Vec::new();
    // It may be reset.
    let _ = stranger.read_to_end(&mut told);
    assert!(!told.starts_with(b"CRDFOLLW"), "it is said in the open");
    let other = member("others");
    let next = member("ours");
    synced(&etcd, &leader);
    // Its certificate is another authority's.
    other.process.says("cannot be followed");
    drop(leader.end_by(Signal::KILL));
    eventually("the standby leads", || (names(&next) == next.address.as_str()).then_some(()));
}

#[test]
fn p2_a_standby_that_was_started_anew_is_in_sync_again_and_then_takes_over() {
    let etcd = Etcd::start();
    let [leader, other] = pair(&etcd);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    let stopped = other.end_by(Signal::KILL);
    is_taken_out(&etcd, &leader);
    is_granted_soon(&leader, "plotter");
    let other = stopped.restart_with(&as_strs(&peers(&[&etcd])));
    synced(&etcd, &leader);
    drop(leader.end_by(Signal::KILL));
    leads(&other);
    goes_on(&other, &mut holder);
}

/// Where a member keeps its journal.
fn directory_of(home: &Home) -> PathBuf {
    let cluster = home.path(".local/state/coordinator/cluster/test");
    fs::read_dir(cluster).unwrap().next().unwrap().unwrap().path()
}

/// All that is kept there, but for the lock of the directory.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let below = [directory.to_owned(), directory.join("journal")];
    let all = below.iter().flat_map(|it| fs::read_dir(it).unwrap());
    let all: Vec<_> = all.map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> =
        all.into_iter().filter(|it| it.is_file() && !it.ends_with("lock")).collect();
    assert!(files.len() > 1, "what it keeps, and its journal");
    files
}

#[test]
fn p5_a_standby_whose_directory_is_void_or_anothers_begins_anew() {
    let etcd = Etcd::start();
    let [leader, mut other] = pair(&etcd);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    // That of a cluster of its own, with a lock that nobody here knows.
    let foreign = Etcd::start();
    let stranger = member(&foreign);
    leads(&stranger);
    let _ = Holder::of(&stranger, "elsewhere", 60_000);
    let stranger = stranger.end_by(Signal::KILL);
    for is_foreign in [false, true] {
        let stopped = other.end_by(Signal::KILL);
        // Else the one that was killed would be taken for the one that is started.
        is_taken_out(&etcd, &leader);
        let (ours, theirs) = (directory_of(&stopped.home), directory_of(&stranger.home));
        for file in files_of(&ours) {
            fs::remove_file(file).unwrap();
        }
        // With what it remembers of its own etcd, it would believe no other.
        let is_journal = |file: &&PathBuf| is_foreign && !file.ends_with("member");
        for file in files_of(&theirs).iter().filter(is_journal) {
            fs::copy(file, ours.join(file.strip_prefix(&theirs).unwrap())).unwrap();
        }
        other = stopped.restart_with(&as_strs(&peers(&[&etcd])));
        synced(&etcd, &leader);
    }
    drop(leader.end_by(Signal::KILL));
    leads(&other);
    goes_on(&other, &mut holder);
    assert!(other.lock("elsewhere").is_none());
}

#[test]
fn p7_a_standby_that_is_silent_is_taken_out_and_keeps_nobody_waiting() {
    let etcd = Etcd::start();
    let [leader, other] = pair(&etcd);
    other.process.signal(Signal::STOP);
    is_granted_soon(&leader, "printer");
    other.process.signal(Signal::CONT);
    synced(&etcd, &leader);
}

#[test]
fn p1_nothing_is_said_that_a_silent_standby_has_not_while_etcd_cannot_take_it_out() {
    let mut etcd = Etcd::start();
    let [leader, other] = pair(&etcd);
    let (mut asking, _) = greeted(&leader, hello());
    // In sync, nobody needs etcd.
    etcd.kill();
    asking.say(&[request(1, "printer")]);
    assert!(matches!(asking.hear(), ServerMessage::Grant { .. }));
    other.process.signal(Signal::STOP);
    asking.say(&[request(2, "scanner")]);
    assert!(!is_answered(&asking), "the standby may lead at any moment");
    other.process.signal(Signal::CONT);
    assert!(matches!(asking.hear(), ServerMessage::Grant { .. }));
    etcd.revive();
    synced(&etcd, &leader);
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_to_its_standby() {
    let etcd = Etcd::start();
    let [leader, next] = pair(&etcd);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    leader.process.signal(Signal::TERM);
    let ServerMessage::Goodbye { code, message, .. } = holder.raw.hear() else { panic!() };
    assert_eq!((code, &message), (GoodbyeCode::NotLeader, &next.address), "who follows it");
    // The old one waits for clients that take no Goodbye.
    leads(&next);
    let ended = leader.process.end();
    assert_eq!(ended.code(), Some(0), "{}", ended.err);
    goes_on(&next, &mut holder);
}

#[test]
fn a_third_member_names_the_leader_of_a_pair_in_sync_without_delay() {
    let (etcd, lease) = (Etcd::start(), Duration::from_secs(6));
    let another = || Server::start_with(Home::new(), &as_strs(&peers_within(&[&etcd], "6s")));
    let [leader, next] = settled([another(), another()]);
    let third = another();
    synced(&etcd, &leader);
    let is_named_for = |length: Duration| {
        let began = Instant::now();
        while began.elapsed() < length {
            let asked = Instant::now();
            assert_eq!(sent_to(&third).as_ref(), Some(&leader.address));
            let (took, after) = (asked.elapsed(), began.elapsed());
            assert!(took < lease / 2, "whoever came after {after:?} was kept for {took:?}");
        }
    };
    // Nobody renews the seat meanwhile.
    is_named_for(lease * 3 / 2);
    // A pair in sync needs no etcd.
    etcd.signal(Signal::STOP);
    is_named_for(lease * 3 / 2);
    drop((leader.end_by(Signal::KILL), next));
}

#[test]
fn three_are_started_anew_one_after_the_other_and_nobody_loses_anything() {
    let etcd = Etcd::start();
    let flags = peers(&[&etcd]);
    let mut all: Vec<Server> = settled([member(&etcd), member(&etcd)]).into();
    all.push(member(&etcd));
    synced(&etcd, &all[0]);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &all[0]);
    // Those who stand by first, and who leads last.
    for _ in 0..3 {
        let server = all.pop().unwrap();
        let server = server.end_by(Signal::TERM).restart_with(&as_strs(&flags));
        all.insert(0, server);
        let leader = eventually("one leads", || all.iter().find(|it| sent_to(it).is_none()));
        synced(&etcd, leader);
    }
    let leader = eventually("one leads", || all.iter().find(|it| sent_to(it).is_none()));
    goes_on(leader, &mut holder);
}

#[test]
fn p6_when_leader_and_standby_are_lost_another_leads_once_an_operator_says_so() {
    let etcd = Etcd::start();
    let [leader, other] = pair(&etcd);
    let third = member(&etcd);
    let mut holder = Holder::of(&leader, "printer", 60_000);
    let home = Home::new();
    // Neither has the time to go on without the other.
    other.process.signal(Signal::STOP);
    for server in [leader, other] {
        drop(server.end_by(Signal::KILL));
    }
    let url = etcd.url();
    let take_over = |term: &str| {
        let words =
            ["takeover", "--after-loss", "--term", term, "--cluster", "test", "--etcd", &url];
        run(home.coordinator(&words))
    };
    let term = members(&etcd, &home)["leader"]["term"].as_u64().unwrap();
    let other = take_over(&(term + 5).to_string());
    assert_eq!(other.code(), Some(1), "{}", other.err);
    assert!(other.err.contains(&format!("the term of now is {term}")), "{}", other.err);
    assert_eq!(sent_to(&third).map(|_| ()), Some(()), "nobody leads by itself");
    let told = take_over(&term.to_string());
    assert_eq!(told.code(), Some(0), "{}", told.err);
    assert!(told.out.contains("are declared lost"), "{}", told.out);
    leads(&third);
    let welcome = holder.come_back(&third);
    let reopened =
        matches!(welcome, ServerMessage::Welcome { standing: Standing::Reopened { .. }, .. });
    assert!(reopened, "a grace period: {welcome:?}");
}

/// Where standbys of the leader connect to, and the key that they prove themselves with.
fn peer_and_key(etcd: &Etcd) -> (String, [u8; 16]) {
    live(async {
        let client = Client::new(options(&[&etcd.url()])).unwrap();
        let text = async |name: &str| {
            let key = format!("/coordinator/test/{name}");
            String::from_utf8(client.read(&key).await.unwrap().found.unwrap().value).unwrap()
        };
        let seat: serde_json::Value = serde_json::from_str(&text("seat").await).unwrap();
        let key = u128::from_str_radix(&text("key").await, 16).unwrap();
        let arbiter = client.read("/coordinator/test/key").await.unwrap().cluster;
        let of = |key: [u8; 16], what: &[u8]| {
            let mut hasher = SipHasher24::new_with_key(&key);
            hasher.write(what);
            hasher.finish128().as_bytes()
        };
        let key = of(key.to_le_bytes(), b"clustertest");
        let key = of(key, &[b"members", &arbiter.to_le_bytes()[..]].concat());
        (seat["peer"].as_str().unwrap().to_owned(), key)
    })
}

/// A standby that does not follow the rules.
struct Rogue {
    socket: TcpStream,
    key: [u8; 16],
    said: u64,
}

impl Rogue {
    /// One that has the key of the cluster.
    fn insider((peer, key): &(String, [u8; 16])) -> Self {
        let mut socket = TcpStream::connect(peer).unwrap();
        socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
        let mut greeting = [0; 28];
        socket.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..8], b"CRDFOLLW");
        socket.write_all(&[7; 16]).unwrap();
        let mut hasher = SipHasher24::new_with_key(key);
        for part in [&b"follow"[..], &greeting[12..], &[7; 16]] {
            hasher.write(part);
        }
        Self { socket, key: hasher.finish128().as_bytes(), said: 0 }
    }

    fn say(&mut self, kind: u8, content: &[u8]) {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(&[1, kind]);
        hasher.write(&self.said.to_le_bytes());
        hasher.write(content);
        self.said += 1;
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        let frame = [&length[..], &[kind], &hasher.finish128().as_bytes(), content].concat();
        // It may be gone already.
        let _ = self.socket.write_all(&frame);
    }

    /// Wants to follow, by the rules of version `rules`.
    fn follow(&mut self, rules: u32) {
        let run = [&9_u128.to_le_bytes()[..], &0_u64.to_le_bytes()].concat();
        self.say(1, &[&1_u64.to_le_bytes()[..], &run, &rules.to_le_bytes()].concat());
    }

    /// The kind of what it is told, and the content.
    fn hear(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 21];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_le_bytes(head[..4].try_into().unwrap());
        let mut content = vec![0; length as usize];
        self.socket.read_exact(&mut content)?;
        Ok((head[4], content))
    }

    /// Waits until it is sent away.
    fn is_sent_away(&mut self) {
        while self.hear().is_ok() {}
    }
}

/// The rules of this version; another one is refused, and told which they are.
fn rules_of(place: &(String, [u8; 16])) -> u32 {
    let mut rogue = Rogue::insider(place);
    rogue.follow(u32::MAX);
    let (kind, why) = rogue.hear().unwrap();
    let why = String::from_utf8(why).unwrap();
    assert_eq!(kind, 3, "refused");
    let rules = why.split_once("and the leader ").unwrap().1;
    rules.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn p5_a_standby_that_is_none_lies_lags_or_is_cut_off_is_sent_away_and_harms_nobody() {
    let etcd = Etcd::start();
    let leader = member(&etcd);
    leads(&leader);
    let place = peer_and_key(&etcd);
    let rules = rules_of(&place);
    let follows = || {
        // It waits until it is taken out that came before, for it has the same run.
        eventually("it is accepted", || {
            let mut rogue = Rogue::insider(&place);
            rogue.follow(rules);
            (rogue.hear().unwrap().0 == 1).then_some(rogue)
        })
    };
    // Without the key.
    let mut stranger = Rogue::insider(&(place.0.clone(), [0; 16]));
    stranger.follow(rules);
    stranger.is_sent_away();
    // It claims a frame that is longer than any.
    let mut flood = follows();
    let _ = flood.socket.write_all(&[0xff; 4096]);
    flood.is_sent_away();
    // It has what it was never sent.
    let mut liar = follows();
    liar.say(2, &u64::MAX.to_le_bytes());
    liar.is_sent_away();
    // Its table is another, though it acknowledges all.
    let mut other = follows();
    while let Ok((kind, content)) = other.hear() {
        match kind {
            6 => other.say(2, &content[..8]),
            7 => other.say(3, &[&content[..8], &[0; 16]].concat()),
            _ => {}
        }
    }
    // It is cut off in the middle of what it says.
    let mut cut = follows();
    let _ = cut.socket.write_all(&[8, 0, 0, 0, 2, 1, 2, 3]);
    drop(cut);
    // It follows, and acknowledges nothing: it is never in sync.
    let lags = follows();
    for number in 0..100 {
        is_granted_soon(&leader, &format!("lock {number}"));
    }
    assert_eq!(members(&etcd, &leader.home)["in_sync"], false);
    drop(lags);
    // And one that follows the rules is taken.
    let next = member(&etcd);
    synced(&etcd, &leader);
    let (mut holder, _waiter) = holder_and_waiter(&etcd, &leader);
    drop(leader.end_by(Signal::KILL));
    leads(&next);
    goes_on(&next, &mut holder);
}
