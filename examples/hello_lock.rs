//! Takes a lock, shows that nobody else gets it meanwhile, gives it back.
//!
//! Start a coordinator first (`coordinator serve`), or name one with `COORDINATOR_SERVER`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::time::Duration;

use coordinator::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::var("COORDINATOR_SERVER").unwrap_or_else(|_| "127.0.0.1:5625".into());
    let client = Client::connect(&server).await?;

    // Waits in line, behind whoever asked before, but not for ever.
    let guard = client.lock("hello").note("an example").timeout(Duration::from_secs(10)).await?;
    let first = guard.token();
    println!("hello holds the lock; its token is {first}");

    let other = Client::connect(&server).await?;
    match other.try_lock("hello").await? {
        None => println!("another client asks and is told: busy"),
        Some(_) => return Err("two clients hold one lock".into()),
    }

    // Dropping the guard would do as well; this waits until the lock is free.
    guard.release().await?;
    let guard = other.lock("hello").await?;
    println!("released; now the other has it, and a greater token: {}", guard.token() > first);
    Ok(())
}
