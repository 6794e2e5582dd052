//! A client of etcd: values are read, and put in place of those that were read.
//!
//! The one idea: *each endpoint has a channel of its own, and each call a bounded time*. A call goes to the
//! endpoint that answered last, then to the next. So an endpoint that is dead, or hangs, costs one bounded
//! wait, and another answers. gRPC's own balancer goes on choosing an endpoint that does not answer. When nobody
//! has answered in time, the next call has twice as long.
//!
//! A change that was repeated at another endpoint may be executed twice. [`Etcd::swap`] compares, so the second
//! time it is refused; what is put has to tell whose it is.
//!
//! *All endpoints are of one etcd*, which every answer names (rule H8). Those of another are passed over as if they were
//! dead. What changes something is asked of nobody who has yet to say whose it is.
//!
//! Invariants, as absences:
//! - Nothing here knows what the values mean.
//! - No lease of etcd is used, and no watch: members were seen to acknowledge what was gone.
//! - No call is without a bound.

mod belief;
mod channel;
mod error;
mod messages;
mod password;

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use http_types::uri::PathAndQuery;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

pub use self::belief::Believed;
use self::channel::{Member, member};
pub use self::error::{Attempts, EtcdError};
use self::error::{cause, is_final, refusal, wants_proof};
use self::messages::{
    AuthenticateRequest, AuthenticateResponse, COMPARE_MOD, Compare, DeleteRangeRequest, Headed,
    KeyValue, PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, ResponseHeader,
    TargetUnion, TxnRequest, TxnResponse,
};
pub use self::password::Password;

/// More endpoints than this are a mistake.
pub const ETCD_ENDPOINTS_MAX: usize = 16;
/// More keys below a prefix than this are not read.
pub const ETCD_KEYS_MAX: usize = 1_000;
/// An answer may have so many bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How often the time for an answer is doubled at most: sixteen times as long.
const DOUBLINGS_MAX: u32 = 4;

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// Where etcd is, and who asks.
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// Its endpoints: `http://host:port` or `https://host:port`.
    pub endpoints: Vec<String>,
    /// The authorities that its certificates are signed by, as PEM.
    pub ca: Option<Vec<u8>>,
    /// The certificate and the key that prove who asks, as PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name of the user, and its password.
    pub user: Option<(String, Password)>,
    /// How long an endpoint has for an answer.
    pub patience: Duration,
    /// The cluster of etcds that is believed; clones share it.
    pub believed: Believed,
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.user.as_ref().map(|(name, _)| name);
        let Self { endpoints, patience, .. } = self;
        f.debug_struct("EtcdOptions")
            .field("endpoints", endpoints)
            .field("user", &name)
            .field("patience", patience)
            .finish_non_exhaustive()
    }
}

/// A value, and when it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The revision at which it was put.
    pub revision: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The cluster of etcds that says so.
    pub cluster: u64,
    /// What was found; none: the key is not there.
    pub found: Option<Found>,
}

/// What a key held before it was given another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The cluster of etcds that says so.
    pub cluster: u64,
    /// The revision at which the new value was put.
    pub revision: u64,
    /// What was found in its place; none: the key was not there.
    pub found: Option<Found>,
}

/// What a swap came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// It is done.
    Done {
        /// The cluster of etcds that says so.
        cluster: u64,
        /// The revision at which it was.
        revision: u64,
    },
    /// The key holds something else.
    Refused(Reading),
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key gets a value.
    Put {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Keys go: those from `from` on and before `end`.
    Delete {
        /// The first.
        from: String,
        /// The first that stays.
        end: String,
    },
}

impl From<Step> for messages::Request {
    fn from(step: Step) -> Self {
        match step {
            Step::Put { key, value } => {
                Self::Put(PutRequest { key: key.into(), value, prev_kv: false })
            }
            Step::Delete { from, end } => {
                Self::DeleteRange(DeleteRangeRequest { key: from.into(), range_end: end.into() })
            }
        }
    }
}

/// The first key that does not begin so. No prefix of ours ends with the last of all letters.
pub fn behind(prefix: &str) -> String {
    let mut end = prefix.to_owned();
    let last = end.pop().and_then(|last| char::from_u32(u32::from(last) + 1));
    end.extend(last);
    end
}

/// Who may answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The etcd that is believed.
    Believed,
    /// Another one, too, if that one does not.
    Anybodys,
}

/// What an endpoint said.
enum Said<A> {
    /// It is of the etcd that is believed.
    Believed(A),
    /// It is of another one, with this id.
    Other(u64),
}

