use super::*;
use crate::engine::Rejection;
use crate::types::RequestId;

/// A message that takes so many bytes.
fn long(bytes: usize) -> ServerMessage {
    let goodbye = |len| render::goodbye(GoodbyeCode::Done, "x".repeat(len));
    goodbye(bytes - Deliver::of(&[goodbye(0)]).frames.len())
}

#[test]
fn there_is_room_for_an_answer_to_every_request_of_a_session() {
    let answer = render::rejected(RequestId::new(1), &Rejection::Draining, None);
    let answer = Deliver::of(&[answer]).frames.len();
    let requests = crate::types::Limits::default().claims_per_session_max;
    assert!(answer * requests <= BATCH_BYTES_MAX, "{answer} bytes each");
}

#[test]
fn a_turn_has_as_much_for_a_connection_as_allowed_and_not_one_byte_more() {
    let (mut connections, mut out) = (Connections::default(), Vec::new());
    let connection = ConnectionId::new(1);
    connections.insert(connection, (Way(0), false), None, &mut out);
    let (part, parts) = (BATCH_BYTES_MAX / 512, 512);
    for _ in 0..parts {
        connections.tell(connection, &long(part));
    }
    connections.deliver(|_| false, &mut out);
    let deliver = out.pop().unwrap().deliver;
    assert_eq!((deliver.bytes, deliver.messages().len()), (BATCH_BYTES_MAX, parts));

    // Nor is what comes behind it kept, or told without what was before.
    for _ in 1..parts {
        connections.tell(connection, &long(part));
    }
    for bytes in [part + 1, 1000] {
        connections.tell(connection, &long(bytes));
    }
    connections.deliver(|_| false, &mut out);
    let deliver = out.pop().unwrap().deliver;
    assert!(deliver.bytes > BATCH_BYTES_MAX && deliver.frames.is_empty(), "{deliver:?}");
}
