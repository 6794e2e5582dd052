//! Records of forfeits: those that are on disk, and those on their way there.

use serde::{Deserialize, Serialize};

use super::arena::SessionKey;
use super::effect::Forfeit;
use crate::types::{ConnectionId, FencingToken, LockName, Timestamp};

/// Most records at a time: more than there can be sessions by default, so that all may end at once.
pub const RECORDS_MAX: usize = 1 << 17;

/// Of a record, or of those that earlier runs left: what is to be known once it is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Until when it may be of use.
    pub(super) useful_until: Timestamp,
    /// Its number, or the last of theirs.
    pub(super) number: u64,
    /// No grant that it is about has a greater token.
    pub(super) up_to: FencingToken,
    /// How many they are.
    pub(super) count: usize,
}

/// A forfeit on its way to the disk.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct PendingForfeit {
    /// What is written down.
    pub(super) forfeit: Forfeit,
    /// What is to happen then.
    pub(super) then: AfterRecord,
}

/// What is to happen when it is on record.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum AfterRecord {
    /// Nothing yet: another record of the same end follows.
    Nothing,
    /// What the session held passes on.
    Session(SessionKey),
    /// A grant is revoked.
    Revoke {
        /// Who is to be answered.
        connection: ConnectionId,
        /// Comes back in the answer.
        query_id: u64,
        /// The lock.
        name: LockName,
        /// The token of the grant.
        token: FencingToken,
    },
}
