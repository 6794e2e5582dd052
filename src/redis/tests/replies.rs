//! Answers, as both versions of the protocol write them.

use bytes::BytesMut;

use crate::redis::{Protocol, Reply};

fn printed(reply: &Reply, protocol: Protocol) -> String {
    let mut out = BytesMut::new();
    reply.print(protocol, &mut out);
    out.escape_ascii().to_string()
}

#[test]
fn an_answer_is_written_as_the_version_has_it() {
    let map = Reply::Map(vec![(Reply::text("proto"), Reply::Integer(3))]);
    for (reply, resp2, resp3) in [
        (Reply::OK, r"+OK\r\n", r"+OK\r\n"),
        (Reply::Integer(-12), r":-12\r\n", r":-12\r\n"),
        (Reply::Integer(i64::MIN), r":-9223372036854775808\r\n", r":-9223372036854775808\r\n"),
        (Reply::Integer(0), r":0\r\n", r":0\r\n"),
        (Reply::text("a\r\nb"), r"$4\r\na\r\nb\r\n", r"$4\r\na\r\nb\r\n"),
        (Reply::Nil, r"$-1\r\n", r"_\r\n"),
        (Reply::NilArray, r"*-1\r\n", r"_\r\n"),
        (vec![Reply::Nil, Reply::OK].into(), r"*2\r\n$-1\r\n+OK\r\n", r"*2\r\n_\r\n+OK\r\n"),
        (map, r"*2\r\n$5\r\nproto\r\n:3\r\n", r"%1\r\n$5\r\nproto\r\n:3\r\n"),
    ] {
        assert_eq!(printed(&reply, Protocol::Resp2), resp2);
        assert_eq!(printed(&reply, Protocol::Resp3), resp3);
    }
}

#[test]
fn no_error_can_be_made_to_hold_another_answer() {
    let no = Reply::error("ERR unknown command 'x'\r\n+OK\r\n");
    assert_eq!(printed(&no, Protocol::Resp2), r"-ERR unknown command \'x\' +OK \r\n");
}
