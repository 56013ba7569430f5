//! Which packets are sent: one of each kind, whatever tells of a rule that there should be, and whatever rules
//! speak of that nobody asked for.

use std::net::IpAddr;

use rules::cgroup::Membership;
use rules::evaluate::evaluate_from;
use rules::ruleset::IpProtocol;
use rules::witness::witnesses;
use rules::{Fate, Origin, Packet, Ruleset, State, Verdict};

use super::candidates::{Candidate, Sent};
use super::seats::Seat;

/// A packet, and what should become of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Probe {
    pub(super) packet: Packet,
    /// The cgroup that sends it, if it matters.
    pub(super) seat: Option<Seat>,
    pub(super) expected: Verdict,
    /// Whether nobody can answer where it is going, which is an address to the wire alone.
    pub(super) is_unanswered: bool,
}

/// What is sent for one family.
pub(super) struct Choice {
    pub(super) probes: Vec<Probe>,
    /// Rules that nothing on offer tells of, as text.
    pub(super) untold: Vec<String>,
}

/// `wanted` is what there should be, a rule for each member of a list.
pub(super) fn choose(wanted: &Ruleset, candidates: &[Candidate], local: &[IpAddr]) -> Choice {
    let nobody = Membership::none();
    let cgroups = |one: &'_ Candidate| {
        one.seat
            .as_ref()
            .map_or(nobody.clone(), |seat| seat.cgroups.clone())
    };
    let all: Vec<_> = candidates.iter().map(cgroups).collect();
    let packets = candidates.iter().map(|one| &one.packet);
    let sent: Vec<_> = packets.zip(&all).collect();
    let told = witnesses(wanted, &sent);
    let is_sent = |index: &usize| match candidates[*index].when {
        Sent::Always => true,
        Sent::AsWitness => told.chosen.contains(index),
        Sent::OnTheWay => false,
    };
    let chosen = (0..candidates.len()).filter(is_sent);
    let probes = chosen.map(|index| {
        let Candidate { packet, seat, .. } = &candidates[index];
        Probe {
            expected: evaluate_from(wanted, packet, &all[index]),
            is_unanswered: local.contains(&packet.destination),
            packet: packet.clone(),
            seat: seat.clone(),
        }
    });
    let untold = told.without.iter().map(|at| {
        let table = &wanted.tables[at.table];
        let chain = &table.chains[at.chain];
        format!("{} {}{}", table.name.as_str(), chain.name, chain.rules[at.rule])
    });
    Choice {
        probes: probes.collect(),
        untold: untold.collect(),
    }
}

impl Probe {
    /// The cgroups of who sends it.
    pub(super) fn cgroups(&self) -> Membership {
        let seat = self.seat.as_ref();
        seat.map_or_else(Membership::none, |seat| seat.cgroups.clone())
    }

    /// What it is about, in two or three words.
    pub(super) fn name(&self) -> &'static str {
        let Packet {
            origin,
            protocol,
            source,
            destination,
            destination_port,
            device,
            state,
            ..
        } = &self.packet;
        let is_captured = matches!(self.expected.fate, Fate::Redirect { .. } | Fate::Tproxy { .. });
        match (origin, state) {
            (_, State::PickedUp) => "of an open connection",
            (_, State::Stray) => "of no open connection",
            (_, State::Invalid) => "of no connection",
            (Origin::Remote, _) if is_captured => "TCP in",
            (Origin::Remote, _) => "TCP in, left alone",
            _ if *destination_port == 53 && *protocol == IpProtocol::Udp => "DNS by UDP",
            _ if *destination_port == 53 => "DNS by TCP",
            _ if *protocol == IpProtocol::Udp => "UDP out",
            _ if is_passthrough(*source) => "passthrough source",
            _ if destination.is_loopback() => "to loopback",
            _ if device == "lo" && is_captured => "hairpin",
            _ if device == "lo" => "to itself",
            _ if is_captured => "TCP out",
            _ => "TCP out, left alone",
        }
    }
}

fn is_passthrough(source: IpAddr) -> bool {
    source == model::ports::PASSTHROUGH_V4 || source == model::ports::PASSTHROUGH_V6
}
