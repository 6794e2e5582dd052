//! A guest: who a connection has proven to be, where there is an access file.

use super::usage::Seat;
use crate::access::{Badge, Principal};

/// Who a connection is.
#[derive(Debug)]
pub(super) struct Guest {
    /// Its badge.
    pub(super) badge: Badge,
    /// Its place among the connections of its principal.
    pub(super) seat: Seat,
}

impl Guest {
    /// Who it has proven to be.
    pub(super) fn principal(&self) -> &Principal {
        self.badge.principal()
    }
}
