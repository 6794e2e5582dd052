//! From the wire's words to the engine's: the edge at which everything is parsed, once.
//!
//! What cannot be parsed but names a request becomes [`Command::Unparsed`], so that it is answered in
//! its turn; only the engine answers requests.

use std::time::Duration;

use smallvec::SmallVec;
use smol_str::SmolStr;

use crate::engine::{Account, Command, Progress, Reclaim, Rejection, Request, Wait};
use crate::types::{
    Claim, Claims, FencingToken, Identity, LOCK_DELAY_MAX, LockName, Mode, Note, OwnerId,
    RequestId, Ticket, Ttl,
};
use crate::wire::{self, ClientMessage};

/// The fields of a `Request` message, as they came.
struct RawRequest {
    /// Names the request.
    request: u64,
    /// Who asks within the session.
    owner: u64,
    /// The request that it converts.
    converts: Option<u64>,
    /// What to do if it has to wait.
    wait: wire::Wait,
    /// Whether it wants to hear of its place.
    progress: bool,
    /// Pause after a loss.
    lock_delay_ms: u32,
    /// What for.
    note: String,
    /// Where it stood before a crash.
    ticket: Option<wire::Ticket>,
    /// Which locks.
    claims: SmallVec<[wire::Claim; 1]>,
}

/// The fields of a `Reclaim` message, as they came, but for the seal.
pub(super) struct RawReclaim {
    /// Names the request.
    pub(super) request: u64,
    /// The token of its grant.
    pub(super) token: u64,
    /// Who asks within the session.
    pub(super) owner: u64,
    /// Pause after a loss.
    pub(super) lock_delay_ms: u32,
    /// What for.
    pub(super) note: String,
    /// Which locks.
    pub(super) claims: SmallVec<[wire::Claim; 1]>,
}

/// Has what one read of a connection brought done in the order that is due: a Hello, then keep-alives
/// (rule S5), then the rest as it came.
pub(super) fn in_order(messages: Vec<ClientMessage>, mut each: impl FnMut(ClientMessage)) {
    let mut rest = messages.into_iter();
    if let [ClientMessage::Hello { .. }, ..] = rest.as_slice()
        && let Some(hello) = rest.next()
    {
        each(hello);
    }
    let several = rest.len() > 1;
    if several {
        for message in rest.as_slice() {
            if let ClientMessage::KeepAlive { sequence } = *message {
                each(ClientMessage::KeepAlive { sequence });
            }
        }
    }
    for message in rest {
        if !(several && matches!(message, ClientMessage::KeepAlive { .. })) {
            each(message);
        }
    }
}

/// What a session's client asks of the engine, and who is answered if there is no session; none for
/// a message that says something else, or takes more than its words.
pub(super) fn command(message: ClientMessage) -> Option<(u64, Command)> {
    match message {
        ClientMessage::Request {
            request: id,
            owner,
            converts,
            wait,
            progress,
            lock_delay_ms,
            note,
            ticket,
            claims,
        } => {
            let raw = RawRequest {
                request: id,
                owner,
                converts,
                wait,
                progress,
                lock_delay_ms,
                note,
                ticket,
                claims,
            };
            Some((id, request(raw)))
        }
        ClientMessage::Release { request, token } => Some((request, release(request, token))),
        ClientMessage::Cancel { request } => {
            Some((request, Command::Cancel { request: RequestId::new(request) }))
        }
        ClientMessage::Account { from, to, held, waiting } => {
            Some((from, account(from, to, held, waiting)))
        }
        ClientMessage::Hello { .. }
        | ClientMessage::KeepAlive { .. }
        | ClientMessage::Goodbye
        | ClientMessage::Reclaim { .. }
        | ClientMessage::Inspect { .. }
        | ClientMessage::Revoke { .. }
        | ClientMessage::Watch { .. }
        | ClientMessage::Subscribe { .. } => None,
    }
}

/// The command that asks for locks, or the one that has it answered *no*.
fn request(raw: RawRequest) -> Command {
    let id = RequestId::new(raw.request);
    match parse_request(raw) {
        Ok(request) => Command::Request(request),
        Err(rejection) => Command::Unparsed { request: id, rejection },
    }
}

