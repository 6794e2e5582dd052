//! A client of the Redis dialect: it takes locks by `SET NX PX` or waits for them in line, has them last
//! longer, frees them by a script, and dies. It believes for as long as it may: its term, counted from when it
//! *asked*, by its own clock.
//!
//! What it says goes to the desk as one read of a connection, by the dialect's own talk. Its connections are
//! cut and slow; after that it knows nothing of what it asked for.

use std::time::Duration;

use super::Event;
use super::network::Way;
use super::referee::{Lock, Moment, Referee};
use super::time::{Heap, SkewedClock};
use crate::redis::Words;
use crate::testing::dialect::{self, BEGINNING, WAIT_MS_MAX};
use crate::testing::fuzz::Random;
use crate::testing::history::What;
use crate::types::{Mode, Timestamp};

/// What these clients are called: so much, and their numbers. The others are counted from 1.
const NAMES: u64 = 1 << 40;
/// After so many microseconds more without an answer it gives up.
const PATIENCE: u64 = 3_000_000;
/// A lock that only native clients hold.
const NATIVE: &str = "gpu";

/// One of them.
pub(super) struct Stranger {
    name: u64,
    pub(super) clock: SkewedClock,
    /// Its connection, if it has one.
    pub(super) link: Option<usize>,
    /// Counts what it asks for.
    requests: u64,
    /// What it is about.
    errand: Option<Errand>,
    /// What has come of an answer, of which so many lines are to come.
    heard: Vec<u8>,
    lines: usize,
    /// When it gives up waiting for that.
    patient_until: u64,
}

/// Something that it asked for.
struct Errand {
    number: u64,
    lock: Lock,
    stage: Stage,
}

/// Where it stands.
enum Stage {
    /// It has asked, by its own clock then, for so long.
    Asking { asked: Timestamp, term: Duration },
    /// It holds, and believes so until then.
    Held { token: u64, until: Timestamp, is_over: bool, then: Then },
    /// It has given it back; whether it believed in it until then, and until when it would have.
    Freeing { token: u64, until: Option<Timestamp> },
    /// It tries what must have no effect.
    Meddling,
}

/// What it has asked of what it holds.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    /// That it lasts until then.
    Extend(Timestamp),
}

/// A connection of one of them, to one run.
pub(super) struct Link {
    pub(super) stranger: usize,
    pub(super) run: u64,
    pub(super) up: Way,
    pub(super) down: Way,
    /// The longest that something is on its way.
    delay_max: u64,
    /// What the coordinator knows of its manners, once it has come.
    pub(super) talk: Option<crate::redis::Talk>,
}

impl Link {
    pub(super) fn new(stranger: usize, run: u64, dice: &mut Random) -> Self {
        let delay_max = *dice.pick(&[1_000, 1_000, 1_000, 200_000, 1_500_000]);
        let (up, down) = (Way::default(), Way::default());
        Self { stranger, run, up, down, delay_max, talk: None }
    }

    pub(super) fn delay(&self, dice: &mut Random) -> u64 {
        1 + dice.next() % self.delay_max
    }

    /// It ends. What is under way may arrive.
    pub(super) fn cut(&mut self, link: usize, heap: &mut Heap<Event>, dice: &mut Random) {
        for way in [&mut self.up, &mut self.down] {
            if dice.once_in(2) {
                way.lose_all();
            }
        }
        let (up, down) = (heap.now() + self.delay(dice), heap.now() + self.delay(dice));
        self.up.send(heap, up, Event::StrangerUp { link, lost: self.up.lost, words: None });
        self.down.send(heap, down, Event::StrangerDown { link, lost: self.down.lost, bytes: None });
        self.up.shut();
        self.down.shut();
    }
}

impl Stranger {
    pub(super) fn new(number: usize, dice: &mut Random) -> Self {
        Self {
            name: NAMES + number as u64,
            clock: SkewedClock::any(dice),
            link: None,
            requests: 0,
            errand: None,
            heard: Vec::new(),
            lines: 0,
            patient_until: 0,
        }
    }

    fn note(&self, at: u64, number: u64, what: What, referee: &mut Referee) {
        referee.note(Moment { at, local: self.clock.at(at) }, self.name, number, what);
    }

    /// For how long it believes in a term that it asks for now.
    fn believed(&self, at: u64, term: Duration) -> Timestamp {
        self.clock.at(at).after(dialect::believed(term))
    }

    /// How it believes to hold a lock, if it does.
    pub(super) fn believes(&self, at: u64, lock: Lock) -> Option<Mode> {
        let errand = self.errand.as_ref().filter(|errand| errand.lock == lock)?;
        match errand.stage {
            Stage::Held { until, is_over: false, .. } if until > self.clock.at(at) => {
                Some(Mode::Exclusive)
            }
            _ => None,
        }
    }

