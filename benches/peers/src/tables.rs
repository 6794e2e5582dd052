//! The tables of docs/performance.md, each written between its markers.
//!
//! `<!-- closed-loop -->` begins the place of the table of that name, `<!-- end closed-loop -->`
//! ends it. What is around them is written by people and left alone. Results are kept beside the
//! plots, so that everything can be written anew from them.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::figures::{ACQUIRE_P50, CPU, Comparison, PER_SECOND, median};
use crate::workloads::{BATCHES, CLOSED, CROWDS, ITERATIONS, STORM, closed_name, crowd_name};
use crate::{Failure, cluster, libraries, plots};

/// Shown where there is no figure.
const NONE: &str = "–";
/// The services, in the order of the columns, and what they are called there.
pub(crate) const PEERS: [(&str, &str); 6] = [
    ("coordinator", "coordinator"),
    (WITHOUT_JOURNAL, "coordinator, journal off"),
    ("echo", "echo"),
    ("redis", "Redis"),
    ("etcd", "etcd"),
    ("zookeeper", "ZooKeeper"),
];
const US: &str = "coordinator";
/// The coordinator that keeps nothing, as the echo server does.
const WITHOUT_JOURNAL: &str = "coordinator-off";
const LIMIT: &str = "echo";
/// Services in which nothing goes from hand to hand.
const WITHOUT_QUEUE: [&str; 2] = [LIMIT, "redis"];

/// Where results and plots are.
fn directory(docs: &Path) -> PathBuf {
    docs.join("performance")
}

/// Keeps the raw results of this name.
pub(crate) fn keep(docs: &Path, name: &str, results: &Value) -> Result<(), Failure> {
    let directory = directory(docs);
    fs::create_dir_all(&directory)?;
    Ok(fs::write(directory.join(format!("{name}.json")), lines(results))?)
}

/// The results as JSON, one in each line.
pub(crate) fn lines(results: &Value) -> String {
    let mut head = results.clone();
    head["results"] = Value::Null;
    let each = results["results"].as_array().map_or(&[][..], Vec::as_slice);
    let each: Vec<String> = each.iter().map(Value::to_string).collect();
    let list = format!("\"results\":[\n{}\n]", each.join(",\n"));
    head.to_string().replacen("\"results\":null", &list, 1) + "\n"
}

/// Writes all tables and plots for which there are results.
pub(crate) fn write(docs: &Path) -> Result<(), Failure> {
    let page = docs.join("performance.md");
    let mut text = fs::read_to_string(&page)?;
    let directory = directory(docs);
    if let Some(results) = read(&directory.join("comparison.json"))? {
        let all = Comparison(&results);
        for (name, table) in [
            ("machine", machine(&results)),
            ("closed-loop", closed_loop(all)),
            ("closed-loop-cpu", closed_loop_cpu(all)),
            ("batches", batches(all)),
            ("hand-over", hand_over(all)),
            ("iterations", iterations(all)),
        ] {
            replace(&mut text, name, &table)?;
        }
        plots::draw(all, &directory)?;
    }
    if let Some(results) = read(&directory.join("tls.json"))? {
        replace(&mut text, "tls", &tls(Comparison(&results)))?;
        replace(&mut text, "storm", &storm(Comparison(&results)))?;
    }
    if let Some(results) = read(&directory.join("client.json"))? {
        replace(&mut text, "client", &with_machine(&results, &libraries::as_table(&results)))?;
    }
    if let Some(results) = read(&directory.join("cluster.json"))? {
        replace(&mut text, "cluster", &with_machine(&results, &cluster::as_table(&results)))?;
    }
    if let Some(results) = read(&directory.join("durable.json"))? {
        replace(&mut text, "durable", &durable(&results))?;
    }
    if let Some(results) = read(&directory.join("growth.json"))? {
        replace(&mut text, "memory", &memory(&results))?;
        replace(&mut text, "growth", &growth(&results))?;
    }
    Ok(fs::write(page, text)?)
}

