//! `coordinator demo`: a coordinator with its page, and clients that contend for its locks.
//!
//! Nothing is kept, nothing is shared with a coordinator that runs here already, and Ctrl-C ends all of it.

mod cast;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::ValueEnum;
use coordinator::access::{Access, parse};
use coordinator::http::{HttpOptions, HttpPort};
use coordinator::server::{self, Config};
use coordinator::types::Credential;
use rustix::process::Signal;

use self::cast::Stage;
use crate::cli::process::signals::Signals;
use crate::cli::text::errors::Failure;
use crate::cli::text::{answer, output};

/// `demo`.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct DemoArgs {
    /// The scene that is played.
    #[arg(long, value_enum, default_value_t = Scene::Full)]
    pub(crate) scene: Scene,
    /// The port of the page, on this machine [default: a free one].
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) page_port: u16,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scene {
    /// Queues, a chain of waits, a semaphore, deadlocks, a lock that gets stuck and is broken.
    Full,
    /// Locks are held, and nobody waits.
    Quiet,
    /// Three wait.
    Few,
    /// Two thousand wait.
    Crowd,
}

/// Plays until Ctrl-C.
pub(crate) async fn run(args: DemoArgs) -> Result<ExitCode, Failure> {
    let mut signals = Signals::listen([Signal::INT, Signal::TERM])
        .map_err(|error| Failure::ours("cannot listen for signals", &error))?;
    let stage = Stage::new()?;
    let mut config = Config::default();
    config.listen = local(0);
    config.access = Arc::new(rules(&stage)?);
    let server = server::spawn(config)
        .map_err(|error| Failure::usage(format!("cannot start a coordinator: {error}")))?;
    let address = local(args.page_port);
    let page = HttpPort::bind(address)
        .and_then(|listener| HttpPort::open(listener, server.looker(), HttpOptions::default()))
        .map_err(|error| {
            Failure::usage(format!("cannot open the page on {address} ({error})"))
                .hint("--page-port takes another port")
        })?;
    let locks = server.local_addr();
    answer::line(&format!("page      http://{}/", page.local_addr()))?;
    answer::line(&format!("sign in   {}", stage.operator().reveal()))?;
    answer::line(&format!("terminal  coordinator top --server {locks}"))?;
    output::tell("Nothing of this is kept. Ctrl-C ends it.");
    let playing = stage.play(args.scene, locks);
    signals.next().await;
    drop(playing);
    // First the page, then the server that it asks.
    drop(page);
    drop(server);
    Ok(ExitCode::SUCCESS)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Who may do what: each team its own, the operator breaks, everybody sees.
fn rules(stage: &Stage) -> Result<Access, Failure> {
    let text = stage.access_file();
    parse(&text).map(|parsed| parsed.access).map_err(|mistakes| {
        let why = mistakes.first().map(|it| format!("{it:?}")).unwrap_or_default();
        Failure::usage(format!("the rules of the demo are none: {why}"))
    })
}

/// A credential that nobody can guess, not even here.
fn draw() -> Result<Credential, Failure> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)
        .map_err(|error| Failure::usage(format!("no random numbers for a credential: {error}")))?;
    Ok(Credential::from_random(bits))
}
