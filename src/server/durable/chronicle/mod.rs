//! The chronicle: the journal (write-ahead log) of this run, begun, continued, given up, begun anew
//! (rules J1 to J8).
//!
//! It stands between the desk, which decides, and the gate, which lets out. It alone knows both the
//! content of records and their place.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use log::{debug, error, info, warn};
use tokio::time::Instant;

mod ground;
pub(crate) use ground::{Ground, Medium};

use super::replay::{self, RULES, Replay};
use crate::engine::LockTable;
#[cfg(feature = "cluster")]
use crate::journal::Stretch;
use crate::journal::{
    Batch, Bounds, Broken, Distance, Epochs, Expected, Failure, Made, NotMade, Recovered, Run,
    Tail, Task, Whole, Writer, compact, recover,
};
use crate::server::keeping::{Beginning, Keeping};
use crate::types::Epoch;

/// How long after it was given up a journal is begun anew.
pub(in crate::server) const ANEW_AFTER: Duration = Duration::from_secs(10);
/// How long after a checkpoint could not be written another one is tried: each replays all there is.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(10);

/// Where the journal of a data directory is, and how far records are before anything is said.
#[derive(Debug)]
pub(crate) struct Chronicle {
    /// Its directory.
    disk: Medium,
    /// When a checkpoint is due.
    bounds: Bounds,
    /// The run that writes it.
    run: Run,
    /// Records that are not written yet.
    tail: Tail,
    /// Their writer; none while a thread has it.
    writer: Option<Writer<Medium>>,
    /// How making a checkpoint went, if that was told while a thread wrote.
    made: Option<Result<Made, NotMade>>,
    /// The epochs that the state was told, and has.
    epochs: Epochs,
    /// Since when it is given up, if it is.
    off_since: Option<Instant>,
    /// Whether what is there might be taken for a journal that goes on, which it does not.
    is_stuck: bool,
    /// Number of this journal, of those that were begun one after the other.
    begun: u64,
    /// The one that a checkpoint is being made of, if one is.
    making: Option<u64>,
    /// The state of the journal, for those who want to know it.
    keeping: Arc<Keeping>,
    /// Why the journal of the run before is of no use, if it is of none.
    why_void: Option<String>,
    /// Since when no checkpoint can be written, if so: none is asked for at once.
    failed_since: Option<Instant>,
}

/// Sessions and requests of a table that is written down in a millisecond or two.
pub(crate) const SMALL_TABLE_MAX: usize = 1024;

/// What came of writing.
#[derive(Debug)]
pub(crate) enum Flushed {
    /// All that was appended may be said, and perhaps a checkpoint is due.
    Written(Option<Box<Task>>),
    /// All that was appended may be said. Records come faster than checkpoints of them: it is to be
    /// begun with the table of now ([`Chronicle::begin`]).
    Behind,
    /// All that was appended is to be written on a thread that may block, and may be said after
    /// [`Chronicle::written`].
    Writing(Box<Job>),
    /// A thread is writing what came before; afterwards this is tried again.
    Later,
    /// The journal is no more: all may be said, and nothing more is written down.
    Off,
    /// The journal is wrong, and could not be made void: nothing may be said but what it has already.
    Stuck,
}

/// Records on their way to the disk, with what writes them. One write and one sync serve all that
/// came together while those before were on theirs (group commit).
#[derive(Debug)]
pub(crate) struct Job {
    /// Writes them.
    writer: Writer<Medium>,
    /// Records to be written.
    batch: Batch,
}

/// Records that a thread has written, or could not.
#[derive(Debug)]
pub(crate) struct Done {
    /// As it was, and what came of it.
    job: Job,
    /// Whether they are where the distance wants them.
    written: Result<u64, Broken>,
}

impl Job {
    /// Writes them, and waits for the disk.
    pub(crate) fn run(mut self: Box<Self>) -> Done {
        let written = self.writer.write(&mut self.batch);
        Done { job: *self, written }
    }
}

