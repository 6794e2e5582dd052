//! What standbys that follow are sent, and up to where a leader may say things (rules P1 to P3, P7).
//!
//! The gate appends each record, and *seals* what it is about to let out: a position, which the member is told
//! of. It lets out what belongs to a position when the member says so. A standby acknowledges positions. Those
//! without a record count as well, because what somebody was only told is told after an acknowledgement, too.
//!
//! Never here: a rule about who is in sync, a socket, a wait.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

use super::frame::{Digest, PART_BYTES, ToStandby, put_record};
use crate::cluster::{Event, RunId};
use crate::election::Tenure;

/// A standby that has so many bytes yet to be sent does not keep up.
const UNSENT_BYTES_MAX: usize = 64 << 20;
/// A standby that has acknowledged all but so many positions has nearly everything.
const NEAR: u64 = 256;

/// A standby that has yet to compare so many tables does not compare them.
const CHECKS_MAX: usize = 16;

/// Why a standby is not sent anything more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum Gone {
    /// It takes what it is sent too slowly, or acknowledges too late.
    #[error("it does not keep up")]
    Slow,
    /// It says what cannot be.
    #[error("it acknowledges what it was never sent")]
    Lies,
    /// Its table is another.
    #[error("its table differs from the leader's")]
    Differs,
}

/// The stream of one leadership.
#[derive(Clone)]
pub(in crate::server) struct Feed(Arc<Mutex<Inner>>);

struct Inner {
    /// Who says what may be said.
    pledge: Tenure,
    /// The last position that was sealed.
    position: u64,
    /// Records that belong to the next one, in parts.
    pending: Vec<BytesMut>,
    /// Who follows.
    followers: Vec<Follower>,
    /// Of followers.
    next_id: u64,
}

/// A standby that follows.
struct Follower {
    id: u64,
    run: RunId,
    /// What it is to be sent.
    queue: VecDeque<ToStandby>,
    /// How much that is, with what is on its way.
    unsent: usize,
    /// How much of it is on its way.
    taken: usize,
    /// The last position that it has acknowledged.
    acknowledged: u64,
    /// The tables that it has yet to compare.
    checks: VecDeque<(u64, Digest)>,
    /// Whether it was counted on.
    was_counted_on: bool,
    /// Wakes who sends it.
    wake: Arc<Notify>,
}

impl Follower {
    fn send(&mut self, message: ToStandby, bytes: usize) {
        self.unsent += bytes;
        self.queue.push_back(message);
        self.wake.notify_one();
    }
}

impl Feed {
    pub(in crate::server) fn new(pledge: Tenure) -> Self {
        let (pending, followers) = (Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(Inner { pledge, position: 0, pending, followers, next_id: 0 })))
    }

    /// Puts a record at the end of what the next position has.
    pub(in crate::server) fn append(&self, record: &[u8]) {
        let Inner { followers, pending, .. } = &mut *self.lock();
        if followers.is_empty() {
            return;
        }
        match pending.last_mut() {
            Some(part) if part.len() < PART_BYTES => put_record(record, part),
            Some(_) | None => {
                let mut part = BytesMut::new();
                put_record(record, &mut part);
                pending.push(part);
            }
        }
    }

    /// All that was appended has a position, and is on its way.
    pub(in crate::server) fn seal(&self) -> u64 {
        let mut inner = self.lock();
        let Inner { pledge, position, pending, followers, .. } = &mut *inner;
        *position += 1;
        let mut parts: Vec<Bytes> = pending.drain(..).map(BytesMut::freeze).collect();
        let last = parts.pop().unwrap_or_default();
        for follower in followers.iter_mut() {
            for part in &parts {
                follower.send(ToStandby::More(part.clone()), part.len());
            }
            let records = ToStandby::Records { position: *position, records: last.clone() };
            follower.send(records, last.len() + mem::size_of::<ToStandby>());
        }
        let position = *position;
        pledge.hear(&Event::Appended { position });
        drop(inner);
        self.dismiss(|follower| follower.unsent > UNSENT_BYTES_MAX);
        position
    }

    /// Whether all up to a position may be said.
    pub(in crate::server) fn may_say(&self, position: u64) -> bool {
        self.lock().pledge.may_say().is_some_and(|said| said >= position)
    }

    /// Whether the leader counts on this one, or may have to.
    pub(in crate::server) fn counts_on(&self, run: RunId) -> bool {
        self.lock().pledge.counts_on(run)
    }

    /// Whether anybody follows.
    pub(in crate::server) fn is_followed(&self) -> bool {
        !self.lock().followers.is_empty()
    }

    /// What standbys said until now is heard. It was so long ago that it was before.
    pub(in crate::server) fn look(&self, pause: Duration) {
        self.lock().pledge.hear(&Event::Looked { pause });
    }

    /// Says who follows, and how far behind each is.
    pub(in crate::server) fn report(&self) {
        let inner = self.lock();
        let behind = |it: &Follower| inner.position.saturating_sub(it.acknowledged);
        let followers = inner.followers.iter().map(|it| (it.run, behind(it)));
        inner.pledge.report(followers.collect());
    }

    /// What is decided is not written down any more: so nobody can follow.
    pub(in crate::server) fn give_up(&self) {
        self.dismiss(|_| true);
    }

    /// The table is like this at the last position.
    pub(in crate::server) fn check(&self, digest: Digest) {
        let mut inner = self.lock();
        let Inner { position, followers, .. } = &mut *inner;
        // Who has yet to acknowledge its checkpoint has nothing to compare.
        for follower in followers.iter_mut().filter(|it| it.acknowledged > 0) {
            follower.checks.push_back((*position, digest));
            follower.send(ToStandby::Check { position: *position, digest }, 0);
        }
        drop(inner);
        self.dismiss(|follower| follower.checks.len() > CHECKS_MAX);
    }

    /// Somebody follows from the last position on: it has, or will be sent, a checkpoint of that.
    pub(in crate::server) fn begin(&self, run: RunId) -> Following {
        self.dismiss(|follower| follower.run == run);
        let inner = &mut *self.lock();
        let (id, wake) = (inner.next_id, Arc::new(Notify::new()));
        inner.next_id += 1;
        inner.followers.push(Follower {
            id,
            run,
            queue: VecDeque::new(),
            unsent: 0,
            taken: 0,
            acknowledged: 0,
            checks: VecDeque::new(),
            was_counted_on: false,
            wake: Arc::clone(&wake),
        });
        Following { feed: self.clone(), id, wake, position: inner.position }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nobody panics while it is locked, and all who lock it are on one thread.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends nothing more to these.
    fn dismiss(&self, is_one: impl Fn(&Follower) -> bool) {
        let Inner { pledge, followers, pending, .. } = &mut *self.lock();
        followers.retain(|follower| {
            let goes = is_one(follower);
            if goes {
                follower.wake.notify_one();
                pledge.hear(&Event::Unfollowed { run: follower.run });
            }
            !goes
        });
        if followers.is_empty() {
            pending.clear();
        }
    }
}

