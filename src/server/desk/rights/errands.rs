//! Errands: what somebody asks for over HTTP that no message of the wire asks for.
//!
//! Rules are asked here, as they are for messages, and who may not have it is counted and told to the logs.

use std::net::SocketAddr;

use super::super::Desk;
use super::Who;
use crate::access::{Access, Badge, Denied, Proof, Unproven};
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

/// Who shows this, and whether these rules allow it to have something done. None: everybody may.
type Weighed = Option<(Badge, Result<(), Denied>)>;

fn weigh(access: &Access, proof: Proof, errand: Errand) -> Result<Weighed, Unproven> {
    if access.is_open() {
        return Ok(None);
    }
    let badge = Badge::of(access, proof)?;
    let may = match errand {
        Errand::Administer => badge.principal().may_administer().map(drop),
        Errand::SeeAll => badge.principal().may_see_all().map(drop),
    };
    Ok(Some((badge, may)))
}

/// Whether somebody that shows this may have something done by a coordinator that stands by, and so has no desk.
pub(in crate::server) fn entitled(
    access: &Access,
    proof: Proof,
    errand: Errand,
) -> Result<Who, Unentitled> {
    match weigh(access, proof, errand).map_err(Unentitled::Unproven)? {
        None => Ok(Who::Anybody),
        Some((badge, Ok(()))) => Ok(Who::Principal(badge.principal_kept())),
        Some((_, Err(denied))) => Err(Unentitled::Denied(denied)),
    }
}

impl Desk {
    /// Whether somebody from `peer` that shows this may have something done.
    pub(in crate::server) fn entitle(
        &mut self,
        proof: Proof,
        peer: Option<SocketAddr>,
        errand: Errand,
    ) -> Result<Who, Unentitled> {
        let weighed = weigh(&self.rights.access, proof, errand).map_err(Unentitled::Unproven)?;
        let Some((badge, may)) = weighed else { return Ok(Who::Anybody) };
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
