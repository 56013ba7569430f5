//! The proxy, as the namespace shows it: who listens on the ports that connections are led to; and what listens in
//! its place while nobody does.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::Direction;
use netsys::probe::{Owner, can_be};
use netsys::sock;
use netsys::socket_table::{Listener, listeners};
use rules::intent::{Proxy, Selection, WithoutProxy};
use rules::ruleset::{IpProtocol, Target};
use rules::{Family, Intent, Mentions, Ruleset};
use runtime::random::Random;

use super::report::{Finding, Outcome};
use super::roundtrip::StandIn;
use super::seats::Seat;
use super::wanted::Wanted;

/// Everybody who listens, and the stand-ins.
pub(super) struct Proxies {
    listeners: Vec<Listener>,
    places: Vec<Place>,
    /// User ids that the proxy is known by.
    uids: Vec<u32>,
    /// The port of the DNS proxy, where look-ups are captured.
    dns: Option<u16>,
    /// Whether it runs.
    pub(super) dns_answers: bool,
    /// Whether look-ups fail while it does not.
    dns_fails_closed: bool,
}

/// A listener that there should be.
struct Place {
    direction: Direction,
    family: Family,
    port: u16,
    is: Found,
}

enum Found {
    /// Somebody listens there.
    Running,
    /// A stand-in does.
    StandIn(StandIn),
    /// Nobody does, and nobody can.
    Nobody(io::Error),
}

impl Proxies {
    pub(super) fn find(wanted: &Wanted, seats: &[Seat]) -> io::Result<Self> {
        let intent = &wanted.intent;
        let dns = intent.captured_dns().map(|dns| dns.to_port);
        let udp = listeners(IpProtocol::Udp)?;
        let mut proxies = Self {
            dns,
            dns_answers: dns.is_some_and(|port| udp.iter().any(|socket| socket.address.port() == port)),
            dns_fails_closed: intent
                .captured_dns()
                .is_some_and(|dns| dns.without_proxy == WithoutProxy::Fail),
            listeners: listeners(IpProtocol::Tcp)?,
            places: vec![],
            uids: match &intent.proxy {
                Proxy::Inside(signs) => signs.uids.clone(),
                Proxy::Outside { .. } => vec![],
            },
        };
        for &family in &wanted.families {
            if !intent.outbound.is_none() {
                proxies.add(intent, seats, Direction::Outbound, family);
            }
            // The proxy's calls of its own pod are led there too, whether or not anything else is.
            let leads = |ruleset| leads_to(ruleset, intent.inbound.to_port);
            if wanted.rules(family).is_some_and(leads) {
                proxies.add(intent, seats, Direction::Inbound, family);
            }
        }
        Ok(proxies)
    }

    fn add(&mut self, intent: &Intent, seats: &[Seat], direction: Direction, family: Family) {
        let (port, tproxy) = match direction {
            Direction::Outbound => (intent.outbound.to_port, None),
            Direction::Inbound => (intent.inbound.to_port, intent.inbound.tproxy()),
        };
        // What comes in by a device is led to an address of that.
        let is_any = direction == Direction::Inbound || !intent.devices.virtual_machines.is_empty();
        let at = SocketAddr::new(taken_at(is_any, family), port);
        let is = if self.listens(at) {
            Found::Running
        } else {
            let opened = match tproxy {
                None => sock::listen(at, false),
                Some(_) => sock::listen_transparent(at),
            };
            match opened {
                Err(error) => Found::Nobody(error),
                Ok(listener) => Found::StandIn(StandIn {
                    listener,
                    owner: self
                        .owner(intent)
                        .or_else(|| seats.first().map(|_| netsys::probe::myself())),
                    seat: seats.first().cloned(),
                    is_inward: direction == Direction::Inbound,
                    tproxy: tproxy.map(|tproxy| tproxy.mark.value),
                }),
            }
        };
        self.places.push(Place {
            direction,
            family,
            port,
            is,
        });
    }

    /// The proxy, by the first of its signs that can be had, if any can.
    fn owner(&self, intent: &Intent) -> Option<Owner> {
        let myself = netsys::probe::myself();
        let Proxy::Inside(signs) = &intent.proxy else {
            return None;
        };
        let by_uid = signs.uids.first().map(|&uid| Owner {
            uid,
            gid: signs.gids.first().copied().unwrap_or(myself.gid),
            mark: 0,
        });
        let by_mark = signs.marks.first().map(|mark| Owner {
            mark: mark.value,
            ..myself
        });
        let by_gid = signs.gids.first().map(|&gid| Owner { gid, ..myself });
        let all = [by_uid, by_mark, by_gid];
        all.into_iter().flatten().find(|owner| can_be(*owner))
    }

