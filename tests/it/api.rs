//! The API of the HTTP port, with the real program: what it answers, to whom, and what it changes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::access::{credential, principal};
use crate::port::{ANN, Answer, BOB, OURS, Port, private, read_until};
use crate::support::{eventually, run, start};

pub(crate) fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

/// What is wrong with a value by a schema of the document: the part of JSON Schema that is used there.
fn mistakes(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap();
        return mistakes(document, schema, value, at, found);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            let fits = |option: &&Value| {
                let mut found = Vec::new();
                mistakes(document, option, value, at, &mut found);
                found.is_empty()
            };
            if !options.iter().any(|option| fits(&option)) {
                found.push(format!("{at}: {value} is none of {options:?}"));
            }
        }
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        found.push(format!("{at}: {value}"));
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        found.push(format!("{at}: {value}"));
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("number") => value.is_number(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some(other) => panic!("{other}"),
    };
    if !fits {
        found.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        mistakes(document, &schema["items"], item, &format!("{at}[{number}]"), found);
    }
    if let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, field) in fields {
            match known.get(name) {
                Some(schema) => mistakes(document, schema, field, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}.{name} is not described")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(name.as_str().unwrap()) {
                found.push(format!("{at}.{name} is missing"));
            }
        }
    }
}

/// Fields are added to answers, and a strict client of today is to read them past.
#[test]
fn the_document_closes_no_answer() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let is_closed = schema.to_string().contains("additionalProperties");
        assert_eq!(is_closed, name == "RevokeBody", "{name}");
    }
}

