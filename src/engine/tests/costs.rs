//! The cost of a message: bounded by its bytes, by the requests that it removes, and a constant,
//! whatever is stored. Counted in looks at stored things.

use proptest::prelude::*;

use super::*;
use crate::engine::arena::looks;
use crate::engine::grace::HOLDERS_COUNTED_MAX;
use crate::engine::lock::Lock;
use crate::engine::owner::REQUESTS_LOOKED_THROUGH_MAX;
use crate::types::Held;

/// What finding something may cost, among however many. A walk between two marks is of some hundred
/// things at most, and each is looked at for its order and for what follows it.
const FEW: u64 = 1_000;

const MANY: u64 = 65_000;

/// Everything of an earlier run has a token below this one.
const FIRST_TOKEN: u64 = 1 << 20;

/// A table without limits, to which two sessions came: by the connections 1 and 2.
struct Crowd {
    table: Table,
    effects: Vec<Effect>,
    now: Timestamp,
}

impl Crowd {
    fn new() -> Self {
        Self::begin(Some(Snapshot::default()))
    }

    /// After a crash.
    fn in_grace() -> Self {
        Self::begin(None)
    }

    fn begin(snapshot: Option<Snapshot>) -> Self {
        let tokens_below = FencingToken::new(1 << 30);
        let durable = Durable {
            epoch: Epoch::new(2),
            tokens_below,
            ttl_max: Some(Ttl::default()),
            settled: Epoch::new(1),
        };
        let (past, plausible) = (Past { snapshot, ..Past::default() }, plausible());
        let first_token = FencingToken::new(FIRST_TOKEN);
        let start = Start { durable, first_token, plausible, past };
        let limits = Limits { claims_per_session_max: usize::MAX, ..Limits::default() };
        let now = Timestamp::from_micros(1);
        let table = Table::new(limits, start, Seed::default(), now);
        let mut crowd = Self { table, effects: Vec::new(), now };
        for session in [1, 2] {
            let attach = Attach::Open {
                session: SessionId::new(session.into()),
                ttl: Ttl::default(),
                linger: None,
                identity: Identity::default(),
            };
            let (epoch_seen, token_seen) = (Epoch::default(), FencingToken::default());
            let connection = ConnectionId::new(session);
            crowd.step(&Event::Attach { connection, peer: None, attach, epoch_seen, token_seen });
        }
        crowd
    }

    /// Not with the invariants, which look at everything after every event. Says how many looks it
    /// took; none if a map grew by it, which walks over all that is in it, and seldom.
    fn step(&mut self, event: &Event) -> u64 {
        self.effects.clear();
        let before = self.table.places();
        let ((), looks) = looks::of(|| self.table.step(event, self.now, &mut self.effects));
        if self.table.places() == before { looks } else { 0 }
    }

    fn say(&mut self, session: u64, command: Command) -> u64 {
        self.step(&Event::Command { connection: ConnectionId::new(session), command })
    }

    /// The next of what is held by nobody else: that costs little.
    fn hold_many(&mut self, session: u64, request: &Request, count: u64) {
        for id in 1..=count {
            let id = RequestId::new(id);
            self.say(session, Command::Request(Request { id, ..request.clone() }));
        }
        assert_eq!(self.table.counts().held as u64, count);
    }

    fn reclaim(&mut self, id: u64, token: u64, claims: impl Into<Claims>) -> u64 {
        self.reclaim_for(0, id, token, claims)
    }

    fn reclaim_for(&mut self, owner: u64, id: u64, token: u64, claims: impl Into<Claims>) -> u64 {
        let (id, token, owner) =
            (RequestId::new(id), FencingToken::new(token), OwnerId::new(owner));
        let (lock_delay, at_least) = (Duration::ZERO, Duration::ZERO);
        let (note, claims) = (Note::default(), claims.into());
        let reclaim = Reclaim {
            id,
            token,
            sealed_in: Epoch::new(1),
            owner,
            lock_delay,
            at_least,
            note,
            claims,
        };
        self.say(1, Command::Reclaim(reclaim))
    }

    fn revoke(&mut self, name: &str, token: u64) -> u64 {
        let (connection, token) = (ConnectionId::new(9), FencingToken::new(token));
        let name = LockName::new(name).unwrap();
        let looks = self.step(&Event::Revoke { connection, query_id: 1, name, token });
        assert_eq!(self.effects.len(), 1, "{:?}", self.effects);
        looks
    }

