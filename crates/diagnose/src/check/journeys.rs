//! The packets by which rules of others are held against ours: what applications and callers send, and what rules of
//! others speak of. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use model::ports;
use rules::evaluate::State;
use rules::intent::{Dns, Outbound, Proxy, Selection, Signs};
use rules::ruleset::{IpProtocol, PURPOSE, Test};
use rules::{Family, Installed, Intent, Mentions, Origin, Packet};

use super::ground::{Way, elsewhere};

/// What packets are made of.
#[derive(Clone, Copy)]
pub(super) struct Traffic<'a> {
    /// What is to be captured.
    pub(super) intent: &'a Intent,
    /// Of which families.
    pub(super) families: &'a [Family],
    pub(super) ways: &'a [Way],
    /// Rules of others, for what they speak of.
    pub(super) installed: &'a Installed,
}

/// A packet, and what it is in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Journey {
    /// `a connection to 192.0.2.1:80`.
    pub(super) what: String,
    pub(super) packet: Packet,
    /// What travels in its place where there is no Weir; none for what there would not be.
    pub(super) without: Option<Packet>,
}

/// Addresses and ports that rules of others speak of are followed up to so many.
const MOST_MENTIONED: usize = 64;

/// Those of every family that has a way out.
pub(super) fn journeys(traffic: Traffic<'_>) -> Vec<Journey> {
    let is_wanted = |way: &&Way| traffic.families.contains(&Family::of(way.own));
    let ways = traffic.ways.iter().filter(is_wanted);
    ways.flat_map(|way| of_way(traffic, way)).collect()
}

/// Where nothing else is said, what is called, and what is offered.
const WEB: u16 = 80;
const APPLICATION: u16 = 8080;

fn of_way(traffic: Traffic<'_>, way: &Way) -> Vec<Journey> {
    let family = Family::of(way.own);
    let intent = traffic.intent;
    let mentioned = Mentioned::by(traffic.installed, family);
    let mut found = vec![];
    if let Some(services) = &intent.outbound.services {
        let services = services
            .iter()
            .filter(|service| Family::of(service.ip()) == family);
        let called = services.take(MOST_MENTIONED);
        found.extend(called.map(|service| out(way, application(), service.ip(), service.port())));
    }
    let networks = wanted(&intent.outbound, family)
        .into_iter()
        .chain(mentioned.networks);
    let mut ports_out = intent.outbound.ports.clone();
    ports_out.push(WEB);
    ports_out.extend(&mentioned.ports);
    for to in networks.filter(|ip| !ip.is_loopback()) {
        found.extend(ports_out.iter().map(|&port| out(way, application(), to, port)));
    }
    if let Some(uid) = signs(intent).and_then(|signs| signs.uids.first()) {
        let gid = signs(intent).and_then(|signs| signs.gids.first()).unwrap_or(uid);
        let proxy = Origin::Socket {
            uid: *uid,
            gid: *gid,
            mark: 0,
        };
        let mut journey = out(way, proxy, elsewhere(family), WEB);
        journey.what = format!("the proxy's own {}", journey.what.trim_start_matches("a "));
        // The application would make it itself.
        journey.without = Some(out(way, application(), elsewhere(family), WEB).packet);
        found.push(journey);
        found.push(to_application(way, proxy, APPLICATION));
    }
    if let Some(dns) = intent.captured_dns() {
        found.extend(servers(dns, family).map(|server| look_up(way, server)));
    }
    let mut ports_in = match &intent.inbound.ports {
        Selection::All => vec![APPLICATION],
        Selection::Only(ports) => ports.clone(),
    };
    ports_in.extend([ports::HEALTH, ports::METRICS]);
    ports_in.extend(mentioned.ports);
    found.extend(ports_in.into_iter().map(|port| inward(way, port)));
    let narrower = mentioned.by_sender.iter();
    found.extend(narrower.flat_map(|mentions| of_senders(mentions, intent, way)));
    found
}

/// How the proxy is recognised, where it runs in the namespace.
fn signs(intent: &Intent) -> Option<&Signs> {
    match &intent.proxy {
        Proxy::Inside(signs) => Some(signs),
        Proxy::Outside { .. } => None,
    }
}

/// What the users, groups and callers send of whom one rule speaks.
fn of_senders(mentions: &Mentions, intent: &Intent, way: &Way) -> Vec<Journey> {
    let family = Family::of(way.own);
    let mut to: Vec<_> = mentions.destinations.iter().map(first).collect();
    to.extend(wanted(&intent.outbound, family));
    let to = to.into_iter().find(|ip| Family::of(*ip) == family);
    let port = |usual| mentions.ports.first().copied().unwrap_or(usual);
    let users = mentions
        .uids
        .iter()
        .map(|uid| (*uid, APPLICATION_ID, "user", *uid));
    let groups = mentions
        .gids
        .iter()
        .map(|gid| (APPLICATION_ID, *gid, "group", *gid));
    let senders = users.chain(groups).take(MOST_MENTIONED);
    let sent = senders.filter_map(|(uid, gid, kind, id)| {
        let mut journey = out(way, Origin::Socket { uid, gid, mark: 0 }, to?, port(WEB));
        journey.what = format!("{} by {kind} {id}", journey.what);
        Some(journey)
    });
    let sources = mentions.sources.iter().map(first);
    let sources = sources.filter(|ip| Family::of(*ip) == family && !ip.is_loopback() && *ip != way.own);
    let came = sources.take(MOST_MENTIONED).map(|source| {
        let mut journey = inward(way, port(APPLICATION));
        journey.what = format!("{} from {source}", journey.what);
        journey.packet.source = source;
        journey.without = Some(journey.packet.clone());
        journey
    });
    sent.chain(came).collect()
}

