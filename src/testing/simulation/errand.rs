//! A request, as somebody who uses a client sees it.

use super::referee::{Lock, Moment, Referee};
use crate::testing::history::What;
use crate::types::Timestamp;
use crate::wire::Mode;

/// A request.
pub(super) struct Errand {
    /// What it asks for.
    pub(super) claims: Vec<(Lock, Mode)>,
    /// Who asks within the client.
    pub(super) owner: u64,
    /// When it was asked for.
    pub(super) asked: u64,
    /// Where it stands.
    pub(super) stage: Stage,
    /// Which request it is to convert.
    pub(super) converts: Option<u64>,
    /// Which request is to convert it.
    pub(super) converted_by: Option<u64>,
    /// Whether it is what everybody asks for when all faults are over.
    pub(super) is_wish: bool,
    /// Whether an operator has taken it away, perhaps without its being heard of yet: whatever is
    /// believed of it is nobody's fault.
    pub(super) is_revoked: bool,
    /// Whether it has lost its place in line, and has not heard so.
    pub(super) is_displaced: bool,
}

/// Where a request stands.
pub(super) enum Stage {
    /// Not answered.
    Waiting,
    /// Told to be held.
    Held(Hold),
    /// Given back, which is not answered.
    Releasing {
        /// Its token.
        token: u64,
        /// Whether a conversion was given up with it, which may have been granted.
        was_converted: bool,
    },
}

/// What is held.
pub(super) struct Hold {
    /// By what.
    pub(super) token: u64,
    /// Until when at most, since a restart.
    pub(super) doubted: Option<Timestamp>,
    /// When it will be given back.
    pub(super) release_at: u64,
    /// Whether it is believed in no more.
    pub(super) is_over: bool,
    /// Whether the history has its end.
    pub(super) is_noted: bool,
}

impl Errand {
    /// Whether what is held is in truth an operator's, or not believed in any more.
    pub(super) fn is_taken_or_over(&self) -> bool {
        self.is_revoked || matches!(&self.stage, Stage::Held(hold) if hold.is_over)
    }

    /// A lock that it claims.
    pub(super) fn some_lock(&self) -> Lock {
        self.claims[0].0
    }

    pub(super) fn mode(&self, lock: Lock) -> Option<Mode> {
        self.claims.iter().find(|claim| claim.0 == lock).map(|claim| claim.1)
    }
}

impl Hold {
    /// Until when it is believed in, as a guard would say.
    pub(super) fn until(&self, lease: Option<Timestamp>) -> Timestamp {
        let lease = lease.expect("whoever holds has a lease");
        self.doubted.map_or(lease, |until| until.min(lease))
    }

    /// It is believed in no more, as far as the history is concerned.
    pub(super) fn end(&mut self, moment: Moment, client: u64, number: u64, referee: &mut Referee) {
        if !std::mem::replace(&mut self.is_noted, true) {
            referee.note(moment, client, number, What::BeliefEnded);
        }
    }
}

/// The one of two modes that leaves more to others.
pub(super) fn lesser(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Permits { take, .. }, Mode::Permits { take: less, .. }) if less < take => other,
        (Mode::Exclusive, Mode::Shared) => other,
        (Mode::Exclusive | Mode::Shared | Mode::Permits { .. }, _) => one,
    }
}
