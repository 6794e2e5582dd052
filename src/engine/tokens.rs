//! The one counter behind all fencing tokens, and the durable facts beside it. These are its
//! reservation, the epoch, the longest lease, and the first run whose proofs count.
//!
//! Numbers are reserved on disk in blocks, ahead of use. No grant waits for a disk, and a crash can
//! only waste numbers, never give one twice (rules F1, F2).

use serde::{Deserialize, Serialize};

use super::{Durable, Run, Start};
use crate::types::{Epoch, FencingToken, Ttl};

/// How many numbers are reserved at a time.
pub const TOKEN_BLOCK: u64 = 1 << 20;

/// How far the counter jumps past a token of another life of this service. That is a reserve for
/// most of a day, for a machine that grants a million times a second.
const TOKEN_STRIDE: u64 = 1 << 36;
/// How far the epoch jumps: by default they are a minute apart, so for a day.
const EPOCH_STRIDE: u64 = 24 * 60;

/// The counter and its reservation, with the epoch, which is made durable together with it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Tokens {
    /// The next number to be granted.
    next: u64,
    /// This run. Ahead of `durable.epoch` only while a client's later one is being passed.
    epoch: Epoch,
    /// The longest lease that is to be covered on disk.
    ttl_max: Option<Ttl>,
    /// The run whose proofs are the oldest that are to count after a crash.
    settled: Epoch,
    /// Facts on disk. Invariant: no number at or above `durable.tokens_below` was granted.
    durable: Durable,
    /// Facts that were last asked to be put on disk; never behind `durable`.
    asked: Durable,
    /// Bounds of what a client may present: above them it cannot be true.
    plausible: Durable,
}

impl Tokens {
    pub(super) fn new(start: &Start) -> Self {
        Self {
            next: start.first_token.number().max(1),
            epoch: start.durable.epoch,
            ttl_max: start.durable.ttl_max,
            settled: start.durable.settled,
            durable: start.durable,
            asked: start.durable,
            plausible: start.plausible,
        }
    }

    /// Another run goes on with the counters. They begin above all that any run before can have
    /// granted, and orders that may not have been carried out are repeated (rules J4, J8).
    pub(super) fn go_on_in(&mut self, run: &Run) {
        let Run { durable, first_token, plausible, .. } = *run;
        self.next = self.next.max(first_token.number());
        self.epoch = self.epoch.max(durable.epoch);
        (self.durable, self.asked, self.plausible) = (durable, durable, plausible);
    }

    /// This run, as far as it is on disk.
    pub(super) fn epoch(&self) -> Epoch {
        self.durable.epoch
    }

    /// The longest lease that any client may believe in.
    pub(super) fn ttl_max(&self) -> Option<Ttl> {
        self.durable.ttl_max
    }

    /// Whether a session with this lease may be welcomed. If so, a crash would be followed by a
    /// grace period that is long enough for it (rule G1). If not yet, that is wanted from now on.
    pub(super) fn covers(&mut self, ttl: Ttl) -> bool {
        self.ttl_max = self.ttl_max.max(Some(ttl));
        // What was asked for last may be less than what is on disk, and will be there.
        self.durable.ttl_max >= Some(ttl) && self.asked.ttl_max >= Some(ttl)
    }

    /// Of all clients that might believe in a lease, none has one longer than `longest`: so a grace
    /// period need not be longer either. The usual lease stays covered, or the next session would
    /// wait for the disk.
    pub(super) fn relax(&mut self, longest: Option<Ttl>) {
        let enough = longest.max(Some(Ttl::default()));
        self.ttl_max = self.ttl_max.min(enough);
    }

    /// Proofs of runs before this one count no more, from when that is on disk.
    pub(super) fn settle(&mut self, run: Epoch) {
        self.settled = self.settled.max(run);
    }

    /// How many numbers can be given that are on disk.
    pub(super) fn left(&self) -> u64 {
        self.durable.tokens_below.number().saturating_sub(self.next)
    }

    /// The latest number granted, or passed over.
    pub(super) fn latest(&self) -> FencingToken {
        FencingToken::new(self.next - 1)
    }

