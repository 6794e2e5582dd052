//! The member itself, for two threads: the one that carries its effects to etcd, and the one that decides.
//!
//! What a leader may say changes with each acknowledgement. To ask the other thread each time would cost
//! more than the acknowledgement does. So both speak to the member under a mutex, which is held for a step and
//! never over a wait. What the decider causes is left here for the other thread to carry out.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::FOR_EVER;
use crate::clock::{BootClock, Clock};
use crate::cluster::{Arbiter, Effect, Event, Gap, Kept, Member, RunId};
use crate::types::Timestamp;

/// A member that is spoken to by whoever decides.
#[derive(Clone, Debug)]
pub(crate) struct Pledge(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    /// Wakes who carries effects out.
    carrier: Notify,
    /// Wakes who waits to say something.
    speaker: Notify,
}

#[derive(Debug)]
struct Inner {
    /// Who decides what is to be done.
    member: Member,
    /// What that is, and not begun yet.
    effects: Vec<Effect>,
    /// Who follows, and how many positions each has yet to acknowledge.
    followers: Vec<(RunId, u64)>,
    /// The standby whose name was found last, for people.
    named: Option<(RunId, String)>,
}

/// How a member stands after a step.
pub(super) struct View {
    /// What is to be done.
    pub(super) effects: Vec<Effect>,
    /// Until when it may decide.
    pub(super) decides_until: Timestamp,
    /// What the next process is to know.
    pub(super) keeps: Kept,
    /// The number of the swap whose answer it waits for.
    pub(super) awaits: Option<u64>,
    /// The term that it leads, if it does.
    pub(super) leads: Option<u64>,
    /// Who is in sync with it.
    pub(super) in_sync: Option<RunId>,
    /// Whether the arbiter knows less than it does.
    pub(super) is_doubted: bool,
    /// The arbiter that it believes.
    pub(super) arbiter: Option<Arbiter>,
    /// Another one that has answered instead.
    pub(super) other_arbiter: Option<Arbiter>,
    /// Whether the seat that it says is one of the past.
    pub(super) is_behind: bool,
    /// Whether it was told to stop.
    pub(super) is_stopping: bool,
}

impl Pledge {
    pub(super) fn new(member: Member) -> Self {
        let (effects, followers, named) = (Vec::new(), Vec::new(), None);
        let inner = Mutex::new(Inner { member, effects, followers, named });
        Self(Arc::new(Shared { inner, carrier: Notify::new(), speaker: Notify::new() }))
    }

    /// That of a leader that nobody has led before, and that has hours.
    #[cfg(test)]
    pub(crate) fn of_leader() -> Self {
        use crate::cluster::{Timing, Version};

        let lease = std::time::Duration::from_secs(3_600);
        let timing = Timing { lease, silence: std::time::Duration::from_secs(20) };
        let pledge = Self::new(Member::new(None, 1, timing));
        let asked = BootClock.now();
        let (arbiter, version) = (Arbiter(1), Version(0));
        pledge.hear(&Event::Read { arbiter, version, seat: None, asked });
        pledge.hear(&Event::Swapped { version: Version(1) });
        assert_eq!(pledge.leads(), Some(1));
        pledge
    }

    /// That of a standby in sync with a leader of this term.
    #[cfg(test)]
    pub(crate) fn of_standby_in_sync(term: u64) -> Self {
        use crate::cluster::{Mark, Seat, Tenure, Timing, Version};

        let pledge = Self::new(Member::new(None, 1, Timing::default()));
        let mark = Mark { process: 2, attempt: 0 };
        let (leader, standby) = (RunId(mark), Some(pledge.run()));
        let (lease, tenure) = (Timing::default().lease, Tenure::Held);
        let seat = Seat { term, leader, tenure, standby, lease, gap: Gap::default(), mark };
        let (version, asked) = (Version(1), BootClock.now());
        pledge.hear(&Event::Read { arbiter: Arbiter(1), version, seat: Some(seat), asked });
        pledge
    }

    /// Whether it is about to take the lead once the arbiter answers.
    #[cfg(test)]
    pub(crate) fn proposes(&self) -> bool {
        let asked = BootClock.now();
        let inner = self.lock();
        let (version, seat) = (inner.member.keeps().version, inner.member.seat());
        drop(inner);
        self.hear(&Event::Read { arbiter: Arbiter(1), version, seat, asked });
        self.lock().member.awaits().is_some()
    }

    /// The member hears something now. What is to be done about it is done by the thread of the election.
    pub(crate) fn hear(&self, event: &Event) {
        let mut inner = self.lock();
        let Inner { member, effects, .. } = &mut *inner;
        member.step(event, BootClock.now(), effects);
        if !effects.is_empty() {
            self.0.carrier.notify_one();
        }
    }

    /// Whether what a leader of `term` sends may be acknowledged, and taken for our table (rule P4).
    pub(crate) fn may_acknowledge(&self, term: u64) -> bool {
        self.lock().member.may_acknowledge(term)
    }

    /// Whether it counts on this standby, or may have to.
    pub(crate) fn counts_on(&self, run: RunId) -> bool {
        self.lock().member.counts_on(run)
    }

    /// The term that it leads, if it does.
    pub(crate) fn leads(&self) -> Option<u64> {
        self.lock().member.leads()
    }

    /// The life of its table.
    pub(crate) fn run(&self) -> RunId {
        self.lock().member.run()
    }

    /// Whether the seat names it as the one in sync, as far as it knows.
    pub(crate) fn is_in_sync(&self) -> bool {
        let inner = self.lock();
        inner.member.seat().is_some_and(|seat| seat.standby == Some(inner.member.run()))
    }

    /// What the arbiter has forgotten, for a leader that begins.
    pub(crate) fn gap(&self) -> Gap {
        self.lock().member.gap()
    }

