//! Turns at handshakes: so many with one address are under way at a time, and the next ones wait.
//!
//! One address must not have the thread that makes handshakes to itself, whether it is greedy or silent. Its own
//! others wait for it, in their order, and nobody else does. How long they wait is bounded by whoever waits for the
//! handshake, and how many there are by the limits on connections.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Handshakes with one address that are under way at a time. Over a network where an answer takes 50 ms, that is a
/// thousand in a second: enough for all who come back through one gateway.
pub(super) const UNDER_WAY_PER_ADDRESS_MAX: usize = 64;

/// All with whom handshakes are under way. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<Mutex<HashMap<IpAddr, Weak<Semaphore>>>>);

/// The turn of a handshake, or the wait for it; over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    /// Where it is counted.
    crowd: Crowd,
    /// Its address.
    place: IpAddr,
    /// The turns of that.
    turns: Option<Arc<Semaphore>>,
    /// Its own, once it has come.
    permit: Option<OwnedSemaphorePermit>,
}

impl Crowd {
    /// Waits for the turn of a handshake with an address. If that does not come at once, `crowded` is called.
    pub(super) async fn turn(&self, address: IpAddr, crowded: impl FnOnce()) -> Turn {
        let mut turn = self.line_up(place_of(address));
        let Some(turns) = turn.turns.clone() else { return turn };
        turn.permit = if let Ok(permit) = Arc::clone(&turns).try_acquire_owned() {
            Some(permit)
        } else {
            crowded();
            // It is never closed.
            turns.acquire_owned().await.ok()
        };
        turn
    }

    fn line_up(&self, place: IpAddr) -> Turn {
        let mut places = self.locked();
        let known = places.get(&place).and_then(Weak::upgrade);
        let turns = known.unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new(UNDER_WAY_PER_ADDRESS_MAX));
            places.insert(place, Arc::downgrade(&turns));
            turns
        });
        drop(places);
        Turn { crowd: self.clone(), place, turns: Some(turns), permit: None }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<IpAddr, Weak<Semaphore>>> {
        // Nobody panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.permit.take());
        let mut places = self.crowd.locked();
        drop(self.turns.take());
        if places.get(&self.place).is_some_and(|turns| turns.strong_count() == 0) {
            places.remove(&self.place);
        }
    }
}

/// The addresses that count as one: a network of IPv6 is for the taking.
fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// The turn of an address, if it comes at once.
    fn at_once(crowd: &Crowd, from: &str) -> Option<Turn> {
        match poll(pin!(crowd.turn(address(from), || {}))) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn an_address_has_as_many_turns_as_allowed_and_the_next_one_waits_and_no_other_address_does() {
        let crowd = Crowd::default();
        let mut turns: Vec<_> = (0..UNDER_WAY_PER_ADDRESS_MAX)
            .map(|_| at_once(&crowd, "10.0.0.9").expect("within the limit"))
            .collect();
        let told = Cell::new(0);
        let mut next = pin!(crowd.turn(address("10.0.0.9"), || told.set(told.get() + 1)));
        assert!(poll(next.as_mut()).is_pending() && poll(next.as_mut()).is_pending());
        assert_eq!(told.get(), 1, "it is told once");
        assert!(at_once(&crowd, "10.0.0.8").is_some());
        turns.pop();
        assert!(poll(next.as_mut()).is_ready());
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_nobody_is_remembered_who_is_gone() {
        let crowd = Crowd::default();
        let turns: Vec<_> = (0..UNDER_WAY_PER_ADDRESS_MAX)
            .map(|host| at_once(&crowd, &format!("2001:db8::{host:x}")).unwrap())
            .collect();
        assert!(at_once(&crowd, "2001:db8::ffff").is_none());
        assert!(at_once(&crowd, "2001:db8:0:1::1").is_some());
        assert!(at_once(&crowd, "::ffff:10.0.0.9").is_some());
        {
            let mut waiting = pin!(crowd.turn(address("2001:db8::1"), || {}));
            assert!(poll(waiting.as_mut()).is_pending());
            drop(turns);
        }
        assert!(crowd.locked().is_empty(), "{crowd:?}");
    }
}
