//! The port, over streams in memory with paused time, and over real sockets.

use std::io::{Read, Write};
use std::iter;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::accept::{self, HEADERS_BYTES_MAX, HEADERS_TIMEOUT, LAST_ANSWER_TIMEOUT, LIFE_MAX};
use super::caller::Caller;
use super::guard::Guard;
use super::*;
use crate::server::{self, Config, Spawned};

fn local() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// A coordinator with nothing in it.
fn coordinator() -> Spawned {
    server::spawn(Config { listen: local(), ..Config::default() }).unwrap()
}

/// A coordinator, and its HTTP port.
fn port() -> (Spawned, HttpPort) {
    let coordinator = coordinator();
    let listener = HttpPort::bind(local()).unwrap();
    let hosts = vec!["locks.internal".parse().unwrap()];
    let options = HttpOptions { hosts, ..HttpOptions::default() };
    let port = HttpPort::open(listener, coordinator.looker(), options).unwrap();
    (coordinator, port)
}

/// What is answered to these bytes, until the connection is closed.
fn ask(port: &HttpPort, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(port.local_addr()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // What is not read on is reset, perhaps before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn get(port: &HttpPort, path: &str, headers: &str) -> String {
    ask(port, format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n").as_bytes())
}

/// What has been answered by now, which is left where it is.
#[cfg(feature = "access")]
fn answered(stream: &TcpStream) -> String {
    stream.set_nonblocking(true).unwrap();
    let mut start = [0; 64];
    let len = stream.peek(&mut start).unwrap_or(0);
    String::from_utf8_lossy(&start[..len]).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[test]
fn probes_and_metrics_answer_whatever_the_port_is_called() {
    let (_coordinator, port) = port();
    for path in ["/livez", "/healthz", "/readyz", "/readyz?verbose", "/leaderz", "/metrics"] {
        for headers in ["Host: pod-7.example\r\n", "Host: localhost\r\n", ""] {
            let answer = get(&port, path, headers);
            assert_eq!(status(&answer), "200", "{path} {headers}: {answer}");
        }
    }
    let answer = get(&port, "/readyz?verbose", "");
    assert!(
        answer.contains("\r\nready\n") || answer.contains("ready\ndraining: false"),
        "{answer}"
    );
}

#[test]
fn each_probe_is_counted_by_its_own_name() {
    let (_coordinator, port) = port();
    for path in ["/livez", "/healthz", "/readyz", "/leaderz", "/elsewhere"] {
        get(&port, path, "Host: localhost\r\n");
    }
    let told = get(&port, "/metrics", "");
    for (route, status, count) in [
        ("/livez", "200", 2),
        ("/readyz", "200", 1),
        ("/leaderz", "200", 1),
        ("other", "200", 0),
        ("other", "404", 1),
    ] {
        let line = format!(
            "coordinator_http_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
        );
        assert!(told.contains(&line), "{line}");
    }
}

#[test]
fn what_is_called_by_a_strangers_name_is_not_answered() {
    let (_coordinator, port) = port();
    for (host, expected) in [
        ("localhost", "200"),
        ("127.0.0.1:5626", "200"),
        ("LOCKS.internal", "200"),
        ("evil.example", "421"),
        ("127.0.0.1.evil.example", "421"),
    ] {
        let answer = get(&port, "/", &format!("Host: {host}\r\n"));
        assert_eq!(status(&answer), expected, "{host}: {answer}");
    }
    assert_eq!(status(&get(&port, "/", "Host: localhost\r\nHost: evil.example\r\n")), "400");
    assert_eq!(status(&get(&port, "http://evil.example/", "Host: localhost\r\n")), "421");
}

#[test]
fn nothing_can_be_changed_and_nothing_else_is_there() {
    let (_coordinator, port) = port();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let text = format!(
            "{method} /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = ask(&port, text.as_bytes());
        assert_eq!(status(&answer), "405", "{method}: {answer}");
        assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
    }
    for path in ["/metrics/", "/api/v2/locks", "/..%2f..%2fetc/passwd", "/livez/x"] {
        assert_eq!(status(&get(&port, path, "Host: localhost\r\n")), "404", "{path}");
    }
}

const POST: &str = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Coordinator: 1\r\n\
                    Content-Type: application/json\r\nContent-Length: 40\r\n\r\n";

#[test]
fn a_stranger_is_refused_before_what_comes_behind_the_headers_is_read() {
    let (_coordinator, port) = port();
    for path in ["/api/v1/locks/x/revoke", "/api/v1/reload"] {
        let answer = ask(&port, format!("POST {path} {POST}").as_bytes());
        assert_eq!(status(&answer), "403", "{path}: {answer}");
    }
    #[cfg(feature = "access")]
    {
        let (_coordinator, port) = port_for_anyone("\"see\"], names = [\"a/*\"");
        let answer = ask(&port, format!("POST /api/v1/locks/x/revoke {POST}").as_bytes());
        assert_eq!(status(&answer), "403", "{answer}");
    }
}

/// A coordinator and its port, where anyone may do this.
#[cfg(feature = "access")]
fn port_for_anyone(may: &str) -> (Spawned, HttpPort) {
    port_with(&format!("[anyone]\nmay = [ {{ do = [{may}] }} ]\n"), Config::default())
}

/// A coordinator with these rules, and its port.
#[cfg(feature = "access")]
fn port_with(rules: &str, config: Config) -> (Spawned, HttpPort) {
    let access = Arc::new(crate::access::parse(rules).unwrap().access);
    let coordinator = server::spawn(Config { listen: local(), access, ..config }).unwrap();
    let listener = HttpPort::bind(local()).unwrap();
    let port = HttpPort::open(listener, coordinator.looker(), HttpOptions::default()).unwrap();
    (coordinator, port)
}

/// What is told late that it proves nobody takes none of the room of those who are somebody.
#[cfg(feature = "access")]
#[test]
fn whoever_proves_nobody_keeps_nobody_out() {
    let (_coordinator, port) = port_for_anyone("\"see\"], names = [\"*\"");
    let stranger = |_| {
        let mut stream = TcpStream::connect(port.local_addr()).unwrap();
        let wrong = b"GET /api/v1/server HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n";
        stream.write_all(wrong).unwrap();
        stream
    };
    let mut refused = 0;
    for _ in 0..4 {
        let strangers: Vec<TcpStream> = (0..routes::REQUESTS_MAX).map(stranger).collect();
        // Turned away for want of room, or as nobody.
        let are_heard = (0..30_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            strangers.iter().any(|stream| !answered(stream).is_empty())
        });
        assert!(are_heard, "strangers are not even heard");
        for path in ["/api/v1/server", "/api/v1/waits", "/metrics"] {
            let answer = get(&port, path, "Host: localhost\r\n");
            refused += usize::from(status(&answer) != "200");
        }
        drop(strangers);
    }
    assert_eq!(refused, 0, "of twelve that are somebody");
}

/// Looks stand in line for many seconds, and what is to be taken away does not stand behind them.
#[cfg(feature = "access")]
#[test]
fn a_lock_is_taken_away_at_once_however_many_look() {
    const QUEUED: usize = 8;
    let rules = "[anyone]\nmay = [ { do = [\"lock\", \"see\", \"break\"], names = [\"*\"] } ]\n";
    let config = Config { looks_per_second: 1, ..Config::default() };
    let (coordinator, port) = port_with(rules, config);
    let address = coordinator.local_addr().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.block_on(async {
        let client = crate::Client::connect(address.as_str()).await.unwrap();
        client.lock("x").await.unwrap()
    });
    // All that may be looked at without a pause, and what comes to it in the second that this takes.
    for _ in 0..66 {
        get(&port, "/api/v1/server", "Host: localhost\r\n");
    }
    // Each at something else: none of them is answered by the look of another.
    let look = |number| {
        let mut stream = TcpStream::connect(port.local_addr()).unwrap();
        let asked = format!("GET /api/v1/locks/{number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(asked.as_bytes()).unwrap();
        stream
    };
    let looking: Vec<TcpStream> = (0..QUEUED).map(look).collect();
    let body = format!("{{\"token\":{},\"reason\":\"stuck\"}}", guard.token());
    let head = POST.replace("40", &body.len().to_string());
    let answer = ask(&port, format!("POST /api/v1/locks/x/revoke {head}{body}").as_bytes());
    let is_waiting = looking.iter().any(|stream| answered(stream).is_empty());
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(is_waiting, "all looks were over before");
    assert_eq!(runtime.block_on(guard.lost()), crate::types::LostReason::Revoked);
}

/// What is taken away is looked at on the line on which that is asked for.
#[cfg(feature = "access")]
#[test]
fn a_lock_is_taken_away_by_one_connection() {
    let credential = crate::Credential::from_random([7; 32]);
    let digest = crate::access::Digest::of(credential.reveal());
    let rules = format!(
        "[[principal]]\nname = \"ops\"\ncredentials = [\"{digest}\"]\nconnections-max = 1\n\
         may = [ {{ do = [\"see\", \"break\"], names = [\"*\"] }} ]\n\
         [anyone]\nmay = [ {{ do = [\"lock\"], names = [\"*\"] }} ]\n"
    );
    let (coordinator, port) = port_with(&rules, Config::default());
    let address = coordinator.local_addr().to_string();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = runtime.block_on(async {
        let client = crate::Client::connect(address.as_str()).await.unwrap();
        client.lock("x").await.unwrap()
    });
    let body = format!("{{\"token\":{},\"reason\":\"stuck\"}}", guard.token());
    let shown = format!("{}\r\nAuthorization: Bearer {}\r\n\r\n", body.len(), credential.reveal());
    let head = POST.replace("40\r\n\r\n", &shown);
    let answer = ask(&port, format!("POST /api/v1/locks/x/revoke {head}{body}").as_bytes());
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.contains("\"held_ms\""), "one connection too many saw nothing: {answer}");
}

#[cfg(feature = "access")]
#[test]
fn probes_are_answered_however_many_others_keep_all_the_room() {
    let (_coordinator, port) = port_for_anyone("\"see\", \"break\"], names = [\"*\"");
    let half = |_| {
        let mut stream = TcpStream::connect(port.local_addr()).unwrap();
        stream.write_all(format!("POST /api/v1/locks/x/revoke {POST}").as_bytes()).unwrap();
        stream
    };
    let kept: Vec<TcpStream> = (0..2 * routes::REQUESTS_MAX).map(half).collect();
    let is_full = || {
        let full = status(&get(&port, "/api/v1/server", "Host: localhost\r\n")) == "503";
        let probes = ["/livez", "/healthz", "/readyz", "/leaderz"];
        // Before and after, or the room may have come back in between.
        full && probes.iter().all(|path| status(&get(&port, path, "")) == "200")
            && status(&get(&port, "/api/v1/server", "Host: localhost\r\n")) == "503"
    };
    assert!((0..1_000).any(|_| is_full()));
    drop(kept);
}

#[test]
fn every_answer_tells_browsers_to_run_frame_keep_and_guess_nothing() {
    let (_coordinator, port) = port();
    for (path, host) in [("/", "localhost"), ("/metrics", "x"), ("/none", "localhost"), ("/", "x")]
    {
        let answer = get(&port, path, &format!("Host: {host}\r\n")).to_lowercase();
        for header in [
            "content-security-policy: default-src 'none';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            // Files of the page are kept, and asked for again.
            "cache-control: no-",
        ] {
            assert!(answer.contains(header), "{path} {host}: {header} is missing in {answer}");
        }
        assert!(!answer.contains("set-cookie"), "{answer}");
    }
}

#[test]
fn what_is_too_long_or_is_no_http_is_refused_and_the_port_goes_on() {
    let (_coordinator, port) = port();
    let long = "x".repeat(HEADERS_BYTES_MAX + 1);
    let answer = get(&port, "/livez", &format!("X: {long}\r\n"));
    assert!(["431", ""].contains(&status(&answer)), "{answer}");
    let many = "X: y\r\n".repeat(accept::HEADERS_MAX + 1);
    assert_eq!(status(&get(&port, "/livez", &many)), "431");
    let body = |length: usize| {
        let head =
            format!("GET /livez HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        ask(&port, &[head.as_bytes(), &vec![b'x'; length]].concat())
    };
    assert_eq!(status(&body(4096)), "200");
    assert_eq!(status(&body(4097)), "413");
    let chunked = "Transfer-Encoding: chunked\r\n";
    assert_eq!(status(&get(&port, "/livez", chunked)), "413");
    let two = "Content-Length: 1\r\nContent-Length: 2\r\n";
    assert_eq!(status(&get(&port, "/livez", two)), "400");
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"hello\r\n\r\n",
        b"\0\0\r\n\r\n",
    ] {
        assert!(["400", ""].contains(&status(&ask(&port, nonsense))), "{nonsense:?}");
    }
    assert_eq!(status(&get(&port, "/livez", "")), "200");
}

#[tokio::test]
async fn more_connections_than_there_are_places_are_closed_and_places_come_back() {
    const PLACES: usize = 8;
    // An address has three quarters of them.
    const ITS_OWN: usize = 6;
    let coordinator = coordinator();
    let listener = HttpPort::bind(local()).unwrap();
    let address = listener.local_addr().unwrap();
    let (looker, router) = (coordinator.looker(), routes(&coordinator));
    tokio::spawn(accept::serve(listener, looker, router, Secure::default(), PLACES));
    let connect = || tokio::net::TcpStream::connect(address);
    let ask = async |stream: &mut tokio::net::TcpStream| {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut start = [0; 12];
        // Closed before or after that was written: the end, or a reset.
        stream.read_exact(&mut start).await.is_ok_and(|_| start == *b"HTTP/1.1 200")
    };
    let mut inside = Vec::new();
    for _ in 0..ITS_OWN {
        let mut stream = connect().await.unwrap();
        assert!(ask(&mut stream).await);
        inside.push(stream);
    }
    assert!(!ask(&mut connect().await.unwrap()).await, "there is no place");
    drop(inside.pop());
    for _ in 0..10_000 {
        if ask(&mut connect().await.unwrap()).await {
            return;
        }
    }
    panic!("a place does not come back");
}

/// A connection to the routes of a port, in memory; what is spawned for it ends with the test.
fn connection(router: &Router) -> DuplexStream {
    let (ours, theirs) = duplex(4096);
    let router = router.clone();
    tokio::spawn(async move {
        let _ = accept::serve_one(theirs, Caller::default(), router).await;
    });
    ours
}

fn routes(coordinator: &Spawned) -> Router {
    let guard = Guard::new(Ipv4Addr::LOCALHOST.into(), Vec::new());
    routes::router(coordinator.looker(), Arc::new(guard), MetricsFor::default(), None)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_or_half_is_left_in_time() {
    let coordinator = coordinator();
    let routes = routes(&coordinator);
    for said in ["", "GET /livez HT", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut stream = connection(&routes);
        let began = Instant::now();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let took = began.elapsed();
        assert!(took >= HEADERS_TIMEOUT && took < HEADERS_TIMEOUT * 2, "{said:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_silent_after_an_answer_is_left_too_and_one_that_does_not_read() {
    let coordinator = coordinator();
    let routes = routes(&coordinator);
    let mut stream = connection(&routes);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let began = Instant::now();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert!(began.elapsed() < HEADERS_TIMEOUT * 2);

    // So many answers as do not fit into what lies between.
    let mut stream = connection(&routes);
    let began = Instant::now();
    loop {
        let request = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        if request.await.is_err() {
            break;
        }
    }
    let took = began.elapsed();
    assert!(took >= LIFE_MAX && took <= LIFE_MAX + LAST_ANSWER_TIMEOUT * 2, "{took:?}");
}

/// Rule A4.
#[cfg(feature = "access")]
#[test]
fn where_there_are_rules_metrics_are_for_those_who_see_all_and_probes_for_everybody() {
    let by_rules = |names: &str| {
        let text = format!("[anyone]\nmay = [ {{ do = [\"see\"], names = [{names:?}] }} ]\n");
        let access = Arc::new(crate::access::parse(&text).unwrap().access);
        server::spawn(Config { listen: local(), access, ..Config::default() }).unwrap()
    };
    for (names, metrics, expected) in [
        ("*", MetricsFor::WhoSeesAll, "200"),
        ("a/*", MetricsFor::WhoSeesAll, "403"),
        ("a/*", MetricsFor::Anybody, "200"),
    ] {
        let coordinator = by_rules(names);
        let listener = HttpPort::bind(local()).unwrap();
        let options = HttpOptions { metrics, ..HttpOptions::default() };
        let port = HttpPort::open(listener, coordinator.looker(), options).unwrap();
        let answer = get(&port, "/metrics", "Host: pod-7.example\r\n");
        assert_eq!(status(&answer), expected, "{names}: {answer}");
        for path in ["/livez", "/healthz", "/readyz"] {
            assert_eq!(status(&get(&port, path, "")), "200", "{path}");
        }
    }
}

#[test]
fn a_coordinator_that_is_gone_is_neither_alive_nor_ready() {
    let (coordinator, port) = port();
    coordinator.drain();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(&get(&port, path, "")), "503", "{path}");
    }
}

#[test]
fn the_text_has_a_line_of_help_for_each_metric_and_no_name_that_a_client_chose() {
    let (coordinator, port) = port();
    let address = coordinator.local_addr().to_string();
    let before = get(&port, "/metrics", "").lines().count();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guards = runtime.block_on(async {
        let client =
            crate::Client::builder().identity("canary-identity").connect(address).await.unwrap();
        let mut guards = Vec::new();
        for name in ["canary-\u{202e}lock", "canary\"} 1", "canary\\u{}"] {
            guards.push(client.lock(name).note("canary-note").await.unwrap());
        }
        guards
    });
    // A scrape is half a second old at most.
    let mut scrapes = iter::repeat_with(|| get(&port, "/metrics", "")).take(100_000);
    let is_current = |answer: &String| answer.contains("coordinator_locks 3");
    let answer = scrapes.find(is_current).unwrap();
    assert!(!answer.contains("canary"), "{answer}");
    assert_eq!(answer.lines().count(), before, "whatever clients do, there are as many series");
    drop(guards);
    let names = |kind: &str| -> Vec<String> {
        let lines = answer.lines().filter_map(|line| line.strip_prefix(kind));
        lines.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    assert_eq!(names("# HELP "), names("# TYPE "));
    let documented = include_str!("../../docs/operations.md");
    let listed: Vec<String> = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(['`', '{']).next())
        .filter(|name| name.starts_with("coordinator_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    let (mut told, mut listed) = (names("# TYPE "), listed);
    told.sort();
    listed.sort();
    assert_eq!(told, listed, "what is told, and what docs/operations.md lists");
}
