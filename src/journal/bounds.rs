//! Bounds of the records that a journal has since its checkpoint.

/// How much a journal may weigh, beside the state that it makes up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Records are followed by a new checkpoint when they are longer than this, and so many
    /// checkpoints.
    pub floor_bytes: u64,
    /// How many checkpoints that is.
    pub checkpoints: u64,
}

/// A new checkpoint costs as much as to write down the state once: twice its length of records
/// pays.
impl Default for Bounds {
    fn default() -> Self {
        Self { floor_bytes: 4 * 1024 * 1024, checkpoints: 2 }
    }
}

/// How many times that much there may be when no checkpoint comes: then the journal is given up.
pub const OVERDUE_TIMES: u64 = 4;
/// Most segments since a checkpoint: each start makes one.
pub const CHAIN_SEGMENTS_MAX: usize = 64;
/// With so many of them a checkpoint is due, however short they are.
pub(super) const CHAIN_SEGMENTS_DUE: usize = 16;

impl Bounds {
    /// How many bytes of records there may be until there is to be another checkpoint.
    pub(super) fn due_bytes(self, checkpoint_bytes: u64) -> u64 {
        self.checkpoints.saturating_mul(checkpoint_bytes).saturating_add(self.floor_bytes)
    }
}
