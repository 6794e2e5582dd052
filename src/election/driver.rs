//! What carries the effects of a [`Member`] to etcd, and the answers back.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use log::{error, info, warn};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::pledge::{Pledge, View};
use super::record::{Author, decode, encode};
use super::{Leader, Standing};
use crate::clock::{BootClock, Clock, Until};
use crate::cluster::{Arbiter, Effect, Event, Kept, Mark, RunId, Seat, Tenure, Timing, Version};
use crate::etcd::{Etcd, EtcdError, Found, Reading, Swap};
use crate::types::Timestamp;

/// A pause after a call that nobody answered.
const PAUSE: Duration = Duration::from_millis(50);
/// The same after one that was refused: somebody has to do something first.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(1);
/// The version of the seat that was seen is kept again so often at most.
const KEPT_EVERY: Duration = Duration::from_secs(5);
/// How long whoever leads with a standby in sync does so for others that cannot look: nobody but that standby follows
/// it, and it says so.
const IN_SYNC: Duration = Duration::from_secs(3_600);

/// What to do about an etcd that is not believed.
const DOUBTED: &str = "This member does not take the lead. Start the etcd that knows more; if there is none, say \
     coordinator takeover --after-loss --term TERM, with the term that coordinator members shows. If that shows none, \
     stop all members, wait for the longest lease of a session, remove the directory of the cluster below each data \
     directory, and start them";

/// What the owner of an election says to it.
#[derive(Debug)]
pub(super) enum Order {
    /// Something for the member.
    Hear(Event),
    /// Ask the arbiter now, and say when it has answered: somebody knows better than the last answer.
    Look(oneshot::Sender<()>),
    /// End at once.
    End,
}

/// How an election has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It takes part no more, and somebody has to say so.
    InOrder,
    /// As a process does that is killed.
    AtOnce,
}

/// Those who wait for an answer to a read. Each is answered by one that began after it asked: what an earlier one shows
/// may be older than that.
#[derive(Default)]
pub(super) struct Askers {
    /// For the read under way.
    of_this: Vec<oneshot::Sender<()>>,
    /// For the one behind it.
    of_next: Vec<oneshot::Sender<()>>,
}

impl Askers {
    /// Somebody asks, while a read is under way, or before one begins.
    fn ask(&mut self, asker: oneshot::Sender<()>, is_reading: bool) {
        if is_reading { &mut self.of_next } else { &mut self.of_this }.push(asker);
    }

    /// The read under way was answered; whether another is to begin.
    fn answer(&mut self) -> bool {
        for asker in mem::replace(&mut self.of_this, mem::take(&mut self.of_next)) {
            // Whoever asked may have gone on.
            let _ = asker.send(());
        }
        !self.of_this.is_empty()
    }
}

/// An answer of etcd.
enum Answer {
    /// To a swap.
    Swap(Swap),
    /// To a read, and when it was asked.
    Reading(Reading, Timestamp),
    /// By another etcd than the one that is believed, which was not asked to swap.
    Elsewhere,
}

/// A call under way.
type Call = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A swap under way.
struct Swapping {
    /// What it compares.
    expected: Version,
    /// What it puts.
    seat: Seat,
    /// The call that carries it out.
    call: Call,
}

