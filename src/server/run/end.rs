//! The end of a server: everything is saved for the next start, or holders finish.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use actix::{ActorContext, Addr, Context, Handler};
use log::{error, info, warn};
use tokio::sync::{oneshot, watch};

use crate::server::coordinator::Coordinator;
use crate::server::desk::STOPS;
use crate::server::error::ServerError;
use crate::server::messages::{Drain, End, PartEarly, Save};
use crate::server::net::session::Shared;
use crate::server::phase::Phase;
use crate::types::GoodbyeCode;

/// Connections wait so long for what is saved, and for who goes on. Then they are told to go.
const PART_AFTER: Duration = Duration::from_millis(500);

impl Handler<PartEarly> for Coordinator {
    type Result = ();

    fn handle(&mut self, PartEarly: PartEarly, ctx: &mut Context<Self>) {
        self.send_all_away(ctx, GoodbyeCode::Draining, STOPS);
    }
}

impl Handler<End> for Coordinator {
    type Result = ();

    fn handle(&mut self, End: End, ctx: &mut Context<Self>) {
        // It would go on by itself: it looks after its journal, whoever is there.
        ctx.stop();
    }
}

/// Says Goodbye, and has everything saved for the next start. Where Goodbyes are to name who goes on, they wait for that,
/// but not for long.
pub(super) async fn save(
    shared: &Shared,
    drain_timeout: Duration,
    phase: &mut watch::Receiver<Phase>,
) -> Result<(), ServerError> {
    let parting = async {
        tokio::time::sleep(PART_AFTER).await;
        shared.coordinator.do_send(PartEarly);
        pending::<Infallible>().await
    };
    tokio::select! {
        saved = save_all(shared, drain_timeout, phase) => saved,
        never = parting => match never {},
    }
}

async fn save_all(
    shared: &Shared,
    drain_timeout: Duration,
    phase: &mut watch::Receiver<Phase>,
) -> Result<(), ServerError> {
    let (saved, done) = oneshot::channel();
    let counts = shared.coordinator.send(Save { saved }).await;
    let (sessions, requests) =
        counts.map_or((0, 0), |counts| (counts.sessions, counts.held + counts.waiting));
    let why = tokio::select! {
        biased;
        done = done => match done {
            Ok(()) => {
                info!("all state is saved");
                return Ok(());
            }
            Err(_) => "the task that saves state has ended".to_owned(),
        },
        () = tokio::time::sleep(drain_timeout) => match shared.counters.why_unsaved() {
            Some(failure) => failure,
            None => format!("not done after {drain_timeout:?}"),
        },
        () = reached(phase, Phase::Stopping) => match shared.counters.why_unsaved() {
            Some(failure) => failure,
            None => "a second signal stopped it".to_owned(),
        },
    };
    // Whatever was said is with the standby, which acknowledged it before.
    let role = shared.counters.roles.role();
    if role.as_ref().is_some_and(|role| role.behind.is_some()) {
        let standby = role.map(|role| role.standby).filter(|it| !it.is_empty());
        warn!(
            "stopped without saving in etcd, and nothing is lost: {} in sync has all {sessions} sessions and \
             {requests} requests, and leads with them once etcd answers ({why})",
            standby.as_deref().unwrap_or("the standby")
        );
        return Ok(());
    }
    let rest = if role.is_some() && shared.counters.keeping.is_on() {
        "its directory has them: a start there resumes them, on a machine that ran on, unless another has led before"
    } else {
        "the next start does not resume them"
    };
    let failure = ServerError::NotSaved { sessions, requests, rest, why };
    error!("{failure}");
    Err(failure)
}

/// Lets holders finish.
pub(super) async fn drain(
    coordinator: &Addr<Coordinator>,
    drain_timeout: Duration,
    phase: &mut watch::Receiver<Phase>,
) {
    info!("draining, holders have {drain_timeout:?} to finish");
    let (finished, drained) = oneshot::channel();
    coordinator.do_send(Drain { finished });
    tokio::select! {
        biased;
        _ = drained => {}
        () = tokio::time::sleep(drain_timeout) => warn!("some locks are still held"),
        () = reached(phase, Phase::Stopping) => {}
    }
}

/// Waits until `phase` or a later one is asked for. For ever, if nobody can ask any more.
pub(in crate::server) async fn reached(phases: &mut watch::Receiver<Phase>, phase: Phase) {
    if phases.wait_for(|asked| *asked >= phase).await.is_err() {
        pending::<()>().await;
    }
}
