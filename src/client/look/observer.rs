//! Observers: connections that only look, or revoke a grant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::types::{FencingToken, LockName, Note};
use crate::wire::{
    ClusterStatus, JournalStatus, LockStatus, Outlook, Query, ServerMessage, ServerStatus,
    SessionStatus, WaitedStatus,
};

use super::elect::Leaders;
use super::events::Events;
use super::watch::Watch;
use crate::client::connect::{CONNECT_TIMEOUT_DEFAULT, Opening, default_introduction};
use crate::client::core::{Look, Purpose};
use crate::client::error::Error;
use crate::client::servers::Servers;
use crate::client::shared::Shared;

/// No answer has more pages; a server that says so goes round in circles.
const PAGES_MAX: usize = 1_000_000;

/// A connection without a session: for looking at a coordinator, and for revoking grants.
///
/// Holds nothing and keeps nothing alive. It carries any number of questions and watches at once.
/// Each call waits for its answer, for as long as connecting might have taken. A lost connection is
/// replaced by another, after pauses that grow to a few seconds. A question that is asked meanwhile
/// goes over that one, or fails as soon as an attempt to connect has failed.
///
/// # Examples
///
/// ```no_run
/// # async fn example() -> Result<(), coordinator::Error> {
/// let observer = coordinator::Observer::connect("127.0.0.1:5625").await?;
/// for lock in observer.locks().await? {
///     println!("{}: {} hold it, {} wait", lock.name, lock.holder_count, lock.waiter_count);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Observer {
    /// The connection.
    shared: Arc<Shared>,
}

impl Observer {
    /// Connects to the coordinator at `servers`: a `host:port`, or a host for the port 5625, or
    /// [several](Servers) that are tried in this order. This and every answer may take 5 s.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if none answers there, [`Error::Protocol`] if only something else does.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, no connection stays.
    pub async fn connect(servers: impl Into<Servers>) -> Result<Self, Error> {
        Self::connect_timeout(servers, CONNECT_TIMEOUT_DEFAULT).await
    }

    /// Connects as [`Observer::connect`] does; this and every answer may take as long as `timeout`.
    ///
    /// # Errors
    ///
    /// As [`Observer::connect`].
    ///
    /// # Cancel safety
    ///
    /// As [`Observer::connect`].
    pub async fn connect_timeout(
        servers: impl Into<Servers>,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let settings = Opening::with_timeout(timeout);
        let servers = servers.into().checked()?;
        let (shared, _) = settings.open(&servers, default_introduction(), Purpose::Look).await?;
        Ok(Self { shared })
    }

