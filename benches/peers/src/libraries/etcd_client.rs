//! `etcd-client`, the usual library for etcd, with its Lock service on a lease.

use std::sync::Arc;

use etcd_client::{Client, LockOptions};
use tokio::sync::OnceCell;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// Length of a lease in seconds: longer than any measurement.
const TTL: i64 = 600;

/// An etcd server.
#[derive(Clone)]
pub(super) struct EtcdClient {
    /// Where it is.
    address: String,
    /// What is measured.
    plan: Plan,
    /// The client of all, if they share one.
    shared: Option<Arc<OnceCell<Client>>>,
}

/// One who locks.
pub(super) struct EtcdClientLink {
    /// Its client.
    client: Client,
    /// Its lock.
    name: String,
    /// Its lease.
    lease: i64,
    /// The key by which it holds the lock.
    key: Vec<u8>,
}

impl EtcdClient {
    pub(super) fn new(address: String, plan: Plan, shares: bool) -> Self {
        Self { address, plan, shared: shares.then(Arc::default) }
    }
}

impl Peer for EtcdClient {
    type Link = EtcdClientLink;

    async fn connect(&self, number: usize) -> Result<EtcdClientLink, Error> {
        let open = || async {
            Client::connect([&self.address], None).await.map_err(|error| failed(&error))
        };
        let mut client = match &self.shared {
            Some(shared) => shared.get_or_try_init(open).await?.clone(),
            None => open().await?,
        };
        let lease = client.lease_grant(TTL, None).await.map_err(|error| failed(&error))?.id();
        let name = self.plan.lock_name(self.plan.lock(number, 0));
        Ok(EtcdClientLink { client, name, lease, key: Vec::new() })
    }
}

impl Link for EtcdClientLink {
    async fn greet(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if ask != Ask::Acquire {
            self.client
                .unlock(std::mem::take(&mut self.key))
                .await
                .map_err(|error| failed(&error))?;
            hear(Answer::Released)?;
        }
        if matches!(ask, Ask::Acquire | Ask::Exchange) {
            let terms = LockOptions::new().with_lease(self.lease);
            let granted = self.client.lock(self.name.as_str(), Some(terms)).await;
            self.key = granted.map_err(|error| failed(&error))?.key().to_vec();
            hear(Answer::Granted { slot: 0, token: None })?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(mut self) -> Result<(), Error> {
        self.client.lease_revoke(self.lease).await.map_err(|error| failed(&error))?;
        Ok(())
    }
}

fn failed(error: &etcd_client::Error) -> Error {
    Error::Protocol(format!("etcd-client: {error}"))
}
