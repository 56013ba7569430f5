//! A condition of a clause as the tests of rules.

use ipnet::IpNet;

use super::{Dialect, not, yes};
use crate::intent::SocketMark;
use crate::plan::{Condition, Family, Sign};
use crate::ruleset::{Addresses, Match, PortRange, Test, merged};

/// The ways in which a condition can hold: any one of the outer list, all of an inner one.
pub(super) fn tests(dialect: Dialect, condition: &Condition, family: Family) -> Vec<Vec<Match>> {
    let one = |test| vec![vec![yes(test)]];
    match condition {
        Condition::Protocol(protocol) => one(Test::Protocol(*protocol)),
        Condition::OverLoopback => one(Test::OutInterface("lo".to_owned())),
        Condition::From(address) if Family::of(*address) == family => one(Test::Source((*address).into())),
        Condition::From(_) => vec![],
        Condition::To(nets) => destinations(dialect, nets, family),
        Condition::NotTo(nets) => match destinations(Dialect::Nft, nets, family).pop() {
            Some(set) if dialect == Dialect::Nft => vec![set.into_iter().map(opposite).collect()],
            _ => {
                let nots = of_family(nets, family).map(|net| not(Test::Destination(net)));
                vec![nots.collect()]
            }
        },
        Condition::ToPort(ports) => to_ports(dialect, ports),
        Condition::NotToPort(port) => vec![vec![not(Test::DestinationPort(PortRange::from(*port)))]],
        Condition::SocketHas(signs) => signs_of(dialect, signs),
    }
}

fn opposite(found: Match) -> Match {
    Match {
        negated: !found.negated,
        ..found
    }
}

fn of_family(nets: &[IpNet], family: Family) -> impl Iterator<Item = IpNet> {
    let nets = nets.iter().copied();
    nets.filter(move |net| Family::of(net.addr()) == family)
}

fn destinations(dialect: Dialect, nets: &[IpNet], family: Family) -> Vec<Vec<Match>> {
    // The kernel does not keep a match on everything.
    let one = |net: IpNet| match net.prefix_len() {
        0 => vec![],
        _ => vec![yes(Test::Destination(net))],
    };
    if dialect == Dialect::Iptables {
        return of_family(nets, family).map(one).collect();
    }
    if of_family(nets, family).next().is_none() {
        return vec![];
    }
    let set = Addresses::of(family, nets);
    vec![match set.single() {
        Some(net) => one(net),
        None => vec![yes(Test::Destinations(set))],
    }]
}

fn to_ports(dialect: Dialect, ports: &[u16]) -> Vec<Vec<Match>> {
    if dialect == Dialect::Nft {
        return vec![vec![yes(port_set(
            ports.iter().map(|&port| (port, port)).collect(),
        ))]];
    }
    let each = ports
        .iter()
        .map(|&port| Test::DestinationPort(PortRange::from(port)));
    each.map(|test| vec![yes(test)]).collect()
}

/// One test for all of them.
pub(crate) fn port_set(ranges: Vec<(u16, u16)>) -> Test {
    let ranges = merged(ranges).into_iter();
    let ranges: Vec<_> = ranges.map(|(first, last)| PortRange { first, last }).collect();
    match ranges[..] {
        [range] => Test::DestinationPort(range),
        _ => Test::DestinationPorts(ranges),
    }
}

fn signs_of(dialect: Dialect, signs: &[Sign]) -> Vec<Vec<Match>> {
    if dialect == Dialect::Iptables {
        let each = signs.iter().map(|sign| match *sign {
            Sign::Uid(id) => Test::Uid(id, id),
            Sign::Gid(id) => Test::Gid(id, id),
            Sign::Mark(mark) => Test::Mark(mark),
        });
        return each.map(|test| vec![yes(test)]).collect();
    }
    let mut uids: Vec<(u32, u32)> = vec![];
    let mut gids: Vec<(u32, u32)> = vec![];
    let mut marks: Vec<SocketMark> = vec![];
    for sign in signs {
        match *sign {
            Sign::Uid(id) => uids.push((id, id)),
            Sign::Gid(id) => gids.push((id, id)),
            Sign::Mark(mark) => marks.push(mark),
        }
    }
    let uids = ids(uids, Test::Uid, Test::Uids);
    let gids = ids(gids, Test::Gid, Test::Gids);
    let tests = uids
        .into_iter()
        .chain(gids)
        .chain(marks.into_iter().map(Test::Mark));
    tests.map(|test| vec![yes(test)]).collect()
}

/// One test for all of them.
pub(crate) fn ids(
    ranges: Vec<(u32, u32)>,
    one: impl Fn(u32, u32) -> Test,
    several: impl Fn(Vec<(u32, u32)>) -> Test,
) -> Option<Test> {
    let ranges = merged(ranges);
    match ranges[..] {
        [] => None,
        [(first, last)] => Some(one(first, last)),
        _ => Some(several(ranges)),
    }
}
