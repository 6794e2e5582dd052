//! The second lock of the gate, of one of several: what is written down waits until it may be said.
//!
//! One that is alone in the world has none, and nothing is asked of it.

#[cfg(feature = "cluster")]
pub(super) use several::Threshold;
#[cfg(not(feature = "cluster"))]
pub(super) use single::Threshold;

#[cfg(feature = "cluster")]
mod several {
    use std::collections::VecDeque;

    use crate::server::replica::Feed;

    /// Where standbys may have to have heard what is to be said.
    #[derive(Default)]
    pub(in crate::server) struct Threshold(Option<Box<Lock>>);

    struct Lock {
        /// What standbys are sent.
        feed: Feed,
        /// The positions that have yet to be said, and whether each is written down here.
        awaited: VecDeque<(u64, bool)>,
    }

    /// So many positions wait to be said at a time. What comes meanwhile waits for one of them, and goes together: with one,
    /// it would wait for two ways to the standby and back, and with many, few go together.
    const AWAITED_MAX: usize = 2;

    impl Threshold {
        /// One that these standbys stand at.
        pub(in crate::server) fn at(feed: Feed) -> Self {
            Self(Some(Box::new(Lock { feed, awaited: VecDeque::new() })))
        }

        /// What standbys are sent.
        pub(in crate::server) fn feed(&self) -> Option<&Feed> {
            self.0.as_ref().map(|lock| &lock.feed)
        }

        /// Whether there is one.
        pub(in crate::server) fn is_there(&self) -> bool {
            self.0.is_some()
        }

        /// Standbys are to have this, too.
        pub(in crate::server) fn append(&self, record: &[u8]) {
            if let Some(lock) = &self.0 {
                lock.feed.append(record);
            }
        }

        /// What is to be said has this in front of it; `is_written`: and nothing else.
        pub(in crate::server) fn close(&mut self, is_written: bool) {
            if let Some(lock) = &mut self.0 {
                lock.awaited.push_back((lock.feed.seal(), is_written));
            }
        }

        /// Nothing is written down any more. What follows is not what standbys have.
        pub(in crate::server) fn give_up(&self) {
            if let Some(lock) = &self.0 {
                lock.feed.give_up();
            }
        }

        /// It is written down.
        pub(in crate::server) fn written(&mut self) {
            // One is written down at a time.
            if let Some((_, is_written)) = self.0.as_mut().and_then(|lock| lock.awaited.back_mut())
            {
                *is_written = true;
            }
        }

        /// Whether something waits here.
        pub(in crate::server) fn is_closed(&self) -> bool {
            self.0.as_ref().is_some_and(|lock| !lock.awaited.is_empty())
        }

        /// Whether nothing more may wait here.
        pub(in crate::server) fn is_full(&self) -> bool {
            self.0.as_ref().is_some_and(|lock| lock.awaited.len() >= AWAITED_MAX)
        }

        /// Opens it for what may be said by now; how many of those that wait, from the first on.
        pub(in crate::server) fn opens(&mut self) -> usize {
            let Some(Lock { feed, awaited }) = self.0.as_deref_mut() else { return 0 };
            let opens =
                |&&(position, is_written): &&(u64, bool)| is_written && feed.may_say(position);
            let count = awaited.iter().take_while(opens).count();
            awaited.drain(..count);
            count
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::cluster::{Event, Mark, RunId, Version};
        use crate::election::Pledge;

        #[test]
        fn p1_it_opens_when_all_is_written_down_here_and_the_standby_in_sync_has_it() {
            let pledge = Pledge::of_leader();
            let feed = Feed::new(pledge.tenure(1));
            let mut threshold = Threshold::at(feed.clone());
            threshold.close(true);
            assert!(threshold.opens() == 1 && !threshold.is_closed(), "it is alone");
            threshold.close(false);
            assert_eq!(threshold.opens(), 0);
            threshold.written();
            assert_eq!(threshold.opens(), 1);
            let following = feed.begin(RunId(Mark { process: 5, attempt: 0 }));
            following.acknowledged(feed.seal()).unwrap();
            pledge.hear(&Event::Swapped { version: Version(2) });
            threshold.close(true);
            threshold.close(true);
            assert!(threshold.opens() == 0 && threshold.is_full());
            following.acknowledged(4).unwrap();
            assert!(threshold.opens() == 1 && threshold.is_closed() && !threshold.is_full());
            threshold.close(false);
            following.acknowledged(6).unwrap();
            assert_eq!(threshold.opens(), 1, "the other is not written down here");
            threshold.written();
            assert!(threshold.opens() == 1 && !threshold.is_closed());
        }
    }
}

#[cfg(not(feature = "cluster"))]
mod single {
    /// There is none.
    #[derive(Default)]
    pub(in crate::server) struct Threshold(());

    #[expect(clippy::unused_self, reason = "there is something to ask where there are several")]
    impl Threshold {
        pub(in crate::server) const fn is_there(&self) -> bool {
            false
        }

        pub(in crate::server) const fn append(&self, _: &[u8]) {}

        pub(in crate::server) const fn close(&mut self, _: bool) {}

        pub(in crate::server) const fn give_up(&self) {}

        pub(in crate::server) const fn written(&mut self) {}

        pub(in crate::server) const fn is_closed(&self) -> bool {
            false
        }

        pub(in crate::server) const fn is_full(&self) -> bool {
            false
        }

        pub(in crate::server) const fn opens(&mut self) -> usize {
            0
        }
    }
}
