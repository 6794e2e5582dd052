//! `coordinator top`: who waits for whom, live, on a whole screen; and the way to end it.
//!
//! The one idea: *what is shown is a function of what was seen and of the keys*. [`model::Top`] is that,
//! without a terminal, a socket or a clock; `draw` makes a buffer of it, the same for the terminal, for
//! `--once` and for tests. This file has the loop around both: keys, signals, answers, and one tick a second.
//!
//! ```text
//!   terminal ──keys──▶ Top ──Order──▶ look, break, suspend, quit
//!   observer ──Sight─▶  │
//!                       └──draw──▶ buffer ──▶ terminal, or text
//! ```
//!
//! It looks over the lock port, with the credentials of every other command, and as any observer is it
//! paced by the coordinator. Nothing is extrapolated: an age is that of the last answer, and the screen
//! says how old that is.

mod columns;
mod dialog;
mod draw;
mod ear;
mod heard;
mod look;
mod model;
mod rows;
mod screen;
#[cfg(test)]
mod tests;
mod waited;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use coordinator::Error;
use coordinator::types::{FencingToken, RejectionCode};
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::layout::Rect;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::draw::{Ink, draw, text_of};
use self::ear::Ear;
use self::look::{Eyes, Sight, Wanted, look};
use self::model::{Order, Top};
use self::screen::Screen;
use self::waited::Span;
use super::process::signals::Signals;
use super::process::terminal;
use super::show::ping::connect;
use crate::cli::arguments::TopArgs;
use crate::cli::settings::Settings;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure, exit};
use crate::cli::text::visible;

/// Between two looks at most often: more would be nothing to read, and something to pay.
const INTERVAL_MIN: Duration = Duration::from_millis(250);
/// What has happened and was not dealt with yet. A terminal that is pasted into waits.
const HEARD_MAX: usize = 64;
/// Lines around the rows: three of the coordinator, the head of the table, the keys.
const LINES_BESIDE_ROWS: u16 = 5;
/// Rows that `--once` prints at most.
const ROWS_ONCE_MAX: u16 = 1_000;

/// What the loop hears of.
enum Heard {
    /// A key.
    Key(KeyEvent),
    /// Something about the terminal: its size, for instance.
    Redraw,
    /// What a look has shown, or why it has not.
    Seen(Box<Result<Sight, String>>),
    /// What came of breaking a grant, in words.
    Broken(String),
    /// A grant was not broken, for that is not allowed.
    Unable(String),
    /// From now on it is heard what happens.
    Listening,
    /// Something has happened, or why nothing more is heard.
    Event(Box<Result<coordinator::Event, String>>),
    /// There is no terminal any more.
    Gone,
}

/// Shows the screen until it is told to stop, or once.
pub(crate) async fn run(args: TopArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    if args.interval < INTERVAL_MIN {
        let least = INTERVAL_MIN.as_millis();
        return Err(Failure::usage(format!("--interval is {least} ms at least")));
    }
    let main = connect(settings).await?;
    let eyes = Arc::new(Eyes { main, beside: connect(settings).await.ok() });
    let mut top = Top::new(settings.server.0.as_str());
    let is_live = !args.once && io::stdout().is_terminal() && io::stdin().is_terminal();
    if is_live {
        return live(eyes, top, args.interval, settings).await;
    }
    top.span = Span::Run;
    let seen = look(&eyes, &top.wanted(), None).await;
    let sight = seen.map_err(|error| attempt(settings).failed(&error))?;
    top.see(Ok(sight), Instant::now());
    answer::print(&once(&top))?;
    Ok(ExitCode::SUCCESS)
}

fn attempt(settings: &Settings) -> Attempt<'_> {
    Attempt { server: settings.server.0.as_str(), ..Attempt::default() }
}

/// One screen as text, as high as it has rows.
fn once(top: &Top) -> String {
    let width = u16::try_from(terminal::width()).unwrap_or(u16::MAX);
    let rows = u16::try_from(top.rows().len()).unwrap_or(u16::MAX).clamp(1, ROWS_ONCE_MAX);
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, rows + LINES_BESIDE_ROWS));
    let area = buffer.area;
    draw(top, Instant::now(), Ink::plain(), area, &mut buffer);
    let text = text_of(&buffer);
    // The keys at the end are for nobody.
    let end = text.trim_end().rfind('\n').map_or(0, |end| end + 1);
    text[..end].to_owned()
}