/// What a figure is to be.
pub(crate) struct Goal {
    /// Which figure.
    what: String,
    /// As it was measured.
    measured: Option<f64>,
    /// As it is to be.
    bound: f64,
    /// Whether more than that is as good, or less.
    more_is_better: bool,
}

impl Goal {
    pub(crate) fn at_least(what: String, measured: Option<f64>, bound: f64) -> Self {
        Self { what, measured, bound, more_is_better: true }
    }

    pub(crate) fn at_most(what: String, measured: Option<f64>, bound: f64) -> Self {
        Self { what, measured, bound, more_is_better: false }
    }

    /// The line that says whether it was met.
    fn line(&self) -> String {
        let Self { what, measured, bound, more_is_better } = self;
        let sign = if *more_is_better { '≥' } else { '≤' };
        let word = match measured {
            None => "not measured",
            Some(it) if (it >= bound) == *more_is_better || it.total_cmp(bound).is_eq() => "met",
            Some(_) => "SHORT",
        };
        format!("{word:<12}  {what}: {} (goal {sign} {bound})", figure(*measured))
    }
}

/// The table of what was measured under this name, and which of its goals were met; empty for those
/// of which docs/performance.md alone has the tables.
pub(crate) fn verdict(name: &str, results: &Value) -> String {
    let (table, goals) = match name {
        "client" => (libraries::as_table(results), libraries::goals(results)),
        "cluster" => (cluster::as_table(results), cluster::goals(results)),
        "tls" => {
            let all = Comparison(results);
            (format!("{}\n{}", tls(all), storm(all)), tls_goals(all))
        }
        _ => return String::new(),
    };
    let goals: Vec<String> = goals.iter().map(Goal::line).collect();
    format!("\n{}\n{}\n", with_machine(results, &table), goals.join("\n"))
}

/// A table below the words about where it was measured.
fn with_machine(results: &Value, table: &str) -> String {
    machine(results) + "\n" + table
}

fn read(file: &Path) -> Result<Option<Value>, Failure> {
    if !file.exists() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&fs::read_to_string(file)?)?))
}

/// Puts `table` between the markers called `name`.
fn replace(text: &mut String, name: &str, table: &str) -> Result<(), Failure> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
    let from = text.find(&begin).map(|at| at + begin.len());
    let to = from.and_then(|from| text[from..].find(&end).map(|at| from + at));
    let (Some(from), Some(to)) = (from, to) else {
        return Err(format!("docs/performance.md has no place for {name}: {begin}{end}").into());
    };
    text.replace_range(from..to, &format!("\n{table}\n"));
    Ok(())
}

