//! What is told of look-ups: metrics always; to whoever watches (`--journey`), each of them. What nobody
//! watches is not built.

use std::net::{IpAddr, SocketAddr};
use std::time::{Instant, SystemTime};

use model::ObjectName;
use model::event::{Event, LookUp, Step};
use runtime::metrics::{Counter, Family, Histogram, Label, Metrics};
use runtime::tap::Tap;

use crate::message::{self, Received, answers, code_name, is_truncated, kind, kind_name, number, text_of};

/// What a server reports. docs/metrics.md is made from these texts.
#[derive(Clone)]
pub struct Reports {
    queries: Family<Counter, 2>,
    pub(crate) upstream: Upstream,
    pub(crate) lost: Counter,
    steps: Tap<Event>,
}

/// What became of a query.
pub(crate) struct Done {
    pub(crate) message: Option<Vec<u8>>,
    /// The type asked for, as metrics name it.
    pub(crate) kind: &'static str,
    /// What became of it, as metrics name it.
    pub(crate) result: &'static str,
    /// Whose name it is, where it is one of ours.
    pub(crate) service: Option<ObjectName>,
    /// Who answered, if it was forwarded.
    pub(crate) resolver: Option<SocketAddr>,
}

impl Done {
    pub(crate) fn of(kind: &'static str, result: &'static str, message: Option<Vec<u8>>) -> Self {
        Self {
            message,
            kind,
            result,
            service: None,
            resolver: None,
        }
    }
}

/// When a query came, where anybody wants to know.
pub(crate) type Clock = Option<(SystemTime, Instant)>;

/// What is told of resolvers.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) durations: Histogram,
    failures: Family<Counter, 1>,
}

impl Upstream {
    pub(crate) fn fail(&self, why: &str) {
        self.failures.with([why]).inc();
    }
}

/// Resolvers on the same machine answer within a millisecond, far ones within some tens; time-outs are seconds.
const UPSTREAM_BOUNDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];
/// Records of an answer that are told one by one; of longer ones the rest is counted.
const RECORDS_TOLD: usize = 20;

impl Reports {
    /// Makes the metrics. `steps` tells each look-up.
    #[must_use]
    pub fn new(metrics: &Metrics, steps: Tap<Event>) -> Self {
        Self {
            queries: metrics.counters(
                "weir_dns_queries_total",
                "DNS queries, by the type asked for and what became of them: answered, missing (ours, and there is no such name), forwarded, failed (no resolver answered, or an alias leads nowhere), malformed, dropped (too many at once)",
                [Label::fixed("type"), Label::fixed("result")],
            ),
            lost: metrics.counter(
                "weir_dns_lost_total",
                "DNS queries by UDP that the kernel dropped, because its queue for them was full",
            ),
            upstream: Upstream {
                durations: metrics.histogram(
                    "weir_dns_upstream_duration_seconds",
                    "How long resolvers took for the queries that they answered",
                    UPSTREAM_BOUNDS,
                ),
                failures: metrics.counters(
                    "weir_dns_upstream_failures_total",
                    "Tries of a resolver that came to nothing, each followed by the next: silent (no answer in time), unreachable, refused (it answered that it fails or will not)",
                    [Label::fixed("why")],
                ),
            },
            steps,
        }
    }

    /// When a query came, where anybody wants to know.
    pub(crate) fn clock(&self) -> Clock {
        self.steps.is_heard().then(|| (SystemTime::now(), Instant::now()))
    }

    pub(crate) fn count(&self, kind: &str, result: &str) {
        self.queries.with([kind, result]).inc();
    }

    /// Reports what became of a query that came at that time.
    pub(crate) fn done(&self, query: &[u8], done: &Done, clock: Clock) {
        self.count(done.kind, done.result);
        if let Some((at, begin)) = clock
            && let Some(look_up) = look_up(query, done, begin)
        {
            self.steps.tell(|| Event {
                at,
                connection: 0,
                step: Step::LookedUp(Box::new(look_up)),
            });
        }
    }
}

/// The look-up in words, read from its messages; `None` where the query is about no host name.
fn look_up(query: &[u8], done: &Done, begin: Instant) -> Option<LookUp> {
    let Received::Question(question) = message::read(query) else {
        return None;
    };
    let message = done.message.as_deref()?;
    let list = answers(message).unwrap_or_default();
    let addresses = list.iter().filter_map(|(_, record)| {
        let data = message.get(record.data.clone())?;
        match record.kind {
            kind::A => Some(IpAddr::from(<[u8; 4]>::try_from(data).ok()?)),
            kind::AAAA => Some(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => None,
        }
    });
    Some(LookUp {
        addresses: addresses.collect(),
        records: list
            .iter()
            .take(RECORDS_TOLD)
            .map(|(_, record)| text_of(message, record).into())
            .collect(),
        records_count: list.len(),
        code: code_name(number(message, 2).unwrap_or(0) & 0xf).into(),
        is_truncated: is_truncated(message),
        kind: kind_name(question.kind).into(),
        name: question.name.into(),
        service: done.service.clone(),
        resolver: done.resolver,
        took: begin.elapsed(),
    })
}
