use super::*;
use crate::engine::seed::Seed;
use crate::engine::{Durable, Past, Start};
use crate::types::{Epoch, Limits, Mode, Timestamp};

type Table = LockTable;

fn session(id: u128) -> SavedSession {
    SavedSession {
        id: SessionId::new(id),
        generation: Generation::new(1),
        identity: Identity::default(),
        ttl: Ttl::default(),
        linger: None,
        age: Duration::ZERO,
        is_reopened: false,
        latest_request: RequestId::new(9),
        finished: Vec::new(),
        unattended: None,
    }
}

fn claim(name: &str, mode: Mode) -> Claim {
    Claim { name: LockName::new(name).unwrap(), mode }
}

/// Waits, or holds with this token.
fn request(session: u128, id: u64, token: Option<u64>, claims: Vec<Claim>) -> SavedRequest {
    SavedRequest {
        session: SessionId::new(session),
        id: RequestId::new(id),
        owner: OwnerId::default(),
        converts: None,
        token: token.map(FencingToken::new),
        replaced: None,
        timeout_left: None,
        ticket: Ticket { epoch: 1, arrival: id },
        age: Duration::ZERO,
        told: false,
        lock_delay: Duration::ZERO,
        at_least: Duration::ZERO,
        supersedes: false,
        note: Note::default(),
        claims,
    }
}

/// The next run, after a stop that left this.
fn next_run(sessions: Vec<SavedSession>, requests: Vec<SavedRequest>) -> Table {
    let snapshot = Snapshot { sessions, requests, forfeited: None, delays: Vec::new() };
    let first_token = FencingToken::new(1 << 20);
    let durable = Durable {
        epoch: Epoch::new(2),
        tokens_below: FencingToken::new(1 << 21),
        ttl_max: Some(Ttl::default()),
        settled: Epoch::new(1),
    };
    let past = Past { snapshot: Some(snapshot), ..Past::default() };
    let start = Start { durable, first_token, plausible: durable, past };
    let now = Timestamp::from_micros(1_000_000);
    let table = Table::new(Limits::default(), start, Seed::default(), now);
    table.assert_invariants();
    table
}

/// How many requests hold, and how many wait.
fn held_and_waiting(table: &Table) -> (usize, usize) {
    (table.counts().held, table.counts().waiting)
}

#[test]
fn what_is_not_of_one_piece_is_left_out() {
    let a = || vec![claim("a", Mode::Exclusive)];
    let permits = |take, of| vec![claim("pool", Mode::Permits { take, of })];
    let (sessions, held) =
        (|| vec![session(1), session(2)], |claims| request(1, 1, Some(1), claims));
    let one_held = |more| held_and_waiting(&next_run(sessions(), vec![held(a()), more]));
    // Of two holders of what one can hold, of two requests with one name.
    assert_eq!(one_held(request(2, 1, Some(2), a())), (1, 0));
    assert_eq!(one_held(request(1, 1, Some(2), vec![claim("b", Mode::Shared)])), (1, 0));
    // Of a session that is not there, of no lock, of one lock held as two things.
    assert_eq!(one_held(request(3, 1, None, a())), (1, 0));
    assert_eq!(one_held(request(2, 1, None, Vec::new())), (1, 0));
    let as_permits = || vec![claim("a", Mode::Permits { take: 1, of: 2 })];
    assert_eq!(one_held(request(2, 1, Some(2), as_permits())), (1, 0));
    // Of what converts nothing.
    let converts = Some(RequestId::new(5));
    assert_eq!(one_held(SavedRequest { converts, ..request(1, 2, None, a()) }), (1, 0));
    // But what fits together is taken over, and who waits to use it as something else.
    assert_eq!(one_held(request(2, 1, None, a())), (1, 1));
    assert_eq!(one_held(request(2, 1, None, as_permits())), (1, 1));
    let two = vec![held(permits(1, 2)), request(2, 1, Some(2), permits(1, 2))];
    assert_eq!(held_and_waiting(&next_run(sessions(), two)), (2, 0));
}

#[test]
fn of_two_sessions_with_one_name_the_first_is_taken_over() {
    let longer = SavedSession { generation: Generation::new(5), ..session(1) };
    let table = next_run(vec![session(1), longer], Vec::new());
    assert_eq!(table.counts().sessions, 1);
    let key = table.sessions.find(SessionId::new(1)).unwrap();
    assert_eq!(table.sessions[key].generation, Generation::new(1));
}

#[test]
fn a_snapshot_says_how_much_it_holds_and_is_the_same_after_it_was_taken_over() {
    let shared = || vec![claim("a", Mode::Shared), claim("b", Mode::Permits { take: 1, of: 3 })];
    let table = next_run(
        vec![session(1), SavedSession { linger: Some(Duration::from_secs(1)), ..session(2) }],
        vec![
            request(1, 1, Some(1), shared()),
            SavedRequest { age: Duration::from_millis(3), ..request(2, 7, Some(3), shared()) },
            SavedRequest {
                owner: OwnerId::new(3),
                timeout_left: Some(Duration::from_secs(5)),
                told: true,
                lock_delay: Duration::from_secs(2),
                at_least: Duration::from_secs(300),
                note: Note::new("upgrade").unwrap(),
                ..request(2, 8, None, vec![claim("a", Mode::Exclusive)])
            },
        ],
    );
    let snapshot = table.snapshot();
    assert_eq!((snapshot.session_count(), snapshot.request_count()), (2, 3));
    let Snapshot { sessions, requests, .. } = snapshot.clone();
    assert_eq!(next_run(sessions, requests).snapshot(), snapshot);
}

/// Many sessions, each of which holds something and waits for something.
fn crowd(count: u64) -> Table {
    let ids = || 1..=count;
    let held = |id| vec![claim(&format!("lock number {id}"), Mode::Exclusive)];
    let awaited = |id| vec![claim(&format!("lock number {}", id % count + 1), Mode::Exclusive)];
    let sessions = ids().map(|id| session(id.into())).collect();
    let holding = ids().map(|id| request(id.into(), 1, Some(id), held(id)));
    let waiting = ids().map(|id| request(id.into(), 2, None, awaited(id)));
    next_run(sessions, holding.chain(waiting).collect())
}

#[test]
fn a_snapshot_in_pieces_is_the_same_in_bytes() {
    use bincode::Options;

    let table = crowd(50);
    let options = || bincode::DefaultOptions::new().with_fixint_encoding();
    let whole = options().serialize(&table.snapshot()).unwrap();
    assert_eq!(options().serialize(&table.as_snapshot()).unwrap(), whole);
    let again: Snapshot = options().deserialize(&whole).unwrap();
    assert_eq!(again, table.snapshot());
    assert_eq!((again.session_count(), again.request_count()), (50, 100));
}

#[test]
fn a_snapshot_in_pieces_takes_memory_for_one_at_a_time() {
    let table = crowd(2_000);
    let taken = allocation_counter::measure(|| {
        bincode::serialize_into(std::io::sink(), &table.as_snapshot()).unwrap();
    });
    let requests = 4_000;
    // A key of four bytes for each, and half as much again to bring them in order.
    assert!(taken.bytes_max < requests * 12, "{taken:?}");
}
