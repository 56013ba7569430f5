//! DNS at a fixed rate: the resolver asked directly, and through each forwarder that stands beside the client.
//! Every answer is checked: a wrong or a lost one is counted, not timed.

mod load;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::manifests::{Manifests, Port, Service};
use e2e::{Pod, Program, RunAs, servers, weir};

use crate::contenders::{prepare, wire};
use crate::stats::{Spread, number};
use crate::usage;

pub(crate) use load::Sample;

/// Queries a second.
const RATE: u32 = 10_000;
/// Names that the resolver has, and as many that the mesh has.
pub(crate) const NAMES: u16 = 1_000;
/// Where forwarders listen.
const PORT: u16 = 15053;
/// Beside those of the other contenders, which count from 1.
const FIRST_CLIENT: u8 = 200;

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// The resolver itself.
    Direct,
    Weir,
    /// Weir for names of its own, of which the resolver hears nothing.
    WeirOwn,
    /// unbound as a forwarder, without a cache as Weir is.
    Unbound,
    /// CoreDNS as a forwarder, where it is installed.
    CoreDns,
}

const ALL: [(Kind, &str); 5] = [
    (Kind::Direct, "direct"),
    (Kind::Weir, "weir"),
    (Kind::Unbound, "unbound"),
    (Kind::CoreDns, "coredns"),
    (Kind::WeirOwn, "weir, names of the mesh"),
];

/// One that is up.
struct Contender {
    name: &'static str,
    client: Pod,
    asked: SocketAddr,
    zone: &'static str,
    processes: Vec<u32>,
    _program: Option<Program>,
    _manifests: Manifests,
}

/// Measures every contender in turn, `rounds` times.
pub(crate) fn run(dir: &Path, rounds: usize, length: Duration) -> Result<Vec<(String, Sample)>> {
    let server = Pod::bare("resolver", Ipv4Addr::UNSPECIFIED, std::net::Ipv6Addr::UNSPECIFIED)?;
    prepare(&server, None)?;
    let zone: String = (0..NAMES)
        .map(|number| {
            let name = load::name(number, load::OUTSIDE);
            format!("local-data: \"{name}. 300 IN A {}\"\n", load::address(number))
        })
        .collect();
    let _resolver = servers::unbound(&server, dir, &("local-zone: \".\" static\n".to_owned() + &zone))?;
    let mut contenders = Vec::new();
    for (number, (kind, name)) in (FIRST_CLIENT..).zip(ALL) {
        if kind == Kind::CoreDns && which("coredns").is_none() {
            eprintln!("coredns is not installed: it is left out");
            continue;
        }
        let started = start(kind, name, number, &server, dir).with_context(|| format!("starting {name}"))?;
        contenders.push(started);
    }
    let mut samples = Vec::new();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let on = &contenders[(round + turn) % contenders.len()];
            let sample = measure(on, length).with_context(|| on.name)?;
            eprintln!("round {} dns {:<24} {sample:?}", round + 1, on.name);
            samples.push((on.name.to_owned(), sample));
        }
    }
    Ok(samples)
}

fn measure(on: &Contender, length: Duration) -> Result<Sample> {
    let before = usage::cpu(&on.processes)?;
    let mut sample = on
        .client
        .within(|| load::put(on.asked, on.zone, RATE, length))??;
    sample.cpu_s = (usage::cpu(&on.processes)? - before).as_secs_f64();
    Ok(sample)
}

fn start(kind: Kind, name: &'static str, number: u8, server: &Pod, dir: &Path) -> Result<Contender> {
    let (client, resolver) = wire(number, server)?;
    client.ip("link set lo up")?;
    let manifests = manifests()?;
    let program = program(kind, &client, resolver, dir, &manifests)?;
    let asked = match &program {
        None => SocketAddr::new(resolver.into(), 53),
        Some(program) => {
            client.wait_listening(PORT).with_context(|| program.said())?;
            (Ipv4Addr::LOCALHOST, PORT).into()
        }
    };
    let processes = program.as_ref().map(|program| usage::group(program.id()));
    Ok(Contender {
        name,
        asked,
        zone: if kind == Kind::WeirOwn {
            load::OWN
        } else {
            load::OUTSIDE
        },
        processes: processes.transpose()?.unwrap_or_default(),
        client,
        _program: program,
        _manifests: manifests,
    })
}