    /// How the latest message was answered.
    fn news(&self) -> Option<&RequestEvent> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Tell { event, .. } => Some(event),
            _ => None,
        })
    }

    fn is_granted(&self) -> bool {
        matches!(self.news(), Some(RequestEvent::Granted { .. }))
    }

    fn is_lost_in_conflict(&self) -> bool {
        matches!(self.news(), Some(RequestEvent::Lost { reason: LostReason::Conflict, .. }))
    }
}

fn ask(name: &str, mode: Mode) -> Request {
    Request::new(RequestId::new(1), claim(name, mode).unwrap())
}

fn one_of(name: &str, of: u32) -> Claims {
    claim(name, Mode::permits(1, of).unwrap()).unwrap().into()
}

fn account(from: u64, to: u64, held: &[u64]) -> Command {
    let (from, to) = (RequestId::new(from), RequestId::new(to));
    let with_token = |id: &u64| Held {
        request: RequestId::new(*id),
        token: FencingToken::new(FIRST_TOKEN + id - 1),
    };
    let held = held.iter().map(with_token).collect();
    Command::Account(Account { from, to, held, waiting: Vec::new() })
}

/// A place that the run before has told.
fn place(arrival: u64) -> Place {
    Place { ticket: Ticket { epoch: 1, arrival }, told_in: Epoch::new(1) }
}

#[test]
fn an_account_costs_what_it_lists_and_drops_whatever_the_session_has() {
    let mut crowd = Crowd::new();
    crowd.hold_many(1, &ask("a", Mode::Shared), MANY);
    for (from, to) in [(u64::MAX, u64::MAX), (0, 0), (MANY / 2, MANY / 2 - 1)] {
        let looks = crowd.say(1, account(from, to, &[]));
        assert!(looks < FEW, "{looks} looks for none of {from} to {to}");
    }
    let listed: Vec<u64> = (30_000..30_100).collect();
    let looks = crowd.say(1, account(30_000, 30_099, &listed));
    assert!(looks < FEW, "{looks} looks for a hundred");
    assert_eq!(crowd.table.counts().held as u64, MANY);
    let looks = crowd.say(1, account(30_000, 30_099, &listed[1..99]));
    assert!(looks < FEW, "{looks} looks for a hundred of which two are dropped");
    assert_eq!(crowd.table.counts().held as u64, MANY - 2);
}

#[test]
fn a_revoke_finds_its_holder_or_none_whoever_else_holds() {
    let mut crowd = Crowd::new();
    crowd.hold_many(1, &ask("a", Mode::Shared), MANY);
    // A hole among the tokens.
    crowd.say(1, account(40_000, 40_000, &[]));
    for token in [0, 1, FIRST_TOKEN + 39_999, FIRST_TOKEN + MANY, u64::MAX] {
        let looks = crowd.revoke("a", token);
        assert!(matches!(crowd.effects[0], Effect::NotRevoked { .. }));
        assert!(looks < FEW, "{looks} looks for the token {token}");
    }
    for token in [0, 1, 1_000, MANY - 1].map(|nth| FIRST_TOKEN + nth) {
        let looks = crowd.revoke("a", token);
        assert!(matches!(crowd.effects[0], Effect::Record { .. }));
        assert!(looks < FEW, "{looks} looks for the token {token}");
    }
}

#[test]
fn what_an_owner_holds_of_a_lock_is_known_whatever_else_it_and_others_hold() {
    let mut crowd = Crowd::new();
    let of = u32::try_from(MANY).unwrap() + 2;
    // All but two permits are others', two its own.
    let others = Request { claims: one_of("full", of), ..ask("full", Mode::Shared) };
    crowd.hold_many(1, &others, MANY);
    let owner = OwnerId::new(5);
    for id in 1..=MANY {
        let claims = if id == 7 || id == 9_999 {
            one_of("full", of)
        } else {
            claim(&format!("own-{id}"), Mode::Exclusive).unwrap().into()
        };
        let request = Request { id: RequestId::new(id), owner, claims, ..ask("a", Mode::Shared) };
        let looks = crowd.say(2, Command::Request(request));
        // For one, those there are are looked through.
        let most = if id == REQUESTS_LOOKED_THROUGH_MAX as u64 + 1 { 2 * FEW } else { FEW };
        assert!(looks < most, "{looks} looks for request {id}");
    }
    let rest = |id, take| Request {
        id: RequestId::new(id),
        owner,
        wait: Wait::Never,
        claims: claim("full", Mode::permits(take, of).unwrap()).unwrap().into(),
        ..ask("full", Mode::Shared)
    };
    let looks = crowd.say(2, Command::Request(rest(MANY + 1, 1)));
    assert!(matches!(crowd.news(), Some(RequestEvent::Rejected(Rejection::Busy { .. }))));
    assert!(looks < FEW, "{looks} looks");
    // All but one are not there for who has two.
    let looks = crowd.say(2, Command::Request(rest(MANY + 2, of - 1)));
    let Some(RequestEvent::Rejected(Rejection::AlreadyHeld { token, .. })) = crowd.news() else {
        panic!("{:?}", crowd.news())
    };
    assert_eq!(token.number(), FIRST_TOKEN + MANY + 9_998);
    assert!(looks < FEW, "{looks} looks");
    crowd.table.assert_each_is_well();
    // What is given back is not counted any more.
    for id in [7, 9_999] {
        crowd.say(2, Command::Cancel { request: RequestId::new(id) });
    }
    crowd.say(2, Command::Request(rest(MANY + 3, of - 1)));
    assert!(matches!(crowd.news(), Some(RequestEvent::Rejected(Rejection::Busy { .. }))));
    crowd.table.assert_each_is_well();
}

