//! Connects to the first address that answers, of all servers (RFC 8305, "happy eyeballs").
//!
//! A silent address must not delay the next one. Names with several addresses are common, and so is
//! a black hole among them. So the addresses are tried in order, each beside those before it. The
//! next begins a quarter of a second later, or at once if all before it have failed. The first
//! connection is taken, and the other attempts are dropped.
//!
//! Addresses and their delays come from outside, so tests run it in paused time.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::client::error::{EachFailed, cause};
use crate::client::servers::Server;

/// The head start of each address before the next (RFC 8305, section 5).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);
/// Of one name no more addresses than this are tried.
const ADDRESSES_MAX: usize = 16;

/// What is known of a server's addresses.
enum Known {
    /// Nothing yet: its name is being looked up.
    Awaited,
    /// These are not tried yet.
    Left(VecDeque<SocketAddr>),
}

/// What happens next.
enum Event<Io> {
    Found(usize, io::Result<Vec<SocketAddr>>),
    Tried(usize, io::Result<Io>),
    Due,
}

/// Why no connection was made, by server.
#[derive(Debug)]
pub(super) struct Failures(Vec<Option<io::Error>>);

impl Failures {
    /// The one of the server that is preferred says best what is wrong. Of several, each is told.
    pub(super) fn of(self, servers: &[Server]) -> io::Error {
        let told = self.told(servers).into_iter().map(|(server, why)| format!("{server}: {why}"));
        let told: Vec<String> = told.collect();
        match (self.first(), &told[..]) {
            (failure, [] | [_]) => failure,
            (failure, several) => io::Error::new(failure.kind(), EachFailed::of(several)),
        }
    }

    /// What is wrong with each that has failed.
    pub(super) fn told(&self, servers: &[Server]) -> Vec<(String, String)> {
        let all = self.0.iter().zip(servers);
        let failed = all.filter_map(|(failure, server)| Some((failure.as_ref()?, server)));
        failed.map(|(failure, server)| (server.to_string(), cause(failure))).collect()
    }

