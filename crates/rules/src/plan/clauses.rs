//! The clauses of a plan, in the order in which they are asked.

mod arriving;
mod contained;
pub(super) mod dns;
pub(super) mod tproxy;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use model::ports;

use self::arriving::entering;
pub(super) use self::arriving::{inbound, invalid};
pub(super) use self::contained::{from_outside, uncarried};
use super::clause::{Action, Clause, Condition, Sign};
use super::prune::names;
use crate::family::Family;
use crate::intent::{Dns, Inbound, InboundMode, Intent, Outbound, Selection, Signs};
use crate::ruleset::{Addresses, IpProtocol};

pub(super) fn from_inside(signs: &Signs, intent: &Intent) -> Vec<Clause> {
    let Intent {
        outbound,
        inbound,
        devices,
        ..
    } = intent;
    let loopback = loopback(outbound);
    let loopback_wanted = loopback_is_wanted(outbound);
    let (first, late) = signs_in_order(signs);

    let mut clauses = vec![continues()];
    if !devices.excluded.is_empty() {
        clauses.push(leave(
            Condition::LeavesBy(names_of(&devices.excluded)),
            EXCLUDED_DEVICE,
        ));
    }
    if !outbound.exclude_ports.is_empty() {
        clauses.push(Clause {
            when: vec![Condition::ToPort(distinct(&outbound.exclude_ports))],
            then: Action::Leave,
            purpose: "excluded port",
        });
    }
    if inbound.tproxy().is_none() {
        clauses.extend(passthrough());
    }
    let dns = intent.captured_dns();
    // What the proxy asks of a server in the pod is no call of its workload.
    let turned_not = dns.map(|_| Dns::PORT);
    clauses.extend(own_traffic(&first, &loopback, inbound, turned_not));
    if !loopback_wanted {
        clauses.push(Clause {
            when: over_loopback(dns),
            then: Action::Leave,
            purpose: "stays in the pod: loopback and own addresses",
        });
    }
    // Where lo has been left alone, those recognised late have nothing to turn inwards.
    let lo_is_left = !loopback_wanted && dns.is_none();
    let late = own_traffic(&late, &loopback, inbound, None);
    clauses.extend(
        late.into_iter()
            .filter(|clause| !lo_is_left || clause.then == Action::Leave),
    );
    clauses.extend(groups(outbound, &signs.gids));
    let at_loopback = leave(Condition::To(loopback.clone()), "loopback");
    // All of it goes over `lo`.
    let lo_is_left = lo_is_left || devices.excluded.iter().any(|name| names(name, "lo"));
    let left = match lo_is_left {
        true => ALL_LOOPBACK.to_vec(),
        false => loopback,
    };
    clauses.extend(dns.into_iter().flat_map(|dns| dns::first(dns, &left, intent)));
    // Look-ups at any server are decided by now, and all else over `lo` was before.
    let any_server = dns.is_some_and(|dns| dns.servers == Selection::All);
    if !loopback_wanted && any_server {
        clauses.extend(selection(outbound, &ALL_LOOPBACK));
        return clauses;
    }
    if !lo_is_left {
        clauses.push(at_loopback);
    }
    clauses.extend(selection(outbound, &left));
    clauses
}

/// What is left alone over `lo`: everything, but for look-ups where they are captured.
fn over_loopback(dns: Option<&Dns>) -> Vec<Condition> {
    let mut when = vec![Condition::OverLoopback];
    if dns.is_some() {
        when.push(Condition::Protocol(IpProtocol::Tcp));
        when.push(Condition::NotToPorts(vec![Dns::PORT]));
    }
    when
}

fn loopback_is_wanted(outbound: &Outbound) -> bool {
    matches!(&outbound.cidrs, Selection::Only(nets) if nets.iter().any(|net| net.addr().is_loopback()))
}

/// Where conntrack has not looked so far, it takes the next packet of an open connection for a first one, and a
/// redirect would end that connection.
fn continues() -> Clause {
    Clause {
        when: vec![Condition::Protocol(IpProtocol::Tcp), Condition::Continues],
        then: Action::Leave,
        purpose: "opens no connection",
    }
}

const EXCLUDED_DEVICE: &str = "excluded device";

fn leave(when: Condition, purpose: &'static str) -> Clause {
    Clause {
        when: vec![when],
        then: Action::Leave,
        purpose,
    }
}

/// Whose connections are left alone, of those that the proxy has not made.
fn groups(outbound: &Outbound, of_proxy: &[u32]) -> Option<Clause> {
    match &outbound.groups {
        Selection::All if outbound.exclude_groups.is_empty() => None,
        Selection::All => {
            let signs = distinct(&outbound.exclude_groups).into_iter().map(Sign::Gid);
            Some(leave(Condition::SocketHas(signs.collect()), "excluded group"))
        }
        Selection::Only(groups) => {
            // What the proxy makes has been decided about.
            let mut groups = distinct(groups);
            groups.retain(|group| !of_proxy.contains(group));
            Some(leave(Condition::SocketLacks(groups), "not of an included group"))
        }
    }
}

/// Signs that are looked at before what stays on `lo` is left alone, and after. See [`Signs::gids`].
fn signs_in_order(signs: &Signs) -> (Vec<Sign>, Vec<Sign>) {
    let gids = distinct(&signs.gids).into_iter().map(Sign::Gid);
    let uids = distinct(&signs.uids).into_iter().map(Sign::Uid);
    let mut first: Vec<_> = uids
        .chain(distinct(&signs.marks).into_iter().map(Sign::Mark))
        .chain(distinct(&signs.class_ids).into_iter().map(Sign::Class))
        .chain(distinct(&signs.cgroups).into_iter().map(Sign::Cgroup))
        .collect();
    if signs.uids.is_empty() {
        first.extend(gids);
        (first, vec![])
    } else {
        (first, gids.collect())
    }
}

