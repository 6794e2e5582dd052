//! The writer: writes batches, begins segments, and gives the journal up when it cannot be written.
//!
//! ```text
//!          begin, go_on            write fails               void fails
//!   Off ──────────────────▶ On ───────────────▶ Off(why)  ──────────────▶ Stuck
//!    ▲                                             │  ▲                      │ make_void
//!    └─────────────────────────────────────────────┘  └──────────────────────┘
//! ```
//!
//! *Order is all.* A segment gets its name only when its header is written. Only then does the one
//! before name it, and only behind that does a record go to the new one. Obsolete segments are made
//! unreadable first, the latest before the others. So no step leaves something behind that looks
//! complete.

use std::mem;

use super::Distance;
use super::bounds::{Bounds, CHAIN_SEGMENTS_DUE, CHAIN_SEGMENTS_MAX, OVERDUE_TIMES};
use super::chain::{Chain, Link};
use super::checkpoint::{self, Fill, Target};
use super::disk::{Disk, DiskFile, Facts, write_all};
use super::error::{Broken, Failure};
use super::follow::{Made, Stretch, Task};
use super::frame::{Key, Kind, head, put};
use super::header::{
    Header, Named, Origin, SETTINGS_BYTES_MAX, checkpoint_name, closed_payload, log_name, new_name,
};
use super::recover::Whole;
use super::sweep::{names, sweep};
use super::tail::{Batch, MARK_BYTES};
use super::{Epochs, Run};

/// Writes the journal of a run.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    /// Where.
    disk: D,
    /// The run, as headers name it.
    run: Run,
    /// When a checkpoint is due.
    bounds: Bounds,
    /// The highest number that a segment had: none is used twice, as somebody may still make a
    /// checkpoint for one that was given up.
    latest: u64,
    /// Whether it writes.
    state: State<D::File>,
}

/// Whether the journal is written.
#[derive(Debug)]
enum State<F> {
    /// It is.
    On(Box<Active<F>>),
    /// It is not, and nothing that is there will be taken for it.
    Off(Failure),
    /// It is not, and what is there might be.
    Stuck { why: Failure, void: Failure },
}

/// The segment that is written, and those before it.
#[derive(Debug)]
struct Active<F> {
    /// Its file.
    file: F,
    /// How far it is written.
    offset: u64,
    /// The number of the record that comes next.
    next: u64,
    /// All segments since the last checkpoint; this one is the last of them.
    chain: Chain,
    /// How long those before it are.
    closed_bytes: u64,
    /// Whether a checkpoint is on its way.
    due: Due,
}

/// Whether a checkpoint is to be made.
#[derive(Debug, Default)]
enum Due {
    /// Not yet.
    #[default]
    Not,
    /// It is, and nobody has asked.
    Untold(Box<Task>),
    /// Somebody makes it.
    Told,
}

impl<D: Disk> Writer<D> {
    /// One that writes nothing yet.
    pub fn new(disk: D, run: Run, bounds: Bounds) -> Self {
        Self { disk, run, bounds, latest: 0, state: State::Off(Failure::NotBegun) }
    }

    /// Whether it writes, or why not.
    ///
    /// # Errors
    ///
    /// [`Broken`], as long as it does not.
    pub fn state(&self) -> Result<(), Broken> {
        match &self.state {
            State::On(_) => Ok(()),
            State::Off(why) => Err(Broken::Void(why.clone())),
            State::Stuck { why, void } => {
                Err(Broken::Stuck { why: why.clone(), void: void.clone() })
            }
        }
    }

    /// The epochs that count when a journal begins or goes on.
    pub fn epochs(&mut self, epochs: Epochs) {
        self.run.epochs = epochs;
    }

    /// How long the journal is, but for its checkpoint.
    pub fn bytes(&self) -> u64 {
        match &self.state {
            State::On(active) => active.closed_bytes + active.offset,
            State::Off(_) | State::Stuck { .. } => 0,
        }
    }

