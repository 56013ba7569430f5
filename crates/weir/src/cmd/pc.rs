//! `weir pc`: what a running proxy, or a saved dump, would do with traffic.

pub(crate) mod fetch;
pub(crate) mod find;
mod show;

use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use crate::errors::OrNamed;
use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use model::{Direction, ErrorName, Severity};
use registry::Dump;

/// Show what a running proxy knows: listeners, routes, clusters, endpoints, services, names, settings, problems
///
/// The proxy is found by itself where one runs for this user or on 127.0.0.1:15000; --proxy names one of
/// several. A dump saved with `weir pc dump` (or `curl localhost:15000/config_dump`) is read with --file.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,

    /// Which proxy: a process id, a socket file, or HOST:PORT of an admin port
    #[arg(
        long,
        global = true,
        value_name = "WHICH",
        conflicts_with = "file",
        help_heading = "Source and form"
    )]
    proxy: Option<String>,

    /// Read a saved dump instead of asking a proxy; `-` is standard input
    #[arg(
        long,
        short,
        global = true,
        value_name = "FILE",
        help_heading = "Source and form"
    )]
    file: Option<PathBuf>,

    /// Form of the output
    #[arg(
        long,
        short,
        global = true,
        value_name = "FORM",
        default_value = "table",
        help_heading = "Source and form"
    )]
    output: Form,
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
        /// Only of this direction: outbound or inbound
        #[arg(long, value_parser = direction)]
        direction: Option<Direction>,
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
        /// Only of this severity: error, warning or note
        #[arg(long, value_parser = severity)]
        severity: Option<Severity>,
    },
    /// Everything, as JSON: to be saved, and read with --file
    Dump,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let text = match &args.file {
        Some(path) => read(path)?,
        None => find::dump(args.proxy.as_deref())?,
    };
    if matches!(args.what, What::Dump) {
        return print(&(text.trim_end().to_owned() + "\n"));
    }
    let dump: Dump = serde_json::from_str(&text).or_named(
        ErrorName::BadAnswer,
        "this is not a dump of a proxy of this version; save one with `weir pc dump` of the proxy's own version",
    )?;
    show::show(&dump, args.what, args.output)
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

fn severity(text: &str) -> Result<Severity, String> {
    let known = Severity::ALL.into_iter();
    let mut named = known.filter(|severity| severity.as_str().eq_ignore_ascii_case(text));
    named
        .next()
        .ok_or_else(|| "say error, warning or note".to_owned())
}

fn direction(text: &str) -> Result<Direction, String> {
    match text.to_ascii_lowercase().as_str() {
        "outbound" => Ok(Direction::Outbound),
        "inbound" => Ok(Direction::Inbound),
        _ => Err("say outbound or inbound".to_owned()),
    }
}
