//! The access file of this world: which locks it forbids, since when, and what follows from that.
//!
//! Whoever comes is anyone, and sees and breaks everything. Which locks anyone may have changes while
//! requests wait for them. Two things are judged. Nothing is granted for the first time that the rules of that
//! moment forbid. Once they are looked through, nothing waits that they forbid.

use std::collections::BTreeSet;

use super::world::World;
use crate::access::{Access, Names, Rule, Rules, Verb};
use crate::server::{Desk, Granted, Witness};
use crate::testing::fuzz::Random;
use crate::types::{FencingToken, LockName, Mode, RequestId, SessionId};

/// What the access file says of a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// Every mode.
    All,
    /// Shared mode only.
    Sharing,
    /// None.
    Nothing,
}

/// Rules, as they change.
#[derive(Default)]
pub(super) struct Ruling {
    /// What is allowed with each lock; empty: everything with all.
    allowed: Vec<(LockName, Allowed)>,
    /// What was forbidden since some moment, each time.
    forbidden: Vec<Forbidden>,
    /// What was granted.
    granted: BTreeSet<(FencingToken, SessionId, RequestId)>,
}

/// That a lock is forbidden for a time.
struct Forbidden {
    lock: LockName,
    allowed: Allowed,
    /// None: until now.
    until: Option<u64>,
}

impl Allowed {
    fn permits(self, mode: Mode) -> bool {
        match self {
            Self::All => true,
            Self::Sharing => mode == Mode::Shared,
            Self::Nothing => false,
        }
    }

    fn verb(self) -> Option<Verb> {
        match self {
            Self::All => Some(Verb::Lock),
            Self::Sharing => Some(Verb::Share),
            Self::Nothing => None,
        }
    }
}

impl Ruling {
    /// Other rules from now on. The first lock is always allowed: who may lock nothing has no session.
    pub(super) fn change(&mut self, now: u64, locks: Vec<LockName>, dice: &mut Random) {
        self.allow_all(now);
        for (number, lock) in locks.into_iter().enumerate() {
            let allowed = match dice.below(4) {
                0 if number > 0 => Allowed::Nothing,
                1 if number > 0 => Allowed::Sharing,
                _ => Allowed::All,
            };
            if allowed != Allowed::All {
                self.forbidden.push(Forbidden { lock: lock.clone(), allowed, until: None });
            }
            self.allowed.push((lock, allowed));
        }
    }

    /// Everything is allowed from now on.
    pub(super) fn allow_all(&mut self, now: u64) {
        self.allowed.clear();
        for forbidden in self.forbidden.iter_mut().filter(|it| it.until.is_none()) {
            forbidden.until = Some(now);
        }
    }

    /// The access file that says so.
    pub(super) fn access(&self) -> Access {
        let mut access = Access::closed();
        let mut rules = Rules::default();
        if self.allowed.is_empty() {
            rules = Rules::open();
        } else {
            let looks = [Verb::See, Verb::Break].into_iter().collect();
            rules.add(Rule { verbs: looks, names: Names::All, line: 1 });
        }
        for (lock, allowed) in &self.allowed {
            if let Some(verb) = allowed.verb() {
                let (verbs, names) = ([verb].into_iter().collect(), Names::One(lock.clone()));
                rules.add(Rule { verbs, names, line: 2 });
            }
        }
        access.set_anyone(rules);
        access
    }

    fn permits(&self, lock: &LockName, mode: Mode) -> bool {
        let mut about = self.allowed.iter().filter(|(named, _)| named == lock);
        about.all(|(_, allowed)| allowed.permits(mode))
    }

    /// Whether a claim was forbidden at any time since a moment.
    pub(super) fn has_forbidden(&self, lock: &str, mode: Mode, since: u64) -> bool {
        let is_about = |it: &&Forbidden| it.lock.as_str() == lock && !it.allowed.permits(mode);
        let mut about = self.forbidden.iter().filter(is_about);
        about.any(|it| it.until.is_none_or(|until| until >= since))
    }

    /// What was granted in a turn, and what waits after it.
    fn judge(&mut self, seen: &Witness, desk: &Desk) {
        for Granted { session, request, token, claims } in &seen.granted {
            // What was granted before stays held, and may be told again.
            if !self.granted.insert((*token, *session, *request)) {
                continue;
            }
            let denied = claims.iter().find(|(lock, mode)| !self.permits(lock, *mode));
            assert!(
                denied.is_none(),
                "{session} {request} is granted what is forbidden: {denied:?}"
            );
        }
        if desk.is_over() || desk.is_withholding() {
            return;
        }
        for (session, request, lock, mode) in desk.waiting() {
            assert!(self.permits(lock, mode), "{session} {request} waits for forbidden {lock}");
        }
    }
}

impl World {
    /// The coordinator has done something by the rules of now.
    pub(super) fn judge_rules(&mut self, seen: &Witness) {
        if self.site.is_ruled
            && let Some(desk) = &self.site.desk
        {
            self.referee.ruling.judge(seen, desk);
        }
    }

    /// Rules are read again: others, or the same. Whoever waits is looked at by them, a few in a turn.
    pub(super) fn change_rules(&mut self) {
        if self.now() < self.site.stalled_until || !self.site.is_ruled {
            return;
        }
        self.draw_rules();
        let access = self.site.rules(&self.referee.ruling);
        self.with_desk(|desk, local| desk.change_rules_slowly(access, local));
        if self.site.desk.as_ref().is_some_and(Desk::is_withholding) {
            self.referee.tally.count("rules looked through in several turns");
        }
    }

    /// Somebody writes the access file.
    pub(super) fn draw_rules(&mut self) {
        let now = self.now();
        if self.is_peace {
            return self.referee.ruling.allow_all(now);
        }
        match self.dice.below(4) {
            0 => self.referee.ruling.allow_all(now),
            1 => {}
            _ => {
                let names = self.referee.names();
                let names = names.map(|name| LockName::new(&*name).unwrap()).collect();
                self.referee.ruling.change(now, names, &mut self.dice);
            }
        }
    }
}
