//! A client of the simulated world, and its hands.

use std::time::Duration;

use super::simulation::{Dice, SkewedClock};
use super::tests::ask;
use super::*;
use crate::wire::{Claim, Mode, Wait};

/// A client and its hands.
pub(super) struct Contender {
    pub(super) core: Core,
    pub(super) clock: SkewedClock,
    /// Which connection of the core's it has, and which wire that is, once it is there.
    pub(super) number: Option<u64>,
    pub(super) wire: Option<usize>,
    /// When the attempt under way comes to its end.
    pub(super) dialed_at: Option<u64>,
    pub(super) paused_until: u64,
    pub(super) cut_off_until: u64,
    /// When its connection is cut once more, while it is about to make up for the last time.
    pub(super) cut_again_at: Option<u64>,
    /// Its request, once made.
    pub(super) request: Option<RequestId>,
    /// Whether that is granted.
    pub(super) granted: bool,
    /// What is to convert it, once asked for.
    pub(super) conversion: Option<RequestId>,
    /// Requests that were given up together with their conversion, which may have been granted.
    pub(super) given_up: Vec<RequestId>,
    /// Whether it was granted and then was not believed in.
    pub(super) disbelieved: bool,
    pub(super) release_at: u64,
    /// When it was last granted something.
    pub(super) granted_at: u64,
}

impl Contender {
    pub(super) fn new(dice: &mut Dice, seed: u64) -> Self {
        let clock = SkewedClock::any(dice);
        let reconnect = Reconnect { attempt_max: Duration::from_secs(5), seed };
        let introduction = Introduction::default();
        Self {
            core: Core::new(introduction, Some(reconnect), clock.at(0)),
            clock,
            number: Some(0),
            wire: None,
            dialed_at: None,
            paused_until: 0,
            cut_off_until: 0,
            cut_again_at: None,
            request: None,
            granted: false,
            conversion: None,
            given_up: Vec::new(),
            disbelieved: false,
            release_at: 0,
            granted_at: 0,
        }
    }

    /// Until when it believes, by what a guard of it would say.
    pub(super) fn believes_until(&self) -> Option<Timestamp> {
        let lease = self.core.lease()?.believed_until();
        let held = self.core.requests.values().filter_map(|request| match request.state {
            State::Held { doubted, .. } => Some(doubted.map_or(lease, |until| until.min(lease))),
            State::Waiting
            | State::Unconfirmed(_)
            | State::Releasing { .. }
            | State::Cancelling => None,
        });
        held.max()
    }

    pub(super) fn believes(&self, true_now: u64) -> bool {
        self.believes_until().is_some_and(|until| self.clock.at(true_now) < until)
    }

    /// How it believes to hold the lock, if it does: who has asked to share it does not act as if it
    /// were alone.
    pub(super) fn mode(&self) -> Mode {
        [self.request, self.conversion]
            .into_iter()
            .flatten()
            .filter_map(|request| self.core.requests.get(&request.number()).map(mode_of))
            .find(|mode| *mode == Mode::Shared)
            .unwrap_or(Mode::Exclusive)
    }
}

/// Something to ask for.
pub(super) fn asking(mode: Mode) -> Ask {
    let claims = vec![Claim { name: "printer".to_owned(), mode }];
    Ask { claims, ..ask() }
}

/// Something else to have instead of `held`.
pub(super) fn converting(held: RequestId, mode: Mode, dice: &mut Dice) -> Ask {
    let wait = match dice.roll(3) {
        0 => Wait::Never,
        1 => Wait::Timeout { ms: dice.roll(3_000) },
        _ => Wait::Forever,
    };
    Ask { converts: Some(held.number()), wait, ..asking(mode) }
}

pub(super) fn mode_of(request: &Request) -> Mode {
    request.ask.claims[0].mode
}
