//! Two candidates, one lead, and somebody who wants to know who has it.
//!
//! Whoever holds the lock leads. Its value, here a name, in a service rather an address, is what
//! everybody else sees.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::time::Duration;

use coordinator::{Client, Error, Leaders, Leadership, Observer};

/// The lock that the leader holds.
const ELECTION: &str = "leader";
/// How long one leads before it steps down.
const TERM: Duration = Duration::from_millis(300);

/// Leads once: for a term at most, less if the lead is lost.
async fn candidate(client: Client, name: &str) -> Result<(), Error> {
    println!("{name} stands for election");
    let election = client.elect(ELECTION, name);
    // If the lead is lost, the work is dropped where it stands: another may lead from then on.
    let term = election.run(|term| async move {
        println!("{name} leads, term {}", term.token());
        tokio::time::sleep(TERM).await;
        println!("{name} steps down");
    });
    term.await?;
    // A leader that crashed would be replaced, too, when its lease ends.
    client.close().await
}

/// Tells who leads, until everybody had their turn.
async fn onlooker(mut leaders: Leaders, turns: usize) -> Result<(), Error> {
    let mut seen = 0;
    while let Some(leadership) = leaders.next().await {
        match leadership? {
            Leadership::LedBy(leader) => {
                seen += 1;
                println!("seen from outside: {} leads, term {}", leader.value, leader.token);
            }
            Leadership::Vacant if seen < turns => println!("seen from outside: nobody leads yet"),
            Leadership::Vacant => {
                println!("seen from outside: nobody leads");
                break;
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = std::env::var("COORDINATOR_SERVER").unwrap_or_else(|_| "127.0.0.1:5625".into());
    let (ann, bob) = (Client::connect(&server).await?, Client::connect(&server).await?);
    // Who only looks needs no session. One that is a candidate too asks its client.
    let leaders = Observer::connect(&server).await?.observe(ELECTION).await?;
    tokio::try_join!(candidate(ann, "ann"), candidate(bob, "bob"), onlooker(leaders, 2))?;
    Ok(())
}