impl Chronicle {
    /// One for a run that is to have the epoch `next`, after one of `last`.
    pub(crate) fn on(ground: Ground, distance: Distance, last: Epoch, next: Epoch) -> Self {
        let Ground { medium: disk, place, id, bounds, state } = ground;
        let epochs = Epochs { ordered: next.number(), confirmed: last.number() };
        let run = Run { id, place, rules: RULES, distance, epochs, settings: state.into() };
        let writer = Writer::new(disk.clone(), run.clone(), bounds);
        Self {
            disk,
            bounds,
            tail: Tail::new(&run, 1),
            run,
            writer: Some(writer),
            made: None,
            epochs,
            off_since: None,
            is_stuck: false,
            begun: 0,
            making: None,
            keeping: Arc::new(Keeping::of(distance)),
            why_void: None,
            failed_since: None,
        }
    }

    /// The table that the run before has left, if that is certain; then its journal goes on.
    pub(crate) fn find(&mut self) -> Option<Box<LockTable>> {
        let epoch = self.epochs.confirmed;
        let began = Instant::now();
        let place = self.run.place;
        match recover(&self.disk, &Expected { place, rules: RULES, epoch }) {
            Recovered::Fresh => None,
            Recovered::Void(why) => {
                warn!("journal not used: {why}");
                self.why_void = Some(why.to_string());
                None
            }
            Recovered::Whole(whole) if whole.last.settings != self.run.settings => {
                let why = "it belongs to the state of another data directory";
                warn!("journal not used: {why}");
                self.why_void = Some(why.to_owned());
                None
            }
            Recovered::Whole(whole) => match self.replay(&whole) {
                Ok(replay) => {
                    for note in &whole.notes {
                        info!("journal: {note}");
                    }
                    let (events, took) = (replay.events, began.elapsed());
                    let table = replay.into_table();
                    // Before the state has another epoch, or a crash now would make it an old copy.
                    if !self.is_begun() && !self.begin(&table) {
                        self.why_void = Some("no new journal could be started".to_owned());
                        return None;
                    }
                    info!("replayed {events} events in {took:.1?}, nothing was lost");
                    self.keeping.began(Beginning::Replayed { events, took });
                    Some(Box::new(table))
                }
                Err(why) => {
                    error!("the journal cannot be replayed: {why}");
                    self.why_void = Some(why);
                    None
                }
            },
        }
    }

    /// Where whoever wants to know how it is can look.
    pub(in crate::server) fn keeping(&self) -> Arc<Keeping> {
        Arc::clone(&self.keeping)
    }

    /// Tells this one how it is, from now on, and what it has told so far.
    pub(in crate::server) fn tell(&mut self, keeping: &Arc<Keeping>) {
        keeping.began(self.keeping.beginning());
        keeping.is_long(self.keeping.bytes());
        keeping.is_off(self.off_since);
        self.keeping = Arc::clone(keeping);
    }

    /// Why the journal of the run before is of no use, if that was found.
    pub(crate) fn why_void(&self) -> Option<&str> {
        self.why_void.as_deref()
    }

    fn replay(&mut self, whole: &Whole) -> Result<Replay, String> {
        let replay = whole.replay(&self.disk, |_, checkpoint| Replay::from(checkpoint));
        let replay = replay.map_err(|void| void.to_string())?;
        let ordered = self.epochs.ordered.max(whole.epochs.ordered);
        let confirmed = self.epochs.confirmed.max(whole.epochs.confirmed);
        self.epochs = Epochs { ordered, confirmed };
        self.run.epochs = self.epochs;
        let Some(writer) = &mut self.writer else { return Ok(replay) };
        // If nobody made a checkpoint of it in time, it begins with one.
        if !whole.is_long(self.bounds) {
            writer.epochs(self.epochs);
            match writer.go_on(whole) {
                Ok(()) => self.tail = Tail::new(&self.run, whole.next()),
                Err(broken) => warn!("starting a new journal: {broken}"),
            }
        }
        Ok(replay)
    }

    /// Begins it with a table. What was there before is gone. Says whether it could.
    pub(crate) fn begin(&mut self, table: &LockTable) -> bool {
        (self.begun, self.failed_since) = (self.begun + 1, None);
        let mut fill = |to: &mut dyn Write| replay::checkpoint(table, to);
        let Some(writer) = &mut self.writer else { return true };
        let next = self.tail.next();
        writer.epochs(self.epochs);
        match writer.begin(next, Some(&mut fill)) {
            Ok(()) => {
                (self.off_since, self.is_stuck) = (None, false);
                self.keeping.is_off(None);
                self.keeping.is_long(writer.bytes());
                self.run.epochs = self.epochs;
                self.tail = Tail::new(&self.run, next);
            }
            Err(broken) => {
                self.give_up(&broken);
            }
        }
        self.off_since.is_none()
    }

