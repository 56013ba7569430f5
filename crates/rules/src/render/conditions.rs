//! A condition of a clause as the tests of rules.

use ipnet::IpNet;

use super::{Dialect, not, yes};
use crate::family::Family;
use crate::intent::SocketMark;
use crate::plan::{Condition, Sign};
use crate::ruleset::{Addresses, Match, Memory, PortRange, Test, merged};

/// The ways in which a condition can hold: any one of the outer list, all of an inner one.
pub(super) fn tests(dialect: Dialect, condition: &Condition, family: Family) -> Vec<Vec<Match>> {
    let one = |test| vec![vec![yes(test)]];
    match condition {
        Condition::Protocol(protocol) => one(Test::Protocol(*protocol)),
        Condition::OverLoopback => one(Test::OutInterface("lo".to_owned())),
        Condition::LeavesBy(devices) => each(devices, Test::OutInterface),
        Condition::CameBy(devices) => each(devices, Test::InInterface),
        Condition::From(nets) => addresses(dialect, nets, family, Test::Source, Test::Sources),
        Condition::To(nets) => destinations(dialect, nets, family),
        Condition::NotTo(nets) => match destinations(Dialect::Nft, nets, family).pop() {
            Some(set) if dialect == Dialect::Nft => vec![set.into_iter().map(opposite).collect()],
            _ => {
                let nots = of_family(nets, family).map(|net| not(Test::Destination(net)));
                vec![nots.collect()]
            }
        },
        Condition::ToPort(ports) => to_ports(dialect, ports),
        Condition::ToService(services) => {
            let mut services = services.clone();
            services.sort_unstable();
            one(Test::DestinationServices(services))
        }
        Condition::NotToPorts(ports) => vec![vec![not(port_set(
            ports.iter().map(|&port| (port, port)).collect(),
        ))]],
        Condition::FromPort(port) => one(Test::SourcePort(PortRange::from(*port))),
        Condition::DnsAnswers => one(Test::Alive(memory(dialect, family))),
        Condition::InZone(zone) => one(match dialect {
            Dialect::Nft => Test::Zone(zone.number),
            Dialect::Iptables => Test::Mark(SocketMark::exact(zone.mark)),
        }),
        Condition::SocketHas(signs) => signs_of(dialect, signs),
        Condition::SocketLacks(groups) => lacks(dialect, groups),
        Condition::Invalid => one(Test::State(vec!["INVALID".to_owned()])),
        Condition::Continues => vec![vec![not(Test::Opens)]],
        Condition::ConnectionHas(mark) => one(Test::ConnectionMark(*mark)),
        Condition::FromOpener => one(Test::Original),
        Condition::IsKnown => one(Test::State(
            ["ESTABLISHED", "UNTRACKED"].map(str::to_owned).to_vec(),
        )),
        Condition::HasSocket if dialect == Dialect::Nft => vec![],
        Condition::HasSocket => one(Test::Socket),
        Condition::Transparent => one(Test::Transparent),
    }
}

/// What remembers that the DNS proxy lives.
pub(super) fn memory(dialect: Dialect, family: Family) -> Memory {
    match dialect {
        Dialect::Iptables => Memory::Recent(family),
        Dialect::Nft => Memory::Set,
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

fn each<T: Clone>(list: &[T], test: impl Fn(T) -> Test) -> Vec<Vec<Match>> {
    let list = list.iter().cloned();
    list.map(|item| vec![yes(test(item))]).collect()
}

fn destinations(dialect: Dialect, nets: &[IpNet], family: Family) -> Vec<Vec<Match>> {
    addresses(dialect, nets, family, Test::Destination, Test::Destinations)
}

fn addresses(
    dialect: Dialect,
    nets: &[IpNet],
    family: Family,
    single: impl Fn(IpNet) -> Test,
    several: impl Fn(Addresses) -> Test,
) -> Vec<Vec<Match>> {
    if dialect == Dialect::Iptables {
        let nets: Vec<_> = of_family(nets, family).collect();
        return each(&nets, single);
    }
    let set = Addresses::of(family, nets);
    vec![vec![yes(match set.single() {
        Some(net) => single(net),
        None => several(set),
    })]]
}

fn lacks(dialect: Dialect, groups: &[u32]) -> Vec<Vec<Match>> {
    if dialect == Dialect::Nft {
        let groups = groups.iter().map(|&group| (group, group));
        return vec![
            ids(groups.collect(), Test::Gid, Test::Gids)
                .map(not)
                .into_iter()
                .collect(),
        ];
    }
    vec![groups.iter().map(|&group| not(Test::Gid(group, group))).collect()]
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
        let each = signs.iter().map(|sign| match sign {
            Sign::Uid(id) => Test::Uid(*id, *id),
            Sign::Gid(id) => Test::Gid(*id, *id),
            Sign::Mark(mark) => Test::Mark(*mark),
            Sign::Class(id) => Test::Class(id.0),
            Sign::Cgroup(cgroup) => Test::Cgroup(cgroup.path.to_string()),
        });
        return each.map(|test| vec![yes(test)]).collect();
    }
    let mut uids: Vec<(u32, u32)> = vec![];
    let mut gids: Vec<(u32, u32)> = vec![];
    let mut classes: Vec<(u32, u32)> = vec![];
    let mut others: Vec<Test> = vec![];
    for sign in signs {
        match sign {
            Sign::Uid(id) => uids.push((*id, *id)),
            Sign::Gid(id) => gids.push((*id, *id)),
            Sign::Mark(mark) => others.push(Test::Mark(*mark)),
            Sign::Class(id) => classes.push((id.0, id.0)),
            Sign::Cgroup(cgroup) => others.push(Test::Cgroup(cgroup.path.to_string())),
        }
    }
    let uids = ids(uids, Test::Uid, Test::Uids);
    let gids = ids(gids, Test::Gid, Test::Gids);
    let classes = ids(classes, class, Test::Classes);
    let tests = uids.into_iter().chain(gids).chain(classes).chain(others);
    tests.map(|test| vec![yes(test)]).collect()
}

/// One class id, or those in a row.
pub(crate) fn class(first: u32, last: u32) -> Test {
    match first == last {
        true => Test::Class(first),
        false => Test::Classes(vec![(first, last)]),
    }
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
