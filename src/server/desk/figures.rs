//! Figures: what is counted of a run, for whoever draws curves of it. A copy of some kilobytes, made when
//! somebody asks, and nothing that grows with what there is.

use std::time::Duration;

use crate::access::Method;
use crate::engine::{
    Counts, Effect, EndReason, LockTable, PLACES_LOOKED_AT_MAX, RequestEvent, Tally,
};
use crate::types::{Histogram, LostReason, RejectionCode, Standing, Timestamp};

/// What a desk counts of what it tells.
#[derive(Clone, Debug)]
pub struct Told {
    /// How often a request, a connection or an operator was told *no*, by `RejectionCode::ALL`.
    rejections: [u64; RejectionCode::ALL.len()],
    /// How often a holder was told that its lock is lost, by `LostReason::ALL`.
    losses: [u64; LostReason::ALL.len()],
    /// Sessions opened, resumed and reopened.
    attached: [u64; 3],
    /// Sessions that ended, by their reasons in the order of the enum.
    ended: [u64; 4],
    /// Locks taken away by operators.
    pub revocations: u64,
    /// Connections that have proven who they are: by nothing, by a credential, by a certificate.
    authenticated: [u64; 3],
    /// Requests beyond the rate of their principal.
    pub slowed_down: u64,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            rejections: [0; RejectionCode::ALL.len()],
            losses: [0; LostReason::ALL.len()],
            attached: [0; 3],
            ended: [0; 4],
            revocations: 0,
            authenticated: [0; 3],
            slowed_down: 0,
        }
    }
}

impl Told {
    /// Counts what comes of an effect. News of grants and releases, which are nearly all, need not be
    /// shown: the engine counts them.
    #[cold]
    pub(super) fn count(&mut self, effect: &Effect) {
        match effect {
            Effect::Tell { event, .. } => match event {
                RequestEvent::Rejected(rejection) => self.reject(rejection.code()),
                RequestEvent::Lost { reason, .. } => self.lose(*reason),
                RequestEvent::Requested
                | RequestEvent::Queued { .. }
                | RequestEvent::Granted { .. }
                | RequestEvent::Released { .. }
                | RequestEvent::Cancelled => {}
            },
            Effect::Refused { rejection, .. } | Effect::NotRevoked { rejection, .. } => {
                self.reject(rejection.code());
            }
            Effect::Welcome { standing, .. } => {
                self.attached[match standing {
                    Standing::Opened => 0,
                    Standing::Resumed => 1,
                    Standing::Reopened { .. } => 2,
                }] += 1;
            }
            Effect::Ended { reason, .. } => {
                self.ended[match reason {
                    EndReason::Goodbye => 0,
                    EndReason::Expired => 1,
                    EndReason::Disconnected => 2,
                    EndReason::Displaced => 3,
                }] += 1;
            }
            Effect::Revoked { .. } => self.revocations += 1,
            Effect::Left { .. }
            | Effect::Superseded { .. }
            | Effect::KeptAlive { .. }
            | Effect::Persist(_)
            | Effect::Record { .. }
            | Effect::ForgetRecords { .. }
            | Effect::HoldersChanged { .. }
            | Effect::Happened(_) => {}
        }
    }

    /// Somebody is told *no*.
    pub(super) fn reject(&mut self, code: RejectionCode) {
        let place = RejectionCode::ALL.iter().position(|known| *known == code);
        if let Some(count) = place.and_then(|place| self.rejections.get_mut(place)) {
            *count += 1;
        }
    }

    fn lose(&mut self, reason: LostReason) {
        let place = LostReason::ALL.iter().position(|known| *known == reason);
        if let Some(count) = place.and_then(|place| self.losses.get_mut(place)) {
            *count += 1;
        }
    }

    /// A connection has proven who it is.
    pub(super) fn authenticate(&mut self, method: Method) {
        self.authenticated[match method {
            Method::None => 0,
            Method::Credential => 1,
            Method::Certificate => 2,
        }] += 1;
    }

    /// How many connections have proven who they are, for each way.
    pub fn authenticated(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [Method::None, Method::Credential, Method::Certificate]
            .map(Method::as_str)
            .into_iter()
            .zip(self.authenticated)
    }

    /// How often somebody was told *no*, for each code.
    pub fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RejectionCode::ALL.iter().map(|code| code.name()).zip(self.rejections)
    }

    /// How often a lock was lost, for each reason that a coordinator has.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let told = LostReason::ALL.iter().zip(self.losses);
        // These only clients tell themselves.
        told.filter(|(reason, _)| !matches!(reason, LostReason::Forked | LostReason::Refused))
            .map(|(it, n)| (it.name(), n))
    }

    /// How many connections came to their sessions, for each way.
    pub fn attached(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ["opened", "resumed", "reopened"].into_iter().zip(self.attached)
    }

    /// How many sessions ended, for each reason.
    pub fn ended(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ["goodbye", "expired", "disconnected", "displaced"].into_iter().zip(self.ended)
    }
}

/// What is counted of a run, at a moment. All of it is nothing where nobody decides.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Figures {
    /// How much of everything there is.
    pub counts: Counts,
    /// Counts of the engine.
    pub tally: Tally,
    /// Counts of what was told.
    pub told: Told,
    /// How late the Coordinator's own timer came: whatever keeps it from its mailbox shows there.
    pub lag: Histogram,
    /// This run.
    pub epoch: u64,
    /// For how long it has run.
    pub uptime: Duration,
    /// The rest of the grace period.
    pub grace: Duration,
    /// Locks that somebody watches, each as often as it is watched.
    pub watches: usize,
    /// Connections that hear of what happens to requests.
    pub subscribers: usize,
    /// Looks that were answered.
    pub looks: u64,
    /// Looks that had to wait, or were rejected, because there were too many.
    pub looks_delayed: u64,
}

/// What a page of contended locks has shown, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contention {
    /// How many there were.
    pub locks: usize,
    /// How many wait for the one that most wait for.
    pub longest_queue: usize,
    /// For how long the first in a queue has waited, of that which has waited longest.
    pub oldest_wait: Duration,
    /// Where the next page begins; none: this was the last.
    pub next: Option<usize>,
}

impl Contention {
    /// A page of them, from a place on. Looks at the head of each queue and at nothing else.
    pub(super) fn of(table: &LockTable, from: usize, now: Timestamp) -> Self {
        let mut seen = Self::default();
        for (place, view) in table.contended_places(from) {
            if place - from >= PLACES_LOOKED_AT_MAX {
                seen.next = Some(place);
                break;
            }
            let Some(view) = view else { continue };
            let first = view.waiters().next().map(|waiter| now.since(waiter.since));
            seen.locks += 1;
            seen.longest_queue = seen.longest_queue.max(view.waiter_count());
            seen.oldest_wait = seen.oldest_wait.max(first.unwrap_or_default());
        }
        seen
    }

    /// This and what a later page has shown.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        Self {
            locks: self.locks + later.locks,
            longest_queue: self.longest_queue.max(later.longest_queue),
            oldest_wait: self.oldest_wait.max(later.oldest_wait),
            next: later.next,
        }
    }
}
