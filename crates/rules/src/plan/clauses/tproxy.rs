//! Inbound by TPROXY. What comes in for the application is given to the proxy's socket as it arrives. The
//! proxy speaks to the application in the client's name, so the answers would go to the client: the mark on
//! what the proxy sends becomes its connection's, comes back on the answers, and routes them to the proxy.

use super::{
    EXCLUDED_DEVICE, SELF_CALL, continues, entering, entrances, leave, loopback, loopback_is_wanted,
    names_of, self_call, signs_in_order,
};
use crate::intent::{Intent, Signs, Tproxy};
use crate::plan::{Action, Clause, Condition, Sign};
use crate::ruleset::IpProtocol;

/// For each packet that arrives.
pub(in crate::plan) fn arriving(intent: &Intent, tproxy: Tproxy) -> Vec<Clause> {
    let capture = Action::Tproxy {
        port: intent.inbound.to_port,
        mark: None,
    };
    let over_lo = Condition::CameBy(vec!["lo".to_owned()]);
    let marked = |mark, then, purpose| Clause {
        when: vec![
            over_lo.clone(),
            Condition::Protocol(IpProtocol::Tcp),
            Condition::SocketHas(vec![Sign::Mark(mark)]),
        ],
        then,
        purpose,
    };
    let mut clauses = vec![
        // Not what conntrack takes for established: to it, a connection that is opened anew by the same ports
        // soon after its end is the old one, and would get past the proxy.
        continues(),
        marked(tproxy.mark, Action::SaveMark, TO_APPLICATION),
        marked(Tproxy::SELF_CALL, capture, SELF_CALL),
        leave(over_lo.clone(), "made in the pod"),
    ];
    let machines = entrances(&intent.devices.virtual_machines);
    if !machines.is_empty() {
        clauses.push(leave(Condition::CameBy(machines), "made by a virtual machine"));
    }
    clauses.extend(entering(intent, capture));
    clauses
}

const TO_APPLICATION: &str = "proxy to its application";

/// For each packet that is made here.
pub(in crate::plan) fn sending(signs: &Signs, intent: &Intent, tproxy: Tproxy) -> Vec<Clause> {
    let mut clauses = vec![
        Clause {
            when: vec![
                Condition::Protocol(IpProtocol::Tcp),
                Condition::ConnectionHas(tproxy.mark),
            ],
            then: Action::RestoreMark,
            purpose: "application to the proxy",
        },
        leave(
            Condition::SocketHas(vec![Sign::Mark(tproxy.mark)]),
            TO_APPLICATION,
        ),
    ];
    let excluded = &intent.devices.excluded;
    if !excluded.is_empty() {
        clauses.push(leave(Condition::LeavesBy(names_of(excluded)), EXCLUDED_DEVICE));
    }
    let ports = &intent.outbound.exclude_ports;
    if !ports.is_empty() {
        clauses.push(leave(Condition::ToPort(super::distinct(ports)), "excluded port"));
    }
    let (mut first, late) = signs_in_order(signs);
    if loopback_is_wanted(&intent.outbound) {
        first.extend(late);
    }
    let then = Action::Mark(Tproxy::SELF_CALL.value);
    clauses.push(self_call(
        &first,
        &loopback(&intent.outbound),
        &intent.inbound,
        then,
    ));
    clauses
}
