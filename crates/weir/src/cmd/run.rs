//! `weir run`: a command in a network of its own, captured, with its sidecar. The proxy, DNS and discovery
//! stay in the caller's network; the sockets they listen on are made inside and passed out.

mod follow;
mod inside;
mod loopback;
mod network;
mod publish;
mod resolv_conf;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use diagnose::journey::{self, Journey, MadeBy, Printer, Style};
use ipnet::IpNet;
use model::event::Event;
use model::{ErrorName, ObjectName, ports};
use netsys::contain::{self, Contained, Ended, Families, Network, Plan, Signals, Wanted};
use netsys::terminal;
use proxy::Listeners;
use registry::Snapshot;
use rules::evaluate::Origin;
use rules::{Facts, Family, Intent, SocketMark};
use runtime::tap::Tap;
use runtime::telemetry;
use tokio::sync::{mpsc, watch};

use self::inside::Both;
use self::loopback::Loopback;
use self::publish::Publish;
use self::resolv_conf::InPlace;
use crate::errors::{self, OrNamed, fail, of_mistakes};
use crate::servers::Places;
use crate::sidecar::{self, Dns, Parts};
use crate::socket;

/// Workers of the proxy: a laptop's command does not need more.
const WORKERS: usize = 2;
/// How long what the command sent last may take to arrive after it has ended.
const LAST_BYTES: Duration = Duration::from_secs(5);
/// Steps of connections that may wait to be printed; beyond it some are left out.
const EVENTS_MAX: usize = 10_000;
/// Exit code where weir itself failed, as `env` and `timeout` have it; 126 and 127 are the command's.
pub(crate) const FAILED: u8 = 125;

/// Run a command with its traffic captured by a proxy of its own
///
/// The command gets a network of its own, without root: every TCP connection it makes goes through a
/// proxy, which reads services and endpoints from a folder of Kubernetes manifests, balances requests over
/// the real endpoints and passes everything unknown through untouched. Service names resolve inside
/// (nginx, nginx.sidecar, nginx.sidecar.svc.cluster.local), other names as outside.
///
/// What listens inside can be reached from inside: at localhost, at the command's own address, and, with
/// --as, by the services that this pod is an endpoint of; from outside by --publish.
///
/// Localhost is the command's own first: what listens inside answers. Where nothing does, and something
/// listens on this machine's localhost (a database, say), that answers; --loopback says for which ports.
///
/// What cannot be carried fails at once: UDP other than DNS, and ICMP (ping).
#[derive(clap::Args)]
#[command(after_long_help = "EXIT STATUS:\n  \
    that of the command, or 128 and the number of the signal that ended it\n  \
    125  weir failed, or its arguments say nothing\n  \
    126  the command cannot be executed\n  \
    127  there is no such command\n\n\
EXAMPLES:\n  \
    weir run --manifests mesh/ --journey -- curl http://web.shop/       one request, and where it went\n  \
    weir run --manifests mesh/ -- bash                                  a shell in the mesh\n  \
    weir run --manifests mesh/ --as shop/web-0 -p 8080 -- ./server      a pod of it, reached at localhost:8080\n  \
    weir pc endpoints                                                   what its proxy knows, from another terminal")]
pub(crate) struct Args {
    /// Folder of Kubernetes manifests (*.yaml, *.json), watched while the command runs
    #[arg(long, value_name = "FOLDER")]
    manifests: PathBuf,
    /// Run as this pod of the manifests: its addresses, and its namespace for short names
    #[arg(long = "as", value_name = "NAMESPACE/POD")]
    own: Option<ObjectName>,
    /// Let others reach a port of the command: listen on ADDRESS (127.0.0.1) and PORT, and hand what comes
    /// to the same or the second PORT of the command, which must listen there on its own address or on all,
    /// not on localhost alone. Can be given several times
    #[arg(short, long, value_name = "[ADDRESS:]PORT[:PORT]")]
    publish: Vec<Publish>,
    /// Ports of localhost that lead to this machine's where nothing of the command's own listens:
    /// `listening` (every port that something listens on when the command starts), `none`, or a list
    #[arg(long, value_name = "PORTS", default_value = "listening")]
    loopback: Loopback,
    /// Print on standard error where each connection and request goes, and why
    #[arg(long)]
    journey: bool,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match compose(args) {
        Ok(ended) => ended.imitate(),
        Err(error) => {
            // Not by `main`, whose exit code could be taken for the command's.
            errors::print("weir run", &error);
            Ok(ExitCode::from(FAILED))
        }
    }
}

