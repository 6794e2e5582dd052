//! The second lock of the gate, of one of several: what is written down waits until it may be said.
//!
//! One that is alone in the world has none, and nothing is asked of it.

#[cfg(feature = "cluster")]
pub(super) use several::Threshold;
#[cfg(not(feature = "cluster"))]
pub(super) use single::Threshold;

#[cfg(feature = "cluster")]
mod several {
    use crate::server::replica::Feed;

    /// Where standbys may have to have heard what is to be said.
    #[derive(Default)]
    pub(in crate::server) struct Threshold(Option<Box<Lock>>);

    struct Lock {
        /// What standbys are sent.
        feed: Feed,
        /// The position that has yet to be said, and whether it is written down here.
        awaited: Option<(u64, bool)>,
    }

    impl Threshold {
        /// One that these standbys stand at.
        pub(in crate::server) fn at(feed: Feed) -> Self {
            Self(Some(Box::new(Lock { feed, awaited: None })))
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
                lock.awaited = Some((lock.feed.seal(), is_written));
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
            if let Some((_, is_written)) = self.0.as_mut().and_then(|lock| lock.awaited.as_mut()) {
                *is_written = true;
            }
        }

        /// Whether something waits here.
        pub(in crate::server) fn is_closed(&self) -> bool {
            self.0.as_ref().is_some_and(|lock| lock.awaited.is_some())
        }

        /// Opens it, if what waits may be said.
        pub(in crate::server) fn opens(&mut self) -> bool {
            let Some(lock) = &mut self.0 else { return false };
            let opens = |&mut (position, is_written): &mut (u64, bool)| {
                is_written && lock.feed.may_say(position)
            };
            lock.awaited.take_if(opens).is_some()
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
            assert!(threshold.opens() && !threshold.is_closed(), "it is alone");
            threshold.close(false);
            assert!(!threshold.opens());
            threshold.written();
            assert!(threshold.opens());
            let following = feed.begin(RunId(Mark { process: 5, attempt: 0 }));
            following.acknowledged(feed.seal()).unwrap();
            pledge.hear(&Event::Swapped { version: Version(2) });
            threshold.close(true);
            assert!(!threshold.opens() && threshold.is_closed());
            following.acknowledged(5).unwrap_or_else(|_| following.acknowledged(4).unwrap());
            assert!(threshold.opens() && !threshold.is_closed());
            threshold.close(false);
            following.acknowledged(5).unwrap();
            assert!(!threshold.opens(), "it is not written down here");
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

        pub(in crate::server) const fn opens(&mut self) -> bool {
            false
        }
    }
}
