//! What the process costs, read from `/proc/self` at each scrape, under the names that Prometheus'
//! own client libraries give (prometheus.io, "Writing client libraries", process metrics).

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::{Description, Inner};

const CPU: Description = describe(
    "process_cpu_seconds_total",
    "counter",
    "User and system CPU time spent, in seconds",
);
const RESIDENT: Description = describe(
    "process_resident_memory_bytes",
    "gauge",
    "Resident memory, in bytes",
);
const FDS: Description = describe("process_open_fds", "gauge", "Open file descriptors");
const MAX_FDS: Description = describe(
    "process_max_fds",
    "gauge",
    "Most file descriptors that may be open",
);
const THREADS: Description = describe("process_threads", "gauge", "Threads of the process");
const START: Description = describe(
    "process_start_time_seconds",
    "gauge",
    "When the process started, in seconds since 1970",
);

const fn describe(name: &'static str, kind: &'static str, help: &'static str) -> Description {
    Description {
        name,
        kind,
        labels: Vec::new(),
        help,
    }
}

pub(super) fn register(inner: &mut Inner) {
    let start = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64());
    inner.registry.register_collector(Box::new(Process { start }));
    inner
        .descriptions
        .extend([CPU, RESIDENT, FDS, MAX_FDS, THREADS, START]);
}

#[derive(Debug)]
struct Process {
    start: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if let Some(seconds) = cpu_seconds(&stat) {
            put(&mut encoder, &CPU, &ConstCounter::new(seconds))?;
        }
        if let Some(pages) = field(&stat, 24) {
            let bytes = pages.saturating_mul(rustix::param::page_size() as u64);
            put(&mut encoder, &RESIDENT, &ConstGauge::new(bytes))?;
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            // Reading the directory holds one itself.
            let count = fds.count().saturating_sub(1) as u64;
            put(&mut encoder, &FDS, &ConstGauge::new(count))?;
        }
        if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            put(&mut encoder, &MAX_FDS, &ConstGauge::new(most))?;
        }
        if let Some(threads) = field(&stat, 20) {
            put(&mut encoder, &THREADS, &ConstGauge::new(threads))?;
        }
        put(&mut encoder, &START, &ConstGauge::new(self.start))
    }
}

fn put(encoder: &mut DescriptorEncoder<'_>, what: &Description, metric: &impl EncodeMetric) -> fmt::Result {
    let stem = what.name.strip_suffix("_total").unwrap_or(what.name);
    metric.encode(encoder.encode_descriptor(stem, what.help, None, metric.metric_type())?)
}

/// User and system time of `/proc/self/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let ticks = field(stat, 14)? + field(stat, 15)?;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// A field of `/proc/self/stat`, numbered from 1 as in proc(5). The second one is a name in
/// parentheses and may hold anything, so fields are counted from the last parenthesis.
fn field(stat: &str, number: usize) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    after_name
        .split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}
