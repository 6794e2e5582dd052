//! A waiter of client 1 is there before a crash, another comes after it and is granted first: whether the
//! judge calls that overtaken.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::{Grant, Origin, Places};
use crate::testing::history::{How, RequestName, Wanted};
use crate::types::{Epoch, Generation};

const LATER: Duration = Duration::from_millis(100);

/// How many were overtaken, if the run after the crash has this `origin`, and the waiter was heard there
/// by the last of so many connections.
async fn overtaken(origin: Origin, connections: usize) -> usize {
    let (one, two) = (Epoch::new(1), Epoch::new(2));
    let lock = |how| vec![Wanted { lock: "printer".into(), how }];
    let mut places = Places::default();
    places.run_began(one, Origin::Clients, 1);
    advance(LATER).await;
    let (came, mut heard) = (Instant::now(), vec![(one, Generation::new(1), Instant::now())]);
    advance(LATER).await;
    places.run_began(two, origin, 100);
    let mut connected = vec![came];
    let later = Instant::now();
    for _ in 0..connections {
        advance(LATER).await;
        connected.push(Instant::now());
    }
    heard.push((two, Generation::new(9), Instant::now()));
    let (client_1, client_2) =
        (RequestName { client: 1, number: 1 }, RequestName { client: 2, number: 1 });
    let wanted = &lock(How::Exclusive);
    let grant =
        |token, came, heard, connected| Grant { wanted, token, epoch: two, came, heard, connected };
    places.granted(client_2, grant(100, later, &[], &[]));
    places.granted(client_1, grant(101, came, &heard, &connected));
    places.judge().1.len()
}

#[tokio::test(start_paused = true)]
async fn who_was_back_in_the_grace_period_is_not_overtaken_however_often_it_connected() {
    assert_eq!(overtaken(Origin::Clients, 1).await, 1);
    assert_eq!(overtaken(Origin::Clients, 2).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_present_in_all_of_a_run_by_replay_is_not_overtaken() {
    assert_eq!(overtaken(Origin::Journal, 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_back_after_a_replay_and_away_again_may_be_passed() {
    assert_eq!(overtaken(Origin::Journal, 2).await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_over_an_orderly_stop_is_away_at_first_and_may_be_passed() {
    assert_eq!(overtaken(Origin::Stop, 1).await, 0);
}