#[test]
fn a_conversion_takes_its_place_behind_however_many_others() {
    const CONVERSIONS: u64 = 29_000;
    // In a grace period, so that it is not asked yet whether they are in a deadlock.
    let mut crowd = Crowd::in_grace();
    let (rest, of) = (1_000_000, 1_030_000);
    crowd.reclaim(MANY, MANY, claim("c", Mode::permits(rest, of).unwrap()).unwrap());
    for id in 1..=CONVERSIONS {
        crowd.reclaim(id, id, one_of("c", of));
    }
    for id in 1..=CONVERSIONS {
        let looks = crowd.say(
            1,
            Command::Request(Request {
                id: RequestId::new(100_000 + id),
                converts: Some(RequestId::new(id)),
                claims: claim("c", Mode::permits(2, of).unwrap()).unwrap().into(),
                progress: Progress::Told,
                ..ask("c", Mode::Shared)
            }),
        );
        assert!(looks < FEW, "{looks} looks for conversion {id}");
        let told = crowd.news();
        assert!(
            matches!(told, Some(RequestEvent::Queued { position, .. }) if u64::from(*position) == id),
            "{told:?} is not {id}"
        );
    }
}

#[test]
fn of_thousands_who_convert_permits_of_one_semaphore_none_costs_more_than_the_first() {
    const CONVERSIONS: u64 = 5_000;
    let mut crowd = Crowd::new();
    let (rest, of) = (1_000_000, 1_005_000);
    let one = |take| Mode::permits(take, of).unwrap();
    crowd.hold_many(1, &ask("c", one(1)), CONVERSIONS);
    crowd.say(2, Command::Request(ask("c", one(rest))));
    assert!(crowd.is_granted());
    for id in 1..=CONVERSIONS {
        let (id, converts) = (RequestId::new(100_000 + id), Some(RequestId::new(id)));
        let convert = Request { id, converts, ..ask("c", one(2)) };
        let looks = crowd.say(1, Command::Request(convert));
        assert!(matches!(crowd.news(), Some(RequestEvent::Queued { .. })), "{:?}", crowd.news());
        assert!(looks < FEW, "{looks} looks for {id}");
    }
    crowd.table.assert_each_is_well();
}

#[test]
fn tickets_that_come_back_in_falling_order_take_their_places_at_once() {
    let mut crowd = Crowd::in_grace();
    for id in 1..=40_000 {
        let place = Some(place(100_000 - id));
        // Every other one stands in the row of the entangled, too.
        let owner = OwnerId::new(id % 2);
        let request = Request { id: RequestId::new(id), place, owner, ..ask("a", Mode::Exclusive) };
        let looks = crowd.say(1, Command::Request(request));
        assert!(looks < FEW, "{looks} looks for {id}");
    }
    let first = crowd.table.lock("a").unwrap().waiters().next().unwrap();
    assert_eq!(first.request, RequestId::new(40_000));
    crowd.table.assert_each_is_well();
}

#[test]
fn each_of_65_000_sharers_reclaims_at_the_cost_of_one() {
    let mut crowd = Crowd::in_grace();
    for nth in 0..MANY {
        // All in no order: 7 and 65,000 have no divisor in common.
        let id = 1 + nth * 7_919 % MANY;
        let looks = crowd.reclaim(id, id, claim("a", Mode::Shared).unwrap());
        assert!(crowd.is_granted(), "{:?}", crowd.news());
        assert!(looks < FEW, "{looks} looks for {id}");
    }
    let holders = crowd.table.lock("a").unwrap();
    assert!(holders.holders().map(|holder| holder.token.number()).eq(1..=MANY));
    crowd.table.assert_each_is_well();
}

