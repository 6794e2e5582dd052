use std::collections::BTreeSet;

use super::super::render;
use super::*;
use crate::server::durable::store::{Change, Stored};
use crate::types::{FencingToken, Generation, RequestId, SessionId, Standing, Ttl};
use crate::wire;

const KEY: StateKey = StateKey::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
const RUN: Epoch = Epoch(5);
const SESSION: SessionId = SessionId(7);
const REQUEST: RequestId = RequestId(9);
/// Taken two epochs before it was told.
const PLACE: Place = Place { ticket: Ticket { epoch: 3, arrival: 4 }, told_in: RUN };

type Named = (LockName, Mode);

fn named(claims: &[(&str, Mode)]) -> Vec<Named> {
    claims.iter().map(|(text, mode)| (LockName::new(*text).unwrap(), *mode)).collect()
}

fn each(claims: &[Named]) -> impl Iterator<Item = (&LockName, Mode)> {
    claims.iter().map(|(name, mode)| (name, *mode))
}

fn grant(session: u128, token: u64, request: u64) -> Sealed {
    Sealed {
        session: SessionId::new(session),
        token: FencingToken::new(token),
        request: RequestId::new(request),
    }
}

fn seal(sealer: &Sealer, grant: Sealed, claims: &[(&str, Mode)]) -> u128 {
    sealer.seal(grant, RUN, each(&named(claims))).reveal()
}

#[cfg(feature = "cluster")]
#[test]
fn h7_a_proof_of_one_cluster_proves_nothing_in_another_that_has_its_key() {
    let (one, other) = (Sealer::new(KEY.of_cluster("prod")), Sealer::new(KEY.of_cluster("prod-2")));
    let secret = one.secret(SESSION, RUN, None);
    assert_eq!(one.run_of_secret(secret, SESSION, None), Some(RUN));
    assert_eq!(other.run_of_secret(secret, SESSION, None), None);
    let claims = [("printer", Mode::Exclusive)];
    assert_ne!(seal(&one, grant(7, 8, 9), &claims), seal(&other, grant(7, 8, 9), &claims));
    assert!(KEY.of_members(1) != KEY.of_members(2), "who asks another etcd is no member");
}

#[test]
fn the_hash_is_the_published_one() {
    // From the reference implementation's vectors: the key above, and no bytes.
    let hash = Sealer::new(KEY).keyed.finish128().as_bytes();
    let published = [
        0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55, 0x02,
        0x93,
    ];
    assert_eq!(hash, published);
}

/// Computed once by another implementation, from what the comments on the bytes say.
#[test]
fn proofs_stay_what_they_are_over_versions() {
    let sealer = Sealer::new(KEY);
    assert_eq!(sealer.secret(SESSION, RUN, None).reveal(), 435_520_339_620_925_934_348_437_195_619);
    let of = |claims: &[(&str, Mode)]| seal(&sealer, grant(7, 8, 9), claims);
    let both = [("printer", Mode::Exclusive), ("gpu", Mode::Permits { take: 1, of: 4 })];
    assert_eq!(of(&both[..1]), 438_112_375_917_257_358_302_470_796_046);
    assert_eq!(of(&both), 438_793_464_554_357_339_831_973_245_245);
    // Names that just fit the piece with the head, that just do not, and that never do.
    let longer = [
        (57, 409_359_903_396_872_088_698_417_262_534),
        (58, 449_275_489_294_825_104_843_146_010_611),
    ];
    for (len, number) in longer {
        assert_eq!(of(&[(&"n".repeat(len), Mode::Exclusive)]), number);
    }
    let longest = "n".repeat(LOCK_NAME_LEN_MAX);
    let of_longest = of(&[("printer", Mode::Exclusive), (&longest, Mode::Exclusive)]);
    assert_eq!(of_longest, 456_765_902_334_855_110_746_138_935_034);
    let ticket = |claims| sealer.ticket(SESSION, REQUEST, PLACE, each(&named(claims)));
    assert_eq!(ticket(&both[..1]), SealedTicket::from_halves(343_597_518_480, 68_247_419));
    assert_eq!(ticket(&both), SealedTicket::from_halves(343_597_557_266, 79_866_407));
}

