use log::Level;
use tokio::sync::mpsc::unbounded_channel;

use super::*;
#[cfg(feature = "cluster")]
use crate::cluster::{Event as Heard, Mark, RunId, Version};
#[cfg(feature = "cluster")]
use crate::election::Pledge;
use crate::engine::{Event, LockTable, Seed};
use crate::journal::Distance;
#[cfg(feature = "cluster")]
use crate::journal::simulated::{Faults, SimulatedDisk};
#[cfg(feature = "cluster")]
use crate::journal::{Bounds, Place};
use crate::server::durable::chronicle::Ground;
#[cfg(feature = "cluster")]
use crate::server::durable::chronicle::Medium;
use crate::server::fields::Fields;
use crate::server::ledger::Ledger;
#[cfg(feature = "cluster")]
use crate::server::replica::Feed;
use crate::server::testing::{collector, local, settle, start_with};
use crate::types::{ConnectionId, Epoch, Limits, Timestamp};

fn delivery(bytes: usize, more: More) -> Turn {
    let deliver = Deliver { bytes, ..Deliver::default() };
    let deliveries = vec![Delivery { way: Way(0), deliver, more }];
    Turn { deliveries, ..Turn::default() }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_counted_up_to_the_bound_and_one_byte_past_it_its_connection_is_closed() {
    local(async {
        let ledger = Arc::new(Ledger::default());
        let account = ledger.open();
        let (session, batches) = collector();
        let mut gate = Gate::new(unbounded_channel().0);
        let link = Link { session, share: account.share() };
        let way = gate.connect(ConnectionId::new(1), link);
        assert_eq!(way, Way(0));
        gate.pass(&mut delivery(BATCH_BYTES_MAX, More::Perhaps));
        settle().await;
        assert_eq!((ledger.total(), batches.take().len()), (BATCH_BYTES_MAX, 1));
        assert!(!account.is_closed());

        gate.pass(&mut delivery(BATCH_BYTES_MAX + 1, More::Perhaps));
        settle().await;
        assert!(batches.take().is_empty());
        assert!(account.is_closed());
        assert_eq!(ledger.total(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_follows_a_last_delivery_and_nothing_is_kept_of_its_connection() {
    local(async {
        let account = Arc::new(Ledger::default()).open();
        let (session, batches) = collector();
        let mut gate = Gate::new(unbounded_channel().0);
        let link = Link { session, share: account.share() };
        let way = gate.connect(ConnectionId::new(1), link);
        assert_eq!(way, Way(0));
        for _ in 0..2 {
            gate.pass(&mut delivery(1, More::Never));
        }
        settle().await;
        assert_eq!(batches.take().len(), 1);
        assert!(gate.links.is_empty());
    })
    .await;
}

fn table() -> LockTable {
    let (limits, now) = (Limits::default(), Timestamp::default());
    LockTable::new(limits, start_with(1 << 20), Seed::default(), now)
}

/// A turn that brought the engine something, and has so many bytes for the connection.
fn written_down(bytes: usize) -> Turn {
    let mut turn = delivery(bytes, More::Perhaps);
    let event = Event::Disconnect { connection: ConnectionId::new(9) };
    turn.record.write(&event, Timestamp::default());
    turn
}

/// A synced journal that has begun, and where it is.
fn begun() -> (tempfile::TempDir, Chronicle) {
    let data = tempfile::tempdir().unwrap();
    let (last, next) = (Epoch::new(6), Epoch::new(7));
    let ground = Ground::of(data.path()).unwrap();
    let mut chronicle = Chronicle::on(ground, Distance::Machine, last, next);
    assert!(chronicle.begin(&table()));
    (data, chronicle)
}

#[tokio::test(start_paused = true)]
async fn the_log_tells_of_what_is_written_down_and_of_nothing_before() {
    local(async {
        let (_data, chronicle) = begun();
        let mut gate = Gate::behind(Some(chronicle), unbounded_channel().0);
        let waits = |gate: &Gate| {
            !(gate.held_lines.is_empty() && gate.written.iter().all(|part| part.lines.is_empty()))
        };
        // As when a lease expires, of which nobody is told but the log.
        let mut turn = Turn::default();
        turn.record.write(&Event::Drain, Timestamp::default());
        let line = Fields::default().line(Level::Info, format_args!("lease expired"));
        turn.lines.push(line);
        gate.pass(&mut turn);
        assert!(waits(&gate), "the log tells of what no disk knows");
        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        assert!(waits(&gate), "the log tells of what is not synced");
        gate.written(Some(job.run()));
        assert!(!waits(&gate), "the log does not tell of it");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_while_a_thread_syncs_and_then_what_it_synced_and_no_more() {
    local(async {
        let (_data, chronicle) = begun();
        let ledger = Arc::new(Ledger::default());
        let account = ledger.open();
        let (session, batches) = collector();
        let (orders, mut ordered) = unbounded_channel();
        let mut gate = Gate::behind(Some(chronicle), orders);
        let link = Link { session, share: account.share() };
        gate.connect(ConnectionId::new(1), link);
        let said = || batches.borrow().iter().map(|it| it.bytes).collect::<Vec<_>>();

        let mut first = written_down(1);
        first.orders.push(Change::ForgetForfeits { below: 5 });
        gate.pass(&mut first);
        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        gate.pass(&mut written_down(2));
        assert!(matches!(gate.flush(), Some(Flushed::Later)));
        settle().await;
        assert_eq!(said(), [0; 0]);
        assert!(ordered.try_recv().is_err(), "an order goes out before its event");
        assert_eq!(ledger.total(), 3, "what waits here is counted");
        assert!(matches!(gate.written(Some(job.run())), Some(Flushed::Written(_))));
        settle().await;
        assert_eq!(said(), [1]);
        assert!(ordered.try_recv().is_ok());

        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        settle().await;
        assert_eq!(said(), [1]);
        // What cannot be written is said when nobody takes the journal for complete any more.
        drop(job);
        assert!(matches!(gate.written(None), Some(Flushed::Off)));
        settle().await;
        assert_eq!(said(), [1, 2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_promises_that_it_is_written_down_is_not_said_when_it_is_not() {
    local(async {
        let (_data, chronicle) = begun();
        let account = Arc::new(Ledger::default()).open();
        let (session, batches) = collector();
        let mut gate = Gate::behind(Some(chronicle), unbounded_channel().0);
        gate.connect(ConnectionId::new(1), Link { session, share: account.share() });
        let promising = |bytes| {
            let mut turn = written_down(bytes);
            turn.deliveries[0].deliver.promise = Promise::Recorded;
            turn
        };
        gate.pass(&mut promising(1));
        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        gate.written(Some(job.run()));
        for bytes in 2..4 {
            gate.pass(&mut promising(bytes));
            if let Some(Flushed::Writing(job)) = gate.flush() {
                drop(job);
            }
        }
        gate.pass(&mut written_down(4));
        assert!(matches!(gate.written(None), Some(Flushed::Off)));
        settle().await;
        let said: Vec<_> = batches.take().iter().map(|it| (it.bytes, it.promise)).collect();
        let [done, none] = [Promise::Recorded, Promise::None];
        assert_eq!(said, [(1, done), (2, Promise::Void), (3, Promise::Void), (4, none)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_disk_that_hangs_is_bounded_for_all_connections_together() {
    local(async {
        let (_data, chronicle) = begun();
        let ledger = Arc::new(Ledger::new(1000));
        let account = ledger.open();
        let (session, _batches) = collector();
        let mut gate = Gate::behind(Some(chronicle), unbounded_channel().0);
        let link = Link { session, share: account.share() };
        gate.connect(ConnectionId::new(1), link);
        for _ in 0..10 {
            gate.pass(&mut written_down(100));
            assert!(matches!(gate.flush(), Some(Flushed::Writing(_) | Flushed::Later)));
        }
        assert_eq!((ledger.total(), account.is_closed()), (1000, false));
        gate.pass(&mut written_down(1));
        assert!(matches!(gate.flush(), Some(Flushed::Later)));
        assert_eq!((ledger.total(), account.is_closed()), (0, true));
    })
    .await;
}

/// A gate at which standbys stand, with a journal on a disk of a simulation.
#[cfg(feature = "cluster")]
fn followed() -> (SimulatedDisk, Pledge, Feed, Gate) {
    let disk = SimulatedDisk::default();
    let ground = Ground {
        medium: Medium::Simulated(disk.clone()),
        place: Place::default(),
        id: 5,
        bounds: Bounds::default(),
        state: [0; 16],
    };
    let (last, next) = (Epoch::new(6), Epoch::new(7));
    let mut chronicle = Chronicle::on(ground, Distance::Machine, last, next);
    assert!(chronicle.begin(&table()));
    let pledge = Pledge::of_leader();
    let feed = Feed::new(pledge.tenure(1));
    let mut gate = Gate::behind(Some(chronicle), unbounded_channel().0);
    gate.threshold = Threshold::at(feed.clone());
    (disk, pledge, feed, gate)
}

/// All that waits to be written down is.
#[cfg(feature = "cluster")]
fn writes(gate: &mut Gate) {
    let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
    gate.written(Some(job.run()));
}

#[cfg(feature = "cluster")]
#[tokio::test(start_paused = true)]
async fn p8_what_a_disk_refuses_is_said_once_it_can_be_void_and_until_then_it_is_known_since_when()
{
    local(async {
        let (disk, pledge, feed, mut gate) = followed();
        let ledger = Arc::new(Ledger::default());
        let account = ledger.open();
        let (session, batches) = collector();
        gate.connect(ConnectionId::new(1), Link { session, share: account.share() });
        let following = feed.begin(RunId(Mark { process: 5, attempt: 0 }));
        following.acknowledged(feed.seal()).unwrap();
        pledge.hear(&Heard::Swapped { version: Version(2) });
        // Written, and the standby has yet to hear it.
        gate.pass(&mut written_down(9));
        writes(&mut gate);
        gate.pass(&mut written_down(1));
        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        let [writes_fail, truncates_fail, removes_fail] = [true; 3];
        disk.set_faults(Faults { writes_fail, truncates_fail, removes_fail, ..Faults::default() });
        assert!(matches!(gate.written(Some(job.run())), Some(Flushed::Stuck)));
        gate.pass(&mut written_down(2));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!(matches!(gate.flush(), Some(Flushed::Stuck)));
        assert_eq!(gate.halted_for(), Duration::from_secs(3));
        settle().await;
        assert!(batches.borrow().is_empty(), "a crash would forget it, and nobody would know");
        disk.set_faults(Faults::default());
        assert!(matches!(gate.flush(), Some(Flushed::Off)));
        assert!(!feed.is_followed(), "nobody follows what is not written down");
        settle().await;
        assert!(batches.borrow().is_empty(), "the standby is in the seat");
        gate.pass(&mut written_down(4));
        let asks_again = !matches!(gate.flush(), Some(Flushed::Later));
        assert!(!asks_again, "a disk is asked again and again for what may not be said yet");
        assert_eq!(ledger.total(), 16, "what waits here is counted");
        pledge.hear(&Heard::Swapped { version: Version(3) });
        gate.try_threshold();
        gate.flush();
        settle().await;
        let said: Vec<_> = batches.take().iter().map(|it| it.bytes).collect();
        assert_eq!((said, gate.halted_for()), (vec![9, 1, 2, 4], Duration::ZERO));
    })
    .await;
}

#[cfg(feature = "cluster")]
#[tokio::test(start_paused = true)]
async fn p8_a_journal_that_was_begun_with_the_table_of_now_lets_all_out_that_waited_for_it() {
    local(async {
        let (disk, _pledge, _, mut gate) = followed();
        let account = Arc::new(Ledger::default()).open();
        let (session, batches) = collector();
        gate.connect(ConnectionId::new(1), Link { session, share: account.share() });
        gate.pass(&mut written_down(1));
        let Some(Flushed::Writing(job)) = gate.flush() else { panic!("it is not synced") };
        let [writes_fail, truncates_fail, removes_fail] = [true; 3];
        disk.set_faults(Faults { writes_fail, truncates_fail, removes_fail, ..Faults::default() });
        assert!(matches!(gate.written(Some(job.run())), Some(Flushed::Stuck)));
        disk.set_faults(Faults::default());
        assert!(gate.chronicle().unwrap().begin(&table()));
        gate.begun_anew();
        settle().await;
        assert_eq!((batches.take().len(), gate.halted_for()), (1, Duration::ZERO));
    })
    .await;
}

#[cfg(feature = "cluster")]
#[tokio::test(start_paused = true)]
async fn p1_what_comes_while_a_standby_is_waited_for_goes_behind_and_is_said_when_that_has_it() {
    local(async {
        let (_disk, pledge, feed, mut gate) = followed();
        let account = Arc::new(Ledger::default()).open();
        let (session, batches) = collector();
        gate.connect(ConnectionId::new(1), Link { session, share: account.share() });
        let said = || batches.borrow().iter().map(|it| it.bytes).collect::<Vec<_>>();
        let following = feed.begin(RunId(Mark { process: 5, attempt: 0 }));
        following.acknowledged(feed.seal()).unwrap();
        pledge.hear(&Heard::Swapped { version: Version(2) });
        for bytes in [1, 2] {
            gate.pass(&mut written_down(bytes));
            writes(&mut gate);
            assert!(matches!(gate.flush(), Some(Flushed::Later)), "nothing more is to be said");
        }
        gate.pass(&mut written_down(3));
        assert!(matches!(gate.flush(), Some(Flushed::Later)), "too much is under way");
        settle().await;
        assert!(said().is_empty());
        following.acknowledged(2).unwrap();
        gate.try_threshold();
        settle().await;
        assert_eq!(said(), [1], "the standby has no more");
        writes(&mut gate);
        for (position, all) in [(3, &[1, 2][..]), (4, &[1, 2, 3])] {
            following.acknowledged(position).unwrap();
            gate.try_threshold();
            settle().await;
            assert_eq!(said(), all);
        }
    })
    .await;
}
