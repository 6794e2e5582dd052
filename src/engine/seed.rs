//! What the engine's maps are scattered by: a value from outside, as every other input is.

use std::hash::BuildHasher;

use foldhash::fast::{FoldHasher, SeedableRandomState};

/// Scatters the names in the maps of a table. The rules do not depend on it.
///
/// Where clients choose the names it must be one that they cannot know, so that they cannot choose names that
/// meet at one place: `Seed::from(SeedableRandomState::random())`. The default is the same in every process.
#[derive(Clone, Debug)]
pub struct Seed(SeedableRandomState);

impl Default for Seed {
    fn default() -> Self {
        Self(SeedableRandomState::fixed())
    }
}

impl From<SeedableRandomState> for Seed {
    fn from(state: SeedableRandomState) -> Self {
        Self(state)
    }
}

impl BuildHasher for Seed {
    type Hasher = FoldHasher<'static>;

    #[inline]
    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}
