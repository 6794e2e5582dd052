//! Dining philosophers: each needs the two forks beside its plate, and shares them with its
//! neighbours.
//!
//! Whoever asks for both forks at once never deadlocks. With `--one-by-one` they take the left one
//! first: then all of them sit there with one fork, waiting for the next. The coordinator tells the
//! one who would close the circle, who puts its fork back and begins anew; and everybody eats.
//!
//! ```text
//! cargo run --release --example philosophers
//! cargo run --release --example philosophers -- --one-by-one --philosophers 50
//! ```
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use coordinator::server::{self, Config};
use coordinator::{Client, Error, LockGuard, Owner};
use tokio::sync::Barrier;

/// What is told is shown in full for so few philosophers.
const TOLD_MAX: u64 = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Philosophers eat with two forks each.
#[derive(Parser)]
struct Options {
    /// Number of philosophers, and of forks.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(2..))]
    philosophers: u64,
    /// Number of meals per philosopher.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    meals: u64,
    /// Take the left fork first, then the right one.
    #[arg(long)]
    one_by_one: bool,
    /// Use this coordinator instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
}

/// What became of one philosopher.
#[derive(Default)]
struct Story {
    /// How often it has eaten.
    meals: u64,
    /// How often it was told that it would have waited for ever.
    deadlocks: u64,
    /// The longest that it waited for its forks.
    wait_max: Duration,
}

/// Where they sit.
struct Table {
    /// How they eat.
    options: Options,
    /// Where the coordinator is.
    server: String,
    /// Nobody reaches for the right fork before everybody has the left one: the first time only, so
    /// that there is something to see.
    grace_said: Barrier,
}

/// Both forks, in one request.
async fn take_both(owner: &Owner, forks: &[String; 2]) -> Result<Vec<LockGuard>, Error> {
    Ok(vec![owner.lock_all(forks).await?])
}

/// One fork after the other.
async fn take_one_by_one(
    table: &Table,
    owner: &Owner,
    forks: &[String; 2],
    story: &mut Story,
) -> Result<Vec<LockGuard>, Error> {
    loop {
        let left = owner.lock(&forks[0]).await?;
        if story.meals == 0 && story.deadlocks == 0 {
            table.grace_said.wait().await;
        }
        match owner.lock(&forks[1]).await {
            Ok(right) => return Ok(vec![left, right]),
            Err(told @ Error::Deadlock { .. }) => {
                if table.options.philosophers <= TOLD_MAX {
                    println!("told: {told}\n");
                }
                story.deadlocks += 1;
                // The neighbour waits for this one.
                left.release().await?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// All meals of one philosopher.
async fn dine(table: Arc<Table>, number: u64) -> Result<Story, Error> {
    let client = Client::builder().identity(format!("philosopher {number}"));
    let client = client.connect(&table.server).await?;
    // One thread of control: it puts its forks back when it has eaten, and not before.
    let owner = client.owner();
    let neighbour = (number + 1) % table.options.philosophers;
    let forks = [number, neighbour].map(|fork| format!("fork/{fork}"));
    let mut story = Story::default();
    while story.meals < table.options.meals {
        let asked = Instant::now();
        let taken = if table.options.one_by_one {
            take_one_by_one(&table, &owner, &forks, &mut story).await?
        } else {
            take_both(&owner, &forks).await?
        };
        story.wait_max = story.wait_max.max(asked.elapsed());
        story.meals += 1;
        for fork in taken {
            fork.release().await?;
        }
    }
    client.close().await?;
    Ok(story)
}

/// Lets everybody eat; whether everybody has, and nobody was stuck who could not be.
async fn run(table: &Arc<Table>) -> Result<bool, Failure> {
    let Options { philosophers, meals, one_by_one, .. } = table.options;
    let began = Instant::now();
    let dinners: Vec<_> =
        (0..philosophers).map(|number| tokio::spawn(dine(Arc::clone(table), number))).collect();
    let mut stories = Vec::new();
    for dinner in dinners {
        stories.push(dinner.await??);
    }
    println!("philosopher   meals   deadlocks   longest wait");
    let (mut eaten, mut deadlocks) = (0, 0);
    for (number, story) in stories.into_iter().enumerate() {
        let Story { meals, deadlocks: told, wait_max } = story;
        println!("{number:>11}   {meals:>5}   {told:>9}   {wait_max:>12.1?}");
        eaten += meals;
        deadlocks += told;
    }
    println!();
    println!("{eaten} meals in {:.2?}, deadlocks told: {deadlocks}", began.elapsed());
    Ok(eaten == philosophers * meals && one_by_one == (deadlocks > 0))
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error")).init();
    let options = Options::parse();
    let mut config = Config::default();
    config.listen.set_port(0);
    // Stops when it goes out of scope, at the end.
    let own = if options.server.is_none() { Some(server::spawn(config)?) } else { None };
    let server = match &own {
        Some(own) => own.local_addr().to_string(),
        None => options.server.clone().unwrap_or_default(),
    };
    let seats = usize::try_from(options.philosophers)?;
    let table = Arc::new(Table { options, server, grace_said: Barrier::new(seats) });
    Ok(if run(&table).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