#[test]
fn who_loses_to_a_reclaim_is_looked_for_only_if_that_makes_room() {
    let mut crowd = Crowd::in_grace();
    for id in 1..=MANY {
        crowd.reclaim(id, 2 * id, claim("a", Mode::Shared).unwrap());
    }
    // The last of them stays, so nobody goes.
    let looks = crowd.reclaim(MANY + 1, 2 * MANY - 1, claim("a", Mode::Exclusive).unwrap());
    assert!(crowd.is_lost_in_conflict());
    assert!(looks < FEW, "{looks} looks");
    assert_eq!(crowd.table.counts().held as u64, MANY);
    // All go, as the other lock would do, but for the third.
    let all = ["a", "b", "c"].map(|name| claim(name, Mode::Exclusive).unwrap());
    crowd.reclaim(MANY + 2, 3 * MANY, claim("c", Mode::Shared).unwrap());
    let looks = crowd.reclaim(MANY + 3, 3 * MANY - 1, Claims::new(all.clone()).unwrap());
    assert!(crowd.is_lost_in_conflict());
    assert!(looks < FEW, "{looks} looks");
    let looks = crowd.reclaim(MANY + 4, 3 * MANY + 1, Claims::new(all).unwrap());
    assert!(crowd.is_granted());
    assert_eq!(crowd.table.counts().held, 1);
    let each = looks / MANY;
    assert!(each < 200, "{each} looks for each of those who go");
}

#[test]
fn the_least_tokens_lose_to_a_reclaim_and_no_more_than_make_room() {
    let mut crowd = Crowd::in_grace();
    for id in 1..=1_000 {
        crowd.reclaim(id, id, one_of("a", 1_000));
    }
    let looks = crowd.reclaim(2_000, 2_000, one_of("a", 1_000));
    assert!(crowd.is_granted());
    assert!(looks < FEW, "{looks} looks");
    let least = crowd.table.lock("a").unwrap().holders().next().unwrap();
    assert_eq!(least.token.number(), 2);
    let five = claim("a", Mode::permits(5, 1_000).unwrap()).unwrap();
    crowd.reclaim(3_000, 1_001, five);
    assert!(crowd.is_granted());
    let left: Vec<u64> =
        crowd.table.lock("a").unwrap().holders().map(|holder| holder.token.number()).collect();
    let expected: Vec<u64> = (7..=1_001).chain([2_000]).collect();
    assert_eq!(left, expected);
}

#[test]
fn of_a_semaphore_1_024_holders_are_counted_from_either_end_and_not_one_more() {
    // So many would go, and as many or more would stay.
    let reclaims = |going: u32| {
        let mut crowd = Crowd::in_grace();
        let of = going + 2_000;
        for id in 1..=u64::from(of) {
            crowd.reclaim(id, if id > going.into() { 10_000 + id } else { id }, one_of("a", of));
        }
        let all = claim("a", Mode::permits(going, of).unwrap()).unwrap();
        let looks = crowd.reclaim(20_000, 10_000, all);
        (crowd, looks)
    };
    let max = u32::try_from(HOLDERS_COUNTED_MAX).unwrap();
    let (crowd, _) = reclaims(max);
    assert!(crowd.is_granted());
    assert_eq!(crowd.table.counts().held, 2_001);
    let (crowd, looks) = reclaims(max + 1);
    assert!(crowd.is_lost_in_conflict());
    assert_eq!(crowd.table.counts().held, 2_000 + HOLDERS_COUNTED_MAX + 1);
    assert!(looks < 12 * HOLDERS_COUNTED_MAX as u64, "{looks} looks");
}

#[test]
fn a_lock_takes_no_more_memory_for_having_marks() {
    assert!(size_of::<Lock>() <= 72, "{} bytes", size_of::<Lock>());
}

/// Something that happens in a crowd that comes back.
#[derive(Clone, Debug)]
enum Step {
    /// So many reclaim, with tokens that are so far from each other.
    Reclaim { from: u64, every: u64, count: u64, mode: Mode },
    /// So many come back to their places.
    Requeue { from: u64, every: u64, count: u64, owner: u64 },
    /// So many of what is held are to be converted, some with the places that they had.
    Convert { nth: usize, count: usize, ticket: Option<u64> },
    /// Of those that hold, and of those that wait, so many leave.
    Leave { nth: usize, count: usize, holders: bool },
    /// A client lists nothing of a part.
    Account { from: u64, count: u64 },
}

const TOKENS: u64 = 3_000;

