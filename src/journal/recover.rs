//! Recovery: finds a journal that is certainly complete, or none.
//!
//! ```text
//!   latest segment ──▶ back to the one that goes on from a checkpoint, or from nothing
//!                  ──▶ forth again: every frame checked, every end names what follows
//! ```
//!
//! Nothing of it is applied before all of it was checked. A part that does not verify is dropped
//! only where a crash can have cut it short (a torn write) before anybody was told. Anything else
//! makes the journal void.

use std::io::{self, Read};

use super::bounds::{Bounds, CHAIN_SEGMENTS_MAX, OVERDUE_TIMES};
use super::chain::{Chain, Link, Opened};
use super::checkpoint;
use super::disk::{Disk, DiskFile};
use super::error::{Note, Void};
use super::frame::{Fields, Kind};
use super::header::{Header, Named, Origin, log_name};
use super::machine::Machine;
use super::reader::Step;
use super::{Distance, Epochs, NAMES_MAX, Place};

/// The run that starts, and what is known beside the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Where this is.
    pub place: Place,
    /// The version of the rules that are followed here.
    pub rules: u32,
    /// The epoch that the state calls the last.
    pub epoch: u64,
}

/// The outcome of a search.
#[derive(Debug)]
pub enum Recovered {
    /// No journal. Whether there was one, nobody knows.
    Fresh,
    /// One that is certainly complete.
    Whole(Box<Whole>),
    /// One that is not.
    Void(Void),
}

/// A journal that is certainly complete: all that was said follows from it.
#[derive(Debug)]
pub struct Whole {
    /// Its segments.
    pub(super) chain: Chain,
    /// The beginning of the last segment: who wrote the end of the journal, and where.
    pub last: Header,
    /// The epochs that it ends with.
    pub epochs: Epochs,
    /// Parts that were left out.
    pub notes: Vec<Note>,
}

impl Whole {
    /// How the journal begins: with what its checkpoint was made under.
    pub fn first(&self) -> &Header {
        &self.chain.header
    }

    /// The number of the record that comes next.
    pub fn next(&self) -> u64 {
        self.chain.last().next
    }

    /// How many records there are since the checkpoint.
    pub fn records(&self) -> u64 {
        self.next() - self.chain.header.first
    }

    /// How long it is, but for its checkpoint.
    pub fn bytes(&self) -> u64 {
        self.chain.bytes()
    }

    /// Whether it is so long that a run should begin with a checkpoint, as nobody made one in time.
    pub fn is_long(&self, bounds: Bounds) -> bool {
        let most = bounds.due_bytes(self.chain.checkpoint_bytes).saturating_mul(OVERDUE_TIMES);
        self.bytes() > most / 2 || self.chain.links.len() > CHAIN_SEGMENTS_MAX / 2
    }

    /// Has a machine made of the checkpoint, or of nothing, and applies all records in order.
    ///
    /// # Errors
    ///
    /// If what is there is not what was checked any more, or the machine does not understand it.
    /// What was made by then is of no use.
    pub fn replay<D, M>(
        &self,
        disk: &D,
        restore: impl FnOnce(&Header, Option<&mut dyn Read>) -> Result<M, String>,
    ) -> Result<M, Void>
    where
        D: Disk,
        M: Machine,
    {
        self.chain.replay(disk, restore)
    }
}

/// Finds the journal in `disk`, and whether it is certainly complete. Changes nothing.
pub fn recover<D: Disk>(disk: &D, expected: &Expected) -> Recovered {
    match find(disk, expected) {
        Ok(None) => Recovered::Fresh,
        Ok(Some(whole)) => Recovered::Whole(Box::new(whole)),
        Err(void) => Recovered::Void(void),
    }
}

