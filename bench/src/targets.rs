//! The targets: what Weir must reach against its peers in the same rounds, and whether it did.

use crate::run::{Results, Sample};
use crate::stats::{Spread, interval95, number};

/// A bound on Weir's figure divided by a peer's.
struct Target {
    subject: &'static str,
    row: &'static str,
    measure: Measure,
    /// One peer, or several: the one with the best median counts.
    against: &'static [&'static str],
    bound: Bound,
}

#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Rate,
    Cpu,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const L4: &[&str] = &["haproxy-l4", "nginx-l4"];
const L7: &[&str] = &["haproxy-l7", "nginx-l7"];
const HAPROXY_L4: &[&str] = &["haproxy-l4"];
const HAPROXY_L7: &[&str] = &["haproxy-l7"];
const NGINX_L7: &[&str] = &["nginx-l7"];

const fn target(
    subject: &'static str,
    row: &'static str,
    measure: Measure,
    against: &'static [&'static str],
    bound: Bound,
) -> Target {
    Target {
        subject,
        row,
        measure,
        against,
        bound,
    }
}

const TARGETS: [Target; 11] = [
    target(
        "weir-l4",
        "iperf1",
        Measure::Rate,
        HAPROXY_L4,
        Bound::AtLeast(1.6),
    ),
    target("weir-l4", "iperf1", Measure::Cpu, HAPROXY_L4, Bound::AtMost(0.5)),
    target("weir-l4", "iperf8", Measure::Rate, L4, Bound::AtLeast(1.25)),
    target(
        "weir-l4",
        "close",
        Measure::Rate,
        HAPROXY_L4,
        Bound::AtLeast(1.05),
    ),
    target("weir-l7", "1k-c1", Measure::Rate, NGINX_L7, Bound::AtLeast(1.08)),
    target("weir-l7", "1k-c16", Measure::Rate, NGINX_L7, Bound::AtLeast(1.15)),
    target("weir-l7", "1k-c128", Measure::Rate, L7, Bound::AtLeast(1.15)),
    target("weir-l7", "1k-c16", Measure::Cpu, NGINX_L7, Bound::AtMost(0.85)),
    target("weir-l7", "100k-c1", Measure::Rate, NGINX_L7, Bound::AtLeast(2.0)),
    target(
        "weir-l7",
        "100k-c16",
        Measure::Rate,
        NGINX_L7,
        Bound::AtLeast(1.3),
    ),
    target(
        "weir-l7",
        "close",
        Measure::Rate,
        HAPROXY_L7,
        Bound::AtLeast(1.05),
    ),
];

/// Resident MiB at rest, for either layer.
const REST_MIB: f64 = 10.0;
/// Resident KiB for each idle connection more.
const SLOPE_KIB: [(&str, f64); 2] = [("weir-l4", 2.5), ("weir-l7", 1.0)];

/// One line of the table of targets: what, wanted, measured, met.
pub(crate) type Line = [String; 4];

/// The targets that these results can say something about.
pub(crate) fn lines(results: &Results) -> Vec<Line> {
    let mut lines: Vec<Line> = TARGETS
        .iter()
        .filter_map(|target| ratio_line(target, results))
        .collect();
    for peer in ["nginx-l7", "haproxy-l7"] {
        lines.extend(latency_line(
            "p50",
            peer,
            |sample| Some(sample.gave.latency_us?.0),
            results,
        ));
        lines.extend(latency_line(
            "p99",
            peer,
            |sample| Some(sample.gave.latency_us?.1),
            results,
        ));
    }
    for (name, idle) in &results.idle {
        let Some((_, limit)) = SLOPE_KIB.iter().find(|(subject, _)| subject == name) else {
            continue;
        };
        let rest = idle.at_rest.resident_kib as f64 / 1024.0;
        lines.push(below(format!("{name}, at rest"), rest, REST_MIB, "MiB"));
        lines.push(below(
            format!("{name}, idle connection"),
            idle.slope_kib(),
            *limit,
            "KiB",
        ));
    }
    lines
}

fn below(what: String, value: f64, limit: f64, unit: &str) -> Line {
    [
        what,
        format!("≤ {limit} {unit}"),
        format!("{} {unit}", number(value)),
        verdict(value <= limit),
    ]
}

fn verdict(met: bool) -> String {
    if met { "met" } else { "**missed**" }.to_owned()
}

fn value(measure: Measure, sample: &Sample) -> f64 {
    match measure {
        Measure::Rate => sample.gave.rate,
        Measure::Cpu => sample.cpu_s / sample.gave.work,
    }
}

fn ratio_line(target: &Target, results: &Results) -> Option<Line> {
    let Target {
        subject,
        row,
        measure,
        against,
        bound,
    } = target;
    let median = |peer: &&&str| {
        let spread = Spread::of(results.of(row, peer).map(|sample| value(*measure, sample)));
        spread.map_or(f64::NEG_INFINITY, |spread| match measure {
            Measure::Rate => spread.median,
            Measure::Cpu => -spread.median,
        })
    };
    let peer = against.iter().max_by(|a, b| median(a).total_cmp(&median(b)))?;
    let ratio = ratio(results, row, subject, peer, |sample| value(*measure, sample))?;
    let what = match measure {
        Measure::Rate => "rate",
        Measure::Cpu => "CPU",
    };
    let (wanted, met) = match bound {
        Bound::AtLeast(bound) => (format!("≥ {bound} x {peer}"), ratio.median >= *bound),
        Bound::AtMost(bound) => (format!("≤ {bound} x {peer}"), ratio.median <= *bound),
    };
    Some([
        format!("{subject}, {row}, {what}"),
        wanted,
        format!("{ratio} x"),
        verdict(met),
    ])
}

/// The spread over rounds of one contender's value divided by another's in the same round.
pub(crate) fn ratio(
    results: &Results,
    row: &str,
    subject: &str,
    base: &str,
    value: impl Fn(&Sample) -> f64,
) -> Option<Spread> {
    Spread::of(pairs(results, row, subject, base).map(|(ours, theirs)| value(ours) / value(theirs)))
}

fn pairs<'a>(
    results: &'a Results,
    row: &'a str,
    subject: &'a str,
    base: &'a str,
) -> impl Iterator<Item = (&'a Sample, &'a Sample)> {
    results.of(row, subject).filter_map(move |ours| {
        let theirs = results.of(row, base).find(|theirs| theirs.round == ours.round)?;
        Some((ours, theirs))
    })
}

fn latency_line(
    what: &str,
    peer: &str,
    value: impl Fn(&Sample) -> Option<f64>,
    results: &Results,
) -> Option<Line> {
    let differences: Vec<f64> = pairs(results, "rate2k", "weir-l7", peer)
        .filter_map(|(ours, theirs)| Some(value(ours)? - value(theirs)?))
        .collect();
    let (low, high) = interval95(&differences)?;
    Some([
        format!("weir-l7, rate2k, {what}"),
        format!("below {peer}, interval clear of 0"),
        format!(
            "{} to {} us (95 %, {} rounds)",
            number(low),
            number(high),
            differences.len()
        ),
        verdict(high < 0.0),
    ])
}
