//! The Coordinator of one of several: within its lease, without it, and when another leads.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::server::messages::{CloseAll, PartEarly, Save};
use crate::server::testing::{Bench, hello, local, release, request, settle, try_request};
use crate::types::{Epoch, GoodbyeCode, RejectionCode, Timestamp};
use crate::wire::{Attach, ClientMessage, Hello, ServerMessage};

/// Longer than a look at the lease takes.
const A_LOOK: Duration = Duration::from_millis(20);
const FOR_EVER: Timestamp = Timestamp::from_micros(u64::MAX - 1);

#[tokio::test(start_paused = true)]
async fn h2_nothing_is_decided_when_the_lease_has_ended_and_everything_when_it_is_renewed() {
    local(async {
        let (mut bench, until) = Bench::within_a_lease();
        let (holder, waiter) = (bench.open().await, bench.open().await);
        holder.submit(vec![request(1, "printer")]);
        settle().await;
        let token = holder.take_grant(1);
        waiter.submit(vec![request(1, "printer")]);
        settle().await;
        waiter.take_queued(1);

        until.move_to(Timestamp::default());
        waiter.submit(vec![request(2, "scanner")]);
        holder.submit(vec![release(1, token)]);
        let late = bench.connect();
        // Longer than every lease: the timer goes off, and may decide nothing either.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(holder.take().is_empty() && waiter.take().is_empty() && late.take().is_empty());

        until.move_to(FOR_EVER);
        tokio::time::sleep(A_LOOK).await;
        assert!(matches!(holder.take()[..], [ServerMessage::Released { .. }]));
        let told = waiter.take();
        assert!(
            matches!(told[..], [ServerMessage::Grant { .. }, ServerMessage::Grant { .. }]),
            "what it said meanwhile counts as heard now: {told:?}"
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn h2_what_was_said_within_the_lease_is_not_decided_as_of_a_moment_behind_it() {
    local(async {
        let (mut bench, until) = Bench::within_a_lease();
        let client = bench.open().await;
        bench.clock.end_when_read(&until);
        client.submit(vec![request(1, "printer"), request(2, "scanner")]);
        settle().await;
        assert!(client.take().is_empty(), "another may have decided otherwise by then");

        client.submit(vec![request(3, "plotter")]);
        settle().await;
        until.move_to(FOR_EVER);
        tokio::time::sleep(A_LOOK).await;
        let granted: Vec<_> = client
            .take()
            .iter()
            .map(|told| match told {
                ServerMessage::Grant { request, .. } => request.number(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(granted, [1, 2, 3], "in the order in which it was said");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn h6_a_client_that_has_seen_a_later_leader_moves_no_epoch_and_is_sent_away() {
    local(async {
        let (mut bench, _until) = Bench::within_a_lease();
        let epoch_of = |told: &[ServerMessage]| match told {
            [ServerMessage::Welcome { epoch, .. }] => *epoch,
            other => panic!("{other:?}"),
        };
        let greet = async |bench: &mut Bench, epoch_seen| {
            let client = bench.connect();
            let hello = Hello { epoch_seen, ..Hello::new(Attach::New, "client") };
            client.submit(vec![ClientMessage::Hello(hello)]);
            settle().await;
            client.take()
        };
        let ours = epoch_of(&greet(&mut bench, Epoch::default()).await);
        let told = greet(&mut bench, Epoch::new(ours.number() + 1)).await;
        let code = GoodbyeCode::NotLeader;
        assert!(
            matches!(&told[..], [ServerMessage::Goodbye { code: it, message, .. }]
                if *it == code && message.is_empty()),
            "{told:?}"
        );
        assert_eq!(epoch_of(&greet(&mut bench, ours).await), ours);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_everything_is_saved_is_sent_away_and_who_is_there_is_not_kept_for_long() {
    for is_over in [false, true] {
        local(async {
            let (mut bench, until) = Bench::within_a_lease();
            let client = bench.open().await;
            if is_over {
                until.move_to(Timestamp::default());
            }
            let saving = bench.coordinator.send(Save { saved: oneshot::channel().0 });
            let _ = saving.await;
            assert!(client.take().is_empty(), "it is to hear who goes on");
            let code_of = |told: Vec<ServerMessage>| match &told[..] {
                [ServerMessage::Goodbye { code, .. }] => *code,
                other => panic!("{other:?}"),
            };
            let late = bench.connect();
            late.submit(vec![hello(Attach::Observer)]);
            settle().await;
            if is_over {
                // Nothing is saved either, before the lease is renewed.
                assert!(late.take().is_empty());
            } else {
                assert_eq!(code_of(late.take()), GoodbyeCode::NotLeader, "not an empty table");
            }
            bench.coordinator.do_send(PartEarly);
            settle().await;
            assert_eq!(code_of(client.take()), GoodbyeCode::Draining);
            let last = bench.connect();
            settle().await;
            let _ = code_of(last.take());
            if is_over {
                assert_eq!(code_of(late.take()), GoodbyeCode::Draining);
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_no_more_tells_all_who_does_and_decides_nothing() {
    local(async {
        let (mut bench, until) = Bench::within_a_lease();
        let client = bench.open().await;
        until.move_to(Timestamp::default());
        client.submit(vec![try_request(1, "printer")]);
        let early = bench.connect();
        settle().await;
        let why = "b:5625".to_owned();
        bench.coordinator.do_send(CloseAll { code: GoodbyeCode::NotLeader, why });
        settle().await;
        let late = bench.connect();
        // It is not renewed for this one any more, whatever it says.
        until.move_to(FOR_EVER);
        tokio::time::sleep(A_LOOK).await;
        for told in [client.take(), early.take(), late.take()] {
            match &told[..] {
                [ServerMessage::Goodbye { code, rejection, message }] => {
                    assert_eq!((*code, message.as_str()), (GoodbyeCode::NotLeader, "b:5625"));
                    assert_eq!(*rejection, RejectionCode::NONE);
                }
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}
