//! What a start makes of a journal, and of none (rules J1 to J9). That a crash costs nothing is for
//! [`crate::kills`].

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coordinator::{Client, Servers};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{DEADLINE, Door, Home, Server, eventually, run, start};

/// The longest that a free lock may take after a crash, on a busy machine. A grace period takes longer.
const SOON: Duration = Duration::from_secs(5);
/// The usual lease: a grace period is longer.
const TTL: Duration = Duration::from_secs(10);
const LOCKERS: usize = 4;

async fn connect(servers: impl Into<Servers>, ttl: Duration) -> Client {
    Client::builder().ttl(ttl).connect(servers).await.unwrap()
}

/// Asks for a lock that is free, as somebody who was not there before; says how long it took.
fn granted_soon(runtime: &Runtime, server: &Server, name: &str) -> Duration {
    let began = Instant::now();
    runtime.block_on(async {
        let client = connect(server.servers(), TTL).await;
        let guard = timeout(SOON, client.lock(name)).await.expect("a grace period").unwrap();
        guard.release().await.unwrap();
    });
    began.elapsed()
}

fn journal(home: &Home) -> PathBuf {
    home.path(".local/state/coordinator/journal")
}

fn status(server: &Server) -> serde_json::Value {
    let status = run(server.client(&["status", "--json"]));
    serde_json::from_str(&status.out).unwrap()
}

fn grace_ms(server: &Server) -> Option<u64> {
    status(server)["server"]["grace_ms"].as_u64().filter(|&left| left > 0)
}

#[test]
fn status_says_how_far_things_are_written_and_how_the_run_began() {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let seen = status(&server);
    assert_eq!(seen["journal"]["distance"], "process");
    assert_eq!(seen["journal"]["start"]["kind"], "new");
    let began_with = seen["journal"]["bytes"].as_u64().unwrap();
    granted_soon(&runtime, &server, "printer");
    assert!(status(&server)["journal"]["bytes"].as_u64().unwrap() > began_with);

    let server = server.end_by(Signal::KILL).restart_with(&["--journal", "machine"]);
    let seen = status(&server);
    assert_eq!(seen["journal"]["distance"], "machine");
    assert_eq!(seen["journal"]["start"]["kind"], "replayed");
    assert!(seen["journal"]["start"]["events"].as_u64().unwrap() >= 3);
    let text = run(server.client(&["status"])).out;
    assert!(text.contains("a power cut loses nothing; started after a crash: replayed"), "{text}");

    let server = server.stop_and_restart();
    assert_eq!(status(&server)["journal"]["start"]["kind"], "saved");
    let server = server.end_by(Signal::KILL).restart_with(&["--journal", "off"]);
    let seen = status(&server);
    assert_eq!(seen["journal"]["distance"], "off");
    let start = &seen["journal"]["start"];
    assert_eq!((&start["kind"], &start["why"]), (&"lost".into(), &"no journal is kept".into()));
    assert!(start["grace_ms"].as_u64().unwrap() > 10_000);
    server.process.signal(Signal::TERM);
    let log = server.process.end().err;
    assert!(log.contains("journal: none; a crash is followed by a grace period"), "{log}");
}

/// Locks and releases until told to stop, and sees that its tokens grow.
fn load(runtime: &Runtime, address: &str, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<u64>> {
    let latest = Arc::new(AtomicU64::new(0));
    let (here, mut all_here) = mpsc::unbounded_channel();
    let tasks = (0..LOCKERS)
        .map(|_| {
            let (address, stop, latest) =
                (address.to_owned(), Arc::clone(stop), Arc::clone(&latest));
            let here = here.clone();
            runtime.spawn(async move {
                let client = connect(&address, TTL).await;
                here.send(()).unwrap();
                let mut pairs = 0;
                while !stop.load(Ordering::SeqCst) {
                    let guard = client.lock("busy").await.unwrap();
                    let token = guard.token().number();
                    assert!(latest.fetch_max(token, Ordering::SeqCst) < token, "{token}");
                    guard.release().await.unwrap();
                    pairs += 1;
                }
                pairs
            })
        })
        .collect();
    for _ in 0..LOCKERS {
        runtime.block_on(all_here.recv()).unwrap();
    }
    tasks
}

#[test]
fn without_a_journal_a_crash_is_followed_by_a_grace_period_and_an_old_one_is_not_believed() {
    let flags = ["--journal", "off"];
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let client = connect(server.servers(), Duration::from_secs(60)).await;
        client.lock("printer").await.unwrap().release().await.unwrap();
    });
    // The journal of the run before is there, and knows nothing of this run.
    let server = server.end_by(Signal::KILL).restart_with(&flags);
    assert!(grace_ms(&server).is_some());
    let server = server.crash_and_restart();
    assert!(grace_ms(&server).is_some());
    // A grace period that is known of goes on, whatever crashes.
    let server = server.crash_and_restart();
    assert!(grace_ms(&server).is_some_and(|left| left > 45_000));
}

