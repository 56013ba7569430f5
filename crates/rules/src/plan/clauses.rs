//! The clauses of a plan, in the order in which they are asked.

use std::net::IpAddr;

use ipnet::IpNet;
use model::ports;

use super::{Action, Clause, Condition, PassthroughV6, Sign};
use crate::intent::{Dns, Inbound, Outbound, Selection, Signs, SocketMark};
use crate::ruleset::IpProtocol;

pub(super) fn from_inside(
    signs: &Signs,
    outbound: &Outbound,
    inbound: &Inbound,
    v6: PassthroughV6,
) -> Vec<Clause> {
    let loopback = loopback(outbound);
    let loopback_wanted =
        matches!(&outbound.cidrs, Selection::Only(nets) if nets.iter().any(|net| net.addr().is_loopback()));
    let (first, late) = signs_in_order(signs);

    let mut clauses = vec![];
    if !outbound.exclude_ports.is_empty() {
        clauses.push(Clause {
            when: vec![Condition::ToPort(distinct(&outbound.exclude_ports))],
            then: Action::Leave,
            purpose: "excluded port",
        });
    }
    clauses.extend(passthrough(v6));
    clauses.extend(own_traffic(&first, &loopback, inbound));
    if !loopback_wanted {
        clauses.push(Clause {
            when: vec![Condition::OverLoopback],
            then: Action::Leave,
            purpose: "stays in the pod: loopback and own addresses",
        });
    }
    // Where lo has been left alone, those recognised late have nothing to turn inwards.
    let late = own_traffic(&late, &loopback, inbound);
    clauses.extend(
        late.into_iter()
            .filter(|clause| loopback_wanted || clause.then == Action::Leave),
    );
    if loopback_wanted {
        clauses.push(Clause {
            when: vec![Condition::To(loopback.clone())],
            then: Action::Leave,
            purpose: "loopback",
        });
    }
    clauses.extend(selection(outbound, &loopback));
    clauses
}

/// Signs that are looked at before what stays on `lo` is left alone, and after. See [`Signs::gids`].
fn signs_in_order(signs: &Signs) -> (Vec<Sign>, Vec<Sign>) {
    let gids = distinct(&signs.gids).into_iter().map(Sign::Gid);
    let uids = distinct(&signs.uids).into_iter().map(Sign::Uid);
    let mut first: Vec<_> = uids
        .chain(distinct(&signs.marks).into_iter().map(Sign::Mark))
        .collect();
    if signs.uids.is_empty() {
        first.extend(gids);
        (first, vec![])
    } else {
        (first, gids.collect())
    }
}

/// `127.0.0.6` and `::6`: the proxy's calls to its application, which must not come back to it.
fn passthrough(v6: PassthroughV6) -> [Clause; 2] {
    let clause = |address: IpAddr, purpose| Clause {
        when: vec![Condition::From(address), Condition::OverLoopback],
        then: Action::Leave,
        purpose,
    };
    [
        clause(ports::PASSTHROUGH_V4.into(), PASSTHROUGH),
        clause(
            ports::PASSTHROUGH_V6.into(),
            match v6 {
                PassthroughV6::Absent | PassthroughV6::Ours => PASSTHROUGH_V6_OURS,
                PassthroughV6::Foreign => PASSTHROUGH,
            },
        ),
    ]
}

const PASSTHROUGH: &str = "proxy to its application";
/// The purpose that also remembers who put `::6` on `lo`, for the clean-up: no file has to.
pub const PASSTHROUGH_V6_OURS: &str = "proxy to its application, address put on lo by weir";

/// The proxy calling the workload's own address is an inbound connection; all else of its is left alone.
fn own_traffic(signs: &[Sign], loopback: &[IpNet], inbound: &Inbound) -> Vec<Clause> {
    if signs.is_empty() {
        return vec![];
    }
    let hairpin = Clause {
        when: vec![
            Condition::SocketHas(signs.to_vec()),
            Condition::Protocol(IpProtocol::Tcp),
            Condition::OverLoopback,
            Condition::NotTo(loopback.to_vec()),
            Condition::NotToPort(inbound.tunnel_port),
        ],
        then: Action::Redirect(inbound.to_port),
        purpose: "proxy calls its own workload: inbound",
    };
    let leave = Clause {
        when: vec![Condition::SocketHas(signs.to_vec())],
        then: Action::Leave,
        purpose: "made by the proxy",
    };
    vec![hairpin, leave]
}

