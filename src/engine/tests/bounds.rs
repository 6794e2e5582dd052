//! Bounds that stories do not show, or would need too many lines for.

use super::stories::Story;
use super::*;

fn command(session: u64, command: Command) -> Event {
    Event::Command { connection: ConnectionId::new(session), command }
}

fn ask(id: u64, name: &str) -> Request {
    Request {
        progress: Progress::Told,
        ..Request::new(RequestId::new(id), claim(name, Mode::Exclusive).unwrap())
    }
}

fn hello(connection: u64, session: u64, ttl: Duration) -> Event {
    let attach = Attach::Open {
        session: SessionId::new(session.into()),
        ttl: Ttl::new(ttl).unwrap(),
        linger: None,
        identity: Identity::default(),
    };
    let (epoch_seen, token_seen) = (Epoch::default(), FencingToken::default());
    let connection = ConnectionId::new(connection);
    Event::Attach { connection, peer: None, attach, epoch_seen, token_seen }
}

/// Sessions 1 to `count`, each with the connection of its number.
fn with_sessions(count: u64, ttl: Duration) -> Story {
    let mut story = Story::new();
    story.disk_works = false;
    for session in 1..=count {
        step(&mut story, &hello(session, session, ttl));
    }
    story
}

/// Without a look at everything afterwards, which is too much for so many.
fn step(story: &mut Story, event: &Event) {
    story.table.step(event, story.now, &mut Vec::new());
}

#[test]
fn a_client_may_say_256_things_before_it_is_welcome_and_not_one_more() {
    let mut story = with_sessions(2, Duration::from_secs(3_600));
    for session in [1, 2] {
        for sequence in 0..256 {
            let told = story.handle(&command(session, Command::KeepAlive { sequence }));
            assert_eq!(told, "");
        }
    }
    let told = story.handle(&command(2, Command::KeepAlive { sequence: 256 }));
    assert_eq!(told, "2 ended: Disconnected held=0 waiting=0\n");
    let told = story.handle(&Event::Persisted(Durable {
        ttl_max: Some(Ttl::new(Duration::from_secs(3_600)).unwrap()),
        ..story.on_disk
    }));
    assert_eq!(told.matches("kept alive").count(), 256);
    assert_eq!(story.table.counts().sessions, 1);
}

/// A Hello from 10.0.0.`host`, or from nowhere that is known.
fn hello_from(host: Option<u8>, connection: u64, attach: Attach) -> Event {
    let peer = host.map(|host| ([10, 0, 0, host], 5000).into());
    let connection = ConnectionId::new(connection);
    let (epoch_seen, token_seen) = (Epoch::default(), FencingToken::default());
    Event::Attach { connection, peer, attach, epoch_seen, token_seen }
}

#[test]
fn one_address_does_not_have_all_sessions() {
    let with_max = |sessions_per_address_max| {
        Story::with(Limits { sessions_max: 8, sessions_per_address_max, ..limits() }, TOKEN_BLOCK)
    };
    let (ttl, linger, identity) = (Ttl::default(), None, Identity::default());
    let opened = |story: &mut Story, host, id: u64| {
        let session = SessionId::new(id.into());
        let attach = Attach::Open { session, ttl, linger, identity: identity.clone() };
        story.handle(&hello_from(host, id, attach))
    };
    let mut story = with_max(None);
    for id in 1..=6 {
        assert!(opened(&mut story, Some(1), id).contains("welcome"));
    }
    let told = opened(&mut story, Some(1), 7);
    let why = "6 sessions from 10.0.0.1 are alive, the limit for one address";
    assert_eq!(told, format!("← refused TooManySessions: {why}\n"));
    assert!(opened(&mut story, Some(2), 8).contains("welcome"));
    // One that comes from elsewhere now, or is over, makes room.
    let (session, generation) = (SessionId::new(1), Generation::new(2));
    let proved_in = Epoch::new(1);
    let identity = identity.clone();
    let attach = Attach::Resume { session, proved_in, generation, ttl, linger, identity };
    story.handle(&hello_from(Some(2), 9, attach));
    assert!(opened(&mut story, Some(1), 10).contains("welcome"));
    let told = opened(&mut story, Some(1), 11);
    assert!(told.contains("8 sessions are alive"), "{told}");
    story.handle(&command(2, Command::Goodbye));
    assert!(opened(&mut story, Some(1), 12).contains("welcome"));

    let mut story = with_max(Some(1));
    assert!(opened(&mut story, Some(1), 1).contains("welcome"));
    assert!(opened(&mut story, Some(1), 2).contains("the limit for one address"));
    for id in 3..=4 {
        assert!(opened(&mut story, None, id).contains("welcome"), "it is not known where from");
    }
}

#[test]
fn a_second_hello_on_a_connection_is_nothing() {
    let mut story = with_sessions(1, TTL_DEFAULT);
    assert_eq!(story.handle(&hello(1, 2, TTL_DEFAULT)), "");
    assert_eq!(story.table.counts().sessions, 1);
    assert_eq!(story.handle(&command(1, Command::KeepAlive { sequence: 4 })), "← kept alive 4\n");
}

