//! The wishes of a client's user: locks in all modes, one or several, for a while; and then
//! something else.

use super::errand::{Errand, Hold, Stage, lesser};
use super::person::Person;
use super::referee::{Kind, Lock, Referee};
use crate::client::core::Ask;
use crate::testing::fuzz::Random;
use crate::testing::history::What;
use crate::types::{OwnerId, RequestId};
use crate::wire::{Mode, RawClaim, Wait};

/// Requests that a client has at a time.
const ERRANDS_MAX: usize = 3;

/// Something to ask for.
struct Want {
    /// The locks.
    claims: Vec<(Lock, Mode)>,
    /// Who asks within the client.
    owner: u64,
    /// For how long to wait.
    wait: Wait,
    /// Which request to convert.
    converts: Option<u64>,
}

impl Person {
    /// Its owner's turn, while there are faults: asks, gives back, changes its mind.
    pub(super) fn act(&mut self, at: u64, dice: &mut Random, referee: &mut Referee) {
        self.give_back_what_is_due(at, referee);
        if self.errands.len() < ERRANDS_MAX && dice.once_in(2) {
            let claims = some_claims(dice, referee);
            let owner = *dice.pick(&[0, 0, 0, 1, 2]);
            let want = Want { claims, owner, wait: some_wait(dice), converts: None };
            self.ask(at, want, dice, referee);
            return;
        }
        let Some((&number, errand)) = self.errands.iter().nth(dice.below(ERRANDS_MAX)) else {
            return;
        };
        match errand.stage {
            Stage::Held(_) if errand.converted_by.is_none() && dice.once_in(3) => {
                self.convert(at, number, dice, referee);
            }
            // A conversion is given up with what it converts.
            Stage::Held(_) if dice.once_in(24) => self.cancel(at, number, referee),
            Stage::Waiting if errand.converts.is_none() && dice.once_in(30) => {
                self.cancel(at, number, referee);
            }
            Stage::Held(_) | Stage::Waiting | Stage::Releasing { .. } => {}
        }
    }

    /// Its owner's turn when all faults are over: asks for everything once more, and then for nothing.
    pub(super) fn wish(&mut self, at: u64, dice: &mut Random, referee: &mut Referee) {
        for errand in self.errands.values_mut() {
            if let Stage::Held(hold) = &mut errand.stage {
                hold.release_at = hold.release_at.min(at + 500_000);
            }
        }
        self.give_back_what_is_due(at, referee);
        if !self.is_served && !self.errands.values().any(|errand| errand.is_wish) {
            let all = |lock| match referee.kind(lock) {
                Kind::Semaphore { of } => (lock, Mode::Permits { take: of, of }),
                Kind::Plain | Kind::Mixed => (lock, Mode::Exclusive),
            };
            let claims = (0..referee.lock_count()).map(all).collect();
            let want = Want { claims, owner: 0, wait: Wait::Forever, converts: None };
            let number = self.ask(at, want, dice, referee);
            if let Some(errand) = self.errands.get_mut(&number) {
                errand.is_wish = true;
            }
        }
    }

    fn give_back_what_is_due(&mut self, at: u64, referee: &mut Referee) {
        let is_due = |errand: &Errand| match &errand.stage {
            Stage::Held(hold) => hold.release_at <= at,
            Stage::Waiting | Stage::Releasing { .. } => false,
        };
        let due = self.errands.iter().filter(|(_, errand)| is_due(errand)).map(|(n, _)| *n);
        for number in due.collect::<Vec<_>>() {
            self.release(at, number, referee);
        }
    }

    fn ask(&mut self, at: u64, want: Want, dice: &mut Random, referee: &mut Referee) -> u64 {
        let Want { claims, owner, wait, converts } = want;
        let claim =
            |&(lock, mode): &(Lock, Mode)| RawClaim { name: referee.name(lock).into(), mode };
        let is_delayed = converts.is_none() && dice.once_in(12);
        let ask = Ask {
            owner: OwnerId::new(owner),
            converts: converts.map(RequestId),
            wait,
            progress: dice.once_in(2),
            lock_delay_ms: if is_delayed { 100 + up_to(3_000, dice) } else { 0 },
            at_least_ms: 0,
            supersedes: converts.is_none() && dice.once_in(12),
            note: String::new(),
            claims: claims.iter().map(claim).collect(),
        };
        let number = self.core.request(ask, self.clock.at(at)).number();
        let (wanted, goes_first) = (referee.wanted(&claims), converts.is_some());
        self.note(at, number, What::Invoked { wanted, goes_first }, referee);
        referee.tally.count("requests");
        let (stage, converted_by) = (Stage::Waiting, None);
        let (is_wish, is_revoked, is_displaced) = (false, false, false);
        let errand = Errand {
            claims,
            owner,
            asked: at,
            stage,
            converts,
            converted_by,
            is_wish,
            is_revoked,
            is_displaced,
        };
        self.errands.insert(number, errand);
        number
    }

