//! The judgement: first each request by itself, then all of them together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::violation::Hold;
use super::{Entry, How, RequestName, Violation, Wanted, What};

/// What a log came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Requests that were made.
    pub(crate) requests: u64,
    /// Of them, granted.
    pub(crate) grants: u64,
    /// Of those, lost.
    pub(crate) losses: u64,
    /// Requests that were refused.
    pub(crate) refusals: u64,
    /// Writes that a resource accepted.
    pub(crate) writes: u64,
    /// Writes that a resource refused.
    pub(crate) refused_writes: u64,
}

/// From when until when a client believed: by the referee's clock and by its own.
#[derive(Clone, Copy, Debug)]
struct Belief {
    from: (u64, u64),
    until: Option<(u64, u64)>,
}

/// A request, pieced together.
#[derive(Clone, Debug)]
struct Story<'a> {
    /// What it asks for.
    wanted: &'a [Wanted],
    /// Whether it may go before others.
    goes_first: bool,
    /// When it was asked.
    came_at: u64,
    /// Since when it is known to have a place, which it keeps.
    known_at: Option<u64>,
    /// When its grant was heard, and the token.
    granted: Option<(u64, u64)>,
    /// Its belief that it holds, once there was one.
    believed: Option<Belief>,
    /// Since when a release waits to be answered.
    releasing: Option<u64>,
    /// Whether there is nothing more to come.
    is_over: bool,
}

impl Story<'_> {
    fn still_believes(&self) -> bool {
        self.believed.is_some_and(|belief| belief.until.is_none())
    }

    fn hold(&self, request: RequestName, how: How) -> Option<Hold> {
        let (token, Belief { from, until }) = (self.granted?.1, self.believed?);
        Some(Hold { request, token, how, from, until })
    }
}

pub(super) fn check(entries: &[Entry]) -> Result<Figures, Vec<Violation>> {
    let mut judge = Judge::default();
    for entry in entries {
        judge.look_at(entry);
    }
    judge.unanswered();
    judge.tokens();
    judge.locks();
    if judge.violations.is_empty() { Ok(judge.figures) } else { Err(judge.violations) }
}

#[derive(Default)]
struct Judge<'a> {
    /// What is known of each request.
    stories: BTreeMap<RequestName, Story<'a>>,
    /// The greatest token that each resource has taken.
    resources: HashMap<&'a str, u64>,
    /// The latest time of each client's own clock.
    clocks: HashMap<u64, u64>,
    /// What it comes to.
    figures: Figures,
    /// What could not be.
    violations: Vec<Violation>,
}

impl<'a> Judge<'a> {
    fn look_at(&mut self, entry: &'a Entry) {
        let Entry { at, local, request, what } = entry;
        let clock = self.clocks.entry(request.client).or_insert(*local);
        if *local < *clock {
            self.violations.push(Violation::ClockWentBack { client: request.client, at: *at });
        }
        *clock = *local;
        match what {
            What::Invoked { wanted, goes_first } => {
                self.figures.requests += 1;
                let story = Story {
                    wanted,
                    goes_first: *goes_first,
                    came_at: *at,
                    known_at: None,
                    granted: None,
                    believed: None,
                    releasing: None,
                    is_over: false,
                };
                if self.stories.insert(*request, story).is_some() {
                    self.out_of_place(entry, "came", "had come before");
                }
            }
            What::Wrote { resource, token, accepted } => {
                self.wrote(*request, *at, resource, *token, *accepted);
            }
            What::Queued
            | What::PlaceLost
            | What::Granted { .. }
            | What::BeliefEnded
            | What::Refused
            | What::ReleaseInvoked
            | What::ReleaseAnswered
            | What::Lost
            | What::Abandoned => match self.stories.remove(request) {
                Some(mut story) => {
                    self.go_on(&mut story, entry);
                    self.stories.insert(*request, story);
                }
                None => self.out_of_place(entry, "was told something", "had not come"),
            },
        }
    }

