//! Figures as text for Prometheus (its text format 0.0.4).
//!
//! Nothing is registered and nothing is kept: each scrape is rendered from a copy of what is counted. The
//! values of every label are those of an enum here, so there are as many series as there are, whatever
//! clients do. `docs/operations.md` lists them; a test compares the two.

use std::fmt;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::answered::Answered;
use super::process::Process;
use crate::server::{Contention, Counted, Figures, Kept, Role};
use crate::types::Histogram;

/// What [`render`] writes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The commit that was built, if whoever built it said so.
const COMMIT: &str = match option_env!("COORDINATOR_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// All that a scrape tells.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    /// Figures of the Coordinator; none where it stands by, and so has no locks. A 0 would be one that nobody counted.
    pub(super) figures: Option<Arc<Figures>>,
    /// Counters beside it.
    pub(super) counted: Counted,
    /// Result of the latest walk over contended locks, and its age.
    pub(super) survey: Option<(Contention, Duration)>,
    /// Answers given here.
    pub(super) answered: Arc<Answered>,
    /// Figures of the process, from the system.
    pub(super) process: Process,
    /// The wall clock.
    pub(super) wall: SystemTime,
}

/// The text of a scrape.
pub(super) fn render(scrape: Scrape) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(scrape));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        Self::build(&mut page)?;
        if let Some(figures) = &self.figures {
            self.present(figures, &mut page)?;
            requests(figures, &mut page)?;
            self.answers(figures, &mut page)?;
            looking(figures, &mut page)?;
            time(figures, &mut page)?;
        } else {
            self.refusals(&mut page)?;
        }
        self.cluster(&mut page)?;
        self.connections(&mut page)?;
        self.durability(&mut page)?;
        self.upkeep(&mut page)?;
        self.process(&mut page)
    }
}

