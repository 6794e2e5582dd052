//! Secrets: values that prove something to their bearer, and are shown to nobody (rule A1).

use std::fmt;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// 128 bits that hide themselves: `Debug` shows none of them, and comparing two takes a time that does
/// not depend on where they differ. On the wire they are the number.
macro_rules! hidden {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// Neither printed nor compared digit by digit: `Debug` hides it, and `==` takes the same time
        /// wherever two of them differ.
        #[derive(Clone, Copy, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u128);

        impl $name {
            /// Takes the number as it is.
            pub const fn new(number: u128) -> Self {
                Self(number)
            }

            /// The number itself, for the wire or the store and for nothing else.
            pub const fn reveal(self) -> u128 {
                self.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    };
}

hidden! {
    /// Proves that a connection belongs to a session: known to its client and the coordinator only
    /// (rule S1).
    Secret
}

hidden! {
    /// Proves to a later run of the coordinator that a grant was made (rule G4).
    Seal
}

hidden! {
    /// Keeps a waiting request's place over a crash of the coordinator: its [`Ticket`](super::Ticket),
    /// and the proof that it was told so (rule G2). Opaque to clients: only the coordinator can make
    /// one, and for this request only.
    SealedTicket
}

impl SealedTicket {
    /// Takes the halves of the number, the one that is first on the wire first.
    pub const fn from_halves(first: u64, second: u64) -> Self {
        Self((second as u128) << u64::BITS | first as u128)
    }

    /// The halves of the number, for the wire or the coordinator and for nothing else.
    #[expect(clippy::cast_possible_truncation, reason = "halves are wanted")]
    pub const fn halves(self) -> (u64, u64) {
        (self.0 as u64, (self.0 >> u64::BITS) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new(0xdead_beef)), "Secret(…)");
        assert_eq!(format!("{:#?}", Some(Seal::new(7))), "Some(\n    Seal(…),\n)");
    }

    #[test]
    fn a_ticket_comes_back_from_its_halves_and_shows_neither() {
        let ticket = SealedTicket::from_halves(0x1234, 0x5678);
        assert_eq!(ticket.halves(), (0x1234, 0x5678));
        assert_eq!(bincode::serialize(&ticket).unwrap()[..9], [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0x78]);
        assert_eq!(format!("{ticket:?}"), "SealedTicket(…)");
    }

    #[test]
    fn secrets_are_the_same_if_every_bit_is() {
        let secret = Secret::new(0x1234_5678_9abc_def0 << 64 | 0x0fed_cba9_8765_4321);
        assert_eq!(secret, secret);
        for bit in 0..u128::BITS {
            assert_ne!(secret, Secret::new(secret.reveal() ^ 1 << bit));
        }
    }
}