/// A table of cells.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len()));
    for row in rows {
        let _infallible = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A figure with three digits.
pub(crate) fn figure(figure: Option<f64>) -> String {
    match figure {
        None => NONE.to_owned(),
        Some(figure) if figure.abs() >= 100.0 => thousands(figure),
        Some(figure) if figure.abs() >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

/// A whole number, in groups of three.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn micros(nanos: Option<f64>) -> Option<f64> {
    nanos.map(|nanos| nanos / 1e3)
}

fn machine(results: &Value) -> String {
    let machine = &results["machine"];
    let text = |name: &str| machine[name].as_str().unwrap_or("unknown").to_owned();
    let rounds = results["results"].as_array().into_iter().flatten();
    let rounds = rounds.filter_map(|it| it["round"].as_u64()).max().unwrap_or(0);
    let versions = results["versions"].as_object().into_iter().flatten();
    let versions: BTreeSet<&str> = versions.filter_map(|(_, version)| version.as_str()).collect();
    let versions: Vec<&str> = versions.into_iter().collect();
    format!(
        "{} × {}, Linux {}; {rounds} rounds of {} s each. {}.\n",
        machine["processors"],
        text("processor"),
        text("kernel"),
        results["seconds"],
        versions.join("; "),
    )
}

fn closed_loop(all: Comparison) -> String {
    let rows = CLOSED.map(|connections| {
        let name = closed_name(connections);
        let mut row = vec![connections.to_string()];
        row.extend(PEERS.map(|(peer, _)| figure(all.median(&name, peer, PER_SECOND))));
        let ratios = [(US, LIMIT), (WITHOUT_JOURNAL, LIMIT), (US, "redis"), (US, "etcd")];
        row.extend(ratios.map(|(ours, peer)| {
            figure(all.ratio((&name, ours, PER_SECOND), (&name, peer, PER_SECOND)))
        }));
        row
    });
    let mut heads = vec!["connections"];
    heads.extend(PEERS.map(|(_, title)| title));
    heads.extend(["÷ echo", "off ÷ echo", "÷ Redis", "÷ etcd"]);
    table(&heads, &rows) + "\n![pairs per second, closed loop](performance/pairs.svg)\n"
}

fn closed_loop_cpu(all: Comparison) -> String {
    let rows = CLOSED.map(|connections| {
        let name = closed_name(connections);
        let mut row = vec![connections.to_string()];
        row.extend(PEERS.map(|(peer, _)| figure(micros(all.median(&name, peer, CPU)))));
        row.extend(
            [US, WITHOUT_JOURNAL]
                .map(|ours| figure(all.ratio((&name, ours, CPU), (&name, LIMIT, CPU)))),
        );
        row
    });
    let mut heads = vec!["connections"];
    heads.extend(PEERS.map(|(_, title)| title));
    heads.extend(["÷ echo", "off ÷ echo"]);
    table(&heads, &rows) + "\n![server CPU per pair, closed loop](performance/cpu.svg)\n"
}

/// A row for each service: pairs and CPU, and ours against it.
fn by_peer(all: Comparison, workload: &str) -> String {
    let rows = PEERS.map(|(peer, title)| {
        vec![
            title.to_owned(),
            figure(all.median(workload, peer, PER_SECOND)),
            figure(micros(all.median(workload, peer, CPU))),
            figure(all.ratio((workload, US, PER_SECOND), (workload, peer, PER_SECOND))),
            figure(all.ratio((workload, US, CPU), (workload, peer, CPU))),
        ]
    });
    let heads =
        ["service", "pairs/s", "server CPU per pair, µs", "our pairs/s ÷ its", "our CPU ÷ its"];
    table(&heads, &rows)
}

fn batches(all: Comparison) -> String {
    by_peer(all, BATCHES)
}

fn iterations(all: Comparison) -> String {
    by_peer(all, ITERATIONS)
}

/// The workloads whose cost by TLS is told, and how they are called.
fn tls_workloads() -> Vec<(String, String)> {
    let closed =
        [1, 8, 64].map(|count| (closed_name(count), format!("{count} in the closed loop")));
    let others = [(BATCHES, "64 pairs in a write"), (ITERATIONS, "a connection for each pair")];
    let others = others.map(|(workload, title)| (workload.to_owned(), title.to_owned()));
    closed.into_iter().chain(others).collect()
}

/// By TLS, the coordinator is to cost so many times what the echo server costs at most.
const TLS_GOAL: f64 = 1.15;

/// The service that is asked by these means. Neither of the two has a journal.
fn secured(peer: &str, by: &str) -> String {
    if peer == US && by.is_empty() { WITHOUT_JOURNAL.to_owned() } else { format!("{peer}{by}") }
}

/// The coordinator's CPU beside the echo server's, both by these means.
fn tls_ratio(all: Comparison, workload: &str, by: &str) -> Option<f64> {
    let (us, limit) = (secured(US, by), secured(LIMIT, by));
    all.ratio((workload, &us, CPU), (workload, &limit, CPU))
}

fn tls_goals(all: Comparison) -> Vec<Goal> {
    // Of the bytes of 64 pairs, the echo server costs next to nothing.
    let judged = tls_workloads().into_iter().filter(|(workload, _)| workload != BATCHES);
    let goals = judged.flat_map(|(workload, title)| {
        [("-tls", "TLS"), ("-mutual", "mutual TLS")].map(|(by, means)| {
            let what = format!("{title}, {means}: CPU ÷ echo's");
            Goal::at_most(what, tls_ratio(all, &workload, by), TLS_GOAL)
        })
    });
    let waits = storms().map(|(peer, means)| {
        let what = format!("beside a storm, {means}: p99 in ms");
        Goal::at_most(what, storm_millis(all, peer, "p99"), STORM_GOAL_MS)
    });
    goals.chain(waits).collect()
}

/// What TLS costs: the server's CPU for each pair, beside the echo server's.
fn tls(all: Comparison) -> String {
    let rows = tls_workloads().into_iter().map(|(workload, title)| {
        let cpu = |peer: &str| all.median(&workload, peer, CPU);
        let mut row = vec![title];
        for peer in [LIMIT, US] {
            row.extend(["", "-tls", "-mutual"].map(|by| figure(micros(cpu(&secured(peer, by))))));
        }
        row.extend(["", "-tls", "-mutual"].map(|by| figure(tls_ratio(all, &workload, by))));
        row
    });
    let heads = [
        "server CPU per pair, µs",
        "echo",
        "TLS",
        "mutual",
        "coordinator",
        "TLS",
        "mutual",
        "coordinator ÷ echo",
        "TLS",
        "mutual",
    ];
    table(&heads, &rows.collect::<Vec<_>>())
}

/// Those that answer when all is on disk: pairs a second, and how long the slowest of a hundred grants
/// takes.
fn durable(results: &Value) -> String {
    const PEERS: [(&str, &str); 4] = [
        ("coordinator-machine", "coordinator, `machine`"),
        ("etcd", "etcd"),
        ("zookeeper", "ZooKeeper"),
        ("postgres", "Postgres"),
    ];
    let all = Comparison(results);
    let mut rows = Vec::new();
    for connections in CLOSED {
        let name = closed_name(connections);
        let mut row = vec![connections.to_string()];
        for (peer, _) in PEERS {
            row.push(figure(all.median(&name, peer, PER_SECOND)));
            row.push(figure(micros(all.median(&name, peer, &["acquire_ns", "p99"]))));
        }
        rows.push(row);
    }
    let mut heads = vec!["connections".to_owned()];
    for (_, title) in PEERS {
        heads.extend([format!("{title}: pairs/s"), "p99, µs".to_owned()]);
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    with_machine(results, &table(&heads, &rows))
}

/// So long one in a hundred may wait beside a storm at most.
const STORM_GOAL_MS: f64 = 5.0;

/// Those beside whom it is measured, and by which means they are asked.
fn storms() -> [(&'static str, &'static str); 3] {
    [(WITHOUT_JOURNAL, "plain"), ("coordinator-tls", "TLS"), ("coordinator-mutual", "mutual TLS")]
}

/// How long a client waits beside a storm.
fn storm_millis(all: Comparison, peer: &str, quantile: &str) -> Option<f64> {
    Some(all.median(STORM, peer, &["acquire_ns", quantile])? / 1e6)
}

/// One client that asks every 2 ms, beside 64 that connect, ask and leave again and again.
fn storm(all: Comparison) -> String {
    let rows = storms().map(|(peer, title)| {
        let millis = |quantile| figure(storm_millis(all, peer, quantile));
        vec![title.to_owned(), millis("p50"), millis("p99"), millis("max")]
    });
    table(&["connections", "p50, ms", "p99, ms", "max, ms"], &rows)
}

fn hand_over(all: Comparison) -> String {
    let mut rows = Vec::new();
    let round_trip = closed_name(2);
    for clients in CROWDS {
        let name = crowd_name(clients);
        for (peer, title) in PEERS.iter().filter(|(peer, _)| !WITHOUT_QUEUE.contains(peer)) {
            let of = |quantile| all.median(&name, peer, &["hand_over_ns", quantile]);
            let p50: (&str, &str, &[&str]) = (&name, peer, &["hand_over_ns", "p50"]);
            rows.push(vec![
                clients.to_string(),
                (*title).to_owned(),
                figure(micros(of("p50"))),
                figure(micros(of("p99"))),
                figure(micros(of("p999"))),
                figure(all.ratio(p50, (&round_trip, LIMIT, ACQUIRE_P50))),
                figure(all.ratio((&name, peer, &["hand_over_ns", "p999"]), p50)),
            ]);
        }
    }
    let heads = [
        "clients",
        "service",
        "p50, µs",
        "p99, µs",
        "p99.9, µs",
        "p50 ÷ echo's round trip",
        "p99.9 ÷ p50",
    ];
    table(&heads, &rows)
}

/// The median over the rounds of something in the results of a case.
fn of_case(results: &Value, case: &str, figure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
    let rounds = results["results"].as_array().map_or(&[][..], Vec::as_slice);
    median(rounds.iter().filter(|it| it["case"] == case).filter_map(figure).collect())
}

fn memory(results: &Value) -> String {
    let each = |it: &Value| Some(it["bytes_each"].as_f64()? - it["name_bytes"].as_f64()?);
    let count = |case| of_case(results, case, |it| it["count"].as_f64());
    let freed = |it: &Value| Some(it["memory_freed"].as_f64()? / it["memory_before"].as_f64()?);
    let rows = [
        ("an idle session, with its connection", "sessions"),
        ("a held lock, beyond its name", "held"),
        ("a name, used and given back among a thousand", "names"),
        ("a waiter", "waiters"),
        ("a waiter with a timeout", "deadlines"),
    ];
    let rows = rows.map(|(what, case)| {
        vec![
            what.to_owned(),
            figure(count(case)),
            figure(of_case(results, case, each)),
            match case {
                "sessions" | "held" | "names" => figure(of_case(results, case, freed)),
                _ => NONE.to_owned(),
            },
        ]
    });
    let heads = ["what", "how many", "bytes each", "memory when all were freed ÷ before"];
    table(&heads, &rows)
}

fn growth(results: &Value) -> String {
    let rows = [
        ("sessions", "sessions"),
        ("held locks", "held"),
        ("waiters in one queue", "waiters"),
        ("deadlines", "deadlines"),
    ];
    let rows = rows.map(|(what, case)| {
        let mut row =
            vec![what.to_owned(), figure(of_case(results, case, |it| it["count"].as_f64()))];
        for rhythm in ["closed", "batches"] {
            let cost =
                |when: &str| of_case(results, case, |it| Some(it[when][rhythm].as_f64()? / 1e3));
            let ratio = |it: &Value| {
                Some(it["cost_after"][rhythm].as_f64()? / it["cost_before"][rhythm].as_f64()?)
            };
            row.push(figure(cost("cost_before")));
            row.push(figure(cost("cost_after")));
            row.push(figure(of_case(results, case, ratio)));
        }
        row
    });
    let heads = [
        "beside this many",
        "how many",
        "closed loop, µs: before",
        "after",
        "÷",
        "64 in a write, µs: before",
        "after",
        "÷",
    ];
    table(&heads, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_between_its_markers_again_and_again() {
        let mut text = "a\n<!-- x -->\nold\n<!-- end x -->\nb\n".to_owned();
        for _ in 0..2 {
            replace(&mut text, "x", "| new |\n").unwrap();
            assert_eq!(text, "a\n<!-- x -->\n\n| new |\n\n<!-- end x -->\nb\n");
        }
        assert!(replace(&mut text, "y", "").is_err());
    }

    #[test]
    fn results_are_kept_one_in_each_line() {
        let results =
            serde_json::json!({ "machine": "m", "results": [1, {"a": null}], "stored": 5 });
        let text = lines(&results);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), results);
        assert_eq!(text.lines().count(), 4);
    }

    #[test]
    fn figures_have_about_three_digits() {
        assert_eq!(figure(Some(1_234_567.0)), "1 234 567");
        assert_eq!(figure(Some(100.4)), "100");
        assert_eq!(figure(Some(12.345)), "12.3");
        assert_eq!(figure(Some(0.899)), "0.90");
        assert_eq!(figure(None), "–");
    }
}
