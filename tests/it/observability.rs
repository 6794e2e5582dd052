//! Probes and metrics of the real program, asked by curl's bytes, by promtool and by Prometheus itself.
//!
//! Debian has both in its package `prometheus`. Grafana is not in Debian: of its dashboard the expressions
//! are tried, and not how it looks.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{DEADLINE, Home, Running, Server, eventually, run, start, start_logging_to};

/// What is behind the head of the answer to a GET.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        dechunked(body)
    } else {
        body.to_owned()
    };
    (status, body)
}

/// Prometheus sends long answers in chunks.
fn dechunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length.trim(), 16).unwrap();
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap_or_default();
        if length == 0 {
            break;
        }
    }
    whole
}

/// A coordinator with probes, and where they are answered.
struct Observed {
    server: Server,
    http: String,
}

impl Observed {
    fn start() -> Self {
        let logs = Home::new();
        let log = logs.path("log");
        let stdio = Stdio::from(File::create(&log).unwrap());
        let server = Server::start_logging_to(stdio, &["--http-listen", "127.0.0.1:0"]);
        let http = eventually("the log names the port", || {
            let text = fs::read_to_string(&log).ok()?;
            let (_, rest) = text.split_once("probes and metrics on http://")?;
            rest.split_once('\n').map(|(address, _)| address.to_owned())
        });
        Self { server, http }
    }

    /// Something happens of all kinds: a pair, a queue, a revocation, a rejection.
    fn be_busy(&self) -> [Running; 2] {
        let client = |words: &[&str]| self.server.client(words);
        assert_eq!(run(client(&["lock", "quick", "--", "true"])).code(), Some(0));
        let stuck = start(client(&["hold", "stuck"]));
        let token = self.server.held("stuck").to_string();
        let waiting = start(client(&["hold", "stuck"]));
        self.server.waited_for_by("stuck", 1);
        assert_eq!(run(client(&["try", "stuck", "--", "true"])).code(), Some(75));
        let revoked = run(client(&["release", "stuck", "--force", "--token", &token]));
        assert_eq!(revoked.code(), Some(0), "{revoked:?}");
        self.server.waited_for_by("stuck", 0);
        let next = start(client(&["hold", "stuck"]));
        self.server.waited_for_by("stuck", 1);
        stuck.end();
        [waiting, next]
    }

    /// What a metric says; none if it is not there.
    fn value(&self, metric: &str) -> Option<f64> {
        let (_, text) = get(&self.http, "/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.to_str().unwrap().to_owned()
}

/// promtool with these words, and this to read.
fn promtool(words: &[&str], input: &str) {
    let mut child = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing: install it (Debian: apt-get install prometheus)");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {words:?}: {said}");
    assert!(!said.contains("FAILED"), "promtool {words:?}: {said}");
}

#[test]
fn counts_agree_with_what_happened_and_promtool_finds_nothing_wrong() {
    let observed = Observed::start();
    assert_eq!(get(&observed.http, "/livez"), (200, "ok\n".to_owned()));
    assert_eq!(get(&observed.http, "/readyz"), (200, "ready\n".to_owned()));
    let busy = observed.be_busy();
    // A scrape is half a second old at most.
    let is = |metric: &str, expected: f64| {
        eventually(metric, || (observed.value(metric)? - expected).abs().lt(&0.5).then_some(()));
    };
    is("coordinator_requests{state=\"waiting\"}", 1.0);
    is("coordinator_revocations_total", 1.0);
    is("coordinator_losses_total{reason=\"Revoked\"}", 1.0);
    is("coordinator_rejections_total{code=\"Busy\"}", 1.0);
    is("coordinator_grants_total{path=\"immediate\"}", 2.0);
    is("coordinator_grants_total{path=\"queued\"}", 1.0);
    is("coordinator_releases_total", 1.0);
    is("coordinator_wait_seconds_count", 3.0);
    is("coordinator_hold_seconds_count", 2.0);
    is("coordinator_contended_locks", 1.0);
    is("coordinator_longest_queue", 1.0);
    assert!(observed.value("coordinator_oldest_wait_seconds").unwrap() > 0.0);
    let (_, text) = get(&observed.http, "/metrics");
    promtool(&["check", "metrics"], &text);
    drop(busy);
}

#[test]
fn alerts_are_rules_that_fire_and_do_not_fire_as_their_tests_say() {
    promtool(&["check", "rules", &repository("deploy/prometheus/alerts.yml")], "");
    promtool(&["test", "rules", &repository("deploy/prometheus/alerts_test.yml")], "");
}

/// The names behind this word in a file.
fn names<'t>(text: &'t str, word: &str) -> BTreeSet<&'t str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(word)).map(str::trim).collect()
}