    /// The next thing that happened to a request.
    fn go_on(&mut self, story: &mut Story<'a>, entry: &'a Entry) {
        let Entry { at, local, request, what } = entry;
        match what {
            What::Queued => {
                if story.granted.is_none() {
                    story.known_at = story.known_at.or(Some(*at));
                }
            }
            What::PlaceLost => story.known_at = None,
            What::Granted { token } => self.granted(story, entry, *token),
            What::BeliefEnded => {
                if let Some(Belief { until: until @ None, .. }) = &mut story.believed {
                    *until = Some((*at, *local));
                } else {
                    self.out_of_place(entry, "ended its belief", "believed nothing");
                }
            }
            What::Refused => {
                if story.is_over || story.granted.is_some() {
                    self.out_of_place(entry, "was refused", "was over, or granted");
                }
                self.figures.refusals += 1;
                story.is_over = true;
            }
            What::ReleaseInvoked => {
                self.must_not_believe(story, *request, *at, "it gave it back");
                if story.granted.is_none() || story.releasing.is_some() {
                    self.out_of_place(entry, "was given back", "was not held");
                }
                story.releasing = Some(*at);
                story.is_over = true;
            }
            What::ReleaseAnswered => {
                if story.releasing.take().is_none() {
                    self.out_of_place(entry, "was said to be free", "was not given back");
                }
            }
            What::Lost => {
                self.must_not_believe(story, *request, *at, "it heard of its loss");
                if story.granted.is_none() {
                    self.out_of_place(entry, "was lost", "held nothing");
                }
                self.figures.losses += 1;
                story.is_over = true;
            }
            What::Abandoned => {
                self.must_not_believe(story, *request, *at, "it was given up");
                story.releasing = None;
                story.is_over = true;
            }
            What::Invoked { .. } | What::Wrote { .. } => {}
        }
    }

    fn granted(&mut self, story: &mut Story<'a>, entry: &Entry, token: u64) {
        let Entry { at, local, request, .. } = *entry;
        match story.granted {
            _ if story.is_over => {
                self.violations.push(Violation::GrantedAfterEnd { request, token, at });
            }
            Some((_, before)) if before != token => {
                let again = token;
                self.violations.push(Violation::GrantedTwice { request, token: before, again });
            }
            Some(_) => {
                self.out_of_place(entry, "was granted", "had been, and had heard of it");
            }
            None => {
                self.figures.grants += 1;
                story.granted = Some((at, token));
                story.believed = Some(Belief { from: (at, local), until: None });
            }
        }
    }

    fn must_not_believe(
        &mut self,
        story: &Story<'_>,
        hold: RequestName,
        at: u64,
        what: &'static str,
    ) {
        if story.still_believes() {
            self.violations.push(Violation::StillBelieved { hold, at, what });
        }
    }

    fn out_of_place(&mut self, entry: &Entry, what: &'static str, state: &'static str) {
        let Entry { at, request, .. } = *entry;
        self.violations.push(Violation::OutOfPlace { request, at, what, state });
    }

    fn wrote(
        &mut self,
        by: RequestName,
        at: u64,
        resource: &'a Arc<str>,
        token: u64,
        accepted: bool,
    ) {
        let seen = self.resources.entry(resource).or_insert(0);
        let resource = resource.clone();
        match accepted {
            true if token < *seen => {
                let seen = *seen;
                self.violations.push(Violation::WentBack { resource, by, token, seen, at });
            }
            true => {
                self.figures.writes += 1;
                *seen = token;
            }
            false if token >= *seen => {
                self.violations.push(Violation::RefusedInOrder { resource, by, token, at });
            }
            false => self.figures.refused_writes += 1,
        }
    }

    /// Nobody waits when all is over.
    fn unanswered(&mut self) {
        for (name, story) in &self.stories {
            let (request, since) = (*name, story.came_at);
            if story.granted.is_none() && !story.is_over {
                let what = "the asking";
                self.violations.push(Violation::Unanswered { request, since, what });
            }
            if let Some(since) = story.releasing {
                let what = "the release";
                self.violations.push(Violation::Unanswered { request, since, what });
            }
        }
    }

    /// No token is given twice, but to a conversion that keeps it; and a later grant, as far as is
    /// known that it is later, has a greater one.
    fn tokens(&mut self) {
        let mut grants: Vec<(u64, RequestName)> =
            self.stories.iter().filter_map(|(name, s)| Some((s.granted?.1, *name))).collect();
        grants.sort_unstable();
        for pair in grants.windows(2) {
            let [(one_token, one), (token, other)] = [pair[0], pair[1]];
            let is_kept = [one, other].iter().any(|name| self.stories[name].goes_first);
            if one_token == token && !(is_kept && one.client == other.client) {
                self.violations.push(Violation::TokenTwice { one, other, token });
            }
        }
        // From the greatest token down: none of those above may have been heard of before.
        let mut earliest: Option<(u64, u64, RequestName)> = None;
        for (token, later) in grants.into_iter().rev() {
            let story = &self.stories[&later];
            if let Some((heard_at, earlier_token, earlier)) = earliest
                && heard_at < story.came_at
                && !story.goes_first
            {
                let (later, token) = (later, token);
                let wrong = Violation::TokenNotGreater { earlier, earlier_token, later, token };
                self.violations.push(wrong);
            }
            let heard = story.granted.map(|(at, _)| (at, token, later));
            earliest = [earliest, heard].into_iter().flatten().min();
        }
    }

