//! Segments that follow each other, and how they are replayed.

use std::io::{self, Read};

use super::checkpoint::{self, Target};
use super::disk::{Disk, DiskFile};
use super::error::{Void, grouped};
use super::frame::{Key, Kind};
use super::header::{FORMAT, Header, LOG_MAGIC, log_name};
use super::machine::Machine;
use super::reader::{Frames, Step};

/// Segments that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// How the first one begins.
    pub(super) header: Header,
    /// How long the checkpoint is that the first one goes on from; nothing if there is none.
    pub(super) checkpoint_bytes: u64,
    /// All of them, at least one.
    pub(super) links: Vec<Link>,
}

/// A segment of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number.
    pub(super) segment: u64,
    /// The number of its first record.
    pub(super) first: u64,
    /// The number of the first record behind it.
    pub(super) next: u64,
    /// The run that wrote it.
    pub(super) run: u128,
    /// Where it ends: what stands behind that does not count.
    pub(super) end: u64,
}

impl Chain {
    /// The last segment.
    pub(super) fn last(&self) -> Link {
        let header = &self.header;
        let (segment, first, run) = (header.segment, header.first, header.run);
        self.links.last().copied().unwrap_or(Link { segment, first, next: first, run, end: 0 })
    }

    /// The last segment, to be changed.
    pub(super) fn last_mut(&mut self) -> &mut Link {
        if self.links.is_empty() {
            self.links.push(self.last());
        }
        let last = self.links.len() - 1;
        &mut self.links[last]
    }

    /// How long all of them are.
    pub(super) fn bytes(&self) -> u64 {
        self.links.iter().map(|link| link.end).sum()
    }

    /// How long all but the last are.
    pub(super) fn closed_bytes(&self) -> u64 {
        self.bytes() - self.links.last().map_or(0, |link| link.end)
    }

    /// The segment that the first checkpoint is for.
    fn target(&self) -> Target {
        let Header { segment, first, run, .. } = self.header;
        Target { segment, first, run }
    }

    /// Makes a machine and applies all records.
    pub(super) fn replay<D, M>(
        &self,
        disk: &D,
        restore: impl FnOnce(&Header, Option<&mut dyn Read>) -> Result<M, String>,
    ) -> Result<M, Void>
    where
        D: Disk,
        M: Machine,
    {
        let target = self.target();
        let segment = target.segment;
        let not_understood =
            |why| Void::NotUnderstood { what: format!("the checkpoint of segment {segment}"), why };
        let mut machine = if self.checkpoint_bytes == 0 {
            restore(&self.header, None).map_err(not_understood)?
        } else {
            let checkpoint = checkpoint::open(disk, target)?;
            let mut reader = checkpoint.ok_or(Void::CheckpointMissing { segment })?;
            let machine = restore(&self.header, Some(&mut reader));
            // Damage is what explains that it was not understood.
            let read = io::copy(&mut reader, &mut io::sink());
            if read.is_err() || !reader.is_whole() {
                return Err(Void::CheckpointDamaged { segment });
            }
            machine.map_err(not_understood)?
        };
        for link in &self.links {
            link.apply_to(disk, &mut machine)?;
        }
        Ok(machine)
    }
}

impl Link {
    fn apply_to<D: Disk>(&self, disk: &D, machine: &mut impl Machine) -> Result<(), Void> {
        let mut opened = Opened::new(disk, self.segment)?;
        let Opened { frames, header } = &mut opened;
        if (header.run, header.first) != (self.run, self.first) {
            return Err(Void::Header { segment: self.segment });
        }
        frames.cut(self.end);
        let unreadable = |error: io::Error| Void::unreadable(&log_name(self.segment), &error);
        let mut next = self.first;
        loop {
            match frames.step().map_err(unreadable)? {
                Step::Frame(Kind::Record, number) if number == next => {
                    let applied = machine.apply(number, frames.payload());
                    applied.map_err(|why| Void::NotUnderstood {
                        what: format!("record {}", grouped(number)),
                        why,
                    })?;
                    next += 1;
                }
                Step::Frame(Kind::Epochs | Kind::Synced | Kind::Closed, _) => {}
                Step::End if next == self.next && frames.offset() == self.end => return Ok(()),
                Step::Frame(..) | Step::End | Step::Short | Step::Bad => {
                    return Err(Void::Record { segment: self.segment, number: next });
                }
            }
        }
    }
}

/// A segment whose header was read.
pub(super) struct Opened<F> {
    /// Stands behind the header.
    pub(super) frames: Frames<F>,
    /// The content of its first frame.
    pub(super) header: Header,
}

impl<F: DiskFile> Opened<F> {
    pub(super) fn new<D: Disk<File = F>>(disk: &D, segment: u64) -> Result<Self, Void> {
        let name = log_name(segment);
        let unreadable = |error: io::Error| Void::unreadable(&name, &error);
        let file = match disk.open(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Void::SegmentMissing { segment });
            }
            Err(error) => return Err(unreadable(error)),
        };
        let facts = file.facts().map_err(unreadable)?;
        let damaged = || Void::Header { segment };
        let mut frames = Frames::new(file, Key::HEADER, facts.bytes);
        let magic = frames.bytes::<8>().map_err(unreadable)?.ok_or_else(damaged)?;
        let format = frames.bytes::<4>().map_err(unreadable)?.ok_or_else(damaged)?;
        if magic != LOG_MAGIC {
            return Err(damaged());
        }
        let found = u32::from_le_bytes(format);
        if found != FORMAT {
            return Err(Void::Format { file: name, found });
        }
        let Step::Frame(Kind::Header, first) = frames.step().map_err(unreadable)? else {
            return Err(damaged());
        };
        let header = Header::read(first, frames.payload()).filter(|header| header.first > 0);
        let header = header.ok_or_else(damaged)?;
        frames.set_key(Key::of_run(header.run));
        Ok(Self { frames, header })
    }

    /// That it is the file that was written, of the version of the rules that reads it.
    pub(super) fn check(&self, segment: u64, rules: u32) -> Result<(), Void> {
        let header = &self.header;
        if header.segment != segment {
            return Err(Void::Misnamed { segment, found: header.segment });
        }
        if header.rules != rules {
            let (found, known) = (header.rules, rules);
            return Err(Void::Rules { segment, found, known });
        }
        let name = log_name(segment);
        let facts = self.frames.file().facts();
        let facts = facts.map_err(|error| Void::unreadable(&name, &error))?;
        if facts.links != 1 {
            return Err(Void::Linked { segment, links: facts.links });
        }
        if facts.is_exposed {
            return Err(Void::Exposed { file: name });
        }
        if !facts.is_same(header.inode, header.born) {
            return Err(Void::Copied { segment });
        }
        Ok(())
    }

    /// The segment that its checkpoint is for.
    pub(super) fn target(&self) -> Target {
        let Header { segment, first, run, .. } = self.header;
        Target { segment, first, run }
    }
}

/// How a segment begins.
pub(super) fn read_header<D: Disk>(disk: &D, segment: u64) -> Result<Header, Void> {
    Opened::new(disk, segment).map(|opened| opened.header)
}
