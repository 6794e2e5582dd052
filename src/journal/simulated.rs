//! A simulated disk with separate page cache and platter. It can lose what a power cut loses, be
//! full, fail, write short, and stop at any step.
//!
//! - *The process ends:* all is there that a call has returned for, and perhaps half of a write.
//! - *The power is cut:* all is there that was synced. Of the rest any pages are there, any length
//!   that the file had, and any number of changes of names, in their order.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::disk::{Disk, DiskFile, Facts};
use crate::testing::fuzz::Random;

/// What is lost, is lost in pages. Small, so that small journals have many.
const PAGE_BYTES: usize = 64;

/// A directory on such a disk. A copy of it is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Inner>>);

/// An open file of it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedFile {
    /// Where.
    disk: SimulatedDisk,
    /// Which.
    inode: u64,
}

/// What goes wrong.
#[expect(clippy::struct_excessive_bools, reason = "each fault comes with any other")]
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// After so many changes of anything nothing changes any more; of the write that comes next,
    /// half is done.
    pub(crate) stops_after: Option<u64>,
    /// How many bytes there is room for.
    pub(crate) room: Option<u64>,
    /// Writes fail.
    pub(crate) writes_fail: bool,
    /// Syncs of files and of the directory fail.
    pub(crate) syncs_fail: bool,
    /// Files cannot be cut off.
    pub(crate) truncates_fail: bool,
    /// Files cannot be removed.
    pub(crate) removes_fail: bool,
    /// Writes take a part only, and are interrupted; by these dice.
    pub(crate) short_writes: Option<Random>,
    /// Work that waits for the disk waits for so many milliseconds at most; by these dice.
    pub(crate) slow: Option<(Random, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    /// All files, those without a name too.
    inodes: BTreeMap<u64, Inode>,
    /// The names, as the process sees them.
    names: BTreeMap<String, u64>,
    /// As they were since they were synced, the latest last.
    names_before: Vec<BTreeMap<String, u64>>,
    /// How many changes there were.
    changes: u64,
    /// How many of them were syncs.
    syncs: u64,
    /// What goes wrong.
    faults: Faults,
    /// The number of the last file.
    last_inode: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// As the process sees it.
    cached: Vec<u8>,
    /// As it was synced.
    platter: Vec<u8>,
    /// How long it was since then.
    lengths: Vec<usize>,
    /// When it was made.
    born: u64,
    /// Names that it has elsewhere.
    links_elsewhere: u64,
    /// Whether others can write it.
    is_exposed: bool,
}

impl SimulatedDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another disk on which everything is as on this one, but for its faults.
    pub(crate) fn twin(&self) -> Self {
        let inner = Inner { faults: Faults::default(), ..self.inner().clone() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// What goes wrong from now on.
    pub(crate) fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// How long the work has to wait that comes next.
    pub(crate) fn delay(&self) -> Duration {
        let slow = &mut self.inner().faults.slow;
        let ms = slow.as_mut().map(|(dice, most)| dice.next() % (*most + 1));
        Duration::from_millis(ms.unwrap_or_default())
    }

    /// How many changes there were.
    pub(crate) fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// How many syncs there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.inner().syncs
    }

    /// How many bytes all files have that have a name.
    pub(crate) fn bytes(&self) -> u64 {
        let inner = self.inner();
        inner.names.values().map(|inode| inner.inodes[inode].cached.len() as u64).sum()
    }

    /// The power is cut, and comes back.
    pub(crate) fn cut_power(&self, dice: &mut Random) {
        let mut inner = self.inner();
        inner.faults = Faults::default();
        let before = inner.names_before.len();
        // All changes of names, or those up to one of them.
        let kept = dice.below(before + 1);
        if let Some(names) = inner.names_before.get(kept).cloned() {
            inner.names = names;
        }
        inner.names_before.clear();
        for inode in inner.inodes.values_mut() {
            inode.cut_power(dice);
        }
    }

    /// Has every file be another one, as in a copy of the directory.
    pub(crate) fn copied(&self) -> Self {
        let copy = self.twin();
        for inode in copy.inner().inodes.values_mut() {
            inode.born += 1_000_000;
        }
        copy
    }

    /// What is in a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let inner = self.inner();
        inner.inodes[&inner.names[name]].cached.clone()
    }

    /// Puts something else in a file, as damage.
    pub(crate) fn damage(&self, name: &str, bytes: &[u8]) {
        let mut inner = self.inner();
        let inode = inner.names[name];
        let inode = inner.inodes.get_mut(&inode).unwrap();
        inode.cached = bytes.to_vec();
        inode.platter = bytes.to_vec();
    }

    /// Gives a file a name elsewhere.
    pub(crate) fn link_elsewhere(&self, name: &str) {
        let mut inner = self.inner();
        let inode = inner.names[name];
        inner.inodes.get_mut(&inode).unwrap().links_elsewhere += 1;
    }

    /// Lets others write a file.
    pub(crate) fn expose(&self, name: &str) {
        let mut inner = self.inner();
        let inode = inner.names[name];
        inner.inodes.get_mut(&inode).unwrap().is_exposed = true;
    }

    fn file(&self, inode: u64) -> SimulatedFile {
        SimulatedFile { disk: self.clone(), inode }
    }
}

