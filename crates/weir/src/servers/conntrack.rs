//! The kernel's table of tracked connections, which every redirected connection needs a place in: how full
//! it is as metrics, and a warning before it is full.

use std::time::Duration;

use model::ErrorName;
use netsys::conntrack::{self, Usage};
use runtime::metrics::{Gauge, Metrics};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Percent of the table from which on a warning is given, and below which the next one may be.
const WARN_FROM: u64 = 80;
const CALM_BELOW: u64 = 60;

/// How full the table is.
pub(super) struct ConntrackGauges {
    entries: Gauge,
    limit: Gauge,
}

impl ConntrackGauges {
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            entries: metrics.gauge(
                "weir_conntrack_entries",
                "Connections that the kernel tracks in this network namespace; at the limit it drops new ones",
            ),
            limit: metrics.gauge(
                "weir_conntrack_limit",
                "Most connections that the kernel tracks in a network namespace; 0 is no limit",
            ),
        }
    }

    pub(super) fn set(&self) {
        if let Some(Usage { entries, limit }) = conntrack::usage() {
            self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
            self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
}

/// Warns when the table fills, for as long as the proxy runs.
pub(super) async fn watch() {
    let mut alarm = Alarm::default();
    loop {
        if let Some(usage) = conntrack::usage()
            && alarm.goes_off(usage)
        {
            tracing::warn!(
                see = %ErrorName::ConntrackFull,
                entries = usage.entries,
                limit = usage.limit,
                "the kernel's table of tracked connections fills; when it is full, new connections are dropped: \
                 raise net.netfilter.nf_conntrack_max"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Goes off once each time the table fills.
#[derive(Default)]
struct Alarm {
    went_off: bool,
}

impl Alarm {
    fn goes_off(&mut self, Usage { entries, limit }: Usage) -> bool {
        let is_over = |percent| limit > 0 && entries.saturating_mul(100) >= limit.saturating_mul(percent);
        let was_off = self.went_off;
        self.went_off = is_over(WARN_FROM) || was_off && is_over(CALM_BELOW);
        self.went_off && !was_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_goes_off_once_each_time_the_table_fills() {
        let mut alarm = Alarm::default();
        let looks = [
            (10, false),
            (80, true),
            (95, false),
            (70, false),
            (85, false),
            (59, false),
            (80, true),
        ];
        for (entries, expected) in looks {
            assert_eq!(
                alarm.goes_off(Usage { entries, limit: 100 }),
                expected,
                "{entries}"
            );
        }
        assert!(
            !Alarm::default().goes_off(Usage { entries: 9, limit: 0 }),
            "no limit"
        );
    }
}
