//! Metrics that differ by labels, with a bound on how many there can be.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// Label sets a family holds before new values of its open labels are counted as [`OTHER`].
pub const MOST_SERIES: usize = 2_000;

/// The value that stands for all those that came too late.
pub const OTHER: &str = "other";

/// A label's name, and whether its values are a closed list.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    open: bool,
}

impl Label {
    /// Its values are written in the code.
    #[must_use]
    pub const fn fixed(name: &'static str) -> Self {
        Self { name, open: false }
    }

    /// Its values come from configuration: past the bound they become `other`.
    #[must_use]
    pub const fn open(name: &'static str) -> Self {
        Self { name, open: true }
    }
}

/// Metrics of one name. [`Self::with`] takes a lock and compares strings: ask once per cluster, keep
/// what it gives. Clones are the same family.
#[derive(Clone)]
pub struct Family<M, const N: usize>(Arc<Inner<M, N>>);

struct Inner<M, const N: usize> {
    labels: [Label; N],
    make: Box<dyn Fn() -> M + Send + Sync>,
    series: Mutex<BTreeMap<[Box<str>; N], M>>,
}

impl<M: Clone, const N: usize> Family<M, N> {
    pub(super) fn new(labels: [Label; N], make: impl Fn() -> M + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            labels,
            make: Box::new(make),
            series: Mutex::default(),
        }))
    }

    /// The metric with these label values, in the order of the labels.
    #[must_use]
    pub fn with(&self, values: [&str; N]) -> M {
        let key = values.map(Box::from);
        let mut series = self.lock();
        if let Some(metric) = series.get(&key) {
            return metric.clone();
        }
        let key = if series.len() < MOST_SERIES {
            key
        } else {
            self.as_other(key)
        };
        series.entry(key).or_insert_with(&self.0.make).clone()
    }

    /// Forgets the metrics whose label values do not pass: those of services that are gone. Handles to
    /// them go on counting into nowhere.
    pub fn retain(&self, mut keep: impl FnMut(&[Box<str>; N]) -> bool) {
        self.lock().retain(|values, _| keep(values));
    }

    fn as_other(&self, mut values: [Box<str>; N]) -> [Box<str>; N] {
        for (value, label) in values.iter_mut().zip(&self.0.labels) {
            if label.open {
                *value = OTHER.into();
            }
        }
        values
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<[Box<str>; N], M>> {
        self.0.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: EncodeMetric + Clone, const N: usize> EncodeMetric for Family<M, N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (values, metric) in self.lock().iter() {
            let labels: [(&str, &str); N] = std::array::from_fn(|index| {
                let name = self.0.labels.get(index).map_or("", |label| label.name);
                (name, values.get(index).map_or("", |value| value))
            });
            metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        (self.0.make)().metric_type()
    }

    fn is_empty(&self) -> bool {
        self.0
            .series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }
}

impl<M, const N: usize> fmt::Debug for Family<M, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("labels", &self.0.labels)
            .finish_non_exhaustive()
    }
}
