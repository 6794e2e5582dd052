//! Bytes that mean harm: they end in an error, and no memory is taken on their word.

use std::fmt::Debug;
use std::iter;
use std::marker::PhantomData;

use allocation_counter::measure;
use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Serialize;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, DeserializeSeed, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::super::message::*;
use super::super::{FRAME_LEN_MAX, FormatError, decode, encode_frame};
use super::messages;
use crate::types::list::{Bounded, PREALLOCATED_MAX};
use crate::types::{
    Claim, FencingToken, Identity, LockName, OwnerId, RejectionCode, RequestId, Seal, SessionId,
};

/// Most bytes that decoding a client's frame may take. The lists of an account are not cut, and grow
/// by doubling; an element has as many bytes in memory as in a frame.
const CLIENT_BYTES_MAX: usize = 4 * FRAME_LEN_MAX;
/// Most bytes that decoding a server's frame may take. Its lists are not cut, and grow by doubling;
/// the smallest lock has 40 bytes in a frame and some 90 in memory.
const SERVER_BYTES_MAX: usize = 8 * FRAME_LEN_MAX;
/// What describing an error may take, on top.
const ERROR_BYTES_MAX: usize = 1024;

/// The bytes of anything, without a length field.
fn bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let mut frame = BytesMut::new();
    encode_frame(value, &mut frame).unwrap();
    frame[4..].to_vec()
}

/// Decodes `payload`, and says how many bytes of memory that took at its worst.
fn measured<M: DeserializeOwned>(payload: &[u8]) -> (Result<M, FormatError>, usize) {
    let mut decoded = None;
    let taken = measure(|| decoded = Some(decode(payload)));
    (decoded.unwrap(), usize::try_from(taken.bytes_max).unwrap())
}

/// Lengths that are not true of any frame.
const LENGTHS: [u64; 9] = [
    FRAME_LEN_MAX as u64,
    FRAME_LEN_MAX as u64 + 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 62,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];

/// In `message` replaces the length of `field`, a text or a list in it, by each hostile length.
fn lie_about<M, T>(message: &M, field: &T)
where
    M: Serialize + DeserializeOwned + Debug,
    T: Serialize + Debug,
{
    let (mut payload, field_bytes) = (bytes(message), bytes(field));
    if field_bytes.len() == 8 {
        return; // Empty: it cannot be told from other zeros, and is not empty in another message.
    }
    let at = payload.windows(field_bytes.len()).position(|bytes| bytes == field_bytes).unwrap();
    for length in LENGTHS {
        payload[at..at + 8].copy_from_slice(&length.to_le_bytes());
        let (decoded, taken) = measured::<M>(&payload);
        assert!(
            matches!(decoded, Err(FormatError::Malformed(_))),
            "{message:?} with length {length} of {field:?}: {decoded:?}"
        );
        // What came before the lie is small; the lists are reserved for, the text is not.
        let reserved = PREALLOCATED_MAX * size_of::<LockStatus>().max(size_of::<Holder>());
        assert!(taken <= reserved + ERROR_BYTES_MAX, "{taken} bytes for {length} of {field:?}");
    }
}

#[test]
fn a_length_that_is_a_lie_is_refused_in_every_field_of_a_client() {
    for (_, message) in messages::client() {
        match &message {
            ClientMessage::Hello(Hello { identity: text, .. })
            | ClientMessage::Inspect { query: Query::Lock { name: text }, .. }
            | ClientMessage::Revoke { name: text, .. }
            | ClientMessage::Watch { name: text, .. }
            | ClientMessage::Unwatch { name: text } => lie_about(&message, text),
            ClientMessage::Subscribe { name, .. } => {
                if let Some(text) = name {
                    lie_about(&message, text);
                }
            }
            ClientMessage::Request(Request { note, claims, .. })
            | ClientMessage::Reclaim(Reclaim { note, claims, .. }) => {
                lie_about(&message, note);
                lie_about(&message, claims);
                for claim in claims {
                    lie_about(&message, &claim.name);
                }
            }
            ClientMessage::RequestWith { request, extras } => {
                lie_about(&message, &request.note);
                lie_about(&message, &request.claims);
                lie_about(&message, extras);
            }
            ClientMessage::ReclaimWith { reclaim, extras } => {
                lie_about(&message, &reclaim.note);
                lie_about(&message, &reclaim.claims);
                lie_about(&message, extras);
            }
            ClientMessage::Authenticate { credential } => lie_about(&message, credential),
            ClientMessage::RevokeFor { name, reason, .. } => {
                lie_about(&message, name);
                lie_about(&message, reason);
            }
            ClientMessage::Account(Account { held, waiting, .. }) => {
                lie_about(&message, held);
                lie_about(&message, waiting);
            }
            ClientMessage::Release { .. }
            | ClientMessage::Cancel { .. }
            | ClientMessage::KeepAlive { .. }
            | ClientMessage::Goodbye
            | ClientMessage::Inspect { .. } => {}
        }
    }
}

