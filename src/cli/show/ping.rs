//! `coordinator ping`: whether a coordinator answers, and how fast.

use std::process::ExitCode;

use coordinator::{Error, Observer};

use crate::cli::arguments::PingArgs;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure};

/// Asks, and prints each answer's time.
pub(crate) async fn run(args: PingArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    let server = settings.server.0.as_str();
    let attempt = Attempt { server, ..Attempt::default() };
    if args.alive {
        return is_alive(settings).await;
    }
    let observer = connect(settings).await?;
    for _ in 0..args.count {
        let time = observer.ping().await.map_err(|error| attempt.failed(&error))?;
        answer::line(&format!("{server} answers in {} µs", time.as_micros()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a coordinator answers. Whom it refuses, it has answered, as one does that stops or has no room.
async fn is_alive(settings: &Settings) -> Result<ExitCode, Failure> {
    let server = settings.server.0.as_str();
    let connected = Observer::connect_timeout(settings.servers()?, settings.connect_timeout).await;
    match connected {
        Ok(_) | Err(Error::Rejected { .. } | Error::Dismissed { .. } | Error::Draining { .. }) => {
            answer::line(&format!("{server} is alive"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(Attempt { server, ..Attempt::default() }.failed(&error)),
    }
}

/// A connection that only looks, made within the time that settings allow.
pub(crate) async fn connect(settings: &Settings) -> Result<Observer, Failure> {
    let server = settings.server.0.as_str();
    let attempt = Attempt { server, ..Attempt::default() };
    let connected = Observer::connect_timeout(settings.servers()?, settings.connect_timeout).await;
    connected.map_err(|error| attempt.failed(&error))
}
