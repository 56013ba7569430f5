//! Metrics. A component makes its counters, gauges and histograms once, in a [`Metrics`], and keeps
//! the handles; workers count without locks or shared cache lines; the metrics server asks for
//! [`Metrics::encode`], the documentation for [`Metrics::descriptions`].

mod family;
mod process;
mod shard;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge;
use prometheus_client::registry::{self, Registry};

pub use family::{Family, Label, MOST_SERIES, OTHER};
pub use shard::{Counter, Histogram};

/// A number that goes up and down.
pub type Gauge = gauge::Gauge;

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of one process. Clones are the same set.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    registry: Registry,
    descriptions: Vec<Description>,
}

/// One metric, for its documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Description {
    /// Its full name, as it is scraped.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<&'static str>,
    /// What it says, without a full stop.
    pub help: &'static str,
}

impl Metrics {
    /// The metrics every process has: about itself (`process_*`) and its build.
    #[must_use]
    pub fn of_process(version: &'static str, commit: &'static str) -> Self {
        let metrics = Self::default();
        process::register(&mut metrics.lock());
        let build = metrics.gauges(
            "weir_build_info",
            "Always 1; the labels say which build runs",
            [Label::fixed("version"), Label::fixed("commit")],
        );
        build.with([version, commit]).set(1);
        metrics
    }

    /// A counter. Its name ends in `_total`.
    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        self.add("counter", name, help, Vec::new(), Counter::default())
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        self.add("gauge", name, help, Vec::new(), Gauge::default())
    }

    /// A histogram of durations in seconds. `bounds` are the upper bounds of its buckets, ascending.
    #[must_use]
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        self.add("histogram", name, help, Vec::new(), Histogram::new(bounds))
    }

    /// Counters that differ by labels.
    #[must_use]
    pub fn counters<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> Family<Counter, N> {
        let names = labels.iter().map(|label| label.name).collect();
        self.add(
            "counter",
            name,
            help,
            names,
            Family::new(labels, Counter::default),
        )
    }

    /// Gauges that differ by labels.
    #[must_use]
    pub fn gauges<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: [Label; N],
    ) -> Family<Gauge, N> {
        let names = labels.iter().map(|label| label.name).collect();
        self.add("gauge", name, help, names, Family::new(labels, Gauge::default))
    }

    /// Histograms that differ by labels.
    #[must_use]
    pub fn histograms<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        bounds: &'static [f64],
        labels: [Label; N],
    ) -> Family<Histogram, N> {
        let names = labels.iter().map(|label| label.name).collect();
        let family = Family::new(labels, move || Histogram::new(bounds));
        self.add("histogram", name, help, names, family)
    }

    /// All metrics in the text form of `OpenMetrics` ([`CONTENT_TYPE`]).
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail, and our own encoders only pass on what it says.
        let _ = text::encode(&mut text, &self.lock().registry);
        text
    }

    /// Every metric, in the order in which they were made.
    #[must_use]
    pub fn descriptions(&self) -> Vec<Description> {
        self.lock().descriptions.clone()
    }

    fn add<M: registry::Metric + Clone>(
        &self,
        kind: &'static str,
        name: &'static str,
        help: &'static str,
        labels: Vec<&'static str>,
        metric: M,
    ) -> M {
        let mut inner = self.lock();
        // The encoder puts the suffix of counters there itself.
        let stem = name.strip_suffix("_total").unwrap_or(name);
        inner.registry.register(stem, help, metric.clone());
        inner.descriptions.push(Description {
            name,
            kind,
            labels,
            help,
        });
        metric
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
