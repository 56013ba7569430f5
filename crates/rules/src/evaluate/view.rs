//! A packet as the rule that is asked sees it, and whether a test of that rule holds.

use std::net::{IpAddr, SocketAddr};

use super::ground::Ground;
use super::{Origin, Packet, State};
use crate::cgroup::Membership;
use crate::intent::Tproxy;
use crate::ruleset::{ForeignTest, Holds, IpProtocol, Match, PortRange, Test};

/// What is known beside the packet.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// The cgroups of the process that made it.
    pub(crate) cgroups: &'a Membership,
    /// The namespace.
    pub(crate) ground: &'a dyn Ground,
}

/// The packet as the chain that is asked sees it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) protocol: IpProtocol,
    /// Unknown after it was masqueraded.
    pub(super) source: Option<IpAddr>,
    pub(super) source_port: u16,
    /// Unknown after an inbound redirect, which goes to whatever address the device has.
    pub(super) destination: Option<IpAddr>,
    pub(super) destination_port: u16,
    pub(super) in_device: Device,
    pub(super) out_device: Device,
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
    /// Where its connection was made to.
    pub(super) original: (IpAddr, u16),
    /// Whether its source has been translated.
    pub(super) has_new_source: bool,
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

/// A device that it has come by, or leaves by.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Device {
    None,
    Is(String),
    Unknown,
}

impl Device {
    /// None where it cannot be said.
    fn has_name(&self, name: &str) -> Option<bool> {
        let there = match self {
            Self::None => "",
            Self::Is(there) => there,
            // Every device has a name that begins with nothing.
            Self::Unknown if name == "+" => return Some(true),
            Self::Unknown => return None,
        };
        Some(match name.strip_suffix('+') {
            Some(start) => there.starts_with(start),
            None => there == name,
        })
    }
}

impl View {
    pub(super) fn of(packet: &Packet) -> Self {
        let device = Device::Is(packet.device.clone());
        let (owner, mark, in_device, out_device) = match packet.origin {
            Origin::Socket { uid, gid, mark } => (Some((uid, gid)), mark, Device::None, device),
            Origin::Remote => (None, 0, device, Device::None),
        };
        Self {
            protocol: packet.protocol,
            source: Some(packet.source),
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
            original: (packet.destination, packet.destination_port),
            has_new_source: false,
        }
    }

    /// Whether it goes elsewhere than its connection was made to; none where that cannot be said.
    fn has_new_destination(&self) -> Option<bool> {
        let now = (self.destination, self.destination_port);
        match self.state {
            State::Untracked | State::Invalid => Some(false),
            State::New | State::PickedUp | State::Stray => {
                Some(now != (Some(self.original.0), self.original.1))
            }
            State::Established | State::Passing => None,
        }
    }

    /// Whether one test of a rule holds, or its opposite where that is asked.
    pub(super) fn fits(&self, found: &Match, known: Known<'_>) -> Fit {
        // There is no connection whose mark could be this one, or another.
        if matches!(found.test, Test::ConnectionMark(_) | Test::Original) && self.state == State::Untracked {
            return Fit::No;
        }
        if let Test::Foreign(ForeignTest {
            holds: Holds::ByChance(chance),
            ..
        }) = &found.test
        {
            let share = chance.share();
            return Fit::ByChance(if found.negated { 1.0 - share } else { share });
        }
        match self.holds(&found.test, known) {
            None => Fit::Unknown,
            Some(holds) if holds != found.negated => Fit::Yes,
            Some(_) => Fit::No,
        }
    }

    /// Whether all of these hold; none where that cannot be said.
    pub(super) fn all_hold(&self, row: &[Match], known: Known<'_>) -> Option<bool> {
        let mut all = Some(true);
        for found in row {
            match self.fits(found, known) {
                Fit::No => return Some(false),
                Fit::Yes => {}
                Fit::Unknown | Fit::ByChance(_) => all = None,
            }
        }
        all
    }

    /// None where it cannot be said.
    fn holds(&self, test: &Test, known: Known<'_>) -> Option<bool> {
        let cgroups = known.cgroups;
        let has_ports = matches!(
            self.protocol,
            IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Sctp
        );
        let within = |range: &PortRange, port| has_ports && (range.first..=range.last).contains(&port);
        Some(match test {
            Test::Source(net) => net.contains(&self.source?),
            Test::Sources(addresses) => addresses.contains(self.source?),
            Test::Destination(net) => net.contains(&self.destination?),
            Test::Destinations(addresses) => addresses.contains(self.destination?),
            Test::InInterface(name) => self.in_device.has_name(name)?,
            Test::OutInterface(name) => self.out_device.has_name(name)?,
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
            Test::State(states) => self.is_in(states)?,
            Test::Zone(zone) => *zone == self.zone,
            Test::Alive(_) => self.dns_answers,
            Test::Comment(_) => true,
            Test::Foreign(test) => self.holds_of_others(&test.holds, known)?,
            Test::Other(_) => return None,
        })
    }

    fn holds_of_others(&self, holds: &Holds, known: Known<'_>) -> Option<bool> {
        let has_ports = matches!(
            self.protocol,
            IpProtocol::Tcp | IpProtocol::Udp | IpProtocol::Sctp
        );
        let within = |range: &PortRange, port| has_ports && (range.first..=range.last).contains(&port);
        let is_of = |address: IpAddr, kinds: &[String]| {
            let kind = known.ground.kind(address)?;
            Some(kinds.iter().any(|name| name == kind.as_str()))
        };
        Some(match holds {
            Holds::Always => true,
            // Asked before.
            Holds::ByChance(_) => return None,
            Holds::OneOf(rows) => {
                let mut any = Some(false);
                for row in rows {
                    match self.all_hold(row, known) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => any = None,
                    }
                }
                any?
            }
            Holds::SourceKind(kinds) => is_of(self.source?, kinds)?,
            Holds::DestinationKind(kinds) => is_of(self.destination?, kinds)?,
            Holds::SourcePort(ranges) => ranges.iter().any(|range| within(range, self.source_port)),
            // What opens a connection has SYN alone; what others have is not known.
            Holds::Flags { .. } if self.protocol != IpProtocol::Tcp => false,
            Holds::Flags { mask, set } if self.opens => SYN & mask == *set,
            Holds::Flags { .. } => return None,
            Holds::Owned => self.owner.is_some(),
            Holds::OriginalDestination(net) => net.contains(&self.original.0),
            Holds::OriginalPort(range) => within(range, self.original.1),
        })
    }

    /// Whether what conntrack makes of it is one of these; none where that cannot be said.
    fn is_in(&self, states: &[String]) -> Option<bool> {
        const ALL: [&str; 4] = ["NEW", "ESTABLISHED", "RELATED", "INVALID"];
        let mut any = Some(false);
        for state in states {
            let is_it = match state.as_str() {
                name if name == self.state.name() => Some(true),
                "UNTRACKED" => Some(false),
                "SNAT" if matches!(self.state, State::Established | State::Passing) => None,
                "SNAT" => Some(self.has_new_source),
                "DNAT" => self.has_new_destination(),
                name if ALL.contains(&name) => Some(false),
                _ => None,
            };
            match is_it {
                Some(true) => return Some(true),
                Some(false) => {}
                None => any = None,
            }
        }
        any
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

/// The flag's bit.
const SYN: u8 = 2;

/// Whether a test holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Fit {
    Yes,
    No,
    Unknown,
    /// So often, from 0 to 1.
    ByChance(f64),
}

fn within_any(ranges: &[(u32, u32)], id: u32) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&id))
}
