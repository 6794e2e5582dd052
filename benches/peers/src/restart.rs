//! How long a coordinator that holds a lot is away when it is killed and started again.

use std::time::Instant;

use serde_json::{Value, json};

use crate::filler::Filler;
use crate::growth::{self, flags};
use crate::service::{Kind, Service};
use crate::{Failure, Options};

/// Measures each distance in turn, and gives the raw results.
pub(crate) async fn run(options: &Options) -> Result<Value, Failure> {
    let mut results = Vec::new();
    for round in 1..=options.rounds {
        for distance in ["process", "machine"] {
            let flags = [flags(options), ["--journal".into(), distance.into()].into()].concat();
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let mut server = Service::start(Kind::US, &options.coordinator, &flags).await?;
            let mut fillers = growth::fillers(&server.address).await?;
            let began = Instant::now();
            growth::hold(&mut fillers, options.stored).await?;
            let filled = began.elapsed();
            let began = server.crash_and_restart(&options.coordinator, &flags).await?;
            let mut newcomer = Filler::open(&server.address).await?;
            newcomer.hold(std::iter::once("new".to_owned())).await?;
            let result = json!({
                "round": round, "distance": distance, "held": options.stored,
                "filled_ms": filled.as_millis(), "away_ms": began.elapsed().as_millis(),
                "log": server.lines_with("replayed")?,
            });
            eprintln!("{result}");
            results.push(result);
        }
    }
    Ok(json!({ "machine": crate::compare::machine(), "results": results }))
}
