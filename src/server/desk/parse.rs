//! From the wire's types to the engine's: the edge at which everything is parsed, once.
//!
//! An unparsable message that names a request becomes [`Command::Unparsed`], so that it is answered
//! in its turn. Only the engine answers requests.

use std::collections::VecDeque;
use std::time::Duration;

use smol_str::SmolStr;

use super::seal::{Sealed, Sealer};
use crate::engine::{Command, Extras, Place, Progress, Reclaim, Rejection, Request, Supersede};
use crate::types::{
    AT_LEAST_MAX, Claim, ClaimError, Claims, Epoch, FencingToken, Identity, LOCK_DELAY_MAX,
    LockName, Mode, Note, RawClaim, RequestId, SessionId, Ttl,
};
use crate::wire::{self, ClientMessage, Extra};

/// What one read of a connection brought, in the order that is due: a Hello, then keep-alives (rule
/// S5), then the rest as it came.
pub(in crate::server) fn in_order(
    messages: &[ClientMessage],
) -> impl Iterator<Item = &ClientMessage> {
    let hello = matches!(messages.first(), Some(ClientMessage::Hello(_)));
    let (hello, rest) = messages.split_at(usize::from(hello));
    let is_keep_alive =
        |message: &&ClientMessage| matches!(message, ClientMessage::KeepAlive { .. });
    let keep_alives = rest.iter().filter(is_keep_alive);
    hello.iter().chain(keep_alives).chain(rest.iter().filter(move |it| !is_keep_alive(it)))
}

/// The same, to be kept.
pub(in crate::server) fn into_order(messages: Vec<ClientMessage>) -> VecDeque<ClientMessage> {
    let is_keep_alive =
        |message: &ClientMessage| matches!(message, ClientMessage::KeepAlive { .. });
    if !messages.iter().any(is_keep_alive) {
        return messages.into();
    }
    let (mut first, mut rest): (VecDeque<_>, VecDeque<_>) =
        messages.into_iter().partition(is_keep_alive);
    if let Some(ClientMessage::Hello(_)) = rest.front() {
        first.extend(rest.pop_front());
        first.rotate_right(1);
    }
    first.append(&mut rest);
    first
}

/// The command that asks for locks, or the one that has it answered *no*. `place` is where it stood
/// before, if that is proved.
pub(in crate::server) fn request(
    asked: &wire::Request,
    extras: &[Extra],
    place: Option<Place>,
) -> Command {
    let unparsed = |rejection| Command::Unparsed { request: asked.request, rejection };
    // One after the other, so that the request is made where it stays: it is large to move.
    let lock_delay = match lock_delay(asked.lock_delay_ms) {
        Ok(lock_delay) => lock_delay,
        Err(rejection) => return unparsed(rejection),
    };
    let extras = match extras {
        [] => None,
        extras => match parse_extras(extras) {
            Ok(extras) => extras.of_few(),
            Err(rejection) => return unparsed(rejection),
        },
    };
    let note = match Note::new(asked.note.as_str()) {
        Ok(note) => note,
        Err(error) => return unparsed(Rejection::Note(error)),
    };
    let claims = match claims(&asked.claims) {
        Ok(claims) => claims,
        Err(rejection) => return unparsed(rejection),
    };
    let progress = if asked.progress { Progress::Told } else { Progress::Untold };
    let (id, owner, converts, wait) = (asked.request, asked.owner, asked.converts, asked.wait);
    Command::Request(Request {
        id,
        owner,
        converts,
        wait,
        progress,
        place,
        lock_delay,
        extras,
        note,
        claims,
    })
}

/// What a release means.
pub(in crate::server) fn release(request: RequestId, token: FencingToken) -> Command {
    Command::Release { request, token }
}

/// What a cancel means.
pub(in crate::server) fn cancel(request: RequestId) -> Command {
    Command::Cancel { request }
}

/// The command that asks for what was held before a crash. Its seal must be that of such a grant of
/// `session`, or of none if that is none. Otherwise the command is one that is answered *no*.
pub(in crate::server) fn reclaim(
    asked: &wire::Reclaim,
    extras: &[Extra],
    session: Option<SessionId>,
    sealer: &Sealer,
) -> Command {
    match parse_reclaim(asked, extras, session, sealer) {
        Ok(reclaim) => Command::Reclaim(reclaim),
        Err(rejection) => Command::Unparsed { request: asked.request, rejection },
    }
}