/// An election under way.
pub(super) struct Driver {
    /// Who decides what is to be done.
    pub(super) pledge: Pledge,
    /// The arbiter.
    pub(super) etcd: Arc<Etcd>,
    /// The key of the seat.
    pub(super) key: Arc<str>,
    /// Who writes the seat here.
    pub(super) author: Author,
    /// Until when whoever decides is not doubted.
    pub(super) vital: Until,
    /// How long things take.
    pub(super) timing: Timing,
    /// Who leads, as the seat said last.
    pub(super) seen: Option<Leader>,
    /// How this one stands, for its owner.
    pub(super) standing: watch::Sender<Standing>,
    /// What the next process is to know.
    pub(super) keeps: watch::Sender<Kept>,
    /// When that was said last.
    pub(super) kept: Instant,
    /// Which standby is in sync with it.
    pub(super) in_sync: watch::Sender<Option<RunId>>,
    /// Until when a leader may decide.
    pub(super) until: Until,
    /// Until when the leader that was seen is not doubted.
    pub(super) sure: Until,
    /// How often a leader that is alone was seen to have renewed its lease.
    pub(super) beats: Arc<AtomicU64>,
    /// Until when the arbiter is not doubted: it has answered not long ago.
    pub(super) heard: Until,
    /// The version of the seat that was seen last.
    pub(super) version: Version,
    /// Whether the arbiter was said to know less than this member.
    pub(super) is_doubted: bool,
    /// The arbiter that was said to answer instead of the one that is believed.
    pub(super) other: Option<Arbiter>,
    /// The swap that said last that the arbiter was set back.
    pub(super) set_back: Mark,
    /// Those who wait for an answer to a read.
    pub(super) askers: Askers,
    /// What the owner says.
    pub(super) orders: mpsc::Receiver<Order>,
}

impl Driver {
    /// Goes on until the owner ends it, or it has resigned.
    pub(super) async fn run(mut self) -> Ending {
        let mut ticks = interval(self.timing.beat() / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut swap, mut read): (Option<Swapping>, Option<Call>) = (None, None);
        loop {
            let (mut answered, mut was_read) = (false, false);
            let event = tokio::select! {
                order = self.orders.recv() => match order {
                    Some(Order::Hear(event)) => Some(event),
                    Some(Order::Look(asker)) => {
                        self.askers.ask(asker, read.is_some());
                        read.get_or_insert_with(|| self.read());
                        None
                    }
                    Some(Order::End) | None => return Ending::AtOnce,
                },
                answer = answer_of(swap.as_mut().map(|swap| &mut swap.call)) => {
                    answered = !matches!(answer, Answer::Elsewhere);
                    let event = self.swapped(answer);
                    if let Some(swap) = swap.as_mut() && event.is_none() {
                        let pause = if answered { PAUSE_AFTER_REFUSAL } else { PAUSE };
                        swap.call = self.swap(swap.expected, &swap.seat, pause);
                        // Who answers there, and what it has, is for the member to judge.
                        read.get_or_insert_with(|| self.read());
                    } else {
                        swap = None;
                    }
                    event
                }
                answer = answer_of(read.as_mut()) => {
                    read = None;
                    (answered, was_read) = (true, true);
                    self.was_read(answer)
                }
                // Who decides has caused something.
                () = self.pledge.woken() => None,
                // A member is told that time has passed if whoever decides has noticed it, too.
                _ = ticks.tick() => self.vital.is_ahead().then_some(Event::Tick),
            };
            let view = self.pledge.turn(event.as_ref());
            self.show(&view, answered);
            let View { effects, keeps, awaits, leads, is_behind, is_stopping, .. } = view;
            self.keep(keeps);
            for effect in effects {
                match effect {
                    Effect::Swap { expected, seat } => {
                        let call = self.swap(expected, &seat, Duration::ZERO);
                        swap = Some(Swapping { expected, seat, call });
                    }
                    Effect::Read if read.is_none() => read = Some(self.read()),
                    effect => self.tell(&effect),
                }
            }
            // A read may have told what became of it.
            swap = swap.filter(|swap| awaits == Some(swap.seat.mark.attempt));
            self.publish(leads.is_some(), is_behind);
            self.pledge.published();
            if was_read && self.askers.answer() {
                read.get_or_insert_with(|| self.read());
            }
            if is_stopping && leads.is_none() && swap.is_none() {
                return Ending::InOrder;
            }
        }
    }

    /// Shows what a step has changed, before anybody hears how it stands, and before anything is sent that ends it.
    fn show(&mut self, view: &View, answered: bool) {
        if let Some(arbiter) = view.arbiter {
            self.etcd.believed().move_to(arbiter.0);
        }
        self.doubt(view.is_doubted, view.other_arbiter);
        if answered && !self.is_doubted {
            self.heard.move_to(BootClock.now().after(self.timing.lease));
        }
        match view.leads {
            Some(term) => self.until.move_for(term, view.decides_until),
            None => self.until.move_to(view.decides_until),
        }
        self.in_sync.send_if_modified(|now| mem::replace(now, view.in_sync) != view.in_sync);
    }

