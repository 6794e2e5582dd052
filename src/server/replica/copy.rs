//! The copy of a leader's table that a standby has, with a journal behind it.
//!
//! What it has acknowledged is in its journal first. So it may take over with the table, and a process after it
//! with the journal.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::frame::{FrameError, records};
use crate::engine::LockTable;
use crate::journal::{Distance, Epochs, Machine};
use crate::server::durable::StateKey;
use crate::server::durable::chronicle::{Chronicle, Flushed, Ground};
use crate::server::durable::replay::{Replay, digest};
use crate::server::keeping::Beginning;
use crate::types::Epoch;

/// Why a standby cannot go on with its copy.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum CopyError {
    /// What it was sent is not what a leader sends.
    #[error("what the leader sends cannot be followed: {0}")]
    Unreadable(String),
    /// Its journal does not take it.
    #[error("its journal cannot be written")]
    Journal,
    /// Its directory cannot be used.
    #[error("no journal can be begun: {0}")]
    Directory(#[from] std::io::Error),
}

impl From<FrameError> for CopyError {
    fn from(error: FrameError) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// A table that hears what its leader's has heard.
pub(in crate::server) struct Copy {
    /// The last position that is in the table.
    pub(in crate::server) position: u64,
    /// The table.
    replay: Replay,
    /// Where it is written down.
    chronicle: Chronicle,
}

/// Where a copy is, and what it is of.
pub(in crate::server) struct Origin<'a> {
    /// The directory of its journal.
    pub(in crate::server) directory: &'a Path,
    /// How far a record is before it is acknowledged.
    pub(in crate::server) distance: Distance,
    /// The state that it belongs to.
    pub(in crate::server) key: StateKey,
    /// The epochs of the leader.
    pub(in crate::server) epochs: Epochs,
    /// The position of the checkpoint.
    pub(in crate::server) position: u64,
}

impl Copy {
    /// Begins with a checkpoint. What was in the journal before is gone.
    pub(in crate::server) fn begin(
        it: &Origin<'_>,
        checkpoint: &mut dyn Read,
    ) -> Result<Self, CopyError> {
        let replay = Replay::from(Some(checkpoint)).map_err(CopyError::Unreadable)?;
        let ground = Ground::of(it.directory)?;
        let ground = Ground { state: it.key.fingerprint(), ..ground };
        let Epochs { ordered, confirmed } = it.epochs;
        let (last, next) = (Epoch::new(confirmed), Epoch::new(ordered));
        let mut chronicle = Chronicle::on(ground, it.distance, last, next);
        if !chronicle.begin(replay.table()) {
            return Err(CopyError::Journal);
        }
        Ok(Self { position: it.position, replay, chronicle })
    }

    /// Hears these records, and puts them at the end of the journal.
    pub(in crate::server) fn append(&mut self, bytes: &[u8]) -> Result<(), CopyError> {
        for record in records(bytes) {
            let record = record?;
            self.chronicle.append(record);
            self.replay.apply(0, record).map_err(CopyError::Unreadable)?;
        }
        Ok(())
    }

    /// Has all that was appended written down, up to a position. It may be acknowledged then.
    pub(in crate::server) fn flush(&mut self, position: u64) -> Result<(), CopyError> {
        let mut flushed = self.chronicle.flush();
        if let Flushed::Writing(job) = flushed {
            flushed = self.chronicle.written(Some(job.run()));
        }
        match flushed {
            Flushed::Written(None) => {}
            // It is long: what the table is says the same, and is shorter.
            Flushed::Written(Some(_)) | Flushed::Behind => {
                self.chronicle.makes_none();
                if !self.chronicle.begin(self.replay.table()) {
                    return Err(CopyError::Journal);
                }
            }
            Flushed::Writing(_) | Flushed::Later | Flushed::Off | Flushed::Stuck => {
                return Err(CopyError::Journal);
            }
        }
        self.position = position;
        Ok(())
    }

    /// It is not what the leader has: neither it nor its journal is ever gone on with.
    pub(in crate::server) fn discard(mut self) {
        self.chronicle.make_void();
    }

    /// What tells the table from another one.
    pub(in crate::server) fn digest(&self) -> [u8; 16] {
        digest(self.replay.table())
    }

    /// Its table, and its journal.
    pub(in crate::server) fn into_parts(self) -> (LockTable, Chronicle) {
        let (events, took) = (self.replay.events, Duration::ZERO);
        self.chronicle.keeping().began(Beginning::Replayed { events, took });
        (self.replay.into_table(), self.chronicle)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::super::frame::put_record;
    use super::*;
    use crate::engine::{Attach, Event, Seed, Start};
    use crate::server::durable::replay::{Record, checkpoint};
    use crate::types::{
        ConnectionId, Epoch, FencingToken, Identity, Limits, SessionId, Timestamp, Ttl,
    };

    /// What opens a session.
    fn opens(session: u128) -> Event {
        Event::Attach {
            connection: ConnectionId::new(1),
            peer: None,
            attach: Attach::Open {
                session: SessionId::new(session),
                ttl: Ttl::default(),
                linger: None,
                identity: Identity::default(),
            },
            epoch_seen: Epoch::new(0),
            token_seen: FencingToken::new(0),
        }
    }

    #[test]
    fn p2_a_copy_is_the_leaders_table_and_its_journal_has_what_was_acknowledged() {
        let data = tempfile::tempdir().unwrap();
        let mut table = LockTable::new(
            Limits::default(),
            Start::default(),
            Seed::default(),
            Timestamp::default(),
        );
        let mut bytes = Vec::new();
        checkpoint(&table, &mut bytes).unwrap();
        let epochs = Epochs { ordered: 7, confirmed: 7 };
        let (directory, distance) = (data.path(), Distance::Process);
        let key = StateKey::new(5);
        let origin = Origin { directory, distance, key, epochs, position: 1 };
        let mut copy = Copy::begin(&origin, &mut &bytes[..]).unwrap();
        assert_eq!(copy.digest(), digest(&table));
        let (event, now) = (opens(9), Timestamp::from_micros(3));
        table.handle(&event, now, &mut Vec::new());
        assert_ne!(copy.digest(), digest(&table));
        let (mut record, mut records) = (Record::default(), BytesMut::new());
        record.write(&event, now);
        record.parts().for_each(|part| put_record(part, &mut records));
        copy.append(&records).unwrap();
        copy.flush(2).unwrap();
        assert_eq!((copy.position, copy.digest()), (2, digest(&table)));
        // A process after it finds the same.
        drop(copy);
        let after = || {
            let ground = Ground::of(data.path()).unwrap();
            let ground = Ground { state: key.fingerprint(), ..ground };
            Chronicle::on(ground, distance, Epoch::new(7), Epoch::new(8))
        };
        let found = after().find().expect("the journal is whole");
        assert_eq!(digest(&found), digest(&table));
        // What was found to differ is gone on with by nobody.
        let mut copy = Copy::begin(&origin, &mut &bytes[..]).unwrap();
        copy.append(&records).unwrap();
        copy.flush(2).unwrap();
        copy.discard();
        assert!(after().find().is_none());
        let cut = records.get(..records.len() - 1).unwrap();
        let mut copy = Copy::begin(&origin, &mut &bytes[..]).unwrap();
        assert!(matches!(copy.append(cut), Err(CopyError::Unreadable(_))));
        assert!(matches!(Copy::begin(&origin, &mut &bytes[..9]), Err(CopyError::Unreadable(_))));
    }
}
