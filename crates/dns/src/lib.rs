//! DNS for one workload. Comes in: sockets that port 53 is redirected to, and a look-up of the names of the mesh.
//! Goes out: answers for those names; every other query is forwarded as it came to the resolvers of
//! `/etc/resolv.conf`, and their answer is passed back as it came.

#![forbid(unsafe_code)]

mod answer;
mod forward;
mod message;
mod resolvers;
mod serve;

use std::path::PathBuf;

use registry::Resolved;
use runtime::metrics::{Counter, Family, Histogram, Label, Metrics};

pub use resolvers::nameservers;
pub use serve::{DESCRIPTORS_MAX, Handle, Sockets, start};

/// Seconds that answers of ours may be kept where nobody says otherwise: endpoints of a headless service
/// come and go.
pub const TTL_SECONDS: u32 = 5;

/// Looks a name up, given in lower case without its trailing dot. `None`: not a name of the mesh.
pub type Names = Box<dyn Fn(&str) -> Option<Resolved> + Send>;

/// What a server is started with.
pub struct Config {
    /// The names of the mesh.
    pub names: Names,
    /// The file with the resolvers of other names.
    pub resolv_conf: PathBuf,
    /// Seconds that answers of ours may be kept.
    pub ttl: u32,
    /// Where it counts.
    pub reports: Reports,
}

/// What a server counts. docs/metrics.md is made from these texts.
#[derive(Clone)]
pub struct Reports {
    queries: Family<Counter, 2>,
    upstream: Histogram,
}

/// Resolvers on the same machine answer within a millisecond, far ones within some tens; time-outs are seconds.
const UPSTREAM_BOUNDS: &[f64] = &[
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
];

impl Reports {
    /// Makes the metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            queries: metrics.counters(
                "weir_dns_queries_total",
                "DNS queries, by the type asked for and what became of them: answered, missing (ours, and there is no such name), forwarded, failed (no resolver answered, or an alias leads nowhere), malformed, dropped (too many at once)",
                [Label::fixed("type"), Label::fixed("result")],
            ),
            upstream: metrics.histogram(
                "weir_dns_upstream_duration_seconds",
                "How long resolvers took for the queries that they answered",
                UPSTREAM_BOUNDS,
            ),
        }
    }
}

/// Reads any bytes as a query and as the answer to one, for the fuzz target.
///
/// # Panics
/// Where that breaks what must hold: an answer of ours is a whole message, no larger than its limit.
pub fn check_bytes(bytes: &[u8]) {
    message::check(bytes);
}
