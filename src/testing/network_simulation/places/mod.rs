//! The order of waiters over runs of the coordinator, which the history checker cannot know.
//!
//! A disconnected waiter is passed over (rule S8), and after an orderly stop all are disconnected
//! at first. A place in line outlives a crash if its client is back, with its request, within the
//! grace period (rule G2). But a grant that was not heard of before a crash is no more, and the
//! request waits again: who was behind it may have been granted meanwhile. So the checker is told
//! of a place only since the last crash. Places that were kept over a crash are judged here: nobody
//! who came later may be granted before *in the run after it*.
//!
//! A run that goes on by replay grants from its first moment on. There a waiter counts as present until
//! it is back (rule J4), if it was there when the run before crashed. It is passed over like any other if
//! it goes away once more. So its place is judged if it was not away.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::testing::history::{RequestName, Wanted};
use crate::types::{Epoch, Generation};

/// No grace period is shorter: that of the shortest lease, by the fastest clock.
const GRACE_MIN: Duration = Duration::from_millis(2_060);

/// What a run goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The state of an orderly stop.
    Stop,
    /// The journal of a crash.
    Journal,
    /// Nothing: who held and who waited is heard from them, if it was ever so.
    Clients,
}

/// A run of the coordinator.
struct Run {
    /// When it began.
    began: Instant,
    /// What it went on from.
    origin: Origin,
    /// The first token that it can have given.
    first_token: u64,
}

/// When it was heard that a request waits, which run of the coordinator that was, and which connection.
pub(super) type Heard = Arc<Mutex<Vec<(Epoch, Generation, Instant)>>>;

/// What is known of a grant.
#[derive(Clone, Copy)]
pub(super) struct Grant<'a> {
    /// Of what.
    pub(super) wanted: &'a [Wanted],
    /// Its token.
    pub(super) token: u64,
    /// In which run it was heard of.
    pub(super) epoch: Epoch,
    /// When it was asked for.
    pub(super) came: Instant,
    /// When it was heard to wait, in the session in which it was granted; and of the run in which it was,
    /// by the connection by which it was: before, it was away, and others passed it (rule S8).
    pub(super) heard: &'a [(Epoch, Generation, Instant)],
    /// When its client was away.
    pub(super) absences: &'a [Instant],
}

/// A request that was granted.
struct Served {
    /// Which.
    request: RequestName,
    /// What it asked for.
    wanted: Vec<Wanted>,
    /// Its token.
    token: u64,
    /// When it was asked for.
    came: Instant,
    /// Since when it had the place which it kept over a crash, if it did, and in which run it was granted.
    kept: Option<(Instant, Epoch)>,
}

/// All runs, and all who were served in them.
#[derive(Default)]
pub(super) struct Places {
    /// By epoch.
    runs: BTreeMap<Epoch, Run>,
    /// In the order in which they heard of it.
    served: Vec<Served>,
}

impl Places {
    /// A coordinator runs.
    pub(super) fn run_began(&mut self, epoch: Epoch, origin: Origin, first_token: u64) {
        self.runs.insert(epoch, Run { began: Instant::now(), origin, first_token });
    }

    /// A request is granted; gives since when the checker may know that it waited.
    pub(super) fn granted(&mut self, request: RequestName, grant: Grant<'_>) -> Option<Instant> {
        let Grant { wanted, token, epoch, came, heard, absences } = grant;
        let first = heard.first();
        let (mut known, mut kept, mut crashes) = (first.map(|(.., at)| *at), true, 0);
        let earliest = first.map_or(epoch, |(run, ..)| *run);
        for (run, Run { began, origin, .. }) in &self.runs {
            if *run <= earliest || *run > epoch {
                continue;
            }
            let again = heard.iter().find(|(of, ..)| of == run).map(|(.., at)| *at);
            let in_time = again.is_some_and(|at| at < *began + GRACE_MIN);
            let was_away = || absences.iter().any(|at| at >= began);
            kept &= match origin {
                // All are away at first, and are passed.
                Origin::Stop => false,
                Origin::Journal => in_time && (*run < epoch || !was_away()),
                Origin::Clients => in_time,
            };
            (known, crashes) = (again, crashes + u64::from(*origin != Origin::Stop));
        }
        let kept = first.filter(|_| kept && crashes > 0).map(|(.., at)| (*at, epoch));
        self.served.push(Served { request, wanted: wanted.to_vec(), token, came, kept });
        known
    }

    /// How many places were kept over a crash, and who was overtaken nevertheless.
    pub(super) fn judge(self) -> (u64, Vec<String>) {
        let (mut count, mut overtaken) = (0, Vec::new());
        for first in &self.served {
            let Some((known, epoch)) = first.kept else { continue };
            count += 1;
            let since = self.runs[&epoch].first_token;
            let same = |by: &Served| {
                by.wanted.iter().any(|a| first.wanted.iter().any(|b| a.lock == b.lock))
            };
            let before = |by: &&Served| {
                by.came > known && (since..first.token).contains(&by.token) && same(by)
            };
            overtaken.extend(self.served.iter().filter(before).map(|by| {
                let (first, by) = (first.request, by.request);
                format!(
                    "{first} kept its place over a crash, and {by}, which came later, overtook it"
                )
            }));
        }
        (count, overtaken)
    }
}