#[test]
fn every_field_changes_the_seal() {
    let sealer = Sealer::new(KEY);
    let permits = |take, of| Mode::Permits { take, of };
    let it = grant(7, 8, 9);
    let seals = [
        seal(&sealer, it, &[("ab", Mode::Exclusive)]),
        seal(&Sealer::new(StateKey::new(1)), it, &[("ab", Mode::Exclusive)]),
        sealer.seal(it, Epoch(6), each(&named(&[("ab", Mode::Exclusive)]))).reveal(),
        seal(&sealer, grant(6, 8, 9), &[("ab", Mode::Exclusive)]),
        seal(&sealer, grant(7, 7, 9), &[("ab", Mode::Exclusive)]),
        seal(&sealer, grant(7, 8, 8), &[("ab", Mode::Exclusive)]),
        seal(&sealer, it, &[("ac", Mode::Exclusive)]),
        seal(&sealer, it, &[("ab", Mode::Shared)]),
        seal(&sealer, it, &[("ab", permits(1, 2))]),
        seal(&sealer, it, &[("ab", permits(2, 2))]),
        seal(&sealer, it, &[("ab", permits(1, 3))]),
        seal(&sealer, it, &[("a", Mode::Exclusive), ("b", Mode::Exclusive)]),
        seal(&sealer, it, &[("b", Mode::Exclusive), ("a", Mode::Exclusive)]),
        seal(&sealer, it, &[]),
    ];
    let hashes = seals.map(|seal| seal & mask(HASH_BITS));
    assert_eq!(BTreeSet::from(hashes).len(), hashes.len());
}

#[test]
fn names_as_long_as_they_may_be_are_sealed_whole() {
    let sealer = Sealer::new(KEY);
    let (long, other) = ("n".repeat(LOCK_NAME_LEN_MAX), "n".repeat(LOCK_NAME_LEN_MAX - 1) + "m");
    let seals = [&long, &other].map(|last| {
        let permits = Mode::Permits { take: u32::MAX, of: u32::MAX };
        let grant = grant(u128::MAX, u64::MAX, u64::MAX);
        seal(&sealer, grant, &[(&long, permits), (last, permits)])
    });
    assert_ne!(seals[0], seals[1]);
}

#[test]
fn a_proof_says_which_run_made_it_and_none_can_be_altered_to_say_another() {
    let sealer = Sealer::new(KEY);
    let (claims, it) = (named(&[("ab", Mode::Exclusive)]), grant(7, 8, 9));
    let secret = sealer.secret(SESSION, RUN, None);
    let seal = sealer.seal(it, RUN, each(&claims));
    assert_eq!(sealer.run_of_secret(secret, SESSION, None), Some(RUN));
    assert_eq!(sealer.run_of_seal(seal, it, each(&claims)), Some(RUN));
    for bit in 0..u128::BITS {
        let altered = Secret::new(secret.reveal() ^ 1 << bit);
        assert_eq!(sealer.run_of_secret(altered, SESSION, None), None);
        let altered = Seal::new(seal.reveal() ^ 1 << bit);
        assert_eq!(sealer.run_of_seal(altered, it, each(&claims)), None);
    }
    assert_eq!(sealer.run_of_secret(Secret::new(seal.reveal()), SESSION, None), None);
}

#[test]
fn a_ticket_is_of_one_request_of_one_session_for_one_list_of_locks() {
    let sealer = Sealer::new(KEY);
    let claims = named(&[("ab", Mode::Exclusive)]);
    let ticket = sealer.ticket(SESSION, REQUEST, PLACE, each(&claims));
    let place_of = |shown, session, request, claims: &[Named]| {
        sealer.place_of(shown, SessionId::new(session), RequestId::new(request), each(claims))
    };
    assert_eq!(place_of(ticket, 7, 9, &claims), Some(PLACE));
    assert_eq!(place_of(ticket, 6, 9, &claims), None);
    assert_eq!(place_of(ticket, 7, 8, &claims), None);
    assert_eq!(place_of(ticket, 7, 9, &named(&[("ab", Mode::Shared)])), None);
    assert_eq!(place_of(ticket, 7, 9, &named(&[("ac", Mode::Exclusive)])), None);
    for bit in 0..u64::BITS {
        let (first, second) = ticket.halves();
        for (first, second) in [(first ^ 1 << bit, second), (first, second ^ 1 << bit)] {
            assert_eq!(place_of(SealedTicket::from_halves(first, second), 7, 9, &claims), None);
        }
    }
    assert_eq!(place_of(NO_TICKET, 7, 9, &claims), None);
}

