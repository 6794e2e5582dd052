use std::time::Duration;

use super::*;
use crate::types::{Claim, Claims, Note, OwnerId};

fn lock() -> LockName {
    LockName::new("printer").unwrap()
}

/// A circle of so many sessions, each of which holds the lock that the one before it waits for.
fn circle(len: u64) -> Vec<CycleLink> {
    let link = |n: u64| CycleLink {
        session: SessionId::new(n.into()),
        identity: Identity::new(if n == 1 { String::new() } else { format!("s{n}") }).unwrap(),
        owner: OwnerId::new(n),
        request: RequestId::new(n),
        lock: LockName::new(format!("lock-{n}")).unwrap(),
        held_with: (n != 2).then(|| FencingToken::new(n)),
    };
    (1..=len).map(link).collect()
}

#[test]
fn every_rejection_has_its_code_and_says_what_is_wrong() {
    use Rejection as R;
    let asked = Mode::permits(1, 3).unwrap();
    let (token, max) = (FencingToken::new(7), 9);
    let converts = RequestId::new(5);
    let too_many = (0..65)
        .map(|n| Claim { name: LockName::new(format!("lock-{n}")).unwrap(), mode: Mode::Shared });
    let told = [
        R::Busy { lock: lock() },
        R::HeldOtherwise { lock: lock(), of: Some(4), asked },
        R::HeldOtherwise { lock: lock(), of: None, asked },
        R::TimedOut { lock: lock(), waited: Duration::from_millis(1_234) },
        R::NotHolder { token },
        R::LockName(LockName::new("").unwrap_err()),
        R::Note(Note::new("n".repeat(NOTE_LEN_MAX + 1)).unwrap_err()),
        R::Identity(Identity::new("\u{7}").unwrap_err()),
        R::Ttl(Ttl::new(Duration::from_secs(1)).unwrap_err()),
        R::TtlNotAllowed {
            asked: Ttl::new(Duration::from_secs(601)).unwrap(),
            max: Ttl::ALLOWED_DEFAULT,
        },
        R::Permits(Mode::permits(4, 3).unwrap_err()),
        R::Claims(Claims::new(too_many).unwrap_err()),
        R::LockDelay { asked: Duration::from_secs(61) },
        R::AtLeast { asked: Duration::from_secs(7 * 86_400 + 1) },
        R::RequestIdReused,
        R::RequestForgotten { latest: converts },
        R::AsBefore(RejectionCode::Deadlock),
        R::TooManySessions { max },
        R::TooManySessionsThere { origin: Origin::Loopback, max },
        R::TooManyClaims { max },
        R::TooManyWaiters { lock: lock(), max },
        R::TooManyKept { max },
        R::TooManyKeptThere { origin: Origin::Loopback, max },
        R::Superseded {
            lock: lock(),
            session: SessionId::new(1),
            identity: Identity::new("ann@build7:12").unwrap(),
        },
        R::UnknownSession,
        R::StaleGeneration { latest: Generation::new(3) },
        R::Draining,
        R::Unavailable,
        R::DiskBehind,
        R::NoSuchGrant { lock: lock(), token },
        R::SessionNeeded,
        R::ImplausibleToken,
        R::Grace { left: Duration::from_millis(10_250) },
        R::NoGrace,
        R::SealMismatch,
        R::AlreadyHeld { lock: lock(), token },
        R::NothingToConvert { converts },
        R::NotConvertible { converts },
        R::Deadlock { cycle: circle(1) },
        R::TooManyWatches { max },
        R::SlowDown,
        R::Forbidden,
    ];
    let told: Vec<String> = told.iter().map(|r| format!("{:?}: {r}\n", r.code())).collect();
    assert_eq!(told.concat(), include_str!("rejections.txt"));
}

#[test]
fn only_what_a_lock_stood_in_the_way_of_names_it() {
    let busy = Rejection::Busy { lock: lock() };
    let timed_out = Rejection::TimedOut { lock: lock(), waited: Duration::ZERO };
    for rejection in [busy, timed_out] {
        assert_eq!(rejection.blocking_lock(), Some(&lock()));
        assert!(rejection.cycle().is_empty());
    }
    let deadlock = Rejection::Deadlock { cycle: circle(2) };
    assert_eq!(deadlock.cycle(), circle(2));
    assert_eq!(deadlock.blocking_lock(), None);
}

#[test]
fn a_sentence_has_four_links_of_a_circle_and_counts_the_others() {
    let said = |len| Rejection::Deadlock { cycle: circle(len) }.to_string();
    assert_eq!(
        said(4),
        "waiting would never end: 00000000000000000000000000000001 waits for \"lock-1\", \
        held by s2 \
         (token 1), who waits for \"lock-2\", behind s3, who waits for \"lock-3\", held by s4 (token \
         3), who waits for \"lock-4\", held by 00000000000000000000000000000001 (token 4)"
    );
    assert!(said(5).ends_with("held by s5 (token 4), and so on over 1 more"), "{}", said(5));
    assert!(said(64).ends_with("held by s5 (token 4), and so on over 60 more"), "{}", said(64));
}