    /// All that is written by now, to be read beside this; none while nothing is.
    pub fn stretch(&self) -> Option<Stretch> {
        let State::On(active) = &self.state else { return None };
        let mut chain = active.chain.clone();
        let last = chain.last_mut();
        (last.next, last.end) = (active.next, active.offset);
        Some(Stretch(chain))
    }

    /// Whether records come faster than checkpoints: half of all is there that there may be. A
    /// beginning with a checkpoint of now keeps it from being given up.
    pub fn is_behind(&self) -> bool {
        let State::On(active) = &self.state else { return false };
        let due_bytes = self.bounds.due_bytes(active.chain.checkpoint_bytes);
        active.closed_bytes + active.offset > due_bytes.saturating_mul(OVERDUE_TIMES / 2)
    }

    /// Begins a journal whose first record is `next`, with a checkpoint of all that came before;
    /// with none if nothing did. An earlier journal goes when the new one is complete.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it could not be written. Then none is there, neither the new nor the old one.
    pub fn begin(&mut self, next: u64, checkpoint: Option<Fill<'_>>) -> Result<(), Broken> {
        let begun = self.try_begin(next, checkpoint);
        self.begun(begun)
    }

    fn try_begin(
        &self,
        next: u64,
        checkpoint: Option<Fill<'_>>,
    ) -> Result<Active<D::File>, Failure> {
        let found = self.names()?.into_iter().map(Named::segment).max().unwrap_or(0);
        let segment = 1 + found.max(self.latest);
        let (origin, checkpoint_bytes) = match checkpoint {
            None => (Origin::Nothing, 0),
            Some(fill) => {
                let target = Target { segment, first: next, run: self.run.id };
                let bytes = checkpoint::write(&self.disk, target, self.run.distance, fill)?;
                (Origin::Checkpoint, bytes)
            }
        };
        let (file, header, offset) = self.create(segment, origin, next)?;
        // The new segment counts from here on; earlier ones are not needed.
        self.sweep(segment, segment)?;
        let link = Link { segment, first: next, next, run: self.run.id, end: offset };
        let chain = Chain { header, checkpoint_bytes, links: vec![link] };
        Ok(Active { file, offset, next, chain, closed_bytes: 0, due: Due::Not })
    }

    /// Goes on from what was recovered, in a new segment, once all that was replayed is as durable
    /// as the distance wants it.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it could not be done. Then nothing of it is there any more.
    pub fn go_on(&mut self, whole: &Whole) -> Result<(), Broken> {
        let begun = self.try_go_on(whole);
        self.begun(begun)
    }

    fn try_go_on(&self, whole: &Whole) -> Result<Active<D::File>, Failure> {
        let mut chain = whole.chain.clone();
        let last = chain.last();
        let bytes = chain.bytes();
        if chain.links.len() >= CHAIN_SEGMENTS_MAX {
            return Err(Failure::TooLong { bytes });
        }
        self.sweep(chain.header.segment, last.segment)?;
        let (file, facts) = self.open(last.segment)?;
        let name = log_name(last.segment);
        if facts.bytes > last.end {
            file.truncate(last.end).map_err(Failure::file("cut", &name))?;
        }
        if self.run.distance == Distance::Machine {
            // An earlier run may have asked for less.
            for link in &chain.links {
                let name = log_name(link.segment);
                self.open(link.segment)?.0.sync().map_err(Failure::file("synced", &name))?;
            }
            if chain.checkpoint_bytes > 0 {
                let name = checkpoint_name(chain.header.segment);
                let file = self.disk.open(&name).map_err(Failure::file("opened", &name))?;
                file.sync().map_err(Failure::file("synced", &name))?;
            }
        }
        let (file, offset) = self.follow(&file, &mut chain)?;
        let closed_bytes = chain.closed_bytes();
        Ok(Active { file, offset, next: last.next, chain, closed_bytes, due: Due::Not })
    }

    /// Takes note of how a beginning went.
    fn begun(&mut self, begun: Result<Active<D::File>, Failure>) -> Result<(), Broken> {
        match begun {
            Ok(active) => {
                self.latest = active.chain.last().segment;
                self.state = State::On(Box::new(active));
                Ok(())
            }
            Err(why) => Err(self.give_up(why)),
        }
    }

