//! `weir explain`: why a connection goes where it goes. Arguments to a namespace, its rules, a registry and a name;
//! `diagnose` joins them, and this prints what it says.

mod from;
mod mesh;
mod print;
mod target;
mod wait;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Result;
use clap::ValueEnum;
use diagnose::explain::{
    self, Assumed, Client, Explanation, Finding, Live, Mesh, Named, Network, Question, Rules,
};
use model::{Direction, ErrorName};
use netsys::rules::Sent;
use registry::Snapshot;
use rules::ruleset::IpProtocol;
use rules::{Family, dumps};

use self::from::{From, Place};
use self::print::Told;
use self::target::Target;
use self::wait::waiting;
use crate::errors::{self, OrNamed, fail};

/// Explain why a connection goes where it goes, from the firewall rules to the endpoint
///
/// Walks the installed rules (iptables of either kind, nftables, anybody's) as the kernel would, then asks what the
/// proxy asks: listener, protocol, route, cluster, endpoint. What is in the way is named with its side (client, rules,
/// proxy, registry, endpoint), the rule, and what to do. Nothing is sent and nothing is changed, but with --trace
/// and --probe.
///
/// Exit status: 0 the connection would work; 1 it would fail, or go past the proxy although the mesh owns the
/// destination; 2 something could not be read, or the arguments are wrong; 3 it cannot be said,
/// or --trace shows that the kernel does otherwise.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// An error by its name instead, such as WEIR-PORT-IN-USE: what it means, how it comes about, what to do
    #[arg(value_name = "ERROR", conflicts_with = "to")]
    name: Option<ErrorName>,

    /// The client: pod/NAMESPACE/NAME (also of `weir run --as`), netns:PATH or netns:NAME, pid:N [default: where this runs]
    #[arg(long, value_name = "WHERE")]
    from: Option<From>,
    /// The destination: HOST:PORT, where HOST is a name of the mesh, any other name or an address; or a URL
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<Target>,
    /// The protocol
    #[arg(long, default_value = "tcp")]
    proto: Proto,
    /// The connection comes into the namespace; --to is then an address of its own
    #[arg(long = "in")]
    inbound: bool,
    /// User id of the client [default: the process's, with pid:N and without --from; that of the pod's processes where
    /// they have one; else 1000]
    #[arg(long)]
    uid: Option<u32>,
    /// Its group id [default: as --uid]
    #[arg(long)]
    gid: Option<u32>,
    /// Mark of its socket (SO_MARK)
    #[arg(long, default_value = "0", value_parser = mark)]
    mark: u32,
    /// Its address [default: what routing gives it; with --in, the gateway's]
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Only this family: 4 or 6 [default: both, where the name has both]
    #[arg(long, value_name = "4|6", value_parser = family)]
    family: Option<Family>,

    /// Rules from a file instead of the namespace's: what iptables-save -c, ip6tables-save -c or nft list ruleset
    /// printed, also of another mesh's pod; what ipset save and ip addr print may follow; `-` is standard input
    #[arg(long, value_name = "FILE", help_heading = "What is asked")]
    rules: Option<PathBuf>,
    /// The registry from manifests instead of a running proxy's
    #[arg(long, value_name = "FOLDER", help_heading = "What is asked", conflicts_with_all = ["proxy", "dump"])]
    manifests: Option<PathBuf>,
    /// Which proxy to ask, as `weir pc --proxy` takes it [default: the one of the namespace]
    #[arg(
        long,
        value_name = "WHICH",
        help_heading = "What is asked",
        conflicts_with = "dump"
    )]
    proxy: Option<String>,
    /// The registry from what `weir pc dump` saved
    #[arg(long, value_name = "FILE", help_heading = "What is asked")]
    dump: Option<PathBuf>,

    /// Make one such connection, and show whether the kernel does with it what is explained: by its trace of nftables,
    /// else by counters. It is closed at once; a table called weir-trace is there meanwhile
    #[arg(long, help_heading = "What is asked", conflicts_with_all = ["rules", "inbound"])]
    trace: bool,
    /// Call the endpoints that the connection may come to, as the proxy would (else the destination, as the client would),
    /// and close at once: each has 1 s to answer. Most servers do not mind; some count it as a client that failed
    #[arg(long, help_heading = "What is asked", conflicts_with = "rules")]
    probe: bool,

    /// Every rule that was asked, and why it did not fit
    #[arg(long, short, help_heading = "Form")]
    verbose: bool,
    /// Form of the output
    #[arg(
        long,
        short,
        value_name = "FORM",
        default_value = "text",
        help_heading = "Form"
    )]
    output: Form,
}

