//! etcd, by its Lock service over gRPC: a lease per session, `Lock` and `Unlock`.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::load::{Answer, Ask, Error, Link, Peer, Plan};

/// Length of a lease in seconds: longer than any measurement.
const TTL: i64 = 600;
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseRevokeRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockResponse {
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnlockRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// An answer of which nothing is wanted.
#[derive(Clone, PartialEq, prost::Message)]
struct Done {}

/// An etcd server.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    /// Where it is.
    pub(crate) address: String,
    /// What is measured.
    pub(crate) plan: Plan,
}

/// A connection to an etcd server.
#[derive(Debug)]
pub(crate) struct EtcdLink {
    /// The connection: one, of its own.
    channel: Channel,
    /// The session's lease; 0 before it is granted.
    lease: i64,
    /// The names of the locks.
    names: Vec<Bytes>,
    /// The keys by which the locks are held.
    keys: Vec<Bytes>,
}

impl Peer for Etcd {
    type Link = EtcdLink;

    async fn connect(&self, number: usize) -> Result<EtcdLink, Error> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(failed)?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(failed)?;
        let name = |slot| Bytes::from(self.plan.lock_name(self.plan.lock(number, slot)));
        let slots = self.plan.slots();
        let names = (0..slots).map(name).collect();
        Ok(EtcdLink { channel, lease: 0, names, keys: vec![Bytes::new(); slots] })
    }
}

/// One call, one answer.
async fn call<Asked, Told>(
    channel: Channel,
    method: &'static str,
    asked: Asked,
) -> Result<Told, Error>
where
    Asked: prost::Message + Send + Sync + 'static,
    Told: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(failed)?;
    let codec: ProstCodec<Asked, Told> = ProstCodec::default();
    let told = grpc.unary(tonic::Request::new(asked), PathAndQuery::from_static(method), codec);
    Ok(told.await.map_err(failed)?.into_inner())
}

fn failed(error: impl std::error::Error) -> Error {
    Error::Protocol(format!("etcd: {error:?}"))
}

/// What became of a slot.
enum Did {
    /// It was released.
    Released,
    /// It was granted, with this key.
    Granted(usize, Bytes),
}

impl EtcdLink {
    /// Releases a slot, asks for it, or both, one after the other.
    async fn slot(
        channel: Channel,
        slot: usize,
        key: Option<Bytes>,
        ask: Option<LockRequest>,
    ) -> Result<[Option<Did>; 2], Error> {
        let mut did = [None, None];
        if let Some(key) = key {
            let _: Done =
                call(channel.clone(), "/v3lockpb.Lock/Unlock", UnlockRequest { key }).await?;
            did[0] = Some(Did::Released);
        }
        if let Some(ask) = ask {
            let LockResponse { key } = call(channel, "/v3lockpb.Lock/Lock", ask).await?;
            did[1] = Some(Did::Granted(slot, key));
        }
        Ok(did)
    }
}

impl Link for EtcdLink {
    async fn greet(&mut self) -> Result<(), Error> {
        let asked = LeaseGrantRequest { ttl: TTL };
        let granted: LeaseGrantResponse =
            call(self.channel.clone(), "/etcdserverpb.Lease/LeaseGrant", asked).await?;
        self.lease = granted.id;
        Ok(())
    }

    async fn turn(
        &mut self,
        ask: Ask,
        hear: &mut impl FnMut(Answer) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.lease == 0 {
            self.greet().await?;
        }
        let mut calls = FuturesUnordered::new();
        for (slot, name) in self.names.iter().enumerate() {
            let key = (ask != Ask::Acquire).then(|| self.keys[slot].clone());
            let asks = matches!(ask, Ask::Acquire | Ask::Exchange);
            let asks = asks.then(|| LockRequest { name: name.clone(), lease: self.lease });
            calls.push(Self::slot(self.channel.clone(), slot, key, asks));
        }
        while let Some(did) = calls.next().await {
            for did in did?.into_iter().flatten() {
                match did {
                    Did::Released => hear(Answer::Released)?,
                    Did::Granted(slot, key) => {
                        self.keys[slot] = key;
                        hear(Answer::Granted { slot, token: None })?;
                    }
                }
            }
        }
        if ask == Ask::ReleaseAndLeave {
            self.revoke().await?;
        }
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Error> {
        std::future::pending().await
    }

    async fn leave(mut self) -> Result<(), Error> {
        self.revoke().await
    }
}

impl EtcdLink {
    /// Ends the session.
    async fn revoke(&mut self) -> Result<(), Error> {
        let asked = LeaseRevokeRequest { id: self.lease };
        let _: Done = call(self.channel.clone(), "/etcdserverpb.Lease/LeaseRevoke", asked).await?;
        Ok(())
    }
}