/// The place of one standby in the stream. Dropped, it follows no more.
pub(in crate::server) struct Following {
    feed: Feed,
    id: u64,
    wake: Arc<Notify>,
    /// Where it begins.
    pub(in crate::server) position: u64,
}

impl Following {
    /// Waits until there is something to send, or nothing more is.
    pub(in crate::server) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What is to be sent now.
    pub(in crate::server) fn take(&self) -> Result<VecDeque<ToStandby>, Gone> {
        self.with(|follower, _| {
            follower.taken = follower.unsent;
            Ok(mem::take(&mut follower.queue))
        })
    }

    /// All that was taken is sent.
    pub(in crate::server) fn sent(&self) {
        // One that is sent nothing more has nothing to count.
        let _ = self.with(|follower, _| {
            follower.unsent -= mem::take(&mut follower.taken);
            Ok(())
        });
    }

    /// Looks whether it was taken out, for it did not keep up. Then it follows from the beginning.
    pub(in crate::server) fn look(&self) -> Result<(), Gone> {
        self.with(|follower, inner| {
            let is_counted_on = inner.pledge.counts_on(follower.run);
            if mem::replace(&mut follower.was_counted_on, is_counted_on) && !is_counted_on {
                return Err(Gone::Slow);
            }
            Ok(())
        })
    }

    /// It has kept all up to a position.
    pub(in crate::server) fn acknowledged(&self, position: u64) -> Result<(), Gone> {
        self.with(|follower, inner| {
            if position > inner.position {
                return Err(Gone::Lies);
            }
            let run = follower.run;
            follower.acknowledged = position;
            if !inner.pledge.counts_on(run) && inner.position - position <= NEAR {
                inner.pledge.hear(&Event::CaughtUp { run });
            }
            inner.pledge.hear(&Event::Acknowledged { run, position });
            if inner.pledge.counts_on(run) {
                inner.pledge.published();
            }
            Ok(())
        })?;
        self.look()
    }

    /// What its table is like.
    pub(in crate::server) fn checked(&self, position: u64, digest: Digest) -> Result<(), Gone> {
        self.with(|follower, _| match follower.checks.pop_front() {
            Some(expected) if expected == (position, digest) => Ok(()),
            Some(_) => Err(Gone::Differs),
            None => Err(Gone::Lies),
        })
    }

    fn with<T>(
        &self,
        what: impl FnOnce(&mut Follower, &mut Shown<'_>) -> Result<T, Gone>,
    ) -> Result<T, Gone> {
        let Inner { pledge, position, followers, .. } = &mut *self.feed.lock();
        let follower = followers.iter_mut().find(|it| it.id == self.id).ok_or(Gone::Slow)?;
        what(follower, &mut Shown { pledge, position: *position })
    }
}

/// What is shown of a feed beside one who follows.
struct Shown<'a> {
    pledge: &'a Tenure,
    position: u64,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.feed.dismiss(|follower| follower.id == self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Mark, RunId, Version};
    use crate::election::Pledge;

    /// A leader that is alone, and its stream.
    fn leader() -> (Pledge, Feed) {
        let pledge = Pledge::of_leader();
        (pledge.clone(), Feed::new(pledge.tenure(1)))
    }