    /// Writes a batch: one call of the system at [`Distance::Process`], another that syncs at
    /// [`Distance::Machine`]. Says the number of the last record that is where the distance wants
    /// it: what follows from it may be said.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it could not be written, now or before.
    pub fn write(&mut self, batch: &mut Batch) -> Result<u64, Broken> {
        self.state()?;
        match self.try_write(batch) {
            Ok(through) => Ok(through),
            Err(why) => Err(self.give_up(why)),
        }
    }

    fn try_write(&mut self, batch: &mut Batch) -> Result<u64, Failure> {
        self.rotate_if_due()?;
        let State::On(active) = &mut self.state else { return Err(Failure::NotBegun) };
        if let Some(why) = batch.failure.take() {
            return Err(why);
        }
        if batch.first != active.next {
            return Err(Failure::Gap { found: batch.first, expected: active.next });
        }
        let through = batch.next.saturating_sub(1);
        if batch.next == batch.first && batch.epochs.is_none() {
            return Ok(through);
        }
        let bytes = active.closed_bytes + active.offset + batch.bytes.len() as u64;
        let due_bytes = self.bounds.due_bytes(active.chain.checkpoint_bytes);
        if bytes > due_bytes.saturating_mul(OVERDUE_TIMES) {
            return Err(Failure::TooLong { bytes });
        }
        let name = log_name(active.chain.last().segment);
        if self.run.distance == Distance::Machine {
            mark(batch, Key::of_run(self.run.id), active.offset);
        }
        let written = write_all(&active.file, &batch.bytes, active.offset);
        written.map_err(Failure::file("written", &name))?;
        if self.run.distance == Distance::Machine {
            active.file.sync().map_err(Failure::file("synced", &name))?;
        }
        active.offset += batch.bytes.len() as u64;
        active.next = batch.next;
        // Headers of later segments say what counts by then.
        self.run.epochs = batch.epochs.unwrap_or(self.run.epochs);
        Ok(through)
    }

    /// Begins another segment if what stands behind the last checkpoint is long, so that one can be
    /// made of all but that.
    fn rotate_if_due(&mut self) -> Result<(), Failure> {
        let State::On(active) = &self.state else { return Ok(()) };
        let bytes = active.closed_bytes + active.offset;
        let has_records = active.next > active.chain.last().first;
        let is_long = bytes > self.bounds.due_bytes(active.chain.checkpoint_bytes);
        let is_split = active.chain.links.len() >= CHAIN_SEGMENTS_DUE;
        if !matches!(active.due, Due::Not) || !(is_long || is_split) {
            return Ok(());
        }
        let mut chain = active.chain.clone();
        let mut begun = None;
        // Else what was done before this run is all there is; and no more are read than that.
        if has_records && chain.links.len() < CHAIN_SEGMENTS_MAX {
            let last = chain.last_mut();
            (last.next, last.end) = (active.next, active.offset);
            begun = Some(self.follow(&active.file, &mut chain)?);
        }
        self.latest = chain.last().segment;
        let due = Task::new(chain.clone(), self.run.distance);
        let due = due.map_or(Due::Not, |task| Due::Untold(Box::new(task)));
        let State::On(active) = &mut self.state else { return Ok(()) };
        if let Some((file, offset)) = begun {
            (active.file, active.offset) = (file, offset);
            active.closed_bytes = chain.closed_bytes();
            active.chain = chain;
        }
        active.due = due;
        Ok(())
    }

    /// A checkpoint that is to be made, for [`compact`](super::compact). Each is told of once, to
    /// whoever asks first, until that one says how it went.
    pub fn due(&mut self) -> Option<Task> {
        let State::On(active) = &mut self.state else { return None };
        match mem::take(&mut active.due) {
            Due::Not => None,
            Due::Untold(task) => {
                active.due = Due::Told;
                Some(*task)
            }
            Due::Told => {
                active.due = Due::Told;
                None
            }
        }
    }

