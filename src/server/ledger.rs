//! The ledger: unread bytes for peers, and unheard bytes from peers, counted and bounded over all
//! connections together (backpressure).
//!
//! Each connection has an [`Account`]. The Coordinator enters its deliveries, and the session
//! corrects the entry to the unwritten bytes. So the count covers everything rendered, on its way
//! to a session, or in its outbox. When the sum exceeds the bound, the accounts with most are
//! closed, one after the other, until a quarter of the bound is free again. An account with less
//! than an even share of the rest is never among them: the sum of even shares is below the bound.
//!
//! Nothing is lost from the books, however a session ends: dropping its account gives the rest
//! back. Sessions may live on threads of their own. Frequent operations take no mutex.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use futures_util::task::AtomicWaker;
use slab::Slab;

use super::slots;

/// Most bytes that all connections together may have unread, unless the operator says otherwise.
pub(super) const UNREAD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// With more bytes than this on their way to the Coordinator, no connection has more than one read on
/// its way.
const UNHEARD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The books of a server.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Most that may be counted, over all accounts that are not closed.
    max: usize,
    /// The sum of all accounts that are not closed.
    total: AtomicUsize,
    /// Bytes that sessions have submitted and no turn of the Coordinator has come to yet.
    unheard: AtomicUsize,
    /// Share of each connection, to find the greatest.
    shares: Mutex<Slab<Arc<Share>>>,
}

/// What one connection has, for those who add to it.
#[derive(Debug)]
pub(super) struct Share {
    /// So many bytes of it are in the total.
    counted: AtomicUsize,
    /// So many reads of it are submitted and not handled.
    unheard_reads: AtomicUsize,
    /// Whether its connection has to go. It counts nothing any more.
    is_closed: AtomicBool,
    /// Wakes the session, so that it sees that.
    session: AtomicWaker,
    /// Where the total is.
    ledger: Arc<Ledger>,
}

/// A connection's place in the books, for its session. Given back when dropped.
#[derive(Debug)]
pub(super) struct Account {
    /// The share that the Coordinator adds to.
    share: Arc<Share>,
    /// Where it is among the others.
    place: usize,
    /// Bytes that the session knows of: delivered to it, or in its hands.
    known: usize,
}

/// What one read has brought, for as long as it is not handled. Given back when dropped.
#[derive(Debug)]
pub(super) struct Unheard {
    /// So many bytes.
    bytes: usize,
    /// Of whom.
    share: Arc<Share>,
}

impl Drop for Unheard {
    fn drop(&mut self) {
        self.share.unheard_reads.fetch_sub(1, Ordering::Relaxed);
        self.share.ledger.unheard.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(UNREAD_BYTES_MAX)
    }
}

impl Ledger {
    /// Books that count up to `max`.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            total: AtomicUsize::new(0),
            unheard: AtomicUsize::new(0),
            shares: Mutex::default(),
        }
    }

    /// An account of a new connection.
    pub(super) fn open(self: &Arc<Self>) -> Account {
        let share = Arc::new(Share {
            counted: AtomicUsize::new(0),
            unheard_reads: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            session: AtomicWaker::new(),
            ledger: Arc::clone(self),
        });
        let place = self.shares().insert(Arc::clone(&share));
        Account { share, place, known: 0 }
    }

    /// Whether sessions may read on before what they submitted is handled.
    pub(super) fn may_read_on(&self) -> bool {
        self.unheard.load(Ordering::Relaxed) <= UNHEARD_BYTES_MAX
    }

    /// Closes those who have most, until a quarter of the bound is free.
    #[cold]
    fn relieve(&self) {
        let shares = self.shares();
        let enough = self.max / 4 * 3;
        let mut by_size: Vec<(usize, &Share)> = shares
            .iter()
            .map(|(_, share)| (share.counted.load(Ordering::Relaxed), &**share))
            .collect();
        // As they came, where they have the same.
        by_size.sort_by_key(|(counted, _)| Reverse(*counted));
        for (_, share) in by_size {
            // Looked at each time: others may have given back meanwhile.
            if self.total.load(Ordering::Relaxed) <= enough {
                break;
            }
            share.close();
        }
    }

    fn shares(&self) -> MutexGuard<'_, Slab<Arc<Share>>> {
        // Nobody panics while it is locked.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is counted over all.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// What is submitted and not handled.
    #[cfg(test)]
    pub(super) fn unheard(&self) -> usize {
        self.unheard.load(Ordering::Relaxed)
    }
}

impl Share {
    /// So much more is there for the connection.
    pub(super) fn add(&self, bytes: usize) {
        if bytes == 0 || self.is_closed() {
            return;
        }
        // The total first: whoever closes the share takes from it what is counted.
        let total = self.ledger.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        if total > self.ledger.max {
            self.ledger.relieve();
        }
    }

    /// So much less is. One that was closed has nothing to give back any more.
    pub(super) fn subtract(&self, bytes: usize) {
        let less = |counted: usize| Some(counted.saturating_sub(bytes));
        let before = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        let given_back = before.map_or(0, |before| before.min(bytes));
        self.ledger.total.fetch_sub(given_back, Ordering::Relaxed);
    }

    /// Has the connection closed, and counts nothing of it any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let counted = self.counted.swap(0, Ordering::Relaxed);
        self.ledger.total.fetch_sub(counted, Ordering::Relaxed);
        self.session.wake();
    }

    /// Whether the connection has to go.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // Added while it was being closed.
        let counted = *self.counted.get_mut();
        self.ledger.total.fetch_sub(counted, Ordering::Relaxed);
    }
}

