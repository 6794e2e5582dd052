//! What client processes write down: a line for each thing that happens, and what it means.
//!
//! ```text
//!   <microseconds> <client> <request> invoke printer:x,gpu:1/3
//!   <microseconds> <client> <request> granted 1881
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use coordinator::FenceGuard;
use coordinator::types::FencingToken;
use rustix::time::{ClockId, clock_gettime};

use crate::history::{How, RequestName, Wanted};

/// Length of a line of a resource's file; all are equally long, so that the last can be found.
const WRITE_LINE_LEN: usize = 96;

/// Longer than a heartbeat is ever late while things run.
const STALL_MIN: Duration = Duration::from_millis(200);

/// A length of time in which something did not run, in microseconds of the one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from: u64,
    pub(super) until: u64,
}

impl Window {
    /// Whether, if it is the time between two heartbeats, nothing ran meanwhile.
    pub(super) fn is_stall(self) -> bool {
        Duration::from_micros(self.until - self.from) > STALL_MIN
    }
}

/// For how much of `whole` any of `windows` lasted; where several did at once, that counts once.
pub(super) fn covered(windows: impl Iterator<Item = Window>, whole: Window) -> u64 {
    let mut windows: Vec<Window> =
        windows.filter(|window| window.until > whole.from && window.from < whole.until).collect();
    windows.sort_by_key(|window| window.from);
    let (mut length, mut counted_until) = (0, whole.from);
    for Window { from, until } in windows {
        let until = until.min(whole.until);
        length += until.saturating_sub(from.max(counted_until));
        counted_until = counted_until.max(until);
    }
    length
}

/// Now, by the clock that all processes of this machine share.
pub(super) fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1_000
}

/// Something that happened to a request, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It asks for these locks.
    Invoke(String),
    /// It heard that it waits, or where, and kept its session until it was granted.
    Queued,
    /// It was granted, with this token.
    Granted(u64),
    /// `is_held` said so after this moment.
    Held,
    /// It is about to be given back.
    Release,
    /// That was answered.
    Released,
    /// It was lost, for this reason.
    Lost(String),
    /// It was refused, for this reason.
    Refused(String),
    /// Nobody waits for an answer any more.
    Abandoned,
    /// This process did not run since then.
    Stalled(u64),
    /// Its time of day is so many seconds ahead of the true one.
    Ahead(i64),
}

/// A line of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at: u64,
    pub(super) request: RequestName,
    pub(super) said: Said,
}

impl Line {
    fn write(&self) -> String {
        let Self { at, request: RequestName { client, number }, said } = self;
        let said = match said {
            Said::Invoke(claims) => format!("invoke {claims}"),
            Said::Queued => "queued".into(),
            Said::Granted(token) => format!("granted {token}"),
            Said::Held => "held".into(),
            Said::Release => "release".into(),
            Said::Released => "released".into(),
            Said::Lost(reason) => format!("lost {reason}"),
            Said::Refused(reason) => format!("refused {reason}"),
            Said::Abandoned => "abandoned".into(),
            Said::Stalled(since) => format!("stalled {since}"),
            Said::Ahead(seconds) => format!("ahead {seconds}"),
        };
        format!("{at} {client} {number} {said}\n")
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        let mut number = || words.next()?.parse().ok();
        let (at, client, number) = (number()?, number()?, number()?);
        let (verb, rest) = (words.next()?, words.next().unwrap_or_default().to_owned());
        let said = match verb {
            "invoke" => Said::Invoke(rest),
            "queued" => Said::Queued,
            "granted" => Said::Granted(rest.parse().ok()?),
            "held" => Said::Held,
            "release" => Said::Release,
            "released" => Said::Released,
            "lost" => Said::Lost(rest),
            "refused" => Said::Refused(rest),
            "abandoned" => Said::Abandoned,
            "stalled" => Said::Stalled(rest.parse().ok()?),
            "ahead" => Said::Ahead(rest.parse().ok()?),
            _ => return None,
        };
        Some(Self { at, request: RequestName { client, number }, said })
    }
}

/// The claims of a request from how they are written: `printer:x`, `printer:s`, `gpu:1/3`.
pub(super) fn wanted(claims: &str) -> Vec<Wanted> {
    let one = |claim: &str| {
        let (lock, how) = claim.rsplit_once(':').unwrap();
        let how = match (how, how.split_once('/')) {
            ("x", _) => How::Exclusive,
            ("s", _) => How::Shared,
            (_, Some((take, of))) => {
                How::Permits { take: take.parse().unwrap(), of: of.parse().unwrap() }
            }
            _ => panic!("{claim:?} is no claim"),
        };
        Wanted { lock: lock.into(), how }
    };
    claims.split(',').map(one).collect()
}