const EXAMPLES: &str = "\
Examples:
  weir explain --to web.shop:80                              in the pod itself
  weir explain --from pod/shop/client --to http://web.shop/  the pod's proxy runs on this machine
  weir explain --from pid:4711 --to 10.96.0.10:80 -v         as that process, every rule
  weir explain --from netns:client --in --to 10.1.0.5:8080   what comes in
  weir explain --to web.shop:80 --probe                      call the endpoints, too
  weir explain --from pid:4711 --to 10.96.0.10:80 --trace    make the connection, and watch the kernel
  weir explain --rules rules.txt --manifests mesh/ --source 10.1.0.5 --to web.shop:80
                                                             with what somebody sent you
  weir explain WEIR-PORT-IN-USE                              what an error means";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A few lines; more with -v.
    Text,
    /// JSON with all that is known.
    Json,
    /// The same as YAML.
    Yaml,
}

/// That something could not be read; 1 says that the connection would fail.
const TROUBLE: u8 = 2;

#[expect(
    clippy::unnecessary_wraps,
    reason = "every subcommand runs by the same signature"
)]
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    Ok(answer(args).unwrap_or_else(|error| {
        errors::print("weir", &error);
        ExitCode::from(TROUBLE)
    }))
}

fn answer(args: &Args) -> Result<ExitCode> {
    let to = match (&args.name, &args.to) {
        (Some(name), _) => return print::error(*name, args.output),
        (None, Some(to)) => to,
        (None, None) => fail!(
            Usage,
            "say what to explain: --to HOST:PORT, or an error's name, such as WEIR-PORT-IN-USE"
        ),
    };
    let place = match (&args.from, &args.rules) {
        // What is in a file is nowhere.
        (Some(From::Pod(_)) | None, Some(_)) => Place::of_file(),
        (None, None) => Place::here(),
        (Some(from), _) => from.find(args.manifests.as_deref())?,
    };
    let mut told = place.run(|| explained(args, to, &place))??;
    told.run_by(&place.shell());
    print::print(&told, args.verbose, args.output)
}

/// Within the namespace.
fn explained(args: &Args, to: &Target, place: &Place) -> Result<Told> {
    let mesh = mesh::find(args, place)?;
    let (rules, network) = seen(args, to, &mesh, place)?;
    let addresses = match explain::named(&to.host, snapshot_of(&mesh)) {
        Named::Nothing(finding) => return Ok(Told::nameless(to, NOWHERE, finding)),
        Named::Here(addresses) => addresses,
        Named::Outside(name) => match args.rules.is_some() {
            true => {
                fail!(
                    NotFound,
                    "{name} is no name of the mesh: give an address in --to, as the rules are in a file"
                )
            }
            false => {
                let cut_off = || cut_off(args, to, place, &rules, &*network, &mesh);
                // One that hangs may be the resolver, too.
                if let Some(finding) = matches!(mesh, Mesh::Silent(_)).then(cut_off).flatten() {
                    return Ok(Told::nameless(to, CUT_OFF, finding));
                }
                match waiting(&format!("for the resolver to tell {name}"), || {
                    target::look_up(&name)
                }) {
                    Ok(addresses) => addresses,
                    Err(error) => {
                        return Ok(match cut_off() {
                            Some(finding) => Told::nameless(to, CUT_OFF, finding),
                            None => Told::nameless(to, NOWHERE, not_found(&name, &error, &mesh)),
                        });
                    }
                }
            }
        },
    };
    let chosen = chosen(&addresses, args.family);
    if chosen.is_empty() {
        fail!(Usage, "--family: {} has no address of that family", to.host);
    }
    let mut told = vec![];
    for address in chosen {
        let question = question(args, to, place, address);
        let mut explanation = explain::explain(&question, &rules, &*network, &mesh);
        let is_routed = !explanation.client.is_empty();
        if args.trace && is_routed {
            trace(&question, &mut explanation)?;
        }
        told.push((question.to, explanation));
    }
    Ok(Told::new(to, told))
}

/// Makes the connection, and holds what the kernel does with it against what was explained.
fn trace(question: &Question, explanation: &mut Explanation) -> Result<()> {
    let sent = Sent {
        protocol: question.protocol,
        to: question.to,
        uid: question.client.uid,
        gid: question.client.gid,
        mark: question.client.mark,
    };
    let traced = netsys::rules::trace(sent)?;
    let after = netsys::rules::look()?;
    explain::add_trace(explanation, &traced, &after.installed);
    Ok(())
}

const NOWHERE: &str = "the name leads nowhere";
const CUT_OFF: &str = "nobody can be asked what the name is, and whatever it is, it would not be reached";

/// Where the proxy is dead or cut off, nobody knows the names of the mesh, and any address tells why.
fn cut_off(
    args: &Args,
    to: &Target,
    place: &Place,
    rules: &Rules,
    network: &dyn Network,
    mesh: &Mesh,
) -> Option<Finding> {
    /// Nobody's (RFC 5737).
    const ANYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    let told = explain::explain(&question(args, to, place, ANYWHERE), rules, network, mesh);
    let is_unknown = snapshot_of(mesh).is_none() && told.outcome == explain::Outcome::Fails;
    told.finding
        .filter(|finding| is_unknown && finding.side != explain::Side::Client)
}

