//! A packet as the rule that is asked sees it, and whether a test of that rule holds.

use std::net::{IpAddr, SocketAddr};

use super::{Origin, Packet, State};
use crate::cgroup::Membership;
use crate::intent::Tproxy;
use crate::ruleset::{IpProtocol, Match, PortRange, Test};

/// The packet as the chain that is asked sees it.
pub(super) struct View {
    pub(super) protocol: IpProtocol,
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
    /// Unknown after an inbound redirect, which goes to whatever address the device has.
    pub(super) destination: Option<IpAddr>,
    pub(super) destination_port: u16,
    pub(super) in_device: Option<String>,
    pub(super) out_device: Option<String>,
    /// Uid and gid; there is no socket on the way in.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mark: u32,
    pub(super) connection_mark: u32,
    pub(super) zone: u16,
    pub(super) is_remembered: bool,
    pub(super) dns_answers: bool,
    pub(super) state: State,
    pub(super) opens: bool,
    pub(super) holder: Holder,
    /// Whether it goes the way in which its connection was opened.
    pub(super) is_original: Option<bool>,
}

/// Which socket of the namespace has the packet's connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Plain,
    Transparent,
}

impl Holder {
    fn of(packet: &Packet) -> Self {
        match packet.state {
            _ if packet.transparent => Self::Transparent,
            State::New | State::Stray | State::Passing | State::Invalid => Self::Nobody,
            State::PickedUp | State::Established | State::Untracked => Self::Plain,
        }
    }
}

impl View {
    pub(super) fn of(packet: &Packet) -> Self {
        let device = Some(packet.device.clone());
        let (owner, mark, in_device, out_device) = match packet.origin {
            Origin::Socket { uid, gid, mark } => (Some((uid, gid)), mark, None, device),
            Origin::Remote => (None, 0, device, None),
        };
        Self {
            protocol: packet.protocol,
            source: packet.source,
            source_port: packet.source_port,
            destination: Some(packet.destination),
            destination_port: packet.destination_port,
            in_device,
            out_device,
            owner,
            mark,
            connection_mark: packet.connection_mark,
            zone: 0,
            is_remembered: false,
            dns_answers: packet.dns_answers,
            state: packet.state,
            opens: packet.protocol == IpProtocol::Tcp && packet.state == State::New,
            holder: Holder::of(packet),
            is_original: is_original(packet),
        }
    }

    /// Whether one test of a rule holds, or its opposite where that is asked.
    pub(super) fn fits(&self, found: &Match, cgroups: &Membership) -> Fit {
        // There is no connection whose mark could be this one, or another.
        if matches!(found.test, Test::ConnectionMark(_) | Test::Original) && self.state == State::Untracked {
            return Fit::No;
        }
        match self.holds(&found.test, cgroups) {
            None => Fit::Unknown,
            Some(holds) if holds != found.negated => Fit::Yes,
            Some(_) => Fit::No,
        }
    }

    /// None where it cannot be said.
    fn holds(&self, test: &Test, cgroups: &Membership) -> Option<bool> {
        let device = |there: &Option<String>, name: &str| {
            let there = there.as_deref().unwrap_or_default();
            match name.strip_suffix('+') {
                Some(start) => there.starts_with(start),
                None => there == name,
            }
        };
        let has_ports = matches!(
            self.protocol,
            IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Sctp
        );
        let within = |range: &PortRange, port| has_ports && (range.first..=range.last).contains(&port);
        Some(match test {
            Test::Source(net) => net.contains(&self.source),
            Test::Sources(addresses) => addresses.contains(self.source),
            Test::Destination(net) => net.contains(&self.destination?),
            Test::Destinations(addresses) => addresses.contains(self.destination?),
            Test::InInterface(name) => device(&self.in_device, name),
            Test::OutInterface(name) => device(&self.out_device, name),
            Test::Protocol(protocol) => *protocol == self.protocol,
            Test::SourcePort(range) => within(range, self.source_port),
            Test::DestinationPort(range) => within(range, self.destination_port),
            Test::DestinationPorts(ranges) => ranges.iter().any(|range| within(range, self.destination_port)),
            Test::DestinationServices(services) => {
                let to = SocketAddr::new(self.destination?, self.destination_port);
                has_ports && services.binary_search(&to).is_ok()
            }
            Test::Opens => self.opens,
            Test::Original => self.is_original?,
            Test::Socket => self.holder != Holder::Nobody,
            Test::Transparent => self.holder == Holder::Transparent,
            Test::Uid(first, last) => (*first..=*last).contains(&self.owner?.0),
            Test::Uids(ranges) => within_any(ranges, self.owner?.0),
            Test::Gid(first, last) => (*first..=*last).contains(&self.owner?.1),
            Test::Gids(ranges) => within_any(ranges, self.owner?.1),
            Test::Mark(mark) => mark.matches(self.mark),
            // As the owner, these are the socket's, which there is none of on the way in.
            Test::Class(id) => self.owner.and(cgroups.class_id)? == *id,
            Test::Classes(ranges) => within_any(ranges, self.owner.and(cgroups.class_id)?),
            Test::Cgroup(path) => self.owner.and(cgroups.is_below(path))?,
            Test::ConnectionMark(mark) => mark.matches(self.connection_mark),
            Test::State(states) => is_in(self.state, states)?,
            Test::Zone(zone) => *zone == self.zone,
            Test::Alive(_) => self.dns_answers,
            Test::Comment(_) => true,
            Test::Other(_) => return None,
        })
    }
}

/// None where it cannot be said. In a captured connection, what does not go to a client goes to the proxy.
fn is_original(packet: &Packet) -> Option<bool> {
    let is_captured = Tproxy::CLIENT.matches(packet.connection_mark);
    match packet.state {
        State::New | State::PickedUp | State::Stray => Some(true),
        State::Established | State::Passing => {
            (is_captured && Holder::of(packet) != Holder::Plain).then_some(true)
        }
        State::Invalid | State::Untracked => Some(false),
    }
}

/// Whether a test holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Yes,
    No,
    Unknown,
}

fn within_any(ranges: &[(u32, u32)], id: u32) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&id))
}

/// None where a state has a name that is not known.
fn is_in(state: State, states: &[String]) -> Option<bool> {
    const ALL: [&str; 5] = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"];
    if states.iter().any(|name| name == state.name()) {
        return Some(true);
    }
    let all_known = states.iter().all(|name| ALL.contains(&name.as_str()));
    all_known.then_some(false)
}