fn stops_and_crashes(door: Door) {
    let server = Server::start_behind(door, Home::new(), &[]);
    let runtime = Runtime::new().unwrap();
    let guard = runtime.block_on(async {
        let client = connect(server.servers(), TTL).await;
        client.lock("printer").await.unwrap()
    });
    let mut server = server;
    for round in 0..3 {
        server = server.stop_and_restart();
        assert_eq!(grace_ms(&server), None);
        server = server.crash_and_restart();
        assert_eq!(grace_ms(&server), None);
        granted_soon(&runtime, &server, &format!("free {round}"));
        assert_eq!(server.held("printer"), guard.token().number());
    }
    runtime.block_on(guard.release()).unwrap();
}

#[test]
fn an_orderly_stop_a_start_and_a_crash_at_once_lose_nothing() {
    stops_and_crashes(Door::Open);
}

#[test]
fn an_orderly_stop_a_start_and_a_crash_at_once_lose_nothing_by_mutual_tls_and_rules() {
    stops_and_crashes(Door::Guarded);
}

#[test]
fn the_directory_of_a_service_that_goes_on_can_be_lost() {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let busy = load(&runtime, &server.address, &stop);
    granted_soon(&runtime, &server, "before");
    fs::remove_dir_all(server.home.path(".local/state/coordinator")).unwrap();
    granted_soon(&runtime, &server, "after");
    eventually("the directory is missed", || {
        (status(&server)["server"]["unsaved_ms"].as_u64()? > 0).then_some(())
    });
    granted_soon(&runtime, &server, "later");
    stop.store(true, Ordering::SeqCst);
    runtime.block_on(async {
        for task in busy {
            assert!(timeout(DEADLINE, task).await.unwrap().unwrap() > 0);
        }
    });
    server.process.says("would be followed by a grace period");
}

