//! The conversations of the corpus: what clients say, in an order in which it is understood.

use bytes::BytesMut;

use crate::server::testing::{hello, release, request, try_request, waiting_request};
use crate::testing::fuzz::assert_in_corpus;
use crate::types::{
    FencingToken, Generation, OwnerId, RequestId, Seal, SealedTicket, Secret, SessionId,
};
use crate::wire::{
    self, Attach, ClientMessage, Extra, Held, Mode, Query, RawClaim, Wait, encode_frame,
};

/// A request of these modes, each of a lock of its own.
fn several(id: u64, claims: &[(&str, Mode)]) -> ClientMessage {
    let mut message = waiting_request(id, "", Wait::millis(3_000));
    if let ClientMessage::Request(wire::Request { claims: all, progress, lock_delay_ms, .. }) =
        &mut message
    {
        let claim = |&(name, mode): &(&str, Mode)| RawClaim { name: name.into(), mode };
        *all = claims.iter().map(claim).collect();
        (*progress, *lock_delay_ms) = (true, 1_000);
    }
    message
}

/// A request of an owner, that converts another.
fn of(owner: u64, converts: Option<u64>, mut message: ClientMessage) -> ClientMessage {
    if let ClientMessage::Request(wire::Request { owner: who, converts: which, .. }) = &mut message
    {
        (*who, *which) = (OwnerId(owner), converts.map(RequestId));
    }
    message
}

/// One that keeps its place.
fn with_ticket(mut message: ClientMessage) -> ClientMessage {
    if let ClientMessage::Request(wire::Request { ticket, .. }) = &mut message {
        *ticket = Some(SealedTicket::from_halves(1, 1));
    }
    message
}

/// One whose lock is kept for a minute from its grant on.
fn kept(message: ClientMessage) -> ClientMessage {
    let extras = vec![Extra::AtLeast { ms: 60_000 }];
    match message {
        ClientMessage::Request(request) => {
            ClientMessage::RequestWith { request: Box::new(request), extras }
        }
        other => other,
    }
}

fn resume() -> ClientMessage {
    hello(Attach::Resume {
        session: SessionId(1),
        secret: Secret::new(1),
        generation: Generation(2),
    })
}

fn inspect(query: Query) -> ClientMessage {
    ClientMessage::Inspect { query_id: 7, query }
}

fn keep_alive(sequence: u64) -> ClientMessage {
    ClientMessage::KeepAlive { sequence }
}