fn a_step() -> impl Strategy<Value = Step> {
    let (from, every, count) = (1..TOKENS, 1..9u64, 1..200u64);
    let mode = prop_oneof![
        3 => Just(Mode::Shared),
        1 => Just(Mode::Exclusive),
        3 => (1..3u32).prop_map(|take| Mode::Permits { take, of: 500 }),
    ];
    prop_oneof![
        4 => (from.clone(), every.clone(), count.clone(), mode)
            .prop_map(|(from, every, count, mode)| Step::Reclaim { from, every, count, mode }),
        4 => (from.clone(), every, count.clone(), 0..3u64)
            .prop_map(|(from, every, count, owner)| Step::Requeue { from, every, count, owner }),
        2 => (0..500usize, 1..200usize, prop::option::of(from.clone()))
            .prop_map(|(nth, count, ticket)| Step::Convert { nth, count, ticket }),
        3 => (0..500usize, 1..200usize, any::<bool>())
            .prop_map(|(nth, count, holders)| Step::Leave { nth, count, holders }),
        1 => (from, count).prop_map(|(from, count)| Step::Account { from, count }),
    ]
}

impl Crowd {
    /// Ids are those of tokens and tickets, so that they come in any order, too; each once.
    fn play(&mut self, step: &Step, latest: &mut u64) {
        match *step {
            Step::Reclaim { from, every, count, mode } => {
                let name = if Mode::Shared == mode || Mode::Exclusive == mode { "a" } else { "p" };
                for token in (0..count).map(|nth| 1 + (from + nth * every) % TOKENS) {
                    // A token is of one grant.
                    let has_it = |lock: &LockView<'_>| {
                        lock.holders().any(|holder| holder.token.number() == token)
                    };
                    if !self.table.locks(0).any(|(_, lock)| has_it(&lock)) {
                        *latest += 1;
                        let id = TOKENS * (TOKENS - token) + *latest;
                        self.reclaim_for(token % 3, id, token, claim(name, mode).unwrap());
                    }
                }
            }
            Step::Requeue { from, every, count, owner } => {
                for arrival in (0..count).map(|nth| 1 + (from + nth * every) % TOKENS) {
                    let place = Some(place(arrival));
                    let owner = OwnerId::new(owner);
                    self.ask(latest, Request { owner, place, ..ask("a", Mode::Shared) });
                }
            }
            Step::Convert { nth, count, ticket } => {
                for (id, owner, lock, mode) in self.found(nth, count, true) {
                    let converts = Some(id);
                    let place = ticket.map(place);
                    let mode = match mode {
                        Mode::Permits { of, .. } => Mode::Permits { take: of, of },
                        Mode::Shared | Mode::Exclusive => Mode::Exclusive,
                    };
                    self.ask(latest, Request { owner, converts, place, ..ask(&lock, mode) });
                }
            }
            Step::Leave { nth, count, holders } => {
                for (request, ..) in self.found(nth, count, holders) {
                    self.say(1, Command::Cancel { request });
                }
            }
            Step::Account { from, count } => {
                let from = TOKENS * from;
                self.say(1, account(from, from + count * TOKENS, &[]));
            }
        }
    }

    fn ask(&mut self, latest: &mut u64, request: Request) {
        *latest += 1;
        let id = RequestId::new(TOKENS * TOKENS + *latest);
        self.say(1, Command::Request(Request { id, ..request }));
    }

    /// Some of those who hold, or wait.
    fn found(
        &self,
        nth: usize,
        count: usize,
        hold: bool,
    ) -> Vec<(RequestId, OwnerId, String, Mode)> {
        let mut found = Vec::new();
        for (_, lock) in self.table.locks(0) {
            let name = lock.name().as_str();
            if hold {
                found.extend(
                    lock.holders().map(|it| (it.request, it.owner, name.to_owned(), it.mode)),
                );
            } else {
                found.extend(
                    lock.waiters().map(|it| (it.request, it.owner, name.to_owned(), it.mode)),
                );
            }
        }
        found.into_iter().skip(nth).take(count).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whoever_comes_back_and_leaves_in_a_crowd_rows_are_in_order(
        steps in prop::collection::vec(a_step(), 1..30)
    ) {
        let (mut crowd, mut latest) = (Crowd::in_grace(), 0);
        for step in &steps {
            crowd.play(step, &mut latest);
            crowd.table.assert_each_is_well();
        }
        crowd.say(1, Command::Goodbye);
        crowd.say(2, Command::Goodbye);
        while crowd.table.has_deferred() {
            crowd.step(&Event::Tick { heard: crowd.now });
        }
        crowd.table.assert_each_is_well();
        prop_assert_eq!(crowd.table.counts().locks, 0);
    }
}
