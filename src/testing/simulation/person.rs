//! A client: the production core, and somebody who uses it.
//!
//! Its wishes are random. Its answers must make sense: each belongs to an open question, and no
//! believed hold is lost, unless an operator took it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::errand::{Errand, Hold, Stage, lesser};
use super::referee::{Lock, Moment, Referee};
use super::time::SkewedClock;
use super::wants::hold_for;
use crate::client::core::{Core, Effect, Introduction, Reconnect, Refusal, Welcome};
use crate::testing::fuzz::Random;
use crate::testing::history::What;
use crate::types::{Epoch, LostReason, RejectionCode, RequestId, SessionId, Ttl};
use crate::wire::Mode;

/// A client process.
pub(super) struct Person {
    /// Which one it is of all that there ever were.
    pub(super) name: u64,
    /// The clock of its machine.
    pub(super) clock: SkewedClock,
    /// Decides what is believed.
    pub(super) core: Core,
    /// Which of the connections that the core wanted it has, and over which wire, once it is there.
    pub(super) number: Option<u64>,
    pub(super) wire: Option<usize>,
    /// The same, of the second connection beside one that does not answer.
    pub(super) second_number: Option<u64>,
    pub(super) second_wire: Option<usize>,
    /// For which true time its timer is set, and when it goes off, which is later.
    pub(super) armed: Option<(u64, u64)>,
    /// When it began.
    pub(super) born: u64,
    /// Its session.
    pub(super) session: Option<SessionId>,
    /// In which epoch the server has ended its session, and it does not know yet.
    pub(super) orphaned_in: Option<Epoch>,
    /// Whether its connection is cut as soon as it has said what it has to say now.
    pub(super) cut_next: bool,
    /// What it has asked for and is not over.
    pub(super) errands: BTreeMap<u64, Errand>,
    /// Whether what it believes is judged.
    trust: Trust,
    /// Whether it was granted what it asked for when all faults were over.
    pub(super) is_served: bool,
}

/// Whether what a client believes is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It is.
    Judged,
    /// Its clock stood still, which no clock may (rule T1): what it believes since is nobody's fault, and
    /// others must not suffer from it.
    Misled,
}

impl Person {
    pub(super) fn new(name: u64, clock: SkewedClock, now: u64, dice: &mut Random) -> Self {
        let ttl = Ttl::new(Duration::from_millis(*dice.pick(&[2_000, 2_000, 2_000, 3_000, 5_000])));
        let introduction =
            Introduction { ttl: ttl.ok(), linger_ms: None, identity: format!("client {name}") };
        let reconnect =
            Reconnect { attempt_max: Duration::from_secs(5), seed: dice.next(), servers: 1 };
        Self {
            name,
            clock,
            core: Core::new(introduction, Some(reconnect), clock.at(now)),
            number: Some(0),
            wire: None,
            second_number: None,
            second_wire: None,
            armed: None,
            born: now,
            session: None,
            orphaned_in: None,
            cut_next: false,
            errands: BTreeMap::new(),
            trust: Trust::Judged,
            is_served: false,
        }
    }

    pub(super) fn moment(&self, at: u64) -> Moment {
        Moment { at, local: self.clock.at(at) }
    }

    pub(super) fn note(&self, at: u64, number: u64, what: What, referee: &mut Referee) {
        referee.note(self.moment(at), self.name, number, what);
    }

    /// An operator takes away what a request was granted with this token, whether that was heard of
    /// or not.
    pub(super) fn revoke(&mut self, at: u64, number: u64, token: u64, referee: &mut Referee) {
        let (moment, name) = (self.moment(at), self.name);
        let Some(errand) = self.errands.get(&number) else { return };
        let mut lost = number;
        match &errand.stage {
            Stage::Held(hold) if hold.token == token => {}
            Stage::Waiting => {
                // After a crash nobody may know any more that it ever was granted.
                self.note(at, number, What::Abandoned, referee);
                referee.ignore(name, number);
                // What it has converted is believed in until that is heard of.
                let Some(converted) = errand.converts else { return };
                lost = converted;
            }
            Stage::Held(_) | Stage::Releasing { .. } => return,
        }
        if let Some(errand) = self.errands.get_mut(&lost)
            && let Stage::Held(hold) = &mut errand.stage
        {
            errand.is_revoked = true;
            hold.end(moment, name, lost, referee);
        }
    }

