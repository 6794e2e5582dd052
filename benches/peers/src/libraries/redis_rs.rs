//! `redis`, the usual library for Redis, with the usual code for locks: `SET name value NX PX ttl`, and a script
//! that deletes the key only if it has our value.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Client, Script};
use tokio::sync::OnceCell;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};
use crate::redis::{RELEASE, TTL_MS};

/// A Redis server.
#[derive(Clone, Debug)]
pub(super) struct RedisRs {
    /// Where it is.
    address: String,
    /// What is measured.
    plan: Plan,
    /// The connection of all, if they share one.
    shared: Option<Arc<OnceCell<MultiplexedConnection>>>,
    /// Gives locks back.
    script: Script,
}

/// One who locks.
#[derive(Debug)]
pub(super) struct RedisRsLink {
    /// Its connection.
    connection: MultiplexedConnection,
    /// Its locks.
    lock: Values,
    /// Gives locks back.
    script: Script,
}

/// A lock, and the values with which it is held.
#[derive(Debug)]
pub(super) struct Values {
    /// The lock.
    pub(super) name: String,
    /// Which connection it is: a part of every value.
    number: usize,
    /// How often it was asked for: the other part.
    asked: u64,
    /// The value with which it is held.
    pub(super) value: String,
}

impl Values {
    pub(super) fn new(plan: &Plan, number: usize) -> Self {
        let name = plan.lock_name(plan.lock(number, 0));
        Self { name, number, asked: 0, value: String::new() }
    }

    /// Another value.
    pub(super) fn next(&mut self) {
        self.asked += 1;
        self.value = format!("{:08}-{:012}", self.number, self.asked);
    }

    /// How the lock is taken.
    pub(super) fn take(&self) -> redis::Cmd {
        let mut set = redis::cmd("SET");
        set.arg(&self.name).arg(&self.value).arg("NX").arg("PX").arg(TTL_MS);
        set
    }
}

impl RedisRs {
    pub(super) fn new(address: String, plan: Plan, shares: bool) -> Self {
        Self { address, plan, shared: shares.then(Arc::default), script: Script::new(RELEASE) }
    }

    async fn open(&self) -> Result<MultiplexedConnection, Error> {
        let client =
            Client::open(format!("redis://{}", self.address)).map_err(|error| failed(&error))?;
        client.get_multiplexed_async_connection().await.map_err(|error| failed(&error))
    }
}

impl Peer for RedisRs {
    type Link = RedisRsLink;

    async fn connect(&self, number: usize) -> Result<RedisRsLink, Error> {
        let connection = match &self.shared {
            Some(shared) => shared.get_or_try_init(|| self.open()).await?.clone(),
            None => self.open().await?,
        };
        let lock = Values::new(&self.plan, number);
        Ok(RedisRsLink { connection, lock, script: self.script.clone() })
    }
}

impl Link for RedisRsLink {
    async fn greet(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Self { connection, lock, script } = self;
        if ask != Ask::Acquire {
            let mut release = script.key(&lock.name);
            let deleted = release.arg(&lock.value).invoke_async::<i64>(connection).await;
            if deleted.map_err(|error| failed(&error))? != 1 {
                return Err(wrong("the release"));
            }
            hear(Answer::Released)?;
        }
        if matches!(ask, Ask::Acquire | Ask::Exchange) {
            lock.next();
            let set = lock.take().query_async::<Option<String>>(connection).await;
            if set.map_err(|error| failed(&error))?.is_none() {
                return Err(wrong("a lock of our own is not free"));
            }
            hear(Answer::Granted { slot: 0, token: None })?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(self) -> Result<(), Error> {
        Ok(())
    }
}

pub(super) fn failed(error: &redis::RedisError) -> Error {
    Error::Protocol(format!("redis-rs: {error}"))
}

pub(super) fn wrong(what: &str) -> Error {
    Error::Protocol(format!("Redis answered unexpectedly: {what}"))
}