    /// Says what the next process is to know: at once, or, of the version alone, now and then.
    fn keep(&mut self, keeps: Kept) {
        let is_due = self.kept.elapsed() >= KEPT_EVERY;
        let is_news = self.keeps.send_if_modified(|kept| {
            let is_other =
                (kept.run, kept.term, kept.arbiter) != (keeps.run, keeps.term, keeps.arbiter);
            let is_news = is_other || is_due && *kept != keeps;
            if is_news {
                *kept = keeps;
            }
            is_news
        });
        if is_news {
            self.kept = Instant::now();
        }
    }

    /// A swap, again and again until there is an answer.
    fn swap(&self, expected: Version, seat: &Seat, delay: Duration) -> Call {
        let (etcd, key) = (Arc::clone(&self.etcd), Arc::clone(&self.key));
        let value = encode(seat, &self.author);
        Box::pin(async move {
            sleep(delay).await;
            loop {
                match etcd.swap(&key, expected.0, value.clone()).await {
                    Ok(swap) => return Answer::Swap(swap),
                    Err(EtcdError::Other { .. }) => return Answer::Elsewhere,
                    Err(error) => pause_after(&error, "written").await,
                }
            }
        })
    }

    /// A read, again and again until there is an answer, whoever gives it.
    fn read(&self) -> Call {
        let (etcd, key) = (Arc::clone(&self.etcd), Arc::clone(&self.key));
        Box::pin(async move {
            loop {
                let asked = BootClock.now();
                match etcd.read_anybodys(&key).await {
                    Ok(reading) => return Answer::Reading(reading, asked),
                    Err(error) => pause_after(&error, "read").await,
                }
            }
        })
    }

    fn swapped(&mut self, answer: Answer) -> Option<Event> {
        match answer {
            Answer::Swap(Swap::Done { revision, .. }) => {
                Some(Event::Swapped { version: Version(revision) })
            }
            Answer::Swap(Swap::Refused(reading)) => {
                let (version, seat) = self.understood(reading)?;
                Some(Event::Refused { version, seat })
            }
            Answer::Reading(..) | Answer::Elsewhere => None,
        }
    }

    fn was_read(&mut self, answer: Answer) -> Option<Event> {
        let Answer::Reading(reading, asked) = answer else { return None };
        let arbiter = Arbiter(reading.cluster);
        let (version, seat) = self.understood(reading)?;
        Some(Event::Read { arbiter, version, seat, asked })
    }

