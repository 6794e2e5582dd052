//! Proofs (MACs): statements of an earlier run, which a run that remembers nothing can check.
//!
//! A session's *secret*, a grant's *seal* (rule G4) and a place's *ticket* are computed, not drawn
//! and remembered. Their key is in the state and never leaves it. Every later run with that state
//! can check them, and nobody else can make one. All are `SipHash` with 128 bits, cut to the room
//! that there is. It is a keyed hash for short inputs (Aumasson, Bernstein, *`SipHash`: a fast
//! short-input PRF*, 2012).
//!
//! A secret, which is made once for a session, is `SipHash-2-4`. A seal is on the way of every grant.
//! Seals and tickets are `SipHash-1-3`, at half the price, with a key of their own. Whoever would forge
//! one can try it only by a message to this server, in a grace period, from a session of its own. For
//! either number of rounds no way to do so is known that is better than guessing (Dobraunig, Mendel,
//! Schläffer, *Differential Cryptanalysis of `SipHash`*, 2014, has the nearest).
//!
//! The hashed bytes begin with the kind of the proof (domain separation), and cannot be read in two
//! ways. Numbers have a fixed length, and a lock's name stands behind its length. So no proof is
//! one of something else.
//!
//! Each proof names the run that made it, in clear and in what is hashed. Whether that run's proofs
//! still count, the engine decides.
//!
//! | proof | 128 bits, from the upper end |
//! |---|---|
//! | secret, seal | run: 32, hash: 96 |
//! | ticket | run: 28, how many epochs before it the place was taken: 20, hash: 16; arrival: 40, hash: 24 |
//!
//! A ticket's hash is short, but it guards only a place in a queue, in a grace period, for one
//! request of one session. A guess takes some 10^12 messages. Two years, or 10^12 who wait in one
//! run, have no room in it; such a place is not kept over a crash.
//!
//! Never here: an allocation, a proof in a log line.

use std::hash::Hasher;

use bytes::BufMut;
use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};

use crate::access::PrincipalName;
use crate::engine::Place;
use crate::server::durable::StateKey;
use crate::types::{
    Epoch, FencingToken, LOCK_NAME_LEN_MAX, LockName, Mode, RequestId, Seal, SealedTicket, Secret,
    SessionId, Ticket,
};

/// What a proof is of: the first byte of what is hashed.
const OF_SESSION: u8 = 1;
const OF_GRANT: u8 = 2;
const OF_PLACE: u8 = 3;
const OF_BOUND_SESSION: u8 = 4;
/// The key of seals and tickets is made in the same way.
const OF_KEY: u8 = 5;
/// How much of a secret and of a seal is hash.
const HASH_BITS: u32 = 96;
/// What a ticket is made of.
const TICKET_RUN_BITS: u32 = 28;
const TICKET_AGE_BITS: u32 = 20;
const TICKET_ARRIVAL_BITS: u32 = 40;
/// How much of each half of a ticket is hash.
const UPPER_HASH_BITS: u32 = u64::BITS - TICKET_RUN_BITS - TICKET_AGE_BITS;
const LOWER_HASH_BITS: u32 = u64::BITS - TICKET_ARRIVAL_BITS;
/// The modes of a claim; the last has two numbers behind it.
const EXCLUSIVE: u8 = 0;
const SHARED: u8 = 1;
const PERMITS: u8 = 2;

/// Of the head of a grant: kind, session, token, request, run.
const GRANT_HEAD_LEN: usize = 1 + 16 + 8 + 8 + 4;
/// Of the head of a place: kind, session, request, run, epoch and arrival.
const PLACE_HEAD_LEN: usize = 1 + 16 + 8 + 8 + 8 + 8;
/// Of a claim without the name: mode, its numbers, length of the name.
const CLAIM_HEAD_LEN_MAX: usize = 1 + 2 * 4 + 1;
/// The most that is hashed in one piece: few names are longer than what is left of it.
const PIECE_LEN_MAX: usize = 96;
const _: () = assert!(LOCK_NAME_LEN_MAX <= 255, "the length of a name is to fit a byte");
const _: () = assert!(GRANT_HEAD_LEN + CLAIM_HEAD_LEN_MAX <= PIECE_LEN_MAX);
const _: () = assert!(PLACE_HEAD_LEN + CLAIM_HEAD_LEN_MAX <= PIECE_LEN_MAX);

/// A grant, as far as a seal is about it.
#[derive(Clone, Copy)]
pub(in crate::server) struct Sealed {
    /// Its session.
    pub(in crate::server) session: SessionId,
    /// Its token.
    pub(in crate::server) token: FencingToken,
    /// The request that was granted.
    pub(in crate::server) request: RequestId,
}

/// Makes secrets, seals and tickets, and knows those that it has made.
#[derive(Clone)]
pub(in crate::server) struct Sealer {
    /// Has taken in the key, and nothing else: every secret begins with a copy.
    keyed: SipHasher24,
    /// The same for seals and tickets, with a key made of that one.
    of_claims: SipHasher13,
}

impl Sealer {
    /// One that uses `key`.
    pub(in crate::server) fn new(key: StateKey) -> Self {
        let keyed = SipHasher24::new_with_key(&key.reveal().to_le_bytes());
        let mut hasher = keyed;
        hasher.write_u8(OF_KEY);
        let key = hasher.finish128().as_u128();
        Self { keyed, of_claims: SipHasher13::new_with_key(&key.to_le_bytes()) }
    }

