//! The messages of etcd that are used here, with the numbers of its fields (`rpc.proto`, `kv.proto`).
//!
//! Fields that are neither written nor read are left out. Protobuf skips those that it does not know.

/// What each answer begins with.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResponseHeader {
    /// The cluster that answers; it stays the same for its whole life.
    #[prost(uint64, tag = "1")]
    pub(super) cluster_id: u64,
    /// How often anything was changed.
    #[prost(int64, tag = "3")]
    pub(super) revision: i64,
}

/// A key and what it holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The revision of its last change.
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    /// What it holds.
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
}

/// A question for keys.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The first key that is not asked for; empty: one key is.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
    /// How many keys at most.
    #[prost(int64, tag = "3")]
    pub(super) limit: i64,
    /// Whether the one that is asked answers by itself. Else it is linearizable.
    #[prost(bool, tag = "7")]
    pub(super) serializable: bool,
}

/// The answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RangeResponse {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    /// What was found.
    #[prost(message, repeated, tag = "2")]
    pub(super) kvs: Vec<KeyValue>,
}

/// A key gets a value.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PutRequest {
    /// The key.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The value.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
    /// Whether the answer is to have what the key held before.
    #[prost(bool, tag = "4")]
    pub(super) prev_kv: bool,
}

/// It has.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PutResponse {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    /// What the key held before, if anything, and if that was asked for.
    #[prost(message, optional, tag = "2")]
    pub(super) prev_kv: Option<KeyValue>,
}

/// Keys go.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeleteRangeRequest {
    /// The first key.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    /// The first key that stays.
    #[prost(bytes = "vec", tag = "2")]
    pub(super) range_end: Vec<u8>,
}

/// They are gone.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DeleteRangeResponse {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
}

/// A comparison of the revision of a key. Its result is `EQUAL`, which is 0 and left out.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Compare {
    /// What is compared: [`COMPARE_MOD`].
    #[prost(int32, tag = "2")]
    pub(super) target: i32,
    /// Of which key.
    #[prost(bytes = "vec", tag = "3")]
    pub(super) key: Vec<u8>,
    /// With what.
    #[prost(oneof = "TargetUnion", tags = "6")]
    pub(super) target_union: Option<TargetUnion>,
}

/// The revision of the last change is compared; it is 0 for a key that is not there.
pub(super) const COMPARE_MOD: i32 = 2;

/// With what it is compared.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum TargetUnion {
    /// A revision, 0 too.
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

/// A step of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RequestOp {
    /// Which.
    #[prost(oneof = "Request", tags = "1, 2, 3")]
    pub(super) request: Option<Request>,
}

/// The steps there are.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Request {
    /// A question.
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    /// A change.
    #[prost(message, tag = "2")]
    Put(PutRequest),
    /// The end of some keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
}

/// What a step came to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResponseOp {
    /// Which.
    #[prost(oneof = "Response", tags = "1, 2, 3")]
    pub(super) response: Option<Response>,
}

/// What steps come to.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Response {
    /// To a question.
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    /// To a change.
    #[prost(message, tag = "2")]
    Put(PutResponse),
    /// To the end of some keys.
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
}

/// A transaction: all of it at once, or nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TxnRequest {
    /// What has to be so.
    #[prost(message, repeated, tag = "1")]
    pub(super) compare: Vec<Compare>,
    /// What is done then.
    #[prost(message, repeated, tag = "2")]
    pub(super) success: Vec<RequestOp>,
    /// What is done otherwise.
    #[prost(message, repeated, tag = "3")]
    pub(super) failure: Vec<RequestOp>,
}

/// What it came to.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TxnResponse {
    /// Who answers.
    #[prost(message, optional, tag = "1")]
    pub(super) header: Option<ResponseHeader>,
    /// Whether it was so.
    #[prost(bool, tag = "2")]
    pub(super) succeeded: bool,
    /// What the steps came to.
    #[prost(message, repeated, tag = "3")]
    pub(super) responses: Vec<ResponseOp>,
}

/// Who asks.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthenticateRequest {
    /// The name of the user.
    #[prost(string, tag = "1")]
    pub(super) name: String,
    /// The password.
    #[prost(string, tag = "2")]
    pub(super) password: String,
}

/// The proof of it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AuthenticateResponse {
    /// What later calls show.
    #[prost(string, tag = "2")]
    pub(super) token: String,
}

/// An answer that says whose it is.
pub(super) trait Headed {
    /// What it begins with.
    fn header(&self) -> Option<&ResponseHeader>;
}

impl Headed for RangeResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }
}

impl Headed for PutResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }
}

impl Headed for TxnResponse {
    fn header(&self) -> Option<&ResponseHeader> {
        self.header.as_ref()
    }
}
