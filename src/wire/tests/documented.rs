//! Reads `docs/protocol.md` as a stranger would. Its tables are all that is known here about the
//! layout of a message, and each golden message must decode by them to its meaning.

use std::collections::HashMap;
use std::fmt::Debug;
use std::mem;
use std::time::Duration;

use bytes::BytesMut;
use serde::Serialize;
use smallvec::smallvec;

use super::super::*;
use super::messages;
use crate::types::{
    AT_LEAST_MAX, CLAIMS_MAX, Epoch, FencingToken, Generation, GoodbyeCode, IDENTITY_LEN_MAX,
    LOCK_DELAY_MAX, LOCK_NAME_LEN_MAX, Limits, LostReason, NOTE_LEN_MAX, OwnerId, RejectionCode,
    RequestId, TTL_DEFAULT, TTL_MAX, TTL_MIN,
};

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

/// The part of the document under this heading, up to the next of the same depth.
fn section(heading: &str) -> &'static str {
    let (_, rest) = DOCUMENT.split_once(&format!("\n{heading}\n")).expect(heading);
    let depth = heading.split(' ').next().unwrap();
    rest.split(&format!("\n{depth} ")).next().unwrap()
}

/// The rows of every table in `text`, each with its cells; the first is the table's head.
fn tables(text: &str) -> Vec<Vec<Vec<&str>>> {
    let mut tables = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines().chain([""]) {
        if let Some(row) = line.strip_prefix('|') {
            rows.push(row.trim_end_matches('|').split('|').map(str::trim).collect());
        } else if !rows.is_empty() {
            rows.remove(1);
            tables.push(mem::take(&mut rows));
        }
    }
    tables
}

/// Fields in order, each with its type.
type Fields = Vec<(&'static str, &'static str)>;

/// What the document says about the layout of messages.
#[derive(Default)]
struct Schema {
    /// Structures by name.
    structures: HashMap<&'static str, Fields>,
    /// Choices by name: each variant's name and fields, in order of their numbers.
    choices: HashMap<&'static str, Vec<(&'static str, Fields)>>,
}

fn fields(rows: &[Vec<&'static str>]) -> Fields {
    rows.iter().map(|row| (row[0], row[1])).collect()
}

impl Schema {
    fn of_the_document() -> Self {
        let mut schema = Self::default();
        for (name, heading) in [
            ("ClientMessage", "## Messages of the client"),
            ("ServerMessage", "## Messages of the server"),
        ] {
            let messages = section(heading).split("\n### ").skip(1).enumerate().map(|(i, text)| {
                let (number, name) = text.lines().next().unwrap().split_once(' ').unwrap();
                assert_eq!(number, i.to_string(), "number of {name}");
                (name, tables(text).first().map(|table| fields(&table[1..])).unwrap_or_default())
            });
            schema.choices.insert(name, messages.collect());
        }
        for table in tables(section("### Choices")) {
            let variants = table[1..].iter().enumerate().map(|(i, row)| {
                assert_eq!(row[0], i.to_string(), "number of {}", row[1]);
                let fields = row[2].split(", ").filter_map(|field| field.split_once(": "));
                (row[1], fields.collect())
            });
            schema.choices.insert(table[0][1], variants.collect());
        }
        for table in tables(section("### Structures")) {
            schema.structures.insert(table[0][0], fields(&table[1..]));
        }
        schema
    }
}

/// Reads values from bytes by the rules of the document, and writes them as `Debug` would.
struct Reader<'a> {
    schema: &'a Schema,
    rest: &'a [u8],
}

