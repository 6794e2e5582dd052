//! The time of day, which people set, which jumps, and by which no lock is ever decided (rules T1, F3).
//!
//! A process that is [under](WallClock::govern) such a clock reads its time of day, and nothing else,
//! from a file, each time anew: Debian's `faketime` puts itself between the program and the C library,
//! where std asks for the time of day. The clock that leases are measured with is asked of the
//! kernel directly, and goes on as it does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use coordinator::Client;
use coordinator::wire::{Attach, ClientMessage, ServerMessage};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

use crate::raw::{Raw, hello_for, request};
use crate::support::{DEADLINE, Server, run};

/// A day, in seconds.
pub(crate) const DAY: i64 = 86_400;
/// More than passes between two looks at a clock, less than any jump here: seconds.
const NEAR_MAX: u64 = 3_600;
/// 2026-01-01 00:00 UTC, in seconds since 1970: where tokens by the wall clock are counted from.
const ORIGIN_SECS: u64 = 1_767_225_600;
/// Tokens that belong to each second since.
const TOKENS_PER_SEC: u64 = 1 << 20;
/// The shortest lease.
const TTL: Duration = Duration::from_secs(2);
/// One that is renewed in a test, and that a busy machine does not stand still for.
const KEPT_TTL: Duration = Duration::from_secs(5);
/// Where `faketime` leaves two files of each process that could not tidy up.
const SHARED_MEMORY: &str = "/dev/shm";

/// A time of day for the processes that are started under it.
pub(crate) struct WallClock {
    /// Says how far it is ahead of the true time, in seconds.
    file: PathBuf,
}

impl WallClock {
    /// One that is right, as yet.
    pub(crate) fn new(file: PathBuf) -> Self {
        let clock = Self { file };
        clock.set(0);
        clock
    }

    /// So many seconds ahead of the true time from now on, or behind it.
    pub(crate) fn set(&self, ahead: i64) {
        // Whole at any moment: it is read all the time.
        let next = self.file.with_extension("next");
        fs::write(&next, format!("{ahead:+}\n")).unwrap();
        fs::rename(next, &self.file).unwrap();
    }

    /// Puts the process that `command` starts under this clock.
    pub(crate) fn govern(&self, command: &mut Command) {
        tidy_up_after_the_dead();
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

/// What the linker has to load first.
fn library() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let mut asked = Command::new("faketime");
        asked.args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]);
        let told = asked.output().expect("faketime is missing; scripts/test installs it");
        String::from_utf8(told.stdout).unwrap().trim().to_owned()
    })
}

/// Takes away what a process under a wall clock left when it was killed: the next one with its number
/// would stumble over it.
pub(crate) fn tidy_up_after(pid: &str) {
    for name in [format!("faketime_shm_{pid}"), format!("sem.faketime_sem_{pid}")] {
        // It may have ended in order, or never have been under any.
        let _not_there = fs::remove_file(Path::new(SHARED_MEMORY).join(name));
    }
}

/// The same after all that are no more: a test that was killed did not tidy up.
fn tidy_up_after_the_dead() {
    for file in fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
        let name = file.file_name().into_string().unwrap_or_default();
        let pid = name.strip_prefix("faketime_shm_").or(name.strip_prefix("sem.faketime_sem_"));
        if let Some(pid) = pid.filter(|pid| !Path::new("/proc").join(pid).exists()) {
            tidy_up_after(pid);
        }
    }
}

/// Whether a clock is so many seconds ahead, as near as can be told while time goes by.
pub(crate) fn is_about(told: i64, ahead: i64) -> bool {
    told.abs_diff(ahead) < NEAR_MAX
}

/// How far a time of day, since 1970, is ahead of the true one, in seconds.
fn ahead_of_the_truth(told: Duration) -> i64 {
    // Asked of the kernel directly.
    let truth = clock_gettime(ClockId::Realtime).tv_sec;
    i64::try_from(told.as_secs()).unwrap() - truth
}