fn parse_request(raw: RawRequest) -> Result<Request, Rejection> {
    let ticket = |wire::Ticket { epoch, arrival }| Ticket { epoch, arrival };
    Ok(Request {
        id: RequestId::new(raw.request),
        owner: OwnerId::new(raw.owner),
        converts: raw.converts.map(RequestId::new),
        wait: wait(raw.wait),
        progress: if raw.progress { Progress::Told } else { Progress::Untold },
        ticket: raw.ticket.map(ticket),
        lock_delay: lock_delay(raw.lock_delay_ms)?,
        note: Note::new(raw.note).map_err(Rejection::Note)?,
        claims: claims(raw.claims)?,
    })
}

/// The command that asks for what was held before a crash, if `is_sealed` says that it was; else the
/// one that has it answered *no*.
pub(super) fn reclaim(raw: RawReclaim, is_sealed: impl FnOnce(&Reclaim) -> bool) -> Command {
    let request = RequestId::new(raw.request);
    match parse_reclaim(raw) {
        Ok(reclaim) if is_sealed(&reclaim) => Command::Reclaim(reclaim),
        Ok(_) => Command::Unparsed { request, rejection: Rejection::SealMismatch },
        Err(rejection) => Command::Unparsed { request, rejection },
    }
}

fn parse_reclaim(raw: RawReclaim) -> Result<Reclaim, Rejection> {
    Ok(Reclaim {
        id: RequestId::new(raw.request),
        token: FencingToken::new(raw.token),
        owner: OwnerId::new(raw.owner),
        lock_delay: lock_delay(raw.lock_delay_ms)?,
        note: Note::new(raw.note).map_err(Rejection::Note)?,
        claims: claims(raw.claims)?,
    })
}

fn lock_delay(ms: u32) -> Result<Duration, Rejection> {
    let asked = Duration::from_millis(ms.into());
    if asked > LOCK_DELAY_MAX { Err(Rejection::LockDelay { asked }) } else { Ok(asked) }
}

/// The command that says what a client knows of.
fn account(from: u64, to: u64, held: Vec<wire::Held>, waiting: Vec<u64>) -> Command {
    let held_of = |held: wire::Held| (RequestId::new(held.request), FencingToken::new(held.token));
    Command::Account(Account {
        from: RequestId::new(from),
        to: RequestId::new(to),
        held: held.into_iter().map(held_of).collect(),
        waiting: waiting.into_iter().map(RequestId::new).collect(),
    })
}

fn wait(wait: wire::Wait) -> Wait {
    match wait {
        wire::Wait::Forever => Wait::Forever,
        wire::Wait::Timeout { ms } => Wait::AtMost(Duration::from_millis(ms)),
        wire::Wait::Never => Wait::Never,
    }
}

fn claims(mut raw: SmallVec<[wire::Claim; 1]>) -> Result<Claims, Rejection> {
    // Nearly every request has one claim, and that one is not to be carried about.
    if raw.len() == 1
        && let Some(only) = raw.pop()
    {
        return claim(only).map(Claims::from);
    }
    let parsed: Result<Vec<Claim>, Rejection> = raw.into_iter().map(claim).collect();
    Claims::new(parsed?).map_err(Rejection::Claims)
}

fn claim(raw: wire::Claim) -> Result<Claim, Rejection> {
    Ok(Claim { name: lock_name(raw.name)?, mode: mode(raw.mode)? })
}

/// A lock name, from a claim or a question.
pub(super) fn lock_name(raw: impl Into<SmolStr>) -> Result<LockName, Rejection> {
    LockName::new(raw).map_err(Rejection::LockName)
}

fn mode(raw: wire::Mode) -> Result<Mode, Rejection> {
    match raw {
        wire::Mode::Exclusive => Ok(Mode::Exclusive),
        wire::Mode::Shared => Ok(Mode::Shared),
        wire::Mode::Permits { take, of } => Mode::permits(take, of).map_err(Rejection::Permits),
    }
}

/// The length of a lease, from a Hello.
pub(super) fn ttl(ms: u32) -> Result<Ttl, Rejection> {
    match ms {
        0 => Ok(Ttl::default()),
        ms => Ttl::new(Duration::from_millis(ms.into())).map_err(Rejection::Ttl),
    }
}

/// Who a session is, from a Hello.
pub(super) fn identity(raw: String) -> Result<Identity, Rejection> {
    Identity::new(raw).map_err(Rejection::Identity)
}

