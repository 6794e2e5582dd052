//! The ground of a journal: its disk, its machine, and the number of the run that writes it.

use std::fs::File;
use std::io;
use std::path::Path;
#[cfg(feature = "cluster")]
use std::thread;

#[cfg(feature = "cluster")]
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

#[cfg(test)]
use crate::journal::simulated::{SimulatedDisk, SimulatedFile};
use crate::journal::{Bounds, Directory, Disk, DiskFile, Facts, Place};

/// All that a journal needs of the world.
#[derive(Debug)]
pub(crate) struct Ground {
    /// Where its files are.
    pub(crate) medium: Medium,
    /// The machine, and its boot: what was only written is lost with that.
    pub(crate) place: Place,
    /// A random number that no other run has.
    pub(crate) id: u128,
    /// When a checkpoint is due.
    pub(crate) bounds: Bounds,
    /// The state that it belongs to ([`StateKey::fingerprint`](super::super::StateKey)): a journal of
    /// another server may have the same epochs.
    pub(crate) state: [u8; 16],
}

impl Ground {
    /// That of a data directory on this machine.
    pub(in crate::server) fn of(data: &Path) -> io::Result<Self> {
        let medium = Medium::Real(Directory::open(&File::open(data)?)?);
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        let (place, id) = (Place::here(), u128::from_le_bytes(id));
        Ok(Self { medium, place, id, bounds: Bounds::default(), state: [0; 16] })
    }
}

/// A directory for a journal: a real one, or one of a simulation.
#[derive(Clone, Debug)]
pub(crate) enum Medium {
    /// On a disk.
    Real(Directory),
    /// In memory, with a page cache and a platter.
    #[cfg(test)]
    #[cfg_attr(
        not(any(feature = "client", feature = "cluster")),
        allow(dead_code, reason = "simulations and standbys have one")
    )]
    Simulated(SimulatedDisk),
}

/// A file of it.
#[derive(Debug)]
pub(crate) enum MediumFile {
    /// On a disk.
    Real(File),
    /// In memory.
    #[cfg(test)]
    Simulated(SimulatedFile),
}

impl Medium {
    /// Does work that waits for this disk, while this thread goes on; none if it came to no end.
    pub(in crate::server) async fn apart<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Self::Real(_) => spawn_blocking(work).await.ok(),
            #[cfg(test)]
            Self::Simulated(disk) => {
                tokio::time::sleep(disk.delay()).await;
                Some(work())
            }
        }
    }
}

#[cfg(feature = "cluster")]
impl Medium {
    /// The same, of work of which there is much: what others wait for goes first where processors are few.
    pub(in crate::server) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self {
            Self::Real(_) => {
                let (tell, told) = oneshot::channel();
                let works = move || {
                    gives_way();
                    // Whoever asked may be gone.
                    let _ = tell.send(work());
                };
                thread::Builder::new().name("checkpoint".to_owned()).spawn(works).ok()?;
                told.await.ok()
            }
            #[cfg(test)]
            Self::Simulated(_) => self.apart(work).await,
        }
    }
}

/// How much nicer than the others a thread is that gives way: it has a third of the time of one that does not. With much
/// less, what comes meanwhile for who waits would be too much.
#[cfg(all(feature = "cluster", target_os = "linux"))]
const NICER: i32 = 5;

/// Has this thread give way to all others. There is no way back.
#[cfg(all(feature = "cluster", target_os = "linux"))]
fn gives_way() {
    // Of a thread, on Linux. It may be refused (seccomp): then all are the same.
    let nicer = rustix::process::getpriority_process(None).map(|nice| nice + NICER);
    let _ = nicer.and_then(|nice| rustix::process::setpriority_process(None, nice));
}

/// Elsewhere that would be of the whole process.
#[cfg(all(feature = "cluster", not(target_os = "linux")))]
const fn gives_way() {}

/// Does the same with whichever it is.
macro_rules! of_either {
    ($kind:ident, $self:ident, $it:ident => $doing:expr) => {
        match $self {
            $kind::Real($it) => $doing,
            #[cfg(test)]
            $kind::Simulated($it) => $doing,
        }
    };
}

impl Disk for Medium {
    type File = MediumFile;

    fn names(&self, max: usize) -> io::Result<Vec<String>> {
        of_either!(Medium, self, disk => disk.names(max))
    }

    fn create(&self, name: &str) -> io::Result<MediumFile> {
        match self {
            Self::Real(disk) => disk.create(name).map(MediumFile::Real),
            #[cfg(test)]
            Self::Simulated(disk) => disk.create(name).map(MediumFile::Simulated),
        }
    }

    fn open(&self, name: &str) -> io::Result<MediumFile> {
        match self {
            Self::Real(disk) => Disk::open(disk, name).map(MediumFile::Real),
            #[cfg(test)]
            Self::Simulated(disk) => disk.open(name).map(MediumFile::Simulated),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        of_either!(Medium, self, disk => disk.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        of_either!(Medium, self, disk => disk.remove(name))
    }

    fn sync(&self) -> io::Result<()> {
        of_either!(Medium, self, disk => Disk::sync(disk))
    }
}

impl DiskFile for MediumFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        of_either!(MediumFile, self, file => DiskFile::read_at(file, buffer, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        of_either!(MediumFile, self, file => DiskFile::write_at(file, bytes, offset))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        of_either!(MediumFile, self, file => file.truncate(length))
    }

    fn sync(&self) -> io::Result<()> {
        of_either!(MediumFile, self, file => DiskFile::sync(file))
    }

    fn facts(&self) -> io::Result<Facts> {
        of_either!(MediumFile, self, file => file.facts())
    }
}