    /// Time has passed: its belief may have ended.
    pub(super) fn wake(&mut self, at: u64, referee: &mut Referee) {
        if let Some(Errand { stage: Stage::Held { until, .. }, .. }) = self.errand
            && until <= self.clock.at(at)
        {
            self.end_belief(self.clock.moment(until), referee);
        }
    }

    fn end_belief(&mut self, at: u64, referee: &mut Referee) {
        let Some(Errand { number, stage, .. }) = &mut self.errand else { return };
        if let Stage::Held { is_over, .. } = stage
            && !std::mem::replace(is_over, true)
        {
            let number = *number;
            self.note(at, number, What::BeliefEnded, referee);
        }
    }

    /// What it holds was taken away by an operator, or is forgotten with the run in which it was taken.
    pub(super) fn lose(&mut self, at: u64, token: Option<u64>, referee: &mut Referee) {
        self.wake(at, referee);
        let held = match self.errand.as_ref().map(|errand| &errand.stage) {
            Some(Stage::Held { token, .. } | Stage::Freeing { token, .. }) => Some(*token),
            _ => None,
        };
        if token.is_none() || held == token {
            self.give_up(at, referee);
        }
    }

    /// Nobody waits any more for what becomes of its errand.
    pub(super) fn give_up(&mut self, at: u64, referee: &mut Referee) {
        self.end_belief(at, referee);
        if let Some(Errand { number, stage, .. }) = self.errand.take()
            && !matches!(stage, Stage::Meddling)
        {
            self.note(at, number, What::Abandoned, referee);
        }
    }

    /// Whether it waits for an answer, and whether it has for too long.
    pub(super) fn waits(&self, at: u64) -> (bool, bool) {
        (self.lines > 0, self.lines > 0 && at > self.patient_until)
    }

