//! Acquired locks: whether they are still held (`coordinator held`), and giving them back
//! (`coordinator release` without `--force`).

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use coordinator::Observer;
use coordinator::types::FencingToken;
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep};

use super::acquire::text;
use super::file::{KeptFile, place_of};
use super::places::places;
use super::process;
use super::record::{Ending, Record, Written};
use crate::cli::arguments::HeldArgs;
use crate::cli::lock::nested::mode_of;
use crate::cli::settings::Settings;
use crate::cli::settings::values::ServerAddress;
use crate::cli::show::ping::connect;
use crate::cli::text::answer;
use crate::cli::text::errors::{Attempt, Failure, exit, reason};
use crate::cli::text::visible::quoted;
use crate::cli::text::words;

/// Between two looks at what becomes of a keeper.
const LOOK: Duration = Duration::from_millis(10);
/// The same of one that lives, and of which the coordinator does not know.
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(500);
/// How long a keeper may take to give its lock back: what it waits for, and a little more.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// Said to who asks for what was acquired, and does not say where that is.
const NOWHERE: &str =
    "neither --keeper nor COORDINATOR_KEEPER names a keeper file of `coordinator acquire`";
/// Said to who may have meant another command.
const BY_FORCE: &str =
    "to revoke someone else's lock: `coordinator release NAME --force --token T`";

/// Something that was acquired.
struct Kept {
    /// Where it is written down.
    file: KeptFile,
    /// What is written.
    written: Written,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// A keeper keeps it.
    Kept,
    /// It has ended like this.
    Ended(Ending),
    /// Its keeper was killed.
    Orphaned,
}

impl Kept {
    /// What became of it by now.
    fn fate(&mut self) -> io::Result<Fate> {
        // In this order: what a keeper writes last, it has written when it is gone.
        let is_kept = self.file.is_kept()?;
        if let Some(written) = self.file.read()? {
            self.written = written;
        }
        Ok(match (&self.written.ending, is_kept) {
            (Some(ending), _) => Fate::Ended(ending.clone()),
            (None, true) => Fate::Kept,
            (None, false) => Fate::Orphaned,
        })
    }

    /// Whether it is `name`, or one of those that are kept with it.
    fn has(&self, name: Option<&str>) -> bool {
        name.is_none_or(|name| self.written.record.locks.iter().any(|it| it == name))
    }

    fn lost(&self, why: &str) -> Failure {
        let (names, token) = (self.written.record.names(), self.written.record.token);
        Failure::new(exit::LOST, format!("lost {names}: {why}")).hint(format!(
            "its token was {token}: a resource that compares tokens can refuse late writes"
        ))
    }

    fn orphaned(&self) -> Failure {
        self.lost("its keeper process died")
    }
}