    /// A checkpoint that is due of a table with so many sessions and requests is better made of the
    /// table itself, and at once ([`Chronicle::begin`]): replaying records costs more, and a sync is
    /// not waited for. Then nobody makes the one that was due.
    pub(crate) fn takes_over(&mut self, size: usize) -> bool {
        let is_small = self.run.distance == Distance::Process && size <= SMALL_TABLE_MAX;
        self.making.take_if(|_| is_small).is_some()
    }

    /// Nobody makes the checkpoint that was due.
    #[cfg(feature = "cluster")]
    pub(crate) fn makes_none(&mut self) {
        self.making = None;
    }

    /// Nobody may take what is there for a journal: it is not of the table that it should be.
    #[cfg(feature = "cluster")]
    pub(crate) fn make_void(&mut self) {
        if let Some(writer) = &mut self.writer
            && let Err(broken) = writer.make_void()
        {
            error!("{broken}");
        }
    }

    /// The number of the record that is appended next.
    #[cfg(feature = "cluster")]
    pub(crate) fn next(&self) -> u64 {
        self.tail.next()
    }

    /// What is written by now; none while a thread writes more.
    #[cfg(feature = "cluster")]
    pub(crate) fn stretch(&self) -> Option<Stretch> {
        self.writer.as_ref().and_then(Writer::stretch)
    }

    /// The epochs that the state was told, and has.
    #[cfg(feature = "cluster")]
    pub(crate) fn epochs(&self) -> Epochs {
        self.epochs
    }

    /// The state is told this epoch, or has it.
    pub(crate) fn epoch(&mut self, ordered: Option<Epoch>, confirmed: Option<Epoch>) {
        let Epochs { ordered: last_ordered, confirmed: last_confirmed } = self.epochs;
        let ordered = ordered.map_or(last_ordered, |epoch| epoch.number().max(last_ordered));
        let confirmed =
            confirmed.map_or(last_confirmed, |epoch| epoch.number().max(last_confirmed));
        let epochs = Epochs { ordered, confirmed };
        if epochs != self.epochs {
            self.epochs = epochs;
            self.tail.epochs(epochs);
        }
    }

    /// Whether it goes on, or was begun.
    pub(crate) fn is_begun(&mut self) -> bool {
        self.writer.as_ref().is_none_or(|writer| writer.state().is_ok())
    }

    /// Whether anything has to wait for it that is to be said.
    pub(crate) fn holds_the_door(&self) -> bool {
        self.off_since.is_none() || self.is_stuck
    }

    /// Whether it is wrong, and could not be made void yet.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Puts what a turn brought at the end, in memory.
    pub(crate) fn append(&mut self, record: &[u8]) {
        self.tail.append(record);
    }

    /// Writes all that was appended, or has that be done by a thread, if it has to wait for the disk.
    pub(crate) fn flush(&mut self) -> Flushed {
        let Some(mut writer) = self.writer.take() else { return Flushed::Later };
        if self.off_since.is_some() {
            let void = writer.make_void();
            self.writer = Some(writer);
            self.is_stuck = void.is_err();
            return if self.is_stuck { Flushed::Stuck } else { Flushed::Off };
        }
        let is_empty = self.tail.bytes() == 0;
        let mut batch = self.tail.take();
        match self.run.distance {
            // Whatever there is to be said follows from what is synced already.
            Distance::Machine if !is_empty => Flushed::Writing(Box::new(Job { writer, batch })),
            Distance::Process | Distance::Machine => {
                let written = writer.write(&mut batch);
                self.tail.give_back(batch);
                self.writer = Some(writer);
                self.flushed(written)
            }
        }
    }

