//! What comes in.

use super::{ALL_LOOPBACK, EXCLUDED_DEVICE, continues, distinct, entrances, leave, networks, outside};
use crate::intent::{Intent, Outbound, Selection};
use crate::plan::clause::{Action, Clause, Condition};
use crate::ruleset::IpProtocol;

pub(in crate::plan) fn inbound(intent: &Intent) -> Vec<Clause> {
    let Intent {
        inbound,
        outbound,
        devices,
        ..
    } = intent;
    let mut clauses = vec![continues()];
    clauses.extend(virtual_machines(&devices.virtual_machines, outbound));
    if inbound.tproxy().is_none() {
        clauses.extend(entering(intent, Action::Redirect(inbound.to_port)));
    }
    clauses
}

/// Connections that come in, but for those of virtual machines.
pub(super) fn entering(intent: &Intent, then: Action) -> Vec<Clause> {
    let Intent { inbound, devices, .. } = intent;
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    let mut clauses = vec![];
    let excluded = entrances(&devices.excluded);
    if !excluded.is_empty() {
        clauses.push(leave(Condition::CameBy(excluded), EXCLUDED_DEVICE));
    }
    if !inbound.exclude_sources.is_empty() {
        clauses.push(leave(
            Condition::From(networks(&inbound.exclude_sources)),
            "excluded source",
        ));
    }
    let capture = |when, purpose| Clause { when, then, purpose };
    match &inbound.ports {
        Selection::All => {
            let mut excluded = vec![inbound.tunnel_port];
            excluded.extend(&inbound.exclude_ports);
            clauses.push(leave(Condition::ToPort(distinct(&excluded)), "excluded port"));
            clauses.push(capture(vec![tcp], "everything else"));
        }
        Selection::Only(list) => {
            let mut list = distinct(list);
            list.retain(|port| *port != inbound.tunnel_port);
            if !list.is_empty() {
                clauses.push(capture(vec![tcp, Condition::ToPort(list)], "included port"));
            }
        }
    }
    clauses
}

/// What a virtual machine sends is captured by its destination alone, as istio-iptables has it.
fn virtual_machines(devices: &[String], outbound: &Outbound) -> Vec<Clause> {
    let devices = entrances(devices);
    if devices.is_empty() {
        return vec![];
    }
    let from = Condition::CameBy(devices);
    let mut when = vec![from.clone(), Condition::Protocol(IpProtocol::Tcp)];
    match &outbound.cidrs {
        Selection::All => {}
        Selection::Only(nets) => {
            when.push(Condition::To(outside(networks(nets), &ALL_LOOPBACK)));
        }
    }
    let capture = Clause {
        when,
        then: Action::Redirect(outbound.to_port),
        purpose: "made by a virtual machine",
    };
    vec![capture, leave(from, "other destinations of a virtual machine")]
}

/// What is dropped as it arrives.
pub(in crate::plan) fn invalid() -> Clause {
    Clause {
        when: vec![Condition::Invalid],
        then: Action::Drop,
        purpose: "of no connection that is known",
    }
}