impl Reader<'_> {
    fn number(&mut self, len: usize) -> u128 {
        let (bytes, rest) = self.rest.split_at(len);
        self.rest = rest;
        bytes.iter().rev().fold(0, |number, byte| number << 8 | u128::from(*byte))
    }

    fn length(&mut self) -> usize {
        self.number(8).try_into().unwrap()
    }

    fn value(&mut self, of_type: &str) -> String {
        match of_type {
            "u16" => self.number(2).to_string(),
            "u32" => self.number(4).to_string(),
            "u64" => self.number(8).to_string(),
            "u128" => self.number(16).to_string(),
            "bool" => ["false", "true"][usize::try_from(self.number(1)).unwrap()].into(),
            "string" => {
                let len = self.length();
                let (text, rest) = self.rest.split_at(len);
                self.rest = rest;
                format!("{:?}", str::from_utf8(text).unwrap())
            }
            other => {
                if let Some(element) = other.strip_prefix("list of ") {
                    let elements: Vec<_> =
                        (0..self.length()).map(|_| self.value(element)).collect();
                    format!("[{}]", elements.join(", "))
                } else if let Some(inner) = other.strip_prefix("option ") {
                    match self.number(1) {
                        0 => "None".into(),
                        1 => format!("Some({})", self.value(inner)),
                        byte => panic!("{byte} is no option"),
                    }
                } else if let Some(variants) = self.schema.choices.get(other) {
                    let (name, fields) = &variants[usize::try_from(self.number(4)).unwrap()];
                    self.fields(name, fields)
                } else if let Some(fields) = self.schema.structures.get(other) {
                    self.fields(other, fields)
                } else {
                    // A message within another.
                    let messages = &self.schema.choices["ClientMessage"];
                    let message = messages.iter().find(|(name, _)| *name == other).expect(other);
                    self.fields(other, &message.1)
                }
            }
        }
    }

    fn fields(&mut self, name: &str, fields: &Fields) -> String {
        let values: Vec<_> = fields
            .iter()
            .map(|(field, of_type)| match (name, *field) {
                // `Attach` shows these two in its own way.
                ("Resume", "session") => format!("session: {:032x}", self.number(16)),
                ("Resume", "secret") => {
                    self.number(16);
                    "secret: …".into()
                }
                (_, field) => format!("{field}: {}", self.value(of_type)),
            })
            .collect();
        if values.is_empty() { name.into() } else { format!("{name} {{ {} }}", values.join(", ")) }
    }
}

fn bytes<M: Serialize>(message: &M) -> BytesMut {
    let mut frame = BytesMut::new();
    encode_frame(message, &mut frame).unwrap();
    frame
}

#[test]
fn every_message_can_be_read_by_the_tables_of_the_document_alone() {
    fn check<M: Serialize + Debug>(schema: &Schema, of_type: &str, message: &M) {
        let frame = bytes(message);
        let mut reader = Reader { schema, rest: &frame[4..] };
        assert_eq!(reader.value(of_type), messages::said(message));
        assert!(reader.rest.is_empty(), "{message:?} has more bytes than the document says");
    }
    let schema = Schema::of_the_document();
    let (client, server) = (messages::client(), messages::server());
    for (_, message) in &client {
        check(&schema, "ClientMessage", message);
    }
    for (_, message) in &server {
        check(&schema, "ServerMessage", message);
    }
}

#[test]
fn the_document_has_no_message_that_is_not_there() {
    let schema = Schema::of_the_document();
    let choices = [
        "ClientMessage",
        "ServerMessage",
        "Attach",
        "Extra",
        "Wait",
        "Mode",
        "Query",
        "After",
        "Standing",
        "Happening",
        "JournalDistance",
        "JournalStart",
    ];
    assert_eq!(schema.choices.len(), choices.len());
    let counts = choices.map(|choice| u32::try_from(schema.choices[choice].len()).unwrap());
    let (client, server) = (messages::CLIENT_MESSAGES, messages::SERVER_MESSAGES);
    assert_eq!(counts, [client, server, 3, 2, 3, 3, 11, 2, 3, 7, 3, 4]);
}

