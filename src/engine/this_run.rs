//! This run of the coordinator: where it begins, what it counts, and which proofs of others count.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::arena::SessionKey;
use crate::types::{Epoch, FencingToken, Ticket};

/// What is of this run, and not of those before it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ThisRun {
    /// How many requests began to wait in it.
    arrivals: u64,
    /// Where its tokens begin: all others were granted by earlier ones.
    first_token: FencingToken,
    /// Where its epochs begin. A client's later one moves it on, within the run.
    first_epoch: Epoch,
    /// In the grace period, proofs count of this run and later ones only (rule G4).
    proofs_from: Epoch,
    /// The run from which on proofs count when the grace period has ended. It is this one if it
    /// began with a crash, because all that is held was then sealed in it. After an orderly stop it
    /// is none.
    settles: Option<Epoch>,
    /// Sessions opened in this grace period, in their order: they hold nothing, and make room for
    /// those who were there before. Empty outside the grace period.
    newcomers: BTreeSet<(u64, SessionKey)>,
    /// Runs that may have been between this one and the one whose table it goes on with. There are
    /// none, unless that is an old copy (rule J9).
    unknown_runs: Range<Epoch>,
}

impl ThisRun {
    /// A run with these first ones; `settles` is [`ThisRun::settles`].
    pub(super) fn new(
        first_token: FencingToken,
        first_epoch: Epoch,
        proofs_from: Epoch,
        settles: Option<Epoch>,
    ) -> Self {
        let (newcomers, unknown_runs) = (BTreeSet::new(), Range::default());
        Self {
            arrivals: 0,
            first_token,
            first_epoch,
            proofs_from,
            settles,
            newcomers,
            unknown_runs,
        }
    }

    /// The number of the next request that begins to wait.
    pub(super) fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Where its tokens begin.
    pub(super) fn first_token(&self) -> FencingToken {
        self.first_token
    }

    /// From which run on proofs count when the grace period has ended, if that changes then.
    pub(super) fn settles(&self) -> Option<Epoch> {
        self.settles
    }

    /// Whether what a run has proved is to be believed in a grace period, of what this run does not
    /// know. What was proved in this run it knows, unless it is over. And what was proved before the
    /// latest grace period that came to its end was proved anew since, unless it was over then.
    pub(super) fn still_counts(&self, proved_in: Epoch) -> bool {
        (self.proofs_from..self.first_epoch).contains(&proved_in)
    }

    /// Whether a place was given by an earlier run.
    pub(super) fn is_later_than(&self, ticket: Ticket) -> bool {
        ticket.epoch < self.first_epoch.number()
    }

    /// It goes on with the table of another, and of these runs that knows nothing.
    pub(super) fn goes_on_after(&mut self, unknown_runs: Range<Epoch>) {
        self.unknown_runs = unknown_runs;
    }

    /// Whether a proof was made by a run of which the table knows nothing.
    pub(super) fn is_unknown(&self, proved_in: Epoch) -> bool {
        self.unknown_runs.contains(&proved_in)
    }

    /// It turns out to go on with an old copy: all that there is was granted by earlier runs.
    pub(super) fn distrusts_its_copy(&mut self, epoch: Epoch, first_token: FencingToken) {
        self.unknown_runs = Range::default();
        (self.first_epoch, self.first_token) = (epoch, first_token);
        self.settles = Some(epoch);
    }

    /// A session was opened in the grace period. Says its number among them.
    pub(super) fn add_newcomer(&mut self, session: SessionKey) -> u64 {
        let number = self.newcomers.last().map_or(0, |(latest, _)| latest + 1);
        self.newcomers.insert((number, session));
        number
    }

    /// The latest of those who opened a session in the grace period.
    pub(super) fn latest_newcomer(&self) -> Option<SessionKey> {
        self.newcomers.last().map(|(_, session)| *session)
    }

    /// The session of this number is over.
    pub(super) fn remove_newcomer(&mut self, number: u64, session: SessionKey) {
        self.newcomers.remove(&(number, session));
    }

    /// The grace period is over: nobody makes room for others any more.
    pub(super) fn forget_newcomers(&mut self) {
        self.newcomers.clear();
    }

    #[cfg(test)]
    pub(super) fn proofs_from(&self) -> Epoch {
        self.proofs_from
    }
}