async fn live(
    eyes: Arc<Eyes>,
    mut top: Top,
    interval: Duration,
    settings: &Settings,
) -> Result<ExitCode, Failure> {
    const SIGNALS: [Signal; 5] =
        [Signal::TERM, Signal::HUP, Signal::INT, Signal::TSTP, Signal::CONT];
    let cannot = |error: io::Error| Failure::ours("cannot use the terminal", &error);
    let mut signals = Signals::listen(SIGNALS).map_err(cannot)?;
    let mut screen = Screen::enter().map_err(cannot)?;
    let (tell, mut heard) = mpsc::channel(HEARD_MAX);
    read_keys(tell.clone()).map_err(cannot)?;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ink = Ink::of_the_environment();
    let mut looking = false;
    let mut ear = Ear::default();
    let code = loop {
        listen(&mut top, &mut ear, settings, &tell);
        screen
            .draw(|area, buffer| draw(&top, Instant::now(), ink, area, buffer))
            .map_err(cannot)?;
        let order = tokio::select! {
            _ = ticks.tick() => if top.is_paused() { Order::Nothing } else { Order::Look },
            signal = signals.next() => match signal {
                Signal::TSTP => Order::Suspend,
                Signal::CONT => { screen.resume().map_err(cannot)?; Order::Nothing }
                signal => break ExitCode::from(exit::SIGNAL_BASE + number(signal)),
            },
            Some(it) = heard.recv() => match it {
                Heard::Key(key) => top.press(key),
                Heard::Redraw => Order::Nothing,
                Heard::Seen(seen) => { looking = false; top.see(*seen, Instant::now()); Order::Nothing }
                Heard::Broken(words) => { top.say(words); Order::Look }
                Heard::Unable(why) => { top.is_unable(why); Order::Nothing }
                Heard::Listening => { top.is_listening(); Order::Nothing }
                Heard::Event(event) => { hear(&mut top, *event); Order::Nothing }
                Heard::Gone => break ExitCode::from(exit::SIGNAL_BASE + number(Signal::HUP)),
            },
        };
        match order {
            Order::Nothing => {}
            Order::Quit => break ExitCode::SUCCESS,
            Order::Suspend => screen.suspend().map_err(cannot)?,
            // One at a time: whoever answers slowly is not asked more often.
            Order::Look if looking => {}
            Order::Look => {
                looking = true;
                start_look(&eyes, (top.wanted(), top.selected_lock()), settings, tell.clone());
            }
            Order::Break { name, token, reason } => {
                start_break(&eyes, (name, token, reason), settings, tell.clone());
            }
        }
    };
    drop(screen);
    Ok(code)
}

/// Has somebody listen as long as events are shown, and nobody else.
fn listen(top: &mut Top, ear: &mut Ear, settings: &Settings, tell: &mpsc::Sender<Heard>) {
    if top.listens() {
        ear.open(settings, tell, Instant::now());
    } else if ear.close() {
        top.hear_no_more();
    }
}

fn hear(top: &mut Top, event: Result<coordinator::Event, String>) {
    match event {
        Ok(event) if top.listens() => top.hear(&event),
        // It was on its way.
        Ok(_) => {}
        Err(why) => top.is_deaf(why),
    }
}

/// A signal's number, as the shell adds it to 128.
fn number(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).unwrap_or(0)
}

/// Looks, beside what else goes on.
fn start_look(
    eyes: &Arc<Eyes>,
    (wanted, selected): (Wanted, Option<String>),
    settings: &Settings,
    tell: mpsc::Sender<Heard>,
) {
    let (eyes, server) = (Arc::clone(eyes), settings.server.0.clone());
    tokio::spawn(async move {
        let seen = look(&eyes, &wanted, selected).await.map_err(|error| {
            let attempt = Attempt { server: server.as_str(), ..Attempt::default() };
            attempt.failed(&error).in_one_line()
        });
        let _loop_is_over = tell.send(Heard::Seen(Box::new(seen))).await;
    });
}

/// Takes a grant away, and says what came of it.
fn start_break(
    eyes: &Arc<Eyes>,
    (name, token, reason): (String, FencingToken, String),
    settings: &Settings,
    tell: mpsc::Sender<Heard>,
) {
    let (eyes, server) = (Arc::clone(eyes), settings.server.0.clone());
    tokio::spawn(async move {
        let shown = visible::quoted(&name);
        let heard = match eyes.main.revoke_for(&name, token, &reason).await {
            Ok(()) => Heard::Broken(format!("revoked {shown} from the holder with token {token}")),
            Err(error) => {
                let (server, lock) = (server.as_str(), name.as_str());
                let attempt = Attempt { server, lock, ..Attempt::default() };
                let words = attempt.not_revoked(&error).in_one_line();
                let forbidden = RejectionCode::Forbidden;
                let is_denied =
                    matches!(&error, Error::Rejected { code, .. } if *code == forbidden);
                if is_denied { Heard::Unable(words) } else { Heard::Broken(words) }
            }
        };
        let _loop_is_over = tell.send(heard).await;
    });
}

/// Reads keys on a thread of its own, which ends with the process.
fn read_keys(tell: mpsc::Sender<Heard>) -> io::Result<()> {
    thread::Builder::new().name("keys".to_owned()).spawn(move || {
        loop {
            let heard = match event::read() {
                Ok(Event::Key(key)) if key.kind == KeyEventKind::Release => continue,
                Ok(Event::Key(key)) => Heard::Key(key),
                Ok(_) => Heard::Redraw,
                Err(_) => Heard::Gone,
            };
            let is_last = matches!(heard, Heard::Gone);
            if tell.blocking_send(heard).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(())
}