impl Account {
    /// What the Coordinator adds to.
    pub(super) fn share(&self) -> Arc<Share> {
        Arc::clone(&self.share)
    }

    /// What one read has brought is submitted, and takes so much.
    pub(super) fn submit(&self, bytes: usize) -> Unheard {
        self.share.unheard_reads.fetch_add(1, Ordering::Relaxed);
        self.share.ledger.unheard.fetch_add(bytes, Ordering::Relaxed);
        Unheard { bytes, share: Arc::clone(&self.share) }
    }

    /// How many reads are submitted and not handled.
    pub(super) fn unheard_reads(&self) -> usize {
        self.share.unheard_reads.load(Ordering::Relaxed)
    }

    /// A delivery has come that was counted as so much.
    pub(super) fn delivered(&mut self, bytes: usize) {
        self.known += bytes;
    }

    /// Of all that has come, so much is still there.
    pub(super) fn settle(&mut self, bytes: usize) {
        match (self.known, bytes) {
            (known, bytes) if known == bytes => return,
            (known, bytes) if known > bytes => self.share.subtract(known - bytes),
            (known, bytes) => self.share.add(bytes - known),
        }
        self.known = bytes;
    }

    /// Whether the connection has to go, because all together have too much and it has most.
    pub(super) fn is_closed(&self) -> bool {
        self.share.is_closed()
    }

    /// Who is woken when it has to go.
    pub(super) fn wakes(&self, session: &Waker) {
        self.share.session.register(session);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut shares = self.share.ledger.shares();
        let gone = shares.try_remove(self.place);
        slots::give_back(&mut shares);
        drop(shares);
        debug_assert!(gone.is_some(), "an account has one place");
        self.share.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(max: usize) -> Arc<Ledger> {
        Arc::new(Ledger::new(max))
    }

    #[test]
    fn what_was_counted_is_given_back_however_a_connection_ends() {
        let ledger = ledger(1000);
        let (mut read, dead) = (ledger.open(), ledger.open());
        let late = dead.share();
        read.share().add(300);
        late.add(400);
        assert_eq!(ledger.total(), 700);
        read.delivered(300);
        read.settle(120);
        assert_eq!(ledger.total(), 520);
        // Its deliveries were still on their way.
        drop(dead);
        assert_eq!(ledger.total(), 120);
        late.add(50);
        assert_eq!(ledger.total(), 120, "nothing is counted of who is gone");
        read.settle(0);
        assert_eq!(ledger.total(), 0);
        drop((read, late));
        assert_eq!((ledger.total(), ledger.shares().len()), (0, 0));
    }

    #[test]
    fn at_the_bound_nobody_is_closed_and_one_byte_past_it_who_has_most() {
        let ledger = ledger(1000);
        let accounts: Vec<Account> = (0..4).map(|_| ledger.open()).collect();
        for (account, bytes) in accounts.iter().zip([100, 400, 300, 200]) {
            account.share().add(bytes);
        }
        let closed = || accounts.iter().map(Account::is_closed).collect::<Vec<_>>();
        assert_eq!(closed(), [false; 4]);
        accounts[0].share().add(1);
        assert_eq!(closed(), [false, true, false, false]);
        assert_eq!(ledger.total(), 601);
    }

    #[test]
    fn whoever_has_less_than_an_even_part_is_never_closed() {
        let ledger = ledger(1000);
        let small: Vec<Account> = (0..5).map(|_| ledger.open()).collect();
        let large: Vec<Account> = (0..5).map(|_| ledger.open()).collect();
        // An even part of three quarters of the bound among ten.
        for account in &small {
            account.share().add(75);
        }
        for _ in 0..1000 {
            for account in &large {
                account.share().add(90);
            }
        }
        assert!(small.iter().all(|account| !account.is_closed()));
        assert!(large.iter().any(Account::is_closed));
        assert!(ledger.total() <= 1000, "{}", ledger.total());
    }

    #[test]
    fn who_is_to_be_closed_is_woken() {
        let ledger = ledger(1000);
        let account = ledger.open();
        let (waker, counted) = counting_waker();
        account.wakes(&waker);
        account.share().add(1001);
        assert_eq!(counted.count(), 1);
    }

    #[test]
    fn reads_go_on_up_to_the_bound_on_what_is_unheard_and_not_past_it() {
        let ledger = ledger(1000);
        let account = ledger.open();
        let much = account.submit(UNHEARD_BYTES_MAX);
        assert!(ledger.may_read_on());
        let more = account.submit(1);
        assert!(!ledger.may_read_on());
        drop(more);
        assert!(ledger.may_read_on());
        drop(much);
        assert_eq!(ledger.unheard(), 0);
    }

    #[test]
    fn reads_are_counted_until_they_are_handled() {
        let account = ledger(1000).open();
        let reads = [account.submit(1), account.submit(1)];
        assert_eq!(account.unheard_reads(), 2);
        drop(reads);
        assert_eq!(account.unheard_reads(), 0);
    }

    /// A waker that counts.
    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wakes {
        fn count(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counting_waker() -> (Waker, Arc<Wakes>) {
        let counted = Arc::<Wakes>::default();
        (Waker::from(Arc::clone(&counted)), counted)
    }
}
