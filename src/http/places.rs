//! Places of which nobody has all: for connections, for streams, for those who are about to be turned away.
//!
//! Whoever supervises a coordinator asks here whether it is alive, and starts it anew if nobody answers. So whoever takes
//! all places would have it restarted. An address (of IPv6: a /64 network) has three quarters of them at most.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::Origin;

/// Places, shared between many. Clones are the same.
#[derive(Debug)]
pub(super) struct Shares<K> {
    /// How many there are.
    max: usize,
    /// How many each has now.
    taken: Arc<Mutex<HashMap<K, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken<K: Eq + Hash> {
    /// Where it goes back to.
    taken: Arc<Mutex<HashMap<K, usize>>>,
    /// Whose it is.
    whose: K,
}

/// Three quarters of `all`: what one may have where others are to find something.
pub(super) fn most_of(all: usize) -> usize {
    (all - all / 4).max(1)
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// A place; none if there is none, or if this one has as many as it may.
    pub(super) fn take(&self, whose: K, its_max: usize) -> Option<Taken<K>> {
        let mut taken = locked(&self.taken);
        let all: usize = taken.values().sum();
        if all >= self.max || taken.get(&whose).is_some_and(|its_own| *its_own >= its_max) {
            return None;
        }
        *taken.entry(whose.clone()).or_default() += 1;
        drop(taken);
        Some(Taken { taken: Arc::clone(&self.taken), whose })
    }
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self { max: self.max, taken: Arc::clone(&self.taken) }
    }
}

impl<K: Eq + Hash> Drop for Taken<K> {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        if let Some(its_own) = taken.get_mut(&self.whose) {
            *its_own -= 1;
            if *its_own == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}

fn locked<K>(taken: &Mutex<HashMap<K, usize>>) -> MutexGuard<'_, HashMap<K, usize>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places of which no address has all.
#[derive(Clone, Debug)]
pub(super) struct Places(Shares<Origin>);

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self(Shares::new(max))
    }

    /// A place for somebody from there; none if there is none, or if that address has as many as it may.
    pub(super) fn take(&self, from: IpAddr) -> Option<Taken<Origin>> {
        self.0.take(Origin::of(from), most_of(self.0.max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rule B2.
    #[test]
    fn an_address_has_three_quarters_of_the_places_and_others_find_the_rest() {
        let places = Places::new(256);
        let greedy: IpAddr = [10, 0, 0, 9].into();
        let mut taken: Vec<_> = (0..192).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(taken.len(), 192);
        assert!(places.take(greedy).is_none());
        let others = (0..100_u8).filter_map(|host| places.take([10, 0, 1, host].into()));
        let others: Vec<_> = others.collect();
        assert_eq!(others.len(), 64, "as many as there are places");
        assert!(places.take([10, 0, 2, 1].into()).is_none());
        taken.pop();
        assert!(places.take([10, 0, 2, 1].into()).is_some(), "it came back");
        drop((taken, others));
        assert!(locked(&places.0.taken).is_empty(), "nobody is remembered");
    }
}