    fn run(process: u128) -> RunId {
        RunId(Mark { process, attempt: 0 })
    }

    /// What it is sent, but for what says nothing.
    fn sent(following: &Following) -> Vec<ToStandby> {
        following.take().unwrap().into()
    }

    /// Has it in sync: the arbiter does what it is asked.
    fn joins(pledge: &Pledge, feed: &Feed, following: &Following) {
        following.acknowledged(feed.seal()).unwrap();
        pledge.hear(&Event::Swapped { version: Version(2) });
        assert!(pledge.counts_on(run(5)));
        following.acknowledged(feed.seal()).unwrap();
        let _ = following.take();
    }

    #[test]
    fn p1_what_has_a_position_is_said_at_once_alone_and_in_sync_once_the_standby_has_it() {
        let (pledge, feed) = leader();
        assert!(feed.may_say(feed.seal()));
        let following = feed.begin(run(5));
        assert!(feed.may_say(feed.seal()), "it follows, and nobody counts on it yet");
        joins(&pledge, &feed, &following);
        feed.append(b"grant");
        let position = feed.seal();
        assert!(!feed.may_say(position));
        following.acknowledged(position - 1).unwrap();
        assert!(!feed.may_say(position));
        following.acknowledged(position).unwrap();
        assert!(feed.may_say(position));
    }

    #[test]
    fn a_standby_is_sent_all_that_comes_after_its_checkpoint_and_nothing_before() {
        let (_, feed) = leader();
        let first = feed.begin(run(5));
        feed.append(b"one");
        feed.seal();
        let second = feed.begin(run(6));
        assert_eq!(second.position, 1);
        feed.append(b"two");
        feed.append(b"three");
        feed.seal();
        let mut records = [BytesMut::new(), BytesMut::new()];
        put_record(b"one", &mut records[0]);
        put_record(b"two", &mut records[1]);
        put_record(b"three", &mut records[1]);
        let [one, rest] = records.map(BytesMut::freeze);
        let rest = ToStandby::Records { position: 2, records: rest };
        let one = ToStandby::Records { position: 1, records: one };
        assert_eq!(sent(&first), [one, rest.clone()]);
        assert_eq!(sent(&second), [rest]);
    }

    #[test]
    fn a_standby_that_has_what_it_was_never_sent_or_another_table_is_sent_away() {
        let (_, feed) = leader();
        let following = feed.begin(run(5));
        let position = feed.seal();
        assert_eq!(following.acknowledged(position + 1), Err(Gone::Lies));
        assert_eq!(following.checked(position, [0; 16]), Err(Gone::Lies), "nobody has asked");
        feed.check([1; 16]);
        assert_eq!(following.checked(position, [1; 16]), Err(Gone::Lies), "it has nothing yet");
        following.acknowledged(position).unwrap();
        feed.check([1; 16]);
        assert_eq!(following.checked(position, [2; 16]), Err(Gone::Differs));
        feed.check([1; 16]);
        assert_eq!(following.checked(position, [1; 16]), Ok(()));
    }

    #[test]
    fn b2_a_standby_that_takes_nothing_is_sent_away_before_it_costs_more_than_a_bound() {
        let (_, feed) = leader();
        let following = feed.begin(run(5));
        let record = vec![0; PART_BYTES];
        let fill = || {
            for _ in 0..UNSENT_BYTES_MAX / PART_BYTES - 1 {
                feed.append(&record);
                feed.seal();
            }
        };
        fill();
        let _ = following.take().unwrap();
        following.sent();
        fill();
        // On its way is not sent.
        let _ = following.take().unwrap();
        assert!(feed.is_followed());
        fill();
        assert_eq!(following.take().map(drop), Err(Gone::Slow));
        assert!(!feed.is_followed());
        assert!(feed.lock().pending.is_empty());
    }

    #[test]
    fn b2_a_standby_that_compares_no_tables_is_sent_away() {
        let (_, feed) = leader();
        let following = feed.begin(run(5));
        following.acknowledged(feed.seal()).unwrap();
        for _ in 0..CHECKS_MAX {
            feed.check([1; 16]);
        }
        assert!(feed.is_followed());
        feed.check([1; 16]);
        assert!(!feed.is_followed());
    }

    #[test]
    fn p7_a_standby_that_was_taken_out_or_whose_connection_ended_follows_from_the_beginning() {
        let (pledge, feed) = leader();
        let following = feed.begin(run(5));
        joins(&pledge, &feed, &following);
        drop(following);
        // It may be in the seat until that is changed for certain.
        assert!(pledge.counts_on(run(5)) && !feed.may_say(feed.seal()));
        pledge.hear(&Event::Swapped { version: Version(3) });
        assert!(!pledge.counts_on(run(5)) && feed.may_say(feed.seal()));
        let following = feed.begin(run(5));
        following.acknowledged(feed.seal()).unwrap();
        pledge.hear(&Event::Swapped { version: Version(4) });
        assert_eq!(following.look(), Ok(()));
        feed.give_up();
        assert_eq!(
            following.look(),
            Err(Gone::Slow),
            "a journal that is off is followed by nobody"
        );
    }
}