/// What a release means.
fn release(request: u64, token: u64) -> Command {
    Command::Release { request: RequestId::new(request), token: FencingToken::new(token) }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;
    use crate::types::{CLAIMS_MAX, ClaimsError, PermitsError, RejectionCode};

    fn raw(claims: SmallVec<[wire::Claim; 1]>) -> RawRequest {
        RawRequest {
            request: 7,
            owner: 0,
            converts: None,
            wait: wire::Wait::Forever,
            progress: false,
            lock_delay_ms: 0,
            note: String::new(),
            ticket: None,
            claims,
        }
    }

    fn raw_reclaim(claims: SmallVec<[wire::Claim; 1]>) -> RawReclaim {
        RawReclaim { request: 7, token: 9, owner: 0, lock_delay_ms: 0, note: String::new(), claims }
    }

    fn claim_of(name: &str, mode: wire::Mode) -> wire::Claim {
        wire::Claim { name: name.into(), mode }
    }

    fn code(raw: RawRequest) -> RejectionCode {
        match request(raw) {
            Command::Unparsed { request, rejection } => {
                assert_eq!(request, RequestId::new(7));
                rejection.code()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_well_formed_request_becomes_one_of_the_engine() {
        let mut asked = raw(smallvec![claim_of("printer", wire::Mode::Permits { take: 1, of: 3 })]);
        asked.wait = wire::Wait::Timeout { ms: 250 };
        asked.progress = true;
        let Command::Request(request) = request(asked) else { panic!("not a request") };
        assert_eq!(request.wait, Wait::AtMost(Duration::from_millis(250)));
        assert_eq!(request.progress, Progress::Told);
        assert_eq!(request.claims.as_slice()[0].mode, Mode::Permits { take: 1, of: 3 });
    }

    #[test]
    fn a_reclaim_without_its_seal_is_answered_no() {
        let claims = || smallvec![claim_of("printer", wire::Mode::Exclusive)];
        match reclaim(raw_reclaim(claims()), |reclaim| reclaim.token == FencingToken::new(9)) {
            Command::Reclaim(Reclaim { id, .. }) => assert_eq!(id, RequestId::new(7)),
            other => panic!("{other:?}"),
        }
        match reclaim(raw_reclaim(claims()), |_| false) {
            Command::Unparsed { request, rejection: Rejection::SealMismatch } => {
                assert_eq!(request, RequestId::new(7));
            }
            other => panic!("{other:?}"),
        }
        let malformed = reclaim(raw_reclaim(smallvec![]), |_| panic!("there is nothing to seal"));
        assert!(matches!(malformed, Command::Unparsed { rejection: Rejection::Claims(_), .. }));
    }

    #[test]
    fn every_wrong_field_is_answered_with_its_own_code() {
        let exclusive = wire::Mode::Exclusive;
        assert_eq!(code(raw(smallvec![])), RejectionCode::InvalidClaims);
        assert_eq!(code(raw(smallvec![claim_of("", exclusive)])), RejectionCode::InvalidLockName);
        let twice = smallvec![claim_of("a", exclusive), claim_of("a", exclusive)];
        assert_eq!(code(raw(twice)), RejectionCode::InvalidClaims);
        let many = (0..=CLAIMS_MAX).map(|i| claim_of(&i.to_string(), exclusive)).collect();
        assert_eq!(code(raw(many)), RejectionCode::InvalidClaims);
        let none = wire::Mode::Permits { take: 0, of: 3 };
        assert_eq!(code(raw(smallvec![claim_of("a", none)])), RejectionCode::InvalidPermits);
        let mut noted = raw(smallvec![claim_of("a", exclusive)]);
        noted.note = "two\nlines".into();
        assert_eq!(code(noted), RejectionCode::InvalidNote);
        let mut delayed = raw(smallvec![claim_of("a", exclusive)]);
        delayed.lock_delay_ms = 60_001;
        assert_eq!(code(delayed), RejectionCode::InvalidLockDelay);
    }

    #[test]
    fn a_ttl_of_zero_is_the_default() {
        assert_eq!(ttl(0), Ok(Ttl::default()));
        assert!(ttl(1999).is_err());
        assert!(ttl(2000).is_ok());
    }

    #[test]
    fn the_reasons_are_kept() {
        assert_eq!(claims(smallvec![]).unwrap_err(), Rejection::Claims(ClaimsError::Empty));
        assert_eq!(
            mode(wire::Mode::Permits { take: 4, of: 3 }).unwrap_err(),
            Rejection::Permits(PermitsError { take: 4, of: 3 })
        );
    }
}