    /// Time has passed since the last thing happened here: some belief may have ended meanwhile.
    pub(super) fn wake(&mut self, at: u64, referee: &mut Referee) {
        let (local, lease) = (self.clock.at(at), self.core.believed_until());
        let (clock, name, is_misled) = (self.clock, self.name, self.is_misled());
        for (&number, errand) in &mut self.errands {
            let Stage::Held(hold) = &mut errand.stage else { continue };
            let until = hold.until(lease);
            let is_over = until <= local;
            assert!(is_over || !hold.is_over || is_misled, "a hold of client {name} was revived");
            if is_over && !hold.is_over {
                hold.is_over = true;
                let at = clock.moment(until);
                hold.end(Moment { at, local: clock.at(at) }, name, number, referee);
            }
        }
    }

    /// How this client believes to hold a lock at a moment, for each request that does.
    pub(super) fn believes(&self, at: u64, lock: Lock) -> impl Iterator<Item = Mode> {
        let (local, lease) = (self.clock.at(at), self.core.believed_until());
        self.errands.values().filter_map(move |errand| match &errand.stage {
            Stage::Held(_) if errand.is_revoked || self.is_misled() => None,
            Stage::Held(hold) if local < hold.until(lease) => self.mode(errand, lock),
            Stage::Held(_) | Stage::Waiting | Stage::Releasing { .. } => None,
        })
    }

    /// Who has asked to share a lock does not act as if it were alone.
    fn mode(&self, errand: &Errand, lock: Lock) -> Option<Mode> {
        let held = errand.mode(lock)?;
        let other = errand.converted_by.and_then(|number| self.errands[&number].mode(lock));
        Some(other.map_or(held, |other| lesser(held, other)))
    }

    /// What the core tells is true. Says which locks have a new holder.
    pub(super) fn listen(
        &mut self,
        at: u64,
        dice: &mut Random,
        referee: &mut Referee,
    ) -> Vec<Lock> {
        let mut granted = Vec::new();
        for effect in self.core.take_effects() {
            match effect {
                Effect::Granted { request, token } => {
                    let number = request.number();
                    let release_at = at + hold_for(dice);
                    let hold = Hold {
                        token: token.number(),
                        doubted: None,
                        release_at,
                        is_over: false,
                        is_noted: false,
                    };
                    self.granted(at, number, hold, referee);
                    granted.extend(self.errands[&number].claims.iter().map(|(lock, _)| *lock));
                }
                Effect::Replaced { request } => {
                    let number = request.number();
                    let mut old = self.errands.remove(&number).expect("what is converted is held");
                    self.end_belief(at, number, &mut old, referee);
                    self.note(at, number, What::Abandoned, referee);
                }
                Effect::Refused { request, refusal } => {
                    self.refused(at, request, &refusal, referee);
                }
                Effect::Lost { request, reason } => self.lost(at, request, reason, referee),
                Effect::Released { request, outcome } => {
                    self.released(at, request, outcome, referee);
                }
                Effect::Queued { request, .. } => {
                    let number = request.number();
                    if self.errands.get(&number).is_some_and(|errand| !errand.is_displaced) {
                        self.note(at, number, What::Queued, referee);
                    }
                }
                Effect::Doubted { request, until } => self.hold(request).doubted = Some(until),
                Effect::Confirmed { request } => {
                    self.hold(request).doubted = None;
                    referee.tally.count("reclaimed");
                }
                Effect::Welcomed(welcome) => self.welcomed(at, welcome, dice, referee),
                Effect::Seen { .. } | Effect::Interrupted { .. } | Effect::Unseen { .. } => {
                    panic!("they only lock")
                }
            }
        }
        granted
    }

    fn hold(&mut self, request: RequestId) -> &mut Hold {
        match self.errands.get_mut(&request.number()).map(|errand| &mut errand.stage) {
            Some(Stage::Held(hold)) => hold,
            Some(Stage::Waiting | Stage::Releasing { .. }) | None => {
                panic!("request {request} is not held")
            }
        }
    }

