//! What came of it: histories of many processes made one, judged, and counted.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::Path;

use super::faults::Deeds;
use super::record::{Line, Said, Window, covered, lines, wanted, writes};
use super::worker::{OWN_LOCK, TTL, history_path};
use crate::history::{Entry, Figures, Log, RequestName, What};
use crate::wall_clock::is_about;

/// For how long all that a holder needs may be away in the course of a lease, so that it must keep its
/// lock nevertheless. The rest is for coming back.
const AWAY_MAX_US: u64 = 400_000;
/// Most violations that are printed.
const SHOWN_MAX: usize = 20;

/// What is known of a hold.
#[derive(Clone, Debug, Default)]
struct Hold {
    /// Its claims, as they are written.
    claims: String,
    /// When it was told that it waits.
    queued: Vec<u64>,
    /// When its grant was heard.
    granted: Option<u64>,
    /// When it was last believed in.
    believed: Option<u64>,
    /// Whether it is told that the belief is over.
    is_told: bool,
    /// Whether there is nothing more to come.
    is_over: bool,
}

/// What happened around a client process.
struct Circumstances<'a> {
    /// When the coordinator was away, or all stood still.
    everyone: Vec<Window>,
    /// When the process itself stood still.
    process: Vec<Window>,
    /// When not everything got through the proxy.
    dark: &'a [Window],
    /// When the coordinator crashed.
    crashes: &'a [Window],
}

impl<'a> Circumstances<'a> {
    fn of(process: u64, lines: &[Line], deeds: &'a Deeds, stalls: &[Window]) -> Self {
        let stopped =
            deeds.stopped.iter().filter(|(who, _)| *who == process).map(|(_, when)| *when);
        let stalled = lines.iter().filter_map(|line| match line.said {
            Said::Stalled(from) => Some(Window { from, until: line.at }),
            _ => None,
        });
        Self {
            everyone: [&deeds.away, stalls].concat(),
            process: stopped.chain(stalled).collect(),
            dark: &deeds.dark,
            crashes: &deeds.crashes,
        }
    }

    /// Since when a request that was granted at `granted` is known to have been in line without a
    /// break, if it was told at these times that it waits.
    fn in_line_since(&self, request: RequestName, queued: &[u64], granted: u64) -> Option<u64> {
        let dark = if is_direct(request) { &[] } else { self.dark };
        let away: Vec<Window> = dark
            .iter()
            .chain(&self.process)
            .filter(|away| away.until - away.from > AWAY_MAX_US)
            .copied()
            .collect();
        in_line_since(queued, granted, self.crashes, &away)
    }
}

/// Whether it does not go through the proxy.
fn is_direct(request: RequestName) -> bool {
    request.client.is_multiple_of(2)
}

/// What came of a run.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What could not be.
    pub(super) violations: Vec<String>,
    /// What the checker counted.
    figures: Figures,
    /// Client processes.
    processes: u64,
    /// Lines of all histories.
    lines: usize,
    /// How often each fault struck.
    faults: BTreeMap<&'static str, u64>,
    /// Holds that were lost, by reason.
    losses: BTreeMap<String, u64>,
    /// Requests that were refused, by reason.
    refusals: BTreeMap<String, u64>,
    /// Holds of a lock of one's own that outlived a crash of the coordinator.
    kept: u64,
    /// Such that were lost, with a reason for it.
    excused: u64,
}

/// Judges the histories in `directory`.
pub(super) fn judge(directory: &Path, deeds: &Deeds, stalls: &[Window]) -> Verdict {
    let mut verdict =
        Verdict { processes: deeds.processes, faults: deeds.counts.clone(), ..Verdict::default() };
    let mut log = Log::default();
    let mut holds = HashMap::new();
    for process in 0..deeds.processes {
        let text = fs::read_to_string(history_path(directory, process)).unwrap_or_default();
        let lines = lines(&text);
        verdict.lines += lines.len();
        let around = Circumstances::of(process, &lines, deeds, stalls);
        let mut of_process = HashMap::new();
        for line in &lines {
            verdict.line(line, &mut of_process, &around, &mut log);
        }
        verdict.wall_clock(process, &lines, deeds);
        if let Some((_, at)) = deeds.killed.iter().find(|(who, _)| *who == process) {
            bury(&mut of_process, *at, &mut log);
        }
        holds.extend(of_process);
    }
    verdict.resources(directory, &holds, &mut log);
    for crash in &deeds.crashes {
        let outlived = |hold: &&Hold| {
            hold.claims.starts_with(OWN_LOCK)
                && hold.granted.is_some_and(|at| at < crash.from)
                && hold.believed.is_some_and(|at| at > crash.until)
        };
        verdict.kept += holds.values().filter(outlived).count() as u64;
    }
    let stuck = |process| format!("client process {process} did not come to an end");
    verdict.violations.extend(deeds.stuck.iter().map(stuck));
    verdict.violations.extend(deeds.noticed.iter().cloned());
    match log.check() {
        Ok(figures) => verdict.figures = figures,
        Err(found) => verdict.violations.extend(found.iter().map(ToString::to_string)),
    }
    verdict
}