fn parse_reclaim(
    asked: &wire::Reclaim,
    extras: &[Extra],
    session: Option<SessionId>,
    sealer: &Sealer,
) -> Result<Reclaim, Rejection> {
    let (id, token) = (asked.request, asked.token);
    let mut reclaim = Reclaim {
        id,
        token,
        sealed_in: Epoch::default(),
        owner: asked.owner,
        lock_delay: lock_delay(asked.lock_delay_ms)?,
        at_least: parse_extras(extras)?.at_least,
        note: Note::new(asked.note.as_str()).map_err(Rejection::Note)?,
        claims: claims(&asked.claims)?,
    };
    let sealed_in = session.and_then(|session| {
        let grant = Sealed { session, token, request: id };
        sealer.run_of_seal(asked.seal, grant, named(&reclaim.claims))
    });
    reclaim.sealed_in = sealed_in.ok_or(Rejection::SealMismatch)?;
    Ok(reclaim)
}

/// The place that a request shows a ticket of, if that is of this request of `session`; of what is not
/// well-formed there is none.
pub(in crate::server) fn place(
    asked: &wire::Request,
    session: SessionId,
    sealer: &Sealer,
) -> Option<Place> {
    let claims = claims(&asked.claims).ok()?;
    sealer.place_of(asked.ticket?, session, asked.request, named(&claims))
}

/// Claims as proofs are about them.
fn named(claims: &Claims) -> impl Iterator<Item = (&LockName, Mode)> {
    claims.as_slice().iter().map(|claim| (&claim.name, claim.mode))
}

fn lock_delay(ms: u32) -> Result<Duration, Rejection> {
    let asked = Duration::from_millis(ms.into());
    if asked > LOCK_DELAY_MAX { Err(Rejection::LockDelay { asked }) } else { Ok(asked) }
}

/// What is wanted besides.
fn parse_extras(extras: &[Extra]) -> Result<Extras, Rejection> {
    let mut parsed = Extras::default();
    for extra in extras {
        match *extra {
            Extra::AtLeast { ms } => parsed.at_least = Duration::from_millis(ms),
            Extra::Supersede => parsed.supersede = Supersede::Older,
        }
    }
    let asked = parsed.at_least;
    if asked > AT_LEAST_MAX { Err(Rejection::AtLeast { asked }) } else { Ok(parsed) }
}

fn claims(raw: &[RawClaim]) -> Result<Claims, Rejection> {
    // Nearly every request has one claim, and that one is not to be carried about.
    if let [only] = raw {
        return claim(only).map(Claims::from);
    }
    let parsed: Result<Vec<Claim>, Rejection> = raw.iter().map(claim).collect();
    Claims::new(parsed?).map_err(Rejection::Claims)
}

fn claim(raw: &RawClaim) -> Result<Claim, Rejection> {
    raw.checked().map_err(|why| match why {
        ClaimError::Name(error) => Rejection::LockName(error),
        ClaimError::Permits(error) => Rejection::Permits(error),
    })
}

/// A lock name, from a claim or a question.
pub(in crate::server) fn lock_name(raw: impl Into<SmolStr>) -> Result<LockName, Rejection> {
    LockName::new(raw).map_err(Rejection::LockName)
}

/// The length of a lease, from a Hello.
pub(in crate::server) fn ttl(ms: u32) -> Result<Ttl, Rejection> {
    match ms {
        0 => Ok(Ttl::default()),
        ms => Ttl::new(Duration::from_millis(ms.into())).map_err(Rejection::Ttl),
    }
}

/// Who a session is, from a Hello.
pub(in crate::server) fn identity(raw: &str) -> Result<Identity, Rejection> {
    Identity::new(raw).map_err(Rejection::Identity)
}

#[cfg(test)]
mod tests {
    use std::iter;

    use smallvec::{SmallVec, smallvec};

    use super::*;
    use crate::server::durable::StateKey;
    use crate::types::{CLAIMS_MAX, ClaimsError, PermitsError, RejectionCode, Seal, Wait};

    fn asked(claims: SmallVec<[RawClaim; 1]>) -> wire::Request {
        wire::Request::new(RequestId(7), claims)
    }

    fn claim_of(name: &str, mode: Mode) -> RawClaim {
        RawClaim { name: name.into(), mode }
    }