/// What is written to.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    /// A value that goes up and down.
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// The same, one for each value of a label.
    fn gauges<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, f64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (of, value) in values {
            metric.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A number that only grows; `_total` is put behind its name.
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// The same, one for each value of a label.
    fn counters<'l>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'l str, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (of, value) in values {
            let labels = [(label, of)];
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// How often something took how long, in seconds.
    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let bound = |bound: Option<Duration>| bound.map_or(f64::INFINITY, |it| it.as_secs_f64());
        let buckets: Vec<_> = histogram.buckets().map(|(it, count)| (bound(it), count)).collect();
        let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

/// As Prometheus has all numbers.
#[expect(clippy::cast_precision_loss, reason = "what is counted here is far below 2^53")]
fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

impl Scrape {
    /// What runs.
    fn build(page: &mut Page<'_>) -> fmt::Result {
        let mut info = page.0.encode_descriptor(
            "coordinator_build_info",
            "The version that runs; always 1.",
            None,
            MetricType::Gauge,
        )?;
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)];
        info.encode_family(&labels)?.encode_gauge(&1_i64)
    }

    /// What there is now.
    fn present(&self, figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
        let Figures { counts, uptime, grace, epoch, .. } = figures;
        page.gauge("coordinator_epoch", "This run: one more with each start.", number(*epoch))?;
        let since_1970 = self.wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        page.gauge(
            "coordinator_start_time_seconds",
            "When this run began, in seconds since 1970.",
            since_1970.saturating_sub(*uptime).as_secs_f64(),
        )?;
        let away = counts.sessions.saturating_sub(counts.connected);
        page.gauges(
            "coordinator_sessions",
            "Sessions alive, with a connection or without.",
            "connected",
            [("yes", number(counts.connected)), ("no", number(away))],
        )?;
        page.gauge(
            "coordinator_locks",
            "Locks in use: held, waited for, or kept.",
            number(counts.locks),
        )?;
        page.gauge(
            "coordinator_contended_locks",
            "Locks that somebody waits for.",
            number(counts.contended),
        )?;
        page.gauges(
            "coordinator_requests",
            "Requests that hold or wait.",
            "state",
            [("held", number(counts.held)), ("waiting", number(counts.waiting))],
        )?;
        let (seen, age) = self.survey.unwrap_or_default();
        page.gauge(
            "coordinator_oldest_wait_seconds",
            "For how long the first in a queue has waited, of that which has waited longest.",
            seen.oldest_wait.as_secs_f64(),
        )?;
        page.gauge(
            "coordinator_longest_queue",
            "How many wait for the lock that most wait for.",
            number(seen.longest_queue),
        )?;
        page.gauge(
            "coordinator_survey_age_seconds",
            "How old oldest_wait_seconds and longest_queue are.",
            age.as_secs_f64(),
        )?;
        page.gauge(
            "coordinator_grace_seconds",
            "What is left of the grace period after a crash; 0 outside one.",
            grace.as_secs_f64(),
        )?;
        page.gauge(
            "coordinator_draining",
            "1 while nothing new is accepted.",
            f64::from(u8::from(counts.draining)),
        )?;
        page.gauge(
            "coordinator_tokens_left",
            "Fencing tokens that can be given before the disk has to answer.",
            number(counts.tokens_left),
        )
    }

    /// What was answered, and to whom.
    fn answers(&self, figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
        let Figures { told, .. } = figures;
        page.counters(
            "coordinator_rejections",
            "Answers that were no, by their codes.",
            "code",
            told.rejections(),
        )?;
        page.counters(
            "coordinator_losses",
            "Locks that were lost without being given back, by reason.",
            "reason",
            told.losses(),
        )?;
        page.counter(
            "coordinator_revocations",
            "Locks that operators took away.",
            told.revocations,
        )?;
        page.counters(
            "coordinator_authentications",
            "Connections that proved who they are where there is an access file, by how.",
            "method",
            told.authenticated(),
        )?;
        self.refusals(page)?;
        page.counter(
            "coordinator_slowed_down",
            "Requests that were rejected, because their principal made more in a second than it may.",
            told.slowed_down,
        )?;
        page.counters(
            "coordinator_sessions_attached",
            "Connections that came to a session: a new one, one that lives, one of before a crash.",
            "standing",
            told.attached(),
        )?;
        page.counters(
            "coordinator_sessions_ended",
            "Sessions that ended, by reason.",
            "reason",
            told.ended(),
        )
    }

    /// Who was refused or denied something, also while it stood by.
    fn refusals(&self, page: &mut Page<'_>) -> fmt::Result {
        let Counted { unproven, denials, .. } = &self.counted;
        page.counter(
            "coordinator_authentications_refused",
            "Connections that were refused, because what they showed proves nobody.",
            *unproven,
        )?;
        page.counters(
            "coordinator_denials",
            "Answers that no rule allows it, by verb.",
            "verb",
            denials.iter().copied(),
        )
    }

    /// Who leads, where there are several.
    fn cluster(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(Role { leads, suspended, reached, term, behind, .. }) = self.counted.role else {
            return Ok(());
        };
        let flag = |is: bool| f64::from(u8::from(is));
        page.gauge(
            "coordinator_leader",
            "1 on the coordinator that leads its cluster and may decide.",
            flag(leads && !suspended),
        )?;
        page.gauge(
            "coordinator_suspended",
            "1 while it leads and may decide nothing, for etcd does not answer.",
            flag(suspended),
        )?;
        page.gauge(
            "coordinator_in_sync",
            "1 on a leader with a standby in sync, and on that standby.",
            flag(behind.is_some()),
        )?;
        page.gauge(
            "coordinator_standby_behind",
            "Positions of the stream that the standby in sync has yet to acknowledge.",
            number(behind.unwrap_or_default()),
        )?;
        page.gauge("coordinator_arbiter_reached", "1 while etcd answers.", flag(reached))?;
        page.gauge(
            "coordinator_term",
            "Which leadership it is, as far as it knows; one more with each change of leader.",
            number(term),
        )
    }

    /// Who is connected.
    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let Counted { connections, closed, refused, limits, .. } = &self.counted;
        page.gauge(
            "coordinator_connections",
            "Connections of clients open now.",
            number(*connections),
        )?;
        page.gauges(
            "coordinator_limit",
            "How many there may be at a time.",
            "of",
            [("connections", number(limits.connections)), ("sessions", number(limits.sessions))],
        )?;
        page.counters(
            "coordinator_connections_closed",
            "Connections that were closed here, by reason, or that broke.",
            "reason",
            closed.iter().copied(),
        )?;
        page.counter(
            "coordinator_connections_refused",
            "Connections turned away because there were too many.",
            *refused,
        )?;
        page.counter(
            "coordinator_handshakes_delayed",
            "TLS handshakes that waited, because too many with their address were under way.",
            self.counted.handshakes_delayed,
        )?;
        page.counter(
            "coordinator_events_missed",
            "Events that those who listen were not told, because they did not read.",
            self.counted.events_missed,
        )?;
        let mut metric = page.0.encode_descriptor(
            "coordinator_http_requests",
            "Requests that were answered on this port.",
            None,
            MetricType::Counter,
        )?;
        for (route, status, count) in self.answered.all() {
            let labels = [("route", route), ("status", status)];
            let mut one = metric.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    /// Whether it keeps up with the disk.
    fn durability(&self, page: &mut Page<'_>) -> fmt::Result {
        let Counted { commits, commit_failures, unsaved, .. } = &self.counted;
        page.gauge(
            "coordinator_unsaved_seconds",
            "For how long the state cannot be saved; 0 while it can.",
            unsaved.as_secs_f64(),
        )?;
        page.counter(
            "coordinator_commit_failures",
            "Attempts to save the state that failed.",
            *commit_failures,
        )?;
        page.histogram("coordinator_commit_seconds", "How long saving the state took.", commits)?;
        page.counter(
            "coordinator_audit_lost",
            "Entries of the audit log that did not fit, or could not be written.",
            self.counted.audit_lost,
        )
    }

    /// Whether what it runs by is what was written, and for how long its certificates are good.
    fn upkeep(&self, page: &mut Page<'_>) -> fmt::Result {
        let Kept { reloaded_at, is_reloaded, reload_failures, expires } = self.counted.upkeep;
        let since_1970 =
            |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        page.gauge(
            "coordinator_reload_ok",
            "0 while the latest reload has changed nothing, because of a mistake.",
            f64::from(u8::from(is_reloaded)),
        )?;
        page.gauge(
            "coordinator_reload_success_timestamp_seconds",
            "When the configuration was last read without a mistake, in seconds since 1970.",
            since_1970(reloaded_at),
        )?;
        page.counter(
            "coordinator_reload_failures",
            "Reloads that changed nothing, because of a mistake.",
            reload_failures,
        )?;
        let uses =
            [("server", expires.server), ("client_ca", expires.client_ca), ("crl", expires.crl)];
        page.gauges(
            "coordinator_certificate_expiry_timestamp_seconds",
            "When the first certificate or list of a use expires, in seconds since 1970; none without TLS.",
            "use",
            uses.into_iter().filter_map(|(of, at)| Some((of, since_1970(at?)))),
        )
    }

    /// What the system knows, as far as it tells.
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let Process { resident_bytes, cpu_seconds, open_fds, max_fds } = self.process;
        let gauges = [
            ("process_resident_memory_bytes", "Memory that is there, in bytes.", resident_bytes),
            ("process_open_fds", "Files open now.", open_fds),
            ("process_max_fds", "Files that may be open.", max_fds),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                page.gauge(name, help, number(value))?;
            }
        }
        for seconds in iter::once(cpu_seconds).flatten() {
            let (name, help) = ("process_cpu_seconds", "Time on processors, in seconds.");
            let mut metric = page.0.encode_descriptor(name, help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
        }
        Ok(())
    }
}