    /// A checkpoint was made, and what came before it is gone.
    pub fn checkpointed(&mut self, made: &Made) {
        let State::On(active) = &mut self.state else {
            let _ = self.disk.remove(&checkpoint_name(made.segment));
            return;
        };
        let found = active.chain.links.iter().position(|link| link.segment == made.segment);
        let Some(at) = found else {
            // The journal was begun anew meanwhile.
            let _ = self.disk.remove(&checkpoint_name(made.segment));
            return;
        };
        active.chain.links.drain(..at);
        active.chain.header = made.header.clone();
        active.chain.checkpoint_bytes = made.bytes;
        active.closed_bytes = active.chain.closed_bytes();
        active.due = Due::Not;
    }

    /// No checkpoint could be made. The next write asks for one again.
    pub fn not_checkpointed(&mut self) {
        if let State::On(active) = &mut self.state {
            active.due = Due::Not;
        }
    }

    /// Checks that the written file is where it was made, and has no other name. That is asked for
    /// now and then, as a removed file can be written without an error.
    ///
    /// # Errors
    ///
    /// [`Broken`] if it is not, now or before.
    pub fn check(&mut self) -> Result<(), Broken> {
        self.state()?;
        let State::On(active) = &self.state else { return Ok(()) };
        let file = log_name(active.chain.last().segment);
        let same = self.disk.open(&file).and_then(|named| {
            let (named, ours) = (named.facts()?, active.file.facts()?);
            Ok(named.inode == ours.inode && named.born == ours.born && ours.links == 1)
        });
        match same {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(self.give_up(Failure::Gone { file: file.into() })),
        }
    }

    /// Has no later start take what is there for a journal. To be tried again while it is
    /// [`Broken::Stuck`].
    ///
    /// # Errors
    ///
    /// [`Broken::Stuck`] if that is not certain.
    pub fn make_void(&mut self) -> Result<(), Broken> {
        let why = match &self.state {
            State::On(_) => Failure::NotBegun,
            State::Off(why) | State::Stuck { why, .. } => why.clone(),
        };
        match self.give_up(why) {
            Broken::Void(_) => Ok(()),
            stuck @ Broken::Stuck { .. } => Err(stuck),
        }
    }

    /// It cannot be written: whatever is there must never be taken for complete.
    fn give_up(&mut self, why: Failure) -> Broken {
        match self.try_void() {
            Ok(()) => {
                self.state = State::Off(why.clone());
                Broken::Void(why)
            }
            Err(void) => {
                self.state = State::Stuck { why: why.clone(), void: void.clone() };
                Broken::Stuck { why, void }
            }
        }
    }

    /// Empties all segments, the latest first, then removes all there is. A file counts as void if
    /// it is empty or gone for certain.
    fn try_void(&self) -> Result<(), Failure> {
        let mut names = self.names()?;
        names.sort_by_key(|name| std::cmp::Reverse(name.segment()));
        let mut uncertain = None;
        let mut emptied = Vec::new();
        for named in &names {
            if let Named::Log(segment) = *named {
                emptied.push((segment, self.empty(segment)));
            }
        }
        for (segment, emptied) in emptied {
            let name = log_name(segment);
            let removed = self.disk.remove(&name).map_err(Failure::file("removed", &name));
            if let (Err(why), Err(_)) = (emptied, removed) {
                uncertain.get_or_insert(why);
            }
        }
        for named in names {
            match named {
                Named::Log(_) => {}
                Named::Checkpoint(segment) => {
                    // Without its segment it is none.
                    let _ = self.disk.remove(&checkpoint_name(segment));
                }
                Named::New(segment) => self.remove_new(segment),
            }
        }
        if self.run.distance == Distance::Machine {
            self.disk.sync().map_err(Failure::file("synced", "the directory"))?;
        }
        uncertain.map_or(Ok(()), Err)
    }