fn compose(args: Args) -> Result<Ended> {
    let signals = Signals::block()?;
    let Args {
        manifests,
        own,
        publish,
        loopback,
        journey: is_told,
        command,
    } = args;
    let lent = loopback::lent(&loopback)?;
    let install = |network: &Network, families| {
        install(network, families, &lent, is_told).map_err(|error| format!("{error:#}"))
    };
    let socket = socket::path()?;
    let resolv_conf = InPlace::of(
        Path::new(network::RESOLV_CONF),
        socket.with_extension("resolv.conf"),
    )
    .or_named(ErrorName::Contain, "cannot write a resolv.conf for the command")?;
    let in_place = resolv_conf
        .as_ref()
        .map(|it| (it.path(), PathBuf::from(network::RESOLV_CONF)));
    let plan = Plan {
        command,
        sockets: sockets(),
        over: contain::no_name_services().into_iter().chain(in_place).collect(),
        install: &install,
        litter: Some(socket.clone()),
    };
    // While this process has one thread: see `contain::start`.
    let started = contain::start(&plan)?;

    let filter = std::env::var("WEIR_LOG").unwrap_or_else(|_| String::from("warn"));
    let level = telemetry::start(telemetry::Format::Text, &filter, crate::LOGGING)?;
    let (snapshots, discovery) = read(manifests, own)?;
    let network = network::of(&snapshots.borrow())?;
    let mut contained = started.furnish(&network)?;
    // It has been put in its place.
    drop(resolv_conf);

    let steps = Tap::default();
    let listening = is_told.then(|| steps.listen(EVENTS_MAX)).flatten();
    let events = listening.map(|(events, _)| events);
    let (mut listeners, dns) = sort(&mut contained)?;
    if let Some(&own) = network.addresses.first() {
        listeners.published = publish::listen(&publish, own)?;
    }
    let sockets = Both {
        porter: Arc::clone(&contained.porter),
        own: every_own(&network),
    };
    let (snapshots, follower) = follow::start(snapshots, Arc::clone(&contained.porter), network)?;
    let sidecar = sidecar::start(Parts {
        source: (snapshots, discovery),
        workers: WORKERS,
        listeners,
        sockets: Arc::new(sockets),
        dns: Some(Dns {
            sockets: dns,
            resolv_conf: PathBuf::from(network::RESOLV_CONF),
            ttl: None,
            mark: None,
            // The rules in there have no condition.
            gives_signs: false,
        }),
        places: Places {
            socket: Some(socket),
            ..Places::default()
        },
        access_log: None,
        steps,
        level,
        quiet: Duration::ZERO,
    })?;

    let lived = live(contained, events, &signals);
    // Whoever does not want to wait for what was sent last presses Ctrl-C.
    signals.unblock()?;
    let last_bytes = if lived.is_ok() { LAST_BYTES } else { Duration::ZERO };
    sidecar.trigger().start(last_bytes);
    sidecar.finish()?;
    if let Some(follower) = follower {
        follower.join()?;
    }
    let (ended, printer) = lived?;
    if let Some(printer) = printer {
        printer.join()?;
    }
    Ok(ended)
}

/// The registry, and what feeds it.
fn read(
    manifests: PathBuf,
    own: Option<ObjectName>,
) -> Result<(watch::Receiver<Arc<Snapshot>>, discovery::Handle)> {
    let (snapshots, discovery) = discovery::start_manifests_briefly(manifests, own.clone())?;
    if let Some(own) = own
        && snapshots.borrow().own.is_none()
    {
        fail!(
            Identity,
            "--as {own}: no manifest describes this pod; add it, or name one that is there"
        );
    }
    if snapshots.borrow().services.is_empty() {
        tracing::warn!(see = %ErrorName::NoServices, "no manifest describes a service: every connection passes through to where it goes");
    }
    Ok((snapshots, discovery))
}