fn find<D: Disk>(disk: &D, expected: &Expected) -> Result<Option<Whole>, Void> {
    let names = disk.names(NAMES_MAX);
    let names = names.map_err(|error| Void::unreadable("the directory", &error))?;
    let logs = names.iter().filter_map(|name| match Named::of(name)? {
        Named::Log(segment) => Some(segment),
        Named::Checkpoint(_) | Named::New(_) => None,
    });
    let Some(latest) = logs.max() else { return Ok(None) };
    let mut notes = Vec::new();
    let (opened, checkpoint_bytes) = walk_back(disk, expected, latest, &mut notes)?;
    let mut walk = Walk { expected, notes, links: Vec::new(), epochs: Epochs::default() };
    let first = opened.first().map(|opened| opened.header.clone());
    let last = walk.forth(opened)?;
    let Some(header) = first else { return Ok(None) };
    let Walk { notes, links, epochs, .. } = walk;
    if expected.epoch > epochs.ordered {
        return Err(Void::OldJournal { found: epochs.ordered, expected: expected.epoch });
    }
    if expected.epoch < epochs.confirmed {
        return Err(Void::OldState { found: epochs.confirmed, expected: expected.epoch });
    }
    let chain = Chain { header, checkpoint_bytes, links };
    Ok(Some(Whole { chain, last, epochs, notes }))
}

/// That records of this place and distance mean something here.
fn check_place(header: &Header, expected: &Expected) -> Result<(), Void> {
    let (there, here) = (header.place, expected.place);
    if there.machine != here.machine {
        return Err(Void::OtherMachine);
    }
    match (header.distance, there.boot, here.boot) {
        (Distance::Machine, _, _) => Ok(()),
        (Distance::Process, Some(there), Some(here)) if there == here => Ok(()),
        (Distance::Process, Some(_), Some(_)) => Err(Void::Restarted),
        (Distance::Process, None, _) | (Distance::Process, _, None) => Err(Void::BootUnknown),
    }
}

/// Segments that stand beside each other.
type Row<F> = Vec<Opened<F>>;

/// Opens the latest segment and those before it, back to the one that everything can begin with.
/// Says how long its checkpoint is.
fn walk_back<D: Disk>(
    disk: &D,
    expected: &Expected,
    latest: u64,
    notes: &mut Vec<Note>,
) -> Result<(Row<D::File>, u64), Void> {
    let mut opened = Vec::new();
    let mut segment = latest;
    let mut checkpoint_bytes = 0;
    let mut damage = None;
    loop {
        let current = match (Opened::new(disk, segment), damage.take()) {
            // Without the damage nobody would have looked for it.
            (Err(Void::SegmentMissing { .. }), Some(damage)) => return Err(damage),
            (current, _) => current?,
        };
        current.check(segment, expected.rules)?;
        if segment == latest {
            check_place(&current.header, expected)?;
        }
        let (origin, target) = (current.header.origin, current.target());
        opened.push(current);
        match (origin, checkpoint::check(disk, target)) {
            (Origin::Nothing, _) => break,
            (_, Ok(Some(bytes))) => {
                checkpoint_bytes = bytes;
                break;
            }
            (Origin::Checkpoint, Ok(None)) => return Err(Void::CheckpointMissing { segment }),
            (Origin::Segment(_), Ok(None)) => {}
            (Origin::Segment(_), Err(void @ Void::CheckpointDamaged { .. })) => {
                notes.push(Note::CheckpointUnused { segment });
                damage = Some(void);
            }
            (Origin::Checkpoint | Origin::Segment(_), Err(void)) => return Err(void),
        }
        // One more than is ever made: the last may have been made and not used.
        if opened.len() > CHAIN_SEGMENTS_MAX + 1 || segment <= 1 {
            return Err(damage.unwrap_or(Void::SegmentMissing { segment: segment - 1 }));
        }
        segment -= 1;
    }
    opened.reverse();
    Ok((opened, checkpoint_bytes))
}

/// Goes over the segments, the first one first.
struct Walk<'a> {
    /// The expectations of the run that starts.
    expected: &'a Expected,
    /// Parts that were left out.
    notes: Vec<Note>,
    /// The segments that were passed.
    links: Vec<Link>,
    /// The epochs that count here.
    epochs: Epochs,
}