/// Holds an answer to the document.
pub(crate) fn is_described(document: &Value, method: &str, path: &str, answer: &Answer) {
    let described = &document["paths"][path][method]["responses"][answer.status.to_string()];
    assert!(described.is_object(), "{method} {path} is not to answer {answer:?}");
    let schema = &described["content"]["application/json"]["schema"];
    assert!(answer.head.contains("content-type: application/json"), "{answer:?}");
    let mut found = Vec::new();
    mistakes(document, schema, &answer.json(), path, &mut found);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn every_answer_is_as_the_document_for_programs_describes_it() {
    let (port, document) = (Port::guarded(), document());
    let _all = port.contended("bob", "a/x", 3);
    let _permits = start(port.client("bob", &["hold", "gpu", "--permits", "4"]));
    for who in [None, Some("mallory"), Some("ann"), Some("bob"), Some("ops")] {
        for (path, asked) in [
            ("/api/v1/server", "/api/v1/server"),
            ("/api/v1/server", "/api/v1/server?x=1"),
            ("/api/v1/waits", "/api/v1/waits"),
            ("/api/v1/waits", "/api/v1/waits?limit=1"),
            ("/api/v1/waits", "/api/v1/waits?limit=0"),
            ("/api/v1/waits", "/api/v1/waits?limit=201"),
            ("/api/v1/waits", "/api/v1/waits?limit=1&limit=2"),
            ("/api/v1/locks", "/api/v1/locks"),
            ("/api/v1/locks", "/api/v1/locks?prefix=a&limit=200"),
            ("/api/v1/locks", "/api/v1/locks?cursor=1.0"),
            ("/api/v1/locks", "/api/v1/locks?cursor=x"),
            ("/api/v1/locks/{name}", "/api/v1/locks/a%2Fx"),
            ("/api/v1/locks/{name}", "/api/v1/locks/a%2Fnone"),
            ("/api/v1/locks/{name}", "/api/v1/locks/%00"),
            ("/api/v1/locks/{name}", "/api/v1/locks/%ff"),
            ("/api/v1/sessions", "/api/v1/sessions"),
            ("/api/v1/sessions", "/api/v1/sessions?prefix=a"),
            ("/api/v1/events", "/api/v1/events?lock=%00"),
            ("/api/v1/live", "/api/v1/live?lock=%00"),
        ] {
            is_described(&document, "get", path, &port.get(asked, who));
        }
        let revoke = "/api/v1/locks/{name}/revoke";
        for headers in ["", OURS] {
            for body in ["", "{}", "{\"token\":1,\"reason\":\"x\"}", "[", &"x".repeat(4097)] {
                let answer = port.post("/api/v1/locks/a%2Fx/revoke", who, headers, body);
                is_described(&document, "post", revoke, &answer);
                let answer = port.post("/api/v1/reload", who, headers, body);
                is_described(&document, "post", "/api/v1/reload", &answer);
            }
        }
    }
    let held = port.get("/api/v1/locks/a%2Fx", Some("bob")).json();
    let token = held["lock"]["holders"][0]["token"].as_u64().unwrap();
    let revoked = port.revoke(Some("ops"), "a%2Fx", token, "it was stuck");
    assert_eq!(revoked.status, 200, "{revoked:?}");
    is_described(&document, "post", "/api/v1/locks/{name}/revoke", &revoked);
    for path in document["paths"].as_object().unwrap().keys() {
        let status = port.ask("PUT", &path.replace("{name}", "a"), Some("ops"), "\r\n").status;
        assert_eq!(status, 405, "{path}");
    }
    assert_eq!(port.get("/api/v1/none", None).code(), "NotFound");
}

#[test]
fn nothing_that_one_may_not_see_is_in_any_answer() {
    let port = Port::guarded();
    let _hers = port.contended("bob", "a/hers", 1);
    let _canaries = port.contended("bob", "canary", 2);
    let _canary = start(port.client("bob", &["hold", "canary/below"]));
    let mut heard = String::new();
    for path in [
        "/api/v1/server",
        "/api/v1/waits",
        "/api/v1/locks",
        "/api/v1/locks?prefix=can",
        "/api/v1/sessions",
        "/api/v1/locks/a%2Fhers",
    ] {
        let answer = port.get(path, Some("ann"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        heard += &answer.body;
    }
    for path in ["/api/v1/locks/canary", "/api/v1/events?lock=canary", "/api/v1/live?lock=canary"] {
        let answer = port.get(path, Some("ann"));
        assert_eq!((answer.status, answer.code()), (403, "Forbidden".to_owned()), "{path}");
    }
    let events = port.connect("GET", "/api/v1/events", Some("ann"), "\r\n");
    let events = {
        let mut begun = events.try_clone().unwrap();
        begun.read_exact(&mut [0; 12]).unwrap();
        drop(start(port.client("bob", &["lock", "canary/quick", "--", "true"])).end());
        drop(start(port.client("bob", &["lock", "a/quick", "--", "true"])).end());
        read_until(events, |heard| heard.contains("a/quick") && heard.contains("released"))
    };
    heard += &events;
    heard += &port.stream_until("/api/v1/live?lock=a/hers", Some("ann"), |heard| {
        ["event: waits", "event: lock", "event: same"].iter().all(|it| heard.contains(it))
    });
    assert!(heard.contains("a/hers") && !heard.contains("canary"), "{heard}");
    // What is seen by whoever may see everything, so that the above says something.
    let all = port.stream_until("/api/v1/live", Some("ops"), |heard| heard.contains("waits"));
    assert!(all.contains("note of canary"), "{all}");
}

#[test]
fn breaking_takes_a_right_a_token_a_reason_and_our_header_and_is_audited() {
    let port = Port::guarded();
    let mut all = port.contended("bob", "a/x", 1);
    let held = port.get("/api/v1/locks/a%2Fx", Some("bob")).json();
    let token = held["lock"]["holders"][0]["token"].as_u64().unwrap();
    let path = "/api/v1/locks/a%2Fx/revoke";
    let body = format!("{{\"token\":{token},\"reason\":\"stuck\"}}");
    let foreign = "Origin: http://evil.example\r\n";
    for (headers, body, expected) in [
        ("Content-Type: application/json\r\n".to_owned(), body.clone(), (403, "Forbidden")),
        ("X-Coordinator: 1\r\n".to_owned(), body.clone(), (403, "Forbidden")),
        (format!("{OURS}{foreign}"), body.clone(), (403, "Forbidden")),
        (format!("{OURS}Sec-Fetch-Site: cross-site\r\n"), body.clone(), (403, "Forbidden")),
        (format!("{OURS}Sec-Fetch-Site: same-site\r\n"), body.clone(), (403, "Forbidden")),
        (OURS.to_owned(), format!("{{\"token\":{token}}}"), (400, "BadRequest")),
        (OURS.to_owned(), format!("{{\"token\":{token},\"reason\":\"\"}}"), (400, "BadRequest")),
        (OURS.to_owned(), body.replace("stuck", &"x".repeat(256)), (400, "BadRequest")),
        (OURS.to_owned(), body.replace("stuck", "\\n"), (400, "BadRequest")),
        (OURS.to_owned(), body.replace('{', "{\"more\":1,"), (400, "BadRequest")),
    ] {
        let answer = port.post(path, Some("ops"), &headers, &body);
        assert_eq!(
            (answer.status, answer.code().as_str()),
            expected,
            "{headers} {body}: {answer:?}"
        );
    }
    for (who, expected) in
        [(None, 401), (Some("mallory"), 401), (Some("ann"), 403), (Some("bob"), 403)]
    {
        let answer = port.post(path, who, OURS, &body);
        assert_eq!(answer.status, expected, "{who:?}: {answer:?}");
    }
    let newer = port.revoke(Some("ops"), "a%2Fx", token + 1, "stuck");
    assert_eq!((newer.status, newer.code().as_str()), (409, "NoSuchGrant"));
    let nobodys = port.revoke(Some("ops"), "free", token, "stuck");
    assert_eq!((nobodys.status, nobodys.code().as_str()), (404, "NotInUse"));
    let still = port.get("/api/v1/locks/a%2Fx", Some("bob")).json();
    assert_eq!(still["lock"]["holders"][0]["token"], token, "nothing of that took it away");

    let ours = format!("{OURS}Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n");
    let reason = "x".repeat(255);
    let done = port.post(path, Some("ops"), &ours, &body.replace("stuck", &reason));
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(done.json()["revoked"]["token"], token);
    assert!(done.json()["revoked"]["identity"].as_str().unwrap().starts_with("bob "));
    eventually("the next in line has it", || {
        let held = port.get("/api/v1/locks/a%2Fx", Some("bob")).json();
        (held["lock"]["holders"][0]["token"].as_u64()? > token).then_some(())
    });
    all.remove(0).end();
    let audit = eventually("the audit log tells it", || {
        let audit = fs::read_to_string(port.server.home.path("audit")).ok()?;
        audit.contains(&reason).then_some(audit)
    });
    let line = audit.lines().find(|line| line.contains(&reason)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["event"], &line["result"]), (&"revoke".into(), &"ok".into()), "{line}");
    assert_eq!((&line["principal"], &line["lock"]), (&"ops".into(), &"a/x".into()), "{line}");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    for who in ["ann", "bob", "ops", "mallory"] {
        assert!(!audit.contains(credential(who).reveal()), "a credential is in the audit log");
    }
}

#[test]
fn without_an_access_file_everybody_reads_and_nobody_changes_anything() {
    let port = Port::open();
    let _all = port.contended("nobody", "x", 1);
    let server = port.get("/api/v1/server", None).json();
    assert_eq!((&server["open"], &server["principal"]), (&true.into(), &Value::Null));
    assert_eq!(port.get("/api/v1/waits", None).json()["contended"], 1);
    let held = port.get("/api/v1/locks/x", None).json();
    let token = held["lock"]["holders"][0]["token"].as_u64().unwrap();
    for who in [None, Some("ops")] {
        let answer = port.revoke(who, "x", token, "stuck");
        assert_eq!((answer.status, answer.code().as_str()), (403, "Forbidden"), "{answer:?}");
        assert!(answer.body.contains("access file"), "{answer:?}");
    }
    let still = port.get("/api/v1/locks/x", None).json();
    assert_eq!(still["lock"]["holders"][0]["token"], token);
    for path in ["/api/v1/locks?prefix=%ff", "/api/v1/events?lock=%ff", "/api/v1/locks/%ff"] {
        assert_eq!(port.get(path, None).status, 400, "{path}");
    }
}

#[test]
fn whom_a_kept_lock_is_kept_after_is_told_wherever_a_lock_is() {
    let port = Port::open();
    let first = ["lock", "--as", "ci-7", "--at-least", "1h", "nightly", "--", "true"];
    assert_eq!(run(port.server.client(&first)).code(), Some(0));
    let _waiter = start(port.server.client(&["lock", "nightly", "--", "true"]));
    let whole = eventually("somebody waits for it", || {
        let lock = port.get("/api/v1/locks/nightly", None).json()["lock"].clone();
        (lock["waiter_count"] == 1).then_some(lock)
    });
    let waits = run(port.server.client(&["status", "--waits", "--json"]));
    let waits: Value = serde_json::from_str(&waits.out).unwrap();
    let listed = port.get("/api/v1/locks", None).json();
    let walked = eventually("the walk has come to it", || {
        let walked = port.get("/api/v1/waits", None).json();
        (walked["contended"] == 1).then_some(walked)
    });
    let tells = |heard: &str| heard.contains("\"after\":\"grant\"");
    assert!(tells(&port.stream_until("/api/v1/live", None, tells)));
    for (of, lock) in [("--waits", &waits), ("locks", &listed), ("waits", &walked)] {
        let lock = &lock["locks"][0];
        let fields = |of: &Value| of.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(fields(lock), fields(&whole), "{of}");
        for field in ["after", "identity", "token", "length_ms"] {
            assert_eq!(lock["pauses"][0][field], whole["pauses"][0][field], "{of}: {lock}");
        }
    }
}

#[test]
fn a_list_that_is_read_by_pages_tells_everything_once() {
    const LOCKS: usize = 450;
    let port = Port::open();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guards = runtime.block_on(async {
        let client = coordinator::Client::connect(port.server.address.as_str()).await.unwrap();
        let mut guards = Vec::new();
        for number in 0..LOCKS {
            let kind = if number % 3 == 0 { "third" } else { "other" };
            guards.push(client.lock(format!("{kind}/{number}")).await.unwrap());
        }
        guards
    });
    let of_one = (0..LOCKS).filter(|it| it % 3 == 0 && it.to_string().starts_with('1')).count();
    for (limit, prefix, expected) in
        [(7, "", LOCKS), (200, "", LOCKS), (3, "third/", LOCKS / 3), (1, "third/1", of_one)]
    {
        let (mut names, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/locks?limit={limit}&prefix={prefix}{cursor}");
            let page = port.get(&path, None).json();
            let locks = page["locks"].as_array().unwrap();
            assert!(locks.len() <= limit);
            names.extend(locks.iter().map(|lock| lock["name"].to_string()));
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
            assert!(names.len() <= LOCKS, "it goes round in circles");
        }
        let different: BTreeSet<&String> = names.iter().collect();
        assert_eq!((names.len(), different.len()), (expected, expected), "{limit} {prefix}");
    }
    let gone = port.get("/api/v1/locks?cursor=1.0", None);
    assert_eq!((gone.status, gone.code().as_str()), (410, "Gone"));
}

#[test]
fn a_list_goes_on_where_it_was_when_what_was_told_last_is_gone() {
    const LOCKS: usize = 60;
    let port = Port::open();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut guards: std::collections::BTreeMap<String, _> = runtime.block_on(async {
        let client = coordinator::Client::connect(port.server.address.as_str()).await.unwrap();
        let mut guards = std::collections::BTreeMap::new();
        for number in 0..LOCKS {
            let name = format!("order/{number}");
            guards.insert(name.clone(), client.lock(name).await.unwrap());
        }
        guards
    });
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = port.get(&format!("/api/v1/locks?limit=5{cursor}"), None).json();
        let told = page["locks"].as_array().unwrap();
        names.extend(told.iter().map(|lock| lock["name"].as_str().unwrap().to_owned()));
        let last = names.last().and_then(|name| guards.remove(name));
        if let Some(last) = last {
            runtime.block_on(last.release()).unwrap();
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
        assert!(names.len() <= 2 * LOCKS, "it goes round in circles");
    }
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!((names.len(), different.len()), (LOCKS, LOCKS));
}

#[test]
fn a_stream_tells_what_changes_and_there_are_as_many_as_there_are_places() {
    // Of 64, an address has three quarters.
    const STREAMS_MAX: usize = 48;
    let port = Port::open();
    let mut all = port.contended("nobody", "x", 1);
    let live = port.connect("GET", "/api/v1/live?lock=x", None, "\r\n");
    let begun = live.try_clone().unwrap();
    let heard = read_until(begun, |heard| heard.contains("event: lock"));
    assert!(heard.contains("event: server"), "{heard}");
    all.push(start(port.server.client(&["hold", "x"])));
    read_until(live.try_clone().unwrap(), |heard| heard.contains("\"waiter_count\":2"));
    let mut others: Vec<TcpStream> = (1..STREAMS_MAX)
        .map(|_| {
            let stream = port.connect("GET", "/api/v1/events", None, "\r\n");
            let answer =
                read_until(stream.try_clone().unwrap(), |heard| heard.contains("\r\n\r\n"));
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            stream
        })
        .collect();
    let full = port.get("/api/v1/live", None);
    assert_eq!((full.status, full.code().as_str()), (503, "Busy"), "{full:?}");
    assert!(full.head.contains("retry-after: 1"), "{full:?}");
    others.pop();
    eventually("a place comes back", || {
        let stream = port.connect("GET", "/api/v1/events", None, "\r\n");
        let answer = read_until(stream, |heard| heard.contains("\r\n\r\n"));
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn whose_credential_is_withdrawn_hears_the_end_of_its_streams() {
    let port = Port::guarded();
    let streams: Vec<TcpStream> = ["/api/v1/live", "/api/v1/live?lock=x", "/api/v1/events"]
        .iter()
        .map(|path| {
            let stream = port.connect("GET", path, Some("ops"), "\r\n");
            read_until(stream.try_clone().unwrap(), |heard| heard.contains("\r\n\r\n"));
            stream
        })
        .collect();
    let text = principal("ann", ANN) + &principal("bob", BOB);
    private(&port.server.home.path("access.toml"), &text);
    port.server.process.signal(Signal::HUP);
    for stream in streams {
        let heard = read_until(stream, |heard| {
            heard.split_once("event: end\n").is_some_and(|(_, end)| end.contains("\n\n"))
        });
        assert!(heard.contains("\"code\":\"Unauthenticated\""), "{heard}");
    }
    assert_eq!(port.get("/api/v1/waits", Some("ops")).status, 401);
    assert_eq!(port.get("/api/v1/waits", Some("bob")).status, 200);
}

#[test]
fn the_curl_lines_of_the_document_answer_what_it_shows() {
    let port = Port::guarded();
    let home = &port.server.home;
    let mut all = port.contended("bob", "deploy", 1);
    all.push(start(port.client("bob", &["hold", "orders/42"])));
    // So that there are events all the time.
    let program = env!("CARGO_BIN_EXE_coordinator");
    let mut busy = home.command("sh");
    busy.args(["-c", "while :; do \"$0\" lock quick -- true; done", program]);
    busy.env("COORDINATOR_SERVER", &port.server.address);
    busy.env("COORDINATOR_CREDENTIAL_FILE", home.path("bob"));
    all.push(start(busy));
    let document = include_str!("../../docs/api.md");
    let lock = port.get("/api/v1/locks/deploy", Some("ops")).json();
    let token = lock["lock"]["holders"][0]["token"].to_string();
    let mut tried = 0;
    for block in document.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let (line, shown) = block.strip_prefix("$ ").unwrap().split_once('\n').unwrap();
        let mut line = line.to_owned();
        let mut shown = shown;
        while line.ends_with('\\') {
            let (next, rest) = shown.split_once('\n').unwrap();
            line = line.trim_end_matches('\\').to_owned() + next.trim_start_matches("> ");
            shown = rest;
        }
        let line = line.replace("127.0.0.1:5626", &port.http).replace("1881", &token);
        let line = line.replace("~/.config/coordinator/credential", "ops");
        let is_stream = line.contains("-fsSN");
        // Of what never ends, the first line like the first that is shown.
        let word = shown.split_whitespace().next().unwrap();
        let line = if is_stream { format!("{line} | grep -m 1 '^{word}'") } else { line };
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", &line]);
        let done = run(command);
        assert_eq!(done.code(), Some(0), "{line}: {done:?}");
        if !is_stream {
            let answered: Value = serde_json::from_str(&done.out).unwrap();
            let shown: Value =
                serde_json::from_str(shown).unwrap_or_else(|why| panic!("{why}: {shown}"));
            assert_eq!(shape(&answered), shape(&shown), "{line}");
        }
        tried += 1;
    }
    assert!(tried >= 7, "{tried} lines were tried");
}

/// Which fields there are, of the first of each list.
fn shape(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = vec![(String::new(), value)];
    while let Some((at, value)) = rest.pop() {
        match value {
            Value::Object(fields) => {
                rest.extend(fields.iter().map(|(name, field)| (format!("{at}.{name}"), field)));
            }
            Value::Array(items) => {
                rest.extend(items.iter().take(1).map(|item| (format!("{at}[]"), item)));
            }
            _ => {
                found.insert(at);
            }
        }
    }
    found
}
