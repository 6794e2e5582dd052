//! The account that a client gives of its requests.

use serde::{Deserialize, Serialize};

use super::list::list;
use super::{FencingToken, RequestId};

/// A client's view of its requests (reconciliation): what it knows of those with ids from `from` to
/// `to` (rule S3). Of long lists, a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The first request id that this part is about.
    pub from: RequestId,
    /// The last.
    pub to: RequestId,
    /// The requests that it believes to hold.
    #[serde(deserialize_with = "list")]
    pub held: Vec<Held>,
    /// Requests whose answer it waits for.
    #[serde(deserialize_with = "list")]
    pub waiting: Vec<RequestId>,
}

/// A request that is held, as its client believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The request.
    pub request: RequestId,
    /// The token of its grant.
    pub token: FencingToken,
}