    fn code(asked: &wire::Request) -> RejectionCode {
        match request(asked, &[], None) {
            Command::Unparsed { request, rejection } => {
                assert_eq!(request, RequestId(7));
                rejection.code()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_well_formed_request_becomes_one_of_the_engine() {
        let mut asked = asked(smallvec![claim_of("printer", Mode::Permits { take: 1, of: 3 })]);
        asked.wait = Wait::millis(250);
        asked.progress = true;
        let Command::Request(request) = request(&asked, &[], None) else { panic!("not a request") };
        assert_eq!(request.wait, Wait::millis(250));
        assert_eq!(request.progress, Progress::Told);
        assert_eq!(request.claims.as_slice()[0].mode, Mode::Permits { take: 1, of: 3 });
    }

    #[test]
    fn a_reclaim_without_the_seal_of_its_grant_is_answered_no() {
        let sealer = Sealer::new(StateKey::new(1));
        let (session, name) = (SessionId(5), LockName::new("printer").unwrap());
        let (token, request) = (FencingToken(9), RequestId(7));
        let (grant, run) = (Sealed { session, token, request }, Epoch(3));
        let seal = sealer.seal(grant, run, iter::once((&name, Mode::Exclusive)));
        let asked = |seal| {
            wire::Reclaim::new(
                RequestId(7),
                FencingToken(9),
                seal,
                [claim_of("printer", Mode::Exclusive)],
            )
        };
        match reclaim(&asked(seal), &[], Some(session), &sealer) {
            Command::Reclaim(Reclaim { id, sealed_in, .. }) => {
                assert_eq!((id, sealed_in), (request, run));
            }
            other => panic!("{other:?}"),
        }
        let no = [
            reclaim(&asked(Seal::new(seal.reveal() + 1)), &[], Some(session), &sealer),
            reclaim(&asked(seal), &[], Some(SessionId(6)), &sealer),
            reclaim(&asked(seal), &[], None, &sealer),
        ];
        for no in no {
            match no {
                Command::Unparsed { request: id, rejection: Rejection::SealMismatch } => {
                    assert_eq!(id, request);
                }
                other => panic!("{other:?}"),
            }
        }
        let mut malformed = asked(seal);
        malformed.claims.clear();
        let malformed = reclaim(&malformed, &[], Some(session), &sealer);
        assert!(matches!(malformed, Command::Unparsed { rejection: Rejection::Claims(_), .. }));
    }

    #[test]
    fn every_wrong_field_is_answered_with_its_own_code() {
        let exclusive = Mode::Exclusive;
        assert_eq!(code(&asked(smallvec![])), RejectionCode::InvalidClaims);
        assert_eq!(
            code(&asked(smallvec![claim_of("", exclusive)])),
            RejectionCode::InvalidLockName
        );
        let twice = smallvec![claim_of("a", exclusive), claim_of("a", exclusive)];
        assert_eq!(code(&asked(twice)), RejectionCode::InvalidClaims);
        let many = (0..=CLAIMS_MAX).map(|i| claim_of(&i.to_string(), exclusive)).collect();
        assert_eq!(code(&asked(many)), RejectionCode::InvalidClaims);
        let none = Mode::Permits { take: 0, of: 3 };
        assert_eq!(code(&asked(smallvec![claim_of("a", none)])), RejectionCode::InvalidPermits);
        let mut noted = asked(smallvec![claim_of("a", exclusive)]);
        noted.note = "two\nlines".into();
        assert_eq!(code(&noted), RejectionCode::InvalidNote);
        let mut delayed = asked(smallvec![claim_of("a", exclusive)]);
        delayed.lock_delay_ms = 60_001;
        assert_eq!(code(&delayed), RejectionCode::InvalidLockDelay);
    }

    #[test]
    fn a_lock_is_kept_for_7_days_and_not_a_millisecond_longer() {
        let asked = asked(smallvec![claim_of("a", Mode::Exclusive)]);
        let with = |extras: &[Extra]| request(&asked, extras, None);
        let week = 7 * 86_400_000;
        let earlier = Extra::AtLeast { ms: 5 };
        match with(&[earlier, Extra::AtLeast { ms: week }]) {
            Command::Request(request) => {
                assert_eq!(request.extras.unwrap().at_least, AT_LEAST_MAX);
            }
            other => panic!("{other:?}"),
        }
        match with(&[Extra::AtLeast { ms: week + 1 }]) {
            Command::Unparsed { rejection, .. } => {
                assert_eq!(rejection.code(), RejectionCode::InvalidAtLeast);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(with(&[]), Command::Request(request) if request.extras.is_none()));
        match with(&[Extra::Supersede]) {
            Command::Request(request) => {
                let extras = request.extras.unwrap();
                assert_eq!(extras.supersede, Supersede::Older);
                assert_eq!(extras.at_least, Duration::ZERO);
            }
            other => panic!("{other:?}"),
        }
        let none = with(&[Extra::AtLeast { ms: 0 }]);
        assert!(matches!(none, Command::Request(request) if request.extras.is_none()));
    }

    #[test]
    fn a_ttl_of_zero_is_the_default() {
        assert_eq!(ttl(0), Ok(Ttl::default()));
        assert!(ttl(1999).is_err());
        assert!(ttl(2000).is_ok());
    }

    #[test]
    fn the_reasons_are_kept() {
        assert_eq!(claims(&[]).unwrap_err(), Rejection::Claims(ClaimsError::Empty));
        assert_eq!(
            claim(&claim_of("a", Mode::Permits { take: 4, of: 3 })).unwrap_err(),
            Rejection::Permits(PermitsError { take: 4, of: 3 })
        );
    }
}