    fn empty(&self, segment: u64) -> Result<(), Failure> {
        let name = log_name(segment);
        let file = self.disk.open(&name).map_err(Failure::file("opened", &name))?;
        file.truncate(0).map_err(Failure::file("emptied", &name))?;
        if self.run.distance == Distance::Machine {
            file.sync().map_err(Failure::file("synced", &name))?;
        }
        Ok(())
    }

    fn remove_new(&self, segment: u64) {
        for name in [log_name(segment), checkpoint_name(segment)] {
            let _ = self.disk.remove(&new_name(&name));
        }
    }

    /// Makes the segment behind the last one of `chain`, and has that one, `file`, name it.
    fn follow(&self, file: &D::File, chain: &mut Chain) -> Result<(D::File, u64), Failure> {
        let last = chain.last();
        let segment = last.segment + 1;
        let (new, _, offset) = self.create(segment, Origin::Segment(last.run), last.next)?;
        let mut closed = Vec::new();
        let payload = closed_payload(segment, self.run.id);
        put(&mut closed, Key::of_run(last.run), Kind::Closed, last.next, &payload);
        let name = log_name(last.segment);
        write_all(file, &closed, last.end).map_err(Failure::file("written", &name))?;
        if self.run.distance == Distance::Machine {
            file.sync().map_err(Failure::file("synced", &name))?;
        }
        let (first, next) = (last.next, last.next);
        chain.last_mut().end = last.end + closed.len() as u64;
        chain.links.push(Link { segment, first, next, run: self.run.id, end: offset });
        Ok((new, offset))
    }

    /// Makes a segment that has a header and nothing else. It has its name when that is written.
    fn create(
        &self,
        segment: u64,
        origin: Origin,
        first: u64,
    ) -> Result<(D::File, Header, u64), Failure> {
        let name = log_name(segment);
        if Named::of(&name) != Some(Named::Log(segment)) {
            // It would not be found again.
            return Err(Failure::NoNumber);
        }
        let bytes = self.run.settings.len();
        if bytes > SETTINGS_BYTES_MAX {
            return Err(Failure::SettingsTooLong { bytes });
        }
        let new = new_name(&name);
        self.disk.remove(&new).map_err(Failure::file("removed", &new))?;
        let file = self.disk.create(&new).map_err(Failure::file("made", &new))?;
        let facts = file.facts().map_err(Failure::file("looked at", &new))?;
        let header = Header::new(&self.run, segment, origin, first, facts);
        let bytes = header.to_bytes();
        write_all(&file, &bytes, 0).map_err(Failure::file("written", &new))?;
        if self.run.distance == Distance::Machine {
            file.sync().map_err(Failure::file("synced", &new))?;
        }
        self.disk.rename(&new, &name).map_err(Failure::file("renamed", &new))?;
        if self.run.distance == Distance::Machine {
            self.disk.sync().map_err(Failure::file("kept", &name))?;
        }
        Ok((file, header, bytes.len() as u64))
    }

    fn open(&self, segment: u64) -> Result<(D::File, Facts), Failure> {
        let name = log_name(segment);
        let file = self.disk.open(&name).map_err(Failure::file("opened", &name))?;
        let facts = file.facts().map_err(Failure::file("looked at", &name))?;
        Ok((file, facts))
    }

    /// Removes what is not of the segments from `first` to `last`.
    fn sweep(&self, first: u64, last: u64) -> Result<(), Failure> {
        for named in self.names()? {
            if let Named::New(segment) = named {
                self.remove_new(segment);
            }
        }
        sweep(&self.disk, first, last)
    }

    fn names(&self) -> Result<Vec<Named>, Failure> {
        names(&self.disk)
    }
}

/// Fills in the mark that a batch begins with: all before it is synced.
fn mark(batch: &mut Batch, key: Key, offset: u64) {
    let through = batch.first.saturating_sub(1);
    let payload = [through.to_le_bytes(), offset.to_le_bytes()].concat();
    let mut mark = head(key, Kind::Synced, batch.first, &payload).to_vec();
    mark.extend(payload);
    if let Some(room) = batch.bytes.get_mut(..MARK_BYTES) {
        room.copy_from_slice(&mark);
    }
}