/// Which of the remaining connections are captured.
fn selection(outbound: &Outbound, loopback: &[IpNet]) -> Vec<Clause> {
    let excluded: Vec<IpNet> = loopback.iter().chain(&outbound.exclude_cidrs).copied().collect();
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    let mut clauses = vec![];
    if !outbound.exclude_cidrs.is_empty() {
        clauses.push(Clause {
            when: vec![Condition::To(networks(&outbound.exclude_cidrs))],
            then: Action::Leave,
            purpose: "excluded network",
        });
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
    let mut nets = networks(listed);
    nets.retain(|net| !excluded.iter().any(|wide| wide.contains(net)));
    if !nets.is_empty() {
        clauses.push(Clause {
            when: vec![tcp, Condition::To(nets)],
            then: Action::Redirect(outbound.to_port),
            purpose: "included network",
        });
    }
    clauses
}

pub(super) fn from_outside(
    own: &[IpAddr],
    mark: Option<SocketMark>,
    outbound: &Outbound,
    inbound: &Inbound,
    dns: Dns,
    v6: PassthroughV6,
) -> Vec<Clause> {
    let inside = loopback(outbound);
    let mut clauses = vec![];
    if let Some(mark) = mark {
        clauses.extend(passthrough(v6));
        clauses.extend(own_traffic(&[Sign::Mark(mark)], &inside, inbound));
    }
    if let Dns::All { to_port } = dns {
        for protocol in [IpProtocol::Udp, IpProtocol::Tcp] {
            clauses.push(Clause {
                when: vec![Condition::Protocol(protocol), Condition::ToPort(vec![DNS_PORT])],
                then: Action::Redirect(to_port),
                purpose: "DNS",
            });
        }
    }
    clauses.extend(lent(outbound));
    clauses.push(stays(&inside, own));
    clauses.extend(selection(outbound, &inside));
    clauses
}

/// One clause for each address, with its ports.
fn lent(outbound: &Outbound) -> Vec<Clause> {
    let nets: Vec<_> = outbound.lent.iter().map(|(net, _)| net.trunc()).collect();
    let clause = |net: IpNet| {
        let of_net = outbound.lent.iter().filter(|(of, _)| of.trunc() == net);
        let ports: Vec<_> = of_net.map(|(_, port)| *port).collect();
        Clause {
            when: vec![
                Condition::Protocol(IpProtocol::Tcp),
                Condition::To(vec![net]),
                Condition::ToPort(distinct(&ports)),
            ],
            then: Action::Redirect(outbound.to_port),
            purpose: "loopback, which the caller has too",
        }
    };
    distinct(&nets).into_iter().map(clause).collect()
}

/// Where DNS servers listen.
const DNS_PORT: u16 = 53;

pub(super) fn uncarried(own: &[IpAddr], mark: Option<SocketMark>, outbound: &Outbound) -> Vec<Clause> {
    let marked = mark.map(|mark| Clause {
        when: vec![Condition::SocketHas(vec![Sign::Mark(mark)])],
        then: Action::Leave,
        purpose: "made by the proxy",
    });
    let mut clauses: Vec<_> = marked.into_iter().collect();
    clauses.push(Clause {
        when: vec![Condition::Protocol(IpProtocol::Tcp)],
        then: Action::Leave,
        purpose: "carried by the proxy",
    });
    clauses.push(stays(&loopback(outbound), own));
    clauses.push(Clause {
        when: vec![],
        then: Action::Reject,
        purpose: "cannot be carried",
    });
    clauses
}

fn stays(loopback: &[IpNet], own: &[IpAddr]) -> Clause {
    let own = own.iter().map(|&address| IpNet::from(address));
    Clause {
        when: vec![Condition::To(loopback.iter().copied().chain(own).collect())],
        then: Action::Leave,
        purpose: "stays inside: loopback and own addresses",
    }
}

pub(super) fn inbound(inbound: &Inbound) -> Vec<Clause> {
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    let capture = |when, purpose| Clause {
        when,
        then: Action::Redirect(inbound.to_port),
        purpose,
    };
    match &inbound.ports {
        Selection::All => {
            let mut excluded = vec![inbound.tunnel_port];
            excluded.extend(&inbound.exclude_ports);
            vec![
                Clause {
                    when: vec![Condition::ToPort(distinct(&excluded))],
                    then: Action::Leave,
                    purpose: "excluded port",
                },
                capture(vec![tcp], "everything else"),
            ]
        }
        Selection::Only(list) => {
            let mut list = distinct(list);
            list.retain(|port| *port != inbound.tunnel_port);
            if list.is_empty() {
                vec![]
            } else {
                vec![capture(vec![tcp, Condition::ToPort(list)], "included port")]
            }
        }
    }
}

fn loopback(outbound: &Outbound) -> Vec<IpNet> {
    vec![
        outbound.loopback_v4.into(),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST).into(),
    ]
}

fn networks(nets: &[IpNet]) -> Vec<IpNet> {
    let nets: Vec<_> = nets.iter().map(IpNet::trunc).collect();
    distinct(&nets)
}

/// Without repetitions, in the order of first mention.
fn distinct<T: Copy + Eq + std::hash::Hash>(list: &[T]) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    list.iter().copied().filter(|item| seen.insert(*item)).collect()
}