    /// Whether there is a number to grant.
    pub(super) fn available(&self) -> bool {
        self.next < self.durable.tokens_below.number() && self.epoch == self.durable.epoch
    }

    /// The next token. Only after [`Tokens::available`] said yes.
    pub(super) fn take(&mut self) -> FencingToken {
        assert!(self.available(), "a number that is not durably reserved would be granted");
        let token = FencingToken::new(self.next);
        self.next += 1;
        token
    }

    /// Whether a client can have seen `epoch` and `token`: they are ours, or not too far ahead of the
    /// clock. That bound does not move with the counters, so however often clients have them moved, they
    /// get no further.
    pub(super) fn is_plausible(&self, epoch: Epoch, token: FencingToken) -> bool {
        epoch <= self.epoch.max(self.plausible.epoch)
            && (token.number() < self.next || token <= self.plausible.tokens_below)
    }

    /// A client has seen `epoch` and `token`: everything from now on is later (rule F3). Each time,
    /// nothing is granted until that is on disk. So it is done in great strides, of which only a
    /// few lead to where nobody is believed any more.
    pub(super) fn pass(&mut self, epoch: Epoch, token: FencingToken) {
        if token.number() >= self.next {
            self.next = token.number().next_multiple_of(TOKEN_STRIDE) + 1;
        }
        if epoch > self.epoch {
            self.epoch = Epoch::new(epoch.number() + EPOCH_STRIDE);
        }
    }

    /// What should be asked to be made durable now, if anything; remembered as asked for.
    pub(super) fn wanted(&mut self) -> Option<Durable> {
        let Durable { epoch, mut tokens_below, ttl_max, settled } = self.asked;
        let are_few = tokens_below.number() < self.next + TOKEN_BLOCK / 2;
        if !are_few && (epoch, ttl_max, settled) == (self.epoch, self.ttl_max, self.settled) {
            return None;
        }
        if are_few {
            let from = tokens_below.number().max(self.next);
            tokens_below = FencingToken::new(from + TOKEN_BLOCK);
        }
        let Self { epoch, ttl_max, settled, .. } = *self;
        self.asked = Durable { epoch, tokens_below, ttl_max, settled };
        Some(self.asked)
    }