#[test]
fn more_on_record_than_was_asked_for_is_nothing() {
    let mut story = with_sessions(1, TTL_DEFAULT);
    story.handle(&command(1, Command::Request(ask(1, "a"))));
    story.wait(TTL_DEFAULT);
    assert_eq!(story.table.counts().locks, 1, "in limbo");
    assert_eq!(story.handle(&Event::Recorded { count: 3 }), "");
    assert_eq!(story.table.counts().locks, 0);
}

#[test]
fn a_change_of_place_is_told_to_the_first_64_of_a_queue() {
    let mut story = with_sessions(68, TTL_DEFAULT);
    for session in 1..=68 {
        story.handle(&command(session, Command::Request(ask(1, "a"))));
    }
    // Those at 2 to 65 move up to 1 to 64; the others hear when they get there.
    let told = story.handle(&command(2, Command::Cancel { request: RequestId::new(1) }));
    let places: Vec<&str> = told.lines().filter(|line| line.contains("queued")).collect();
    assert_eq!(places.len(), 64);
    assert_eq!(places[63], "66 ← queued #1 position=64");
    // Whoever asks is told what is known.
    let told = story.handle(&command(68, Command::Request(ask(1, "a"))));
    assert_eq!(told, "68 ← queued #1 position=67\n");
}

#[test]
fn what_many_used_is_given_back_when_they_are_gone() {
    const MANY: u64 = 4_000;
    let mut story = with_sessions(MANY, TTL_DEFAULT);
    for session in 1..=MANY {
        // One holds, and one waits.
        for id in 1..=2 {
            let owner = OwnerId::new(id);
            let request = Request { owner, ..ask(id, &format!("lock-{session}")) };
            step(&mut story, &command(session, Command::Request(request)));
        }
    }
    assert!(story.table.places().iter().all(|places| *places >= 4_000), "not that many at all");
    let mut last = story.table.places();
    // The latest go first: a place can be given back only if none behind it is in use.
    for session in (11..=MANY).rev() {
        step(&mut story, &command(session, Command::Goodbye));
        let places = story.table.places();
        assert!(
            places.iter().zip(&last).all(|(now, before)| now <= before),
            "{places:?} after {last:?}"
        );
        last = places;
    }
    assert!(last.iter().all(|places| *places <= 2_048), "{last:?}");
    story.table.assert_invariants();
    for session in 1..=10 {
        let again = Request { owner: OwnerId::new(1), ..ask(1, &format!("lock-{session}")) };
        let told = story.handle(&command(session, Command::Request(again)));
        assert_eq!(told.matches("grant").count(), 1, "{told}");
    }
}

#[test]
fn the_end_of_a_session_names_the_first_lock_that_it_held() {
    let mut story = with_sessions(1, TTL_DEFAULT);
    for (id, name) in [(1, "b"), (2, "a")] {
        story.handle(&command(1, Command::Request(ask(id, name))));
    }
    story.wait(Duration::from_secs(9));
    let (mut effects, now) = (Vec::new(), story.now.after(Duration::from_secs(1)));
    story.table.handle(&Event::Tick { heard: now }, now, &mut effects);
    let lock = effects.into_iter().find_map(|effect| match effect {
        Effect::Ended { lock, .. } => Some(lock),
        _ => None,
    });
    assert_eq!(lock, Some(Some(LockName::new("b").unwrap())));
}

#[test]
fn one_address_does_not_have_all_that_can_be_kept() {
    let mut story = Story::with(Limits { kept_locks_max: 4, ..limits() }, TOKEN_BLOCK);
    let open = |session: u64| Attach::Open {
        session: SessionId::new(session.into()),
        ttl: Ttl::default(),
        linger: None,
        identity: Identity::default(),
    };
    for (host, session) in [(Some(1), 1), (Some(1), 2), (Some(2), 3), (None, 4)] {
        story.handle(&hello_from(host, session, open(session)));
    }
    let keep = |story: &mut Story, session: u64, id: u64, name: &str| {
        let at_least = Duration::from_secs(5);
        let request = ask(id, name).with(Extras { at_least, ..Extras::default() });
        story.handle(&command(session, Command::Request(request)))
    };
    for (session, id, name) in [(1, 1, "a"), (2, 1, "b"), (1, 2, "c")] {
        assert!(keep(&mut story, session, id, name).contains("grant"));
    }
    let refused = keep(&mut story, 2, 2, "d");
    assert!(
        refused.contains("TooManyKept: 3 locks are kept for clients from 10.0.0.1"),
        "{refused}"
    );
    // They are of that address also when their holder is gone.
    story.handle(&command(1, Command::Goodbye));
    assert!(keep(&mut story, 2, 3, "d").contains("TooManyKept"));
    assert!(keep(&mut story, 3, 1, "d").contains("grant"));
    let refused = keep(&mut story, 4, 1, "e");
    assert!(refused.contains("TooManyKept: 4 locks are kept for their"), "{refused}");
    story.wait(Duration::from_secs(5));
    assert!(keep(&mut story, 2, 4, "a").contains("grant"));
}
