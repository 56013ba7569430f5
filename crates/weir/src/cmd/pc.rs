//! `weir pc`: what a running proxy, or a saved dump, would do with traffic.

mod ask;
pub(crate) mod fetch;
pub(crate) mod find;
mod journey;
mod proxies;
mod show;

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use model::{Direction, ErrorName, Severity};
use registry::Dump;

use super::place::Place;
use crate::errors::{OrNamed, fail};

/// Show what a running proxy knows: listeners, routes, clusters, endpoints, services, names, settings, problems
///
/// The proxy is that of this network namespace (127.0.0.1:15000), or else the only one that this user runs;
/// standard error says whose it is where it is another namespace's. --proxy names one of several, and --pid, as
/// root, that of any process's namespace; `weir pc proxies` lists them. A dump saved with `weir pc dump` (or
/// `curl localhost:15000/config_dump`) is read with --file.
#[derive(clap::Args)]
#[command(after_long_help = "EXIT STATUS:\n  \
    0  shown\n  \
    1  shown, and it is bad: `problems` with an error among them, `proxies` with one that does not answer\n  \
    2  not shown: no proxy or file, or arguments that say nothing\n\n\
EXAMPLES:\n  \
    weir pc endpoints --status UNHEALTHY      of the proxy here\n  \
    weir pc clusters --pid $(pgrep -f myapp)  of the proxy in a pod, from its node, as root\n  \
    weir pc journey --service reviews         what its connections live through, now\n  \
    weir pc proxies                           which there are")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,

    /// Which proxy: a process id, a socket file, or HOST:PORT of an admin port
    #[arg(
        long,
        global = true,
        value_name = "WHICH",
        conflicts_with_all = ["file", "netns", "pid"],
        help_heading = "Source and form"
    )]
    proxy: Option<String>,

    /// Read a saved dump instead of asking a proxy; `-` is standard input
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        visible_alias = "dump",
        conflicts_with_all = ["netns", "pid"],
        help_heading = "Source and form"
    )]
    file: Option<PathBuf>,

    #[command(flatten)]
    place: Place,

    /// Form of the output [default: table; of `dump` json]
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORM",
        help_heading = "Source and form"
    )]
    output: Option<Form>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A table, cut to the terminal's width.
    #[value(alias = "short")]
    Table,
    /// A table with all columns, never cut.
    Wide,
    /// JSON with all that is known.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Subcommand)]
