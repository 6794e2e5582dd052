//! Session keys: they let another process end a session when its own process cannot.

use std::fmt;
use std::time::Duration;

use crate::types::{Generation, GoodbyeCode, RejectionCode, Secret, SessionId, Ttl};

use super::handle::Client;
use crate::client::connect::{Opening, default_introduction};
use crate::client::core::{Introduction, Purpose, Welcome};
use crate::client::error::Error;
use crate::client::servers::Servers;
use crate::client::within::within;

/// So far ahead of the generations of its connections is one that another process makes. What the
/// session's own process said last, it may have said without our knowing, and it says no more.
const GENERATION_LEAP: u64 = 1 << 32;

/// The key to a session. Its bearer can end the session from another process, if its own process is
/// known to be dead. So nobody waits for the lease to end.
///
/// Made by [`Client::session_key`](crate::Client::session_key), carried to the other process by
/// [`to_bytes`](Self::to_bytes), and to nobody else: it proves that the session is one's own.
///
/// # Examples
///
/// ```no_run
/// # async fn example(bytes: [u8; coordinator::SessionKey::LEN]) -> Result<(), coordinator::Error> {
/// use std::time::Duration;
///
/// // In a process that has seen the holder, and all that it had started, end.
/// if let Some(mut key) = coordinator::SessionKey::from_bytes(&bytes) {
///     key.close("locks.internal", Duration::from_secs(5)).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionKey {
    /// The session.
    session: SessionId,
    /// Secret that proves that it is ours.
    secret: Secret,
    /// The greatest generation that a connection for it is known to have had.
    generation: Generation,
    /// The length of its lease, as its Welcome said: who comes back asks for the same.
    ttl: Ttl,
}

impl Client {
    /// A key with which another process can end the session, as it is now, if this one cannot any
    /// more. It is for a watchdog that sees this process die. Another one after each restart of the
    /// coordinator.
    pub fn session_key(&self) -> SessionKey {
        let Welcome { session, secret, generation, ttl, epoch: _ } = self.welcome();
        SessionKey::new(session, secret, generation, ttl)
    }
}

impl SessionKey {
    /// The length of a key in bytes.
    pub const LEN: usize = 44;

    /// The key of a session as its latest Welcome had it.
    pub(in crate::client) fn new(
        session: SessionId,
        secret: Secret,
        generation: Generation,
        ttl: Ttl,
    ) -> Self {
        Self { session, secret, generation: generation.leap(GENERATION_LEAP), ttl }
    }

    /// The key as bytes, for a pipe that nobody else reads.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let parts = [
            &self.session.number().to_le_bytes()[..],
            &self.secret.reveal().to_le_bytes(),
            &self.generation.number().to_le_bytes(),
            &self.ttl.as_millis().to_le_bytes(),
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// The key that was made bytes; none if these are not of one.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (session, rest) = bytes.split_first_chunk()?;
        let (secret, rest) = rest.split_first_chunk()?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (ttl, []) = rest.split_first_chunk()? else { return None };
        let ttl = Duration::from_millis(u32::from_le_bytes(*ttl).into());
        Some(Self {
            session: SessionId::new(u128::from_le_bytes(*session)),
            secret: Secret::new(u128::from_le_bytes(*secret)),
            generation: Generation::new(u64::from_le_bytes(*generation)),
            ttl: Ttl::new(ttl).ok()?,
        })
    }

    /// Ends the session: takes over from any connection that it has, and says goodbye. Its locks
    /// are free, and its requests are gone, when this returns. The connection that it had is
    /// closed. A session that is over already is none to end, and no error.
    ///
    /// If it fails, it can be tried again, with this very key.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] and the like if the coordinator does not answer within `timeout`.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the session may be over or not; it can be tried again.
    pub async fn close(
        &mut self,
        servers: impl Into<Servers>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let servers = servers.into().checked()?;
        // An attempt whose answer did not come may have been heard.
        self.generation = self.generation.leap(1);
        let Self { session, secret, generation, ttl } = *self;
        let before = Generation(generation.number().saturating_sub(1));
        let purpose = Purpose::End { session, secret, generation: before };
        let closed = async {
            let introduction = Introduction { ttl: Some(ttl), ..default_introduction() };
            let opening = Opening::with_timeout(timeout);
            Client::new(opening.open(&servers, introduction, purpose).await?).close().await
        };
        match within(timeout, servers.name(), closed).await {
            Err(
                Error::Rejected { code: RejectionCode::UnknownSession, .. }
                | Error::Dismissed { code: GoodbyeCode::Done | GoodbyeCode::SessionExpired, .. },
            ) => Ok(()),
            outcome => outcome,
        }
    }
}

impl fmt::Debug for SessionKey {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionKey")
            .field("session", &self.session)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use bytes::BytesMut;

    use super::*;
    use crate::client::tests::{answers, read_message};
    use crate::wire::{self, Attach, ClientMessage, ServerMessage, Standing};

    /// The generation that the next connection comes with. It is closed unless it is answered.
    fn hear(listener: &TcpListener, answered: bool) -> u64 {
        let (mut stream, _) = listener.accept().unwrap();
        let hello = read_message(&mut stream).unwrap();
        if answered {
            let mut bytes = BytesMut::new();
            for mut answer in answers(&hello) {
                if let ServerMessage::Welcome { session, standing, .. } = &mut answer {
                    (*session, *standing) = (key().session, Standing::Resumed);
                }
                wire::encode_frame(&answer, &mut bytes).unwrap();
            }
            stream.write_all(&bytes).unwrap();
            assert_eq!(read_message(&mut stream), Some(ClientMessage::Goodbye));
        }
        let ClientMessage::Hello(wire::Hello { attach, .. }) = hello else { panic!("{hello:?}") };
        let Attach::Resume { generation, .. } = attach else { panic!("{attach:?}") };
        generation.number()
    }

    #[tokio::test]
    async fn each_attempt_to_end_a_session_takes_over_from_all_before_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || [hear(&listener, false), hear(&listener, true)]);
        let mut key = key();
        let patience = Duration::from_secs(5);
        assert!(key.close(address.as_str(), patience).await.unwrap_err().is_retryable());
        key.close(address.as_str(), patience).await.unwrap();
        let [first, second] = server.join().unwrap();
        assert!(second > first, "the coordinator may have heard the first");
        assert!(first > 3 + 1_000, "the process that died may have connected again");
    }

    fn key() -> SessionKey {
        SessionKey::new(
            SessionId::new(7 << 100),
            Secret::new(u128::MAX - 5),
            Generation(3),
            Ttl::default(),
        )
    }

    #[test]
    fn a_key_arrives_as_it_was_made() {
        assert_eq!(SessionKey::from_bytes(&key().to_bytes()), Some(key()));
    }

    #[test]
    fn bytes_with_an_impossible_lease_are_no_key() {
        assert_eq!(SessionKey::from_bytes(&[0; SessionKey::LEN]), None);
        assert_eq!(SessionKey::from_bytes(&[0xff; SessionKey::LEN]), None);
    }

    #[test]
    fn a_key_is_shown_without_its_secret() {
        let shown = format!("{:?}", key());
        assert!(!shown.contains(&key().secret.reveal().to_string()), "{shown}");
    }
}