/// The command's life, from the moment that its rules are there.
fn live(
    contained: Contained,
    events: Option<mpsc::Receiver<Event>>,
    signals: &Signals,
) -> Result<(Ended, Option<Printer>)> {
    let (installed, dumps) = contained.installed()?;
    let printer = events.map(|events| start_journey(&dumps, events)).transpose()?;
    if let Some(ended) = signals.ended_before() {
        return Ok((ended, printer));
    }
    let ended = installed.release()?.follow(signals)?;
    Ok((ended, printer))
}

/// REDIRECT leads to exactly these addresses, and a DNS answer must come from the one that was asked.
fn sockets() -> Vec<Wanted> {
    let at = |port| {
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(|ip: IpAddr| SocketAddr::new(ip, port))
    };
    let listeners = [at(ports::OUTBOUND), at(ports::INBOUND), at(ports::DNS)]
        .concat()
        .into_iter()
        .map(Wanted::Listener);
    listeners
        .chain(at(ports::DNS).into_iter().map(Wanted::Datagram))
        .collect()
}

/// Runs inside: installs the rules of `weir run`. Answers a dump of them where it is wanted.
fn install(network: &Network, families: Families, lent: &[(IpNet, u16)], dumped: bool) -> Result<String> {
    let families: &[Family] = match families {
        Families::V4 => &[Family::V4],
        Families::Both => &Family::ALL,
    };
    let mark = SocketMark::exact(inside::MARK);
    let mut intent = Intent::contained(every_own(network), Some(mark));
    intent.outbound.lent = lent.to_vec();
    let plan = rules::plan(&intent, &Facts::fresh(families)).map_err(|mistakes| of_mistakes(&mistakes))?;
    if plan.passthrough_v6 {
        netsys::passthrough::add()?;
    }
    let programs = netsys::rules::install_fresh(&plan)?;
    let dumps = programs
        .iter()
        .filter(|_| dumped)
        .map(|programs| Ok(programs.save()? + DUMP_END));
    dumps.collect()
}

/// The addresses that the command has or may get.
fn every_own(network: &Network) -> Vec<IpAddr> {
    network.addresses.iter().chain(&network.later).copied().collect()
}

/// Ends the dump of one family.
const DUMP_END: &str = "\x0c";

/// Which of the passed-out sockets is for whom.
fn sort(contained: &mut Contained) -> Result<(Listeners, dns::Sockets)> {
    let mut listeners = Listeners::default();
    let mut dns = dns::Sockets {
        datagrams: std::mem::take(&mut contained.datagrams),
        ..dns::Sockets::default()
    };
    for listener in std::mem::take(&mut contained.listeners) {
        match listener
            .local_addr()
            .or_named(ErrorName::Contain, "a socket from inside is unusable")?
            .port()
        {
            ports::DNS => dns.listeners.push(listener),
            ports::INBOUND => listeners.inbound.push(listener),
            _ => listeners.outbound.push(listener),
        }
    }
    Ok((listeners, dns))
}

/// Prints the journey of what is told. `dumps` is what [`install`] answered.
fn start_journey(dumps: &str, events: mpsc::Receiver<Event>) -> Result<Printer> {
    let dumps = Family::ALL.into_iter().zip(dumps.split_terminator(DUMP_END));
    let rulesets = dumps
        .map(|(family, dump)| rules::parse(family, dump))
        .collect::<Result<_, _>>()?;
    let of_ours = |mark| Origin::Socket {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mark,
    };
    let made_by = MadeBy {
        application: of_ours(0),
        proxy: of_ours(inside::MARK),
    };
    let out = std::io::stderr();
    let columns = terminal::columns(&out);
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::new(columns, columns.is_some() && !no_colour);
    let journey = Journey::new(style, journey::from_dump(rulesets, made_by));
    Ok(journey::start(journey, events, out)?)
}
