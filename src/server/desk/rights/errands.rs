//! Errands: what somebody asks for over HTTP that no message of the wire asks for.
//!
//! Rules are asked here, as they are for messages, and who may not have it is counted and told to the logs.

use std::net::SocketAddr;

use super::super::Desk;
use super::Who;
use crate::access::{Badge, Denied, Proof, Unproven};
use crate::server::chatter::Topic;
use crate::server::log_lines;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// To administer the coordinator: to have its configuration read again.
    Administer,
    /// To be told what is counted of all locks.
    SeeAll,
}

/// It is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unentitled {
    /// Who asks is nobody.
    Unproven(Unproven),
    /// No rule allows it.
    Denied(Denied),
}

impl Desk {
    /// Whether somebody from `peer` that shows this may have something done.
    pub(in crate::server) fn entitle(
        &mut self,
        proof: Proof,
        peer: Option<SocketAddr>,
        errand: Errand,
    ) -> Result<Who, Unentitled> {
        if self.rights.access.is_open() {
            return Ok(Who::Anybody);
        }
        let badge = Badge::of(&self.rights.access, proof).map_err(Unentitled::Unproven)?;
        let may = match errand {
            Errand::Administer => badge.principal().may_administer().map(drop),
            Errand::SeeAll => badge.principal().may_see_all().map(drop),
        };
        match may {
            Ok(()) => Ok(Who::Principal(badge.principal_kept())),
            Err(denied) => {
                self.told.deny(denied.verb);
                self.audit_errand(peer, &badge, &denied);
                if self.counters.chatter.admits(Topic::Denial, peer) {
                    log_lines::denied(None, peer, &denied);
                }
                Err(Unentitled::Denied(denied))
            }
        }
    }
}
