//! Any message comes back from its bytes as it was.

use std::time::Duration;

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smallvec::SmallVec;

use super::super::message::*;
use super::super::{decode, encode_frame};
use crate::types::{
    Claim, Epoch, FencingToken, Generation, GoodbyeCode, Identity, LockName, LostReason, Note,
    OwnerId, RejectionCode, RequestId, Seal, Secret, SessionId, ShownCredential,
};

/// Text of any characters, up to somewhat more than is allowed anywhere: the wire does not check.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z/]{1,12}", "\\PC{0,40}", ".{0,300}"]
}

/// A name that a lock can have: no other is told of.
fn name() -> impl Strategy<Value = LockName> {
    let valid = |name| LockName::new(name).ok();
    prop_oneof!["[a-z/]{1,12}", "\\PC{1,40}", "[ -~]{200,255}"].prop_filter_map("a name", valid)
}

/// An identity that a session can have.
fn identity() -> impl Strategy<Value = Identity> {
    prop_oneof![Just(String::new()), "[ -~]{1,128}"]
        .prop_filter_map("an identity", |text| Identity::new(text).ok())
}

/// A note that a request can have.
fn note() -> impl Strategy<Value = Note> {
    prop_oneof![Just(String::new()), "[ -~]{1,255}"]
        .prop_filter_map("a note", |text| Note::new(text).ok())
}

/// Any mode: of a client's, the wire does not check it.
fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        Just(Mode::Exclusive),
        Just(Mode::Shared),
        any::<(u32, u32)>().prop_map(|(take, of)| Mode::Permits { take, of }),
    ]
}

/// A mode that can be: no other is told of.
fn known_mode() -> impl Strategy<Value = Mode> {
    mode().prop_map(|mode| mode.checked().unwrap_or(Mode::Exclusive))
}

fn attach() -> impl Strategy<Value = Attach> {
    prop_oneof![
        Just(Attach::New),
        any::<(u128, u128, u64)>().prop_map(|(session, secret, generation)| Attach::Resume {
            session: SessionId::new(session),
            secret: Secret::new(secret),
            generation: Generation::new(generation)
        }),
        Just(Attach::Observer),
    ]
}

fn wait() -> impl Strategy<Value = Wait> {
    prop_oneof![Just(Wait::Forever), any::<u64>().prop_map(Wait::millis), Just(Wait::Never),]
}

fn query() -> impl Strategy<Value = Query> {
    prop_oneof![
        Just(Query::Server),
        any::<u64>().prop_map(|cursor| Query::Locks { cursor }),
        text().prop_map(|name| Query::Lock { name }),
        any::<u64>().prop_map(|cursor| Query::Sessions { cursor }),
        text().prop_map(|name| Query::Outlook { name }),
        any::<u64>().prop_map(|cursor| Query::Outlooks { cursor }),
        Just(Query::Journal),
        any::<u64>().prop_map(|cursor| Query::Contended { cursor }),
        Just(Query::Cluster),
        Just(Query::Waited),
        text().prop_map(|name| Query::Rights { name }),
    ]
}

fn hello() -> impl Strategy<Value = ClientMessage> {
    (any::<(u32, u32, Option<u32>, u64, u64)>(), attach(), text()).prop_map(
        |((protocol, ttl_ms, linger_ms, epoch_seen, token_seen), attach, identity)| {
            ClientMessage::Hello(Hello {
                protocol,
                attach,
                ttl_ms,
                linger_ms,
                identity,
                epoch_seen: Epoch::new(epoch_seen),
                token_seen: FencingToken::new(token_seen),
            })
        },
    )
}

fn ticket() -> impl Strategy<Value = SealedTicket> {
    any::<(u64, u64)>().prop_map(|(first, second)| SealedTicket::from_halves(first, second))
}

fn claims() -> impl Strategy<Value = SmallVec<[RawClaim; 1]>> {
    let claim = (text(), mode()).prop_map(|(name, mode)| RawClaim { name: name.into(), mode });
    vec(claim, 0..=CLAIMS_KEPT_MAX).prop_map(SmallVec::from_vec)
}

