//! What came of it: histories of many processes made one, judged, and counted.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::Path;

use super::faults::Deeds;
use super::record::{Line, Said, Window, lines, wanted, writes};
use super::worker::{OWN_LOCK, TTL, history_path};
use crate::history::{Entry, Figures, Log, RequestName, What};

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
    /// When its grant was heard.
    granted: Option<u64>,
    /// When it was last believed in.
    believed: Option<u64>,
    /// Whether it is told that the belief is over.
    is_told: bool,
    /// Whether there is nothing more to come.
    is_over: bool,
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
        let mut away = [&deeds.away, stalls].concat();
        away.extend(deeds.stopped.iter().filter(|(who, _)| *who == process).map(|(_, when)| *when));
        away.extend(lines.iter().filter_map(|line| match line.said {
            Said::Stalled(from) => Some(Window { from, until: line.at }),
            _ => None,
        }));
        let mut of_process = HashMap::new();
        for line in &lines {
            verdict.line(line, &mut of_process, &away, &mut log);
        }
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
        away: &[Window],
        log: &mut Log,
    ) {
        let Line { at, request, said } = line;
        if let Said::Stalled(_) = said {
            return;
        }
        let hold = holds.entry(*request).or_default();
        let what = match said {
            Said::Stalled(_) => return,
            Said::Held => {
                hold.believed = Some(*at);
                return;
            }
            Said::Invoke(claims) => {
                hold.claims.clone_from(claims);
                What::Invoked { wanted: wanted(claims), goes_first: false }
            }
            Said::Queued => What::Queued,
            Said::Granted(token) => {
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
                self.must_have_been_lost(hold, *at, *request, reason, away);
                What::Lost
            }
            Said::Refused(reason) => {
                hold.is_over = true;
                *self.refusals.entry(reason.clone()).or_default() += 1;
                What::Refused
            }
            Said::Abandoned => {
                hold.is_over = true;
                What::Abandoned
            }
        };
        note(log, *at, *request, what);
    }

    /// Who holds a lock of its own over a connection that nobody disturbs, loses it only if the
    /// coordinator or the process itself was away for long.
    fn must_have_been_lost(
        &mut self,
        hold: &Hold,
        at: u64,
        request: RequestName,
        reason: &str,
        away: &[Window],
    ) {
        let is_direct = request.client.is_multiple_of(2);
        if !is_direct || !hold.claims.starts_with(OWN_LOCK) {
            return;
        }
        let ttl = u64::try_from(TTL.as_micros()).unwrap();
        let lease = Window { from: at.saturating_sub(ttl + ttl / 4), until: at };
        let length: u64 = away.iter().map(|window| window.within(lease)).sum();
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