#[test]
fn a_length_that_is_a_lie_is_refused_in_every_field_of_a_server() {
    for (_, message) in messages::server() {
        match &message {
            ServerMessage::Welcome { server: text, .. }
            | ServerMessage::Goodbye { message: text, .. } => lie_about(&message, text),
            ServerMessage::ServerStatus { status, .. } => lie_about(&message, &status.version),
            ServerMessage::Rejected { message: text, lock, cycle, .. } => {
                lie_about(&message, text);
                lie_about(&message, cycle);
                for link in &cycle.links {
                    lie_about(&message, &link.identity);
                    lie_about(&message, &link.lock);
                }
                if let Some(lock) = lock {
                    lie_about_lock(&message, lock);
                }
            }
            ServerMessage::LockStatus { locks, .. } => {
                lie_about(&message, locks);
                for lock in locks {
                    lie_about_lock(&message, lock);
                }
            }
            ServerMessage::Outlook { locks, .. } => {
                lie_about(&message, locks);
                for outlook in locks {
                    lie_about(&message, &outlook.name);
                    lie_about(&message, &outlook.pauses);
                    outlook.pauses.iter().for_each(|pause| lie_about(&message, &pause.identity));
                }
            }
            ServerMessage::JournalStatus { status, .. } => lie_about_start(&message, &status.start),
            ServerMessage::ClusterStatus { status: Some(status), .. } => {
                lie_about(&message, &status.cluster);
                lie_about(&message, &status.leader);
                lie_about(&message, &status.standby);
            }
            ServerMessage::WaitedStatus { status, .. } => {
                lie_about(&message, &status.bounds_us);
                lie_about(&message, &status.counts);
            }
            ServerMessage::Rights { verbs, .. } => {
                lie_about(&message, verbs);
                for verb in verbs {
                    lie_about(&message, verb);
                }
            }
            ServerMessage::SessionStatus { sessions, .. } => {
                lie_about(&message, sessions);
                for session in sessions {
                    lie_about(&message, &session.identity);
                    lie_about(&message, &session.peer);
                }
            }
            ServerMessage::Event { identity, claims, what, .. } => {
                lie_about(&message, identity);
                lie_about(&message, claims);
                for claim in claims {
                    lie_about(&message, &claim.name);
                }
                if let Happening::Rejected { message: text, .. } = what {
                    lie_about(&message, text);
                }
            }
            ServerMessage::ClusterStatus { status: None, .. }
            | ServerMessage::Grant { .. }
            | ServerMessage::Queued { .. }
            | ServerMessage::Subscribed { .. }
            | ServerMessage::Missed { .. }
            | ServerMessage::Released { .. }
            | ServerMessage::Cancelled { .. }
            | ServerMessage::Lost { .. }
            | ServerMessage::KeptAlive { .. }
            | ServerMessage::Revoked { .. } => {}
        }
    }
}

fn lie_about_lock(message: &ServerMessage, lock: &LockStatus) {
    lie_about(message, &lock.name);
    lie_about(message, &lock.holders);
    lie_about(message, &lock.waiters);
    for holder in &lock.holders {
        lie_about(message, &holder.identity);
        lie_about(message, &holder.peer);
        lie_about(message, &holder.note);
    }
    for waiter in &lock.waiters {
        lie_about(message, &waiter.identity);
        lie_about(message, &waiter.peer);
        lie_about(message, &waiter.note);
    }
}

/// A list that says it has no end, and has nothing.
struct Boast;

impl<'de> SeqAccess<'de> for Boast {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        _: T,
    ) -> Result<Option<T::Value>, Error> {
        Ok(None)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(usize::MAX)
    }
}

