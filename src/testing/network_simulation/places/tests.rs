//! A waiter of client 1 is there before a crash, another comes after it and is granted first: whether the
//! judge calls that overtaken.

use std::time::Duration;

use tokio::time::{Instant, advance};

use super::{Grant, Origin, Places};
use crate::testing::history::{How, RequestName, Wanted};
use crate::types::{Epoch, Generation};

const LATER: Duration = Duration::from_millis(100);

/// How many were overtaken, if the run after the crash has this `origin`, and the waiter was heard there
/// after so many absences.
async fn overtaken(origin: Origin, absences: usize) -> usize {
    let (one, two) = (Epoch::new(1), Epoch::new(2));
    let wanted = &[Wanted { lock: "printer".into(), how: How::Exclusive }][..];
    let mut places = Places::default();
    places.run_began(one, Origin::Clients, 1);
    advance(LATER).await;
    let (came, mut heard) = (Instant::now(), vec![(one, Generation::new(1), Instant::now())]);
    let mut away = vec![came];
    advance(LATER).await;
    places.run_began(two, origin, 100);
    let later = Instant::now();
    for _ in 0..absences {
        advance(LATER).await;
        away.push(Instant::now());
    }
    heard.push((two, Generation::new(9), Instant::now()));
    let request = |client| RequestName { client, number: 1 };
    let other = Grant { wanted, token: 100, epoch: two, came: later, heard: &[], absences: &[] };
    places.granted(request(2), other);
    let waiter = Grant { wanted, token: 101, epoch: two, came, heard: &heard, absences: &away };
    places.granted(request(1), waiter);
    places.judge().1.len()
}

#[tokio::test(start_paused = true)]
async fn who_was_back_in_the_grace_period_is_not_overtaken_however_often_it_was_away() {
    assert_eq!(overtaken(Origin::Clients, 0).await, 1);
    assert_eq!(overtaken(Origin::Clients, 2).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_present_in_all_of_a_run_by_replay_is_not_overtaken() {
    assert_eq!(overtaken(Origin::Journal, 0).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_was_away_in_a_run_by_replay_may_be_passed() {
    assert_eq!(overtaken(Origin::Journal, 1).await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_over_an_orderly_stop_is_away_at_first_and_may_be_passed() {
    assert_eq!(overtaken(Origin::Stop, 0).await, 0);
}
