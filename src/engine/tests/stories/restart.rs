//! How a story goes on when the coordinator is started again, and its clients come back.

use super::*;
use crate::engine::image::tests::{image, read};

impl Story {
    /// A client comes back for what it was granted.
    pub(super) fn reclaim(
        &mut self,
        session: u64,
        id: u64,
        token: FencingToken,
        seal: Option<u64>,
    ) -> Result<String, Failure> {
        // What was never granted is sealed by the run before, as far as is known.
        let before = Epoch::new(self.table.epoch().number() - 1);
        let now = self.now;
        let teller = self.teller(session)?;
        let request = teller.requests.get(&id).ok_or("which request?")?;
        let known = teller.seals.get(&id).copied().unwrap_or(before);
        let sealed_in = seal.map_or(known, Epoch::new);
        let asked = request.wants().at_least;
        let Request { id, owner, lock_delay, note, claims, .. } = request.clone();
        let left = |granted: &Timestamp| asked.saturating_sub(now.since(*granted));
        let at_least = teller.granted.get(&id.number()).map_or(Duration::ZERO, left);
        let reclaim = Reclaim { id, token, sealed_in, owner, lock_delay, at_least, note, claims };
        self.say(session, Command::Reclaim(reclaim))
    }

    /// A client comes back to its place.
    pub(super) fn requeue(
        &mut self,
        session: u64,
        id: u64,
        told: Option<u64>,
    ) -> Result<String, Failure> {
        let teller = self.teller(session)?;
        let mut request = teller.requests.get(&id).ok_or("which request?")?.clone();
        request.place = teller.places.get(&id).copied();
        if let (Some(place), Some(told)) = (&mut request.place, told) {
            place.told_in = Epoch::new(told);
        }
        self.say(session, Command::Request(request))
    }

    /// The run crashes, and the next one goes on with a replay of all that was told.
    pub(super) fn replay(&mut self) -> String {
        let first_token = self.next_run();
        self.table = read(&image(&self.table));
        let (durable, plausible, limits) = (self.on_disk, plausible(), self.limits);
        let told = self.handle(&Event::Began(Run { durable, first_token, plausible, limits }));
        format!("epoch {}\n{told}", durable.epoch)
    }

    /// Somebody copies the directory.
    pub(super) fn copy(&mut self) -> String {
        self.copy = image(&self.table);
        String::new()
    }

    /// Somebody puts the copy back while nothing runs, and the next run goes on with that.
    pub(super) fn put_back(&mut self) -> String {
        self.table = read(&self.copy);
        self.replay()
    }

    /// Makes an epoch and tokens of its own durable for the next run; gives the first of them. What was
    /// on its way to the disk is lost.
    fn next_run(&mut self) -> FencingToken {
        let epoch = Epoch::new(self.on_disk.epoch.number() + 1);
        let first_token = self.on_disk.tokens_below;
        let tokens_below = FencingToken::new(first_token.number() + TOKEN_BLOCK);
        self.on_disk = Durable { epoch, tokens_below, ..self.on_disk };
        self.to_persist.clear();
        self.to_record.clear();
        first_token
    }

    /// The next run begins.
    pub(super) fn restart(&mut self, snapshot: Option<Snapshot>) -> String {
        let forfeits = self.recorded.iter().map(|(_, forfeit)| *forfeit).collect();
        let next_record = self.recorded.last().map_or(0, |(number, _)| number + 1);
        let past = Past { snapshot, forfeits, next_record };
        let first_token = self.next_run();
        let start = Start { durable: self.on_disk, first_token, plausible: plausible(), past };
        self.table = Table::new(self.limits, start, Seed::default(), self.now);
        format!("epoch {}\n", self.on_disk.epoch)
    }
}
