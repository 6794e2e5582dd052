//! `coordinator release`: gives back what was acquired (`held`), or, with `--force`, an operator takes a
//! lock away (rule R11).

use std::process::ExitCode;
use std::time::Duration;

use coordinator::types::FencingToken;
use coordinator::wire::Happening;
use coordinator::{Event, Events, Happened};
use tokio::time::timeout;

use super::held;
use crate::cli::arguments::ReleaseArgs;
use crate::cli::settings::Settings;
use crate::cli::show::ping::connect;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure};
use crate::cli::text::visible;

/// So long it may take to hear which locks end together.
const NAMED_WITHIN: Duration = Duration::from_millis(250);

/// Gives back what was acquired; by force, takes the lock away from whoever holds it with this token.
pub(crate) async fn run(args: ReleaseArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let ReleaseArgs { name, keeper, token, force: _said, reason } = args;
    // The grammar has one only with the other, and both only with `--force`.
    let (Some(token), Some(name)) = (token, &name) else {
        return held::release(keeper.as_deref(), name.as_deref()).await;
    };
    let attempt = Attempt { server: &settings.server.0, lock: name, ..Attempt::default() };
    let observer = connect(settings).await?;
    let grant = FencingToken::new(token);
    let events = timeout(NAMED_WITHIN, events(settings, name)).await.ok().flatten();
    let revoked = match reason {
        Some(reason) => observer.revoke_for(name, grant, reason).await,
        None => observer.revoke(name, grant).await,
    };
    revoked.map_err(|error| attempt.not_revoked(&error))?;
    let all = match events {
        Some(events) => timeout(NAMED_WITHIN, lost(events, grant)).await.ok().flatten(),
        None => None,
    };
    let all = all.unwrap_or_else(|| vec![name.clone()]);
    let all: Vec<_> = all.iter().map(|name| visible::quoted(name)).collect();
    answer::line(&format!("revoked {} from the holder with token {token}", all.join(", ")))?;
    Ok(ExitCode::SUCCESS)
}

/// Events of a lock, over a connection of their own. None for who may not see it, which is nothing that an audit
/// log has to tell; and from a coordinator of before.
async fn events(settings: &Settings, name: &str) -> Option<Events> {
    let observer = connect(settings).await.ok()?;
    let may = observer.rights(name).await.ok()?;
    if !may.iter().any(|verb| verb == "see") {
        return None;
    }
    observer.events(Some(name)).await.ok()
}

/// All locks of a grant that is lost, as the event says.
async fn lost(mut events: Events, grant: FencingToken) -> Option<Vec<String>> {
    while let Some(Ok(event)) = events.next().await {
        if let Event::Happened(Happened { claims, what: Happening::Lost { token, .. }, .. }) = event
            && token == grant
        {
            return Some(claims.iter().map(|claim| claim.name.to_string()).collect());
        }
    }
    None
}