#[test]
fn of_each_alert_is_said_what_to_do_and_when_it_fires_and_when_not() {
    let read = |path: &str| fs::read_to_string(repository(path)).unwrap();
    let rules = read("deploy/prometheus/alerts.yml");
    let alerts = names(&rules, "- alert:");
    assert!(alerts.len() > 10);
    let manual = read("docs/operations.md");
    let chapters: BTreeSet<_> =
        names(&manual, "### ").into_iter().filter(|it| it.starts_with("Coordinator")).collect();
    assert_eq!(chapters, alerts, "chapters of docs/operations.md, and alerts");
    let tests = read("deploy/prometheus/alerts_test.yml");
    for alert in alerts {
        for case in ["fires", "does not fire"] {
            assert!(tests.contains(&format!("- name: {alert} {case}\n")), "{alert} {case}");
        }
    }
}

/// All expressions of the dashboard, with its variables filled in.
fn expressions() -> Vec<String> {
    let text = fs::read_to_string(repository("deploy/grafana/coordinator.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let filled = targets.map(|target| {
        let expression = target["expr"].as_str().unwrap();
        expression
            .replace("$__rate_interval", "1m")
            .replace("$job", "coordinator")
            .replace("$instance", ".*")
    });
    filled.collect()
}

#[test]
fn prometheus_scrapes_and_each_curve_of_the_dashboard_has_something_to_show() {
    let observed = Observed::start();
    let busy = observed.be_busy();
    let home = Home::new();
    fs::write(
        home.path("prometheus.yml"),
        format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
         scrape_configs:\n  - job_name: coordinator\n    static_configs: [{{targets: [\"{}\"]}}]\n",
            repository("deploy/prometheus/alerts.yml"),
            observed.http,
        ),
    )
    .unwrap();
    let log = home.path("prometheus.log");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", home.path("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", home.path("tsdb").display()))
        .arg("--web.listen-address=127.0.0.1:0");
    let prometheus = start_logging_to(Stdio::from(File::create(&log).unwrap()), command);
    let address = eventually("Prometheus listens", || {
        let text = fs::read_to_string(&log).ok()?;
        let line = text.lines().find(|line| line.contains("msg=\"Listening on\""))?;
        line.split_once("address=").map(|(_, address)| address.to_owned())
    });
    let ask = |path: &str| -> Value {
        let (status, body) = get(&address, path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    };
    let query = |expression: &str| {
        let encode = |encoded: String, byte| encoded + &format!("%{byte:02x}");
        let encoded = expression.bytes().fold(String::new(), encode);
        ask(&format!("/api/v1/query?query={encoded}"))["data"]["result"].as_array().unwrap().len()
    };
    eventually("Prometheus is ready", || (get(&address, "/-/ready").0 == 200).then_some(()));
    // Of what grows there is a rate once it was seen twice.
    eventually("two scrapes", || (query("rate(coordinator_grants_total[1m])") > 0).then_some(()));
    for expression in expressions() {
        // What is found by walking over the locks may come with a later scrape.
        let something = || (query(&expression) > 0).then_some(());
        eventually(&format!("something comes of {expression}"), something);
    }
    eventually("all rules are evaluated", || {
        let answer = ask("/api/v1/rules");
        let rules = answer["data"]["groups"][0]["rules"].as_array().unwrap();
        assert!(rules.len() > 10);
        rules.iter().all(|rule| rule["health"] == "ok").then_some(())
    });
    drop((prometheus, busy));
}

#[test]
fn a_port_of_anothers_is_done_without_unless_it_was_asked_for() {
    let observed = Observed::start();
    let home = Home::new();
    let words =
        ["serve", "--ephemeral", "--listen", "127.0.0.1:0", "--http-listen", &observed.http];
    let refused = run(home.coordinator(&words));
    assert_eq!(refused.code(), Some(75));
    assert!(refused.err.contains("for HTTP"), "{}", refused.err);
    assert!(refused.err.contains("--http-listen takes another address"), "{}", refused.err);
}
