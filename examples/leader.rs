//! Two candidates; who holds the lock leads. When the first goes, the second takes over.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::time::Duration;

use coordinator::{Client, Error};

/// Leads once: for `term` at most, less if the lock is lost.
async fn candidate(client: Client, name: &str, term: Duration) -> Result<(), Error> {
    println!("{name} stands for election");
    let guard = client.lock("leader").note(name).await?;
    println!("{name} leads, term {}", guard.token());
    tokio::select! {
        // From this moment on another may lead: stop acting as the leader, whatever is half done.
        reason = guard.lost() => println!("{name} lost the lead: {reason}"),
        () = tokio::time::sleep(term) => println!("{name} steps down"),
    }
    // A leader that crashed would be replaced, too, when its lease ends.
    client.close().await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = std::env::var("COORDINATOR_SERVER").unwrap_or_else(|_| "127.0.0.1:5625".into());
    let (ann, bob) = (Client::connect(&server).await?, Client::connect(&server).await?);
    let term = Duration::from_millis(300);
    tokio::try_join!(candidate(ann, "ann", term), candidate(bob, "bob", term))?;
    println!("nobody leads");
    Ok(())
}
