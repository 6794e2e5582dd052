//! Every principal says everything about every name, over sockets, by credential, by certificate and by
//! nothing; what it hears is compared with a reference of the rules that knows nothing of the program's.

use std::fs;
use std::io::{Read as _, Write as _};

use bytes::BytesMut;
use coordinator::TlsOptions;
use coordinator::tls::Dialed;
use coordinator::types::{FencingToken, RejectionCode, RequestId};
use coordinator::wire::{
    self, Attach, ClientMessage, Mode, Query, RawClaim, ServerMessage, Wait, decode, encode_frame,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::access::{credential, principal};
use crate::certificates::Authority;
use crate::support::{DEADLINE, Home, Server, eventually};

/// Rules of a principal: verbs, and a pattern of names.
type Rules = &'static [(&'static [&'static str], &'static str)];

/// All principals with their rules.
const PRINCIPALS: [(&str, Rules); 10] = [
    ("idle", &[]),
    ("locker", &[(&["lock"], "a/b"), (&["lock"], "p/*")]),
    ("sharer", &[(&["share"], "a/b"), (&["share"], "p/*")]),
    ("seer", &[(&["see"], "a/b"), (&["see"], "p/*")]),
    ("breaker", &[(&["break"], "a/b"), (&["break"], "p/*")]),
    ("mixed", &[(&["lock"], "a/b"), (&["share", "see"], "p/*"), (&["break"], "p/x")]),
    ("able", &[(&["lock", "share", "see", "break"], "a/b"), (&["lock", "see", "break"], "p/*")]),
    ("all", &[(&["lock", "see"], "*")]),
    ("admin", &[(&["admin"], "")]),
    ("anyone", &[(&["see"], "public/*")]),
];

/// Whether rules allow a verb for a name: all that there is to it.
fn may(rules: Rules, verb: &str, name: &str) -> bool {
    rules.iter().any(|(verbs, pattern)| {
        let is_named = match pattern.strip_suffix("/*") {
            _ if *pattern == "*" => true,
            Some(prefix) => {
                name.len() > prefix.len() + 1 && name.starts_with(&format!("{prefix}/"))
            }
            None => name == *pattern,
        };
        let is_meant = verbs.contains(&verb) || verb == "share" && verbs.contains(&"lock");
        is_meant && is_named
    })
}

fn may_somewhere(rules: Rules, verbs: &[&str]) -> bool {
    rules.iter().any(|(allowed, _)| verbs.iter().any(|verb| allowed.contains(verb)))
}

/// Names that are nearly those of the rules.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    for base in ["a/b", "p/x", "p/x/y", "public/x"] {
        let (first, rest) = base.split_once('/').unwrap();
        names.extend([
            base.to_owned(),
            format!("{base}/c"),
            format!("{base}c"),
            format!("{base}/"),
            format!("/{base}"),
            format!("x/{base}"),
            format!("{first}//{rest}"),
            format!("{first}{rest}"),
            format!("{first}/"),
            first.to_owned(),
            base.to_uppercase(),
            format!("{base} "),
            format!(" {base}"),
            base.replace('a', "\u{430}").replace('p', "\u{440}"),
            base.replace('/', "\u{2044}"),
            base.replace('/', "\u{2215}"),
            base.replace('/', "\\"),
            format!("{first}/*"),
            format!("{first}/../{rest}"),
            format!("{first}%2F{rest}"),
            format!("{base}\u{301}"),
        ]);
    }
    names.extend(["*", "/", "//", "/*", "\u{fc}"].map(str::to_owned));
    names.extend([format!("p/{}", "l".repeat(253)), "l".repeat(255)]);
    names.sort();
    names.dedup();
    names
}

/// How a connection says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Credential,
    Certificate,
    Nothing,
    /// A certificate that names nobody.
    Stranger,
}

/// A connection, with all that it has heard.
pub(crate) struct Link {
    io: Dialed<TcpStream>,
    unread: BytesMut,
    /// Every byte that came.
    pub(crate) heard: Vec<u8>,
}