#[test]
fn a_place_that_has_no_room_in_a_ticket_has_none() {
    let sealer = Sealer::new(KEY);
    let kept = |run: u64, age: u64, arrival: u64| {
        let ticket = Ticket { epoch: run.saturating_sub(age), arrival };
        let place = Place { ticket, told_in: Epoch::new(run) };
        let shown = sealer.ticket(SESSION, REQUEST, place, each(&[]));
        match sealer.place_of(shown, SESSION, REQUEST, each(&[])) {
            Some(known) => {
                assert_eq!(known, place);
                true
            }
            None => false,
        }
    };
    let (run_max, age_max, arrival_max) = ((1 << 28) - 1, (1 << 20) - 1, (1 << 40) - 1);
    assert!(kept(run_max, age_max, arrival_max));
    assert!(!kept(run_max + 1, 0, 0));
    assert!(!kept(run_max, age_max + 1, 0));
    assert!(!kept(run_max, 0, arrival_max + 1));
    // A place of a run to come is none of this one.
    let later = Place { ticket: Ticket { epoch: 6, arrival: 1 }, told_in: RUN };
    assert_eq!(sealer.ticket(SESSION, REQUEST, later, each(&[])), NO_TICKET);
}

#[test]
fn proofs_of_runs_that_have_no_number_in_them_name_an_earlier_one() {
    let sealer = Sealer::new(KEY);
    let last = u64::from(u32::MAX);
    for run in [last, last + 1] {
        let secret = sealer.secret(SESSION, Epoch::new(run), None);
        assert_eq!(sealer.run_of_secret(secret, SESSION, None), Some(Epoch::new(last)));
    }
}

/// Of everything that holds a key, a secret, a seal or a ticket, `Debug` shows no digit of it.
#[test]
fn nothing_that_holds_a_secret_prints_it() {
    // Decimal and hexadecimal, of the whole and of each half.
    let (low, high) = (0x1234_5678_9abc_def1_u64, 0xfedc_ba98_7654_3211_u64);
    let whole = u128::from(high) << 64 | u128::from(low);
    let digits: Vec<String> = [low.into(), high.into(), whole]
        .iter()
        .flat_map(|number: &u128| [number.to_string(), format!("{number:x}")])
        .chain([format!("{:?}", whole.to_le_bytes()).replace(['[', ']'], "")])
        .collect();
    let (secret, seal, key) = (Secret::new(whole), Seal::new(whole), StateKey::new(whole));
    let ticket = SealedTicket::from_halves(high, low);
    let sealed = wire::ServerMessage::Grant { request: RequestId(1), token: FencingToken(2), seal };
    let queued = wire::ServerMessage::Queued { request: RequestId(1), position: 2, ticket };
    let reclaim = wire::Reclaim::new(RequestId(1), FencingToken(2), seal, []);
    let attach = wire::Attach::Resume { session: SessionId(1), secret, generation: Generation(1) };
    let session = SessionId(1);
    let welcome = render::welcome(
        RUN,
        session,
        secret,
        Generation(1),
        Some(Ttl::default()),
        Standing::Resumed,
    );
    let stored = Stored { key: Some(key), ..Stored::default() };
    let shown = [
        format!("{secret:?} {secret:#?} {seal:?} {seal:#?} {key:?} {key:#?} {ticket:?}"),
        format!("{sealed:?} {queued:?} {reclaim:?} {attach:?} {welcome:?} {welcome:#?}"),
        format!("{:?}", wire::ClientMessage::Reclaim(reclaim)),
        format!("{:?} {stored:?} {stored:#?}", Change::Key(key)),
    ];
    for text in shown {
        for digits in &digits {
            assert!(!text.contains(digits), "{digits} is shown in {text}");
        }
        assert!(text.contains('…'), "nothing is hidden in {text}");
    }
}

#[test]
fn a_secret_is_its_principals_and_nobody_elses() {
    let sealer = Sealer::new(KEY);
    let name = |text| PrincipalName::new(text).unwrap();
    let (ann, bob, anyone) = (name("ann"), name("bob"), PrincipalName::anyone());
    let all = [None, Some(&ann), Some(&bob), Some(&anyone)];
    for of in all {
        let secret = sealer.secret(SESSION, RUN, of);
        for shown_by in all {
            let run = sealer.run_of_secret(secret, SESSION, shown_by);
            assert_eq!(run.is_some(), of == shown_by, "{of:?} {shown_by:?}");
        }
    }
}
