//! What was seen of a coordinator, before it is shown in any form.

use coordinator::wire::{
    ClusterStatus, JournalStatus, LockStatus, Outlook, ServerStatus, SessionStatus,
};

/// The status.
pub(crate) struct Seen {
    /// The coordinator as a whole.
    pub(crate) server: ServerStatus,
    /// The journal; none if the coordinator does not know the question.
    pub(crate) journal: Option<JournalStatus>,
    /// The cluster that it leads; none if it is in none, or does not know the question.
    pub(crate) cluster: Option<ClusterStatus>,
    /// The locks in use, or the one that was asked for if it is.
    pub(crate) locks: Vec<LockStatus>,
    /// Until when they are not to be had, of those of which that is known.
    pub(crate) outlooks: Vec<Outlook>,
    /// The sessions, if they were asked for.
    pub(crate) sessions: Option<Vec<SessionStatus>>,
}