    /// What proves that a connection is its session's; of a principal's session, to that principal only.
    pub(in crate::server) fn secret(
        &self,
        session: SessionId,
        run: Epoch,
        bound_to: Option<&PrincipalName>,
    ) -> Secret {
        let run = short(run);
        let mut hasher = self.keyed;
        // Kind, session, run; the name behind them ends it.
        let kind = if bound_to.is_some() { OF_BOUND_SESSION } else { OF_SESSION };
        let mut head = [kind; 21];
        head[1..17].copy_from_slice(&session.number().to_le_bytes());
        head[17..].copy_from_slice(&run.to_le_bytes());
        hasher.write(&head);
        if let Some(name) = bound_to {
            hasher.write(name.as_str().as_bytes());
        }
        Secret::new(with_run(run, hasher.finish128().as_u128()))
    }

    /// The run that made this secret for the session; none if none did.
    pub(in crate::server) fn run_of_secret(
        &self,
        shown: Secret,
        session: SessionId,
        bound_to: Option<&PrincipalName>,
    ) -> Option<Epoch> {
        let run = run_in(shown.reveal());
        (self.secret(session, run, bound_to) == shown).then_some(run)
    }

    /// What proves that a session's request was granted these claims with this token.
    pub(in crate::server) fn seal<'a>(
        &self,
        Sealed { session, token, request }: Sealed,
        run: Epoch,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> Seal {
        let run = short(run);
        let head = |mut head: &mut [u8]| {
            head.put_u8(OF_GRANT);
            head.put_u128_le(session.number());
            head.put_u64_le(token.number());
            head.put_u64_le(request.number());
            head.put_u32_le(run);
            GRANT_HEAD_LEN
        };
        Seal::new(with_run(run, self.hash(head, claims)))
    }

    /// The run that sealed the grant so; none if none did.
    pub(in crate::server) fn run_of_seal<'a>(
        &self,
        shown: Seal,
        grant: Sealed,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> Option<Epoch> {
        let run = run_in(shown.reveal());
        (self.seal(grant, run, claims) == shown).then_some(run)
    }

    /// What proves that a session's request for these claims waits at this place. Nothing does for a
    /// place that has no room in a ticket.
    pub(in crate::server) fn ticket<'a>(
        &self,
        session: SessionId,
        request: RequestId,
        Place { ticket, told_in }: Place,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> SealedTicket {
        let Ticket { epoch, arrival } = ticket;
        let Some(age) = told_in.number().checked_sub(epoch) else { return NO_TICKET };
        if told_in.number() >> TICKET_RUN_BITS != 0
            || age >> TICKET_AGE_BITS != 0
            || arrival >> TICKET_ARRIVAL_BITS != 0
        {
            return NO_TICKET;
        }
        let head = |mut head: &mut [u8]| {
            head.put_u8(OF_PLACE);
            head.put_u128_le(session.number());
            head.put_u64_le(request.number());
            head.put_u64_le(told_in.number());
            head.put_u64_le(epoch);
            head.put_u64_le(arrival);
            PLACE_HEAD_LEN
        };
        let hash = self.hash(head, claims);
        let upper = told_in.number() << TICKET_AGE_BITS | age;
        SealedTicket::from_halves(
            upper << UPPER_HASH_BITS | bits(hash >> u64::BITS, UPPER_HASH_BITS),
            arrival << LOWER_HASH_BITS | bits(hash, LOWER_HASH_BITS),
        )
    }

    /// The place that was told with this ticket to a session's request for these claims; none if none
    /// was.
    pub(in crate::server) fn place_of<'a>(
        &self,
        shown: SealedTicket,
        session: SessionId,
        request: RequestId,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> Option<Place> {
        let (upper, lower) = shown.halves();
        let upper = upper >> UPPER_HASH_BITS;
        let (run, age) = (upper >> TICKET_AGE_BITS, bits(upper.into(), TICKET_AGE_BITS));
        let arrival = lower >> LOWER_HASH_BITS;
        let ticket = Ticket { epoch: run.checked_sub(age)?, arrival };
        let place = Place { ticket, told_in: Epoch::new(run) };
        let made = self.ticket(session, request, place, claims);
        (made == shown && made != NO_TICKET).then_some(place)
    }

    /// Hashes a head, which says how long it is, and claims.
    fn hash<'a>(
        &self,
        head: impl FnOnce(&mut [u8]) -> usize,
        claims: impl Iterator<Item = (&'a LockName, Mode)>,
    ) -> u128 {
        let mut hasher = self.of_claims;
        // In few pieces, for it is the pieces that are dear: the head goes together with the first claim.
        let mut piece = [0; PIECE_LEN_MAX];
        let head_len = head(&mut piece);
        let mut rest = &mut piece[head_len..];
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
        if len > 0 {
            hasher.write(&piece[..len]);
        }
        hasher.finish128().as_u128()
    }
}

/// Says that a place has no room in a ticket.
const NO_TICKET: SealedTicket = SealedTicket::from_halves(0, 0);

/// A run, as proofs name it. Epochs are minutes, so that is enough for 8,000 years; the proofs of later
/// ones do not count.
fn short(run: Epoch) -> u32 {
    u32::try_from(run.number()).unwrap_or(u32::MAX)
}

const fn mask(bits: u32) -> u128 {
    (1 << bits) - 1
}

fn with_run(run: u32, hash: u128) -> u128 {
    u128::from(run) << HASH_BITS | hash & mask(HASH_BITS)
}

fn run_in(proof: u128) -> Epoch {
    Epoch::new(u64::try_from(proof >> HASH_BITS).unwrap_or(u64::MAX))
}

/// The lowest bits of a number.
fn bits(number: u128, count: u32) -> u64 {
    u64::try_from(number & mask(count)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
