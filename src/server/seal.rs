//! What proves, to a run of the coordinator that remembers nothing, what an earlier run has said.
//!
//! A session's *secret* and a grant's *seal* (rule G4) are not drawn and remembered but computed, from
//! a key that is kept in the state and never leaves it. So every later run with that state can check
//! them, and nobody else can make one. Both are `SipHash-2-4` with 128 bits, a keyed hash that was made
//! for this (Aumasson, Bernstein, *`SipHash`: a fast short-input PRF*, 2012): a seal is on the way of
//! every grant, and this costs tens of nanoseconds.
//!
//! What is hashed says first which of the two it is, and then cannot be read in two ways: numbers
//! have a fixed length, and a lock's name stands behind its length. So no proof is one of something
//! else.
//!
//! What is never here: an allocation, a proof in a log line.

use std::fmt;
use std::hash::Hasher;

use bytes::BufMut;
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::types::{FencingToken, LOCK_NAME_LEN_MAX, LockName, Mode, RequestId, Secret, SessionId};

/// The key behind all secrets and seals: 128 random bits, kept in the state. Never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StateKey(u128);

impl StateKey {
    /// A new one.
    ///
    /// # Errors
    ///
    /// If the operating system gives no random numbers.
    pub fn draw() -> Result<Self, getrandom::Error> {
        let mut number = [0; 16];
        getrandom::fill(&mut number)?;
        Ok(Self(u128::from_le_bytes(number)))
    }

    /// Takes the number as it is.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The number itself, for the store and for nothing else.
    pub const fn reveal(self) -> u128 {
        self.0
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(…)")
    }
}

/// Proves that a grant was made.
#[derive(Clone, Copy)]
pub(super) struct Seal(u128);

impl Seal {
    /// The number itself, for the wire.
    pub(super) const fn number(self) -> u128 {
        self.0
    }

    /// Whether `shown` is it, in a time that does not depend on where they differ.
    pub(super) fn matches(self, shown: u128) -> bool {
        (self.0 ^ shown) == 0
    }
}

/// What a proof is of: the first byte of what is hashed.
const OF_SESSION: u8 = 1;
const OF_GRANT: u8 = 2;
/// The modes of a claim; the last has two numbers behind it.
const EXCLUSIVE: u8 = 0;
const SHARED: u8 = 1;
const PERMITS: u8 = 2;

/// Of the head of a grant: kind, session, token, request.
const HEAD_LEN: usize = 1 + 16 + 8 + 8;
/// Of a claim without the name: mode, its numbers, length of the name.
const CLAIM_HEAD_LEN_MAX: usize = 1 + 2 * 4 + 1;
/// The most that is hashed in one piece: few names are longer than what is left of it.
const PIECE_LEN_MAX: usize = 96;
const _: () = assert!(LOCK_NAME_LEN_MAX <= 255, "the length of a name is to fit a byte");
const _: () = assert!(HEAD_LEN + CLAIM_HEAD_LEN_MAX <= PIECE_LEN_MAX, "what is not a name fits");

/// Makes secrets and seals.
#[derive(Clone)]
pub(super) struct Sealer {
    /// Has taken in the key, and nothing else: every proof begins with a copy.
    keyed: SipHasher24,
}

impl Sealer {
    /// One that uses `key`.
    pub(super) fn new(key: StateKey) -> Self {
        Self { keyed: SipHasher24::new_with_key(&key.reveal().to_le_bytes()) }
    }

    /// What proves that a connection is its session's.
    pub(super) fn secret(&self, session: SessionId) -> Secret {
        let mut hasher = self.keyed;
        // Kind, session.
        let mut head = [OF_SESSION; 17];
        head[1..].copy_from_slice(&session.number().to_le_bytes());
        hasher.write(&head);
        Secret::new(hasher.finish128().as_u128())
    }

    /// What proves that a session's request was granted these claims with this token.
    pub(super) fn seal<'a>(
        &self,
        session: SessionId,
        token: FencingToken,
        request: RequestId,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> Seal {
        let mut hasher = self.keyed;
        // In few pieces, for it is the pieces that are dear: the head goes together with the first claim.
        let mut piece = [0; PIECE_LEN_MAX];
        let mut rest = &mut piece[..];
        rest.put_u8(OF_GRANT);
        rest.put_u128_le(session.number());
        rest.put_u64_le(token.number());
        rest.put_u64_le(request.number());
        for (name, mode) in claims {
            let name = name.as_str().as_bytes();
            match mode {
                Mode::Exclusive => rest.put_u8(EXCLUSIVE),
                Mode::Shared => rest.put_u8(SHARED),
                Mode::Permits { take, of } => {
                    rest.put_u8(PERMITS);
                    rest.put_u32_le(take);
                    rest.put_u32_le(of);
                }
            }
            rest.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
            let fits = name.len() <= rest.len();
            if fits {
                rest.put_slice(name);
            }
            let len = PIECE_LEN_MAX - rest.len();
            hasher.write(&piece[..len]);
            if !fits {
                hasher.write(name);
            }
            rest = &mut piece[..];
        }
        let len = PIECE_LEN_MAX - rest.len();
        hasher.write(&piece[..len]);
        Seal(hasher.finish128().as_u128())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const KEY: StateKey = StateKey::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);