/// Tokens and tickets are said as 1: what is known of them is filled in.
#[expect(clippy::too_many_lines, reason = "a list")]
fn conversations() -> Vec<(&'static str, Vec<ClientMessage>)> {
    let exclusive = |id, name| several(id, &[(name, Mode::Exclusive)]);
    let shared = |id, name| several(id, &[(name, Mode::Shared)]);
    let permits = |take, of| Mode::Permits { take, of };
    let revoke =
        ClientMessage::Revoke { query_id: 9, name: "printer".into(), token: FencingToken(1) };
    let account = ClientMessage::Account(wire::Account {
        from: RequestId(1),
        to: RequestId(9),
        held: vec![Held { request: RequestId(1), token: FencingToken(1) }],
        waiting: vec![RequestId(2)],
    });
    let ask_away = (1..=40).map(|id| request(id, if id % 2 == 0 { "printer" } else { "scanner" }));
    vec![
        (
            "request, release",
            vec![hello(Attach::New), request(1, "printer"), release(1, 1), ClientMessage::Goodbye],
        ),
        ("many requests, cancelled", {
            let cancels =
                (1..=40).map(|request| ClientMessage::Cancel { request: RequestId::new(request) });
            [hello(Attach::New)].into_iter().chain(ask_away.clone()).chain(cancels).collect()
        }),
        ("many requests, released", {
            let releases = (1..=40).map(|request| release(request, 1));
            [hello(Attach::New)].into_iter().chain(ask_away).chain(releases).collect()
        }),
        (
            "try, wait, give up",
            vec![
                hello(Attach::New),
                try_request(1, "printer"),
                try_request(2, "printer"),
                waiting_request(3, "printer", Wait::millis(50)),
                keep_alive(1),
                release(1, 1),
                ClientMessage::Cancel { request: RequestId(3) },
            ],
        ),
        (
            "modes",
            vec![
                hello(Attach::New),
                shared(1, "printer"),
                shared(2, "printer"),
                exclusive(3, "printer"),
                several(4, &[("gpu", permits(2, 3))]),
                several(5, &[("gpu", permits(2, 3))]),
                several(6, &[("gpu", permits(1, 4))]),
                release(1, 1),
                release(2, 1),
                release(4, 1),
            ],
        ),
        (
            "several locks",
            vec![
                hello(Attach::New),
                several(1, &[("printer", Mode::Exclusive), ("gpu", permits(1, 3))]),
                several(2, &[("scanner", Mode::Shared), ("printer", Mode::Shared)]),
                several(3, &[("scanner", Mode::Exclusive)]),
                release(1, 1),
                ClientMessage::Cancel { request: RequestId(3) },
                release(2, 1),
            ],
        ),
        (
            "conversions",
            vec![
                hello(Attach::New),
                of(1, None, shared(1, "printer")),
                of(2, None, shared(2, "printer")),
                of(1, Some(1), exclusive(3, "printer")),
                of(2, Some(2), exclusive(4, "printer")),
                release(2, 1),
                of(1, Some(3), shared(5, "printer")),
                release(5, 1),
            ],
        ),
        (
            "a deadlock",
            vec![
                hello(Attach::New),
                of(1, None, request(1, "printer")),
                of(2, None, request(2, "scanner")),
                of(1, None, request(3, "scanner")),
                of(2, None, request(4, "printer")),
                of(1, None, request(5, "printer")),
                release(2, 1),
                release(1, 1),
            ],
        ),
        (
            "looking on",
            vec![
                hello(Attach::Observer),
                inspect(Query::Server),
                inspect(Query::Locks { cursor: 0 }),
                inspect(Query::Sessions { cursor: 0 }),
                inspect(Query::Lock { name: "printer".into() }),
                inspect(Query::Outlook { name: "printer".into() }),
                inspect(Query::Outlooks { cursor: 0 }),
                inspect(Query::Contended { cursor: 0 }),
                inspect(Query::Waited),
                inspect(Query::Rights { name: "printer".into() }),
                ClientMessage::Watch { query_id: 8, name: "printer".into() },
                ClientMessage::Unwatch { name: "printer".into() },
                ClientMessage::Watch { query_id: 9, name: "printer".into() },
                ClientMessage::Subscribe { query_id: 8, name: None },
                revoke.clone(),
                keep_alive(1),
            ],
        ),
        (
            "holding and looking on",
            vec![
                hello(Attach::New),
                ClientMessage::Subscribe { query_id: 8, name: None },
                ClientMessage::Watch { query_id: 8, name: "printer".into() },
                request(1, "printer"),
                revoke,
                request(2, "printer"),
                keep_alive(1),
                ClientMessage::Unwatch { name: "printer".into() },
                release(2, 1),
            ],
        ),
        (
            "coming back",
            vec![resume(), request(1, "printer"), request(2, "printer"), account, release(1, 1)],
        ),
        (
            "coming back after a crash",
            vec![
                resume(),
                ClientMessage::Reclaim(wire::Reclaim {
                    note: "deploy v2.3".into(),
                    ..wire::Reclaim::new(
                        RequestId(1),
                        FencingToken(1),
                        Seal::new(1),
                        [RawClaim { name: "printer".into(), mode: Mode::Exclusive }],
                    )
                }),
                with_ticket(request(2, "printer")),
                keep_alive(1),
            ],
        ),
        (
            "keeping a lock",
            vec![
                hello(Attach::New),
                kept(request(1, "nightly")),
                release(1, 1),
                try_request(2, "nightly"),
                inspect(Query::Outlook { name: "nightly".into() }),
                ClientMessage::Revoke {
                    query_id: 8,
                    name: "nightly".into(),
                    token: FencingToken(1),
                },
                request(3, "nightly"),
                keep_alive(1),
            ],
        ),
        ("staying alive", {
            [hello(Attach::New)].into_iter().chain((0..100).map(keep_alive)).collect()
        }),
    ]
}

#[test]
fn the_corpus_has_every_conversation() {
    for (name, messages) in conversations() {
        let mut frames = BytesMut::new();
        for message in &messages {
            encode_frame(message, &mut frames).unwrap();
        }
        assert_in_corpus("conversations", name, &frames);
    }
    let strangers: [(&str, &[u8]); 2] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: locks\r\n\r\n"),
        ("TLS", &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]),
    ];
    for (name, bytes) in strangers {
        assert_in_corpus("conversations", name, bytes);
    }
}
