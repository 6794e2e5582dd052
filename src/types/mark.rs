//! Marks: by which a hold that nobody attends is known again.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// Longest mark, in bytes.
pub const MARK_LEN_MAX: usize = 1024;

/// Bytes by which a hold is known that no connection keeps: whoever shows them is its holder.
/// Chosen by a client, of any form.
#[derive(Clone, PartialEq, Eq)]
pub struct Mark(Box<[u8]>);

impl Mark {
    /// Takes bytes as a mark; none if they are too many.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= MARK_LEN_MAX).then(|| Self(bytes.into()))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Mark {
    /// Not the bytes: they prove something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({} bytes)", self.0.len())
    }
}

impl Serialize for Mark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Self::new(&bytes).ok_or_else(|| D::Error::custom("a mark is too long"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_as_long_as_allowed_and_not_one_byte_longer() {
        assert!(Mark::new(&[7; MARK_LEN_MAX]).is_some());
        assert!(Mark::new(&[7; MARK_LEN_MAX + 1]).is_none());
    }

    #[test]
    fn a_mark_is_never_shown() {
        assert_eq!(format!("{:?}", Mark::new(b"secret").unwrap()), "Mark(6 bytes)");
    }
}
