//! What servers say when none of them leads.

use std::fmt;

use crate::types::{Epoch, ServerAddress};

/// The coordinators that answer are members of a cluster, and none of them leads. A change of leader is
/// under way, or their arbiter is away, or the leader cannot be reached from here.
///
/// This is what the source of [`Error::Unavailable`](super::Error::Unavailable) holds then:
///
/// ```
/// # fn is_there(source: &std::io::Error) -> bool {
/// source.get_ref().is_some_and(|why| why.is::<coordinator::NoLeader>())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct NoLeader {
    /// What each server says of it.
    said: String,
}

impl NoLeader {
    /// This one does not lead, and says so about who does.
    pub(super) fn here(peer: Option<&str>, hint: &str) -> Self {
        let peer = peer.unwrap_or("it");
        let said = match (ServerAddress::new(hint), hint) {
            (Ok(leader), _) => format!("{peer} does not lead and names {leader}"),
            (Err(_), "") => format!("{peer} does not lead and knows nobody who does"),
            // What anybody says is not shown.
            (Err(_), _) => format!("{peer} does not lead and names what is no address"),
        };
        Self { said }
    }

    /// This one welcomed us with an `epoch` that is over.
    pub(super) fn deposed(peer: Option<&str>, epoch: Epoch) -> Self {
        let peer = peer.unwrap_or("it");
        Self { said: format!("{peer} leads no more: its epoch {epoch} is not the latest") }
    }

    /// What several said.
    pub(super) fn of(said: &[String]) -> Self {
        Self { said: said.join("; ") }
    }
}

impl fmt::Display for NoLeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl std::error::Error for NoLeader {}