fn snapshot_of(mesh: &Mesh) -> Option<&Snapshot> {
    match mesh {
        Mesh::Known { snapshot, .. } => Some(snapshot),
        Mesh::Unknown { .. } | Mesh::Silent(_) => None,
    }
}

fn question(args: &Args, to: &Target, place: &Place, address: IpAddr) -> Question {
    let uid = args.uid.unwrap_or(place.uid);
    Question {
        host: to.host.clone(),
        to: SocketAddr::new(address, to.port),
        protocol: match args.proto {
            Proto::Tcp => IpProtocol::Tcp,
            Proto::Udp => IpProtocol::Udp,
        },
        direction: if args.inbound {
            Direction::Inbound
        } else {
            Direction::Outbound
        },
        client: Client {
            uid,
            gid: args
                .gid
                .unwrap_or(if args.uid.is_some() { uid } else { place.gid }),
            mark: args.mark,
            cgroups: place.cgroups.clone(),
            source: args.source,
            who: match args.uid {
                Some(_) => String::new(),
                None => place.who.clone(),
            },
        },
    }
}

/// The rules, and the namespace that they are of.
fn seen(args: &Args, to: &Target, mesh: &Mesh, place: &Place) -> Result<(Rules, Box<dyn Network>)> {
    let Some(file) = &args.rules else {
        let rules = installed()?;
        let live = Live {
            probes: args.probe,
            proxy_is_elsewhere: place.proxy.is_some(),
        };
        return Ok((rules, Box::new(live)));
    };
    let text = match file.as_os_str() == "-" {
        true => io::read_to_string(io::stdin()),
        false => fs::read_to_string(file),
    };
    let text = text.or_named_with(ErrorName::Input, || format!("--rules {}", file.display()))?;
    let otherwise = match &to.host.parse() {
        Ok(IpAddr::V6(_)) => Family::V6,
        _ => args.family.unwrap_or(Family::V4),
    };
    let installed = dumps::read(&text, otherwise)
        .or_named_with(ErrorName::Input, || format!("--rules {}", file.display()))?;
    let own = snapshot_of(mesh).and_then(|snapshot| snapshot.own.as_ref());
    let own = own.map(|own| own.addresses.clone());
    let assumed = Assumed {
        own: own.unwrap_or_default(),
        told: dumps::addresses(&text),
        asked: to.host.parse().ok().filter(|_| args.inbound),
    };
    let rules = Rules {
        installed,
        ..Rules::default()
    };
    let is_told = |family| assumed.has(family) || args.source.is_some_and(|ip| Family::of(ip) == family);
    if !args.inbound && !is_told(otherwise) {
        fail!(
            Usage,
            "--rules: from which {otherwise} address the client connects is not known, and rules may ask: give --source ADDRESS, \
             or add to the file what `ip addr` prints in that namespace"
        );
    }
    Ok((rules, Box::new(assumed)))
}

/// Those of the namespace. Who may not read them is told the rest.
fn installed() -> Result<Rules> {
    match netsys::rules::look() {
        Ok(seen) => Ok(Rules {
            installed: seen.installed,
            hidden: seen.hidden,
            unread: None,
        }),
        Err(error) if !rustix::process::geteuid().is_root() => Ok(Rules {
            unread: Some(format!("{:#}", anyhow::Error::new(error))),
            ..Rules::default()
        }),
        Err(error) => Err(error).or_named(
            ErrorName::RulesUnreadable,
            "cannot read the rules of the namespace",
        ),
    }
}

/// One of each family.
fn chosen(addresses: &[IpAddr], family: Option<Family>) -> Vec<IpAddr> {
    let of = |wanted: Family| {
        let mut those = addresses.iter().filter(move |ip| Family::of(**ip) == wanted);
        those
            .next()
            .copied()
            .filter(|_| family.is_none_or(|only| only == wanted))
    };
    Family::ALL.into_iter().filter_map(of).collect()
}

fn not_found(name: &str, error: &io::Error, mesh: &Mesh) -> Finding {
    let known = match mesh {
        Mesh::Known { from, .. } => format!("the registry of {from} has no service of that name"),
        Mesh::Unknown { why, .. } => format!("whether the mesh has such a name is not known: {why}"),
        Mesh::Silent(admin) => format!("the proxy does not answer at {admin}"),
    };
    Finding {
        side: explain::Side::Client,
        what: format!(
            "nobody knows the name {name}: {known}, and the resolver of this machine says `{error}`"
        ),
        fix: String::from("mend the name (NAME.NAMESPACE for a service), or give an address"),
    }
}

fn family(text: &str) -> Result<Family, String> {
    match text {
        "4" | "ipv4" => Ok(Family::V4),
        "6" | "ipv6" => Ok(Family::V6),
        _ => Err(String::from("say 4 or 6")),
    }
}

fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| String::from("write a number of 32 bits, decimal or 0x hexadecimal"))
}
