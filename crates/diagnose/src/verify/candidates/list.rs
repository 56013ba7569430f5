//! The list of candidates: what they are made from, how one is made, and the addresses that they go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netsys::probe::{Addresses, Device, Owner, Wire};
use rules::ruleset::IpProtocol;
use rules::{Family, Intent, Mentions, Origin, Packet, State};

use super::super::seats::Seat;
use super::places::{is_global, within};

/// What the candidates are made from.
pub(in crate::verify) struct Ground<'a> {
    pub(in crate::verify) intent: &'a Intent,
    pub(in crate::verify) addresses: Addresses,
    /// The namespace's own addresses.
    pub(in crate::verify) own: &'a [IpAddr],
    /// Addresses that are its own to packets of the wire alone.
    pub(in crate::verify) local: &'a [IpAddr],
    /// What rules speak of beyond what the flags ask for.
    pub(in crate::verify) beyond: &'a Mentions,
    /// The same by the rule.
    pub(in crate::verify) by_rule: &'a [Mentions],
    /// Devices to send by.
    pub(in crate::verify) devices: &'a [Device],
    /// Cgroups to send from.
    pub(in crate::verify) seats: &'a [Seat],
    /// Whether a DNS proxy runs.
    pub(in crate::verify) dns_answers: bool,
    /// Ports that nobody listens on and no rule speaks of: to be called, and to call from.
    pub(in crate::verify) free: [u16; 2],
    /// Whether sockets of that owner can be made.
    pub(in crate::verify) can_be: fn(Owner) -> bool,
}

/// A packet, and when it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::verify) struct Candidate {
    pub(in crate::verify) packet: Packet,
    /// The cgroup that sends it, if it matters.
    pub(in crate::verify) seat: Option<Seat>,
    pub(in crate::verify) when: Sent,
}

/// When a packet is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::verify) enum Sent {
    /// Whatever else is.
    Always,
    /// Where it tells of a rule.
    AsWitness,
    /// By a connection that goes all the way, and never alone.
    OnTheWay,
}

/// What becomes the list of candidates.
pub(super) struct List<'a> {
    pub(super) ground: &'a Ground<'a>,
    pub(super) family: Family,
    pub(super) all: Vec<Candidate>,
}

impl List<'_> {
    pub(super) fn add(&mut self, always: bool, packet: Packet) {
        self.add_from(None, always, packet);
    }

    /// The same from a cgroup, where there is one.
    pub(super) fn add_from(&mut self, seat: Option<&Seat>, always: bool, packet: Packet) {
        let when = if always { Sent::Always } else { Sent::AsWitness };
        let mut all = self.all.iter_mut();
        match all.find(|known| known.packet == packet && known.seat.as_ref() == seat) {
            Some(known) if always => known.when = when,
            Some(_) => {}
            None => self.all.push(Candidate {
                packet,
                seat: seat.cloned(),
                when,
            }),
        }
    }

    pub(super) fn made(&self, owner: Owner, to: SocketAddr) -> Packet {
        let stays = self.stays(to.ip());
        Packet {
            origin: Origin::Socket {
                uid: owner.uid,
                gid: owner.gid,
                mark: owner.mark,
            },
            protocol: IpProtocol::Tcp,
            source: self.near(),
            source_port: self.ground.free[1],
            destination: to.ip(),
            destination_port: to.port(),
            device: String::from(if stays { "lo" } else { Wire::DEVICE }),
            state: State::New,
            connection_mark: 0,
            transparent: false,
            dns_answers: self.ground.dns_answers,
        }
    }

    pub(super) fn remote(&self, from: IpAddr, to: SocketAddr) -> Packet {
        Packet {
            origin: Origin::Remote,
            source: from,
            device: Wire::DEVICE.to_owned(),
            ..self.made(self.application(), to)
        }
    }

    /// Whether what goes there goes over `lo`.
    pub(super) fn stays(&self, ip: IpAddr) -> bool {
        let ground = self.ground;
        ip.is_loopback() || ip == self.near() || ground.own.contains(&ip) || ground.local.contains(&ip)
    }

    pub(super) fn near(&self) -> IpAddr {
        self.ground.addresses.near(self.family)
    }

    pub(super) fn far(&self) -> IpAddr {
        self.ground.addresses.far(self.family)
    }

    /// Where the world calls the namespace: the first address of its own that others can reach.
    pub(super) fn arrival(&self) -> IpAddr {
        let is_called = |ip: &&IpAddr| {
            Family::of(**ip) == self.family
                && !ip.is_loopback()
                && **ip != self.near()
                && **ip != self.passthrough()
                && is_global(**ip)
        };
        self.ground
            .own
            .iter()
            .find(is_called)
            .copied()
            .unwrap_or(self.near())
    }

    pub(super) fn loopback(&self) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::LOCALHOST.into(),
            Family::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    pub(super) fn passthrough(&self) -> IpAddr {
        match self.family {
            Family::V4 => model::ports::PASSTHROUGH_V4.into(),
            Family::V6 => model::ports::PASSTHROUGH_V6.into(),
        }
    }

    /// Whether a packet of this family can go there.
    pub(super) fn is_fit(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family && !ip.is_multicast() && !ip.is_unspecified() && {
            // Such an address says nothing without its device.
            !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
        }
    }

    /// Addresses of a network that a packet of this family can go to.
    pub(super) fn fit_of(&self, net: IpNet) -> Vec<IpAddr> {
        let local = self.ground.local.iter().filter(|ip| net.contains(*ip));
        let all = within(net).into_iter().chain(local.copied());
        all.filter(|ip| self.is_fit(*ip)).collect()
    }
}