fn program(
    kind: Kind,
    client: &Pod,
    resolver: Ipv4Addr,
    dir: &Path,
    manifests: &Manifests,
) -> Result<Option<Program>> {
    let file = |ending: &str, text: String| -> Result<String> {
        let path = dir.join(format!("dns-{resolver}.{ending}"));
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let command = match kind {
        Kind::Direct => return Ok(None),
        Kind::Weir | Kind::WeirOwn => {
            let conf = file("resolv.conf", format!("nameserver {resolver}\n"))?;
            let folder = manifests.path().display().to_string();
            let arguments = [
                "proxy",
                "--manifests",
                &folder,
                "--as",
                "mesh/client",
                "--dns",
                "--resolv-conf",
                &conf,
            ];
            let binary = weir::binary()?;
            return client.start_file(RunAs::Proxy, &binary, &[], arguments).map(Some);
        }
        Kind::Unbound => {
            let conf = file("unbound.conf", unbound(resolver))?;
            vec!["unbound".to_owned(), "-d".to_owned(), "-c".to_owned(), conf]
        }
        Kind::CoreDns => {
            let text = format!(".:{PORT} {{\n  bind 127.0.0.1\n  forward . {resolver}\n}}\n");
            let conf = file("Corefile", text)?;
            let path = which("coredns").context("coredns is gone")?;
            vec![path, "-conf".to_owned(), conf]
        }
    };
    client.start(RunAs::Root, "env", command).map(Some)
}

fn unbound(resolver: Ipv4Addr) -> String {
    format!(
        "server:\nusername: \"\"\nchroot: \"\"\npidfile: \"\"\nuse-syslog: no\ndo-daemonize: no\nnum-threads: 1\n\
         interface: 127.0.0.1@{PORT}\naccess-control: 0.0.0.0/0 allow\nmodule-config: \"iterator\"\n\
         so-rcvbuf: 4m\nso-sndbuf: 4m\n\
         num-queries-per-thread: 4096\noutgoing-range: 8192\n\
         remote-control:\ncontrol-enable: no\n\
         forward-zone:\nname: \".\"\nforward-addr: {resolver}\nforward-no-cache: yes\n"
    )
}

/// The names of the mesh, by the same numbers as the resolver's.
fn manifests() -> Result<Manifests> {
    let manifests = Manifests::create()?;
    let all: Vec<String> = (0..NAMES)
        .map(|number| {
            let address = IpAddr::from(load::address(number));
            Service::new(&load::label(number), &[address], &[Port::new("http", 80, 8080)]).yaml()
        })
        .collect();
    manifests.write("names.yaml", &all.concat())?;
    Ok(manifests)
}

/// Where a program is on the `PATH`.
fn which(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|directory| directory.join(program));
    places
        .find(|place| place.is_file())
        .map(|place| place.display().to_string())
}

/// The section of the report; nothing where nothing was measured.
pub(crate) fn text(samples: &[(String, Sample)]) -> String {
    if samples.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "## DNS, {} queries a second\n\n\
         UDP, type A, {NAMES} names, one after the other. The resolver (unbound) and the client share the cores with the forwarder, which has\n\
         no cache. An answer is right that repeats id and question and has the name's address; one is lost that has not come\n\
         after {} s. Latency counts from when the query was due. `weir` forwards; names of the mesh it answers itself.\n\n\
         | | queries | wrong | lost | p50, us | p99, us | CPU of the forwarder, us a query |\n|---|---|---|---|---|---|---|\n",
        number(f64::from(RATE)),
        load::PATIENCE.as_secs(),
    );
    for (_, name) in ALL {
        let of: Vec<&Sample> = samples
            .iter()
            .filter(|(who, _)| who == name)
            .map(|(_, s)| s)
            .collect();
        let sum = |figure: fn(&Sample) -> u64| of.iter().map(|sample| figure(sample)).sum::<u64>();
        let spread = |figure: fn(&Sample) -> f64| {
            Spread::of(of.iter().map(|sample| figure(sample))).map_or("–".to_owned(), |s| s.to_string())
        };
        if of.is_empty() {
            continue;
        }
        let cpu = match name {
            "direct" => "–".to_owned(),
            _ => spread(|sample| sample.cpu_s / sample.sent as f64 * 1e6),
        };
        text += &format!(
            "| {name} | {} | {} | {} | {} | {} | {cpu} |\n",
            number(sum(|sample| sample.sent) as f64),
            sum(|sample| sample.wrong),
            sum(|sample| sample.lost),
            spread(|sample| sample.p50_us),
            spread(|sample| sample.p99_us),
        );
    }
    text + "\n"
}
