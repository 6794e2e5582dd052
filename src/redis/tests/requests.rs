//! Requests, cut out of streams that come in any pieces.

use bytes::BytesMut;
use proptest::prelude::*;

use crate::redis::request::{
    INLINE_BYTES_MAX, Malformed, REQUEST_BYTES_MAX, Requests, WORD_BYTES_MAX,
    WORD_UNPROVEN_BYTES_MAX, WORDS_MAX, WORDS_UNPROVEN_MAX, Words,
};

/// All requests in `stream`, which comes in pieces of such lengths, and how that ended.
pub(super) fn cut(
    mut requests: Requests,
    stream: &[u8],
    mut piece: impl FnMut() -> usize,
) -> (Vec<Words>, Option<Malformed>) {
    let (mut unread, mut all, mut rest) = (BytesMut::new(), Vec::new(), stream);
    loop {
        match requests.next(&mut unread) {
            Ok(Some(words)) => all.push(words),
            Ok(None) if rest.is_empty() => return (all, None),
            Ok(None) => {
                let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
                unread.extend_from_slice(now);
                rest = later;
            }
            Err(why) => {
                assert_eq!(requests.next(&mut unread), Err(why.clone()), "it says the same again");
                return (all, Some(why));
            }
        }
    }
}

fn trusted() -> Requests {
    let mut requests = Requests::unproven();
    requests.trust();
    requests
}

/// As a client writes it.
pub(super) fn written(words: &[&[u8]]) -> Vec<u8> {
    let mut stream = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        stream.extend(format!("${}\r\n", word.len()).bytes());
        stream.extend_from_slice(word);
        stream.extend_from_slice(b"\r\n");
    }
    stream
}

fn whole(stream: &[u8]) -> (Vec<Words>, Option<Malformed>) {
    cut(trusted(), stream, || usize::MAX)
}

fn words(words: &[&str]) -> Words {
    Words::of(words.iter().map(|word| word.as_bytes()))
}

#[test]
fn a_pipeline_is_cut_into_its_requests() {
    let stream = [
        written(&[b"SET", b"order", b"mine", b"NX"]),
        b"PING\r\n*0\r\n*-1\r\n\r\n".to_vec(),
        written(&[b"GET", b""]),
        b"  set \"a b\\n\\x\" 'it\\'s \\n'\t1\n".to_vec(),
    ]
    .concat();
    let expected = vec![
        words(&["SET", "order", "mine", "NX"]),
        words(&["PING"]),
        words(&["GET", ""]),
        words(&["set", "a b\nx", "it's \\n", "1"]),
    ];
    assert_eq!(whole(&stream), (expected, None));
}

#[test]
fn what_is_no_request_is_told_and_ends_the_stream() {
    let count = Malformed::WordCount { max: WORDS_MAX };
    let length = Malformed::WordLength { max: WORD_BYTES_MAX };
    for (stream, why) in [
        (&b"*x\r\n"[..], count.clone()),
        (b"*+1\r\n$1\r\na\r\n", count.clone()),
        (b"*99999999999999999999\r\n", count.clone()),
        (b"*1\n", count.clone()),
        (b"*2147483648\r\n", count.clone()),
        (b"*000000000000000000000000000001\r\n", count.clone()),
        (b"*1\r\n$-1\r\n", length.clone()),
        (b"*1\r\n$\r\n", length.clone()),
        (b"*1\r\n$9223372036854775807\r\n", length.clone()),
        (b"*1\r\n*1\r\n$1\r\na\r\n", Malformed::NotAString { got: b'*' }),
        (b"*1\r\n:1\r\n", Malformed::NotAString { got: b':' }),
        (b"*1\r\n$1\r\nab\r\n", Malformed::NoLineEnd),
        (b"*1\r\n$1\r\na\n\n", Malformed::NoLineEnd),
        (b"GET \"a\r\n", Malformed::UnbalancedQuotes),
        (b"GET \"a\"b\r\n", Malformed::UnbalancedQuotes),
        (b"GET \x07\r\n", Malformed::NotText),
        (b"POST / HTTP/1.1\r\n", Malformed::Foreign("HTTP")),
        (b"\x16\x03\x01\x02\x00", Malformed::Foreign("TLS")),
    ] {
        assert_eq!(whole(stream), (vec![], Some(why)), "{}", stream.escape_ascii());
    }
}

