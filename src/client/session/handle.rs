//! The client: the operations of a session, and its end.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::types::{Epoch, Generation, OwnerId, SessionId, Ttl};
use crate::wire::LockStatus;

use super::events::SessionEvents;
use super::guard::LockGuard;
use super::owner::Owner;
use super::request::{LockAllRequest, LockRequest, unless_busy};
use super::semaphore::Semaphore;
use crate::client::core::Welcome;
use crate::client::error::Error;
use crate::client::look::{Leaders, Observer, Watch};
use crate::client::shared::{Command, Shared};

/// A session with a coordinator, over one connection that carries any number of requests at once.
///
/// Clones are cheap and share the session. A background task keeps the lease alive, as long as its
/// runtime runs. If async code computes or blocks for seconds, the runtime needs more than one
/// thread. The session ends, and its locks are free, when the last clone and the last guard are
/// gone, or with [`close`](Self::close). Without a connection at that moment, it ends with its
/// lease.
///
/// # When the connection is lost
///
/// The client reconnects by itself, for as long as the client or a guard lives. It does so at once,
/// then after pauses that grow to a sixteenth of the ttl, and later to a sixth (backoff with
/// jitter). It resumes its session: locks stay held and waiters keep their places. That also works after a restart or a crash of the
/// coordinator. Meanwhile
///
/// - guards are held; in [jeopardy](crate::HoldState::Jeopardy) after two thirds of the ttl without
///   an answer, which is an absence of a third at least; and lost if there is no connection when
///   the lease ends;
/// - requests wait on, those made meanwhile too. One with a timeout fails with
///   [`Error::Unavailable`] when it has waited that long. One that would not wait fails as soon as
///   an attempt to connect has failed;
/// - a release waits for its answer until the lease ends.
///
/// # When the process forks
///
/// The session stays with the process that connected, and goes on there. In a forked process,
/// guards are lost at once ([`Forked`](crate::types::LostReason::Forked)), and every call fails
/// with [`Error::Forked`]. Nothing done with them there reaches the coordinator. It connects a
/// client of its own. An async runtime is best started after the fork: tokio's does not survive
/// one.
///
/// # When it was away too long
///
/// A session that was disconnected for too long is over, and its locks are lost. Its requests go on
/// in a new session, with a new place in line. The client itself ends only if the coordinator
/// refuses it for good, or if something that does not follow the protocol answers in its place.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), coordinator::Error> {
/// let client = coordinator::Client::connect("127.0.0.1:5625").await?;
/// let guard = client.lock("orders/42").await?;
/// println!("held, token {}", guard.token());
/// guard.release().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client {
    /// The driver, and what it shows.
    shared: Arc<Shared>,
    /// The first description of the session by the server.
    welcome: Welcome,
}

impl Client {
    pub(in crate::client) fn new((shared, welcome): (Arc<Shared>, Welcome)) -> Self {
        Self { shared, welcome }
    }

    /// A request for the lock `name`: await it, or say first how it is wanted.
    pub fn lock(&self, name: impl AsRef<str>) -> LockRequest {
        LockRequest::new(Arc::clone(&self.shared), OwnerId(0), name.as_ref())
    }

    /// Takes the lock `name` alone if it is free now; `None` if it is not.
    ///
    /// # Errors
    ///
    /// As for [`LockRequest`], but for [`Error::Busy`].
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the request is cancelled: a lock that was granted meanwhile is
    /// given back.
    pub async fn try_lock(&self, name: impl AsRef<str>) -> Result<Option<LockGuard>, Error> {
        unless_busy(self.lock(name)).await
    }

    /// A request for all the locks `names` together, alone unless said otherwise: await it, or say
    /// first how they are wanted, and which more.
    pub fn lock_all<Names>(&self, names: Names) -> LockAllRequest
    where
        Names: IntoIterator<Item: AsRef<str>>,
    {
        LockAllRequest::new(Arc::clone(&self.shared), OwnerId(0), names)
    }

    /// Somebody new within this client, who holds and waits on its own account, and so can be told of
    /// deadlocks.
    pub fn owner(&self) -> Owner {
        Owner::new(&self.shared)
    }

    /// The semaphore `name`, with this number of permits.
    pub fn semaphore(&self, name: impl AsRef<str>, permits: u32) -> Semaphore {
        Semaphore::new(&self.shared, name.as_ref(), permits)
    }

    /// Stands for election: a request for the lock `name` whose holder leads, until it releases the lock
    /// or loses it. Everybody who [observes](Self::observe) the election sees `value`, an address for
    /// example: up to 255 bytes without control characters, as a [note](LockRequest::note).
    ///
    /// Candidates get their turn in the order in which they stood. A leader acts only while its guard
    /// [is held](LockGuard::is_held), and shows the token of its term to whomever it tells to do
    /// something.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn lead(term: coordinator::types::FencingToken) {}
    /// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
    /// let election = client.elect("scheduler", "http://10.0.0.7:8080");
    /// election.run(|term| async move { lead(term.token()).await }).await?;
    /// # Ok(()) }
    /// ```
    pub fn elect(&self, name: impl AsRef<str>, value: impl Into<String>) -> LockRequest {
        self.lock(name).value(value.into())
    }