    fn convert(&mut self, at: u64, number: u64, dice: &mut Random, referee: &mut Referee) {
        let Errand { claims, owner, .. } = &self.errands[&number];
        let claims: Vec<(Lock, Mode)> =
            claims.iter().map(|(lock, mode)| (*lock, otherwise(*mode, dice))).collect();
        let (owner, wait, converts) = (*owner, some_wait(dice), Some(number));
        let conversion = self.ask(at, Want { claims, owner, wait, converts }, dice, referee);
        let (moment, name) = (self.moment(at), self.name);
        let to = self.errands[&conversion].claims.clone();
        let Some(errand) = self.errands.get_mut(&number) else { return };
        errand.converted_by = Some(conversion);
        let is_less = to.iter().any(|(lock, to)| {
            errand.mode(*lock).is_some_and(|held| held != *to && lesser(held, *to) == *to)
        });
        // From now on it is not what the history says, and the history knows of no other mode.
        if is_less && let Stage::Held(hold) = &mut errand.stage {
            hold.end(moment, name, number, referee);
        }
    }

    fn release(&mut self, at: u64, number: u64, referee: &mut Referee) {
        let Some(mut errand) = self.errands.remove(&number) else { return };
        let Stage::Held(Hold { token, .. }) = errand.stage else { return };
        let was_converted = self.give_up_conversion(at, &errand, referee);
        self.end_belief(at, number, &mut errand, referee);
        self.note(at, number, What::ReleaseInvoked, referee);
        errand.stage = Stage::Releasing { token, was_converted };
        errand.converted_by = None;
        self.errands.insert(number, errand);
        self.core.release(RequestId::new(number), self.clock.at(at));
    }

    fn give_up_conversion(&mut self, at: u64, errand: &Errand, referee: &mut Referee) -> bool {
        let Some(conversion) = errand.converted_by else { return false };
        self.core.cancel(RequestId::new(conversion));
        self.errands.remove(&conversion);
        self.note(at, conversion, What::Abandoned, referee);
        referee.tally.count("conversions given up");
        true
    }

    fn cancel(&mut self, at: u64, number: u64, referee: &mut Referee) {
        let Some(mut errand) = self.errands.remove(&number) else { return };
        self.give_up_conversion(at, &errand, referee);
        self.core.cancel(RequestId::new(number));
        self.end_belief(at, number, &mut errand, referee);
        self.note(at, number, What::Abandoned, referee);
        referee.tally.count("cancelled");
    }
}

/// For how long something is held: mostly not for long, now and then for longer than a lease.
pub(super) fn hold_for(dice: &mut Random) -> u64 {
    let longest = *dice.pick(&[
        50_000, 50_000, 200_000, 200_000, 200_000, 2_000_000, 4_000_000, 4_000_000, 9_000_000,
    ]);
    dice.next() % longest
}

fn some_wait(dice: &mut Random) -> Wait {
    match dice.below(8) {
        0 => Wait::Never,
        1..4 => Wait::millis(dice.next() % 4_000),
        _ => Wait::Forever,
    }
}

/// One lock, or several, in any modes.
fn some_claims(dice: &mut Random, referee: &Referee) -> Vec<(Lock, Mode)> {
    let count = if dice.once_in(4) { 2 + dice.below(2) } else { 1 };
    let first = dice.below(referee.lock_count());
    let locks = (0..count.min(referee.lock_count())).map(|n| (first + n) % referee.lock_count());
    let claim = |lock| {
        let plain = *dice.pick(&[Mode::Exclusive, Mode::Shared]);
        let mode = match referee.kind(lock) {
            Kind::Semaphore { of } => Mode::Permits { take: up_to(of, dice), of },
            Kind::Mixed if dice.once_in(4) => Mode::Permits { take: 1, of: 2 },
            Kind::Plain | Kind::Mixed => plain,
        };
        (lock, mode)
    };
    locks.map(claim).collect()
}

/// Another mode for a lock that is held in this one.
fn otherwise(mode: Mode, dice: &mut Random) -> Mode {
    match mode {
        Mode::Exclusive => Mode::Shared,
        Mode::Shared => Mode::Exclusive,
        Mode::Permits { of, .. } => Mode::Permits { take: up_to(of, dice), of },
    }
}

/// A number from 1 to `most`.
fn up_to(most: u32, dice: &mut Random) -> u32 {
    1 + u32::try_from(dice.next() % u64::from(most)).unwrap()
}
