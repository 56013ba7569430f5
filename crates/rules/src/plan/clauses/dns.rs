//! DNS capture. Look-ups by UDP are given a zone of conntrack of their own before it sees them, for as long as the
//! DNS proxy answers, and NAT leads that zone to the proxy. So it is decided for each packet, also for those of a
//! socket that is kept: without the proxy they are of another zone, where no NAT is remembered. And what the
//! proxy asks from the port that an application has just used is never taken for that application's.

use ipnet::IpNet;

use super::{
    ALL_LOOPBACK, EXCLUDED_DEVICE, distinct, groups, leave, names, names_of, networks, outside,
    signs_in_order,
};
use crate::family::Family;
use crate::intent::{Devices, Dns, Intent, Proxy, Selection, Signs, WithoutProxy};
use crate::plan::clause::{Action, Clause, Condition, Zone};
use crate::ruleset::IpProtocol;

/// Look-ups and the proxy's answers to them, as with istio-iptables, which has the proxy's own in zone 1; here they,
/// and what goes direct, are where everything else is.
fn zone(intent: &Intent) -> Zone {
    /// Of no meaning to anybody: `WEIR`.
    const MARK: u32 = u32::from_be_bytes(*b"WEIR");
    let mut taken = match &intent.proxy {
        Proxy::Inside(signs) => signs.marks.clone(),
        Proxy::Outside { mark, .. } => mark.iter().copied().collect(),
    };
    taken.extend(intent.inbound.tproxy().map(|tproxy| tproxy.mark));
    let is_free = |mark: &u32| !taken.iter().any(|taken| taken.matches(*mark));
    // Where a few bits of it are a sign, in another place or turned over they are not.
    let mut others = (0..u32::BITS).flat_map(|by| [MARK.rotate_left(by), !MARK.rotate_left(by)]);
    Zone {
        number: 2,
        mark: others.find(is_free).unwrap_or(MARK),
    }
}

/// For each packet that is made here, before conntrack sees it.
pub(in crate::plan) fn tracking_sending(signs: &Signs, intent: &Intent, dns: &Dns) -> Vec<Clause> {
    let (mut of_proxy, late) = signs_in_order(signs);
    of_proxy.extend(late);
    let made_by_proxy = Condition::SocketHas(of_proxy);
    let udp = Condition::Protocol(IpProtocol::Udp);
    let zone = zone(intent);
    let servers = servers(dns, &intent.devices);
    let at_proxy = proxy_addresses(servers.as_deref());
    let mut clauses = vec![];
    if dns.without_proxy == WithoutProxy::Direct {
        clauses.push(Clause {
            when: vec![
                udp.clone(),
                Condition::To(at_proxy.clone()),
                Condition::ToPort(vec![dns.to_port]),
                made_by_proxy.clone(),
            ],
            then: Action::Remember,
            purpose: "the DNS proxy lives",
        });
    }
    clauses.push(Clause {
        when: vec![
            udp.clone(),
            Condition::From(at_proxy),
            Condition::FromPort(dns.to_port),
        ],
        then: Action::Zone(zone),
        purpose: "answer of the DNS proxy",
    });
    // As for its first packet; other protocols are none of these rules' business.
    let mut left = vec![];
    let excluded = &intent.devices.excluded;
    if !excluded.is_empty() {
        left.push(leave(Condition::LeavesBy(names_of(excluded)), EXCLUDED_DEVICE));
    }
    left.push(leave(made_by_proxy, "made by the proxy"));
    left.extend(groups(&intent.outbound, &signs.gids));
    left.extend(of_one_link(dns).map(|nets| leave(Condition::To(nets), OF_ONE_LINK)));
    clauses.extend(left.into_iter().map(|mut clause| {
        clause.when.push(udp.clone());
        clause
    }));
    let answers = (dns.without_proxy == WithoutProxy::Direct).then_some(Condition::DnsAnswers);
    clauses.push(Clause {
        when: queries(servers, IpProtocol::Udp)
            .into_iter()
            .chain(answers)
            .collect(),
        then: Action::Zone(zone),
        purpose: DNS,
    });
    clauses
}

