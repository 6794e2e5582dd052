//! Fencing: the check at the resource. Without it, no lock protects from a holder that does not
//! know it is late.

use std::sync::atomic::{AtomicU64, Ordering};

use super::FencingToken;

/// Remembers the greatest fencing token that a resource has seen, and refuses lesser ones.
///
/// For a resource that lives in one process. It must be asked together with the write, under the
/// resource's own lock or in its own transaction. A database does the same in one statement
/// (`UPDATE … SET token = $1 WHERE token <= $1`). See `docs/guarantees.md`.
///
/// # Examples
///
/// ```
/// use coordinator::FenceGuard;
/// use coordinator::types::FencingToken;
///
/// let fence = FenceGuard::new();
/// assert!(fence.check(FencingToken::new(7)).is_ok());
/// assert!(fence.check(FencingToken::new(9)).is_ok());
/// assert!(fence.check(FencingToken::new(9)).is_ok()); // a holder may write more than once
/// assert!(fence.check(FencingToken::new(7)).is_err()); // a holder that lost its lock may not
/// ```
#[derive(Debug, Default)]
pub struct FenceGuard {
    /// The greatest token seen. Only grows.
    greatest: AtomicU64,
}

/// A write came from a holder that has lost its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "fencing token {token} is stale: {greatest} was already seen, so the lock was lost \
    meanwhile"
)]
pub struct StaleToken {
    /// The token of the write.
    pub token: FencingToken,
    /// The greatest token seen before.
    pub greatest: FencingToken,
}

impl FenceGuard {
    /// Has seen no token yet.
    pub const fn new() -> Self {
        Self { greatest: AtomicU64::new(0) }
    }

    /// Lets a write with this token pass, and from now on none with a lesser one.
    ///
    /// # Errors
    ///
    /// [`StaleToken`] if a greater token was seen before.
    pub fn check(&self, token: FencingToken) -> Result<(), StaleToken> {
        let greatest = self.greatest.fetch_max(token.number(), Ordering::SeqCst);
        if greatest > token.number() {
            return Err(StaleToken { token, greatest: FencingToken::new(greatest) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lesser_token_is_refused_and_changes_nothing() {
        let fence = FenceGuard::new();
        let (early, late) = (FencingToken::new(3), FencingToken::new(5));
        assert_eq!(fence.check(late), Ok(()));
        let refused = StaleToken { token: early, greatest: late };
        assert_eq!(fence.check(early), Err(refused));
        assert_eq!(fence.check(early), Err(refused));
        assert_eq!(fence.check(late), Ok(()));
    }
}