/// `127.0.0.6` and `::6`: the proxy's calls to its application, which must not come back to it.
fn passthrough() -> [Clause; 2] {
    let addresses: [IpAddr; 2] = [ports::PASSTHROUGH_V4.into(), ports::PASSTHROUGH_V6.into()];
    addresses.map(|address| Clause {
        when: vec![Condition::From(vec![address.into()]), Condition::OverLoopback],
        then: Action::Leave,
        purpose: "proxy to its application",
    })
}

/// The proxy calling the workload's own address is an inbound connection; all else of its is left alone.
///
/// `except` is a port at which they are not taken for one.
fn own_traffic(signs: &[Sign], loopback: &[IpNet], inbound: &Inbound, except: Option<u16>) -> Vec<Clause> {
    if signs.is_empty() {
        return vec![];
    }
    let leave = Clause {
        when: vec![Condition::SocketHas(signs.to_vec())],
        then: Action::Leave,
        purpose: "made by the proxy",
    };
    match inbound.mode {
        InboundMode::Redirect => {
            let then = Action::Redirect(inbound.to_port);
            vec![self_call(signs, loopback, inbound, except, then), leave]
        }
        // It is led inwards as it arrives.
        InboundMode::Tproxy(_) => vec![leave],
    }
}

fn self_call(
    signs: &[Sign],
    loopback: &[IpNet],
    inbound: &Inbound,
    except: Option<u16>,
    then: Action,
) -> Clause {
    let not_to = except.into_iter().chain([inbound.tunnel_port]);
    Clause {
        when: vec![
            Condition::SocketHas(signs.to_vec()),
            Condition::Protocol(IpProtocol::Tcp),
            Condition::OverLoopback,
            Condition::NotTo(loopback.to_vec()),
            Condition::NotToPorts(not_to.collect()),
        ],
        then,
        purpose: SELF_CALL,
    }
}

const SELF_CALL: &str = "proxy calls its own workload: inbound";

/// Which of the remaining connections are captured; those to `left` have been left alone.
fn selection(outbound: &Outbound, left: &[IpNet]) -> Vec<Clause> {
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    let mut clauses = vec![];
    let exclude = outside(networks(&outbound.exclude_cidrs), left);
    if !exclude.is_empty() {
        clauses.push(leave(Condition::To(exclude.clone()), "excluded network"));
    }
    if let Some(services) = &outbound.services {
        clauses.push(Clause {
            when: vec![tcp, Condition::ToService(distinct(services))],
            then: Action::Redirect(outbound.to_port),
            purpose: "service",
        });
        return clauses;
    }
    let listed = match &outbound.cidrs {
        Selection::All => {
            clauses.push(Clause {
                when: vec![tcp],
                then: Action::Redirect(outbound.to_port),
                purpose: "everything else",
            });
            return clauses;
        }
        Selection::Only(nets) => nets,
    };
    let mut ports = distinct(&outbound.ports);
    ports.retain(|port| !outbound.exclude_ports.contains(port));
    if !ports.is_empty() {
        clauses.push(Clause {
            when: vec![tcp.clone(), Condition::ToPort(ports)],
            then: Action::Redirect(outbound.to_port),
            purpose: "included port",
        });
    }
    let excluded: Vec<IpNet> = left.iter().chain(&exclude).copied().collect();
    let nets = outside(networks(listed), &excluded);
    if !nets.is_empty() {
        clauses.push(Clause {
            when: vec![tcp, Condition::To(nets)],
            then: Action::Redirect(outbound.to_port),
            purpose: "included network",
        });
    }
    clauses
}

const LOOPBACK_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
/// Nothing goes there but by `lo`, and nothing comes from outside for it.
const ALL_LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(LOOPBACK_V6),
];

fn loopback(outbound: &Outbound) -> Vec<IpNet> {
    vec![outbound.loopback_v4.into(), LOOPBACK_V6.into()]
}

/// Without those that lie within others of the list.
fn networks(nets: &[IpNet]) -> Vec<IpNet> {
    let mut nets: Vec<_> = nets.iter().map(IpNet::trunc).collect();
    nets.sort_by_key(|net| (net.addr(), net.prefix_len()));
    let mut kept: Vec<IpNet> = vec![];
    for net in nets {
        // Sorted like this, a network comes after the one that it lies within, and nothing else in between.
        if kept.last().is_none_or(|wide| !wide.contains(&net)) {
            kept.push(net);
        }
    }
    kept
}

/// Without those that lie within the others.
fn outside(mut nets: Vec<IpNet>, others: &[IpNet]) -> Vec<IpNet> {
    let others = Family::ALL.map(|family| Addresses::of(family, others));
    nets.retain(|net| !others.iter().any(|wide| wide.covers(*net)));
    nets
}

/// Without those that others of the list stand for.
fn names_of(devices: &[String]) -> Vec<String> {
    let mut kept = distinct(devices);
    kept.retain(|name| {
        let stands_for_it = |wide: &String| wide != name && names(wide, name);
        !devices.iter().any(stands_for_it)
    });
    kept
}

/// Those by which a connection can come in that was not made here.
fn entrances(devices: &[String]) -> Vec<String> {
    let mut devices = names_of(devices);
    devices.retain(|name| name != "lo");
    devices
}

/// Without repetitions, in the order of first mention.
fn distinct<T: Clone + Eq + std::hash::Hash>(list: &[T]) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    list.iter().filter(|item| seen.insert(*item)).cloned().collect()
}