#[test]
fn what_is_no_list_is_said_to_be_none() {
    let list = Bounded::<[u64; 0]> { kept_max: usize::MAX, list: PhantomData };
    let error = list.visit_u64::<Error>(7).unwrap_err();
    assert_eq!(error.to_string(), "invalid type: integer `7`, expected a list");
}

#[test]
fn no_list_is_reserved_for_on_its_word() {
    fn reserved<T: DeserializeOwned>() -> usize {
        let list = Bounded::<[T; 0]> { kept_max: usize::MAX, list: PhantomData };
        list.visit_seq(Boast).unwrap().capacity()
    }
    assert_eq!(reserved::<RawClaim>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Held>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Extra>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<u64>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<LockStatus>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Holder>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Waiter>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<SessionStatus>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Outlook>(), PREALLOCATED_MAX);
    assert_eq!(reserved::<Pause>(), PREALLOCATED_MAX);
}

fn lie_about_start(message: &ServerMessage, start: &JournalStart) {
    if let JournalStart::Lost { why, .. } = start {
        lie_about(message, why);
    }
}

/// So many claims with empty names.
fn claims(count: usize) -> SmallVec<[RawClaim; 1]> {
    iter::repeat_n(messages::claim("", Mode::Shared), count).collect()
}

/// A request of so many claims.
fn request(count: usize) -> ClientMessage {
    ClientMessage::Request(Request {
        wait: Wait::Never,
        ..Request::new(RequestId(1), claims(count))
    })
}

/// A reclaim of so many claims.
fn reclaim(count: usize) -> ClientMessage {
    ClientMessage::Reclaim(Reclaim::new(RequestId(1), FencingToken(1), Seal::new(1), claims(count)))
}

#[test]
fn claims_beyond_the_limit_are_counted_but_not_kept() {
    for of in [request, reclaim] {
        let room = FRAME_LEN_MAX - bytes(&of(0)).len();
        let fit = room / bytes(&messages::claim("", Mode::Shared)).len();
        for sent in [CLAIMS_KEPT_MAX - 1, CLAIMS_KEPT_MAX, CLAIMS_KEPT_MAX + 1, fit] {
            let (decoded, taken) = measured(&bytes(&of(sent)));
            let (ClientMessage::Request(Request { claims, .. })
            | ClientMessage::Reclaim(Reclaim { claims, .. })) = decoded.unwrap()
            else {
                unreachable!()
            };
            assert_eq!(claims.len(), sent.min(CLAIMS_KEPT_MAX));
            let allowed = CLAIMS_KEPT_MAX * size_of::<RawClaim>();
            assert!(taken <= allowed, "{taken} bytes for {sent} claims");
        }
    }
}

#[test]
fn claims_of_an_event_are_bounded_as_those_of_a_request() {
    let event = |count| ServerMessage::Event {
        at_ms: 1,
        session: SessionId(1),
        identity: Identity::default(),
        request: RequestId(1),
        claims: iter::repeat_n(messages::known_claim("a", Mode::Shared), count).collect(),
        what: Happening::Requested,
    };
    let (decoded, taken) = measured::<ServerMessage>(&bytes(&event(CLAIMS_KEPT_MAX * 20)));
    assert_eq!(decoded.unwrap(), event(CLAIMS_KEPT_MAX));
    assert!(taken <= CLAIMS_KEPT_MAX * size_of::<Claim>(), "{taken} bytes");
}

#[test]
fn a_list_as_long_as_a_frame_takes_a_bounded_multiple_of_it() {
    let of = |held, waiting| {
        ClientMessage::Account(Account {
            from: RequestId(0),
            to: RequestId::new(u64::MAX),
            held,
            waiting,
        })
    };
    let room = FRAME_LEN_MAX - bytes(&of(vec![], vec![])).len();
    let held = vec![Held { request: RequestId(1), token: FencingToken(1) }; room / 16];
    let ClientMessage::Request(request) = request(1) else { unreachable!() };
    for message in [of(held, vec![]), of(vec![], vec![RequestId(1); room / 8])] {
        let (decoded, taken) = measured::<ClientMessage>(&bytes(&message));
        assert_eq!(decoded.unwrap(), message);
        assert!(taken <= CLIENT_BYTES_MAX, "{taken} bytes");
    }
    let with = |extra, count| {
        let (request, extras) = (Box::new(request.clone()), vec![extra; count]);
        ClientMessage::RequestWith { request, extras }
    };
    for (extra, len) in [(Extra::AtLeast { ms: 1 }, 12), (Extra::Supersede, 4)] {
        let fit = (FRAME_LEN_MAX - 200) / len;
        for sent in [EXTRAS_KEPT_MAX - 1, EXTRAS_KEPT_MAX, EXTRAS_KEPT_MAX + 1, fit] {
            let (decoded, taken) = measured::<ClientMessage>(&bytes(&with(extra, sent)));
            assert_eq!(decoded.unwrap(), with(extra, sent.min(EXTRAS_KEPT_MAX)));
            assert!(taken <= CLIENT_BYTES_MAX, "{taken} bytes");
        }
    }
}

