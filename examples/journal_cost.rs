//! What the journal costs: to append a record, and to write what was appended.
//!
//! ```text
//! cargo run --release --example journal_cost
//! ```
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::fs::File;
use std::time::{Duration, Instant};

use coordinator::journal::{Bounds, Directory, Distance, Epochs, Journal, Place, Run};

/// So many rounds, of which the median counts.
const ROUNDS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    println!("distance   bytes   records a write   append      write, for each");
    for (distance, writes) in [(Distance::Process, 2_000), (Distance::Machine, 200)] {
        for bytes in [64, 256] {
            for records in [1, 64] {
                let mut rounds = Vec::new();
                for round in 0..ROUNDS {
                    rounds.push(measured(distance, bytes, records, writes, round)?);
                }
                let median = |mut times: Vec<Duration>| {
                    times.sort();
                    times[ROUNDS / 2]
                };
                let append = median(rounds.iter().map(|(append, _)| *append).collect());
                let write = median(rounds.iter().map(|(_, write)| *write).collect());
                let distance = format!("{distance:?}").to_lowercase();
                println!("{distance:<10} {bytes:<7} {records:<17} {append:<11.1?} {write:.1?}");
            }
        }
    }
    Ok(())
}

/// How long it takes to append a record, and to write a batch of so many.
fn measured(
    distance: Distance,
    bytes: usize,
    records: u32,
    writes: u32,
    round: usize,
) -> Result<(Duration, Duration), Box<dyn Error>> {
    let data = tempfile::tempdir_in(".")?;
    let run = Run {
        id: round as u128,
        place: Place::here(),
        rules: 1,
        distance,
        epochs: Epochs::default(),
        settings: Vec::new(),
    };
    let bounds = Bounds { floor_bytes: u64::from(u32::MAX), ..Bounds::default() };
    let mut journal = Journal::new(Directory::open(&File::open(data.path())?)?, run, bounds);
    journal.begin(None)?;
    let record = vec![7; bytes];
    let (mut appending, mut writing) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..writes {
        let began = Instant::now();
        for _ in 0..records {
            journal.append(&record);
        }
        let appended = Instant::now();
        journal.flush()?;
        appending += appended - began;
        writing += appended.elapsed();
    }
    Ok((appending / (writes * records), writing / writes))
}