fn known_claims() -> impl Strategy<Value = Vec<Claim>> {
    let claim = (name(), known_mode()).prop_map(|(name, mode)| Claim { name, mode });
    vec(claim, 0..=CLAIMS_KEPT_MAX)
}

fn request() -> impl Strategy<Value = Request> {
    let numbers = any::<(u64, u64, Option<u64>, bool, u32)>();
    (numbers, wait(), text(), option::of(ticket()), claims()).prop_map(
        |((request, owner, converts, progress, lock_delay_ms), wait, note, ticket, claims)| {
            Request {
                request: RequestId::new(request),
                owner: OwnerId::new(owner),
                converts: converts.map(RequestId),
                wait,
                progress,
                lock_delay_ms,
                note,
                ticket,
                claims,
            }
        },
    )
}

fn reclaim() -> impl Strategy<Value = Reclaim> {
    (any::<(u64, u64, u128, u64, u32)>(), text(), claims()).prop_map(
        |((request, token, seal, owner, lock_delay_ms), note, claims)| Reclaim {
            request: RequestId::new(request),
            token: FencingToken::new(token),
            seal: Seal::new(seal),
            owner: OwnerId::new(owner),
            lock_delay_ms,
            note,
            claims,
        },
    )
}

fn extras() -> impl Strategy<Value = Vec<Extra>> {
    let extra =
        prop_oneof![any::<u64>().prop_map(|ms| Extra::AtLeast { ms }), Just(Extra::Supersede),];
    vec(extra, 0..4)
}

fn account() -> impl Strategy<Value = ClientMessage> {
    let held = any::<(u64, u64)>().prop_map(|(request, token)| Held {
        request: RequestId::new(request),
        token: FencingToken::new(token),
    });
    (any::<(u64, u64)>(), vec(held, 0..200), vec(any::<u64>(), 0..200)).prop_map(
        |((from, to), held, waiting)| {
            ClientMessage::Account(Account {
                from: RequestId::new(from),
                to: RequestId::new(to),
                held,
                waiting: waiting.into_iter().map(RequestId).collect(),
            })
        },
    )
}

/// Any message of a client.
pub(super) fn client_message() -> impl Strategy<Value = ClientMessage> {
    prop_oneof![
        hello(),
        request().prop_map(ClientMessage::Request),
        any::<(u64, u64)>().prop_map(|(request, token)| ClientMessage::Release {
            request: RequestId::new(request),
            token: FencingToken::new(token)
        }),
        any::<u64>().prop_map(|request| ClientMessage::Cancel { request: RequestId::new(request) }),
        any::<u64>().prop_map(|sequence| ClientMessage::KeepAlive { sequence }),
        Just(ClientMessage::Goodbye),
        (any::<u64>(), query())
            .prop_map(|(query_id, query)| ClientMessage::Inspect { query_id, query }),
        (any::<(u64, u64)>(), text()).prop_map(|((query_id, token), name)| {
            ClientMessage::Revoke { query_id, name, token: FencingToken::new(token) }
        }),
        reclaim().prop_map(ClientMessage::Reclaim),
        account(),
        (any::<u64>(), text()).prop_map(|(query_id, name)| ClientMessage::Watch { query_id, name }),
        (any::<u64>(), option::of(text()))
            .prop_map(|(query_id, name)| ClientMessage::Subscribe { query_id, name }),
        (request().prop_map(Box::new), extras())
            .prop_map(|(request, extras)| ClientMessage::RequestWith { request, extras }),
        (reclaim().prop_map(Box::new), extras())
            .prop_map(|(reclaim, extras)| ClientMessage::ReclaimWith { reclaim, extras }),
        text().prop_map(|name| ClientMessage::Unwatch { name }),
        (any::<u64>(), text(), any::<u64>(), text()).prop_map(|(query_id, name, token, reason)| {
            let token = FencingToken(token);
            ClientMessage::RevokeFor { query_id, name, token, reason }
        }),
        text().prop_map(|text| {
            let credential = ShownCredential::new(text);
            ClientMessage::Authenticate { credential }
        }),
    ]
}

