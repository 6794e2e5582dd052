//! Transfers between random pairs of accounts, each under the locks of both: nothing is lost, nobody
//! deadlocks, whoever looks at all accounts finds the same sum.
//!
//! Both locks are asked for in one request, so no order among accounts has to be kept. Every account
//! checks fencing tokens, as a resource should: a clerk who was asleep while its locks went to others
//! cannot write.
//!
//! ```text
//! cargo run --release --example bank_transfer
//! cargo run --release --example bank_transfer -- --no-lock    what happens without
//! ```
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use coordinator::server::{self, Config};
use coordinator::types::{FencingToken, StaleToken};
use coordinator::{Client, FenceGuard};

/// What is in every account at first.
const OPENING: u64 = 1_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Clerks move money between accounts, under locks.
#[derive(Parser)]
struct Options {
    /// Number of clerks, each with its own connection.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    clerks: u64,
    /// Number of accounts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=64))]
    accounts: u64,
    /// Number of transfers per clerk.
    #[arg(long, default_value_t = 500)]
    transfers: u64,
    /// Use this coordinator instead of starting one.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// Negative control: work without the locks, so that money is lost or created.
    #[arg(long)]
    no_lock: bool,
}

/// An account, which refuses to be written by those who have lost its lock.
struct Account {
    /// Its name, and its lock's.
    name: String,
    /// What it has.
    balance: AtomicU64,
    /// The greatest token that wrote it.
    fence: FenceGuard,
}

impl Account {
    fn read(&self) -> u64 {
        self.balance.load(Ordering::Relaxed)
    }

    fn write(&self, balance: u64, token: FencingToken) -> Result<(), StaleToken> {
        self.fence.check(token)?;
        self.balance.store(balance, Ordering::Relaxed);
        Ok(())
    }
}

/// What everybody in the bank shares.
struct Bank {
    /// How it is run.
    options: Options,
    /// Where the coordinator is.
    server: String,
    /// All accounts.
    accounts: Vec<Account>,
    /// How often the auditor looked at all accounts at once.
    audits: AtomicU64,
    /// How often there was more or less than there should be.
    wrong_audits: AtomicU64,
    /// Whether the clerks have gone home.
    closed: AtomicBool,
}

impl Bank {
    fn sum(&self) -> u64 {
        self.accounts.iter().map(Account::read).sum()
    }

    /// What the locks protect. Nothing in here would be right if two did it with one account at a
    /// time.
    async fn transfer(
        &self,
        from: &Account,
        to: &Account,
        amount: u64,
        token: FencingToken,
    ) -> Result<(), StaleToken> {
        let (has, gets) = (from.read(), to.read());
        let amount = amount.min(has);
        // Lets the others run between reading and writing, and between the two writes. With the locks
        // that changes nothing.
        tokio::task::yield_now().await;
        from.write(has - amount, token)?;
        tokio::task::yield_now().await;
        to.write(gets + amount, token)
    }
}

/// Numbers that look random, and are the same for the same clerk.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// All transfers of one clerk.
async fn clerk(bank: Arc<Bank>, number: u64) -> Result<(), Failure> {
    let client = Client::connect(&bank.server).await?;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1) | 1);
    let count = bank.options.accounts;
    for _ in 0..bank.options.transfers {
        let first = dice.roll(count);
        let second = (first + 1 + dice.roll(count - 1)) % count;
        let pair = [first, second].map(usize::try_from);
        let (from, to) = (&bank.accounts[pair[0]?], &bank.accounts[pair[1]?]);
        let amount = 1 + dice.roll(OPENING / 4);
        if bank.options.no_lock {
            bank.transfer(from, to, amount, FencingToken::default()).await?;
            continue;
        }
        // Whatever the other clerks name first, there is no deadlock.
        let guard = client.lock_all([&from.name, &to.name]).await?;
        bank.transfer(from, to, amount, guard.token()).await?;
        guard.release().await?;
    }
    client.close().await?;
    Ok(())
}

/// Looks at all accounts at once, again and again, until the bank closes.
async fn auditor(bank: Arc<Bank>) -> Result<(), Failure> {
    let client = Client::connect(&bank.server).await?;
    let opening = OPENING * bank.options.accounts;
    while !bank.closed.load(Ordering::Relaxed) {
        let none: [&str; 0] = [];
        let mut all = client.lock_all(none);
        for account in &bank.accounts {
            // Others may look at the same time, nobody writes.
            all = all.shared(&account.name);
        }
        let guard = if bank.options.no_lock { None } else { Some(all.await?) };
        let wrong = u64::from(bank.sum() != opening);
        bank.wrong_audits.fetch_add(wrong, Ordering::Relaxed);
        bank.audits.fetch_add(1, Ordering::Relaxed);
        drop(guard);
        tokio::task::yield_now().await;
    }
    Ok(client.close().await?)
}

/// Lets the clerks work; whether all was as it must be.
async fn run(bank: &Arc<Bank>) -> Result<bool, Failure> {
    let began = Instant::now();
    let audit = tokio::spawn(auditor(Arc::clone(bank)));
    let clerks: Vec<_> = (0..bank.options.clerks)
        .map(|number| tokio::spawn(clerk(Arc::clone(bank), number)))
        .collect();
    for clerk in clerks {
        clerk.await??;
    }
    bank.closed.store(true, Ordering::Relaxed);
    audit.await??;

    let Options { accounts, clerks, transfers, no_lock, .. } = bank.options;
    let (opening, sum) = (OPENING * accounts, bank.sum());
    let wrong = bank.wrong_audits.load(Ordering::Relaxed);
    println!("account       balance");
    for account in &bank.accounts {
        println!("{:<12}  {:>7}", account.name, account.read());
    }
    println!();
    println!("{} transfers by {clerks} clerks in {:.2?}", clerks * transfers, began.elapsed());
    println!("audits {}, wrong {wrong}", bank.audits.load(Ordering::Relaxed));
    if no_lock {
        println!("without the locks: the sum was {opening}");
    }
    println!("sum is {sum}");
    let is_right = sum == opening && wrong == 0;
    Ok(is_right != no_lock)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = Options::parse();
    let mut config = Config::default();
    config.listen.set_port(0);
    // Stops when it goes out of scope, at the end.
    let own = if options.server.is_none() { Some(server::spawn(config)?) } else { None };
    let server = match &own {
        Some(own) => own.local_addr().to_string(),
        None => options.server.clone().unwrap_or_default(),
    };
    let account = |number| Account {
        name: format!("account/{number}"),
        balance: AtomicU64::new(OPENING),
        fence: FenceGuard::new(),
    };
    let bank = Arc::new(Bank {
        server,
        accounts: (0..options.accounts).map(account).collect(),
        options,
        audits: AtomicU64::new(0),
        wrong_audits: AtomicU64::new(0),
        closed: AtomicBool::new(false),
    });
    Ok(if run(&bank).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