    /// The seat that a reading shows; none if it is none.
    fn understood(&mut self, reading: Reading) -> Option<(Version, Option<Seat>)> {
        let Some(Found { revision, value }) = reading.found else {
            return Some((Version(0), None));
        };
        let Some((seat, author)) = decode(&value) else {
            let key = &self.key;
            error!(
                "cluster: what {key} holds was written by no coordinator of this version; \
                 use another name for the cluster, or upgrade"
            );
            return None;
        };
        let is_anothers = self.etcd.believed().cluster().is_some_and(|it| it != reading.cluster);
        if is_anothers && seat.gap.instead_of.map(|it| it.0) != self.etcd.believed().cluster() {
            // Whoever leads by what another etcd says is nobody to send clients to.
            return Some((Version(revision), Some(seat)));
        }
        let Author { name, address, peer } = author;
        let leads = seat.tenure == Tenure::Held;
        if self.version != Version(revision) && seat.standby.is_none() {
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
        if self.version != Version(revision) || seat.standby.is_some() {
            self.version = Version(revision);
            // In sync nobody renews it, and whoever follows notices when the leader is silent. Else beats come every
            // fifth, and are looked for as often.
            let lasts = if seat.standby.is_some() { IN_SYNC } else { seat.lease / 5 * 3 };
            self.sure.move_to(BootClock.now().after(lasts));
        }
        if seat.tenure == Tenure::SetBack {
            self.tell_of_set_back(&seat);
        }
        self.seen = leads.then_some(Leader { term: seat.term, name, address, peer });
        Some((Version(revision), Some(seat)))
    }

    /// Says it once for each seat that says so.
    fn tell_of_set_back(&mut self, seat: &Seat) {
        if mem::replace(&mut self.set_back, seat.mark) == seat.mark {
            return;
        }
        error!(
            term = seat.term, later = seat.gap.epoch.number();
            "cluster: a client has proved that another coordinator has led than etcd knows of: etcd was restored from a \
             backup, or lost what it had. Nobody takes the lead. Start the etcd that knows more; if there is none, say \
             coordinator takeover --after-loss --term {}", seat.term
        );
    }

    /// Tells people and the owner what has changed.
    fn tell(&self, effect: &Effect) {
        match *effect {
            Effect::Lead { term, table } => {
                info!(term, table:?; "cluster: this coordinator leads");
                self.standing.send_replace(Standing::Leads { term, table });
            }
            Effect::Deposed { .. } => info!("cluster: this coordinator leads no more"),
            Effect::Joined { .. } => info!("cluster: a standby is in sync"),
            Effect::Removed { .. } => {
                warn!(
                    "cluster: the standby is not in sync any more; it follows from the beginning"
                );
            }
            Effect::Swap { .. } | Effect::Read => {}
        }
    }

    /// Says it once if the arbiter knows less than this member, or is another: nobody here takes the lead as long as
    /// that is so.
    fn doubt(&mut self, is_doubted: bool, other: Option<Arbiter>) {
        let before = mem::replace(&mut self.is_doubted, is_doubted);
        if mem::replace(&mut self.other, other) == other && before == is_doubted {
            return;
        }
        let known = self.etcd.believed().cluster().unwrap_or_default();
        match other {
            Some(Arbiter(other)) => error!(
                "cluster: another etcd answers than before (its cluster id is {other:x}, and was {known:x}): is one of \
                 --etcd another, or was it set up anew, or restored from a backup? {DOUBTED}"
            ),
            None if is_doubted => error!(
                "cluster: etcd knows less of this cluster than this member has heard: was its data deleted, or \
                 restored from a backup? {DOUBTED}"
            ),
            None => info!("cluster: etcd knows what this member has heard"),
        }
    }

    /// How things stand, where others see it.
    fn publish(&self, leads: bool, is_behind: bool) {
        if !leads {
            // Who led in the past leads no more, and may be this one.
            let leader = self.seen.clone().filter(|_| !is_behind);
            let standing = Standing::StandsBy { leader };
            self.standing.send_if_modified(|now| {
                let is_news = *now != standing;
                if is_news {
                    *now = standing;
                }
                is_news
            });
        }
    }
}

/// Says why a call came to nothing, and waits before the next one.
async fn pause_after(error: &EtcdError, what: &str) {
    match error {
        EtcdError::Unavailable(_) => {
            warn!("cluster: the seat could not be {what}: {error}");
            sleep(PAUSE).await;
        }
        error => {
            error!("cluster: the seat could not be {what}: {error}");
            sleep(PAUSE_AFTER_REFUSAL).await;
        }
    }
}

/// What a call comes to; waits for ever if there is none.
async fn answer_of(call: Option<&mut Call>) -> Answer {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_while_a_read_is_under_way_is_answered_by_the_next_one() {
        let mut askers = Askers::default();
        let [(first, mut one), (second, mut other)] = [oneshot::channel(), oneshot::channel()];
        askers.ask(first, false);
        askers.ask(second, true);
        assert!(askers.answer(), "another read is to begin");
        assert_eq!(one.try_recv(), Ok(()));
        assert!(other.try_recv().is_err(), "that read may have been answered before it asked");
        assert!(!askers.answer());
        assert_eq!(other.try_recv(), Ok(()));
    }
}