    fn first(self) -> io::Error {
        let failure = self.0.into_iter().flatten().next();
        failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

/// Connects to one of so many servers, in their order; gives which it was, and what is wrong with those before.
pub(super) async fn connect_first<Io, Lookup, Attempt>(
    count: usize,
    lookup: impl Fn(usize) -> Lookup,
    attempt: impl Fn(SocketAddr) -> Attempt,
) -> Result<(usize, Io, Failures), Failures>
where
    Lookup: Future<Output = io::Result<Vec<SocketAddr>>>,
    Attempt: Future<Output = io::Result<Io>>,
{
    let mut known: Vec<Known> = (0..count).map(|_| Known::Awaited).collect();
    let mut lookups: FuturesUnordered<_> = (0..count)
        .map(|place| {
            let found = lookup(place);
            async move { (place, found.await) }
        })
        .collect();
    let (mut attempts, mut begun) = (FuturesUnordered::new(), BTreeSet::new());
    let mut due = pin!(sleep_until(Instant::now()));
    let mut failures: Vec<Option<io::Error>> = (0..count).map(|_| None).collect();
    loop {
        if (attempts.is_empty() || due.is_elapsed())
            && let Some((place, address)) = next(&mut known)
        {
            begun.insert(place);
            let tried = attempt(address);
            attempts.push(async move { (place, tried.await) });
            due.as_mut().reset(Instant::now() + HEAD_START);
        }
        if attempts.is_empty() && lookups.is_empty() {
            return Err(Failures(failures));
        }
        let is_more =
            known.iter().any(|known| matches!(known, Known::Left(left) if !left.is_empty()));
        let event = tokio::select! {
            biased;
            Some((place, tried)) = attempts.next() => Event::Tried(place, tried),
            Some((place, found)) = lookups.next() => Event::Found(place, found),
            () = &mut due, if is_more => Event::Due,
        };
        match event {
            Event::Tried(place, Ok(io)) => {
                // Those before it are silent, or have failed.
                for place in begun.into_iter().filter(|begun| *begun != place) {
                    failures[place].get_or_insert_with(|| io::Error::other("no answer"));
                }
                failures[place] = None;
                return Ok((place, io, Failures(failures)));
            }
            Event::Tried(place, Err(error)) => {
                failures[place].get_or_insert(error);
            }
            Event::Found(place, Ok(addresses)) => known[place] = Known::Left(in_turns(addresses)),
            Event::Found(place, Err(error)) => {
                failures[place].get_or_insert(error);
                known[place] = Known::Left(VecDeque::new());
            }
            Event::Due => {}
        }
    }
}

/// The next address to try, and of which server: of the first that has one.
fn next(known: &mut [Known]) -> Option<(usize, SocketAddr)> {
    known.iter_mut().enumerate().find_map(|(place, known)| match known {
        Known::Awaited => None,
        Known::Left(left) => Some((place, left.pop_front()?)),
    })
}

/// Both families in turns, beginning with that of the first (RFC 8305, section 4). If one of them
/// does not work here, every second one does.
fn in_turns(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let is_first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == is_first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut all = VecDeque::new();
    while all.len() < ADDRESSES_MAX {
        let pair = [one.next(), other.next()];
        if pair == [None, None] {
            break;
        }
        all.extend(pair.into_iter().flatten());
    }
    all.truncate(ADDRESSES_MAX);
    all
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use tokio::time::sleep;

    use super::*;

    /// What becomes of an attempt, and when, in milliseconds.
    #[derive(Clone, Copy)]
    enum Fate {
        Hangs,
        Refused(u64),
        Answers(u64),
    }

    use Fate::{Answers, Hangs, Refused};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Servers by their addresses, and what becomes of each; what came of it, and when what was tried.
    async fn race(
        servers: &[&[(&str, Fate)]],
        first: usize,
    ) -> (io::Result<(usize, SocketAddr)>, u64, Vec<(u64, SocketAddr)>) {
        let began = Instant::now();
        let since = move || u64::try_from(began.elapsed().as_millis()).unwrap();
        let fates: BTreeMap<_, _> =
            servers.iter().flat_map(|s| s.iter()).map(|(a, fate)| (address(a), *fate)).collect();
        let tried = RefCell::new(Vec::new());
        let server_at = |place: usize| (first + place) % servers.len();
        let lookup = async |place: usize| {
            Ok(servers[server_at(place)].iter().map(|(text, _)| address(text)).collect::<Vec<_>>())
        };
        let attempt = async |address: SocketAddr| {
            tried.borrow_mut().push((since(), address));
            match fates[&address] {
                Hangs => std::future::pending().await,
                Refused(after) => {
                    sleep(Duration::from_millis(after)).await;
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
                Answers(after) => {
                    sleep(Duration::from_millis(after)).await;
                    Ok(address)
                }
            }
        };
        let came = connect_first(servers.len(), &lookup, &attempt).await;
        let came = came.map(|(place, io, _)| (server_at(place), io)).map_err(Failures::first);
        (came, since(), tried.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_a_black_hole_costs_a_quarter_of_a_second() {
        let addresses = [("10.0.0.1:1", Hangs), ("10.0.0.2:1", Answers(5))];
        let (came, took, _) = race(&[&addresses], 0).await;
        assert_eq!(came.unwrap(), (0, address("10.0.0.2:1")));
        assert_eq!(took, 255);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        let addresses = [("[::1]:1", Refused(0)), ("10.0.0.2:1", Answers(5))];
        let (came, took, _) = race(&[&addresses], 0).await;
        assert_eq!(came.unwrap(), (0, address("10.0.0.2:1")));
        assert_eq!(took, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_answers_in_time_is_taken_and_no_other_is_tried() {
        let addresses = [("10.0.0.1:1", Answers(249)), ("10.0.0.2:1", Answers(0))];
        let (came, _, tried) = race(&[&addresses], 0).await;
        assert_eq!(came.unwrap(), (0, address("10.0.0.1:1")));
        assert_eq!(tried.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn both_families_are_tried_in_turns_each_a_quarter_of_a_second_later() {
        let addresses = [
            ("[::1]:1", Hangs),
            ("[::2]:1", Hangs),
            ("10.0.0.1:1", Hangs),
            ("10.0.0.2:1", Answers(1)),
        ];
        let (came, _, tried) = race(&[&addresses], 0).await;
        assert_eq!(came.unwrap(), (0, address("10.0.0.2:1")));
        let order = [(0, "[::1]:1"), (250, "10.0.0.1:1"), (500, "[::2]:1"), (750, "10.0.0.2:1")];
        assert_eq!(tried, order.map(|(at, text)| (at, address(text))));
    }

    #[tokio::test(start_paused = true)]
    async fn servers_are_tried_in_order_beginning_with_the_one_that_is_preferred() {
        let servers: [&[_]; 3] = [
            &[("10.0.0.1:1", Answers(0))],
            &[("10.0.0.2:1", Hangs)],
            &[("10.0.0.3:1", Refused(9))],
        ];
        let (came, took, tried) = race(&servers, 1).await;
        assert_eq!(came.unwrap(), (0, address("10.0.0.1:1")));
        assert_eq!((took, tried.len()), (500, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_that_of_the_server_that_is_preferred() {
        let servers: [&[_]; 2] = [&[("10.0.0.1:1", Refused(5))], &[]];
        let (came, took, _) = race(&servers, 0).await;
        assert_eq!(came.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(took, 5);
        let (came, ..) = race(&[&[]], 0).await;
        assert_eq!(came.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_is_slow_to_look_up_keeps_nobody_waiting() {
        let lookup = |server: usize| async move {
            sleep(Duration::from_secs(1 - server as u64)).await;
            Ok(vec![address(["10.0.0.1:1", "10.0.0.2:1"][server])])
        };
        let came = connect_first(2, lookup, |address| async move { Ok(address) }).await;
        let (place, io, _) = came.unwrap();
        assert_eq!((place, io), (1, address("10.0.0.2:1")));
    }

    #[test]
    fn no_more_addresses_are_tried_than_are_worth_it() {
        let some = |count| (0..count).map(|n| SocketAddr::from(([10, 0, 0, 1], n))).collect();
        assert_eq!(in_turns(some(16)).len(), ADDRESSES_MAX);
        assert_eq!(in_turns(some(17)).len(), ADDRESSES_MAX);
    }
}
