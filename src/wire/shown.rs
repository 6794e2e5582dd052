//! A lock, rendered once for all who watch it.
//!
//! Their messages differ only in the number of each one's query. That has a fixed place in the
//! frame, so the frame can be shared, and the number set in each copy.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::format::{FormatError, encode_frame};
use super::{LockStatus, ServerMessage};

/// Where a frame with a `LockStatus` has its `query_id`: behind its length and the message's number.
const QUERY_ID: Range<usize> = 8..16;

/// The frame of a [`ServerMessage::LockStatus`], for any query.
#[derive(Clone, Debug)]
pub(crate) struct ShownLock(Bytes);

impl ShownLock {
    /// Of these locks, with no further page.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if they do not fit into a frame.
    pub(crate) fn new(locks: Vec<LockStatus>) -> Result<Self, FormatError> {
        let mut frame = BytesMut::new();
        encode_frame(&ServerMessage::LockStatus { query_id: 0, locks, next: None }, &mut frame)?;
        Ok(Self(frame.freeze()))
    }

    /// Bytes that each copy takes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is the same rendering, and not one that looks the same.
    #[cfg(test)]
    pub(crate) fn is_shared_with(&self, other: &Self) -> bool {
        self.0.as_ptr() == other.0.as_ptr()
    }

    /// Appends the frame that answers `query_id`.
    pub(crate) fn append(&self, query_id: u64, buffer: &mut BytesMut) {
        let start = buffer.len();
        buffer.extend_from_slice(&self.0);
        let number = start + QUERY_ID.start..start + QUERY_ID.end;
        buffer[number].copy_from_slice(&query_id.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::messages::lock;
    use super::*;

    #[test]
    fn each_copy_is_the_frame_of_its_own_query() {
        let shown = ShownLock::new(vec![lock()]).unwrap();
        for query_id in [0, 7, u64::MAX] {
            let (mut copy, mut own) =
                (BytesMut::from(&b"before"[..]), BytesMut::from(&b"before"[..]));
            let message = ServerMessage::LockStatus { query_id, locks: vec![lock()], next: None };
            shown.append(query_id, &mut copy);
            encode_frame(&message, &mut own).unwrap();
            assert_eq!(copy, own);
            assert_eq!(shown.len(), own.len() - b"before".len());
        }
    }
}