    fn name(text: &str) -> LockName {
        LockName::new(text).unwrap()
    }

    fn seal(
        sealer: &Sealer,
        (session, token, request): (u128, u64, u64),
        claims: &[(&str, Mode)],
    ) -> u128 {
        let claims: Vec<_> = claims.iter().map(|(text, mode)| (name(text), *mode)).collect();
        let session = SessionId::new(session);
        let (token, request) = (FencingToken::new(token), RequestId::new(request));
        let claims = claims.iter().map(|(name, mode)| (name, *mode));
        sealer.seal(session, token, request, claims).number()
    }

    #[test]
    fn the_hash_is_the_published_one() {
        // From the reference implementation's vectors: the key above, and no bytes.
        let hash = Sealer::new(KEY).keyed.finish128().as_bytes();
        let published = [
            0xa3, 0x81, 0x7f, 0x04, 0xba, 0x25, 0xa8, 0xe6, 0x6d, 0xf6, 0x72, 0x14, 0xc7, 0x55,
            0x02, 0x93,
        ];
        assert_eq!(hash, published);
    }

    /// Computed once by another implementation, from what the comments on the bytes say.
    #[test]
    fn proofs_stay_what_they_are_over_versions() {
        let sealer = Sealer::new(KEY);
        assert_eq!(
            sealer.secret(SessionId::new(7)).reveal(),
            83_187_099_990_332_455_585_173_673_835_736_481_066
        );
        let of_grant = seal(&sealer, (7, 8, 9), &[("printer", Mode::Exclusive)]);
        assert_eq!(of_grant, 284_308_861_202_036_148_324_639_727_297_677_050_654);
        let claims = [("printer", Mode::Exclusive), ("gpu", Mode::Permits { take: 1, of: 4 })];
        let of_both = seal(&sealer, (7, 8, 9), &claims);
        assert_eq!(of_both, 123_427_726_628_881_215_465_525_598_726_573_075_325);
        // Names that just fit the piece with the head, that just do not, and that never do.
        let longer = [
            (61, 69_992_588_419_810_816_405_297_022_386_067_575_387),
            (62, 220_569_257_273_668_594_540_943_103_193_990_820_954),
        ];
        for (len, number) in longer {
            assert_eq!(seal(&sealer, (7, 8, 9), &[(&"n".repeat(len), Mode::Exclusive)]), number);
        }
        let longest = "n".repeat(LOCK_NAME_LEN_MAX);
        let claims = [("printer", Mode::Exclusive), (&*longest, Mode::Exclusive)];
        let of_longest = seal(&sealer, (7, 8, 9), &claims);
        assert_eq!(of_longest, 89_932_486_868_474_349_425_980_306_793_414_031_477);
    }

    #[test]
    fn every_field_changes_the_seal() {
        let sealer = Sealer::new(KEY);
        let permits = |take, of| Mode::Permits { take, of };
        let seals = [
            seal(&sealer, (7, 8, 9), &[("ab", Mode::Exclusive)]),
            seal(&Sealer::new(StateKey::new(1)), (7, 8, 9), &[("ab", Mode::Exclusive)]),
            seal(&sealer, (6, 8, 9), &[("ab", Mode::Exclusive)]),
            seal(&sealer, (7, 7, 9), &[("ab", Mode::Exclusive)]),
            seal(&sealer, (7, 8, 8), &[("ab", Mode::Exclusive)]),
            seal(&sealer, (7, 8, 9), &[("ac", Mode::Exclusive)]),
            seal(&sealer, (7, 8, 9), &[("ab", Mode::Shared)]),
            seal(&sealer, (7, 8, 9), &[("ab", permits(1, 2))]),
            seal(&sealer, (7, 8, 9), &[("ab", permits(2, 2))]),
            seal(&sealer, (7, 8, 9), &[("ab", permits(1, 3))]),
            seal(&sealer, (7, 8, 9), &[("a", Mode::Exclusive), ("b", Mode::Exclusive)]),
            seal(&sealer, (7, 8, 9), &[("b", Mode::Exclusive), ("a", Mode::Exclusive)]),
            seal(&sealer, (7, 8, 9), &[]),
        ];
        assert_eq!(BTreeSet::from(seals).len(), seals.len());
    }

    #[test]
    fn names_as_long_as_they_may_be_are_sealed_whole() {
        let sealer = Sealer::new(KEY);
        let (long, other) =
            ("n".repeat(LOCK_NAME_LEN_MAX), "n".repeat(LOCK_NAME_LEN_MAX - 1) + "m");
        let seals = [&long, &other].map(|last| {
            let permits = Mode::Permits { take: u32::MAX, of: u32::MAX };
            seal(&sealer, (u128::MAX, u64::MAX, u64::MAX), &[(&long, permits), (last, permits)])
        });
        assert_ne!(seals[0], seals[1]);
    }

    #[test]
    fn only_the_seal_itself_matches() {
        let seal = Seal(5 << 100);
        assert!(seal.matches(5 << 100));
        assert!(!seal.matches(4 << 100));
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{KEY:?}"), "StateKey(…)");
    }
}