fn note(log: &mut Log, at: u64, request: RequestName, what: What) {
    log.note(Entry { at, local: at, request, what });
}

impl Hold {
    /// Says that it is believed in no more than it is known to have been.
    fn end_belief(&mut self, request: RequestName, log: &mut Log) {
        if let Some(at) = self.believed
            && !self.is_told
        {
            self.is_told = true;
            note(log, at, request, What::BeliefEnded);
        }
    }
}

/// Since when a request that was granted at `granted` is known to have been in line without a break,
/// if it was told at these times that it waits.
///
/// The session was the same all the time. So in the last run of the coordinator it was there all the time,
/// too. But what one run ends, as a session that is not heard of for a lease or not back within the grace
/// period after a crash, the next run does not know if it held nothing: it comes back to its place, and
/// others were granted meanwhile. So before the last crash it has to have been told its place in
/// every run, and not to have been away.
fn in_line_since(queued: &[u64], granted: u64, crashes: &[Window], away: &[Window]) -> Option<u64> {
    let crashes = crashes.iter().map(|crash| crash.from).filter(|at| *at < granted);
    let (mut sure_from, mut run_began) = (0, 0);
    for crash in crashes {
        if !queued.iter().any(|at| (run_began..crash).contains(at)) {
            sure_from = crash;
        }
        run_began = crash;
    }
    let before = away.iter().filter(|away| away.from < run_began).map(|away| away.until).max();
    let sure_from = before.map_or(sure_from, |until| until.max(sure_from));
    queued.iter().copied().find(|at| (sure_from..granted).contains(at))
}

/// What a killed process had begun has no end, and needs none.
fn bury(holds: &mut HashMap<RequestName, Hold>, at: u64, log: &mut Log) {
    for (request, hold) in holds.iter_mut().filter(|(_, hold)| !hold.is_over) {
        hold.end_belief(*request, log);
        note(log, at, *request, What::Abandoned);
    }
}

impl Verdict {
    fn line(
        &mut self,
        line: &Line,
        holds: &mut HashMap<RequestName, Hold>,
        around: &Circumstances,
        log: &mut Log,
    ) {
        let Line { at, request, said } = line;
        if let Said::Stalled(_) | Said::Ahead(_) = said {
            return;
        }
        let hold = holds.entry(*request).or_default();
        let what = match said {
            Said::Stalled(_) | Said::Ahead(_) => return,
            Said::Held => {
                hold.believed = Some(*at);
                return;
            }
            Said::Invoke(claims) => {
                hold.claims.clone_from(claims);
                What::Invoked { wanted: wanted(claims), goes_first: false }
            }
            Said::Queued => {
                hold.queued.push(*at);
                return;
            }
            Said::Granted(token) => {
                if let Some(since) = around.in_line_since(*request, &hold.queued, *at) {
                    note(log, since, *request, What::Queued);
                }
                (hold.granted, hold.believed) = (Some(*at), Some(*at));
                What::Granted { token: *token }
            }
            Said::Release => {
                hold.end_belief(*request, log);
                What::ReleaseInvoked
            }
            Said::Released => {
                hold.is_over = true;
                What::ReleaseAnswered
            }
            Said::Lost(reason) => {
                hold.end_belief(*request, log);
                hold.is_over = true;
                *self.losses.entry(reason.clone()).or_default() += 1;
                self.must_have_been_lost(hold, *at, *request, reason, around);
                What::Lost
            }
            Said::Refused(reason) => {
                hold.is_over = true;
                *self.refusals.entry(reason.clone()).or_default() += 1;
                if reason == "Protocol" {
                    self.violations.push(format!("{request} was told nonsense at {at}"));
                }
                What::Refused
            }
            Said::Abandoned => {
                hold.is_over = true;
                What::Abandoned
            }
        };
        note(log, *at, *request, what);
    }

    /// Its jumps are seen by the process; else they would be no fault.
    fn wall_clock(&mut self, process: u64, lines: &[Line], deeds: &Deeds) {
        let seen = lines.iter().rev().find_map(|line| match line.said {
            Said::Ahead(seconds) => Some(seconds),
            _ => None,
        });
        let last = seen.unwrap_or_default();
        let set = deeds.ahead.get(&process).copied().unwrap_or_default();
        if !deeds.killed.iter().any(|(who, _)| *who == process) && !is_about(last, set) {
            self.violations.push(format!(
                "the time of day of client process {process} was {set} s ahead, and it saw {last} s"
            ));
        }
    }

