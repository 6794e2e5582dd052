//! What has happened, as it was heard of: the newest last, so many at most.

use std::collections::VecDeque;

use coordinator::Event;

use super::rows::Row;
use crate::cli::show::events::{cells, missed_line};

/// Events that are kept: more than anybody scrolls through.
pub(super) const EVENTS_MAX: usize = 1_000;
/// Where the time of day stands in a moment, as in `2026-11-24T10:31:07.123Z`.
const TIME_OF_DAY: std::ops::Range<usize> = 11..23;

const PAUSED: &str = "… nobody has listened for a while";

/// The latest events.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// As rows.
    rows: VecDeque<Row>,
    /// How many there were.
    count: u64,
}

impl Heard {
    /// Takes what was heard.
    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Happened(happened) => {
                let [at, what, who, locks, more] = cells(happened);
                let at = at.get(TIME_OF_DAY).unwrap_or_default().to_owned();
                let lock = happened.claims.first().map(|claim| claim.name.to_string());
                self.push(vec![at, what, who, locks, more], lock);
            }
            Event::Missed { count } => self.remark(&missed_line(*count)),
            Event::Gap { .. } => {
                self.remark("… the connection was lost: what happened meanwhile is not shown");
            }
        }
    }

    /// Nobody listens for a while: what happens then is missing here, which is said once.
    pub(super) fn pause(&mut self) {
        if self.rows.back().is_some_and(|last| last.cells[2] != PAUSED) {
            self.remark(PAUSED);
        }
    }

    /// All of them.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.rows.iter().cloned().collect()
    }

    fn remark(&mut self, words: &str) {
        let cells = ["", "", words, "", ""].map(str::to_owned);
        self.push(cells.to_vec(), None);
    }

    fn push(&mut self, cells: Vec<String>, lock: Option<String>) {
        self.count += 1;
        if self.rows.len() == EVENTS_MAX {
            self.rows.pop_front();
        }
        self.rows.push_back(Row { key: self.count.to_string(), cells, lock, grant: None });
    }
}