    fn granted(&mut self, at: u64, number: u64, hold: Hold, referee: &mut Referee) {
        let (local, lease) = (self.clock.at(at), self.core.believed_until());
        assert!(local < hold.until(lease), "granted what is not believed in");
        let token = hold.token;
        let errand = self.errands.get_mut(&number).expect("granted what was not asked for");
        assert!(matches!(errand.stage, Stage::Waiting), "granted twice");
        errand.is_revoked = referee.revoked.contains(&token);
        errand.stage = Stage::Held(hold);
        self.is_served |= errand.is_wish;
        referee.tally.count("granted");
        match errand.claims[0].1 {
            Mode::Shared if errand.converts.is_some() => referee.tally.count("downgraded"),
            Mode::Exclusive if errand.converts.is_some() => referee.tally.count("upgraded"),
            Mode::Shared => referee.tally.count("shared"),
            Mode::Exclusive | Mode::Permits { .. } => {}
        }
        if self.errands[&number].is_revoked {
            self.note(at, number, What::Abandoned, referee);
            referee.ignore(self.name, number);
        }
        self.note(at, number, What::Granted { token }, referee);
    }

    pub(super) fn end_belief(
        &self,
        at: u64,
        number: u64,
        errand: &mut Errand,
        referee: &mut Referee,
    ) {
        if let Stage::Held(hold) = &mut errand.stage {
            hold.end(self.moment(at), self.name, number, referee);
        }
    }

    fn refused(&mut self, at: u64, request: RequestId, refusal: &Refusal, referee: &mut Referee) {
        let number = request.number();
        let errand = self.errands.remove(&number).expect("refused what was not asked for");
        assert!(matches!(errand.stage, Stage::Waiting), "refused what was granted");
        let converted = errand.converts.and_then(|converted| self.errands.get(&converted));
        let is_without_ground =
            errand.converts.is_some() && converted.is_none_or(Errand::is_taken_or_over);
        let is_for_a_loss = matches!(refusal, Refusal::Lost(_));
        let is_forbidden = || {
            let was = |(lock, mode): &(Lock, Mode)| {
                referee.ruling.has_forbidden(&referee.name(*lock), *mode, errand.asked)
            };
            errand.claims.iter().any(was)
        };
        assert!(
            converted.is_none() || is_without_ground || !is_for_a_loss || self.is_misled(),
            "it is held still"
        );
        if let Some(held) = errand.converts.and_then(|number| self.errands.get_mut(&number)) {
            held.converted_by = None;
        }
        let what = match refusal {
            Refusal::Rejected(rejection) => match rejection.code {
                RejectionCode::Forbidden if is_forbidden() => "forbidden",
                RejectionCode::TimedOut => "timed out",
                RejectionCode::Deadlock => "deadlocks",
                RejectionCode::Busy => "busy",
                RejectionCode::Grace => "in grace",
                RejectionCode::Superseded => "superseded",
                RejectionCode::AlreadyHeld => "already held",
                RejectionCode::Unavailable => "unavailable",
                RejectionCode::NotHolder if is_without_ground => "nothing to convert",
                other => panic!("request {request}: {other:?}"),
            },
            Refusal::Away => "unsent",
            Refusal::Lost(_) => "lost before it was heard of",
            Refusal::Ended if self.core.end().is_some() => "asked of nobody",
            // What is denied leaves no trace. The answer was lost, and it is repeated when it is allowed.
            Refusal::Forgotten if is_forbidden() => "forbidden, and forgotten",
            Refusal::Ended | Refusal::Forgotten => panic!("request {request}: {refusal:?}"),
        };
        referee.tally.count(what);
        self.note(at, number, What::Refused, referee);
    }

    fn lost(&mut self, at: u64, request: RequestId, reason: LostReason, referee: &mut Referee) {
        let number = request.number();
        let mut errand = self.errands.remove(&number).expect("lost what was not asked for");
        let Stage::Held(Hold { token, is_over, .. }) = errand.stage else {
            panic!("lost what was not held");
        };
        let is_just = match reason {
            // Nothing is lost before its client has ceased to believe in it.
            LostReason::Expired => is_over,
            // A downgrade of which we did not hear before the coordinator crashed: whom it let in is
            // reclaimed with a later token.
            LostReason::Conflict => errand.converted_by.is_some_and(|number| {
                let before = &errand.claims;
                let after = &self.errands[&number];
                before.iter().any(|(lock, mode)| after.mode(*lock).is_some_and(|to| to != *mode))
            }),
            // It may have been taken away by the run before. Or it was taken as what it had been
            // converted to, with another token, of which we never heard.
            LostReason::Revoked | LostReason::NotReclaimed => {
                errand.is_revoked || referee.revoked.contains(&token)
            }
            LostReason::Disconnected | LostReason::Refused => self.core.end().is_some(),
            LostReason::Stopped | LostReason::Forked | LostReason::Unknown(_) => false,
        };
        assert!(
            is_just || self.is_misled(),
            "lost ({reason:?}) what was believed in: request {request}"
        );
        self.end_belief(at, number, &mut errand, referee);
        referee.tally.count("lost");
        self.note(at, number, What::Lost, referee);
    }