    /// Who holds a lock of its own over a connection that nobody disturbs, loses it only if the
    /// coordinator or the process itself was away for long.
    fn must_have_been_lost(
        &mut self,
        hold: &Hold,
        at: u64,
        request: RequestName,
        reason: &str,
        around: &Circumstances,
    ) {
        if !is_direct(request) || !hold.claims.starts_with(OWN_LOCK) {
            return;
        }
        let ttl = u64::try_from(TTL.as_micros()).unwrap();
        let lease = Window { from: at.saturating_sub(ttl + ttl / 4), until: at };
        let length = covered(around.everyone.iter().chain(&around.process).copied(), lease);
        if length > AWAY_MAX_US {
            self.excused += 1;
        } else {
            self.violations.push(format!(
                "{request} lost {} ({reason}) at {at}, and nothing was away for longer than {length} us",
                hold.claims
            ));
        }
    }

    /// Resources go on record as they remember it themselves.
    fn resources(&mut self, directory: &Path, holds: &HashMap<RequestName, Hold>, log: &mut Log) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "resource") {
                continue;
            }
            let resource = path.file_stem().unwrap().to_str().unwrap().to_owned();
            for write in writes(&fs::read_to_string(&path).unwrap()) {
                let (resource, token, accepted) =
                    (resource.as_str().into(), write.token, write.accepted);
                note(log, write.at, write.by, What::Wrote { resource, token, accepted });
                let believed = holds.get(&write.by).and_then(|hold| hold.believed);
                if !accepted && believed.is_some_and(|until| until > write.at) {
                    self.violations.push(format!(
                        "{} believed in its hold of {} at {}, when a newer holder had written",
                        write.by,
                        path.display(),
                        write.at
                    ));
                }
            }
        }
    }
}

impl Verdict {
    /// Adds what came of another world.
    pub(super) fn add(&mut self, other: Self) {
        let Self { violations, figures, processes, lines, faults, losses, refusals, kept, excused } =
            other;
        self.violations.extend(violations);
        self.figures.requests += figures.requests;
        self.figures.grants += figures.grants;
        self.figures.writes += figures.writes;
        self.figures.refused_writes += figures.refused_writes;
        self.processes += processes;
        self.lines += lines;
        for (fault, count) in faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (all, more) in [(&mut self.losses, losses), (&mut self.refusals, refusals)] {
            for (reason, count) in more {
                *all.entry(reason).or_default() += count;
            }
        }
        self.kept += kept;
        self.excused += excused;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, count: u64| writeln!(f, "  {name:<52}{count:>9}");
        row("client processes", self.processes)?;
        row("lines of history", self.lines as u64)?;
        row("requests", self.figures.requests)?;
        row("granted", self.figures.grants)?;
        for (reason, count) in &self.refusals {
            row(&format!("refused: {reason}"), *count)?;
        }
        for (reason, count) in &self.losses {
            row(&format!("lost: {reason}"), *count)?;
        }
        row("writes accepted", self.figures.writes)?;
        row("writes refused, as too late", self.figures.refused_writes)?;
        for (fault, count) in &self.faults {
            row(&format!("fault: {fault}"), *count)?;
        }
        row("holds kept over a crash", self.kept)?;
        row("own locks lost after a long absence", self.excused)?;
        row("violations", self.violations.len() as u64)?;
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

#[test]
fn a_place_is_known_only_if_it_was_kept_in_every_run_of_the_coordinator() {
    let window = |from| Window { from, until: from + 1 };
    let crashes = [window(10), window(20), window(30)];
    let since = |queued: &[u64], granted| in_line_since(queued, granted, &crashes, &[]);
    assert_eq!(since(&[], 5), None);
    assert_eq!(since(&[3, 4], 5), Some(3));
    assert_eq!(since(&[3], 15), Some(3), "it was granted in the next run, so it was back in time");
    assert_eq!(since(&[3, 12], 25), Some(3));
    assert_eq!(since(&[3], 25), None, "it may have come back to the last run only");
    assert_eq!(since(&[3, 22], 25), Some(22));
    assert_eq!(since(&[3, 12, 22], 35), Some(3));
    let since = |away| in_line_since(&[3, 7], 15, &crashes, &[away]);
    assert_eq!(since(window(1)), Some(3));
    assert_eq!(since(window(5)), Some(7), "its lease may have ended");
    assert_eq!(since(window(8)), None);
    assert_eq!(since(window(12)), Some(3), "that would have cost it its session");
}