    /// The leaders of the election `name`, from now on.
    ///
    /// # Errors
    ///
    /// As [`Client::watch`].
    ///
    /// # Cancel safety
    ///
    /// As [`Client::watch`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(client: coordinator::Client) -> Result<(), coordinator::Error> {
    /// use coordinator::Leadership;
    ///
    /// let mut leaders = client.observe("scheduler").await?;
    /// while let Some(leadership) = leaders.next().await {
    ///     match leadership? {
    ///         Leadership::LedBy(leader) => println!("{} leads", leader.value),
    ///         Leadership::Vacant => println!("nobody leads"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn observe(&self, name: impl AsRef<str>) -> Result<Leaders, Error> {
        Ok(Leaders::new(self.watch(name).await?))
    }

    /// Watches the lock `name` from now on. It goes over the session's connection, which is kept as long
    /// as the watch is.
    ///
    /// # Errors
    ///
    /// As [`Client::status`], and [`Error::Rejected`] if this coordinator does not watch, or not as many
    /// locks on one connection.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, nothing is watched.
    pub async fn watch(&self, name: impl AsRef<str>) -> Result<Watch, Error> {
        self.observer().watch(name).await
    }

    /// The lock `name` as it is now, who holds it and who waits; `None` if nobody does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if that is no name for a lock; [`Error::Unavailable`] and the like if no
    /// answer comes: in the time that connecting may take, or before an attempt to connect has failed.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn status(&self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        self.observer().lock(name).await
    }

    /// What becomes of the session from now on: that its connection is lost and there is another, that
    /// its locks are in jeopardy, or lost.
    ///
    /// For logs and health checks. What decides whether a lock is held is its guard, which knows of a loss
    /// earlier, and while this is not read.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(client: coordinator::Client) {
    /// use coordinator::SessionEvent;
    ///
    /// let mut events = client.events();
    /// tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         match event {
    ///             SessionEvent::Disconnected { cause } => eprintln!("disconnected: {cause}"),
    ///             SessionEvent::Resumed { epoch, .. } => eprintln!("back, in run {epoch}"),
    ///             SessionEvent::Lost { token, reason } => eprintln!("lost {token}: {reason}"),
    ///             _ => {}
    ///         }
    ///     }
    /// });
    /// # }
    /// ```
    pub fn events(&self) -> SessionEvents {
        SessionEvents::of(&self.shared)
    }

    /// One who looks over the session's connection.
    fn observer(&self) -> Observer {
        Observer::over(&self.shared)
    }

    /// The session, as others see it; another one after it was away too long.
    pub fn session(&self) -> SessionId {
        self.welcome().session
    }

    /// The run of the coordinator that was last heard of.
    pub fn epoch(&self) -> Epoch {
        self.welcome().epoch
    }

    /// Counts the connections of the session, from 1. It has grown whenever the client was away and is
    /// back: others may have passed its requests that wait meanwhile.
    pub fn generation(&self) -> Generation {
        self.welcome().generation
    }

    /// The length of the session's lease.
    pub fn ttl(&self) -> Ttl {
        self.welcome().ttl
    }

    /// Until when the coordinator keeps the session, its locks and its places in line, if nothing more is
    /// heard of it. Moves on with every answer to a keep-alive; not later than now if that has passed.
    pub fn valid_until(&self) -> Instant {
        let left = self.shared.lease.believed_until().since(self.shared.now());
        Instant::now() + left
    }

    /// Resolves when the client is at its end, for whatever reason. A request tells which. A lost
    /// connection is none.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn closed(&self) {
        if self.shared.process.is_another() {
            return;
        }
        self.shared.commands.closed().await;
    }

    /// Ends the session. All its locks, through this client and its clones, are free when this
    /// returns. Their guards are lost, and their requests fail with [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// If the coordinator could not be told, as there is no connection now, or no answer. Then the
    /// locks are free when the lease ends.
    ///
    /// # Cancel safety
    ///
    /// Once this was polled, the session ends also if it is dropped before it is done, unless
    /// hundreds of requests wait to be sent. Only the moment is then unknown.
    pub async fn close(self) -> Result<(), Error> {
        self.shared.check_process()?;
        let (done, is_done) = oneshot::channel();
        if self.shared.commands.send(Command::Close(done)).await.is_err() {
            return self.already_closed();
        }
        match is_done.await {
            Ok(outcome) => outcome,
            Err(_) => self.already_closed(),
        }
    }

    /// What the server said last to be the session.
    pub(in crate::client) fn welcome(&self) -> Welcome {
        self.shared.welcome.borrow().unwrap_or(self.welcome)
    }

    fn already_closed(&self) -> Result<(), Error> {
        match self.shared.end() {
            Error::Closed => Ok(()),
            error => Err(error),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.shared.server)
            .field("session", &self.session())
            .field("epoch", &self.epoch())
            .field("ttl", &self.ttl())
            .finish_non_exhaustive()
    }
}
