//! The run: everything up once, then for each round, for each row, each contender in turn.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use e2e::Pod;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::contenders::{Contender, Layer, Spec, prepare};
use crate::dns;
use crate::idle::{self, Idle};
use crate::load::{self, Yield};
use crate::rows::{Load, Row};
use crate::usage::{self, Machine};

/// What to measure and for how long.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rows: Vec<Row>,
    pub(crate) idle: bool,
    pub(crate) dns: bool,
    pub(crate) contenders: Vec<Spec>,
    pub(crate) rounds: usize,
    pub(crate) rate_rounds: usize,
    pub(crate) sample: Duration,
    /// Congestion control to use instead of the machine's own.
    pub(crate) congestion: Option<String>,
}

impl Plan {
    pub(crate) fn names(&self) -> Vec<&str> {
        self.contenders.iter().map(|spec| spec.name.as_str()).collect()
    }

    fn rounds_of(&self, row: Row) -> usize {
        if row.load == Load::FixedRate {
            self.rate_rounds
        } else {
            self.rounds
        }
    }
}

/// One sample of one row on one contender.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sample {
    pub(crate) round: usize,
    pub(crate) gave: Yield,
    /// CPU seconds of the contender's processes.
    pub(crate) cpu_s: f64,
    /// CPU seconds of the whole machine.
    pub(crate) machine_s: f64,
    /// How busy the machine was with other things just before, 0 to 1.
    pub(crate) busy_before: f64,
}

/// All that was measured. Samples stand in the order in which they were taken.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) samples: Vec<(Row, String, Sample)>,
    pub(crate) idle: Vec<(String, Idle)>,
    pub(crate) dns: Vec<(String, dns::Sample)>,
}

impl Results {
    /// The samples of one row on one contender, one a round.
    pub(crate) fn of<'a>(&'a self, row: &'a str, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |(of, who, _)| of.name == row && who == name)
            .map(|(_, _, sample)| sample)
    }
}

/// Sets everything up, measures, and takes everything down again. `after_round` sees the results so far:
/// a run of half an hour that is stopped has not been for nothing.
pub(crate) fn run(plan: &Plan, mut after_round: impl FnMut(&Results) -> Result<()>) -> Result<Results> {
    let limit = getrlimit(Resource::Nofile);
    let wide = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, wide).context("raising the limit of descriptors")?;
    let dir = tempfile::tempdir()?;
    open_to_all(dir.path())?;
    let mut results = Results::default();
    if plan.dns {
        results.dns = dns::run(dir.path(), plan.rounds, plan.sample)?;
    }
    if plan.rows.is_empty() && !plan.idle {
        after_round(&results)?;
        return Ok(results);
    }
    let server = Pod::bare("server", Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)?;
    let congestion = plan.congestion.as_deref();
    prepare(&server, congestion)?;
    let _programs = load::start_server(&server, dir.path())?;
    let mut contenders = Vec::new();
    for (number, spec) in (1..).zip(&plan.contenders) {
        eprintln!("starting {}", spec.name);
        let started = Contender::start(spec, number, &server, dir.path(), congestion)
            .with_context(|| format!("starting {}", spec.name))?;
        contenders.push(started);
    }
    if plan.idle {
        for contender in contenders.iter().filter(|one| one.layer != Layer::Direct) {
            eprintln!("idle connections: {}", contender.name);
            results
                .idle
                .push((contender.name.clone(), idle::measure(contender)?));
        }
    }
    for round in 0..plan.rounds.max(plan.rate_rounds) {
        for (number, &row) in plan.rows.iter().enumerate() {
            if round < plan.rounds_of(row) {
                let first = round + number;
                measure_row(plan, row, round, first, &contenders, dir.path(), &mut results)?;
            }
        }
        after_round(&results)?;
    }
    Ok(results)
}

/// One round of one row, the contenders in turn, starting with another one each time.
fn measure_row(
    plan: &Plan,
    row: Row,
    round: usize,
    first: usize,
    contenders: &[Contender],
    dir: &std::path::Path,
    results: &mut Results,
) -> Result<()> {
    for turn in 0..contenders.len() {
        let contender = &contenders[(first + turn) % contenders.len()];
        if contender.layer == Layer::L7 && !row.load.is_http() {
            continue;
        }
        let sample = measure(row, round, contender, plan.sample, dir)
            .with_context(|| format!("{} on {}", row.name, contender.name))?;
        eprintln!(
            "round {} {:<9} {:<14} {:>12} cpu {:.2} s{}",
            round + 1,
            row.name,
            contender.name,
            crate::stats::number(sample.gave.rate),
            sample.cpu_s,
            if sample.busy_before > NOISY {
                "  (noisy)"
            } else {
                ""
            }
        );
        results.samples.push((row, contender.name.clone(), sample));
    }
    Ok(())
}

/// Above this share of other work before a sample, the sample is called noisy.
pub(crate) const NOISY: f64 = 0.15;

fn measure(
    row: Row,
    round: usize,
    contender: &Contender,
    length: Duration,
    dir: &std::path::Path,
) -> Result<Sample> {
    /// Long enough to see another's work at the 10 ms grain of /proc/stat, and to let the last load end.
    const LOOK: Duration = Duration::from_millis(200);
    let before = Machine::now()?;
    thread::sleep(LOOK);
    let start = Machine::now()?;
    let cpu = usage::cpu(&contender.processes)?;
    let gave = load::put(row.load, contender, length, dir)?;
    let cpu_s = (usage::cpu(&contender.processes)? - cpu).as_secs_f64();
    let end = Machine::now()?;
    ensure!(
        contender.layer == Layer::Direct || cpu_s > 0.0,
        "the load did not pass through the proxy"
    );
    Ok(Sample {
        round,
        gave,
        cpu_s,
        machine_s: end.busy_s - start.busy_s,
        busy_before: start.busy_share(before),
    })
}

/// Lets the proxies and the load generators, which are not root, read what is put here, and gives them
/// `open` to write to.
fn open_to_all(dir: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(dir, 0o777)?;
    let open = dir.join("open");
    fs::create_dir(&open)?;
    mode(&open, 0o777)?;
    Ok(())
}