/// An application's: neither root nor the proxy.
fn application() -> Origin {
    Origin::Socket {
        uid: APPLICATION_ID,
        gid: APPLICATION_ID,
        mark: 0,
    }
}

const APPLICATION_ID: u32 = 1000;

/// An address in each network that is captured, apart from those that are left alone.
fn wanted(outbound: &Outbound, family: Family) -> Vec<IpAddr> {
    let is_left = |ip: &IpAddr| outbound.exclude_cidrs.iter().any(|net| net.contains(ip));
    let candidates = match &outbound.cidrs {
        Selection::All => vec![elsewhere(family)],
        Selection::Only(nets) => nets.iter().map(first).collect(),
    };
    let mut all: Vec<_> = candidates
        .into_iter()
        .filter(|ip| Family::of(*ip) == family && !is_left(ip))
        .collect();
    if all.is_empty() {
        all.push(elsewhere(family));
    }
    all
}

/// A server in each family whose queries are captured.
fn servers(dns: &Dns, family: Family) -> impl Iterator<Item = IpAddr> {
    let servers = match &dns.servers {
        Selection::All => vec![elsewhere(family)],
        Selection::Only(servers) => servers.clone(),
    };
    servers
        .into_iter()
        .filter(move |server| Family::of(*server) == family)
}

/// The first host of a network.
fn first(net: &IpNet) -> IpAddr {
    net.hosts().next().unwrap_or(net.addr())
}

fn packet(origin: Origin, source: IpAddr, destination: IpAddr, port: u16, device: &str) -> Packet {
    Packet {
        origin,
        protocol: IpProtocol::Tcp,
        source,
        source_port: 45_000,
        destination,
        destination_port: port,
        device: device.to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

fn out(way: &Way, origin: Origin, to: IpAddr, port: u16) -> Journey {
    let device = if to == way.own { "lo" } else { &way.device };
    let at = std::net::SocketAddr::new(to, port);
    let packet = packet(origin, way.own, to, port, device);
    Journey {
        what: format!("a connection to {at}"),
        without: Some(packet.clone()),
        packet,
    }
}

fn look_up(way: &Way, server: IpAddr) -> Journey {
    let mut journey = out(way, application(), server, Dns::PORT);
    journey.what = format!("a look-up at {server}");
    journey.packet.protocol = IpProtocol::Udp;
    journey.without = Some(journey.packet.clone());
    journey
}

/// As the proxy calls the application that a caller meant.
fn to_application(way: &Way, proxy: Origin, port: u16) -> Journey {
    let source: IpAddr = match way.own {
        IpAddr::V4(_) => ports::PASSTHROUGH_V4.into(),
        IpAddr::V6(_) => ports::PASSTHROUGH_V6.into(),
    };
    Journey {
        what: format!("the proxy's call of its application, from {source}"),
        packet: packet(proxy, source, way.own, port, "lo"),
        without: None,
    }
}

fn inward(way: &Way, port: u16) -> Journey {
    let at = std::net::SocketAddr::new(way.own, port);
    let caller = elsewhere(Family::of(way.own));
    let packet = packet(Origin::Remote, caller, way.own, port, &way.device);
    let is_operators = [ports::HEALTH, ports::METRICS].contains(&port);
    Journey {
        what: format!("a connection that comes in to {at}"),
        without: (!is_operators).then(|| packet.clone()),
        packet,
    }
}

/// What rules of others speak of.
#[derive(Default)]
struct Mentioned {
    networks: Vec<IpAddr>,
    ports: Vec<u16>,
    /// Rules that ask who sends.
    by_sender: Vec<Mentions>,
}

impl Mentioned {
    fn by(installed: &Installed, family: Family) -> Self {
        let mut mentioned = Self::default();
        let tables = installed
            .of(family)
            .filter(|table| !rules::beside::is_own_table(table));
        let tables: Vec<_> = tables.collect();
        let notes = tables.iter().flat_map(|table| table.notes.iter().flatten());
        let theirs = notes.filter(|note| !note.text.contains(PURPOSE));
        let rules = theirs.map(|note| Mentions::of(&note.text));
        let asks =
            |rule: &Mentions| !(rule.uids.is_empty() && rule.gids.is_empty() && rule.sources.is_empty());
        mentioned.by_sender = rules.filter(asks).take(MOST_MENTIONED).collect();
        let chains = tables
            .iter()
            .flat_map(|table| &table.chains)
            .filter(|chain| !chain.is_own());
        for test in chains
            .flat_map(|chain| &chain.rules)
            .flat_map(|rule| &rule.matches)
        {
            match &test.test {
                Test::Destination(net) if net.prefix_len() > 0 => mentioned.networks.push(first(net)),
                Test::DestinationPort(range) => mentioned.ports.push(range.first),
                Test::DestinationPorts(ranges) => {
                    mentioned.ports.extend(ranges.iter().map(|range| range.first));
                }
                _ => {}
            }
        }
        mentioned.networks.sort_unstable();
        mentioned.networks.dedup();
        mentioned.networks.truncate(MOST_MENTIONED);
        mentioned.ports.sort_unstable();
        mentioned.ports.dedup();
        mentioned.ports.truncate(MOST_MENTIONED);
        mentioned
    }
}