/// How far this process's time of day is ahead, in seconds.
pub(crate) fn ahead_here() -> i64 {
    ahead_of_the_truth(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
}

/// How far the coordinator's time of day is ahead, in seconds, as it tells it with an event.
pub(crate) fn ahead_at(server: &Server) -> i64 {
    let mut observer = Raw::connect(server);
    let name = "time of day";
    observer.say(&[
        // Its session does not outlive it, nor make grace periods longer.
        hello_for(Attach::New, 2_000, Some(0)),
        ClientMessage::Subscribe { query_id: 1, name: Some(name.to_owned()) },
        request(1, name),
    ]);
    loop {
        if let ServerMessage::Event { at_ms, .. } = observer.hear() {
            return ahead_of_the_truth(Duration::from_millis(at_ms));
        }
    }
}

#[test]
fn leases_are_as_long_as_ever_while_the_wall_clock_jumps_by_days() {
    let server = Server::start_under_a_wall_clock();
    let runtime = Runtime::new().unwrap();
    let connect = async |ttl| Client::builder().ttl(ttl).connect(&server.address).await.unwrap();
    let (holder, rival) = runtime.block_on(async { (connect(KEPT_TTL).await, connect(TTL).await) });
    let kept = runtime.block_on(async { holder.lock("kept").await }).unwrap();
    for ahead in [2 * DAY, -2 * DAY, 0] {
        // One whose client is not heard of any more.
        let mut silent = Raw::connect(&server);
        silent.say(&[hello_for(Attach::New, 2_000, None), request(1, "silent")]);
        assert!(matches!(silent.hear(), ServerMessage::Welcome { .. }));
        let began = Instant::now();
        assert!(matches!(silent.hear(), ServerMessage::Grant { .. }));
        server.home.wall_clock().set(ahead);
        let told = ahead_at(&server);
        assert!(is_about(told, ahead), "the coordinator is {told} s ahead, and not {ahead} s");
        // Handed on when the lease is over, neither earlier nor never.
        let next = runtime.block_on(async { rival.lock("silent").timeout(DEADLINE).await });
        let waited = began.elapsed();
        assert!(waited + Duration::from_millis(50) >= TTL, "after {waited:?}, {ahead} s ahead");
        runtime.block_on(next.unwrap().release()).unwrap();
        assert!(kept.is_held(), "{:?}, {ahead} s ahead", kept.state());
    }
    runtime.block_on(kept.release()).unwrap();
}

#[test]
fn tokens_grow_whatever_the_wall_clock_says_at_a_start() {
    let mut server = Server::start_under_a_wall_clock();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(async { Client::connect(&server.address).await }).unwrap();
    let token = || {
        let guard = runtime.block_on(async { client.lock("printer").await }).unwrap();
        let token = guard.token().number();
        runtime.block_on(guard.release()).unwrap();
        token
    };
    let mut greatest = token();
    // From the floor of a clock that is ahead they go on, and do not come back to that of one that
    // is behind.
    for (ahead, seen) in [(2 * DAY, 2 * DAY), (-2 * DAY, 2 * DAY), (DAY, 2 * DAY)] {
        server.home.wall_clock().set(ahead);
        server = server.stop_and_restart();
        let token = token();
        assert!(token > greatest, "{ahead} s ahead");
        greatest = token;
        let since_origin = Duration::from_secs(token / TOKENS_PER_SEC + ORIGIN_SECS);
        let counted = ahead_of_the_truth(since_origin);
        assert!(is_about(counted, seen), "counted from {counted} s ahead, with {ahead} s");
    }
    // So far ahead that the state seems to be an old copy: for a person to look at.
    server.home.wall_clock().set(400 * DAY);
    let stopped = server.end_by(Signal::TERM);
    let done = run(stopped.home.coordinator(&["serve", "--listen", "127.0.0.1:0"]));
    assert!(done.err.contains("--accept-stale-state"), "{}", done.err);
    stopped.home.wall_clock().set(0);
    let _server = stopped.restart();
    assert!(token() > greatest);
}
