//! The vocabulary of all rooms: names, ids, times, modes and codes.
//!
//! The one idea: *parsed once, at the edge* (parse, don't validate). A [`LockName`] is a valid lock
//! name wherever it is seen, a [`Ttl`] is within its bounds, [`Claims`] hold 1 to 64 different
//! locks. Nobody behind the edge checks again.
//!
//! Never here: a clock, a socket, a rule about who gets a lock. This room imports nothing of ours.

mod account;
mod address;
mod claim;
mod code;
mod credential;
mod cycle;
mod fence;
mod histogram;
mod ids;
pub mod lease;
mod limits;
pub(crate) mod list;
mod mark;
mod origin;
mod secret;
mod standing;
mod text;
mod time;
mod wait;

pub use account::{Account, Held};
pub use address::{SERVER_ADDRESS_LEN_MAX, ServerAddress, ServerAddressError};
pub use claim::{CLAIMS_MAX, Claim, ClaimError, Claims, ClaimsError, Mode, PermitsError, RawClaim};
pub use code::{GoodbyeCode, LostReason, RejectionCode};
pub use credential::{CREDENTIAL_LEN, Credential, CredentialError, ShownCredential};
pub use cycle::{Cycle, CycleLink};
pub use fence::{FenceGuard, StaleToken};
pub use histogram::{HISTOGRAM_BOUNDS, Histogram};
pub use ids::{
    ConnectionId, Epoch, FENCING_TOKEN_MAX, FencingToken, Generation, OwnerId, RequestId,
    SessionId, Ticket,
};
pub use limits::Limits;
pub use mark::{MARK_LEN_MAX, Mark};
pub use origin::Origin;
pub use secret::{Seal, SealedTicket, Secret};
pub use standing::Standing;
pub use text::{
    IDENTITY_LEN_MAX, Identity, LOCK_NAME_LEN_MAX, LockName, NOTE_LEN_MAX, Note, TextError,
};
pub use time::{
    AT_LEAST_MAX, LOCK_DELAY_MAX, TTL_DEFAULT, TTL_MAX, TTL_MAX_DEFAULT, TTL_MIN, Timestamp, Ttl,
    TtlError,
};
pub use wait::Wait;
