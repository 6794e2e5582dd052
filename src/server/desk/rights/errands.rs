//! Errands: what somebody asks for over HTTP that no message of the wire asks for.
//!
//! Rules are asked here, as they are for messages, and who may not have it is counted and told to the logs.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::super::Desk;
use super::Who;
use crate::access::{Access, Badge, Denied, Proof, Unproven};
use crate::server::audit::{Audit, Entry};
use crate::server::chatter::Topic;
use crate::server::counters::Counters;
use crate::server::log_lines;
use crate::types::{RejectionCode, Timestamp};

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
    /// No rule allows it, and this principal hears so more often in a second than it may ask.
    SlowDown,
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

/// Whether somebody from `peer` that shows this may have something done by a coordinator that stands by, and so has
/// no desk. Who may not is counted, and told to both logs.
pub(in crate::server) fn entitled(
    access: &Access,
    (proof, peer): (Proof, Option<SocketAddr>),
    errand: Errand,
    (counters, audit): (&Counters, &Audit),
) -> Result<Who, Unentitled> {
    let chatter = &counters.chatter;
    let at = SystemTime::now();
    match weigh(access, proof, errand) {
        Ok(None) => Ok(Who::Anybody),
        Ok(Some((badge, Ok(())))) => Ok(Who::Principal(badge.principal_kept())),
        Ok(Some((badge, Err(denied)))) => {
            counters.denied(denied.verb);
            audit_denied(audit, at, peer, &badge, &denied);
            if chatter.admits(Topic::Denial, peer) {
                log_lines::denied(None, peer, &denied);
            }
            Err(Unentitled::Denied(denied))
        }
        Err(unproven) => {
            counters.unproven.add_one();
            if audit.admits(Topic::AuditedRefusal, peer) {
                let (result, reason) = (Some("refused"), Some(unproven.to_string()));
                let peer = peer.map(|peer| peer.to_string());
                let entry = Entry { at: Some(at), event: "sign_in", peer, ..Entry::default() };
                audit.tell_of_strangers(Entry { result, reason, ..entry });
            }
            if chatter.admits(Topic::Refusal, peer) {
                log_lines::unproven(None, peer, unproven);
            }
            Err(Unentitled::Unproven(unproven))
        }
    }
}

/// Somebody asked over HTTP for what it may not have.
fn audit_denied(
    audit: &Audit,
    at: SystemTime,
    peer: Option<SocketAddr>,
    badge: &Badge,
    denied: &Denied,
) {
    if audit.admits(Topic::AuditedDenial, peer) {
        audit.tell_of_strangers(Entry {
            at: Some(at),
            event: "request",
            result: Some("denied"),
            principal: Some(denied.principal.to_string()),
            method: Some(badge.method().as_str()),
            peer: peer.map(|peer| peer.to_string()),
            verb: Some(denied.verb.as_str()),
            ..Entry::default()
        });
    }
}

impl Desk {
    /// Whether somebody from `peer` that shows this may have something done. What is denied counts as a request
    /// (rule A4).
    pub(in crate::server) fn entitle(
        &mut self,
        (proof, peer): (Proof, Option<SocketAddr>),
        errand: Errand,
        now: Timestamp,
    ) -> Result<Who, Unentitled> {
        let weighed = weigh(&self.rights.access, proof, errand).map_err(Unentitled::Unproven)?;
        let Some((badge, may)) = weighed else { return Ok(Who::Anybody) };
        match may {
            Ok(()) => Ok(Who::Principal(badge.principal_kept())),
            Err(denied) => {
                let principal = badge.principal();
                if !self.rights.usages.stand(principal).may_request(principal, now) {
                    self.told.reject(RejectionCode::SlowDown);
                    self.told.slowed_down += 1;
                    return Err(Unentitled::SlowDown);
                }
                self.counters.denied(denied.verb);
                audit_denied(&self.audit, (self.wall)(), peer, &badge, &denied);
                if self.counters.chatter.admits(Topic::Denial, peer) {
                    log_lines::denied(None, peer, &denied);
                }
                Err(Unentitled::Denied(denied))
            }
        }
    }
}