#[test]
fn a_frame_full_of_the_smallest_elements_takes_a_bounded_multiple_of_itself() {
    let mut lock = messages::lock();
    (lock.name, lock.holders, lock.waiters) = ("a".parse().unwrap(), vec![], vec![]);
    let fit = (FRAME_LEN_MAX - 64) / bytes(&lock).len();
    let locks = ServerMessage::LockStatus { query_id: 1, locks: vec![lock; fit], next: None };
    let (decoded, taken) = measured::<ServerMessage>(&bytes(&locks));
    assert_eq!(decoded.unwrap(), locks);
    assert!(taken <= SERVER_BYTES_MAX, "{taken} bytes");

    let link = CycleLink {
        session: SessionId(1),
        identity: Identity::default(),
        owner: OwnerId(0),
        request: RequestId(1),
        lock: LockName::new("a").unwrap(),
        held_with: None,
    };
    let links = vec![link.clone(); (FRAME_LEN_MAX - 64) / bytes(&link).len()];
    let cycle = Cycle { links, is_cut: false };
    let (request, code, message, lock) = (1, 29, String::new(), None);
    let deadlock = ServerMessage::Rejected {
        request: RequestId::new(request),
        code: RejectionCode::from_number(code),
        message,
        lock,
        cycle,
    };
    let (decoded, taken) = measured::<ServerMessage>(&bytes(&deadlock));
    assert_eq!(decoded.unwrap(), deadlock);
    assert!(taken <= SERVER_BYTES_MAX, "{taken} bytes");
}

#[test]
fn an_unknown_variant_is_refused_in_every_enum() {
    fn check<M: DeserializeOwned + Debug>(known: u32) {
        for index in [known, known + 1, u32::MAX] {
            let mut payload = index.to_le_bytes().to_vec();
            payload.extend([0; 64]);
            let error = decode::<M>(&payload).unwrap_err().to_string();
            assert!(error.contains("variant index"), "{error}");
        }
    }
    check::<ClientMessage>(messages::CLIENT_MESSAGES);
    check::<Extra>(2);
    check::<ServerMessage>(messages::SERVER_MESSAGES);
    check::<Attach>(3);
    check::<Wait>(3);
    check::<Mode>(3);
    check::<Query>(11);
    check::<After>(2);
    check::<Standing>(3);
    check::<Happening>(7);
    check::<JournalDistance>(3);
    check::<JournalStart>(4);
}

#[test]
fn a_bool_and_an_option_are_0_or_1_and_nothing_else() {
    for byte in 2..=u8::MAX {
        assert!(decode::<bool>(&[byte]).is_err());
        assert!(decode::<Option<u8>>(&[byte, 0]).is_err());
    }
}

#[test]
fn text_that_is_not_utf_8_is_refused() {
    let mut payload =
        bytes(&ClientMessage::Revoke { query_id: 1, name: "a".into(), token: FencingToken(1) });
    let at = payload.iter().position(|byte| *byte == b'a').unwrap();
    payload[at] = 0xff;
    assert!(matches!(decode::<ClientMessage>(&payload), Err(FormatError::Malformed(_))));
}