fn holder() -> impl Strategy<Value = Holder> {
    (any::<(u128, u64, u64, u64, u64, bool)>(), known_mode(), identity(), text(), note()).prop_map(
        |((session, owner, request, token, held_ms, connected), mode, identity, peer, note)| {
            Holder {
                session: SessionId::new(session),
                identity,
                peer,
                owner: OwnerId::new(owner),
                request: RequestId::new(request),
                mode,
                token: FencingToken::new(token),
                held_ms,
                note,
                connected,
            }
        },
    )
}

fn waiter() -> impl Strategy<Value = Waiter> {
    (any::<(u128, u64, u64, u64)>(), known_mode(), identity(), text(), note()).prop_map(
        |((session, owner, request, waiting_ms), mode, identity, peer, note)| Waiter {
            session: SessionId::new(session),
            identity,
            peer,
            owner: OwnerId::new(owner),
            request: RequestId::new(request),
            mode,
            waiting_ms,
            note,
        },
    )
}

fn lock_status() -> impl Strategy<Value = LockStatus> {
    (name(), vec(holder(), 0..4), vec(waiter(), 0..4), any::<(u64, u64)>()).prop_map(
        |(name, holders, waiters, (holder_count, waiter_count))| LockStatus {
            name,
            holders,
            holder_count,
            waiters,
            waiter_count,
        },
    )
}

fn outlook() -> impl Strategy<Value = Outlook> {
    let after = prop_oneof![Just(After::Loss), Just(After::Grant)];
    let pause = (any::<(u128, u64, u64, u64, u64)>(), after, identity()).prop_map(
        |((session, token, granted_ms, length_ms, left_ms), after, identity)| Pause {
            after,
            session: SessionId::new(session),
            identity,
            token: FencingToken::new(token),
            granted_ms,
            length_ms,
            left_ms,
        },
    );
    (name(), any::<Option<u64>>(), vec(pause, 0..3)).prop_map(|(name, free_ms, pauses)| Outlook {
        name,
        free_ms,
        pauses,
    })
}

fn journal_status() -> impl Strategy<Value = JournalStatus> {
    let distance = prop_oneof![
        Just(JournalDistance::Off),
        Just(JournalDistance::Process),
        Just(JournalDistance::Machine),
    ];
    let start = prop_oneof![
        Just(JournalStart::New),
        Just(JournalStart::Saved),
        any::<(u64, u64)>()
            .prop_map(|(events, took_us)| JournalStart::Replayed { events, took_us }),
        (text(), any::<u64>()).prop_map(|(why, grace_ms)| JournalStart::Lost { why, grace_ms }),
    ];
    (distance, any::<(u64, u64)>(), start).prop_map(|(distance, (bytes, off_ms), start)| {
        JournalStatus { distance, bytes, off_ms, start }
    })
}

fn cluster_status() -> impl Strategy<Value = ClusterStatus> {
    let numbers = any::<(u64, u64, Option<u64>)>();
    (text(), text(), text(), numbers).prop_map(
        |(cluster, leader, standby, (term, led_ms, behind))| ClusterStatus {
            cluster,
            leader,
            term,
            led_ms,
            behind,
            standby,
        },
    )
}

fn session_status() -> impl Strategy<Value = SessionStatus> {
    (identity(), text(), any::<(u128, bool, u64, u32, u64, u64, u64)>()).prop_map(
        |(identity, peer, (session, connected, age_ms, ttl_ms, lease_left_ms, held, waiting))| {
            SessionStatus {
                session: SessionId::new(session),
                identity,
                peer,
                connected,
                age_ms,
                ttl_ms,
                lease_left_ms,
                held,
                waiting,
            }
        },
    )
}

