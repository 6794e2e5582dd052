//! The copy of a leader's table that a standby has, with a journal behind it.
//!
//! What it has acknowledged is in its journal first. So it may take over with the table, and a process after it
//! with the journal.

use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use log::warn;

use super::frame::{FrameError, records};
use crate::engine::LockTable;
use crate::journal::{Distance, Epochs, Machine, Made, NotMade, Task};
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
    /// Tells of the checkpoint that a thread makes of that, if one does.
    making: Option<mpsc::Receiver<Result<Made, NotMade>>>,
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
        Ok(Self { position: it.position, replay, chronicle, making: None })
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
            Flushed::Written(Some(task)) => self.make_checkpoint(task)?,
            // Records come faster than checkpoints.
            Flushed::Behind => self.begin_anew()?,
            Flushed::Writing(_) | Flushed::Later | Flushed::Off | Flushed::Stuck => {
                return Err(CopyError::Journal);
            }
        }
        self.position = position;
        if let Some(made) = self.making.as_ref().and_then(|making| making.try_recv().ok()) {
            self.making = None;
            if self.chronicle.checkpointed(made).is_some() {
                return Err(CopyError::Journal);
            }
        }
        Ok(())
    }

    /// The journal is long. A checkpoint is made beside it, for the leader waits for what is acknowledged.
    fn make_checkpoint(&mut self, task: Box<Task>) -> Result<(), CopyError> {
        let counts = self.replay.table().counts();
        if self.chronicle.takes_over(counts.sessions + counts.held + counts.waiting) {
            return self.begin_anew();
        }
        let (make, (told, making)) = (self.chronicle.checkpoint_maker(), mpsc::channel());
        let making_it = move || {
            // Whoever has led since has begun a journal of its own.
            let _ = told.send(make(&task));
        };
        let thread = thread::Builder::new().name("checkpoint".to_owned()).spawn(making_it);
        if thread.is_err() {
            return self.begin_anew();
        }
        self.making = Some(making);
        Ok(())
    }

    /// What the table is says the same as the journal, and is shorter.
    fn begin_anew(&mut self) -> Result<(), CopyError> {
        self.making = None;
        self.chronicle.makes_none();
        let is_begun = self.chronicle.begin(self.replay.table());
        is_begun.then_some(()).ok_or(CopyError::Journal)
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
    pub(in crate::server) fn into_parts(mut self) -> (LockTable, Chronicle) {
        // Nobody waits here for the thread that makes one.
        if self.making.is_some() && self.begin_anew().is_err() {
            warn!("cluster: the journal of the copy could not be begun anew");
        }
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

    /// The bytes of an empty table.
    fn empty() -> Vec<u8> {
        let (limits, start) = (Limits::default(), Start::default());
        let table = LockTable::new(limits, start, Seed::default(), Timestamp::default());
        let mut bytes = Vec::new();
        checkpoint(&table, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn p7_a_long_journal_of_a_copy_gets_its_checkpoint_beside_what_is_acknowledged() {
        let data = tempfile::tempdir().unwrap();
        let epochs = Epochs { ordered: 7, confirmed: 7 };
        let (directory, distance) = (data.path(), Distance::Machine);
        let key = StateKey::new(5);
        let origin = Origin { directory, distance, key, epochs, position: 1 };
        let mut copy = Copy::begin(&origin, &mut &empty()[..]).unwrap();
        let mut records = BytesMut::new();
        for session in 0..1_000 {
            let mut record = Record::default();
            record.write(&opens(session), Timestamp::from_micros(3));
            record.parts().for_each(|part| put_record(part, &mut records));
        }
        let mut position = 1;
        // Sessions that are there already are refused, so the table stays small, and the journal does not.
        while copy.making.is_none() {
            position += 1;
            copy.append(&records).unwrap();
            copy.flush(position).unwrap();
            assert!(position < 1_000, "a checkpoint is never due");
        }
        let made = std::time::Instant::now();
        while copy.making.is_some() {
            assert!(made.elapsed() < Duration::from_secs(30), "nobody hears that it is made");
            position += 1;
            copy.flush(position).unwrap();
            thread::yield_now();
        }
        let expected = copy.digest();
        drop(copy);
        let ground = Ground::of(data.path()).unwrap();
        let ground = Ground { state: key.fingerprint(), ..ground };
        let mut after = Chronicle::on(ground, distance, Epoch::new(7), Epoch::new(8));
        assert_eq!(digest(&after.find().expect("the journal is whole")), expected);
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
