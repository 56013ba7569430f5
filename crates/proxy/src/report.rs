//! Report: what the data path tells: metrics always, the access log where it is on, each step while
//! somebody watches. What nobody wants is not built.

mod text;

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use model::event::{AccessRecord, Event, Flags, Step};
use model::settings::AccessLog;
use model::{ClusterName, Direction, ErrorName};
use runtime::lines::{Buffer, Lines};
use runtime::metrics::{self, Counter, Family, Histogram, Label, Metrics};
use runtime::tap::Tap;

use crate::capture::Origin;

/// Upper bounds of the duration buckets, in seconds.
const DURATION_BOUNDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Where reports go; one for all workers.
#[derive(Clone)]
pub struct Reports {
    families: Families,
    lines: Option<Lines>,
    steps: Tap<Event>,
}

impl Reports {
    /// Makes the data path's metrics in `metrics`. Access log lines go to `lines`; `steps` tells each step of each
    /// connection.
    #[must_use]
    pub fn new(metrics: &Metrics, lines: Option<Lines>, steps: Tap<Event>) -> Self {
        Self {
            families: Families::new(metrics),
            lines,
            steps,
        }
    }

    /// One worker's end.
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter {
            lines: self.lines.as_ref().map(Lines::buffer),
            steps: self.steps.clone(),
            families: self.families.clone(),
            counters: RefCell::default(),
        }
    }
}

/// The data path's metrics. docs/metrics.md is made from these texts.
#[derive(Clone)]
struct Families {
    opened: Family<Counter, 2>,
    closed: Family<Counter, 2>,
    received: Family<Counter, 2>,
    sent: Family<Counter, 2>,
    durations: Family<Histogram, 1>,
    failures: Family<Counter, 3>,
    requests: Family<Counter, 3>,
    request_durations: Family<Histogram, 1>,
    retries: Family<Counter, 1>,
    ejections: Family<Counter, 1>,
    accept_failures: Counter,
    limit_waits: Counter,
}

impl Families {
    fn new(metrics: &Metrics) -> Self {
        let direction = Label::fixed("direction");
        let cluster = Label::open("cluster");
        Self {
            opened: metrics.counters(
                "weir_connections_opened_total",
                "Captured connections that a route was found for, or that were refused (cluster BlackHoleCluster)",
                [direction, cluster],
            ),
            closed: metrics.counters(
                "weir_connections_closed_total",
                "Captured connections that ended; opened less closed is what is open now",
                [direction, cluster],
            ),
            received: metrics.counters(
                "weir_received_bytes_total",
                "Bytes from clients: of opaque connections all, of HTTP those of bodies",
                [direction, cluster],
            ),
            sent: metrics.counters(
                "weir_sent_bytes_total",
                "Bytes to clients: of opaque connections all, of HTTP those of bodies",
                [direction, cluster],
            ),
            durations: metrics.histograms(
                "weir_connection_duration_seconds",
                "How long opaque connections lasted",
                DURATION_BOUNDS,
                [direction],
            ),
            failures: metrics.counters(
                "weir_failures_total",
                "Connections and requests that went wrong, by the flag that says how (docs/access-log.md)",
                [direction, cluster, Label::fixed("flag")],
            ),
            requests: metrics.counters(
                "weir_requests_total",
                "HTTP requests answered, by class of status (2xx; 0xx where no answer was sent)",
                [direction, cluster, Label::fixed("status")],
            ),
            request_durations: metrics.histograms(
                "weir_request_duration_seconds",
                "From the first byte of an HTTP request to the last of its answer",
                DURATION_BOUNDS,
                [direction],
            ),
            retries: metrics.counters("weir_retries_total", "Tries after the first", [cluster]),
            ejections: metrics.counters("weir_ejections_total", "Endpoints ejected after failures in a row", [cluster]),
            accept_failures: metrics
                .counter("weir_accept_failures_total", "Connections that could not be accepted, for want of descriptors or memory"),
            limit_waits: metrics
                .counter("weir_connection_limit_total", "Times that a worker stopped accepting because its limit was reached"),
        }
    }
}

/// One worker's end of [`Reports`].
pub(crate) struct Reporter {
    lines: Option<Buffer>,
    steps: Tap<Event>,
    families: Families,
    counters: RefCell<HashMap<(Direction, ClusterName), Rc<Counters>>>,
}

/// Counters of one cluster, kept by those who count.
pub(crate) struct Counters {
    opened: Counter,
    closed: Counter,
    received: Counter,
    sent: Counter,
    durations: Histogram,
    request_durations: Histogram,
    /// By class of status.
    requests: [Counter; 6],
    pub(crate) retries: Counter,
    failures: Family<Counter, 3>,
    direction: Direction,
    cluster: ClusterName,
}

