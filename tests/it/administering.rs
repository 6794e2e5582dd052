//! What asks for more than to look, over HTTP: to have the configuration read again, and to be told metrics; and who
//! that is by a certificate.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::access::{credential, principal};
use crate::certificates::Authority;
use crate::port::{Answer, OURS, Port, private};
use crate::support::{Done, Home, eventually, run};

fn reload(port: &Port, who: Option<&str>) -> Answer {
    port.post("/api/v1/reload", who, OURS, "{}")
}

/// A coordinator with a configuration file and an access file, which may be changed.
fn configured() -> Port {
    let home = Home::new();
    let ops = "may = [ { do = [\"see\"], names = [\"*\"] }, { do = [\"admin\"] } ]";
    private(&home.path("access.toml"), &(principal("ops", ops) + &seer("ann", "a/*")));
    private(&home.path("c.toml"), "access-file = \"access.toml\"\n");
    Port::start(home, "--config c.toml --audit-log audit")
}

fn seer(name: &str, names: &str) -> String {
    principal(name, &format!("may = [ {{ do = [\"see\"], names = [{names:?}] }} ]"))
}

#[test]
fn who_administers_has_the_configuration_read_again_and_hears_what_came_of_it() {
    let port = configured();
    let home = &port.server.home;
    let write = |name: &str, text: &str| private(&home.path(name), text);
    let may = |who: &str| port.get("/api/v1/server", Some(who)).json()["may"].clone();
    assert_eq!(may("ann")[0]["names"], "a/*");

    let access = fs::read_to_string(home.path("access.toml")).unwrap();
    write("access.toml", &access.replace("a/*", "b/*"));
    write("c.toml", "access-file = \"access.toml\"\nlog = \"warn\"\nsessions-max = 7\n");
    let answer = reload(&port, Some("ops"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = answer.json();
    assert_eq!(told["needs_restart"], serde_json::json!(["sessions-max"]));
    let taken: Vec<&str> =
        told["reloaded"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        taken,
        [
            "the log filter is \"warn\" now (c.toml:2), it was \"info\"",
            "access file, open to 2 principals, nobody else"
        ]
    );
    assert_eq!(may("ann")[0]["names"], "b/*");

    write("c.toml", "access-file = \"access.toml\"\nsesions-max = 7\nlog-format = \"x\"\n");
    write("access.toml", &access.replace("[[principal]]", "[[principle]]"));
    let answer = reload(&port, Some("ops"));
    assert_eq!((answer.status, answer.code()), (422, "BadConfiguration".to_owned()), "{answer:?}");
    let mistakes = answer.json()["error"]["mistakes"].clone();
    let mistakes = mistakes.as_array().unwrap();
    assert_eq!(mistakes.len(), 2, "each mistake of the settings: {mistakes:?}");
    assert!(mistakes[0]["what"].as_str().unwrap().contains("sessions-max"), "{mistakes:?}");
    write("c.toml", "access-file = \"access.toml\"\n");
    let answer = reload(&port, Some("ops"));
    assert_eq!(answer.json()["error"]["mistakes"][0]["piece"], "access file", "{answer:?}");
    assert_eq!(may("ann")[0]["names"], "b/*", "nothing has changed");

    let told = eventually("the audit log has them", || {
        let text = fs::read_to_string(home.path("audit")).unwrap();
        let told: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let told: Vec<Value> = told.into_iter().filter(|it| it["event"] == "reload").collect();
        (told.len() == 3).then_some(told)
    });
    let results: Vec<_> = told.iter().map(|it| it["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["ok", "refused", "refused"]);
    for entry in told {
        assert_eq!(entry["principal"], "ops", "{entry}");
        assert!(entry["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{entry}");
    }
    eventually("the log names who asked", || {
        let log = fs::read_to_string(home.path("log")).unwrap();
        log.contains("HTTP, by ops at 127.0.0.1:").then_some(())
    });
}

#[test]
fn who_does_not_administer_reloads_nothing_and_that_is_audited() {
    let port = Port::guarded();
    for (who, status, code) in [
        (Some("ann"), 403, "Forbidden"),
        (Some("bob"), 403, "Forbidden"),
        (Some("mallory"), 401, "Unauthenticated"),
        (None, 401, "Unauthenticated"),
    ] {
        let answer = reload(&port, who);
        assert_eq!(
            (answer.status, answer.code()),
            (status, code.to_owned()),
            "{who:?}: {answer:?}"
        );
    }
    for (headers, body, status) in [
        ("", "{}", 403),
        ("X-Coordinator: 1\r\n", "{}", 403),
        (&*format!("{OURS}Origin: http://evil.example\r\n"), "{}", 403),
        (OURS, "{\"force\":true}", 400),
        (OURS, &*"x".repeat(4097), 413),
    ] {
        let answer = port.post("/api/v1/reload", Some("ops"), headers, body);
        assert_eq!(answer.status, status, "{headers} {body}: {answer:?}");
    }
    let home = &port.server.home;
    let audited = eventually("the audit log has it", || {
        let text = fs::read_to_string(home.path("audit")).unwrap();
        (text.matches("\"denied\"").count() == 2).then_some(text)
    });
    assert!(audited.contains("\"verb\":\"admin\""), "{audited}");
    assert!(!audited.contains("\"event\":\"reload\""), "{audited}");
    assert!(!fs::read_to_string(home.path("log")).unwrap().contains("reloaded"));
    let open = Port::open();
    let answer = reload(&open, None);
    assert_eq!(answer.status, 403, "without rules nothing is changed over HTTP: {answer:?}");
}

#[test]
fn metrics_are_for_who_sees_all_and_probes_for_everybody() {
    let port = Port::guarded();
    for (who, status) in [
        (Some("ops"), 200),
        (Some("bob"), 200),
        (Some("ann"), 403),
        (Some("mallory"), 401),
        (None, 401),
    ] {
        let answer = port.get("/metrics", who);
        assert_eq!(answer.status, status, "{who:?}: {answer:?}");
        assert_eq!(answer.body.contains("coordinator_epoch"), status == 200);
        for path in ["/livez", "/healthz", "/readyz", "/readyz?verbose"] {
            assert_eq!(port.get(path, who).status, 200, "{path} {who:?}");
        }
    }
    let basic = "Authorization: Basic eDp5\r\n\r\n";
    assert_eq!(port.ask("GET", "/metrics", None, basic).status, 401);
    // Without rules it does not matter what is shown.
    let open = Port::open();
    assert_eq!(open.ask("GET", "/metrics", None, basic).status, 200);
    // Those who are told them by a switch are told them whatever they show.
    let home = Home::new();
    private(&home.path("access.toml"), &seer("ann", "a/*"));
    let told = Port::start(home, "--access-file access.toml --metrics-open");
    for who in [None, Some("ann"), Some("mallory")] {
        assert_eq!(told.get("/metrics", who).status, 200, "{who:?}");
    }
}

/// A coordinator by TLS that knows a principal by its certificate, and how curl asks it.
struct Certified {
    port: Port,
}

impl Certified {
    fn start(demand: &str) -> Self {
        let home = Home::new();
        let (ours, others) =
            (Authority::new(&home.path("ca.pem")), Authority::new(&home.path("other-ca.pem")));
        let issue = |authority: &Authority, name: &str, host: &str| {
            let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
            authority.issue(&[host], &home.path(&cert), &home.path(&key));
        };
        issue(&ours, "server", "127.0.0.1");
        issue(&ours, "ops", "ops.internal");
        issue(&ours, "stranger", "stranger.internal");
        issue(&others, "forged", "ops.internal");
        let rules = "certificates = [\"dns:ops.internal\"]\n\
                     may = [ { do = [\"see\"], names = [\"*\"] } ]";
        private(&home.path("access.toml"), &(principal("ops", rules) + &seer("bob", "b")));
        let flags = format!(
            "--access-file access.toml --tls-cert server.pem --tls-key server.key \
             --tls-client-ca ca.pem --tls-client-auth {demand}"
        );
        Self { port: Port::start(home, &flags) }
    }

    fn curl(&self, path: &str, certificate: Option<&str>, who: Option<&str>) -> Done {
        let home = &self.port.server.home;
        let mut curl = Command::new("curl");
        curl.current_dir(home.path(".")).args(["-sS", "--cacert", "ca.pem", "-m", "60"]);
        curl.args(["-w", "\n%{http_code}"]);
        if let Some(name) = certificate {
            curl.args(["--cert", &format!("{name}.pem"), "--key", &format!("{name}.key")]);
        }
        if let Some(who) = who {
            curl.args(["-H", &format!("Authorization: Bearer {}", credential(who).reveal())]);
        }
        run({
            curl.arg(format!("https://{}{path}", self.port.http));
            curl
        })
    }

    fn status(&self, path: &str, certificate: Option<&str>, who: Option<&str>) -> String {
        let done = self.curl(path, certificate, who);
        done.out.lines().last().unwrap_or_default().to_owned()
    }
}

#[test]
fn a_certificate_proves_somebody_over_http_and_nobody_has_to_show_one() {
    for demand in ["required", "optional"] {
        let site = Certified::start(demand);
        let server = site.curl("/api/v1/server", Some("ops"), None);
        assert!(server.out.contains("\"principal\":\"ops\""), "{server:?}");
        for (path, certificate, who, expected) in [
            ("/metrics", Some("ops"), None, "200"),
            ("/metrics", None, None, "401"),
            ("/metrics", None, Some("ops"), "200"),
            ("/livez", None, None, "200"),
            ("/", None, None, "200"),
            ("/api/v1/waits", None, None, "401"),
            // Whose certificate names nobody is as one who shows none.
            ("/api/v1/waits", Some("stranger"), None, "401"),
            ("/api/v1/waits", Some("stranger"), Some("bob"), "200"),
            // Both have to name the same.
            ("/api/v1/waits", Some("ops"), Some("ops"), "200"),
            ("/api/v1/waits", Some("ops"), Some("bob"), "401"),
        ] {
            assert_eq!(
                site.status(path, certificate, who),
                expected,
                "{demand} {path} {certificate:?} {who:?}"
            );
        }
        let forged = site.curl("/livez", Some("forged"), None);
        assert_ne!(forged.code(), Some(0), "{forged:?}");
        assert_eq!(site.status("/livez", None, None), "200", "the port goes on");
    }
}

#[test]
fn a_handshake_of_the_http_port_that_waits_for_others_is_counted_and_told() {
    use std::io::Write;
    use std::net::TcpStream;
    let site = Certified::start("required");
    let begun = [0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    let greedy: Vec<TcpStream> = (0..65)
        .map(|_| {
            let mut stream = TcpStream::connect(&site.port.http).unwrap();
            stream.write_all(&begun).unwrap();
            stream
        })
        .collect();
    let home = &site.port.server.home;
    eventually("one of them waits", || {
        let log = fs::read_to_string(home.path("log")).unwrap();
        let told = "handshake waits: 64 with its address are under way peer=127.0.0.1:";
        log.contains(told).then_some(())
    });
    drop(greedy);
    let told = eventually("it is counted", || {
        let metrics = site.curl("/metrics", Some("ops"), None).out;
        let line =
            metrics.lines().find(|it| it.starts_with("coordinator_handshakes_delayed_total"));
        line.map(str::to_owned)
    });
    assert!(!told.ends_with(" 0"), "{told}");
    site.port.server.process.signal(Signal::TERM);
}
