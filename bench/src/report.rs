//! The report: facts, targets and tables as Markdown.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, Result};

use crate::contenders::{Layer, Spec};
use crate::run::{NOISY, Plan, Results, Sample};
use crate::stats::{Spread, number};
use crate::targets;
use crate::{dns, machine};

/// What stands below this line in the report is written by people and kept.
const NOTES: &str = "<!-- notes -->";

/// One table: rows of the measurement as columns, a figure of each sample in the cells.
struct Table {
    title: &'static str,
    rows: &'static [&'static str],
    figure: fn(&Sample) -> Option<f64>,
    /// Whether more is better; what is a cost has its best peer at the bottom.
    more_is_better: bool,
}

const TABLES: [Table; 9] = [
    Table {
        title: "TCP throughput, Gbit/s",
        rows: &["iperf1", "iperf8"],
        figure: |sample| Some(sample.gave.rate),
        more_is_better: true,
    },
    Table {
        title: "HTTP/1.1 keep-alive, 2 B, requests/s",
        rows: &["2b-c1", "2b-c16", "2b-c128"],
        figure: |sample| Some(sample.gave.rate),
        more_is_better: true,
    },
    Table {
        title: "HTTP/1.1 keep-alive, 1 KiB, requests/s",
        rows: &["1k-c1", "1k-c16", "1k-c128"],
        figure: |sample| Some(sample.gave.rate),
        more_is_better: true,
    },
    Table {
        title: "HTTP/1.1 keep-alive, 100 KiB, requests/s",
        rows: &["100k-c1", "100k-c16", "100k-c128"],
        figure: |sample| Some(sample.gave.rate),
        more_is_better: true,
    },
    Table {
        title: "New connection for each request, 16 at a time, requests/s",
        rows: &["close"],
        figure: |sample| Some(sample.gave.rate),
        more_is_better: true,
    },
    Table {
        title: "Median latency, us (rate2k: at a fixed 2,000 requests/s)",
        rows: &["rate2k", "1k-c1", "1k-c16", "100k-c1"],
        figure: |sample| Some(sample.gave.latency_us?.0),
        more_is_better: false,
    },
    Table {
        title: "99th percentile of latency, us",
        rows: &["rate2k", "1k-c1", "1k-c16", "100k-c1"],
        figure: |sample| Some(sample.gave.latency_us?.1),
        more_is_better: false,
    },
    Table {
        title: "CPU of the proxy, seconds per GiB",
        rows: &["iperf1", "iperf8"],
        figure: |sample| Some(sample.cpu_s / sample.gave.work),
        more_is_better: false,
    },
    Table {
        title: "CPU of the proxy, seconds per 100,000 requests",
        rows: &["2b-c16", "1k-c16", "100k-c16", "close", "rate2k"],
        figure: |sample| Some(sample.cpu_s / sample.gave.work * 1e5),
        more_is_better: false,
    },
];

/// Writes the report, keeping the notes of one that is there.
pub(crate) fn write(plan: &Plan, results: &Results, path: &Path) -> Result<()> {
    let old = fs::read_to_string(path).unwrap_or_default();
    let notes = old.split_once(NOTES).map_or("\n", |(_, notes)| notes);
    let text = text(plan, results);
    fs::write(path, format!("{text}{NOTES}{notes}")).with_context(|| format!("writing {}", path.display()))
}