impl Counters {
    fn new(families: &Families, direction: Direction, cluster: &ClusterName) -> Self {
        let labels = [direction.as_str(), cluster.as_str()];
        let class = |class: &str| {
            families
                .requests
                .with([direction.as_str(), cluster.as_str(), class])
        };
        Self {
            opened: families.opened.with(labels),
            closed: families.closed.with(labels),
            received: families.received.with(labels),
            sent: families.sent.with(labels),
            durations: families.durations.with([direction.as_str()]),
            request_durations: families.request_durations.with([direction.as_str()]),
            requests: ["0xx", "1xx", "2xx", "3xx", "4xx", "5xx"].map(class),
            retries: families.retries.with([cluster.as_str()]),
            failures: families.failures.clone(),
            direction,
            cluster: cluster.clone(),
        }
    }

    /// A connection was routed here. Pair with [`Self::connection_closed`].
    pub(crate) fn connection_opened(&self) {
        self.opened.inc();
    }

    /// It ended.
    pub(crate) fn connection_closed(&self) {
        self.closed.inc();
    }

    /// Counts what an opaque connection carried and how it ended.
    pub(crate) fn opaque(&self, received: u64, sent: u64, flags: Flags, duration: Duration) {
        self.bytes(received, sent);
        self.durations.observe(duration);
        self.fail(flags);
    }

    /// Counts one HTTP request and its answer.
    pub(crate) fn request(&self, status: u16, received: u64, sent: u64, flags: Flags, duration: Duration) {
        // A code above 599 is to be taken as one of its last class (RFC 9110 section 15).
        if let Some(counter) = self.requests.get(usize::from(status / 100).min(5)) {
            counter.inc();
        }
        self.bytes(received, sent);
        self.request_durations.observe(duration);
        self.fail(flags);
    }

    fn bytes(&self, received: u64, sent: u64) {
        if received > 0 {
            self.received.inc_by(received);
        }
        if sent > 0 {
            self.sent.inc_by(sent);
        }
    }

    fn fail(&self, flags: Flags) {
        if flags.is_empty() {
            return;
        }
        for flag in flags.codes() {
            self.failures
                .with([self.direction.as_str(), self.cluster.as_str(), flag])
                .inc();
        }
    }
}

impl std::fmt::Debug for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Counters")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Reporter {
    /// The counters of a cluster; ask once a connection.
    pub(crate) fn counters(&self, direction: Direction, cluster: &ClusterName) -> Rc<Counters> {
        let mut all = self.counters.borrow_mut();
        let key = (direction, cluster.clone());
        Rc::clone(
            all.entry(key)
                .or_insert_with(|| Rc::new(Counters::new(&self.families, direction, cluster))),
        )
    }

    /// Forgets the counters of clusters that nothing uses now, where there are many: a mesh changes. Their
    /// figures stay.
    pub(crate) fn forget_unused(&self) {
        let mut all = self.counters.borrow_mut();
        if all.len() > metrics::MOST_SERIES {
            all.retain(|_, counters| Rc::strong_count(counters) > 1);
        }
    }

    /// Tells a step to whoever watches.
    pub(crate) fn event(&self, origin: &Origin, step: impl FnOnce() -> Step) {
        self.steps.tell(|| Event {
            at: SystemTime::now(),
            connection: origin.connection,
            step: step(),
        });
    }

    /// Whether anybody reads records or steps.
    pub(crate) fn wants_records(&self, log: AccessLog) -> bool {
        self.steps.is_heard() || self.lines.is_some() && log != AccessLog::Off
    }

    /// Tells the end of a connection or request, to the log and to whoever watches.
    pub(crate) fn record(&self, origin: &Origin, log: AccessLog, record: impl FnOnce() -> AccessRecord) {
        if !self.wants_records(log) {
            return;
        }
        let line = self.lines.as_ref().filter(|_| log != AccessLog::Off);
        let record = record();
        if let Some(lines) = line {
            lines.push(|line| match log {
                AccessLog::Off => {}
                AccessLog::Text => text::write_text(line, &record),
                AccessLog::Json => text::write_json(line, &record),
            });
        }
        self.event(origin, || Step::Ended(Box::new(record)));
    }

    /// An endpoint was ejected.
    pub(crate) fn ejected(&self, cluster: &ClusterName, endpoint: SocketAddr) {
        self.families.ejections.with([cluster.as_str()]).inc();
        tracing::warn!(see = %ErrorName::EndpointEjected, %cluster, %endpoint, "endpoint ejected after failures in a row");
    }

    /// A connection could not be accepted.
    pub(crate) fn accept_failed(&self) {
        self.families.accept_failures.inc();
    }

    /// The limit holds connections back.
    pub(crate) fn at_limit(&self) {
        self.families.limit_waits.inc();
    }
}