    /// Whether it is about nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.errand.is_none()
    }

    /// Its connection is gone, with what it was to hear.
    pub(super) fn hang_up(&mut self, at: u64, referee: &mut Referee) {
        self.wake(at, referee);
        (self.link, self.lines) = (None, 0);
        self.heard.clear();
        match self.errand.as_mut().map(|errand| &mut errand.stage) {
            Some(Stage::Held { then, .. }) => *then = Then::Nothing,
            Some(_) => self.give_up(at, referee),
            None => {}
        }
    }

    /// Its turn, on a connection: what it says now, if anything.
    pub(super) fn act(
        &mut self,
        at: u64,
        is_peace: bool,
        dice: &mut Random,
        referee: &mut Referee,
    ) -> Option<Vec<Words>> {
        self.wake(at, referee);
        let Some(&Errand { number, lock, .. }) = self.errand.as_ref() else {
            let is_quiet = is_peace || dice.once_in(3);
            return (!is_quiet).then(|| self.begin(at, dice, referee));
        };
        let key = referee.name(lock);
        let value = self.value(number);
        let Some(Errand { stage: Stage::Held { token, until, is_over, .. }, .. }) = self.errand
        else {
            return None;
        };
        if !is_over && dice.once_in(3) {
            return Some(self.extend(at, &key, &value, dice));
        }
        if !is_peace && !dice.once_in(3) {
            return None;
        }
        if dice.once_in(4) {
            // It dies, and its lock is free in time.
            self.give_up(at, referee);
            return None;
        }
        self.end_belief(at, referee);
        self.note(at, number, What::ReleaseInvoked, referee);
        let until = (!is_over).then_some(until);
        if let Some(errand) = &mut self.errand {
            errand.stage = Stage::Freeing { token, until };
        }
        Some(self.say(at, 0, &[&dialect::free(&key, &value)], 1))
    }

    fn value(&self, number: u64) -> String {
        dialect::value(self.name - NAMES, number)
    }

    /// Notes what is said now, and how many lines of answers there will be.
    fn say(&mut self, at: u64, wait_ms: u64, commands: &[&[&str]], lines: usize) -> Vec<Words> {
        (self.lines, self.patient_until) = (lines, at + wait_ms * 1_000 + PATIENCE);
        self.heard.clear();
        commands.iter().map(|words| Words::of(words.iter().map(|word| word.as_bytes()))).collect()
    }

    fn begin(&mut self, at: u64, dice: &mut Random, referee: &mut Referee) -> Vec<Words> {
        let lock = *dice.pick(&referee.plain_locks());
        let key = referee.name(lock);
        self.requests += 1;
        let number = self.requests;
        if dice.once_in(8) {
            self.errand = Some(Errand { number, lock, stage: Stage::Meddling });
            let free = dialect::free(&key, BEGINNING);
            return self.say(at, 0, &[&free, &["DEL", NATIVE]], 2);
        }
        let term = dialect::term_ms(dice);
        let wanted = referee.wanted(&[(lock, Mode::Exclusive)]);
        self.note(at, number, What::Invoked { wanted, goes_first: false }, referee);
        let (asked, length) = (self.clock.at(at), Duration::from_millis(term));
        let stage = Stage::Asking { asked, term: length };
        self.errand = Some(Errand { number, lock, stage });
        let (value, px) = (self.value(number), term.to_string());
        if dice.once_in(2) {
            let wait = 1 + dice.next() % WAIT_MS_MAX;
            let limit = wait.to_string();
            let words = ["COORDINATOR.WAIT", &*key, &value, "PX", &px, "TIMEOUT", &limit];
            return self.say(at, wait, &[&words], 1);
        }
        let set = ["SET", &*key, &value, "NX", "PX", &px];
        let all: [&[&str]; 4] = [&["MULTI"], &set, &["COORDINATOR.TOKEN", &key], &["EXEC"]];
        self.say(at, 0, &all, 6)
    }

    fn extend(&mut self, at: u64, key: &str, value: &str, dice: &mut Random) -> Vec<Words> {
        let term = dialect::term_ms(dice);
        let longer = self.believed(at, Duration::from_millis(term));
        if let Some(Errand { stage: Stage::Held { until, then, .. }, .. }) = &mut self.errand {
            *then = Then::Extend(longer);
            // If that is shorter, it may be so before this is known.
            *until = longer.min(*until);
        }
        self.say(at, 0, &[&dialect::extend(key, value, &term.to_string())], 1)
    }

    /// Hears some bytes. Says for which lock it believes to be granted it by that.
    pub(super) fn hear(&mut self, at: u64, bytes: &[u8], referee: &mut Referee) -> Option<Lock> {
        self.wake(at, referee);
        self.heard.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&self.heard).into_owned();
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        if self.lines == 0 || lines.len() < self.lines || !text.ends_with("\r\n") {
            return None;
        }
        self.lines = 0;
        match &self.errand.as_ref()?.stage {
            Stage::Asking { .. } => self.answered(at, &lines, referee),
            Stage::Held { .. } => {
                self.extended(at, lines[0], referee);
                None
            }
            Stage::Freeing { .. } => {
                self.freed(at, lines[0], referee);
                None
            }
            Stage::Meddling => {
                let is_freed = lines[0] == ":1" || lines[1] == ":1";
                assert!(!is_freed, "something was freed by who does not hold it: {lines:?}");
                self.errand = None;
                None
            }
        }
    }

    fn answered(&mut self, at: u64, lines: &[&str], referee: &mut Referee) -> Option<Lock> {
        let Errand { number, lock, stage: Stage::Asking { asked, term } } =
            *self.errand.as_ref()?
        else {
            return None;
        };
        let is_in_line = lines.len() == 1;
        let is_granted = is_in_line || lines.get(4) == Some(&"+OK");
        let last = lines.last().and_then(|line| line.strip_prefix(':'));
        let Some(token) = last.and_then(|token| token.parse().ok()).filter(|_| is_granted) else {
            let answer = lines[lines.len().saturating_sub(2)];
            let since = self.clock.moment(asked);
            let is_forbidden = answer.starts_with("-NOPERM")
                && referee.ruling.has_forbidden(&referee.name(lock), Mode::Exclusive, since);
            assert!(is_forbidden || dialect::is_no(answer), "{lines:?} is no answer");
            referee.tally.count(if is_forbidden { "redis: forbidden" } else { "redis: refused" });
            self.note(at, number, What::Refused, referee);
            self.errand = None;
            return None;
        };
        let until = asked.after(dialect::believed(term));
        if until <= self.clock.at(at) || referee.revoked.contains(&token) {
            self.give_up(at, referee);
            return None;
        }
        referee.tally.count(if is_in_line { "redis: granted in line" } else { "redis: granted" });
        self.note(at, number, What::Granted { token }, referee);
        let stage = Stage::Held { token, until, is_over: false, then: Then::Nothing };
        self.errand = Some(Errand { number, lock, stage });
        Some(lock)
    }

    fn extended(&mut self, at: u64, answer: &str, referee: &mut Referee) {
        let Some(Errand { stage: Stage::Held { until, is_over, then, .. }, .. }) = &mut self.errand
        else {
            return;
        };
        let Then::Extend(longer) = std::mem::replace(then, Then::Nothing) else { return };
        if *is_over {
            return;
        }
        if answer == ":1" {
            *until = longer;
            referee.tally.count("redis: extended");
            self.wake(at, referee);
        } else {
            assert_ne!(answer, ":0", "{} has lost what it believes to hold", self.name);
        }
    }

    fn freed(&mut self, at: u64, answer: &str, referee: &mut Referee) {
        let Some(Errand { number, stage: Stage::Freeing { until, .. }, .. }) = self.errand else {
            return;
        };
        if until.is_some_and(|until| self.clock.at(at) < until) {
            // It would believe in it still. Whoever stops frees nothing, and says so.
            assert_ne!(answer, ":0", "{} has lost what it believed to hold", self.name);
        }
        referee.tally.count(match answer {
            ":1" => "redis: released",
            ":0" => "redis: released too late",
            _ => "redis: not released",
        });
        self.note(at, number, What::ReleaseAnswered, referee);
        self.errand = None;
    }
}
