//! Where the proxy is outside the namespace, as with `weir run`: what is made inside.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{distinct, dns, loopback, own_traffic, passthrough, selection};
use crate::intent::{Intent, Outbound, SocketMark};
use crate::plan::clause::{Action, Clause, Condition, Sign};
use crate::ruleset::IpProtocol;

pub(in crate::plan) fn from_outside(
    own: &[IpAddr],
    mark: Option<SocketMark>,
    intent: &Intent,
) -> Vec<Clause> {
    let Intent {
        outbound, inbound, ..
    } = intent;
    let inside = loopback(outbound);
    let mut clauses = vec![];
    if let Some(mark) = mark {
        clauses.extend(passthrough());
        clauses.extend(own_traffic(&[Sign::Mark(mark)], &inside, inbound, None));
    }
    let dns = intent.captured_dns();
    clauses.extend(dns.into_iter().flat_map(|dns| dns::first(dns, &inside, intent)));
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

pub(in crate::plan) fn uncarried(
    own: &[IpAddr],
    mark: Option<SocketMark>,
    outbound: &Outbound,
) -> Vec<Clause> {
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
