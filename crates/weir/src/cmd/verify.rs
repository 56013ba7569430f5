//! `weir verify`: capture proven by packets. Arguments to a question, the question to a report, the report to a
//! table, JSON, an exit code, and with `--watch` to metrics.

mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use diagnose::tables::Shape;
use diagnose::verify::{Outcome, Question, Report, verify};
use model::ErrorName;

use crate::cmd::init;
use crate::cmd::place::Place;
use crate::errors::{self, OrNamed};

/// Prove that a network namespace is captured, by sending packets through its rules
///
/// For each direction, family and protocol, and for whatever the flags exempt, a packet is sent that only the right
/// rule leads to the right place, and it is seen where it arrives: at the proxy, where it was going, or nowhere.
/// Connections then go all the way, through the proxy and back. Where no proxy runs, a stand-in takes its place.
/// No packet leaves the namespace, nothing stays in it, and no application is called.
///
/// What should hold is what `weir init` was asked for, which its rules keep; or what is given after `--`:
///
///     weir verify -- --sidecar -x 10.0.0.0/8
///
/// What cannot be probed is named and never counts as proven. It takes what an init container has, CAP_NET_ADMIN and
/// CAP_NET_RAW; with CAP_SETUID and CAP_SETGID it also sends as the proxy's user. From outside it takes root.
#[derive(clap::Args)]
#[command(after_long_help = "EXIT STATUS:\n  \
    0  proven\n  \
    1  broken (another number with --exit-code)\n  \
    2  nothing was verified: the flags are wrong, the namespace cannot be entered, it has no rules, or rights lack\n  \
    3  nothing is broken, but something could not be probed\n\n\
EXAMPLES:\n  \
    weir verify                               this namespace, against what its rules keep\n  \
    weir verify --pid $(pgrep -f myapp)       that of a process, from outside\n  \
    weir verify --before-proxy --exit-code 126 -- --sidecar\n  \
    \u{20}                                         in an init container, before the proxy runs\n  \
    weir verify --watch 30s                   again and again, with metrics on port 15022")]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    /// Form of the output
    #[arg(
        long,
        short,
        value_name = "FORM",
        default_value = "table",
        help_heading = "What is said"
    )]
    output: Form,
    /// Each probe in a row also where all is proven
    #[arg(long, short, help_heading = "What is said")]
    verbose: bool,
    /// Exit with this number instead of 1 where capture is broken: 126 is what some controllers look for
    #[arg(long, value_name = "NUMBER", default_value_t = 1, help_heading = "What is said",
          value_parser = clap::value_parser!(u8).range(1..))]
    exit_code: u8,
    /// No proxy is meant to run yet: that none does is nothing to report
    #[arg(long, help_heading = "How")]
    before_proxy: bool,
    /// How long the proxy may take to answer, in seconds; the kernel is given less
    #[arg(long, value_name = "SECONDS", default_value_t = 3, help_heading = "How",
          value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
    /// Go on, once in so long (30s, 5m), until told to end; metrics say how it stands
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "30s", value_parser = interval,
          help_heading = "How", conflicts_with = "output")]
    watch: Option<Duration>,
    /// Where the metrics of --watch are served
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "[::]:15022",
        requires = "watch",
        help_heading = "How"
    )]
    metrics: std::net::SocketAddr,
    /// Flags of `weir init` that say what should hold [default: those that the rules keep]
    #[arg(last = true, value_name = "FLAGS OF INIT", num_args = 0..)]
    asked: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table, cut to the terminal's width.
    Table,
    /// A table that is never cut.
    Wide,
    /// JSON with all that is known.
    Json,
}

/// Nothing could be verified.
const NOT_VERIFIED: u8 = 2;
/// Nothing is broken, but not all is proven.
const NOT_PROVEN: u8 = 3;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let intent = match args.asked.is_empty() {
        true => None,
        false => Some(init::asked(&args.asked)?.0),
    };
    let question = Question {
        intent,
        before_proxy: args.before_proxy,
        patience: Duration::from_secs(args.timeout),
        shell: args.place.shell(),
    };
    if let Some(interval) = args.watch {
        return watch::run(args, &question, interval);
    }
    let report = match args.place.run(|| verify(&question))? {
        Ok(report) => report,
        Err(error) => {
            errors::print("weir", &error.into());
            return Ok(ExitCode::from(NOT_VERIFIED));
        }
    };
    print(&text(&report, args)?)?;
    if report.verdict == Outcome::Broken {
        eprintln!(
            "weir: this namespace is not captured as asked [{}]",
            ErrorName::CaptureBroken
        );
    }
    Ok(ExitCode::from(match report.verdict {
        Outcome::Proven => 0,
        Outcome::Broken => args.exit_code,
        Outcome::NotProbed => NOT_PROVEN,
    }))
}

fn text(report: &Report, args: &Args) -> Result<String> {
    let shape = |terminal| Shape {
        is_wide: true,
        terminal,
    };
    Ok(match args.output {
        Form::Json => serde_json::to_string_pretty(report)? + "\n",
        Form::Wide => report.text(shape(None), args.verbose),
        Form::Table => report.text(shape(netsys::terminal::columns(&io::stdout())), args.verbose),
    })
}

fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).or_named(ErrorName::Output, "cannot print")
        }
        _ => Ok(()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    match model::duration::parse(text) {
        Ok(interval) if !interval.is_zero() => Ok(interval),
        Ok(_) => Err("must be more than nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