    /// A thread has written, or ended before it could say how that went.
    pub(crate) fn written(&mut self, done: Option<Done>) -> Flushed {
        let written = if let Some(Done { job: Job { writer, batch }, written }) = done {
            self.tail.give_back(batch);
            self.writer = Some(writer);
            written
        } else {
            // Nobody knows what is there: as after a write that failed.
            let (disk, run) = (self.disk.clone(), self.run.clone());
            let mut writer = Writer::new(disk, run, self.bounds);
            let void = writer.make_void();
            self.writer = Some(writer);
            Err(void.err().unwrap_or(Broken::Void(Failure::WriterGone)))
        };
        let flushed = self.flushed(written);
        let made = self.made.take();
        made.and_then(|made| self.checkpointed(made)).unwrap_or(flushed)
    }

    fn flushed(&mut self, written: Result<u64, Broken>) -> Flushed {
        if let Err(broken) = written {
            return self.give_up(&broken);
        }
        let Some(writer) = &mut self.writer else { return Flushed::Written(None) };
        self.keeping.is_long(writer.bytes());
        if writer.is_behind() {
            return Flushed::Behind;
        }
        if self.making.is_some() {
            return Flushed::Written(None);
        }
        let due = writer.due().map(Box::new);
        self.making = due.is_some().then_some(self.begun);
        Flushed::Written(due)
    }

    /// Looks whether what is written is still where it is looked for.
    pub(crate) fn check(&mut self) -> Option<Flushed> {
        if self.off_since.is_some() {
            return None;
        }
        // While a thread writes, the next look is soon enough.
        let writer = self.writer.as_mut()?;
        if self.failed_since.take_if(|since| since.elapsed() >= CHECKPOINT_AFTER).is_some() {
            writer.not_checkpointed();
        }
        let broken = writer.check().err()?;
        Some(self.give_up(&broken))
    }

    fn give_up(&mut self, broken: &Broken) -> Flushed {
        self.is_stuck = matches!(broken, Broken::Stuck { .. });
        if self.off_since.is_none() && self.is_stuck {
            error!("{broken}, and nothing is answered");
        } else if self.off_since.is_none() {
            error!("{broken}; from now on, a crash would be followed by a grace period");
        } else {
            // That was told, and how it goes on is when it does.
            debug!("no new journal could be started: {broken}");
        }
        self.off_since = Some(Instant::now());
        self.keeping.is_off(self.off_since);
        if self.is_stuck { Flushed::Stuck } else { Flushed::Off }
    }

    /// Whether it was given up, and may be begun anew.
    pub(in crate::server) fn may_begin_anew(&self) -> bool {
        self.off_since.is_some_and(|since| since.elapsed() >= ANEW_AFTER)
    }

    /// The disk that it is on.
    pub(in crate::server) fn medium(&self) -> Medium {
        self.disk.clone()
    }

    /// Whether everything that was appended is on its way to the disk, at least.
    #[cfg(all(test, feature = "client", feature = "redis-api"))]
    pub(crate) fn is_all_written(&self) -> bool {
        self.tail.bytes() == 0 && self.writer.is_some()
    }

    /// Makes a checkpoint, on a thread that may block.
    pub(crate) fn checkpoint_maker(
        &self,
    ) -> impl FnOnce(&Task) -> Result<Made, NotMade> + Send + 'static {
        let disk = self.disk.clone();
        move |task| compact(&disk, task, |_, checkpoint| Replay::from(checkpoint))
    }

    /// A checkpoint was made, or not. What cannot be read again is of no use, and is given up.
    pub(crate) fn checkpointed(&mut self, made: Result<Made, NotMade>) -> Option<Flushed> {
        let Some(writer) = &mut self.writer else {
            self.made = Some(made);
            return None;
        };
        let is_of_this_one = self.making.take() == Some(self.begun) && self.off_since.is_none();
        match made {
            Ok(made) => {
                writer.checkpointed(&made);
                self.keeping.is_long(writer.bytes());
            }
            // Of one that was given up meanwhile, and what is here is another.
            Err(_) if !is_of_this_one => {}
            Err(NotMade::Unwritten(why)) => {
                warn!("cannot make a checkpoint of the journal, trying again later: {why}");
                self.failed_since = Some(Instant::now());
            }
            Err(NotMade::Unread(why)) => {
                error!("the journal cannot be followed: {why}");
                let void = writer.make_void();
                (self.off_since, self.is_stuck) = (Some(Instant::now()), void.is_err());
                self.keeping.is_off(self.off_since);
                return Some(if self.is_stuck { Flushed::Stuck } else { Flushed::Off });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
