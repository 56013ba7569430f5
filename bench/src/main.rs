//! `bench`: Weir, HAProxy, nginx and no proxy at all, as the sidecar of the same client, in one run.
//! Rounds are interleaved and compared pairwise; the table goes to standard output or `--write`.

#![forbid(unsafe_code)]

mod capture;
mod contenders;
mod dns;
mod idle;
mod load;
mod machine;
mod report;
mod rows;
mod run;
mod stats;
mod targets;
mod tproxy;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;

/// Measures Weir and its peers as a client's sidecar.
///
/// Each contender gets a client namespace of its own, wired to one server namespace that runs nginx and
/// iperf3; the client's connections are redirected to the contender. Needs root, changes nothing outside
/// its namespaces. Use it on a quiet machine: two cores do everything.
#[derive(Parser)]
#[command(name = "bench")]
struct Args {
    /// Only rows of these names, or that start so, such as `1k`, `iperf1`, `100k-c16`, `idle`.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Only contenders of these names; `direct` gives the ratios their base.
    #[arg(long, value_delimiter = ',')]
    configs: Vec<String>,
    /// How often each row is measured; the fixed-rate row at least ten times unless `--rows` is given.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long one sample loads the proxy.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// One more Weir, as `NAME=[VARIABLE=VALUE ...] PATH [ARGUMENT ...]`; gives NAME-l4 and NAME-l7.
    #[arg(long = "weir", value_name = "NAME=COMMAND")]
    weirs: Vec<String>,
    /// One more peer, as `NAME-l4=COMMAND` or `NAME-l7=COMMAND`. It listens on port 15001, runs as the
    /// proxy's uid; `{ip}` stands for the server's address.
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    peers: Vec<String>,
    /// Write the report here. What follows the line `<!-- notes -->` in an existing file is kept.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Congestion control of every namespace, such as `reno`; the machine's own by default.
    #[arg(long, value_name = "ALGORITHM")]
    congestion: Option<String>,
    /// Take the CPU before every other program: for a machine that is not quiet. Fit for comparisons
    /// while developing, not for figures to publish.
    #[arg(long)]
    urgent: bool,
    /// What capture itself costs, and nothing else: the time of `weir init` and of a new connection by each back-end and
    /// mode. Takes about two minutes with five rounds; of the other options `--rounds`, `--write` and `--urgent` count.
    #[arg(long)]
    capture: bool,
    /// Only inbound TPROXY, of both kinds: 2,000 new connections a second for `--seconds`, and what became of
    /// them.
    #[arg(long)]
    tproxy: bool,
    /// Name the rows and contenders and stop.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let plan = run::Plan {
        rows: rows::select(&args.rows)?,
        idle: rows::with(rows::IDLE, &args.rows),
        dns: rows::with(rows::DNS, &args.rows),
        contenders: contenders::select(&args.configs, &args.weirs, &args.peers)?,
        rounds: args.rounds,
        rate_rounds: if args.rows.is_empty() {
            args.rounds.max(10)
        } else {
            args.rounds
        },
        sample: Duration::from_secs(args.seconds),
        congestion: args.congestion,
    };
    if args.list {
        eprintln!("rows: {}", rows::names().join(", "));
        eprintln!("configs: {}", plan.names().join(", "));
        return Ok(());
    }
    if args.urgent {
        machine::take_precedence()?;
    }
    if args.capture {
        let report = capture::run(args.rounds)?;
        return match &args.write {
            Some(path) => capture::write(&report, path),
            None => Ok(writeln!(std::io::stdout(), "{report}")?),
        };
    }
    if args.tproxy {
        let report = tproxy::run(plan.sample)?;
        return Ok(writeln!(std::io::stdout(), "{report}")?);
    }
    let results = run::run(&plan, |so_far| match &args.write {
        Some(path) => report::write(&plan, so_far, path),
        None => Ok(()),
    })?;
    if args.write.is_none() {
        writeln!(std::io::stdout(), "{}", report::text(&plan, &results))?;
    }
    Ok(())
}
