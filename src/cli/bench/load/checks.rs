//! Checks of the server's promises under load: one holder at a time, rising tokens.
//!
//! A client holds a lock from when the grant is read until the release is about to be written
//! (rule R8). All clients are in this process, so it knows of every two that hold at once.

use std::sync::atomic::{AtomicU64, Ordering};

use coordinator::types::Mode;

/// What a server did that it must not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// More were inside than the mode lets in.
    #[error("{lock:?} has {units} units taken where {capacity} are allowed: too many holders")]
    TooManyHolders {
        /// The lock.
        lock: String,
        /// How much of the lock was taken, by all together.
        units: u64,
        /// How much there is.
        capacity: u64,
    },
    /// A later grant had a token that was not greater.
    #[error("{lock:?} was granted with token {token} after token {before}: tokens must rise")]
    TokenNotRising {
        /// The lock.
        lock: String,
        /// The token.
        token: u64,
        /// The one before.
        before: u64,
    },
    /// An answer that nobody asked for, or another than was asked for.
    #[error("connection {connection} received an answer that matches no request: {answer}")]
    WrongAnswer {
        /// The connection.
        connection: usize,
        /// What was heard.
        answer: String,
    },
    /// A lock was taken away from a client that was alive.
    #[error("connection {connection} lost its grant with token {token}, though it was alive")]
    Lost {
        /// The connection.
        connection: usize,
        /// The token.
        token: u64,
    },
}

/// What is known of all locks of a measurement.
#[derive(Debug)]
pub(crate) struct Checks {
    /// By number.
    locks: Box<[Lock]>,
    /// How much a holder takes.
    take: u64,
    /// How much there is of each lock.
    capacity: u64,
    /// How many grants were looked at.
    grants: AtomicU64,
}

/// What is known of one lock.
#[derive(Debug, Default)]
struct Lock {
    /// How much of it is taken, by all who believe to hold it.
    taken: AtomicU64,
    /// The token of the latest grant.
    last_token: AtomicU64,
}

impl Checks {
    /// Checks for so many locks held in this mode.
    pub(crate) fn new(locks: usize, mode: Mode) -> Self {
        let (take, capacity) = match mode {
            Mode::Exclusive => (1, 1),
            Mode::Shared => (1, u64::MAX),
            Mode::Permits { take, of } => (u64::from(take), u64::from(of)),
        };
        let locks = (0..locks).map(|_| Lock::default()).collect();
        Self { locks, take, capacity, grants: AtomicU64::new(0) }
    }

    /// Somebody has read a grant. `name` is called if something is wrong with it.
    ///
    /// An exclusive holder also reads its grant after everybody before has read theirs. Others may
    /// read theirs out of turn, so their tokens are compared by each connection only.
    pub(crate) fn enter(
        &self,
        lock: usize,
        token: Option<u64>,
        name: impl Fn() -> String,
    ) -> Result<(), Violation> {
        self.grants.fetch_add(1, Ordering::Relaxed);
        let (take, capacity) = (self.take, self.capacity);
        let units = self.locks[lock].taken.fetch_add(take, Ordering::SeqCst).saturating_add(take);
        if units > capacity {
            return Err(Violation::TooManyHolders { lock: name(), units, capacity });
        }
        if let Some(token) = token {
            let before = self.locks[lock].last_token.swap(token, Ordering::SeqCst);
            if self.capacity == 1 && token <= before {
                return Err(Violation::TokenNotRising { lock: name(), token, before });
            }
        }
        Ok(())
    }

    /// Somebody is about to write a release.
    pub(crate) fn leave(&self, lock: usize) {
        self.locks[lock].taken.fetch_sub(self.take, Ordering::SeqCst);
    }

    /// How many grants were looked at.
    pub(crate) fn grants(&self) -> u64 {
        self.grants.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(checks: &Checks, token: u64) -> Result<(), Violation> {
        checks.enter(0, Some(token), || "printer".to_owned())
    }

    #[test]
    fn one_after_the_other_with_rising_tokens_is_well() {
        let checks = Checks::new(1, Mode::Exclusive);
        for token in [3, 4, 9] {
            assert_eq!(enter(&checks, token), Ok(()));
            checks.leave(0);
        }
        assert_eq!(checks.grants(), 3);
    }

    #[test]
    fn a_second_holder_is_found() {
        let checks = Checks::new(1, Mode::Exclusive);
        enter(&checks, 1).unwrap();
        let lock = "printer".to_owned();
        assert_eq!(
            enter(&checks, 2),
            Err(Violation::TooManyHolders { lock, units: 2, capacity: 1 })
        );
    }

    #[test]
    fn a_token_that_comes_twice_is_found() {
        let checks = Checks::new(1, Mode::Exclusive);
        enter(&checks, 7).unwrap();
        checks.leave(0);
        let lock = "printer".to_owned();
        assert_eq!(enter(&checks, 7), Err(Violation::TokenNotRising { lock, token: 7, before: 7 }));
    }

    #[test]
    fn permits_are_as_many_as_there_are() {
        let checks = Checks::new(1, Mode::Permits { take: 2, of: 5 });
        enter(&checks, 2).unwrap();
        enter(&checks, 1).unwrap();
        assert!(enter(&checks, 3).is_err());
    }

    #[test]
    fn shared_holders_are_never_too_many() {
        let checks = Checks::new(1, Mode::Shared);
        for token in (1..100).rev() {
            enter(&checks, token).unwrap();
        }
    }

    #[test]
    fn a_service_without_tokens_is_checked_for_its_holders() {
        let checks = Checks::new(2, Mode::Exclusive);
        assert_eq!(checks.enter(1, None, String::new), Ok(()));
        assert!(checks.enter(1, None, String::new).is_err());
        assert_eq!(checks.enter(0, None, String::new), Ok(()));
    }
}
