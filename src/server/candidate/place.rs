//! Where a member is: its directory, its ports, and its clock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::net::TcpListener;

use super::memory::Memory;
use crate::clock::{BootClock, Clock};
use crate::cluster::{Mark, RunId};
use crate::election::{Author, ElectionOptions};
use crate::journal::Place;
use crate::server::config::{Config, Data};
use crate::server::desk::Before;
use crate::server::durable::{DirectoryStore, Patience};
use crate::server::error::ServerError;
use crate::server::net::listener;
use crate::types::Timestamp;

/// Opens the directory of a member: that of its cluster and its name, below the data directory. What the
/// process before has kept there goes to the options. Without a journal, there is none.
pub(super) fn directory(
    config: &mut Config,
    options: &mut ElectionOptions,
    process: u128,
) -> Result<Option<Memory>, ServerError> {
    let (Data::Directory(data), Some(_)) = (&config.data, config.journal) else {
        config.data = Data::Ephemeral;
        return Ok(None);
    };
    let ElectionOptions { cluster, author, .. } = &*options;
    let place = data.join("cluster").join(cluster.to_string()).join(&author.name);
    let store = DirectoryStore::open_beside(&place, Patience::Some)?;
    let failed = |source| ServerError::Store { doing: "loaded", source };
    let memory = Memory::new(store, place_of(&place).unwrap_or_default());
    // One that cannot be read is that of another version: then this process is another run.
    options.kept = memory.load(RunId(Mark { process, attempt: 0 })).map_err(failed)?;
    config.data = Data::Directory(place);
    Ok(Some(memory))
}

/// Opens the port for standbys, if there is to be one and there is a journal for them; clients and standbys find this one
/// at the same host.
pub(super) fn peers(options: &mut ElectionOptions) -> Result<Option<TcpListener>, ServerError> {
    let Some(listen) = options.peers else { return Ok(None) };
    let failed = |source| ServerError::ListenForStandbys { listen, source };
    let listener = listener::listen(listener::bind(listen).map_err(failed)?).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let Author { address, peer, .. } = &mut options.author;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    *peer = format!("{host}:{port}");
    Ok(Some(listener))
}

/// The clock of a leader: that of its table goes on, however the clock of this machine stands (rule J4).
pub(super) fn clock_of(before: &Before) -> Box<dyn Clock> {
    match before {
        Before::Crashed(table) => Box::new(Onward { moment: table.now(), began: BootClock.now() }),
        Before::Saved(_) | Before::Nothing => Box::new(BootClock),
    }
}

/// A clock that goes on from a moment.
struct Onward {
    /// That moment.
    moment: Timestamp,
    /// What the clock of the machine showed then.
    began: Timestamp,
}

impl Clock for Onward {
    fn now(&self) -> Timestamp {
        self.moment.after(BootClock.now().since(self.began))
    }
}

/// Tells a directory from a copy of it, and one start of the machine from another; none where the system does not
/// tell.
fn place_of(directory: &Path) -> Option<String> {
    let boot = Place::here().boot?;
    let inode = fs::metadata(directory).ok()?.ino();
    Some(format!("{boot:032x}-{inode}"))
}
