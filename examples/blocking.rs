//! The client without async: threads that take turns.
//!
//! A thread of the library's own keeps the leases alive meanwhile.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::sync::{Mutex, PoisonError};
use std::thread;

use coordinator::Error;
use coordinator::blocking::Client;

fn main() -> Result<(), Error> {
    let server = std::env::var("COORDINATOR_SERVER").unwrap_or_else(|_| "127.0.0.1:5625".into());
    let client = Client::connect(&server)?;
    let turns = Mutex::new(Vec::new());

    thread::scope(|scope| {
        let (client, turns) = (&client, &turns);
        let workers: Vec<_> = (1..=3)
            .map(|worker| {
                scope.spawn(move || {
                    let guard = client.lock("turns").acquire()?;
                    println!("worker {worker} has its turn, token {}", guard.token());
                    turns.lock().unwrap_or_else(PoisonError::into_inner).push(guard.token());
                    guard.release()
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or(Err(Error::Closed)))
    })?;

    let turns = turns.into_inner().unwrap_or_default();
    println!("{} turns, tokens rising: {}", turns.len(), turns.is_sorted());
    client.close()
}