fn server_status() -> impl Strategy<Value = ServerStatus> {
    (text(), any::<bool>(), any::<[u64; 16]>()).prop_map(|(version, draining, n)| ServerStatus {
        version,
        epoch: Epoch::new(n[0]),
        uptime_ms: n[1],
        draining,
        connections: n[2],
        sessions: n[3],
        locks: n[4],
        held: n[5],
        waiting: n[6],
        grants: n[7],
        expired: n[8],
        protocol_errors: n[9],
        slow_readers: n[10],
        handshake_timeouts: n[11],
        connections_refused: n[12],
        last_token: FencingToken::new(n[13]),
        grace_ms: n[14],
        unsaved_ms: n[15],
    })
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![
        Just(Standing::Opened),
        Just(Standing::Resumed),
        any::<u64>().prop_map(|ms| Standing::Reopened { grace: Duration::from_millis(ms) }),
    ]
}

fn welcome() -> impl Strategy<Value = ServerMessage> {
    (text(), any::<(u32, u64, u128, u128, u64, u32)>(), standing()).prop_map(
        |(server, (protocol, epoch, session, secret, generation, ttl_ms), standing)| {
            ServerMessage::Welcome {
                protocol,
                server,
                epoch: Epoch::new(epoch),
                session: SessionId::new(session),
                secret: Secret::new(secret),
                generation: Generation::new(generation),
                ttl_ms,
                standing,
            }
        },
    )
}

fn cycle() -> impl Strategy<Value = Cycle> {
    let link = (any::<(u128, u64, u64, u64)>(), identity(), name()).prop_map(
        |((session, owner, request, token), identity, lock)| CycleLink {
            session: SessionId::new(session),
            identity,
            owner: OwnerId::new(owner),
            request: RequestId::new(request),
            lock,
            held_with: (token > 0).then_some(FencingToken(token)),
        },
    );
    (vec(link, 0..4), any::<bool>()).prop_map(|(links, is_cut)| Cycle { links, is_cut })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        Just(Happening::Requested),
        any::<u64>().prop_map(|position| Happening::Queued { position }),
        any::<u64>().prop_map(|token| Happening::Granted { token: FencingToken::new(token) }),
        any::<u64>().prop_map(|token| Happening::Released { token: FencingToken::new(token) }),
        Just(Happening::Cancelled),
        any::<(u64, u16)>().prop_map(|(token, reason)| Happening::Lost {
            token: FencingToken::new(token),
            reason: LostReason::from_number(reason)
        }),
        (any::<u16>(), text()).prop_map(|(code, message)| Happening::Rejected {
            code: RejectionCode::from_number(code),
            message
        }),
    ]
}