#[test]
fn bounds_hold_at_the_limit_and_one_past_it() {
    let word = vec![b'x'; WORD_BYTES_MAX];
    assert_eq!(whole(&written(&[&word])).0.len(), 1);
    let longer = vec![b'x'; WORD_BYTES_MAX + 1];
    let why = Malformed::WordLength { max: WORD_BYTES_MAX };
    assert_eq!(whole(&written(&[&longer])), (vec![], Some(why)));

    let many = vec![&b"x"[..]; WORDS_MAX];
    assert_eq!(whole(&written(&many)).0.len(), 1);
    let more = vec![&b"x"[..]; WORDS_MAX + 1];
    assert_eq!(whole(&written(&more)).1, Some(Malformed::WordCount { max: WORDS_MAX }));

    let (half, rest) = (vec![b'x'; REQUEST_BYTES_MAX / 2], vec![b'x'; REQUEST_BYTES_MAX / 2]);
    assert_eq!(whole(&written(&[&half, &rest])).0.len(), 1);
    assert_eq!(whole(&written(&[&half, &rest, b"x"])).1, Some(Malformed::TooBig));

    let line = |len: usize| [vec![b'x'; len], b"\n".to_vec()].concat();
    assert_eq!(whole(&line(INLINE_BYTES_MAX)).0.len(), 1);
    assert_eq!(whole(&line(INLINE_BYTES_MAX + 1)).1, Some(Malformed::InlineTooBig));
    assert_eq!(whole(&vec![b'x'; INLINE_BYTES_MAX + 1]).1, Some(Malformed::InlineTooBig));
}

#[test]
fn whoever_has_not_proven_who_it_is_may_say_less() {
    let said = |stream: &[u8]| cut(Requests::unproven(), stream, || usize::MAX);
    assert_eq!(said(&written(&[&b"x"[..]; WORDS_UNPROVEN_MAX])).0.len(), 1);
    let max = WORDS_UNPROVEN_MAX;
    assert_eq!(
        said(&written(&[&b"x"[..]; WORDS_UNPROVEN_MAX + 1])).1,
        Some(Malformed::WordCount { max })
    );
    let word = vec![b'x'; WORD_UNPROVEN_BYTES_MAX + 1];
    assert_eq!(said(&written(&[&word[1..]])).0.len(), 1);
    let max = WORD_UNPROVEN_BYTES_MAX;
    assert_eq!(said(&written(&[&word])).1, Some(Malformed::WordLength { max }));
}

#[test]
fn nothing_is_taken_for_what_is_only_claimed() {
    let taken = allocation_counter::measure(|| {
        let stream = format!("*{WORDS_MAX}\r\n${WORD_BYTES_MAX}\r\n");
        assert_eq!(whole(stream.as_bytes()), (vec![], None));
    });
    assert!(taken.bytes_max < 1024, "{} bytes", taken.bytes_max);
}

proptest! {
    #[test]
    fn requests_are_the_same_in_whatever_pieces_they_come(
        said in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 0..5),
        size in 1_usize..50,
    ) {
        let said: Vec<Vec<&[u8]>> =
            said.iter().map(|words| words.iter().map(Vec::as_slice).collect()).collect();
        let stream: Vec<u8> = said.iter().flat_map(|words| written(words)).collect();
        let expected: Vec<_> = said.iter().map(|words| Words::of(words.iter().copied())).collect();
        prop_assert_eq!(cut(trusted(), &stream, || size), (expected, None));
    }

    #[test]
    fn any_bytes_are_understood_in_one_way(
        stream in prop::collection::vec(
            prop_oneof![Just(b'*'), Just(b'$'), Just(b'1'), Just(b'\r'), Just(b'\n'), Just(b'"'), any::<u8>()],
            0..200,
        ),
        size in 1_usize..10,
    ) {
        prop_assert_eq!(whole(&stream), cut(trusted(), &stream, || size));
    }
}