    /// `durable` is on disk. What was asked for gets there in the order of asking.
    pub(super) fn persisted(&mut self, durable: Durable) {
        self.durable = durable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Past;

    fn durable(epoch: u64, below: u64) -> Durable {
        let (epoch, tokens_below) = (Epoch::new(epoch), FencingToken::new(below));
        Durable { epoch, tokens_below, ttl_max: Some(Ttl::default()), settled: Epoch::new(1) }
    }

    fn tokens(below: u64) -> Tokens {
        Tokens::new(&Start {
            durable: durable(1, below),
            first_token: FencingToken::new(1),
            plausible: durable(1_000, 1 << 40),
            past: Past::default(),
        })
    }

    #[test]
    fn the_next_block_is_asked_for_once_when_half_of_this_one_is_used() {
        let mut tokens = tokens(TOKEN_BLOCK);
        assert_eq!(tokens.wanted(), None);
        while tokens.latest().number() < TOKEN_BLOCK / 2 {
            assert_eq!(tokens.wanted(), None, "after {}", tokens.latest());
            tokens.take();
        }
        assert_eq!(tokens.wanted(), Some(durable(1, 2 * TOKEN_BLOCK)));
        assert_eq!(tokens.wanted(), None, "it was asked for already");
    }

    #[test]
    fn no_number_is_given_that_is_not_on_disk() {
        let mut tokens = tokens(3);
        assert_eq!(tokens.take().number(), 1);
        assert_eq!(tokens.take().number(), 2);
        assert!(!tokens.available());
        let wanted = tokens.wanted().unwrap();
        assert!(!tokens.available(), "asking is not having");
        tokens.persisted(wanted);
        assert_eq!(tokens.take().number(), 3);
    }

    #[test]
    fn what_a_client_has_seen_is_passed_durably_before_the_next_grant() {
        let mut tokens = tokens(TOKEN_BLOCK);
        tokens.pass(Epoch::new(7), FencingToken::new(5 * TOKEN_BLOCK));
        assert!(!tokens.available());
        let wanted = tokens.wanted().unwrap();
        assert_eq!(wanted, durable(7 + EPOCH_STRIDE, TOKEN_STRIDE + 1 + TOKEN_BLOCK));
        assert_eq!(tokens.epoch(), Epoch::new(1), "not yet on disk");
        tokens.persisted(wanted);
        assert_eq!(tokens.epoch(), Epoch::new(7 + EPOCH_STRIDE));
        assert_eq!(tokens.take().number(), TOKEN_STRIDE + 1);
    }

    #[test]
    fn a_client_that_has_seen_what_is_ours_moves_nothing() {
        let mut tokens = tokens(TOKEN_BLOCK);
        let latest = tokens.take();
        tokens.pass(Epoch::new(1), latest);
        assert_eq!((tokens.wanted(), tokens.latest()), (None, latest));
        assert!(tokens.available());
    }

    /// Has a client say that it has seen later ones, again and again, until it is not believed.
    /// Says how often it was, and granting stopped for it.
    fn stops(tokens: &mut Tokens, later: impl Fn(&Tokens) -> (Epoch, FencingToken)) -> usize {
        for stops in 0..1_000 {
            let (epoch, token) = later(tokens);
            if !tokens.is_plausible(epoch, token) {
                return stops;
            }
            tokens.pass(epoch, token);
            assert!(!tokens.available());
            let wanted = tokens.wanted().unwrap();
            tokens.persisted(wanted);
        }
        panic!("it is believed for ever");
    }

    #[test]
    fn a_client_that_lies_about_what_it_has_seen_can_stop_the_service_a_few_times_only() {
        let mut tokens = tokens(TOKEN_BLOCK);
        let of_tokens = stops(&mut tokens, |it| (it.epoch(), it.latest().next()));
        assert!((1..20).contains(&of_tokens), "{of_tokens}");
        let of_epochs = stops(&mut tokens, |it| (Epoch::new(it.epoch().number() + 1), it.latest()));
        assert!((1..20).contains(&of_epochs), "{of_epochs}");
        assert!(tokens.available());
        let (epoch, latest) = (tokens.epoch(), tokens.latest());
        assert!(tokens.is_plausible(epoch, latest), "what is ours");
        assert!(latest.number() < (1 << 40) + 2 * TOKEN_STRIDE);
    }

    #[test]
    fn from_which_run_on_proofs_count_is_asked_for_once_and_never_goes_back() {
        let mut tokens = tokens(TOKEN_BLOCK);
        tokens.settle(Epoch::new(5));
        let wanted = tokens.wanted().unwrap();
        assert_eq!(wanted, Durable { settled: Epoch::new(5), ..durable(1, TOKEN_BLOCK) });
        assert!(tokens.available(), "no grant waits for it");
        tokens.settle(Epoch::new(4));
        assert_eq!(tokens.wanted(), None);
    }

    #[test]
    fn a_lease_is_covered_once_it_is_on_disk_and_until_nobody_may_have_it() {
        let ttl = |secs| Ttl::new(std::time::Duration::from_secs(secs)).unwrap();
        let mut tokens = tokens(TOKEN_BLOCK);
        assert!(tokens.covers(ttl(10)) && !tokens.covers(ttl(60)));
        let wanted = tokens.wanted().unwrap();
        assert!(!tokens.covers(ttl(60)), "asking is not having");
        tokens.persisted(wanted);
        assert!(tokens.covers(ttl(60)));
        // Only those with 20 s are left: what was more is given up, and asked for again at need.
        tokens.relax(Some(ttl(20)));
        let less = tokens.wanted().unwrap();
        assert_eq!(less.ttl_max, Some(ttl(20)));
        assert!(
            tokens.covers(ttl(20)) && !tokens.covers(ttl(60)),
            "less is on its way to the disk"
        );
        let more = tokens.wanted().unwrap();
        tokens.persisted(less);
        assert!(!tokens.covers(ttl(60)));
        tokens.persisted(more);
        assert!(tokens.covers(ttl(60)));
        // Never up, and not below what is usual.
        tokens.relax(None);
        assert_eq!(tokens.wanted().unwrap().ttl_max, Some(Ttl::default()));
    }
}