#[test]
fn a_lock_that_cannot_be_is_no_news_of_a_servers() {
    let event = |name: &str, mode| {
        // As the event of its claims, with what no server says: the bytes are those of a client's.
        let mut said = bytes(&1_u64);
        said.extend(bytes(&messages::claim(name, mode)));
        said
    };
    let of = |claims: Vec<Claim>| ServerMessage::Event {
        at_ms: 1,
        session: SessionId(1),
        identity: Identity::default(),
        request: RequestId(1),
        claims,
        what: Happening::Requested,
    };
    let known = of(vec![messages::known_claim("printer", Mode::Exclusive)]);
    let place = bytes(&of(vec![])).len() - bytes(&0_u64).len() - bytes(&0_u32).len();
    let with = |claims: Vec<u8>| {
        let mut payload = bytes(&of(vec![]));
        payload.splice(place..place + bytes(&0_u64).len(), claims);
        decode::<ServerMessage>(&payload).map_err(|error| error.to_string())
    };
    assert_eq!(with(event("printer", Mode::Exclusive)), Ok(known));
    for (name, mode, why) in [
        ("", Mode::Shared, "invalid lock name: it is empty"),
        ("a\x1b[2J", Mode::Shared, "invalid lock name: it contains a control character at byte 1"),
        (
            "a",
            Mode::Permits { take: 3, of: 2 },
            "cannot take 3 of 2 permits, only 1 to all of them",
        ),
    ] {
        assert_eq!(with(event(name, mode)), Err(format!("malformed message: {why}")), "{name:?}");
    }
}

#[test]
fn a_text_that_cannot_be_is_no_news_of_a_servers() {
    let locks = vec![messages::lock()];
    let known = bytes(&ServerMessage::LockStatus { query_id: 1, locks, next: None });
    for (text, noun) in
        [("printer", "lock name"), ("ann@build7", "identity"), ("deploy v2.3", "note")]
    {
        let mut payload = known.clone();
        let at = known.windows(text.len()).position(|bytes| bytes == text.as_bytes()).unwrap();
        payload[at + 2] = b'\n';
        let error = decode::<ServerMessage>(&payload).unwrap_err().to_string();
        let why = "it contains a control character at byte 2";
        assert_eq!(error, format!("malformed message: invalid {noun}: {why}"));
    }
}

#[test]
fn nothing_is_no_message() {
    assert!(decode::<ClientMessage>(&[]).is_err());
    assert!(decode::<ServerMessage>(&[]).is_err());
}

#[test]
fn an_error_says_what_was_wrong_in_a_line() {
    let error = decode::<ClientMessage>(&[99, 0, 0, 0]).unwrap_err().to_string();
    assert_eq!(
        error,
        "malformed message: invalid value: integer `99`, expected variant index 0 <= i < 17"
    );
}

/// Bytes that look like a message for a while: a variant that exists, then much that may be the
/// upper bytes of a small number.
fn nearly_a_message() -> impl Strategy<Value = Vec<u8>> {
    let often_zero = |byte: u8| match byte {
        0..160 => 0,
        160..220 => byte % 4,
        220.. => byte,
    };
    (0..17u32, vec(any::<u8>(), 0..300)).prop_map(move |(variant, rest)| {
        let mut payload = variant.to_le_bytes().to_vec();
        payload.extend(rest.into_iter().map(often_zero));
        payload
    })
}

fn takes_no_more_than_the_frame_allows(payload: &[u8]) -> Result<(), TestCaseError> {
    let (_, taken) = measured::<ClientMessage>(payload);
    prop_assert!(taken <= CLIENT_BYTES_MAX + ERROR_BYTES_MAX, "{} bytes", taken);
    let (_, taken) = measured::<ServerMessage>(payload);
    prop_assert!(taken <= SERVER_BYTES_MAX + ERROR_BYTES_MAX, "{} bytes", taken);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn arbitrary_bytes_do_no_harm(payload in vec(any::<u8>(), 0..600)) {
        takes_no_more_than_the_frame_allows(&payload)?;
    }

    #[test]
    fn bytes_that_begin_like_a_message_do_no_harm(payload in nearly_a_message()) {
        takes_no_more_than_the_frame_allows(&payload)?;
    }

    #[test]
    fn a_message_with_eight_bytes_changed_anywhere_does_no_harm(
        which: usize, at: usize, bytes_there: [u8; 8],
    ) {
        let (client, server) = (messages::client(), messages::server());
        for mut payload in [
            bytes(&client[which % client.len()].1),
            bytes(&server[which % server.len()].1),
        ] {
            let at = at % payload.len();
            for (old, new) in payload[at..].iter_mut().zip(bytes_there) {
                *old = new;
            }
            takes_no_more_than_the_frame_allows(&payload)?;
        }
    }
}
