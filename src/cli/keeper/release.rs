//! `coordinator release`: gives back what was acquired (`held`), or, with `--force`, an operator takes a
//! lock away (rule R11).

use std::process::ExitCode;

use coordinator::types::FencingToken;

use super::held;
use crate::cli::arguments::ReleaseArgs;
use crate::cli::settings::Settings;
use crate::cli::show::ping::connect;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure};
use crate::cli::text::visible;

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
    let revoked = match reason {
        Some(reason) => observer.revoke_for(name, grant, reason).await,
        None => observer.revoke(name, grant).await,
    };
    revoked.map_err(|error| attempt.not_revoked(&error))?;
    answer::line(&format!("revoked {} from the holder with token {token}", visible::quoted(name)))?;
    Ok(ExitCode::SUCCESS)
}
