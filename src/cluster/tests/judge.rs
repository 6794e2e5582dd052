//! Who knows all that was ever said, and says what must not be.
//!
//! What was decided in time may be said late. Its bytes could have been under way as long, and a client
//! believes from when it asked (rule T2). So a deposed leader in sync may still say what its standby has
//! acknowledged. What it decides after another began with an empty table may never be said.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::Table;
use crate::types::Timestamp;

/// What must not be.
pub(super) type Fault = String;

/// What a table was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Record {
    /// Somebody is granted the lock, with this token.
    Grant(u64),
    /// A grace period begins.
    GraceBegins,
    /// It is over.
    GraceEnds,
}

/// Whether a table with these records is in a grace period.
pub(super) fn is_in_grace(log: &[Record]) -> bool {
    let last = log.iter().rev().find(|record| !matches!(record, Record::Grant(_)));
    last == Some(&Record::GraceBegins)
}

/// For so long a client believes in what it was told, by a perfect clock.
pub(super) const BELIEF: Duration = Duration::from_secs(3);
/// For so long a grace period lasts, by the leader's own clock: belief (1 + 2ρ) + 50 ms.
pub(super) const GRACE: Duration = Duration::from_millis(3_110);

/// All that was said. Its clock is perfect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Judge {
    /// The records that were said since the last table was lost.
    said: Vec<Record>,
    /// Nobody of an earlier term may say anything: their table was given up.
    floor: u64,
    /// The latest leadership, and what its table had at first.
    latest: (u64, Vec<Record>),
    /// When that was. What was decided before is believed in for a while, whenever it is said.
    floor_since: Option<Timestamp>,
    /// When each token was decided on, which is after it was asked for.
    decided: BTreeMap<u64, Timestamp>,
    /// The latest leadership before the arbiter was set back, until another has begun.
    forgotten: Option<u64>,
    /// How many leaders have begun past what the arbiter had of before.
    pub(super) passed: u64,
    /// The greatest token that was said.
    token: u64,
    /// How many records were said.
    pub(super) total_said: u64,
    /// How often somebody took the lead, by table: new, own, empty.
    pub(super) leads: [u64; 3],
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            said: Vec::new(),
            floor: 0,
            latest: (0, Vec::new()),
            floor_since: None,
            decided: BTreeMap::new(),
            forgotten: None,
            passed: 0,
            token: 0,
            total_said: 0,
            leads: [0; 3],
        }
    }

    /// The latest leadership.
    pub(super) fn latest_term(&self) -> u64 {
        self.latest.0
    }

    /// Somebody leads.
    pub(super) fn leads(
        &mut self,
        term: u64,
        table: Table,
        log: &[Record],
        now: Timestamp,
    ) -> Result<(), Fault> {
        if term <= self.latest.0 {
            return Err(format!("term {term} begins after {}", self.latest.0));
        }
        match table {
            Table::Own => {
                self.leads[1] += 1;
                if let Some(lost) = self.said.iter().find(|it| !log.contains(it)) {
                    return Err(format!("term {term} begins without {lost:?}, which was said"));
                }
            }
            Table::New | Table::Empty | Table::Forgotten => {
                if table == Table::New && self.latest.0 > 0 {
                    return Err("a second beginning".to_owned());
                }
                self.leads[if table == Table::New { 0 } else { 2 }] += 1;
                self.said.clear();
                self.floor = term;
                self.floor_since = (table != Table::New).then_some(now);
            }
        }
        self.latest = (term, log.to_vec());
        Ok(())
    }

    /// The arbiter goes back to what it had once.
    pub(super) fn restored(&mut self) {
        self.forgotten = Some(self.latest.0);
    }

    /// A leader of `term` begins with what the arbiter has, or past that.
    pub(super) fn begins(&mut self, term: u64, is_past: bool) -> Result<(), Fault> {
        self.passed += u64::from(is_past);
        if self.forgotten.take_if(|latest| *latest < term).is_some() && !is_past {
            return Err(format!("term {term} begins with what a restored arbiter has"));
        }
        Ok(())
    }

    /// A leader of `term` says a record.
    pub(super) fn says(&mut self, term: u64, record: Record, now: Timestamp) -> Result<(), Fault> {
        let Record::Grant(token) = record else { return Ok(()) };
        let floor = self.floor_since.unwrap_or_default();
        if term < self.floor {
            let decided = self.decided[&token];
            return if decided > floor {
                Err(format!(
                    "{record:?} of {decided:?} is said in term {term}, over since {floor:?}"
                ))
            } else {
                Ok(())
            };
        }
        if term < self.latest.0 && !self.latest.1.contains(&record) {
            return Err(format!("{record:?} is said, which the leader of now does not have"));
        }
        if self.floor_since.is_some() && now < floor.after(BELIEF) {
            return Err(format!("{record:?} is said at {now:?}, others believe since {floor:?}"));
        }
        self.token = self.token.max(token);
        self.said.push(record);
        self.total_said += 1;
        Ok(())
    }

    /// A leader decides to grant with `token`.
    pub(super) fn decides(&mut self, term: u64, token: u64, now: Timestamp) -> Result<(), Fault> {
        self.decided.insert(token, now);
        // What a deposed leader decides is judged when it is said.
        if term == self.latest.0 && token <= self.token {
            return Err(format!("token {token} is given after {}", self.token));
        }
        Ok(())
    }
}