impl Link {
    pub(crate) async fn say(&mut self, messages: &[ClientMessage]) {
        let mut frames = BytesMut::new();
        for message in messages {
            encode_frame(message, &mut frames).unwrap();
        }
        self.io.write_all(&frames).await.unwrap();
        self.io.flush().await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> ServerMessage {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            if let Some(field) = self.unread.first_chunk::<4>() {
                let len = u32::from_le_bytes(*field) as usize;
                if self.unread.len() >= 4 + len {
                    let frame = self.unread.split_to(4 + len);
                    return decode(&frame[4..]).unwrap();
                }
            }
            let read = timeout(DEADLINE, self.io.read(&mut chunk)).await;
            let read = read.expect("nothing is answered").unwrap();
            assert!(read > 0, "the server closed the connection");
            self.heard.extend_from_slice(&chunk[..read]);
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }

    /// What a message is answered with, whatever happens beside it.
    pub(crate) async fn ask(&mut self, message: ClientMessage) -> ServerMessage {
        self.say(&[message]).await;
        loop {
            match self.hear().await {
                ServerMessage::Event { .. } | ServerMessage::Missed { .. } => {}
                answer => return answer,
            }
        }
    }
}

/// A coordinator with all principals.
pub(crate) struct Site {
    pub(crate) server: Server,
    /// Whether it speaks TLS.
    is_secure: bool,
}

impl Site {
    pub(crate) fn start(is_secure: bool) -> Self {
        let home = Home::new();
        let authority = Authority::new(&home.path("ca.pem"));
        let issue = |name: &str, host: &str| {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            authority.issue(&[host], &home.path(&cert), &home.path(&key));
        };
        issue("server", "127.0.0.1");
        issue("stranger", "stranger.internal");
        let mut text = String::new();
        for (name, rules) in PRINCIPALS {
            issue(name, &format!("{name}.internal"));
            let rule = |(verbs, names): &(&[&str], &str)| {
                let names =
                    if names.is_empty() { String::new() } else { format!(", names = [{names:?}]") };
                format!("{{ do = {verbs:?}{names} }}")
            };
            let rules: Vec<String> = rules.iter().map(rule).collect();
            let may = format!("may = [ {} ]", rules.join(", "));
            if name == "anyone" {
                text += "[anyone]\n";
                text += &may;
                text += "\n";
            } else {
                let certificate = format!("certificates = [\"dns:{name}.internal\"]");
                text.push_str(&principal(name, &format!("{certificate}\n{may}")));
            }
        }
        let access = home.path("access.toml");
        fs::write(&access, text).unwrap();
        let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
        let (cert, key, ca) = (path("server.pem"), path("server.key"), path("ca.pem"));
        let access = access.to_str().unwrap().to_owned();
        let mut flags = vec!["--looks-per-second", "10000", "--access-file", &access];
        if is_secure {
            flags.extend(["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
            flags.extend(["--tls-client-auth", "optional"]);
        }
        let line = "exec \"$0\" serve --ephemeral --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 \
            --port-file port \"$@\" 2>log";
        let mut command = home.command("sh");
        command.current_dir(home.path(".")).args(["-c", line, env!("CARGO_BIN_EXE_coordinator")]);
        command.args(flags);
        Self { server: Server::start_by_command(home, command), is_secure }
    }

    /// Where probes are answered, once the log has said so.
    pub(crate) fn http(&self) -> Option<String> {
        let log = fs::read_to_string(self.server.home.path("log")).ok()?;
        let (_, rest) = log.split_once("probes and metrics on http://")?;
        Some(rest.lines().next()?.to_owned())
    }

    /// A connection over a stream that somebody else made.
    async fn link(&self, tls: TlsOptions) -> Link {
        let stream = TcpStream::connect(&self.server.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let io = if self.is_secure {
            tls.secure(stream, "127.0.0.1").await.unwrap()
        } else {
            Dialed::Plain(stream)
        };
        Link { io, unread: BytesMut::new(), heard: Vec::new() }
    }

    /// A connection of a principal, under a name, that is welcome by its credential.
    pub(crate) async fn welcomed_as(&self, name: &str, attach: Attach, identity: &str) -> Link {
        let mut link = self.link(TlsOptions::new()).await;
        let credential = (&credential(name)).into();
        let hello = wire::Hello { ttl_ms: 600_000, ..wire::Hello::new(attach, identity) };
        link.say(&[ClientMessage::Authenticate { credential }, ClientMessage::Hello(hello)]).await;
        let answer = link.hear().await;
        assert!(matches!(answer, ServerMessage::Welcome { .. }), "{name}: {answer:?}");
        link
    }

    /// A connection of a principal, and what its Hello is answered with.
    async fn connect(&self, name: &str, way: Way, attach: Attach) -> (Link, ServerMessage) {
        let home = &self.server.home;
        let certificate = match way {
            Way::Certificate => Some(name),
            Way::Stranger => Some("stranger"),
            Way::Credential | Way::Nothing => None,
        };
        let mut tls = TlsOptions::new().server_ca(home.path("ca.pem"));
        if let Some(name) = certificate {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            tls = tls.client_cert(home.path(&cert), home.path(&key));
        }
        let mut link = self.link(tls).await;
        let hello = wire::Hello { ttl_ms: 600_000, ..wire::Hello::new(attach, "raw") };
        let mut messages = vec![ClientMessage::Hello(hello)];
        if way == Way::Credential {
            let credential = (&credential(name)).into();
            messages.insert(0, ClientMessage::Authenticate { credential });
        }
        link.say(&messages).await;
        let answer = link.hear().await;
        (link, answer)
    }
}

/// What is said of a name, and the verbs that it takes for which names.
fn about(name: &str) -> Vec<(ClientMessage, Vec<(&'static str, String)>)> {
    let (alone, shared) = (Mode::Exclusive, Mode::Shared);
    let permits = Mode::Permits { take: 1, of: 2 };
    let verb = |mode| if mode == Mode::Shared { "share" } else { "lock" };
    let mut all = Vec::new();
    let mut claims: Vec<Vec<(&str, Mode)>> =
        [alone, shared, permits].map(|mode| vec![(name, mode)]).to_vec();
    for other in ["a/b", "p/x", "b"].into_iter().filter(|other| *other != name) {
        claims.push(vec![(other, shared), (name, shared)]);
        claims.push(vec![(name, alone), (other, shared)]);
    }
    for (number, claims) in claims.into_iter().enumerate() {
        let needs = claims.iter().map(|(name, mode)| (verb(*mode), (*name).to_owned())).collect();
        let raw = claims.iter().map(|(name, mode)| RawClaim { name: (*name).into(), mode: *mode });
        let request = wire::Request { wait: Wait::Never, ..wire::Request::new(RequestId(1), raw) };
        let message = if number % 2 == 0 {
            ClientMessage::Request(request)
        } else {
            ClientMessage::RequestWith { request: Box::new(request), extras: Vec::new() }
        };
        all.push((message, needs));
    }
    let text = || name.to_owned();
    for (message, verb) in [
        (ClientMessage::Inspect { query_id: 1, query: Query::Lock { name: text() } }, "see"),
        (ClientMessage::Inspect { query_id: 1, query: Query::Outlook { name: text() } }, "see"),
        (ClientMessage::Watch { query_id: 1, name: text() }, "see"),
        (ClientMessage::Subscribe { query_id: 1, name: Some(text()) }, "see"),
        (ClientMessage::Revoke { query_id: 1, name: text(), token: FencingToken(1) }, "break"),
    ] {
        all.push((message, vec![(verb, text())]));
    }
    all
}

/// What went wrong, and how much was tried.
#[derive(Default)]
struct Count {
    cases: usize,
    allowed: usize,
    wrong: Vec<String>,
}

impl Count {
    fn note(&mut self, expected: bool, is_denied: bool, what: impl FnOnce() -> String) {
        self.cases += 1;
        self.allowed += usize::from(expected);
        if expected == is_denied {
            let how = if expected { "unexpected denial" } else { "unexpected allow" };
            self.wrong.push(format!("{how}: {}", what()));
        }
    }
}

/// Says everything over a connection that is welcome.
async fn say_everything(link: &mut Link, who: (&str, Way, bool), rules: Rules, count: &mut Count) {
    let mut latest = 0;
    for name in names() {
        let query = Query::Rights { name: name.clone() };
        let told = link.ask(ClientMessage::Inspect { query_id: 1, query }).await;
        // Sessions look at a pace.
        if let ServerMessage::Rights { verbs, .. } = told {
            for verb in ["lock", "share", "see", "break"] {
                let is_told = verbs.iter().any(|told| told == verb);
                count.note(may(rules, verb, &name), !is_told, || {
                    format!("{who:?} {verb} {name:?}: {verbs:?}")
                });
            }
        }
        for (mut message, needs) in about(&name) {
            latest += 1;
            let id = RequestId(latest);
            let is_request = match &mut message {
                ClientMessage::Request(request) => {
                    request.request = id;
                    true
                }
                ClientMessage::RequestWith { request, .. } => {
                    request.request = id;
                    true
                }
                _ => false,
            };
            let expected = needs.iter().all(|(verb, name)| may(rules, verb, name));
            let shown = format!("{who:?} {message:?}");
            let is_watch = matches!(message, ClientMessage::Watch { .. });
            let answer = link.ask(message).await;
            let code = match &answer {
                ServerMessage::Rejected { code, .. } => Some(*code),
                _ => None,
            };
            count.note(expected, code == Some(RejectionCode::Forbidden), || {
                format!("{shown}: {answer:?}")
            });
            if let ServerMessage::Grant { request, token, .. } = answer {
                let released = link.ask(ClientMessage::Release { request, token }).await;
                assert!(matches!(released, ServerMessage::Released { .. }), "{released:?}");
            } else if is_request && expected {
                assert_eq!(code, Some(RejectionCode::SessionNeeded), "{shown}: {answer:?}");
            }
            if is_watch && expected {
                link.say(&[ClientMessage::Unwatch { name: name.clone() }]).await;
            }
        }
    }
}

#[test]
fn ten_thousand_questions_are_answered_as_the_rules_say() {
    let site = Site::start(true);
    let mut count = Count::default();
    Runtime::new().unwrap().block_on(async {
        for (name, rules) in PRINCIPALS {
            let ways: &[Way] = if name == "anyone" {
                &[Way::Nothing, Way::Stranger]
            } else {
                &[Way::Credential, Way::Certificate]
            };
            for way in ways {
                for (attach, expected) in [
                    (Attach::New, may_somewhere(rules, &["lock", "share"])),
                    (Attach::Observer, !rules.is_empty()),
                ] {
                    let is_session = attach == Attach::New;
                    let (mut link, answer) = site.connect(name, *way, attach).await;
                    let is_denied = !matches!(answer, ServerMessage::Welcome { .. });
                    count.note(expected, is_denied, || format!("{name} {way:?}: {answer:?}"));
                    if !is_denied {
                        let who = (name, *way, is_session);
                        say_everything(&mut link, who, rules, &mut count).await;
                    }
                }
            }
        }
    });
    let Count { cases, allowed, wrong } = count;
    assert!(wrong.is_empty(), "{} of {cases}: {:#?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert!(cases >= 10_000, "{cases}");
    assert!(allowed * 20 >= cases, "of {cases} only {allowed} are allowed");
}

#[test]
fn metrics_and_reloads_are_for_those_whom_the_rules_allow_them() {
    let site = Site::start(false);
    let mut allowed = 0;
    for (name, rules) in PRINCIPALS {
        let shown = (name != "anyone").then_some(name);
        let sees_all =
            rules.iter().any(|(verbs, pattern)| verbs.contains(&"see") && *pattern == "*");
        let administers = may_somewhere(rules, &["admin"]);
        for (method, path, may) in
            [("GET", "/metrics", sees_all), ("POST", "/api/v1/reload", administers)]
        {
            let heard = eventually("HTTP answers", || http(&site, method, path, shown));
            let heard = String::from_utf8_lossy(&heard);
            let expected = if may { "HTTP/1.1 200 " } else { "HTTP/1.1 403 " };
            assert!(heard.starts_with(expected), "{name} {method} {path}: {heard}");
            assert_eq!(heard.contains("coordinator_epoch"), may && method == "GET", "{name}");
            allowed += usize::from(may);
        }
    }
    assert_eq!(allowed, 2, "one of them sees all, and one administers");
}

/// All that the HTTP port says to a question, of somebody who shows a credential or nothing.
pub(crate) fn http(site: &Site, method: &str, path: &str, shown: Option<&str>) -> Option<Vec<u8>> {
    let mut stream = std::net::TcpStream::connect(site.http()?).ok()?;
    let shown =
        shown.map(|name| format!("Authorization: Bearer {}\r\n", credential(name).reveal()));
    let shown = shown.unwrap_or_default();
    let asked = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Coordinator: 1\r\n\
         Content-Type: application/json\r\n{shown}\r\n"
    );
    stream.write_all(asked.as_bytes()).ok()?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).ok()?;
    (!heard.is_empty()).then_some(heard)
}

#[test]
fn who_shows_what_proves_another_or_nobody_is_welcome_as_neither() {
    let site = Site::start(true);
    Runtime::new().unwrap().block_on(async {
        let home = &site.server.home;
        for (certificate, shown, is_welcome) in [
            ("able", "able", true),
            ("able", "all", false),
            ("able", "nobody", false),
            ("stranger", "able", true),
            ("stranger", "nobody", false),
        ] {
            let tls = TlsOptions::new().server_ca(home.path("ca.pem"));
            let (cert, key) = (format!("{certificate}.pem"), format!("{certificate}.key"));
            let tls = tls.client_cert(home.path(&cert), home.path(&key));
            let mut link = site.link(tls).await;
            let credential = (&credential(shown)).into();
            // Each in a write of its own: what comes first is kept for the Hello.
            link.say(&[ClientMessage::Authenticate { credential }]).await;
            link.say(&[ClientMessage::Hello(wire::Hello::new(Attach::New, "raw"))]).await;
            let answer = link.hear().await;
            match answer {
                ServerMessage::Welcome { .. } => assert!(is_welcome, "{certificate} {shown}"),
                ServerMessage::Goodbye { rejection, .. } => {
                    assert!(!is_welcome, "{certificate} {shown}");
                    assert_eq!(rejection, RejectionCode::Unauthenticated);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}