/// For the first packet of a connection. What goes to `left` is left alone later, as are excluded networks.
pub(super) fn first(dns: &Dns, left: &[IpNet], intent: &Intent) -> Vec<Clause> {
    let servers = servers(dns, &intent.devices);
    let leave = |protocol| {
        of_one_link(dns).map(|nets| Clause {
            when: queries(Some(nets), protocol),
            then: Action::Leave,
            purpose: OF_ONE_LINK,
        })
    };
    let capture = |protocol, answers| Clause {
        when: queries(servers.clone(), protocol)
            .into_iter()
            .chain(answers)
            .collect(),
        then: Action::Redirect(dns.to_port),
        purpose: DNS,
    };
    if dns.without_proxy == WithoutProxy::Fail {
        let protocols = [IpProtocol::Udp, IpProtocol::Tcp];
        let left = protocols.into_iter().filter_map(leave);
        return left
            .chain(protocols.map(|protocol| capture(protocol, None)))
            .collect();
    }
    let left: Vec<_> = left
        .iter()
        .copied()
        .chain(networks(&intent.outbound.exclude_cidrs))
        .collect();
    // By UDP the zone has told.
    let mut clauses: Vec<_> = leave(IpProtocol::Tcp).into_iter().collect();
    clauses.extend([
        capture(IpProtocol::Udp, Some(Condition::InZone(zone(intent)))),
        capture(IpProtocol::Tcp, Some(Condition::DnsAnswers)),
        // Else it would be captured as any other connection.
        Clause {
            when: queries(servers.map(|nets| outside(nets, &left)), IpProtocol::Tcp),
            then: Action::Leave,
            purpose: "DNS without its proxy",
        },
    ]);
    clauses
}

const DNS: &str = "DNS";
const OF_ONE_LINK: &str = "DNS of one link";

/// Without servers, to any.
fn queries(servers: Option<Vec<IpNet>>, protocol: IpProtocol) -> Vec<Condition> {
    let mut when = vec![Condition::Protocol(protocol), Condition::ToPort(vec![Dns::PORT])];
    when.extend(servers.map(Condition::To));
    when
}

/// Those of one link, where they would be captured but for that; see [`Dns::OF_ONE_LINK`].
fn of_one_link(dns: &Dns) -> Option<Vec<IpNet>> {
    match &dns.servers {
        Selection::All => Some(vec![Dns::OF_ONE_LINK]),
        Selection::Only(servers) => {
            let mut servers = distinct(servers);
            servers.retain(|server| Dns::OF_ONE_LINK.contains(server));
            (!servers.is_empty()).then(|| servers.into_iter().map(IpNet::from).collect())
        }
    }
}

/// Those that can be captured; none for any.
fn servers(dns: &Dns, devices: &Devices) -> Option<Vec<IpNet>> {
    let lo_is_left = devices.excluded.iter().any(|name| names(name, "lo"));
    let left: &[IpNet] = if lo_is_left { &ALL_LOOPBACK } else { &[] };
    match &dns.servers {
        Selection::All => None,
        Selection::Only(servers) => {
            let nets = distinct(servers).into_iter().map(IpNet::from);
            let nets = outside(nets.collect(), &[Dns::OF_ONE_LINK]);
            Some(outside(nets, left))
        }
    }
}

/// Where REDIRECT leads what is made here, of each family in which a server is captured.
fn proxy_addresses(servers: Option<&[IpNet]>) -> Vec<IpNet> {
    let is_captured =
        |family: &Family| servers.is_none_or(|nets| nets.iter().any(|net| Family::of(net.addr()) == *family));
    let families = Family::ALL.into_iter().filter(is_captured);
    families.map(|family| family.loopback().into()).collect()
}
