//! What a Hello asks for, and the names and secrets of new sessions.

use std::time::Duration;

use log::error;

use super::connections::Role;
use super::parse;
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
    /// What the connection becomes, and what that takes of the engine: nothing, for an observer.
    pub(super) fn parse(self) -> Result<(Role, Option<Attach>), Refusal> {
        let no = |rejection: Rejection| (rejection.code(), rejection.to_string());
        match self.attach {
            wire::Attach::Observer => Ok((Role::Observer, None)),
            wire::Attach::New => {
                let ttl = parse::ttl(self.ttl_ms).map_err(no)?;
                let identity = parse::identity(self.identity).map_err(no)?;
                let (session, secret) = draw()?;
                let role = Role::Session { id: session, secret, identity: identity.clone() };
                let linger = self.linger_ms.map(|ms| Duration::from_millis(ms.into()));
                Ok((role, Some(Attach::Open { session, secret, ttl, linger, identity })))
            }
            wire::Attach::Resume { session, secret, generation } => {
                let (session, secret) = (SessionId::new(session), Secret::new(secret));
                let identity = parse::identity(self.identity).map_err(no)?;
                let generation = Generation::new(generation);
                let role = Role::Session { id: session, secret, identity };
                Ok((role, Some(Attach::Resume { session, secret, generation })))
            }
        }
    }
}

/// A session's name and its secret: nobody can guess either, and no name comes twice.
fn draw() -> Result<(SessionId, Secret), Refusal> {
    let mut numbers = [[0; 16]; 2];
    getrandom::fill(numbers.as_flattened_mut()).map_err(|failure| {
        error!("the operating system gives no random numbers: {failure}");
        (RejectionCode::Unavailable, "no random numbers for a session".to_owned())
    })?;
    let [id, secret] = numbers.map(u128::from_le_bytes);
    Ok((SessionId::new(id), Secret::new(secret)))
}
