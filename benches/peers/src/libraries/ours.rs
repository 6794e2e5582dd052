//! Our own client library, as a peer.

use std::sync::Arc;

use coordinator::{Client, LockGuard};
use tokio::sync::OnceCell;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// A coordinator, by `Client`.
#[derive(Clone, Debug)]
pub(super) struct Ours {
    /// Where it is.
    address: String,
    /// What is measured.
    plan: Plan,
    /// The client of all, if they share one.
    shared: Option<Arc<OnceCell<Client>>>,
}

/// One who locks.
#[derive(Debug)]
pub(super) struct OursLink {
    /// Its client.
    client: Client,
    /// Its lock.
    name: String,
    /// While it holds that.
    guard: Option<LockGuard>,
}

impl Ours {
    pub(super) fn new(address: String, plan: Plan, shares: bool) -> Self {
        Self { address, plan, shared: shares.then(Arc::default) }
    }
}

impl Peer for Ours {
    type Link = OursLink;

    async fn connect(&self, number: usize) -> Result<OursLink, Error> {
        let connect = || Client::connect(self.address.as_str());
        let client = match &self.shared {
            Some(shared) => shared.get_or_try_init(connect).await.cloned(),
            None => connect().await,
        };
        let name = self.plan.lock_name(self.plan.lock(number, 0));
        Ok(OursLink { client: client.map_err(|error| failed(&error))?, name, guard: None })
    }
}

impl Link for OursLink {
    async fn greet(&mut self) -> Result<(), Error> {
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(guard) = self.guard.take() {
            guard.release().await.map_err(|error| failed(&error))?;
            hear(Answer::Released)?;
        }
        if matches!(ask, Ask::Acquire | Ask::Exchange) {
            let guard = self.client.lock(&self.name).await.map_err(|error| failed(&error))?;
            hear(Answer::Granted { slot: 0, token: Some(guard.token().number()) })?;
            self.guard = Some(guard);
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

fn failed(error: &coordinator::Error) -> Error {
    Error::Protocol(format!("the client: {error}"))
}