/// What became of requests.
fn requests(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let Figures { counts, tally, .. } = figures;
    let waited = tally.queued + tally.converted;
    page.counters(
        "coordinator_grants",
        "Grants, by how they came: at once, from a queue, in the place of another, after a crash.",
        "path",
        [
            ("immediate", counts.grants.saturating_sub(waited)),
            ("queued", tally.queued),
            ("converted", tally.converted),
            ("reclaimed", tally.reclaimed),
        ],
    )?;
    page.counter("coordinator_releases", "Grants that their holders gave back.", tally.releases)?;
    page.counter(
        "coordinator_cancellations",
        "Requests that their clients gave up.",
        tally.cancellations,
    )?;
    page.histogram(
        "coordinator_wait_seconds",
        "From a request to its grant; those granted at once are in the first bucket.",
        &tally.waits,
    )?;
    page.histogram("coordinator_hold_seconds", "From a grant to its end.", &tally.holds)
}

/// Who looks on.
fn looking(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    let Figures { watches, subscribers, looks, looks_delayed, .. } = *figures;
    page.gauge("coordinator_watches", "Locks watched, each as often as it is.", number(watches))?;
    page.gauge(
        "coordinator_subscribers",
        "Connections that hear of what happens to requests.",
        number(subscribers),
    )?;
    page.counter("coordinator_looks", "Looks that were answered on the lock port.", looks)?;
    page.counter(
        "coordinator_looks_delayed",
        "Looks that had to wait, or were rejected, because there were too many.",
        looks_delayed,
    )
}

/// Whether it keeps up with time.
fn time(figures: &Figures, page: &mut Page<'_>) -> fmt::Result {
    page.histogram(
        "coordinator_lag_seconds",
        "How late the coordinator's own timer came.",
        &figures.lag,
    )?;
    page.counter(
        "coordinator_stalls",
        "How often the coordinator itself stood still, so that leases were prolonged.",
        figures.tally.stalls,
    )
}