    /// Whether somebody listens at an address, stand-ins apart; at an unspecified one: on every address.
    pub(super) fn listens(&self, at: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| listener.takes(at))
    }

    /// The stand-in of a place, if one is there.
    pub(super) fn stand_in(&self, direction: Direction, family: Family) -> Option<&StandIn> {
        match &self.place(direction, family)?.is {
            Found::StandIn(stand_in) => Some(stand_in),
            _ => None,
        }
    }

    /// Whether a proxy listens on that port.
    pub(super) fn is_running(&self, port: u16) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.port == port && matches!(place.is, Found::Running))
    }

    /// Whether connections are led anywhere.
    pub(super) fn is_there(&self, direction: Direction, family: Family) -> bool {
        self.place(direction, family)
            .is_some_and(|place| !matches!(place.is, Found::Nobody(_)))
    }

    fn place(&self, direction: Direction, family: Family) -> Option<&Place> {
        let mut places = self.places.iter();
        places.find(|place| (place.direction, place.family) == (direction, family))
    }

    /// Whether look-ups are to be captured and no DNS proxy runs.
    pub(super) fn lacks_dns(&self) -> bool {
        self.dns.is_some() && !self.dns_answers
    }

    /// Whether it is the port of the DNS proxy.
    pub(super) fn is_dns(&self, port: u16) -> bool {
        self.dns == Some(port)
    }

    /// The DNS proxy, for people.
    pub(super) fn dns_name(&self, port: u16) -> String {
        match self.dns_answers {
            true => format!("DNS proxy :{port}"),
            false => format!("port {port}"),
        }
    }

    /// Who listens on a port, for people.
    pub(super) fn name(&self, family: Family, port: u16) -> String {
        if self.is_dns(port) {
            return self.dns_name(port);
        }
        let place = self
            .places
            .iter()
            .find(|place| (place.family, place.port) == (family, port));
        match place.map(|place| &place.is) {
            Some(Found::Running) => format!("proxy :{port}"),
            Some(Found::StandIn(_)) => format!("stand-in :{port}"),
            Some(Found::Nobody(_)) | None => format!("port {port}"),
        }
    }

    /// That it does not run, or listens elsewhere.
    pub(super) fn findings(&self, before_proxy: bool) -> Vec<Finding> {
        let missing = self.places.iter().filter_map(|place| {
            let why = match &place.is {
                Found::Running => return None,
                Found::StandIn(_) if before_proxy => return None,
                Found::StandIn(_) => format!(
                    "no proxy listens there; a stand-in took its place, so the rules are shown and the proxy is not{}",
                    self.elsewhere(place)
                ),
                Found::Nobody(error) => {
                    format!("no proxy listens there, and no stand-in can: {error}{}", self.elsewhere(place))
                }
            };
            Some(Finding {
                probe: "the proxy".to_owned(),
                family: place.family.to_string(),
                sent: String::new(),
                arrived: String::new(),
                rule: String::new(),
                counted: None,
                verdict: Outcome::NotProbed,
                why: Some(format!("port {} ({}): {why}", place.port, place.direction.as_str())),
            })
        });
        let dns = self.dns.filter(|_| self.lacks_dns()).map(|port| Finding {
            probe: "the DNS proxy".to_owned(),
            family: "IPv4, IPv6".to_owned(),
            sent: String::new(),
            arrived: String::new(),
            rule: String::new(),
            counted: None,
            verdict: Outcome::NotProbed,
            why: Some(format!(
                "port {port}: no DNS proxy listens there, so look-ups {}, and that they are captured and answered is not shown",
                if self.dns_fails_closed { "fail" } else { "go direct" }
            )),
        });
        missing.chain(dns).collect()
    }

    /// Where the proxy's user listens instead.
    fn elsewhere(&self, place: &Place) -> String {
        let mut ports: Vec<String> = self
            .listeners
            .iter()
            .filter(|listener| self.uids.contains(&listener.uid))
            .map(|listener| listener.address.to_string())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        let same_port = ports.iter().find(|at| at.ends_with(&format!(":{}", place.port)));
        match (same_port, ports.is_empty()) {
            (Some(at), _) => format!(
                "; it listens at {at}, where this traffic does not come: it must listen on every address"
            ),
            (None, true) => "; no process of the proxy's user listens anywhere: start the proxy".to_owned(),
            (None, false) => format!(
                "; a process of the proxy's user listens at {}: its port and the rules' do not agree",
                ports.join(", ")
            ),
        }
    }

    /// Ports that nobody uses and nothing speaks of, without end.
    pub(super) fn free_ports(
        &self,
        random: &mut Random,
        beyond: &Mentions,
        intent: &Intent,
    ) -> impl Iterator<Item = u16> + use<> {
        const FIRST: u16 = 20_000;
        const COUNT: u16 = 40_000;
        let mut used: HashSet<u16> = self
            .listeners
            .iter()
            .map(|listener| listener.address.port())
            .collect();
        used.extend(&beyond.ports);
        used.extend(&beyond.source_ports);
        let Intent {
            outbound, inbound, ..
        } = intent;
        used.extend([outbound.to_port, inbound.to_port, inbound.tunnel_port]);
        used.extend(outbound.ports.iter().chain(&outbound.exclude_ports));
        used.extend(&inbound.exclude_ports);
        if let Selection::Only(ports) = &inbound.ports {
            used.extend(ports);
        }
        let start = (random.bits() % u64::from(COUNT)) as u16;
        let all = (0..COUNT).cycle().skip(usize::from(start));
        all.map(|offset| FIRST + offset)
            .filter(move |port| !used.contains(port))
    }
}

/// Whether a rule leads to that port.
fn leads_to(ruleset: &Ruleset, port: u16) -> bool {
    let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
    let mut targets = chains.flat_map(|chain| &chain.rules).map(|rule| &rule.target);
    targets.any(|target| match target {
        Target::Redirect(to) | Target::Tproxy { port: to, .. } => *to == port,
        _ => false,
    })
}

/// Where what is captured comes to: any address of the namespace's, or loopback.
fn taken_at(is_any: bool, family: Family) -> IpAddr {
    match (is_any, family) {
        (true, Family::V4) => Ipv4Addr::UNSPECIFIED.into(),
        (true, Family::V6) => Ipv6Addr::UNSPECIFIED.into(),
        (false, Family::V4) => Ipv4Addr::LOCALHOST.into(),
        (false, Family::V6) => Ipv6Addr::LOCALHOST.into(),
    }
}