/// What became of a call.
#[derive(Clone, Copy)]
enum Waited {
    /// It was answered after so long.
    For(Duration),
    /// Nobody has answered in time.
    InVain,
}

/// A client of etcd.
pub struct Etcd {
    /// The endpoints, as given.
    members: Vec<Member>,
    /// The one that answered last.
    latest: AtomicUsize,
    /// The cluster of etcds that is believed.
    believed: Believed,
    /// The name of the user, and its password.
    user: Option<(String, Password)>,
    /// The proof that etcd gave for them, if it did.
    token: Mutex<Option<MetadataValue<Ascii>>>,
    /// How long an endpoint has for an answer, to begin with.
    patience: Duration,
    /// How often that is doubled: once more each time that nobody has answered.
    doublings: AtomicU32,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        f.debug_struct("Etcd").field("members", &names).finish_non_exhaustive()
    }
}

impl Etcd {
    /// A client. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// If an address or a certificate cannot be used.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new(options: EtcdOptions) -> Result<Self, EtcdError> {
        let count = options.endpoints.len();
        if !(1..=ETCD_ENDPOINTS_MAX).contains(&count) {
            return Err(EtcdError::Endpoints { count, max: ETCD_ENDPOINTS_MAX });
        }
        let members = options.endpoints.iter().map(|url| member(url, &options));
        Ok(Self {
            members: members.collect::<Result<_, _>>()?,
            latest: AtomicUsize::new(0),
            believed: options.believed,
            user: options.user,
            token: Mutex::new(None),
            patience: options.patience,
            doublings: AtomicU32::new(0),
        })
    }

    /// How long an endpoint has for an answer now. Where each is slower than that, a call that is given up and
    /// made again would never be answered.
    fn patience(&self) -> Duration {
        self.patience * (1 << self.doublings.load(Ordering::Relaxed).min(DOUBLINGS_MAX))
    }

    /// Has the next calls wait for longer, or not so long any more.
    fn waited(&self, outcome: Waited) {
        let now = self.doublings.load(Ordering::Relaxed);
        let next = match outcome {
            Waited::InVain => (now + 1).min(DOUBLINGS_MAX),
            Waited::For(length) if length < self.patience() / 4 => now.saturating_sub(1),
            Waited::For(_) => now,
        };
        self.doublings.store(next, Ordering::Relaxed);
    }

    /// The cluster of etcds that is believed, for whoever has to move it.
    pub fn believed(&self) -> &Believed {
        &self.believed
    }

    /// What a key holds, as a majority says.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses.
    pub async fn read(&self, key: &str) -> Result<Reading, EtcdError> {
        self.read_of(key, Whose::Believed).await
    }

    /// The same; if only another etcd answers than the one that is believed, that one's.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses.
    pub async fn read_anybodys(&self, key: &str) -> Result<Reading, EtcdError> {
        self.read_of(key, Whose::Anybodys).await
    }

    async fn read_of(&self, key: &str, whose: Whose) -> Result<Reading, EtcdError> {
        let request = RangeRequest { key: key.into(), limit: 1, ..RangeRequest::default() };
        let (endpoint, answer): (_, RangeResponse) = self.call(RANGE, request, whose).await?;
        let cluster = self.cluster(endpoint, answer.header.as_ref())?;
        Ok(Reading { cluster, found: answer.kvs.into_iter().next().map(Found::from) })
    }

    /// All keys below a prefix, and what they hold; [`ETCD_KEYS_MAX`] at most.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, Found)>, EtcdError> {
        self.page(prefix, &behind(prefix), ETCD_KEYS_MAX).await
    }

    /// The keys from `from` on and before `end`, in their order, and what they hold; `limit` at most.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses.
    pub async fn page(
        &self,
        from: &str,
        end: &str,
        limit: usize,
    ) -> Result<Vec<(String, Found)>, EtcdError> {
        let limit = i64::try_from(limit.clamp(1, ETCD_KEYS_MAX)).unwrap_or(i64::MAX);
        let (key, range_end) = (from.into(), end.into());
        let request = RangeRequest { key, range_end, limit, serializable: false };
        let (_, answer): (_, RangeResponse) = self.call(RANGE, request, Whose::Believed).await?;
        let named = |it: KeyValue| (String::from_utf8_lossy(&it.key).into_owned(), Found::from(it));
        Ok(answer.kvs.into_iter().map(named).collect())
    }

    /// Puts a value, whatever the key holds.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses. It may have been put nevertheless, or will be.
    pub async fn put(&self, key: &str, value: Vec<u8>) -> Result<(), EtcdError> {
        let request = PutRequest { key: key.into(), value, prev_kv: false };
        let (_, PutResponse { .. }) = self.call(PUT, request, Whose::Believed).await?;
        Ok(())
    }

    /// The same; if only another etcd answers than the one that is believed, there. Tells what the key held before.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses. It may have been put nevertheless, or will be.
    pub async fn replace_anybodys(&self, key: &str, value: Vec<u8>) -> Result<Replaced, EtcdError> {
        let request = PutRequest { key: key.into(), value, prev_kv: true };
        let (endpoint, answer): (_, PutResponse) = self.call(PUT, request, Whose::Anybodys).await?;
        let header = answer.header.unwrap_or_default();
        Ok(Replaced {
            cluster: self.cluster(endpoint, Some(&header))?,
            revision: header.revision.unsigned_abs(),
            found: answer.prev_kv.map(Found::from),
        })
    }

    /// Puts a value in place of the one that was put at the revision `expected`; 0: the key is not there.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses. It may have been put nevertheless, or will be.
    pub async fn swap(&self, key: &str, expected: u64, value: Vec<u8>) -> Result<Swap, EtcdError> {
        self.transact(&[(key, expected)], vec![Step::Put { key: key.to_owned(), value }]).await
    }

    /// Takes all `steps` at once, if each key of `compared` was put at its revision; 0: it is not there.
    /// If not, what the first of them holds is told.
    ///
    /// # Errors
    ///
    /// If no endpoint answers, or one refuses. They may have been taken nevertheless, or will be.
    pub async fn transact(
        &self,
        compared: &[(&str, u64)],
        steps: Vec<Step>,
    ) -> Result<Swap, EtcdError> {
        let step = |it| RequestOp { request: Some(it) };
        let compare = compared.iter().map(|(key, expected)| {
            let revision = i64::try_from(*expected).unwrap_or(i64::MAX);
            Compare {
                target: COMPARE_MOD,
                key: key.as_bytes().to_vec(),
                target_union: Some(TargetUnion::ModRevision(revision)),
            }
        });
        // Etcd looks at what is not done, too, so nothing may be wrong with it.
        let failure = compared.first().map(|(key, _)| {
            let key = key.as_bytes().to_vec();
            step(messages::Request::Range(RangeRequest {
                key,
                limit: 1,
                ..RangeRequest::default()
            }))
        });
        let request = TxnRequest {
            compare: compare.collect(),
            success: steps.into_iter().map(|it| step(it.into())).collect(),
            failure: failure.into_iter().collect(),
        };
        let (endpoint, answer): (_, TxnResponse) = self.call(TXN, request, Whose::Believed).await?;
        let cluster = self.cluster(endpoint, answer.header.as_ref())?;
        if answer.succeeded {
            let revision = answer.header.map_or(0, |header| header.revision);
            return Ok(Swap::Done { cluster, revision: revision.unsigned_abs() });
        }
        match answer.responses.into_iter().next().and_then(|step| step.response) {
            Some(messages::Response::Range(range)) => {
                let found = range.kvs.into_iter().next().map(Found::from);
                Ok(Swap::Refused(Reading { cluster, found }))
            }
            _ => Err(self.no_answer(endpoint, "what the key holds")),
        }
    }

    fn no_answer(&self, endpoint: usize, what: &'static str) -> EtcdError {
        EtcdError::Answer { endpoint: self.members[endpoint].name.clone(), what }
    }

    fn cluster(&self, at: usize, header: Option<&ResponseHeader>) -> Result<u64, EtcdError> {
        header.map(|it| it.cluster_id).ok_or_else(|| self.no_answer(at, "a header"))
    }

    /// Asks one endpoint after the other, beginning with the one that answered last; who has answered what.
    async fn call<Q, A>(
        &self,
        path: &'static str,
        request: Q,
        whose: Whose,
    ) -> Result<(usize, A), EtcdError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Headed + Default + 'static,
    {
        let (first, count) = (self.latest.load(Ordering::Relaxed), self.members.len());
        let (mut attempts, patience) = (Vec::new(), self.patience());
        let (mut stranger, mut refused) = (None, None);
        for endpoint in (first..first + count).map(|number| number % count) {
            let Member { name, said, .. } = &self.members[endpoint];
            let began = Instant::now();
            match timeout(patience, self.ask_known(endpoint, path, request.clone())).await {
                Ok(Ok(Said::Believed(answer))) => {
                    self.waited(Waited::For(began.elapsed()));
                    self.latest.store(endpoint, Ordering::Relaxed);
                    return Ok((endpoint, answer));
                }
                Ok(Ok(Said::Other(id))) => {
                    attempts.push((name.clone(), format!("its cluster id is {id:x}")));
                    stranger = stranger.or(Some((endpoint, id)));
                }
                Ok(Err(status)) if is_final(&status) => {
                    // One that has yet to say whose it is may be a stranger.
                    let refusal = refusal(name, &status);
                    if self.is_known(endpoint) {
                        return Err(refusal);
                    }
                    refused = refused.or(Some(refusal));
                }
                Ok(Err(status)) => {
                    said.store(0, Ordering::Relaxed);
                    attempts.push((name.clone(), cause(&status)));
                }
                Err(_) => {
                    said.store(0, Ordering::Relaxed);
                    attempts.push((name.clone(), format!("no answer within {patience:?}")));
                }
            }
        }
        self.waited(Waited::InVain);
        if let Some((endpoint, other)) = stranger {
            if whose == Whose::Anybodys
                && let Ok(Ok(answer)) = timeout(patience, self.ask(endpoint, path, request)).await
            {
                return Ok((endpoint, answer));
            }
            let known = self.believed.cluster().unwrap_or_default();
            return Err(EtcdError::Other { known, other, attempts: Attempts(attempts) });
        }
        Err(refused.unwrap_or(EtcdError::Unavailable(Attempts(attempts))))
    }

    /// Asks an endpoint, if it is of the etcd that is believed. What changes something is asked of nobody else.
    async fn ask_known<Q, A>(
        &self,
        endpoint: usize,
        path: &'static str,
        request: Q,
    ) -> Result<Said<A>, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Headed + Default + 'static,
    {
        if path != RANGE && !self.is_known(endpoint) {
            let id = self.id_of(endpoint).await?;
            if !self.believed.admits(id) {
                return Ok(Said::Other(id));
            }
        }
        let answer: A = self.ask(endpoint, path, request).await?;
        let Some(id) = answer.header().map(|it| it.cluster_id) else {
            return Ok(Said::Believed(answer));
        };
        self.members[endpoint].said.store(id, Ordering::Relaxed);
        Ok(if self.believed.admits(id) { Said::Believed(answer) } else { Said::Other(id) })
    }

    /// Whether an endpoint has said last that it is of the etcd that is believed.
    fn is_known(&self, endpoint: usize) -> bool {
        let said = self.members[endpoint].said.load(Ordering::Relaxed);
        self.believed.cluster() == Some(said)
    }

    /// Asks an endpoint, and proves who asks if that is wanted: once more, if the proof is too old.
    async fn ask<Q, A>(&self, endpoint: usize, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let token = self.token.lock().ok().and_then(|token| token.clone());
        let answer = self.send(endpoint, path, request.clone(), token).await;
        match (&self.user, answer) {
            (Some(user), Err(status)) if wants_proof(&status) => {
                let token = self.authenticate(endpoint, user).await?;
                self.send(endpoint, path, request, Some(token)).await
            }
            (_, answer) => answer,
        }
    }

    /// Proves who asks.
    async fn authenticate(
        &self,
        endpoint: usize,
        (name, password): &(String, Password),
    ) -> Result<MetadataValue<Ascii>, Status> {
        let request = AuthenticateRequest { name: name.clone(), password: password.now().await };
        let answer: AuthenticateResponse = self.send(endpoint, AUTHENTICATE, request, None).await?;
        let token = MetadataValue::try_from(&answer.token)
            .map_err(|_| Status::internal("its token has letters that no header may have"))?;
        if let Ok(mut kept) = self.token.lock() {
            *kept = Some(token.clone());
        }
        Ok(token)
    }

    /// One call of one endpoint.
    async fn send<Q, A>(
        &self,
        endpoint: usize,
        path: &'static str,
        request: Q,
        token: Option<MetadataValue<Ascii>>,
    ) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let channel = self.members[endpoint].channel.clone();
        let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let mut request = Request::new(request);
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }
}

impl From<KeyValue> for Found {
    fn from(it: KeyValue) -> Self {
        Self { revision: it.mod_revision.unsigned_abs(), value: it.value }
    }
}
