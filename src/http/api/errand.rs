//! What somebody may have that no observer can ask for.

use std::sync::Arc;

use super::line::{AllLooks, Line};
use super::visitor::Visitor;
use crate::access::Proof;
use crate::http::problem::Problem;
use crate::server::{Errand, Looker, Unentitled, Who};
use crate::types::{GoodbyeCode, RejectionCode};

/// Who asks, if that one may have it. If not, that is counted and told to the logs.
pub(super) async fn entitled(
    looker: &Looker,
    visitor: &Visitor,
    errand: Errand,
) -> Result<Who, Problem> {
    match looker.entitle(visitor.proof(), visitor.caller.peer, errand).await {
        Some(Ok(who)) => Ok(who),
        Some(Err(Unentitled::Denied(denied))) => {
            let message = match errand {
                Errand::Administer => denied.to_string(),
                Errand::SeeAll => format!(
                    "{} may not see all locks: whoever is told what is counted of them needs see on \"*\"",
                    denied.principal
                ),
            };
            Err(Problem::rejected(RejectionCode::Forbidden, message))
        }
        Some(Err(Unentitled::SlowDown)) => {
            let message = "this principal asks more often in a second than it may".to_owned();
            Err(Problem::rejected(RejectionCode::SlowDown, message))
        }
        // One that stands by has no lines.
        Some(Err(Unentitled::Unproven(why))) if looker.role().is_some_and(|role| !role.leads) => {
            let code = RejectionCode::Unauthenticated;
            Err(Problem::dismissed(GoodbyeCode::Refused, code, why.to_string()))
        }
        Some(Err(Unentitled::Unproven(_))) => Err(turned_away(looker, visitor).await),
        None => Err(Problem::unavailable()),
    }
}

/// Who asks, if that is anybody known.
pub(super) async fn known(looker: &Looker, visitor: &Visitor) -> Result<Who, Problem> {
    match looker.who(visitor.proof()).await {
        Some(Ok(who)) => Ok(who),
        Some(Err(_)) => Err(turned_away(looker, visitor).await),
        None => Err(Problem::unavailable()),
    }
}

/// Whether somebody shows what proves nobody. That is asked before there is room made for what it wants.
pub(in crate::http) async fn is_nobody(looker: &Looker, visitor: &Visitor) -> bool {
    matches!(looker.who(visitor.proof()).await, Some(Err(_)))
}

/// What whoever is nobody is told: at the end of a line, as late as others are, and the audit log with them.
async fn turned_away(looker: &Looker, visitor: &Visitor) -> Problem {
    let line = Line::open(looker, visitor, &Arc::new(AllLooks::new())).await;
    line.err().unwrap_or_else(Problem::unavailable)
}

/// Whether somebody may be told metrics.
pub(in crate::http) async fn may_scrape(
    looker: &Looker,
    visitor: Result<Visitor, Problem>,
) -> Result<(), Problem> {
    // Where nobody has to show anything, it does not matter what is shown.
    if let Some(Ok(Who::Anybody)) = looker.who(Proof::default()).await {
        return Ok(());
    }
    entitled(looker, &visitor?, Errand::SeeAll).await.map(drop)
}