/// Tells whether what was acquired here is held.
pub(crate) async fn run(args: HeldArgs, settings: &Settings) -> Result<ExitCode, Failure> {
    for mut kept in find(args.keeper.as_deref(), args.name.as_deref(), NOWHERE)? {
        ask(&mut kept, settings).await?;
        let record = &kept.written.record;
        let sentence = format!("{} held, token {}", record.names(), record.token);
        answer::print(&text(args.form, record, kept.file.path(), settings, &sentence))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails unless it is held, by the record and by what the coordinator says.
async fn ask(kept: &mut Kept, settings: &Settings) -> Result<(), Failure> {
    let give_up_at = Instant::now() + Duration::from_millis(kept.written.record.ttl_ms.into());
    let settings = &where_it_is_held(&kept.written.record, settings);
    let (mut observer, mut look_again) = (None, LOOK);
    loop {
        match kept.fate().map_err(|error| unreadable(kept.file.path(), &error))? {
            Fate::Kept => {}
            Fate::Ended(Ending::Lost(why)) => return Err(kept.lost(&why)),
            Fate::Ended(Ending::Released | Ending::Unanswered) => {
                let names = kept.written.record.names();
                return Err(Failure::new(exit::NO_SUCH_THING, format!("{names} was released")));
            }
            Fate::Orphaned => return Err(kept.orphaned()),
        }
        if observer.is_none() {
            observer = Some(connect(settings).await?);
        }
        if let Some(observer) = &observer
            && is_known(&kept.written.record, settings, observer).await?
        {
            return Ok(());
        }
        // The keeper will hear of it, or the coordinator, which has crashed, of the keeper.
        if Instant::now() >= give_up_at {
            return Err(kept.lost("the coordinator has no record of it"));
        }
        sleep(look_again).await;
        look_again = (look_again * 2).min(LOOK_AGAIN_MAX);
    }
}

/// The coordinator to ask: that of the keeper, whichever the settings of this step name, unless this
/// command line names one.
fn where_it_is_held(record: &Record, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if !settings.is_flag("server") {
        settings.server = ServerAddress(record.server.clone());
    }
    settings
}

/// Whether the coordinator says that all of it is held.
async fn is_known(
    record: &Record,
    settings: &Settings,
    observer: &Observer,
) -> Result<bool, Failure> {
    for name in &record.locks {
        let server = settings.server.0.as_str();
        let attempt = Attempt { server, lock: name, ..Attempt::default() };
        let seen = observer.lock(name).await.map_err(|error| attempt.failed(&error))?;
        if seen.and_then(|lock| mode_of(&lock, FencingToken::new(record.token))).is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives back what was acquired here. All of it is tried; the first failure is told.
pub(crate) async fn release(
    keeper: Option<&Path>,
    name: Option<&str>,
) -> Result<ExitCode, Failure> {
    let mut failed = None;
    let hint = format!("{NOWHERE}; {BY_FORCE}");
    for mut kept in find(keeper, name, &hint)? {
        match give_back(&mut kept).await {
            Ok(sentence) => answer::line(&sentence)?,
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// Ends the keeper, and says how it ended.
async fn give_back(kept: &mut Kept) -> Result<String, Failure> {
    let give_up_at = Instant::now() + RELEASE_MAX;
    let mut is_told = false;
    loop {
        let names = kept.written.record.names();
        let token = kept.written.record.token;
        let done = match kept.fate().map_err(|error| unreadable(kept.file.path(), &error))? {
            Fate::Ended(Ending::Released) => Ok(format!("released {names} token {token}")),
            Fate::Ended(Ending::Unanswered) => Ok(format!(
                "released {names} token {token}; the coordinator did not answer, so it is free in \
                {} at the latest",
                words::length(Duration::from_millis(kept.written.record.ttl_ms.into()))
            )),
            Fate::Ended(Ending::Lost(why)) => Err(kept.lost(&why)),
            Fate::Orphaned => Err(kept.orphaned()),
            Fate::Kept if is_told && Instant::now() >= give_up_at => {
                let id = kept.written.record.pid;
                return Err(Failure::new(
                    exit::LOST,
                    format!("the keeper of {names} does not stop"),
                )
                .hint(format!(
                    "end it with `kill -9 {id}`; the lock is then free when its lease ends"
                )));
            }
            Fate::Kept => {
                if !is_told {
                    tell_to_end(kept)?;
                    is_told = true;
                }
                sleep(LOOK).await;
                continue;
            }
        };
        kept.file.remove();
        return done;
    }
}

/// Tells a keeper, which lives, to end.
fn tell_to_end(kept: &Kept) -> Result<(), Failure> {
    let Record { pid, pid_namespace, .. } = &kept.written.record;
    if *pid_namespace != process::pid_namespace() {
        let names = kept.written.record.names();
        return Err(Failure::usage(format!("the keeper of {names} runs in another container"))
            .hint("release it in the container where it was acquired"));
    }
    let nobody = || kept.orphaned();
    let pid =
        Pid::from_raw(*pid).filter(|pid| pid.as_raw_nonzero().get() > 1).ok_or_else(nobody)?;
    signal(kept, pid).map_err(|error| {
        let why = reason(&error);
        Failure::new(exit::LOST, format!("cannot stop the keeper, process {pid:?} ({why})"))
    })
}

/// Signals the process, if it is the keeper. Its number cannot be another's while the keeper lives.
/// A handle that was got before it was seen alive is the keeper's.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn signal(kept: &Kept, pid: Pid) -> io::Result<()> {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        return signal_by_number(kept, pid);
    };
    if kept.file.is_kept()? {
        pidfd_send_signal(&handle, Signal::TERM)?;
        // One that was stopped could not act on it.
        pidfd_send_signal(&handle, Signal::CONT)?;
    }
    Ok(())
}

/// The same where there is no such handle.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn signal(kept: &Kept, pid: Pid) -> io::Result<()> {
    signal_by_number(kept, pid)
}

fn signal_by_number(kept: &Kept, pid: Pid) -> io::Result<()> {
    use rustix::process::kill_process;

    if kept.file.is_kept()? {
        kill_process(pid, Signal::TERM)?;
        kill_process(pid, Signal::CONT)?;
    }
    Ok(())
}

/// What was acquired here, or is written down in `named`, as far as it is `name`; never nothing.
fn find(named: Option<&Path>, name: Option<&str>, nowhere: &str) -> Result<Vec<Kept>, Failure> {
    let places = match named {
        Some(named) => vec![place_of(named)?],
        None => places(),
    };
    let mut all = Vec::new();
    for place in &places {
        match open(place) {
            Ok(kept) => all.extend(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(place, &error)),
        }
    }
    let others: Vec<String> = all.iter().flat_map(|it| it.written.record.locks.clone()).collect();
    all.retain(|kept| kept.has(name));
    if all.is_empty() { Err(nothing(name, &others, &places, nowhere)) } else { Ok(all) }
}

/// None if it is not held yet.
fn open(place: &Path) -> io::Result<Option<Kept>> {
    let mut file = KeptFile::open(place)?;
    match file.read()? {
        Some(written) => Ok(Some(Kept { file, written })),
        None if file.is_kept()? => Ok(None),
        None => Err(io::Error::other("it is not a keeper file")),
    }
}

fn unreadable(place: &Path, error: &io::Error) -> Failure {
    let place = quoted(&place.to_string_lossy());
    Failure::usage(format!("cannot read {place} ({})", reason(error)))
}

/// There is nothing to do it to.
fn nothing(name: Option<&str>, others: &[String], places: &[PathBuf], nowhere: &str) -> Failure {
    let what = match (name, places) {
        (Some(name), _) if !others.is_empty() => {
            let (name, others) = (quoted(name), words::names(others.iter().map(String::as_str)));
            format!("{name} is not held here, only {others}")
        }
        (Some(name), _) => format!("{} is not held here", quoted(name)),
        (None, _) => "nothing is held here".to_owned(),
    };
    let failure = Failure::new(exit::NO_SUCH_THING, what);
    if places.is_empty() { failure.hint(nowhere) } else { failure }
}