/// The report on what has been measured so far.
pub(crate) fn text(plan: &Plan, results: &Results) -> String {
    let mut text = String::from(
        "# Weir and its peers as a client's sidecar\n\n\
         Measured by `make bench`; a cell is the median of all rounds [lowest–highest], **its ratio to direct** \
         (median of the ratios\nwithin a round), and for Weir its ratio to the best peer of the same layer, paired \
         in the same way. Client, proxy and\nserver share all cores of one machine; every connection is redirected \
         by iptables to the proxy. Two workers each; metrics\non, access log off.\n\n",
    );
    for (name, value) in machine::facts() {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let arguments: Vec<String> = env::args().skip(1).collect();
    let _ = writeln!(
        text,
        "- command: `bench {}`\n- {} rounds ({} at the fixed rate) of {} s\n- {}\n",
        arguments.join(" "),
        plan.rounds,
        plan.rate_rounds,
        plan.sample.as_secs(),
        disturbance(results)
    );
    let lines = targets::lines(results);
    if !lines.is_empty() {
        text.push_str("## Targets\n\n| target | wanted | measured | |\n|---|---|---|---|\n");
        for line in lines {
            let _ = writeln!(text, "| {} |", line.join(" | "));
        }
        text.push('\n');
    }
    for table in &TABLES {
        text.push_str(&table_text(table, plan, results));
    }
    text.push_str(&idle_text(results));
    text.push_str(&dns::text(&results.dns));
    text.push_str(&failures_text(results));
    text
}

fn disturbance(results: &Results) -> String {
    let noisy = results
        .samples
        .iter()
        .filter(|(_, _, sample)| sample.busy_before > NOISY)
        .count();
    format!(
        "{noisy} of {} samples began while the machine did something else as well",
        results.samples.len()
    )
}

fn table_text(table: &Table, plan: &Plan, results: &Results) -> String {
    let rows: Vec<&str> = table
        .rows
        .iter()
        .copied()
        .filter(|row| results.samples.iter().any(|(of, _, _)| of.name == *row))
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## {}\n\n| | {} |\n|---|{}\n",
        table.title,
        rows.join(" | "),
        "---|".repeat(rows.len())
    );
    for spec in &plan.contenders {
        let cells: Vec<String> = rows
            .iter()
            .map(|row| cell(table, row, spec, plan, results))
            .collect();
        if cells.iter().any(|cell| cell != "–") {
            let _ = writeln!(text, "| {} | {} |", spec.name, cells.join(" | "));
        }
    }
    text.push('\n');
    text
}

fn cell(table: &Table, row: &str, spec: &Spec, plan: &Plan, results: &Results) -> String {
    let figure = |sample: &Sample| (table.figure)(sample).unwrap_or(f64::NAN);
    let is_cost_of_nothing = spec.layer == Layer::Direct && table.title.starts_with("CPU");
    let Some(spread) = Spread::of(results.of(row, &spec.name).map(figure)) else {
        return "–".to_owned();
    };
    if is_cost_of_nothing {
        return "–".to_owned();
    }
    let mut text = spread.to_string();
    if spec.layer != Layer::Direct
        && let Some(ratio) = targets::ratio(results, row, &spec.name, "direct", figure)
        && ratio.median.is_finite()
    {
        let _ = write!(text, " **{:.2}**", ratio.median);
    }
    if spec.is_weir()
        && let Some(best) = best_peer(table, row, spec.layer, plan, results)
        && let Some(ratio) = targets::ratio(results, row, &spec.name, best, figure)
    {
        let _ = write!(text, ", {:.2} x {best}", ratio.median);
    }
    text
}

/// The peer of a layer whose median is best.
fn best_peer<'a>(
    table: &Table,
    row: &str,
    layer: Layer,
    plan: &'a Plan,
    results: &Results,
) -> Option<&'a str> {
    let sign = if table.more_is_better { 1.0 } else { -1.0 };
    plan.contenders
        .iter()
        .filter(|spec| spec.layer == layer && !spec.is_weir())
        .filter_map(|spec| {
            let samples = results.of(row, &spec.name).filter_map(table.figure);
            Some((spec.name.as_str(), Spread::of(samples)?.median * sign))
        })
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(name, _)| name)
}

fn idle_text(results: &Results) -> String {
    if results.idle.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "## Memory, MiB resident (proportional), measured once\n\n\
         Each connection did one request and is kept. At L4 a proxy holds both sides of it, at L7 the client's.\n\n\
         | | at rest | 1,000 idle | 9,000 idle | 5 s after | KiB a connection more |\n|---|---|---|---|---|---|\n",
    );
    for (name, idle) in &results.idle {
        let shown = [idle.at_rest, idle.few, idle.many, idle.after].map(|memory| {
            let mib = |kib: u64| number(kib as f64 / 1024.0);
            format!("{} ({})", mib(memory.resident_kib), mib(memory.proportional_kib))
        });
        let _ = writeln!(
            text,
            "| {name} | {} | {} |",
            shown.join(" | "),
            number(idle.slope_kib())
        );
    }
    text.push('\n');
    text
}

fn failures_text(results: &Results) -> String {
    let mut text = String::new();
    for (row, name, sample) in &results.samples {
        if sample.gave.failures > 0 {
            let _ = writeln!(
                text,
                "- {name}, {}, round {}: {} failed requests",
                row.name,
                sample.round + 1,
                sample.gave.failures
            );
        }
    }
    if text.is_empty() && results.samples.is_empty() {
        text
    } else if text.is_empty() {
        "No request failed.\n\n".to_owned()
    } else {
        format!("## Failures\n\n{text}\n")
    }
}