#[test]
fn whoever_lost_a_lock_with_the_state_is_not_told_of_a_silence() {
    let server = Server::start_durable();
    let lock = start(server.client(&["lock", "printer", "--", "sleep", "1000"]));
    eventually("it is held", || (status(&server)["server"]["held"].as_u64()? == 1).then_some(()));
    fs::remove_dir_all(server.home.path(".local/state/coordinator")).unwrap();
    let next = server.end_by(Signal::KILL).restart_with(&[]);
    let done = lock.end();
    assert!(done.err.contains("does not know its session any more"), "{}", done.err);
    assert!(!done.err.contains("no answer"), "{}", done.err);
    drop(next);
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Kills a coordinator that a lock is held of, does something to its directory, and starts it again. Says
/// what the log tells of the journal.
fn after_a_crash(happens: impl FnOnce(&Path)) -> String {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let state = server.home.path(".local/state/coordinator");
    let client = runtime.block_on(connect(&server.address, TTL));
    let guard = runtime.block_on(async { client.lock("printer").await }).unwrap();
    let stopped = server.end_by(Signal::KILL);
    happens(&state);
    let server = stopped.restart();
    assert!(grace_ms(&server).is_some(), "it was believed");
    // Its holder shows what it has.
    assert_eq!(server.held("printer"), guard.token().number());
    runtime.block_on(guard.release()).unwrap();
    server.process.signal(Signal::TERM);
    server.process.end().err
}

/// The one segment that there is.
fn segment(state: &Path) -> PathBuf {
    let mut entries = fs::read_dir(state.join("journal")).unwrap().map(|it| it.unwrap().path());
    entries.find(|it| it.extension().is_some_and(|extension| extension == "log")).unwrap()
}

#[test]
fn a_copy_by_cp_or_tar_is_void_and_the_log_says_so() {
    let by_cp = after_a_crash(|state| {
        let copied = state.with_extension("copy");
        copy(state, &copied);
        fs::remove_dir_all(state).unwrap();
        fs::rename(&copied, state).unwrap();
    });
    let by_tar = after_a_crash(|state| {
        let archive = state.with_extension("tar");
        let (parent, name) = (state.parent().unwrap(), state.file_name().unwrap());
        let tar = |flag| {
            let mut tar = std::process::Command::new("tar");
            tar.arg("-C").arg(parent).arg(flag).arg(&archive);
            tar
        };
        assert!(tar("-cf").arg(name).status().unwrap().success());
        fs::remove_dir_all(state).unwrap();
        assert!(tar("-xf").status().unwrap().success());
    });
    for log in [by_cp, by_tar] {
        assert!(log.contains("journal not used: segment "), "{log}");
        assert!(log.contains("is a copy of the file that was written"), "{log}");
    }
}

#[test]
fn a_hard_link_to_a_segment_makes_the_journal_void_and_the_log_says_so() {
    let log = after_a_crash(|state| {
        let segment = segment(state);
        fs::hard_link(&segment, segment.with_extension("kept")).unwrap();
    });
    assert!(log.contains("has 2 names: hard links to it were made"), "{log}");
}

#[test]
fn damage_and_a_missing_part_make_the_journal_void_and_the_log_says_so() {
    let flipped = after_a_crash(|state| {
        let segment = segment(state);
        let mut bytes = fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        // The same file, with other content.
        fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all(&bytes).unwrap();
    });
    assert!(flipped.contains("does not verify"), "{flipped}");
    let checkpoint = after_a_crash(|state| {
        let checkpoint = segment(state).with_extension("checkpoint");
        fs::remove_file(checkpoint).unwrap();
    });
    assert!(checkpoint.contains("the checkpoint of segment "), "{checkpoint}");
    assert!(checkpoint.contains(" is missing"), "{checkpoint}");
    let later = after_a_crash(|state| {
        let segment = segment(state);
        let mut bytes = fs::read(&segment).unwrap();
        bytes[8] += 1;
        fs::OpenOptions::new().write(true).open(&segment).unwrap().write_all(&bytes).unwrap();
    });
    assert!(later.contains("was written by a later version"), "{later}");
}

#[test]
fn an_old_copy_of_the_directory_is_followed_by_a_grace_period() {
    let server = Server::start_durable();
    let runtime = Runtime::new().unwrap();
    let (state, old) = (server.home.path(".local/state/coordinator"), server.home.path("old"));
    let client = runtime.block_on(connect(&server.address, TTL));
    runtime.block_on(async { client.lock("early").await.unwrap().release().await.unwrap() });
    copy(&state, &old);
    let guard = runtime.block_on(async { client.lock("printer").await }).unwrap();
    let stopped = server.end_by(Signal::KILL);
    fs::remove_dir_all(&state).unwrap();
    copy(&old, &state);
    let server = stopped.restart();
    assert!(grace_ms(&server).is_some());
    // Its holder shows what it has.
    assert_eq!(server.held("printer"), guard.token().number());
    runtime.block_on(guard.release()).unwrap();
}

#[test]
fn a_full_disk_ends_the_journal_and_not_the_service_and_it_is_begun_anew() {
    let home = Home::new();
    let port = home.path("port");
    // Files get no longer than so many kilobytes, which is as a full disk is, and far too few for a new
    // segment to be begun by itself.
    let program = env!("CARGO_BIN_EXE_coordinator");
    let script = format!(
        "ulimit -f 64; exec {program} serve --listen 127.0.0.1:0 --port-file {}",
        port.display()
    );
    let mut command = home.command("sh");
    command.args(["-c", &script]);
    let server = Server::start_by_command(home, command);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let client = connect(&server.address, TTL).await;
        for _ in 0..2_000 {
            client.lock("busy").await.unwrap().release().await.unwrap();
        }
    });
    granted_soon(&runtime, &server, "free");
    let journal = journal(&server.home);
    // All that was written is gone, and with it what has filled the disk.
    let is_there = |end: &str| {
        let mut names = fs::read_dir(&journal).unwrap().map(|it| it.unwrap().path());
        names.any(|it| it.extension().is_some_and(|it| it == end))
    };
    eventually("a new journal is complete", || {
        let is_on = status(&server)["journal"]["off_ms"] == 0;
        (is_on && is_there("log") && is_there("checkpoint")).then_some(())
    });
    let stopped = server.end_by(Signal::KILL);
    let server = stopped.restart();
    assert_eq!(grace_ms(&server), None);
    granted_soon(&runtime, &server, "free");
}