    /// Who follows, as was reported last.
    pub(super) fn followers(&self) -> Vec<(RunId, u64)> {
        self.lock().followers.clone()
    }

    /// Whether the arbiter knows less than it does.
    pub(super) fn doubts_arbiter(&self) -> bool {
        self.lock().member.doubts_arbiter()
    }

    /// How many positions the standby in sync has yet to acknowledge; none: none is in sync.
    pub(crate) fn behind(&self) -> Option<u64> {
        let inner = self.lock();
        let run = inner.member.in_sync()?;
        inner.followers.iter().find(|(it, _)| *it == run).map(|(_, behind)| *behind)
    }

    /// The name of the standby in sync; empty: none is in sync, or its name is not known yet.
    pub(crate) fn standby(&self) -> String {
        let inner = self.lock();
        let named = inner.named.as_ref().filter(|(run, _)| inner.member.in_sync() == Some(*run));
        named.map(|(_, name)| name.clone()).unwrap_or_default()
    }

    /// Whether the name of this standby is known.
    pub(super) fn has_name_of(&self, run: RunId) -> bool {
        self.lock().named.as_ref().is_some_and(|(named, _)| *named == run)
    }

    /// This standby has this name.
    pub(super) fn name(&self, run: RunId, name: String) {
        self.lock().named = Some((run, name));
    }

    /// The same, for one term that it leads.
    pub(crate) fn tenure(&self, term: u64) -> Tenure {
        Tenure { pledge: self.clone(), term }
    }

    /// What has to be kept before anything is acknowledged; none if it leads: then there is more to keep first.
    pub(crate) fn keeps_beside(&self) -> Option<Kept> {
        let inner = self.lock();
        inner.member.leads().is_none().then(|| inner.member.keeps())
    }

    /// The arbiter that it believes; none: none has answered yet.
    pub(super) fn arbiter(&self) -> Option<Arbiter> {
        self.lock().member.arbiter()
    }

    /// What has to be kept before anything is acknowledged or said.
    pub(crate) fn keeps(&self) -> Kept {
        self.lock().member.keeps()
    }

    /// Waits until it may be able to say more than before. For one who waits.
    pub(crate) async fn changed(&self) {
        self.0.speaker.notified().await;
    }

    /// It may be able to say more than before.
    pub(super) fn published(&self) {
        self.0.speaker.notify_one();
    }

    /// Nobody follows any more.
    pub(crate) fn report_none(&self) {
        self.lock().followers = Vec::new();
    }

    /// Waits until there may be something to carry out.
    pub(super) async fn woken(&self) {
        self.0.carrier.notified().await;
    }

    /// The member hears something, if there is anything; what is to be done, and how it stands then.
    pub(super) fn turn(&self, event: Option<&Event>) -> View {
        let mut inner = self.lock();
        let Inner { member, effects, .. } = &mut *inner;
        if let Some(event) = event {
            member.step(event, BootClock.now(), effects);
        }
        let in_sync = member.in_sync();
        // In sync it is fenced by what is not acknowledged: it needs no lease.
        let lease = member.decides_until().unwrap_or_default();
        View {
            effects: mem::take(effects),
            decides_until: in_sync.map_or(lease, |_| FOR_EVER),
            keeps: member.keeps(),
            awaits: member.awaits(),
            leads: member.leads(),
            in_sync,
            is_doubted: member.doubts_arbiter(),
            arbiter: member.arbiter(),
            other_arbiter: member.other_arbiter(),
            is_behind: member.arbiter_is_behind().is_some(),
            is_stopping: member.is_stopping(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics while it is locked.
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A member that leads, as who decides in one term speaks to it. In a later term, which the same member may
/// lead with another table, nothing is said by this, and nothing is heard of it.
#[derive(Clone, Debug)]
pub(crate) struct Tenure {
    pledge: Pledge,
    term: u64,
}

impl Tenure {
    /// The member hears something now, if it is the term.
    pub(crate) fn hear(&self, event: &Event) {
        self.with(|inner| {
            let Inner { member, effects, .. } = inner;
            member.step(event, BootClock.now(), effects);
            if !effects.is_empty() {
                self.pledge.0.carrier.notify_one();
            }
        });
    }

    /// The position up to which everything may be said now; none if it does not lead.
    pub(crate) fn may_say(&self) -> Option<u64> {
        self.with(|inner| inner.member.may_say(BootClock.now())).flatten()
    }

    /// Whether it counts on this standby, or may have to.
    pub(crate) fn counts_on(&self, run: RunId) -> bool {
        self.with(|inner| inner.member.counts_on(run)).unwrap_or(false)
    }

    /// These follow, and have so many positions yet to acknowledge.
    pub(crate) fn report(&self, followers: Vec<(RunId, u64)>) {
        self.with(|inner| inner.followers = followers);
    }

    /// It may be able to say more than before.
    pub(crate) fn published(&self) {
        self.pledge.published();
    }

    fn with<T>(&self, what: impl FnOnce(&mut Inner) -> T) -> Option<T> {
        let mut inner = self.pledge.lock();
        (inner.member.leads() == Some(self.term)).then(|| what(&mut inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_who_decided_in_another_term_says_nothing_in_this_one() {
        let pledge = Pledge::of_leader();
        let (now, before) = (pledge.tenure(1), pledge.tenure(0));
        before.hear(&Event::Appended { position: 1 });
        assert_eq!((before.may_say(), now.may_say()), (None, Some(0)));
        now.hear(&Event::Appended { position: 1 });
        assert_eq!((before.may_say(), now.may_say()), (None, Some(1)));
        assert!(pledge.keeps_beside().is_none(), "what a leader keeps is for it to keep");
    }
}
