//! Whether a session is a principal's, by its id alone.
//!
//! Whose it is stands before what its client calls itself. But a run without an access file takes a client at
//! its word, and the next run may have one: then a session called `billing` would be that principal's. So the
//! id tells them apart. It is drawn here, is in every journal, snapshot and copy, and never changes.

use crate::access::PrincipalName;
use crate::engine::SessionView;
use crate::types::SessionId;

/// Set in the id of a principal's session, and of no other. The other 127 bits are drawn.
const OF_A_PRINCIPAL: u128 = 1 << (u128::BITS - 1);

/// The id of a new session, of a principal or of nobody.
pub(super) fn named(drawn: SessionId, owner: Option<&PrincipalName>) -> SessionId {
    let bare = drawn.number() & !OF_A_PRINCIPAL;
    SessionId::new(if owner.is_some() { bare | OF_A_PRINCIPAL } else { bare })
}

/// What proves whose a session is: its identity, if it is a principal's.
pub(super) fn proven_identity<'a>(view: &SessionView<'a>) -> Option<&'a str> {
    let is_marked = view.session.number() & OF_A_PRINCIPAL != 0;
    is_marked.then_some(view.identity.as_str())
}