/// Any message of a server.
pub(super) fn server_message() -> impl Strategy<Value = ServerMessage> {
    prop_oneof![
        welcome(),
        any::<(u64, u64, u128)>().prop_map(|(request, token, seal)| ServerMessage::Grant {
            request: RequestId::new(request),
            token: FencingToken::new(token),
            seal: Seal::new(seal)
        }),
        (any::<(u64, u64)>(), ticket()).prop_map(|((request, position), ticket)| {
            ServerMessage::Queued { request: RequestId::new(request), position, ticket }
        }),
        any::<u64>()
            .prop_map(|request| ServerMessage::Released { request: RequestId::new(request) }),
        any::<u64>()
            .prop_map(|request| ServerMessage::Cancelled { request: RequestId::new(request) }),
        any::<(u64, u64, u16)>().prop_map(|(request, token, reason)| ServerMessage::Lost {
            request: RequestId::new(request),
            token: FencingToken::new(token),
            reason: LostReason::from_number(reason)
        }),
        (any::<(u64, u16)>(), text(), option::of(lock_status()), cycle()).prop_map(
            |((request, code), message, lock, cycle)| ServerMessage::Rejected {
                request: RequestId::new(request),
                code: RejectionCode::from_number(code),
                message,
                lock: lock.map(Box::new),
                cycle
            }
        ),
        any::<u64>().prop_map(|sequence| ServerMessage::KeptAlive { sequence }),
        (any::<(u16, u16)>(), text()).prop_map(|((code, rejection), message)| {
            ServerMessage::Goodbye {
                code: GoodbyeCode::from_number(code),
                rejection: RejectionCode::from_number(rejection),
                message,
            }
        }),
        (any::<u64>(), server_status()).prop_map(|(query_id, status)| {
            ServerMessage::ServerStatus { query_id, status: Box::new(status) }
        }),
        (any::<(u64, Option<u64>)>(), vec(lock_status(), 0..4)).prop_map(
            |((query_id, next), locks)| ServerMessage::LockStatus { query_id, locks, next }
        ),
        (any::<(u64, Option<u64>)>(), vec(session_status(), 0..4)).prop_map(
            |((query_id, next), sessions)| ServerMessage::SessionStatus {
                query_id,
                sessions,
                next
            }
        ),
        any::<u64>().prop_map(|query_id| ServerMessage::Revoked { query_id }),
        any::<u64>().prop_map(|query_id| ServerMessage::Subscribed { query_id }),
        (any::<(u64, u128, u64)>(), identity(), known_claims(), happening()).prop_map(
            |((at_ms, session, request), identity, claims, what)| ServerMessage::Event {
                at_ms,
                session: SessionId::new(session),
                identity,
                request: RequestId::new(request),
                claims,
                what
            }
        ),
        any::<u64>().prop_map(|count| ServerMessage::Missed { count }),
        (any::<(u64, Option<u64>)>(), vec(outlook(), 0..3))
            .prop_map(|((query_id, next), locks)| ServerMessage::Outlook { query_id, locks, next }),
        (any::<u64>(), journal_status()).prop_map(|(query_id, status)| {
            ServerMessage::JournalStatus { query_id, status: Box::new(status) }
        }),
        (any::<u64>(), proptest::option::of(cluster_status())).prop_map(|(query_id, status)| {
            ServerMessage::ClusterStatus { query_id, status: status.map(Box::new) }
        }),
        any::<(u64, u64, Vec<u64>, Vec<u64>)>().prop_map(|(query_id, epoch, bounds_us, counts)| {
            let status = WaitedStatus { epoch: Epoch::new(epoch), bounds_us, counts };
            ServerMessage::WaitedStatus { query_id, status: Box::new(status) }
        }),
        (any::<u64>(), vec(text(), 0..3))
            .prop_map(|(query_id, verbs)| ServerMessage::Rights { query_id, verbs }),
    ]
}

/// The bytes of `message` after its length field; none if it does not fit a frame.
fn payload<M: serde::Serialize>(message: &M) -> Option<BytesMut> {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).ok()?;
    let payload = frame.split_off(4);
    assert_eq!(frame[..], u32::try_from(payload.len()).unwrap().to_le_bytes());
    Some(payload)
}

proptest! {
    #[test]
    fn a_clients_message_comes_back_as_it_was(message in client_message()) {
        let Some(payload) = payload(&message) else { return Ok(()) };
        prop_assert_eq!(decode::<ClientMessage>(&payload).unwrap(), message);
    }

    #[test]
    fn a_servers_message_comes_back_as_it_was(message in server_message()) {
        let Some(payload) = payload(&message) else { return Ok(()) };
        prop_assert_eq!(decode::<ServerMessage>(&payload).unwrap(), message);
    }

    #[test]
    fn a_message_cut_short_or_with_a_byte_more_is_none(message in client_message(), cut: usize) {
        let Some(mut payload) = payload(&message) else { return Ok(()) };
        let cut = cut % payload.len();
        prop_assert!(decode::<ClientMessage>(&payload[..cut]).is_err());
        payload.extend_from_slice(&[0]);
        prop_assert!(decode::<ClientMessage>(&payload).is_err());
    }
}
