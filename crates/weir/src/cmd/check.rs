//! `weir check`: what would break capture, found beforehand. Arguments to a question, the question to a report, the
//! report to a table, JSON or YAML, and an exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use diagnose::check::{Manifests, Question, Report, Verdict, check};
use model::ErrorName;
use netsys::contain;
use registry::Dump;

use crate::cmd::init;
use crate::cmd::place::Place;
use crate::errors::OrNamed;

/// Find what would break capture, before anything is changed
///
/// Looks at a network namespace, at the machine, and at manifests: whether the kernel and a back-end take the rules
/// (tried in a namespace of its own that vanishes), which rules of others decide about the same traffic, what other
/// meshes have left behind, who runs as the proxy's user, who has its ports, and whether IPv6, DNS, tracked
/// connections, ports and descriptors will do. Each finding says why it matters and what to do; `weir explain NAME`
/// says more.
///
/// What is to be captured is what Weir's rules here were made from; where there are none, everything (--sidecar). To
/// ask about something else, give the flags of `weir init` after `--`:
///
///     weir check -- --sidecar -m TPROXY --backend nft
///
/// It changes nothing. What could not be looked at is said, and never counts as fine; root can look at everything.
#[derive(clap::Args)]
#[command(after_long_help = "EXIT STATUS:\n  \
    0  nothing found (notes do not count)\n  \
    1  at least one error: capture is broken, or would be\n  \
    2  the command line was not understood\n  \
    3  nothing found, but not everything could be looked at\n  \
    4  warnings, and no error\n\n\
EXAMPLES:\n  \
    weir check                                   this namespace, as for weir init --sidecar\n  \
    weir check --pid $(pgrep -f myapp)           that of a process, from outside\n  \
    weir check --manifests mesh/                 and the manifests in mesh/\n  \
    weir check -o json | jq '.findings[].name'   for programs")]
pub(crate) struct Args {
    /// Also check the Kubernetes manifests in this folder
    #[arg(long, value_name = "FOLDER")]
    manifests: Option<PathBuf>,
    /// The resolver's configuration [default: that of the process, or of the named namespace, or /etc/resolv.conf]
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,
    /// Form of the output
    #[arg(long, short, value_name = "FORM", default_value = "table")]
    output: Form,
    /// Also say what was looked at, and what was seen
    #[arg(long, short)]
    verbose: bool,
    /// Flags of `weir init` that say what is to be captured, and how
    #[arg(last = true, value_name = "FLAGS OF INIT", num_args = 0..)]
    asked: Vec<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table, wrapped at the terminal's width.
    Table,
    /// JSON with all that is known.
    Json,
    /// The same as YAML.
    Yaml,
}

const ERRORS: u8 = 1;
const INCOMPLETE: u8 = 3;
const WARNINGS: u8 = 4;

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    // Before there is a second thread.
    let contained = contain::could_start().map_err(|error| error.to_string());
    let asked = match args.asked.is_empty() {
        true => None,
        false => Some(init::asked(&args.asked)?),
    };
    let (intent, backend) = asked.map_or((None, None), |(intent, backend)| (Some(intent), backend));
    let question = Question {
        intent,
        backend,
        process: args.place.process(),
        resolv_conf: args.resolv_conf.clone().or_else(|| args.place.resolv_conf()),
        contained,
        manifests: args.manifests.as_deref().map(manifests).transpose()?,
    };
    let report = args.place.run(|| check(&question))?;
    print(&text(&report, args)?)?;
    Ok(ExitCode::from(match report.verdict() {
        Verdict::Clean => 0,
        Verdict::Errors => ERRORS,
        Verdict::Warnings => WARNINGS,
        Verdict::Incomplete => INCOMPLETE,
    }))
}

/// Reads the folder once.
fn manifests(folder: &Path) -> Result<Manifests> {
    let (snapshots, handle) = discovery::start_manifests_briefly(folder.to_owned(), None)?;
    let problems = handle.problems();
    let dump = Dump::new(&snapshots.borrow(), &[], &[], 0);
    Ok(Manifests { dump, problems })
}

fn text(report: &Report, args: &Args) -> Result<String> {
    const CANNOT: &str = "cannot write the report";
    match args.output {
        Form::Json => Ok(report.json().or_named(ErrorName::Defect, CANNOT)? + "\n"),
        Form::Yaml => report.yaml().or_named(ErrorName::Defect, CANNOT),
        Form::Table => Ok(report.text(netsys::terminal::columns(&io::stdout()), args.verbose)),
    }
}

fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).or_named(ErrorName::Output, "cannot print")
        }
        _ => Ok(()),
    }
}
