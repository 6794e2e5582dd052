//! What a Hello asks for, and the names of new sessions.

use std::time::Duration;

use log::error;

use super::connections::Role;
use super::parse;
use super::seal::Sealer;
use crate::engine::{Attach, Rejection};
use crate::types::{Epoch, FencingToken, Generation, RejectionCode, Secret, SessionId};
use crate::wire;

/// What a Hello holds besides the version, which the session has looked at.
pub(super) struct Hello {
    /// Which session it is for.
    pub(super) attach: wire::Attach,
    /// Length of the lease.
    pub(super) ttl_ms: u32,
    /// How long the session outlives a broken connection.
    pub(super) linger_ms: Option<u32>,
    /// Who it is.
    pub(super) identity: String,
    /// The latest epoch its client has heard of.
    pub(super) epoch_seen: Epoch,
    /// The greatest token its client has seen.
    pub(super) token_seen: FencingToken,
}

/// Why a Hello is refused: the code, and a sentence.
pub(super) type Refusal = (RejectionCode, String);

impl Hello {
    /// What the connection becomes, and what that takes of the engine: nothing, for an observer. A
    /// new session gets the name that `draw` gives.
    pub(super) fn parse(
        self,
        sealer: &Sealer,
        draw: impl FnOnce() -> Result<SessionId, Refusal>,
    ) -> Result<(Role, Option<Attach>), Refusal> {
        if let wire::Attach::Observer = self.attach {
            return Ok((Role::Observer, None));
        }
        let no = |rejection: Rejection| (rejection.code(), rejection.to_string());
        let ttl = parse::ttl(self.ttl_ms).map_err(no)?;
        let linger = self.linger_ms.map(|ms| Duration::from_millis(ms.into()));
        let identity = parse::identity(self.identity).map_err(no)?;
        let for_role = identity.clone();
        let (id, attach) = match self.attach {
            wire::Attach::Resume { session, secret, generation } => {
                let session = SessionId::new(session);
                // Known from the id alone, so that it holds in every run (rule G2).
                if !sealer.secret(session).matches(Secret::new(secret)) {
                    return Err(no(Rejection::UnknownSession));
                }
                let generation = Generation::new(generation);
                (session, Attach::Resume { session, generation, ttl, linger, identity })
            }
            wire::Attach::New | wire::Attach::Observer => {
                let session = draw()?;
                (session, Attach::Open { session, ttl, linger, identity })
            }
        };
        Ok((Role::Session { id, identity: for_role }, Some(attach)))
    }
}

/// A session's name: nobody can guess it, and none comes twice.
pub(super) fn draw() -> Result<SessionId, Refusal> {
    let mut number = [0; 16];
    getrandom::fill(&mut number).map_err(|failure| {
        error!("the operating system gives no random numbers: {failure}");
        (RejectionCode::Unavailable, "no random numbers for a session".to_owned())
    })?;
    Ok(SessionId::new(u128::from_le_bytes(number)))
}