    /// One over the connection that there is already.
    pub(in crate::client) fn over(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared) }
    }

    /// The coordinator as a whole.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn server_status(&self) -> Result<ServerStatus, Error> {
        match self.inspect(Query::Server).await? {
            ServerMessage::ServerStatus { status, .. } => Ok(*status),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// The journal of the coordinator, and how its run began. One of an earlier version does not know
    /// the question, and closes the connection.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn journal(&self) -> Result<JournalStatus, Error> {
        match self.inspect(Query::Journal).await? {
            ServerMessage::JournalStatus { status, .. } => Ok(*status),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// The cluster that the coordinator leads; none: it is in none. One of an earlier version does not know the
    /// question, and closes the connection.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn cluster(&self) -> Result<Option<ClusterStatus>, Error> {
        match self.inspect(Query::Cluster).await? {
            ServerMessage::ClusterStatus { status, .. } => Ok(status.map(|status| *status)),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// For how long grants were waited for in this run of the coordinator. One of an earlier version does not
    /// know the question, and closes the connection.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn waited(&self) -> Result<WaitedStatus, Error> {
        match self.inspect(Query::Waited).await? {
            ServerMessage::WaitedStatus { status, .. } => Ok(*status),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// What may be done with a lock by who this has proven to be, in the verbs of an access file: of `lock`,
    /// `share`, `see` and `break`. Nothing is denied by the question, so no audit log has it. A coordinator of
    /// an earlier version does not know it, and closes the connection.
    ///
    /// # Errors
    ///
    /// If no answer comes, or the name is none.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn rights(&self, name: impl AsRef<str>) -> Result<Vec<String>, Error> {
        let name = lock_name(name.as_ref())?;
        match self.inspect(Query::Rights { name }).await? {
            ServerMessage::Rights { verbs, .. } => Ok(verbs),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// All locks in use, in no particular order. A change during the listing may be in the list or
    /// not.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn locks(&self) -> Result<Vec<LockStatus>, Error> {
        let ask = |cursor| Query::Locks { cursor };
        self.pages("a list of locks without an end", ask, |page| match page {
            ServerMessage::LockStatus { locks, next, .. } => Ok((locks, next)),
            other => Err(self.shared.out_of_place(&other)),
        })
        .await
    }

    /// The locks that somebody waits for, in no particular order. That costs the coordinator nothing for
    /// those that are only held.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    pub async fn contended(&self) -> Result<Vec<LockStatus>, Error> {
        let ask = |cursor| Query::Contended { cursor };
        self.pages("a list of locks without an end", ask, |page| match page {
            ServerMessage::LockStatus { locks, next, .. } => Ok((locks, next)),
            other => Err(self.shared.out_of_place(&other)),
        })
        .await
    }

    /// The same, unless there are more than so many: then `None`, and no more of them were asked for.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn contended_at_most(&self, most: usize) -> Result<Option<Vec<LockStatus>>, Error> {
        let ask = |cursor| Query::Contended { cursor };
        self.pages_at_most(most, "a list of locks without an end", ask, |page| match page {
            ServerMessage::LockStatus { locks, next, .. } => Ok((locks, next)),
            other => Err(self.shared.out_of_place(&other)),
        })
        .await
    }

    /// The lock `name`; `None` if nobody holds it or waits for it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if that is no name for a lock, others if no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn lock(&self, name: impl AsRef<str>) -> Result<Option<LockStatus>, Error> {
        let name = lock_name(name.as_ref())?;
        match self.inspect(Query::Lock { name }).await? {
            ServerMessage::LockStatus { mut locks, .. } => Ok(locks.pop()),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// The time at which the lock `name` is to be had. `None` if nothing is known: it is free, or
    /// its holder has a connection.
    ///
    /// # Errors
    ///
    /// As [`Observer::lock`].
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn outlook(&self, name: impl AsRef<str>) -> Result<Option<Outlook>, Error> {
        let name = lock_name(name.as_ref())?;
        match self.inspect(Query::Outlook { name }).await? {
            ServerMessage::Outlook { mut locks, .. } => Ok(locks.pop()),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// Until when locks are not to be had, of all of which something is known.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn outlooks(&self) -> Result<Vec<Outlook>, Error> {
        let ask = |cursor| Query::Outlooks { cursor };
        self.pages("a list of outlooks without an end", ask, |page| match page {
            ServerMessage::Outlook { locks, next, .. } => Ok((locks, next)),
            other => Err(self.shared.out_of_place(&other)),
        })
        .await
    }

    /// All sessions, in no particular order.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn sessions(&self) -> Result<Vec<SessionStatus>, Error> {
        let ask = |cursor| Query::Sessions { cursor };
        self.pages("a list of sessions without an end", ask, |page| match page {
            ServerMessage::SessionStatus { sessions, next, .. } => Ok((sessions, next)),
            other => Err(self.shared.out_of_place(&other)),
        })
        .await
    }

    /// Takes the lock `name` away from whoever holds it with `token`; its holder is told. The token
    /// makes sure that nobody is hit who got the lock meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Rejected`] with [`NoSuchGrant`](crate::types::RejectionCode::NoSuchGrant) if nobody holds the lock with this
    /// token, [`Error::InvalidRequest`] if that is no name for a lock, others if no answer comes. Then it may be done all
    /// the same: a coordinator that cannot save its state does it once it can.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the lock may have been taken away or not.
    pub async fn revoke(&self, name: impl AsRef<str>, token: FencingToken) -> Result<(), Error> {
        let (name, token) = (lock_name(name.as_ref())?, token);
        self.revoke_by(Look::Revoke { name, token, reason: None }).await
    }

    /// The same, and says why: up to 255 bytes without control characters, for the coordinator's audit log.
    ///
    /// # Errors
    ///
    /// As [`Observer::revoke`], and [`Error::InvalidRequest`] if that is no reason. A coordinator of an earlier
    /// version does not know the message, and closes the connection.
    ///
    /// # Cancel safety
    ///
    /// As [`Observer::revoke`].
    pub async fn revoke_for(
        &self,
        name: impl AsRef<str>,
        token: FencingToken,
        reason: impl AsRef<str>,
    ) -> Result<(), Error> {
        let name = lock_name(name.as_ref())?;
        let reason = Note::new(reason.as_ref()).map_err(|why| Error::invalid("the reason", why))?;
        self.revoke_by(Look::Revoke { name, token, reason: Some(reason.to_string()) }).await
    }

    async fn revoke_by(&self, look: Look) -> Result<(), Error> {
        match self.shared.look(look).await? {
            ServerMessage::Revoked { .. } => Ok(()),
            other => Err(self.shared.out_of_place(&other)),
        }
    }

    /// How long the coordinator takes to answer: there, through its mailbox, and back.
    ///
    /// # Errors
    ///
    /// If no answer comes.
    ///
    /// # Cancel safety
    ///
    /// Nothing changes by this, whether it is done or dropped before.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let asked = Instant::now();
        self.server_status().await?;
        Ok(asked.elapsed())
    }

    /// Watches the lock `name` from now on, over this connection, which is kept as long as the watch is, and,
    /// when it is lost, others.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if that is no name for a lock, [`Error::Rejected`] if this coordinator
    /// does not watch, others if no answer comes.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, nothing is watched.
    pub async fn watch(&self, name: impl AsRef<str>) -> Result<Watch, Error> {
        Watch::begin(&self.shared, lock_name(name.as_ref())?).await
    }

    /// The leaders of the election `name`, from now on; see [`Client::elect`](crate::Client::elect).
    ///
    /// # Errors
    ///
    /// As [`Observer::watch`].
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, nothing is watched.
    pub async fn observe(&self, name: impl AsRef<str>) -> Result<Leaders, Error> {
        Ok(Leaders::new(self.watch(name).await?))
    }

    /// Listens to everything that happens to requests from now on: those that claim the lock `name`,
    /// or all of them.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRequest`] if that is no name for a lock, [`Error::Rejected`] if this coordinator
    /// does not tell, others if no answer comes.
    ///
    /// # Cancel safety
    ///
    /// If this is dropped before it is done, the connection is closed, as the observer is.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), coordinator::Error> {
    /// use coordinator::{Event, Observer};
    ///
    /// let mut events = Observer::connect("127.0.0.1:5625").await?.events(None).await?;
    /// while let Some(event) = events.next().await {
    ///     match event? {
    ///         Event::Happened(it) => println!("{} {:?} {:?}", it.identity, it.what, it.claims),
    ///         Event::Missed { count } => println!("… {count} more"),
    ///         Event::Gap { cause } => println!("… not counted while away: {cause}"),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn events(self, name: Option<&str>) -> Result<Events, Error> {
        Events::subscribe(&self.shared, name.map(lock_name).transpose()?).await
    }

    /// All pages of a list: each is asked for where the one before has ended. One that is `endless` is
    /// given up.
    async fn pages<T>(
        &self,
        endless: &str,
        ask: impl Fn(u64) -> Query,
        read: impl Fn(ServerMessage) -> Result<(Vec<T>, Option<u64>), Error>,
    ) -> Result<Vec<T>, Error> {
        let all = self.pages_at_most(usize::MAX, endless, ask, read).await?;
        Ok(all.unwrap_or_default())
    }

    async fn pages_at_most<T>(
        &self,
        most: usize,
        endless: &str,
        ask: impl Fn(u64) -> Query,
        read: impl Fn(ServerMessage) -> Result<(Vec<T>, Option<u64>), Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        for _ in 0..PAGES_MAX {
            let (page, next) = read(self.inspect(ask(cursor)).await?)?;
            all.extend(page);
            if all.len() > most {
                return Ok(None);
            }
            match next {
                Some(next) => cursor = next,
                None => return Ok(Some(all)),
            }
        }
        Err(self.shared.broken(endless))
    }

    async fn inspect(&self, query: Query) -> Result<ServerMessage, Error> {
        self.shared.look(Look::At(query)).await
    }
}

fn lock_name(name: &str) -> Result<String, Error> {
    match LockName::new(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(error) => Err(Error::invalid_lock_name(name, error)),
    }
}