    /// What can be said about each lock by itself.
    fn locks(&mut self) {
        let mut holds: BTreeMap<&str, (Arc<str>, Vec<Hold>)> = BTreeMap::new();
        for (name, story) in &self.stories {
            for Wanted { lock, how } in story.wanted {
                if let Some(hold) = story.hold(*name, *how) {
                    let of_lock = holds.entry(lock).or_insert_with(|| (lock.clone(), Vec::new()));
                    of_lock.1.push(hold);
                }
            }
        }
        for (lock, mut holds) in holds.into_values() {
            holds.sort_by_key(|hold| (hold.token, hold.from));
            self.exclusion(&lock, &holds);
            self.permits(&lock, &holds);
            self.order(&lock, &holds);
        }
    }

    /// In the order of tokens, each hold begins after those that it excludes have ended.
    fn exclusion(&mut self, lock: &Arc<str>, holds: &[Hold]) {
        // Of those so far, the one that ends last, of all and of the exclusive.
        let mut last: Option<&Hold> = None;
        let mut last_exclusive: Option<&Hold> = None;
        let end = |hold: &Hold| hold.until.map_or(u64::MAX, |until| until.0);
        for hold in holds.iter().filter(|hold| !matches!(hold.how, How::Permits { .. })) {
            let before = if hold.how == How::Exclusive { last } else { last_exclusive };
            if let Some(before) = before.filter(|before| end(before) > hold.from.0) {
                let (lock, one, other) = (lock.clone(), before.clone(), hold.clone());
                self.violations.push(Violation::TwoHolders { lock, one, other });
            }
            let later = |a: Option<&'_ Hold>| a.is_none_or(|a| end(a) <= end(hold));
            if later(last) {
                last = Some(hold);
            }
            if hold.how == How::Exclusive && later(last_exclusive) {
                last_exclusive = Some(hold);
            }
        }
    }

    /// At no time are more permits out than there are; nor is a semaphore a plain lock meanwhile.
    fn permits(&mut self, lock: &Arc<str>, holds: &[Hold]) {
        if !holds.iter().any(|hold| matches!(hold.how, How::Permits { .. })) {
            return;
        }
        // Of one moment, ends come first.
        let starts = holds.iter().enumerate().map(|(i, hold)| (hold.from.0, 1, i));
        let ends = holds.iter().enumerate();
        let ends = ends.filter_map(|(i, hold)| hold.until.map(|until| (until.0, 0, i)));
        let mut turns: Vec<(u64, u8, usize)> = starts.chain(ends).collect();
        turns.sort_unstable();
        let (mut taken, mut out) = (0, BTreeMap::new());
        for (_, turn, i) in turns {
            let hold = &holds[i];
            let (take, of) = match hold.how {
                How::Permits { take, of } => (u64::from(take), u64::from(of)),
                How::Exclusive | How::Shared => (0, 0),
            };
            if turn == 0 {
                // One that ends as it begins was never in.
                if out.remove(&i).is_some() {
                    taken -= take;
                }
                continue;
            }
            if hold.until.is_some_and(|until| until.0 <= hold.from.0) {
                continue;
            }
            if let Some((_, other_of)) = out.iter().next()
                && *other_of != of
                && let Some(one) = out.keys().next().map(|one: &usize| holds[*one].clone())
            {
                let (lock, other) = (lock.clone(), hold.clone());
                self.violations.push(Violation::KindsMixed { lock, one, other });
            }
            taken += take;
            out.insert(i, of);
            if of > 0 && taken > of {
                let (lock, last) = (lock.clone(), hold.clone());
                self.violations.push(Violation::TooManyPermits { lock, taken, of, last });
            }
        }
    }

    /// Who is known to have come before another came is granted before it.
    fn order(&mut self, lock: &Arc<str>, holds: &[Hold]) {
        // In the order of tokens: of those so far, the one that came last.
        let mut latest: Option<(u64, RequestName)> = None;
        for hold in holds {
            let story = &self.stories[&hold.request];
            if let (Some(known_at), Some((came_at, by))) = (story.known_at, latest)
                && came_at > known_at
            {
                let (lock, first) = (lock.clone(), hold.request);
                self.violations.push(Violation::Overtaken { lock, first, known_at, by, came_at });
            }
            if !story.goes_first {
                latest = latest.max(Some((story.came_at, hold.request)));
            }
        }
    }
}
