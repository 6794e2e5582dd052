//! The request in a Hello, and the ids of new sessions.

use std::time::Duration;

use log::error;

use super::connections::Role;
use super::marked;
use super::parse;
use super::seal::Sealer;
use crate::access::PrincipalName;
use crate::engine::{Attach, Rejection};
use crate::types::{Identity, RejectionCode, SessionId};
use crate::wire;

/// Why a Hello is refused: the code, and a sentence.
pub(crate) type Refusal = (RejectionCode, String);

/// Names new sessions.
pub(crate) type Draw = Box<dyn FnMut() -> Result<SessionId, Refusal>>;

/// What the connection becomes, and what that takes of the engine: nothing, for an observer. A
/// new session gets the name that `draw` gives. Where there is an access file, secrets and identities are
/// those of a principal.
pub(in crate::server) fn parse(
    hello: &wire::Hello,
    sealer: &Sealer,
    draw: impl FnOnce() -> Result<SessionId, Refusal>,
    as_whom: Option<&PrincipalName>,
) -> Result<(Role, Option<Attach>), Refusal> {
    if let wire::Attach::Observer = hello.attach {
        return Ok((Role::Observer, None));
    }
    let no = |rejection: Rejection| (rejection.code(), rejection.to_string());
    let ttl = parse::ttl(hello.ttl_ms).map_err(no)?;
    let linger = hello.linger_ms.map(|ms| Duration::from_millis(ms.into()));
    let identity = identity(hello, as_whom).map_err(no)?;
    let for_role = identity.clone();
    let (id, attach) = match hello.attach {
        wire::Attach::Resume { session, secret, generation } => {
            // Known from the key alone, so that it can be checked in every run (rule G2).
            let proved_in = sealer.run_of_secret(secret, session, as_whom);
            let proved_in = proved_in.ok_or_else(|| no(Rejection::UnknownSession))?;
            (session, Attach::Resume { session, proved_in, generation, ttl, linger, identity })
        }
        wire::Attach::New | wire::Attach::Observer => {
            let session = marked::named(draw()?, as_whom);
            (session, Attach::Open { session, ttl, linger, identity })
        }
    };
    Ok((Role::Session { id, identity: for_role }, Some(attach)))
}

/// So many names are drawn at a time.
const NAMES_AT_A_TIME: usize = 64;

/// Who a session or an observer is: its principal, if that is known, and what its client says.
pub(in crate::server) fn identity(
    hello: &wire::Hello,
    as_whom: Option<&PrincipalName>,
) -> Result<Identity, Rejection> {
    let said = parse::identity(&hello.identity)?;
    Ok(as_whom.map_or_else(|| said.clone(), |name| name.shown_before(&said)))
}

/// Names of sessions: nobody can guess them, and none comes twice. Many are had at a time, for to ask the
/// operating system is dear, and clients of the Redis dialect need a name for each lock.
pub(in crate::server) fn drawing() -> Draw {
    let mut names = [[0; 16]; NAMES_AT_A_TIME].as_flattened().to_vec();
    let mut used = names.len();
    Box::new(move || {
        if used == names.len() {
            getrandom::fill(&mut names).map_err(|failure| {
                error!("the operating system provides no random numbers: {failure}");
                (RejectionCode::Unavailable, "no random numbers for a session".to_owned())
            })?;
            used = 0;
        }
        let mut name = [0; 16];
        name.copy_from_slice(&names[used..used + 16]);
        // A name is nowhere but where it is used.
        names[used..used + 16].fill(0);
        used += 16;
        Ok(SessionId::new(u128::from_le_bytes(name)))
    })
}
