//! What a standby is given first: a checkpoint of the table, as it is when that one begins to follow.
//!
//! A small table is written down at once. A large one would keep everybody waiting, so a thread makes its checkpoint
//! of the journal, up to the record that came last. What comes behind is sent behind it. One thread does so at a time,
//! however often standbys come and go (rule B2): it has the turn until it is done, whether or not somebody still waits.

use std::time::Duration;

use actix::{Addr, Handler, Message, MessageResult};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::sleep;

use crate::cluster::RunId;
use crate::journal::{Epochs, Stretch};
use crate::server::coordinator::Coordinator;
use crate::server::durable::chronicle::Medium;
use crate::server::durable::replay::{checkpoint, checkpoint_of};
use crate::server::replica::Following;

/// A checkpoint that is longer is not sent.
const CHECKPOINT_BYTES_MAX: usize = 1 << 30;
/// Sessions and requests of a table that is written down in some ten milliseconds.
const SMALL_TABLE_MAX: usize = 8 * 1024;
/// How often it is looked whether the journal is written up to a record.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A journal of which parts are gone before they are read is looked at so many times.
const LOOKS_MAX: usize = 3;

/// A standby wants to follow from now on.
pub(super) struct Follow {
    pub(super) run: RunId,
}

/// How it begins.
pub(super) struct Beginning {
    pub(super) following: Following,
    pub(super) first: First,
    pub(super) epochs: Epochs,
}

/// What it is given first.
pub(super) enum First {
    /// This.
    Checkpoint(Bytes),
    /// What the journal says before this record.
    Journal { until: u64 },
}

impl Message for Follow {
    type Result = Option<Beginning>;
}

impl Handler<Follow> for Coordinator {
    type Result = MessageResult<Follow>;

    fn handle(&mut self, Follow { run }: Follow, _: &mut Self::Context) -> Self::Result {
        let (desk, gate) = self.parts();
        let chronicle = gate.chronicle().filter(|it| it.holds_the_door() && !it.is_stuck());
        let of = chronicle.map(|it| (it.epochs(), it.next()));
        let begin = || {
            let ((epochs, until), table, feed) = (of?, desk.table()?, gate.threshold.feed()?);
            // It may have caught up over its connection of before, and has to keep what it has then.
            if feed.counts_on(run) {
                return None;
            }
            // What was appended is in the table already.
            feed.seal();
            let counts = table.counts();
            let first = if counts.sessions + counts.held + counts.waiting <= SMALL_TABLE_MAX {
                let mut bytes = Vec::new();
                checkpoint(table, &mut bytes).ok()?;
                First::Checkpoint(Bytes::from(bytes))
            } else {
                First::Journal { until }
            };
            Some(Beginning { following: feed.begin(run), first, epochs })
        };
        MessageResult(begin())
    }
}

/// Asks for the journal, once it is written up to a record.
struct Look {
    until: u64,
}

impl Message for Look {
    type Result = Option<(Stretch, Medium)>;
}

impl Handler<Look> for Coordinator {
    type Result = MessageResult<Look>;

    fn handle(&mut self, Look { until }: Look, _: &mut Self::Context) -> Self::Result {
        let (_, gate) = self.parts();
        // Whoever waits for nobody has nothing written down: so that is asked for.
        gate.write_soon();
        let mut look = || {
            let chronicle = gate.chronicle()?;
            let stretch = chronicle.stretch().filter(|it| it.next() >= until)?;
            Some((stretch, chronicle.medium()))
        };
        MessageResult(look())
    }
}

/// What the journal says before a record, as a checkpoint, and the turn of who is given it; or why there is none.
pub(super) async fn made_of_journal(
    coordinator: &Addr<Coordinator>,
    until: u64,
    mut turn: OwnedSemaphorePermit,
) -> Result<(Bytes, OwnedSemaphorePermit), String> {
    let mut why = "nobody leads any more".to_owned();
    for _ in 0..LOOKS_MAX {
        let (stretch, medium) = loop {
            match coordinator.send(Look { until }).await {
                Ok(Some(found)) => break found,
                Ok(None) => sleep(LOOK_EVERY).await,
                Err(_) => return Err(why),
            }
        };
        let disk = medium.clone();
        let made = in_turn(&medium, turn, move || checkpoint_of(&disk, &stretch, until)).await;
        let Some((made, back)) = made else {
            return Err("the thread that reads the journal has ended".to_owned());
        };
        turn = back;
        match made {
            Ok(bytes) if bytes.len() <= CHECKPOINT_BYTES_MAX => return Ok((bytes.into(), turn)),
            Ok(bytes) => return Err(format!("its checkpoint has {} bytes", bytes.len())),
            // Another checkpoint was made meanwhile, and what it makes up for is gone.
            Err(void) => why = void,
        }
    }
    Err(why)
}

/// Does something on a thread, which has the turn as long as it works; what came of it, and the turn.
async fn in_turn<T: Send + 'static>(
    medium: &Medium,
    turn: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<(T, OwnedSemaphorePermit)> {
    medium.aside(move || (work(), turn)).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::server::durable::chronicle::Ground;

    #[tokio::test]
    async fn b2_a_checkpoint_that_nobody_waits_for_any_more_keeps_its_turn_until_its_thread_is_done()
     {
        let data = tempfile::tempdir().unwrap();
        let medium = Ground::of(data.path()).unwrap().medium;
        let turns = Arc::new(Semaphore::new(1));
        let ((begins, begun), (ends, end)) = (mpsc::channel(), mpsc::channel::<()>());
        let turn = Arc::clone(&turns).acquire_owned().await.unwrap();
        let work = move || {
            begins.send(()).unwrap();
            end.recv().unwrap();
        };
        let mut making = Box::pin(in_turn(&medium, turn, work));
        tokio::select! {
            biased;
            _ = &mut making => panic!("it is done before it may be"),
            () = std::future::ready(()) => {}
        }
        begun.recv().unwrap();
        // The standby is gone, and comes again.
        drop(making);
        assert!(turns.try_acquire().is_err(), "another thread would work beside it");
        ends.send(()).unwrap();
        drop(turns.acquire().await.unwrap());
    }
}
