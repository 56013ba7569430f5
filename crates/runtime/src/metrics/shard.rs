//! Counters and histograms whose every thread writes its own cache line; a scrape adds them up.
//! A shared atomic costs each worker a cache miss for every request the other one served.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Threads beyond this many share, which costs time but no count.
const SHARDS: usize = 4;

/// The shard that the calling thread writes.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

/// A value on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line<T>(T);

/// A number that only grows. Clones are the same counter.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<[Line<AtomicU64>; SHARDS]>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds.
    pub fn inc_by(&self, count: u64) {
        if let Some(line) = self.0.get(own_shard()) {
            line.0.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// The sum.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().map(|line| line.0.load(Ordering::Relaxed)).sum()
    }
}

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.total(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// How often durations fell between bounds. Clones are the same histogram.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    shards: [Line<Shard>; SHARDS],
}

#[derive(Debug)]
struct Shard {
    /// One more than there are bounds: the last counts what is above them all.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let shard = || Shard {
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum_nanos: AtomicU64::new(0),
        };
        Self(Arc::new(Buckets {
            bounds,
            shards: std::array::from_fn(|_| Line(shard())),
        }))
    }

    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let index = self.0.bounds.partition_point(|bound| *bound < seconds);
        if let Some(Line(shard)) = self.0.shards.get(own_shard()) {
            if let Some(count) = shard.counts.get(index) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            shard.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
        }
    }

    /// Upper bounds with how many fell into each bucket, and the sum in seconds.
    fn totals(&self) -> (Vec<(f64, u64)>, f64) {
        let bounds = self.0.bounds.iter().copied().chain([f64::INFINITY]);
        let count = |index: usize| {
            let of_shard =
                |line: &Line<Shard>| line.0.counts.get(index).map_or(0, |n| n.load(Ordering::Relaxed));
            self.0.shards.iter().map(of_shard).sum()
        };
        let buckets = bounds
            .enumerate()
            .map(|(index, bound)| (bound, count(index)))
            .collect();
        let nanos: u64 = self
            .0
            .shards
            .iter()
            .map(|line| line.0.sum_nanos.load(Ordering::Relaxed))
            .sum();
        (buckets, Duration::from_nanos(nanos).as_secs_f64())
    }
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let (buckets, sum) = self.totals();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
