//! Inbound by TPROXY. What comes in for the application is given to the proxy's socket as it arrives. The
//! proxy speaks to the application in the client's name, so the answers would go to the client: the mark on
//! what the proxy sends becomes its connection's, comes back on the answers, and routes them to the proxy.
//!
//! Where conntrack is kept out, sockets remember marks in its place: the application's take over that of what
//! the proxy sends, the proxy's that of what opened the connection, by which its answers are known.
//!
//! Open connections go on where they are, so it is mostly the first packet that counts. But a listener whose queue
//! is full answers it by a SYN cookie and keeps no socket: then what completes the handshake belongs to no socket,
//! and has to be brought to the listener too.

use super::{
    EXCLUDED_DEVICE, SELF_CALL, continues, entering, entrances, leave, loopback, names_of, self_call,
    signs_in_order,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::family::Family;
use crate::intent::{Intent, Signs, Tproxy};
use crate::plan::clause::{Action, Clause, Condition, Sign};
use crate::plan::untracked::{self, Switch};
use crate::ruleset::IpProtocol;

/// For each packet that arrives.
pub(in crate::plan) fn arriving(intent: &Intent, tproxy: Tproxy, is_tracked: bool) -> Vec<Clause> {
    let capture = |mark, connection| Action::Tproxy {
        port: intent.inbound.to_port,
        mark,
        connection,
    };
    let captured = Tproxy::CLIENT.value;
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
    let mut clauses = going_on(capture(None, None)).to_vec();
    if is_tracked {
        clauses.push(marked(tproxy.mark, Action::SaveMark, TO_APPLICATION));
    }
    // Its mark stays, so that conntrack sees both directions of it in either kind: the owner of the one that calls
    // cannot be told once it has closed its socket.
    let self_call = capture(None, Some(captured));
    clauses.push(marked(Tproxy::SELF_CALL, self_call, SELF_CALL));
    clauses.push(leave(over_lo.clone(), MADE_IN_POD));
    clauses.extend(by_virtual_machines(intent));
    let client = match is_tracked {
        true => capture(None, Some(captured)),
        false => capture(Some(captured), None),
    };
    clauses.extend(entering(intent, client));
    clauses
}

/// For packets that open no connection. What they leave undecided has no socket here, and is captured like what
/// opens one: it completes a handshake, or is a stray, which the proxy's listener resets as any would.
fn going_on(capture: Action) -> [Clause; 4] {
    let and = |when: &[Condition], then, purpose| {
        let goes_on = [Condition::Protocol(IpProtocol::Tcp), Condition::Continues];
        Clause {
            when: goes_on.iter().chain(when).cloned().collect(),
            then,
            purpose,
        }
    };
    let captured = Condition::ConnectionHas(Tproxy::CLIENT);
    [
        // TPROXY would find the same socket, but a packet that it has found one for is routed anew.
        and(
            &[captured.clone(), Condition::Transparent],
            Action::Leave,
            "goes on to the proxy",
        ),
        and(
            &[captured, Condition::FromOpener],
            capture,
            "of a captured connection",
        ),
        // Asked of no first packet: to conntrack, a connection that is opened anew by the same ports soon after its
        // end is the old one, and would get past the proxy.
        and(&[Condition::IsKnown], Action::Leave, "goes on with a connection"),
        // Such as those from before the rules, which conntrack sees for the first time.
        and(&[Condition::HasSocket], Action::Leave, "has a socket here"),
    ]
}

fn by_virtual_machines(intent: &Intent) -> Option<Clause> {
    let machines = entrances(&intent.devices.virtual_machines);
    (!machines.is_empty()).then(|| leave(Condition::CameBy(machines), "made by a virtual machine"))
}

/// For each packet that arrives, where conntrack is to see nothing of what is captured.
pub(in crate::plan) fn tracking_arriving(intent: &Intent) -> Vec<Clause> {
    let tcp = Condition::Protocol(IpProtocol::Tcp);
    // What was made here needs no clause: conntrack has seen it as it was sent, or been kept from it, and that stays.
    let mut clauses = vec![];
    // Before transparent sockets: to nftables the proxy's listener is one, and what a virtual machine sends to its
    // port is redirected elsewhere.
    clauses.extend(by_virtual_machines(intent));
    clauses.push(Clause {
        when: vec![tcp, Condition::Continues, Condition::Transparent],
        then: Action::Untrack,
        purpose: "client to the proxy",
    });
    clauses.push(continues());
    clauses.extend(entering(intent, Action::Untrack));
    clauses
}

/// For each packet that is made here, where conntrack is to see nothing of what is captured. `ours` are the
/// switches that Weir has set.
pub(in crate::plan) fn tracking_sending(tproxy: Tproxy, ours: &[Switch]) -> Vec<Clause> {
    let of = |switch: Switch| {
        let mark = match switch {
            Switch::Accept => Tproxy::CLIENT,
            Switch::Reflect(_) => tproxy.mark,
        };
        let mut when = vec![
            Condition::Protocol(IpProtocol::Tcp),
            Condition::SocketHas(vec![Sign::Mark(mark)]),
        ];
        match switch {
            Switch::Accept => {}
            Switch::Reflect(Family::V4) => when.push(Condition::To(vec![IpNet::V4(Ipv4Net::default())])),
            Switch::Reflect(Family::V6) => when.push(Condition::To(vec![IpNet::V6(Ipv6Net::default())])),
        }
        Clause {
            when,
            then: Action::Untrack,
            purpose: untracked::purpose(switch, ours.contains(&switch)),
        }
    };
    Switch::ALL.map(of).to_vec()
}

const MADE_IN_POD: &str = "made in the pod";
const TO_APPLICATION: &str = "proxy to its application";

/// For each packet that is made here.
pub(in crate::plan) fn sending(
    signs: &Signs,
    intent: &Intent,
    tproxy: Tproxy,
    is_tracked: bool,
) -> Vec<Clause> {
    let mut clauses = vec![];
    if is_tracked {
        clauses.push(Clause {
            when: vec![
                Condition::Protocol(IpProtocol::Tcp),
                Condition::ConnectionHas(tproxy.mark),
            ],
            then: Action::RestoreMark,
            purpose: "application to the proxy",
        });
    }
    clauses.push(leave(
        Condition::SocketHas(vec![Sign::Mark(tproxy.mark)]),
        TO_APPLICATION,
    ));
    let excluded = &intent.devices.excluded;
    if !excluded.is_empty() {
        clauses.push(leave(Condition::LeavesBy(names_of(excluded)), EXCLUDED_DEVICE));
    }
    let ports = &intent.outbound.exclude_ports;
    if !ports.is_empty() {
        clauses.push(leave(Condition::ToPort(super::distinct(ports)), "excluded port"));
    }
    let (mut signs, late) = signs_in_order(signs);
    signs.extend(late);
    let then = Action::Mark(Tproxy::SELF_CALL.value);
    clauses.push(self_call(
        &signs,
        &loopback(&intent.outbound),
        &intent.inbound,
        None,
        then,
    ));
    clauses
}
