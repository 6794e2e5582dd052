//! Places for connections, of which no address has all.
//!
//! Whoever supervises a coordinator asks here whether it is alive, and starts it anew if nobody answers. So whoever takes
//! all places would have it restarted. An address (of IPv6: a /64 network) has three quarters of them at most.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::types::Origin;

/// Places. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// How many there are.
    max: usize,
    /// How many each address has now.
    taken: Arc<Mutex<HashMap<Origin, usize>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where it goes back to.
    places: Places,
    /// Whose it is.
    origin: Origin,
}

impl Places {
    pub(super) fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    /// A place for a connection from there; none if there is none, or if that address has as many as it may.
    pub(super) fn take(&self, from: IpAddr) -> Option<Taken> {
        let origin = Origin::of(from);
        let mut taken = self.locked();
        let all: usize = taken.values().sum();
        let its_own = taken.entry(origin).or_default();
        if all >= self.max || *its_own >= self.per_address_max() {
            if *its_own == 0 {
                taken.remove(&origin);
            }
            return None;
        }
        *its_own += 1;
        drop(taken);
        Some(Taken { places: self.clone(), origin })
    }

    /// Most that one address may have.
    fn per_address_max(&self) -> usize {
        (self.max - self.max / 4).max(1)
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Origin, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.places.locked();
        if let Some(its_own) = taken.get_mut(&self.origin) {
            *its_own -= 1;
            if *its_own == 0 {
                taken.remove(&self.origin);
            }
        }
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
        let mut taken: Vec<Taken> = (0..192).filter_map(|_| places.take(greedy)).collect();
        assert_eq!(taken.len(), 192);
        assert!(places.take(greedy).is_none());
        let others = (0..100_u8).filter_map(|host| places.take([10, 0, 1, host].into()));
        let others: Vec<Taken> = others.collect();
        assert_eq!(others.len(), 64, "as many as there are places");
        assert!(places.take([10, 0, 2, 1].into()).is_none());
        taken.pop();
        assert!(places.take([10, 0, 2, 1].into()).is_some(), "it came back");
        drop((taken, others));
        assert!(places.locked().is_empty(), "nobody is remembered");
    }
}