impl Walk<'_> {
    /// Passes all of them. Says how the last one that counts begins.
    fn forth<F: DiskFile>(&mut self, opened: Row<F>) -> Result<Header, Void> {
        let mut rest = opened.into_iter().peekable();
        loop {
            let Some(mut current) = rest.next() else {
                return Err(Void::SegmentMissing { segment: 1 });
            };
            self.epochs = current.header.epochs;
            let passed = pass(&mut current, &mut self.epochs)?;
            let Link { segment, next, run, .. } = passed.link;
            self.links.push(passed.link);
            let Some(follower) = rest.peek_mut() else {
                if let Some((successor, _)) = passed.closed {
                    return Err(Void::SegmentMissing { segment: successor });
                }
                self.end(&mut current, &passed)?;
                return Ok(current.header);
            };
            let unlinked = Void::Unlinked { segment: segment + 1, predecessor: segment };
            if follower.header.origin != Origin::Segment(run) {
                return Err(unlinked);
            }
            if follower.header.first != next {
                // It was made when all before its first record was written.
                return Err(Void::Record { segment, number: next });
            }
            match passed.closed {
                Some(names) if names == (segment + 1, follower.header.run) => {
                    if passed.behind != Step::End {
                        return Err(Void::Record { segment, number: next });
                    }
                }
                Some(_) => return Err(unlinked),
                None => {
                    let unused = follower.frames.step();
                    let name = log_name(segment + 1);
                    let unused = unused.map_err(|error| Void::unreadable(&name, &error))?;
                    let is_last = {
                        rest.next();
                        rest.peek().is_none()
                    };
                    if unused != Step::End || !is_last {
                        return Err(Void::Record { segment, number: next });
                    }
                    self.notes.push(Note::Unused { segment: segment + 1 });
                    self.end(&mut current, &passed)?;
                    return Ok(current.header);
                }
            }
        }
    }

    /// The journal ends with this segment: what of its end may be dropped?
    fn end<F: DiskFile>(&mut self, last: &mut Opened<F>, passed: &Passed) -> Result<(), Void> {
        check_place(&last.header, self.expected)?;
        let Link { segment, next: number, end, .. } = passed.link;
        if passed.behind == Step::End {
            return Ok(());
        }
        let (there, here) = (last.header.place.boot, self.expected.place.boot);
        // Then the page cache is as it was: nothing but the last write can be cut short.
        let is_same_boot = there.is_some() && there == here;
        if is_same_boot && passed.behind != Step::Short {
            return Err(Void::Record { segment, number });
        }
        let name = log_name(segment);
        let unreadable = |error: io::Error| Void::unreadable(&name, &error);
        if last.frames.synced_behind().map_err(unreadable)?.is_some() {
            return Err(Void::Synced { segment, number });
        }
        let bytes = last.frames.file().facts().map_err(unreadable)?.bytes;
        self.notes.push(Note::Dropped { number, bytes: bytes.saturating_sub(end) });
        Ok(())
    }
}

/// The outcome of going over a segment.
struct Passed {
    /// The segment, and where what is certain of it ends.
    link: Link,
    /// The successor that it names, and who writes that.
    closed: Option<(u64, u128)>,
    /// Bytes behind the end.
    behind: Step,
}

/// Goes over the frames of a segment for as long as each is what has to come.
fn pass<F: DiskFile>(opened: &mut Opened<F>, epochs: &mut Epochs) -> Result<Passed, Void> {
    let Opened { frames, header } = opened;
    let (segment, first, run) = (header.segment, header.first, header.run);
    let name = log_name(segment);
    let mut link = Link { segment, first, next: first, run, end: frames.offset() };
    let mut closed = None;
    loop {
        let step = frames.step().map_err(|error| Void::unreadable(&name, &error))?;
        let next = link.next;
        let is_due = match step {
            _ if closed.is_some() => false,
            Step::Frame(Kind::Record, number) => {
                link.next = number.saturating_add(1);
                number == next && link.next > next
            }
            Step::Frame(Kind::Epochs, number) if number == next => {
                let mut fields = Fields(frames.payload());
                let read = Epochs::read(&mut fields).filter(|_| fields.end().is_some());
                *epochs = read.unwrap_or(*epochs);
                read.is_some()
            }
            Step::Frame(Kind::Synced, number) => {
                let says = [(next - 1).to_le_bytes(), link.end.to_le_bytes()].concat();
                number == next && frames.payload() == says
            }
            Step::Frame(Kind::Closed, number) if number == next => {
                let mut fields = Fields(frames.payload());
                closed = fields.u64().zip(fields.u128());
                closed.is_some() && fields.end().is_some()
            }
            Step::Frame(..) | Step::End | Step::Short | Step::Bad => false,
        };
        if !is_due {
            // What verifies and is not what has to come is as bad as what does not verify.
            let behind = if matches!(step, Step::Frame(..)) { Step::Bad } else { step };
            link.next = next;
            return Ok(Passed { link, closed, behind });
        }
        link.end = frames.offset();
    }
}
