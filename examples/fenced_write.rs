//! A store that refuses old tokens, and a holder who does not know that it is one no more.
//!
//! Whoever pauses long enough loses its lock without noticing. The token tells the store.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use coordinator::types::{FencingToken, StaleToken};
use coordinator::{Client, FenceGuard, Observer};

/// What is protected: every write shows the token under which it is made.
#[derive(Default)]
struct Store(FenceGuard, String);

impl Store {
    fn write(&mut self, text: &str, token: FencingToken) -> Result<(), StaleToken> {
        self.0.check(token)?;
        text.clone_into(&mut self.1);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::var("COORDINATOR_SERVER").unwrap_or_else(|_| "127.0.0.1:5625".into());
    let (slow, quick) = (Client::connect(&server).await?, Client::connect(&server).await?);
    let mut store = Store::default();

    // The slow one falls asleep before it writes, and the operator gives its lock to the next.
    let asleep = slow.lock("store").await?;
    Observer::connect(&server).await?.revoke("store", asleep.token()).await?;
    let guard = quick.lock("store").await?;
    store.write("by the quick one", guard.token())?;
    let refused = store.write("by the slow one, late", asleep.token());
    println!("the late write: {}", refused.err().ok_or("was accepted")?);
    println!("the store holds what was written {:?}", store.1);
    Ok(())
}