/// Where a client process writes. A line is one write, so that a killed process has written whole
/// lines.
#[derive(Clone)]
pub(super) struct History(Arc<Mutex<File>>);

impl History {
    pub(super) fn create(path: &Path) -> Self {
        Self(Arc::new(Mutex::new(File::create(path).unwrap())))
    }

    pub(super) fn note(&self, at: u64, request: RequestName, said: Said) {
        let line = Line { at, request, said }.write();
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// All lines of a history. The last one of a process that was killed may be none.
pub(super) fn lines(text: &str) -> Vec<Line> {
    text.lines().filter_map(Line::read).collect()
}

/// A write to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) at: u64,
    pub(super) by: RequestName,
    pub(super) token: u64,
    pub(super) accepted: bool,
}

/// The file that stands for what a lock protects. It remembers all writes, and accepts those with a
/// token as great as the greatest before; whoever writes has it to itself for that moment.
pub(super) fn write_resource(
    directory: &Path,
    lock: &str,
    by: RequestName,
    token: u64,
) -> std::io::Result<bool> {
    let path = resource_path(directory, lock);
    let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
    file.lock()?;
    let len = file.metadata()?.len();
    let mut greatest = 0;
    if let Some(last) = len.checked_sub(WRITE_LINE_LEN as u64) {
        let mut line = [0; WRITE_LINE_LEN];
        file.seek(SeekFrom::Start(last))?;
        file.read_exact(&mut line)?;
        greatest =
            std::str::from_utf8(&line).unwrap().split_whitespace().nth(5).unwrap().parse().unwrap();
    }
    let fence = FenceGuard::new();
    fence.check(FencingToken::new(greatest)).unwrap();
    let accepted = fence.check(FencingToken::new(token)).is_ok();
    let greatest = greatest.max(token);
    let RequestName { client, number } = by;
    let text = format!("{} {client} {number} {token} {accepted} {greatest}", now_us());
    let mut line = format!("{text:<width$}", width = WRITE_LINE_LEN - 1);
    line.push('\n');
    file.write_all(line.as_bytes())?;
    Ok(accepted)
}

fn resource_path(directory: &Path, lock: &str) -> PathBuf {
    directory.join(format!("{}.resource", lock.replace('/', "-")))
}

/// All writes to a resource, in the order in which they were made.
pub(super) fn writes(text: &str) -> Vec<Written> {
    let one = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let by = RequestName { client: number(1), number: number(2) };
        Written { at: number(0), by, token: number(3), accepted: words[4] == "true" }
    };
    text.lines().map(one).collect()
}

#[test]
fn what_is_written_down_is_read_as_it_was() {
    let all = [
        Said::Invoke("a:x,b:s,c:1/3".into()),
        Said::Queued,
        Said::Granted(7),
        Said::Held,
        Said::Release,
        Said::Released,
        Said::Lost("Expired".into()),
        Said::Refused("after 2 s: busy".into()),
        Said::Abandoned,
        Said::Ahead(-86_400),
        Said::Stalled(3),
    ];
    let request = RequestName { client: 2, number: 3 };
    let all = all.map(|said| Line { at: 5, request, said });
    let text: String = all.iter().map(Line::write).collect();
    assert_eq!(lines(&text), all);
    assert_eq!(lines(&text[..text.len() - 4]).len(), all.len() - 1, "the last is cut");
    let hows: Vec<How> = wanted("a:x,b:s,c:1/3").into_iter().map(|wanted| wanted.how).collect();
    assert_eq!(hows, [How::Exclusive, How::Shared, How::Permits { take: 1, of: 3 }]);
}

#[test]
fn what_did_not_run_twice_at_once_did_not_run_for_twice_as_long() {
    let window = |from, until| Window { from, until };
    let covered = |windows: &[Window]| covered(windows.iter().copied(), window(10, 20));
    assert_eq!(covered(&[]), 0);
    assert_eq!(covered(&[window(0, 10), window(20, 30)]), 0);
    assert_eq!(covered(&[window(0, 12), window(18, 30)]), 4);
    assert_eq!(covered(&[window(14, 16), window(11, 15), window(11, 13)]), 5);
    assert_eq!(covered(&[window(0, 30), window(12, 14)]), 10);
}

#[test]
fn a_resource_refuses_what_comes_too_late_and_remembers_it() {
    let directory = tempfile::tempdir().unwrap();
    let by = |number| RequestName { client: 1, number };
    let write = |number, token| write_resource(directory.path(), "a/b", by(number), token).unwrap();
    assert_eq!([write(1, 5), write(2, 7), write(1, 5), write(2, 7)], [true, true, false, true]);
    let text = std::fs::read_to_string(resource_path(directory.path(), "a/b")).unwrap();
    let accepted: Vec<bool> = writes(&text).iter().map(|write| write.accepted).collect();
    assert_eq!(accepted, [true, true, false, true]);
}