enum What {
    /// Where connections are taken to, by the address and port that they were made to
    #[command(visible_aliases = ["listener", "l"])]
    Listeners {
        /// Only of this address; pods of services with an address of their own are listed only so
        #[arg(long)]
        address: Option<IpAddr>,
        /// Only of this port
        #[arg(long)]
        port: Option<u16>,
        /// Only of this kind: HTTP, TCP or HTTP+TCP
        #[arg(long = "type", value_name = "TYPE", value_parser = ["HTTP", "TCP", "HTTP+TCP"], ignore_case = true)]
        kind: Option<String>,
    },
    /// Which route of a service a request takes, by its Host
    #[command(visible_aliases = ["route", "r"])]
    Routes {
        /// Only of this name, for example nginx.sidecar.svc.cluster.local:80
        #[arg(long)]
        name: Option<String>,
    },
    /// The destinations there are, and how each is balanced
    #[command(visible_aliases = ["cluster", "c"])]
    Clusters {
        /// Only of services whose host name contains this
        #[arg(long)]
        fqdn: Option<String>,
        /// Only of this direction
        #[arg(long, value_parser = DIRECTIONS, ignore_case = true)]
        direction: Option<String>,
        /// Only of this service port
        #[arg(long)]
        port: Option<u16>,
        /// Only of this subset (none exist yet)
        #[arg(long)]
        subset: Option<String>,
    },
    /// The addresses behind the clusters, and how they are
    #[command(visible_aliases = ["endpoint", "ep"])]
    Endpoints {
        /// Only at this address
        #[arg(long)]
        address: Option<IpAddr>,
        /// Only at this port
        #[arg(long)]
        port: Option<u16>,
        /// Only of this cluster, for example 'outbound|80||nginx.sidecar.svc.cluster.local'
        #[arg(long)]
        cluster: Option<String>,
        /// Only with this status: HEALTHY, DRAINING or UNHEALTHY
        #[arg(long, value_parser = ["HEALTHY", "DRAINING", "UNHEALTHY"], ignore_case = true)]
        status: Option<String>,
    },
    /// Services in the registry
    #[command(visible_aliases = ["service", "svc"])]
    Services {
        /// Only of this namespace
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Pods in the registry
    #[command(visible_aliases = ["workload", "w"])]
    Workloads {
        /// Only of this namespace
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// What names are looked up to, and by whom: every name of the mesh, or NAME as a client's resolver tries it
    #[command(visible_aliases = ["names", "d"])]
    Dns {
        /// The name, or an address, that a client looks up; tried with the search list of its resolv.conf
        name: Option<String>,
        /// Only records of this type: A, AAAA, CNAME, PTR, SRV, or any other
        #[arg(long = "type", value_name = "TYPE", value_parser = record_type)]
        kind: Option<String>,
    },
    /// Mesh-wide settings in force, with their defaults
    Settings,
    /// What is wrong with the manifests, with file, document, object and field
    #[command(visible_aliases = ["problem", "p"])]
    Problems {
        /// Only of this severity
        #[arg(long, value_parser = SEVERITIES, ignore_case = true)]
        severity: Option<String>,
    },
    /// What happens to connections, as it happens, until Ctrl-C: each step of each, and look-ups
    #[command(visible_aliases = ["j"])]
    Journey {
        /// Only connections from or to this address
        #[arg(long)]
        address: Option<IpAddr>,
        /// Only to services whose host name contains this
        #[arg(long)]
        service: Option<String>,
    },
    /// The proxies that run: those of this user and, as root, all on this machine
    Proxies,
    /// Everything, as JSON or YAML: to be saved as JSON, and read with --file
    Dump,
}

/// As they are written. Words, and not the types, so that the help lists them.
const DIRECTIONS: [&str; 2] = ["outbound", "inbound"];
const SEVERITIES: [&str; 3] = ["error", "warning", "note"];

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if matches!(args.what, What::Proxies) {
        return show::proxies(&proxies::all()?, args.output.unwrap_or(Form::Table));
    }
    if let What::Journey { address, service } = args.what {
        if args.file.is_some() {
            fail!(Usage, "a saved dump has no journey; leave --file out");
        }
        let found = find::find(args.proxy.as_deref(), &args.place)?;
        return journey::follow(&found, journey::Filter { address, service }, args.output);
    }
    let text = match &args.file {
        Some(path) => read(path)?,
        None => find::find(args.proxy.as_deref(), &args.place)?.dump,
    };
    if matches!(args.what, What::Dump) {
        return show::whole(&text, args.output.unwrap_or(Form::Json));
    }
    let dump: Dump = serde_json::from_str(&text).or_named(
        ErrorName::BadAnswer,
        "this is not a dump of a proxy of this version; save one with `weir pc dump` of the proxy's own version",
    )?;
    show::show(&dump, args.what, args.output.unwrap_or(Form::Table))
}

/// Prints, and ends quietly where nobody reads any more (`weir pc clusters | head`).
pub(crate) fn print(text: &str) -> Result<ExitCode> {
    match io::Write::write_all(&mut io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).or_named(ErrorName::Output, "cannot print")
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn read(path: &PathBuf) -> Result<String> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .or_named(ErrorName::Input, "cannot read a dump from standard input")?;
        return Ok(text);
    }
    fs::read_to_string(path).or_named_with(ErrorName::Input, || {
        format!("cannot read the dump {}", path.display())
    })
}

/// A word like `AAAA`; which types there are, nobody knows for certain.
fn record_type(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        true => Ok(text.to_ascii_uppercase()),
        false => Err("say A, AAAA, CNAME, PTR, SRV, or another type of records".to_owned()),
    }
}

/// One of [`DIRECTIONS`].
fn direction(word: &str) -> Direction {
    match word.eq_ignore_ascii_case("inbound") {
        true => Direction::Inbound,
        false => Direction::Outbound,
    }
}

/// One of [`SEVERITIES`].
fn severity(word: &str) -> Option<Severity> {
    let mut known = Severity::ALL.into_iter();
    known.find(|severity| severity.as_str().eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_for_itself() {
        for word in DIRECTIONS {
            assert_eq!(direction(word).as_str(), word);
        }
        for word in SEVERITIES {
            assert_eq!(severity(word).unwrap().as_str(), word);
        }
        assert_eq!(SEVERITIES.len(), Severity::ALL.len());
    }
}