impl Inode {
    fn cut_power(&mut self, dice: &mut Random) {
        let Self { cached, platter, lengths, .. } = self;
        lengths.extend([platter.len(), cached.len()]);
        let length = *dice.pick(lengths);
        let mut left = vec![0; length];
        for (number, page) in left.chunks_mut(PAGE_BYTES).enumerate() {
            let version = if dice.once_in(2) { &*cached } else { &*platter };
            let from = version.get(number * PAGE_BYTES..).unwrap_or_default();
            page.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
        lengths.clear();
        self.cached.clone_from(&left);
        self.platter = left;
    }
}

impl Inner {
    fn has_stopped(&self) -> bool {
        self.faults.stops_after.is_some_and(|after| self.changes >= after)
    }

    /// One more change, unless nothing changes any more.
    fn change(&mut self) -> io::Result<()> {
        if self.has_stopped() {
            return Err(io::Error::other("stopped"));
        }
        self.changes += 1;
        Ok(())
    }

    fn change_names(&mut self) -> io::Result<()> {
        self.change()?;
        let names = self.names.clone();
        self.names_before.push(names);
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    type File = SimulatedFile;

    fn names(&self, max: usize) -> io::Result<Vec<String>> {
        let names: Vec<String> = self.inner().names.keys().cloned().collect();
        if names.len() > max { Err(io::Error::other("more")) } else { Ok(names) }
    }

    fn create(&self, name: &str) -> io::Result<SimulatedFile> {
        let mut inner = self.inner();
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if inner.faults.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.change_names()?;
        inner.last_inode += 1;
        let inode = inner.last_inode;
        inner.names.insert(name.to_owned(), inode);
        let born = inode * 10;
        inner.inodes.insert(inode, Inode { born, ..Inode::default() });
        Ok(self.file(inode))
    }

    fn open(&self, name: &str) -> io::Result<SimulatedFile> {
        let inode = self.inner().names.get(name).copied();
        inode.map(|inode| self.file(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.change_names()?;
        let inode = inner.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        inner.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        if !inner.names.contains_key(name) {
            return Ok(());
        }
        if inner.faults.removes_fail {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        inner.change_names()?;
        inner.names.remove(name);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.faults.syncs_fail {
            return Err(io::Error::other("the disk fails"));
        }
        inner.change()?;
        inner.syncs += 1;
        inner.names_before.clear();
        Ok(())
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.inner();
        let cached = &inner.inodes[&self.inode].cached;
        let from = cached.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let read = from.len().min(buffer.len());
        buffer[..read].copy_from_slice(&from[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut inner = self.disk.inner();
        let has_stopped = inner.has_stopped();
        let mut taken = bytes.len();
        if has_stopped {
            if inner.faults.stops_after != Some(inner.changes) {
                return Err(io::Error::other("stopped"));
            }
            // The last that happens.
            inner.changes += 1;
            taken /= 2;
        } else {
            if inner.faults.writes_fail {
                return Err(io::Error::other("the disk fails"));
            }
            if let Some(dice) = &mut inner.faults.short_writes {
                if dice.once_in(4) {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                taken = dice.below(taken) + 1;
            }
            if let Some(room) = &mut inner.faults.room {
                taken = taken.min(usize::try_from(*room).unwrap());
                *room -= taken as u64;
                if taken == 0 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            inner.change()?;
        }
        let inode = inner.inodes.get_mut(&self.inode).unwrap();
        inode.lengths.push(inode.cached.len());
        let offset = usize::try_from(offset).unwrap();
        let end = offset + taken;
        if inode.cached.len() < end {
            inode.cached.resize(end, 0);
        }
        inode.cached[offset..end].copy_from_slice(&bytes[..taken]);
        if has_stopped { Err(io::Error::other("stopped")) } else { Ok(taken) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.faults.truncates_fail {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        inner.change()?;
        let inode = inner.inodes.get_mut(&self.inode).unwrap();
        inode.lengths.push(inode.cached.len());
        inode.cached.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        if inner.faults.syncs_fail {
            return Err(io::Error::other("the disk fails"));
        }
        inner.change()?;
        inner.syncs += 1;
        let inode = inner.inodes.get_mut(&self.inode).unwrap();
        inode.platter = inode.cached.clone();
        inode.lengths.clear();
        Ok(())
    }

    fn facts(&self) -> io::Result<Facts> {
        let inner = self.disk.inner();
        let inode = &inner.inodes[&self.inode];
        let named = inner.names.values().filter(|&&named| named == self.inode).count() as u64;
        Ok(Facts {
            bytes: inode.cached.len() as u64,
            links: named + inode.links_elsewhere,
            inode: self.inode,
            born: Some(inode.born),
            is_exposed: inode.is_exposed,
        })
    }
}