#[test]
fn the_conversations_in_the_document_have_the_bytes_of_the_encoder() {
    let text = section("## Conversations in bytes");
    let texts: Vec<&str> =
        text.split("```hex\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let conversations = [first_conversation(), resumed_conversation(), reopened_conversation()];
    assert_eq!(texts.len(), conversations.len());
    for (text, expected) in texts.into_iter().zip(conversations) {
        let frames: Vec<(&str, Vec<u8>)> = text.split("\n\n").map(documented_frame).collect();
        assert_eq!(
            frames.iter().map(|(head, _)| *head).collect::<Vec<_>>(),
            expected.iter().map(|(head, _)| *head).collect::<Vec<_>>()
        );
        for ((head, documented), (_, encoded)) in frames.iter().zip(&expected) {
            assert_eq!(documented[..], encoded[..], "{head}");
        }
    }
}

/// Who says what, and the bytes that stand below.
fn documented_frame(block: &str) -> (&str, Vec<u8>) {
    let (head, lines) = block.split_once('\n').unwrap();
    let hex = lines.lines().flat_map(|line| line.split('|').next().unwrap().split_whitespace());
    (head, hex.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect())
}

/// The frames of a conversation, each with who says what.
type Conversation = Vec<(&'static str, BytesMut)>;

fn hello(attach: Attach, ttl_ms: u32, epoch_seen: u64, token_seen: u64) -> BytesMut {
    bytes(&ClientMessage::Hello(Hello {
        protocol: PROTOCOL,
        attach,
        ttl_ms,
        linger_ms: None,
        identity: "ann@build7:8123".into(),
        epoch_seen: Epoch::new(epoch_seen),
        token_seen: FencingToken::new(token_seen),
    }))
}

fn resume(generation: u64) -> Attach {
    Attach::Resume {
        session: messages::SESSION,
        secret: messages::SECRET,
        generation: Generation::new(generation),
    }
}

fn welcome(epoch: u64, generation: u64, standing: Standing) -> BytesMut {
    bytes(&ServerMessage::Welcome {
        protocol: PROTOCOL,
        server: "coordinator 0.1.0".into(),
        epoch: Epoch::new(epoch),
        session: messages::SESSION,
        secret: messages::SECRET,
        generation: Generation::new(generation),
        ttl_ms: 10_000,
        standing,
    })
}

fn request(request: u64, ticket: Option<SealedTicket>, name: &str, wait: Wait) -> BytesMut {
    bytes(&ClientMessage::Request(Request {
        request: RequestId::new(request),
        owner: OwnerId(0),
        converts: None,
        wait,
        progress: false,
        lock_delay_ms: 0,
        note: String::new(),
        ticket,
        claims: smallvec![messages::claim(name, Mode::Exclusive)],
    }))
}

fn grant(request: u64, token: u64) -> BytesMut {
    bytes(&ServerMessage::Grant {
        request: RequestId::new(request),
        token: FencingToken::new(token),
        seal: messages::SEAL,
    })
}

fn first_conversation() -> Conversation {
    vec![
        ("client: Hello", hello(Attach::New, 0, 0, 0)),
        ("client: Request", request(1, None, "printer", Wait::millis(5000))),
        ("server: Welcome", welcome(18, 1, Standing::Opened)),
        ("server: Grant", grant(1, 1881)),
        (
            "client: Release",
            bytes(&ClientMessage::Release { request: RequestId(1), token: FencingToken(1881) }),
        ),
        ("server: Released", bytes(&ServerMessage::Released { request: RequestId(1) })),
        ("client: Goodbye", bytes(&ClientMessage::Goodbye)),
        (
            "server: Goodbye",
            bytes(&ServerMessage::Goodbye {
                code: GoodbyeCode::Done,
                rejection: RejectionCode::NONE,
                message: "the session is over".into(),
            }),
        ),
    ]
}

fn resumed_conversation() -> Conversation {
    vec![
        ("client: Hello", hello(resume(2), 10_000, 18, 1884)),
        ("server: Welcome", welcome(18, 2, Standing::Resumed)),
        (
            "client: Release",
            bytes(&ClientMessage::Release { request: RequestId(1), token: FencingToken(1881) }),
        ),
        (
            "client: Account",
            bytes(&ClientMessage::Account(Account {
                from: RequestId(1),
                to: RequestId::new(u64::MAX),
                held: vec![Held { request: RequestId(2), token: FencingToken(1884) }],
                waiting: vec![],
            })),
        ),
        ("server: Released", bytes(&ServerMessage::Released { request: RequestId(1) })),
    ]
}

fn reopened_conversation() -> Conversation {
    let ticket = SealedTicket::from_halves(18, 4);
    vec![
        ("client: Hello", hello(resume(3), 10_000, 18, 1884)),
        (
            "server: Welcome",
            welcome(19, 3, Standing::Reopened { grace: Duration::from_millis(9_250) }),
        ),
        (
            "client: Reclaim",
            bytes(&ClientMessage::Reclaim(Reclaim {
                request: RequestId(2),
                token: FencingToken(1884),
                seal: messages::SEAL,
                owner: OwnerId(0),
                lock_delay_ms: 0,
                note: String::new(),
                claims: smallvec![messages::claim("printer", Mode::Exclusive)],
            })),
        ),
        ("client: Request", request(3, Some(ticket), "scanner", Wait::Forever)),
        ("server: Grant", grant(2, 1884)),
        (
            "server: Queued",
            bytes(&ServerMessage::Queued { request: RequestId(3), position: 1, ticket }),
        ),
    ]
}

#[test]
fn the_document_has_every_code_with_its_number() {
    fn check(heading: &str, codes: &[(u16, &str)]) {
        let table = &tables(section(heading))[0];
        let documented: Vec<_> = table[1..].iter().map(|row| (row[0], row[1])).collect();
        let codes: Vec<_> = codes.iter().map(|(n, name)| (n.to_string(), *name)).collect();
        let codes: Vec<_> = codes.iter().map(|(n, name)| (&n[..], *name)).collect();
        assert_eq!(documented, codes, "{heading}");
    }
    let codes: Vec<_> = RejectionCode::ALL.iter().map(|c| (c.number(), c.name())).collect();
    check("### Rejection codes", &codes);
    let codes: Vec<_> = LostReason::ALL.iter().map(|c| (c.number(), c.name())).collect();
    check("### Lost reasons", &codes);
    let codes: Vec<_> = GoodbyeCode::ALL.iter().map(|c| (c.number(), c.name())).collect();
    check("### Goodbye codes", &codes);
}

#[test]
fn the_document_has_the_limits_that_are_in_force() {
    let table = &tables(section("## Limits"))[0];
    let documented: Vec<_> = table[1..].iter().map(|row| row[1]).collect();
    let text = "of UTF-8, no control characters, no line ends (U+2028, U+2029)";
    // Those that follow are the server's, and are looked at there.
    assert_eq!(
        documented[..10],
        [
            format!("{FRAME_LEN_MAX} bytes"),
            format!("{HELLO_LEN_MAX} bytes"),
            format!("1 to {LOCK_NAME_LEN_MAX} bytes {text}"),
            format!("{NOTE_LEN_MAX} bytes {text}"),
            format!("{IDENTITY_LEN_MAX} bytes {text}"),
            format!("1 to {CLAIMS_MAX}"),
            format!("{} to {} ms", TTL_MIN.as_millis(), TTL_MAX.as_millis()),
            format!("{} ms", LOCK_DELAY_MAX.as_millis()),
            format!("{} ms", AT_LEAST_MAX.as_millis()),
            Limits::default().finished_remembered.to_string(),
        ]
    );
    let kept = Limits::default().kept_locks_max;
    assert!(DOCUMENT.contains(&format!("limit of the server ({kept}, three quarters")));
    assert!(DOCUMENT.contains(&format!("server's default of {}", TTL_DEFAULT.as_millis())));
}

#[test]
fn the_examples_of_values_in_the_document_are_right() {
    let rows = &tables(section("## Values"))[0];
    let hex = |of_type: &str| {
        let row = rows.iter().find(|row| row[0] == format!("`{of_type}`")).expect(of_type);
        row[2].rsplit('`').nth(1).unwrap().to_owned()
    };
    let spelled = |bytes: BytesMut| {
        bytes[4..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(hex("u16"), spelled(bytes(&258u16)));
    assert_eq!(hex("u32"), spelled(bytes(&258u32)));
    assert_eq!(hex("u64"), spelled(bytes(&258u64)));
    assert_eq!(hex("bool"), spelled(bytes(&true)));
    assert_eq!(hex("string"), spelled(bytes(&"abc")));
    assert_eq!(hex("option T"), spelled(bytes(&Some(258u16))));
    assert_eq!(hex("list of T"), spelled(bytes(&vec![1u16, 2])));
}