    fn released(
        &mut self,
        at: u64,
        request: RequestId,
        outcome: Result<(), Refusal>,
        referee: &mut Referee,
    ) {
        let number = request.number();
        let errand = self.errands.remove(&number).expect("answered what was not given back");
        let Stage::Releasing { token, was_converted } = errand.stage else {
            panic!("answered what was not given back");
        };
        match outcome {
            Ok(()) | Err(Refusal::Away) => {}
            Err(Refusal::Lost(LostReason::NotReclaimed)) if was_converted => {}
            // It did not get there before the end of the lease.
            Err(Refusal::Lost(LostReason::Expired)) if self.orphaned_in.is_some() => {}
            Err(Refusal::Lost(LostReason::Revoked | LostReason::NotReclaimed))
                if referee.revoked.contains(&token) => {}
            Err(Refusal::Lost(_)) if self.is_misled() => {}
            Err(Refusal::Ended) if self.core.end().is_some() => {}
            Err(refusal) => panic!("release of {request}: {refusal:?}"),
        }
        referee.tally.count("released");
        self.note(at, number, What::ReleaseAnswered, referee);
    }

    fn welcomed(&mut self, at: u64, welcome: Welcome, dice: &mut Random, referee: &mut Referee) {
        let Welcome { session, epoch, .. } = welcome;
        let is_another = self.session.replace(session) != Some(session);
        // A Welcome that was long on its way may be older than the end of what it opens or resumes.
        self.orphaned_in =
            referee.ended.get(&session).copied().filter(|ended_in| *ended_in >= epoch);
        if is_another {
            referee.tally.count("opened");
            self.lose_places(at, referee, |_, _| true);
        } else {
            referee.tally.count("resumed");
            self.was_away(at, referee);
            // Before the server hears what is said now.
            self.cut_next = dice.once_in(6);
        }
        for errand in self.errands.values_mut() {
            errand.is_displaced &= self.orphaned_in.is_some();
        }
    }

    /// While it was away, others passed its requests that wait (rule S8). From now on, none does.
    fn was_away(&mut self, at: u64, referee: &mut Referee) {
        let (moment, name) = (self.moment(at), self.name);
        for (&number, errand) in &self.errands {
            if matches!(errand.stage, Stage::Waiting) {
                referee.note(moment, name, number, What::PlaceLost);
            }
        }
    }

    /// Others may come before those of its requests that wait and that `are_meant`, whatever is heard
    /// of their places until the next Welcome.
    pub(super) fn lose_places(
        &mut self,
        at: u64,
        referee: &mut Referee,
        are_meant: impl Fn(u64, &Errand) -> bool,
    ) {
        let (moment, name) = (self.moment(at), self.name);
        for (&number, errand) in &mut self.errands {
            if matches!(errand.stage, Stage::Waiting) && are_meant(number, errand) {
                errand.is_displaced = true;
                referee.note(moment, name, number, What::PlaceLost);
            }
        }
    }

    fn is_misled(&self) -> bool {
        self.trust == Trust::Misled
    }

    /// Its clock stands still for so long, from now on.
    pub(super) fn mislead(&mut self, at: u64, length: u64, referee: &mut Referee) {
        self.wake(at, referee);
        let (moment, name) = (self.moment(at), self.name);
        for (&number, errand) in &mut self.errands {
            if let Stage::Held(hold) = &mut errand.stage {
                hold.end(moment, name, number, referee);
                // Nor does its owner know what time it is.
                hold.release_at = hold.release_at.max(at + length + 2_000_000);
            }
            referee.note(moment, name, number, What::Abandoned);
        }
        referee.ignore_client(name);
        self.trust = Trust::Misled;
        self.clock.stand_still(length);
    }

    /// Nobody waits for anything here any more.
    pub(super) fn abandon_all(&mut self, at: u64, referee: &mut Referee) {
        for (number, mut errand) in std::mem::take(&mut self.errands) {
            self.end_belief(at, number, &mut errand, referee);
            self.note(at, number, What::Abandoned, referee);
        }
    }
}
