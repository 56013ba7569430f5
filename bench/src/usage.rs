//! What a program costs: CPU time and memory, over all processes of its group.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processes of the group that `leader` leads. Servers make theirs at start, so ask once they are up.
pub(crate) fn group(leader: u32) -> Result<Vec<u32>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that ended between the listing and the reading is no member.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else {
            continue;
        };
        // The name in parentheses may hold anything; the group is the third field after it.
        let group = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(2))
            .and_then(|field| field.parse::<u32>().ok());
        if group == Some(leader) {
            members.push(id);
        }
    }
    Ok(members)
}

/// CPU time of all threads so far, user and system, as the scheduler counted it.
pub(crate) fn cpu(processes: &[u32]) -> Result<Duration> {
    let mut nanoseconds = 0;
    for id in processes {
        for task in fs::read_dir(format!("/proc/{id}/task")).context("a proxy has ended")? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let ran = text.split_whitespace().next().unwrap_or_default();
            nanoseconds += ran.parse::<u64>().context("reading schedstat")?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Memory in KiB: resident (shared pages counted in each process) and proportional.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memory {
    pub(crate) resident_kib: u64,
    pub(crate) proportional_kib: u64,
}

pub(crate) fn memory(processes: &[u32]) -> Result<Memory> {
    let mut sum = Memory {
        resident_kib: 0,
        proportional_kib: 0,
    };
    for id in processes {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).context("a proxy has ended")?;
        let field = |name: &str| -> u64 {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        sum.resident_kib += field("Rss:");
        sum.proportional_kib += field("Pss:");
    }
    Ok(sum)
}

/// CPU time of the whole machine since it started, in seconds of one core.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Machine {
    pub(crate) busy_s: f64,
    pub(crate) idle_s: f64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self> {
        /// `sysconf(_SC_CLK_TCK)` of every Linux that Rust's standard library runs on.
        const TICKS_A_SECOND: f64 = 100.0;
        let text = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<f64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let all: f64 = ticks.iter().take(8).sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self {
            busy_s: (all - idle) / TICKS_A_SECOND,
            idle_s: idle / TICKS_A_SECOND,
        })
    }

    /// The share of the time since `earlier` that the machine was busy, 0 to 1.
    pub(crate) fn busy_share(self, earlier: Self) -> f64 {
        let busy = self.busy_s - earlier.busy_s;
        let idle = self.idle_s - earlier.idle_s;
        if busy + idle > 0.0 {
            busy / (busy + idle)
        } else {
            0.0
        }
    }
}
