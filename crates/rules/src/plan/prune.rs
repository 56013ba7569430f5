//! The clauses of one family, without those that decide nothing: no packet's fate may be the same without a
//! rule that is written.

use std::borrow::Cow;

use ipnet::IpNet;

use super::clause::{Action, Clause, Condition, Sign};
use crate::family::Family;
use crate::ruleset::{Addresses, IpProtocol};

const TCP: Condition = Condition::Protocol(IpProtocol::Tcp);

/// What of the clauses matters to packets of that family.
#[must_use]
pub fn of_family(clauses: &[Clause], family: Family) -> Vec<Clause> {
    let mut clauses: Vec<_> = clauses
        .iter()
        .filter_map(|clause| specialised(clause, family))
        .collect();
    let mut index = clauses.len();
    while index > 0 {
        index -= 1;
        match useful(&clauses, index, family) {
            Some(useful) => clauses[index] = useful,
            None => drop(clauses.remove(index)),
        }
    }
    clauses
}

/// None where it can hold for no packet of the family.
fn specialised(clause: &Clause, family: Family) -> Option<Clause> {
    let own = |nets: &[IpNet]| -> Vec<IpNet> {
        let nets = nets.iter().copied();
        nets.filter(|net| Family::of(net.addr()) == family).collect()
    };
    let is_everything = |nets: &[IpNet]| nets.iter().any(|net| net.prefix_len() == 0);
    let mut when = vec![];
    for condition in &clause.when {
        match condition {
            Condition::To(nets) | Condition::From(nets) => {
                let nets = own(nets);
                if nets.is_empty() {
                    return None;
                }
                if !is_everything(&nets) {
                    when.push(match condition {
                        Condition::To(_) => Condition::To(nets),
                        _ => Condition::From(nets),
                    });
                }
            }
            Condition::NotTo(nets) => {
                let nets = own(nets);
                if is_everything(&nets) {
                    return None;
                }
                if !nets.is_empty() {
                    when.push(Condition::NotTo(nets));
                }
            }
            Condition::ToService(services) => {
                let mut services = services.clone();
                services.retain(|service| Family::of(service.ip()) == family);
                if services.is_empty() {
                    return None;
                }
                when.push(Condition::ToService(services));
            }
            // No packet is of a socket with none of many signs; every socket lacks none.
            Condition::SocketHas(signs) if signs.is_empty() => return None,
            Condition::SocketLacks(groups) if groups.is_empty() => {}
            other => when.push(other.clone()),
        }
    }
    Some(Clause {
        when,
        ..clause.clone()
    })
}

/// The clause, with those members of its lists alone that decide something; none where it decides nothing.
fn useful(clauses: &[Clause], index: usize, family: Family) -> Option<Clause> {
    use Condition::{CameBy, LeavesBy, SocketHas, ToPort};
    let mut clause = clauses[index].clone();
    for place in 0..clause.when.len() {
        let decides = |condition: Condition| {
            let mut one = clause.clone();
            one.when[place] = condition;
            !is_idle(clauses, index, &one, family)
        };
        clause.when[place] = match clause.when[place].clone() {
            ToPort(list) => ToPort(kept(list, |port| decides(ToPort(vec![*port])))?),
            SocketHas(list) => SocketHas(kept(list, |sign| decides(SocketHas(vec![sign.clone()])))?),
            LeavesBy(list) => LeavesBy(kept(list, |name| decides(LeavesBy(vec![name.clone()])))?),
            CameBy(list) => CameBy(kept(list, |name| decides(CameBy(vec![name.clone()])))?),
            other => other,
        };
    }
    (!is_idle(clauses, index, &clause, family)).then_some(clause)
}

/// None where nothing is kept.
fn kept<T>(mut list: Vec<T>, decides: impl FnMut(&T) -> bool) -> Option<Vec<T>> {
    list.retain(decides);
    (!list.is_empty()).then_some(list)
}

/// Whether every packet that the clause decides about fares the same without it: an earlier one has decided, or
/// what comes after does as it does.
fn is_idle(clauses: &[Clause], index: usize, clause: &Clause, family: Family) -> bool {
    let mut clause = Cow::Borrowed(clause);
    // What is not TCP is left alone in any case where nothing is done but to TCP.
    let mut acting = clauses.iter().filter(|other| other.then != Action::Leave);
    if acting.all(|other| other.when.contains(&TCP)) {
        clause.to_mut().when.push(TCP);
    }
    let clause = &*clause;
    let (before, after) = (&clauses[..index], &clauses[index + 1..]);
    if before.iter().any(|earlier| covers(earlier, clause, family)) {
        return true;
    }
    for (place, later) in after.iter().enumerate() {
        if later.then == clause.then {
            if covers(later, clause, family) {
                return true;
            }
        } else if !are_apart(later, clause, family) {
            // What is under both may have been decided before, or come to something else in between.
            let mut both = clause.clone();
            both.when.extend(later.when.iter().cloned());
            let others: Vec<_> = before.iter().chain(&after[..place]).collect();
            if !are_settled(&both, &others, family, SPLITS) {
                return false;
            }
        }
    }
    clause.then == Action::Leave
}

/// One for a port that is not meant, one for networks that are not.
const SPLITS: usize = 2;

/// Whether the others decide about every packet of the clause: one of them about all, or some about those that
/// go to a port or a network, and some about those that do not.
fn are_settled(clause: &Clause, others: &[&Clause], family: Family, splits: usize) -> bool {
    if are_apart(clause, clause, family) || others.iter().any(|other| covers(other, clause, family)) {
        return true;
    }
    if splits == 0 {
        return false;
    }
    let conditions = others.iter().flat_map(|other| &other.when);
    conditions
        .filter(|condition| !clause.when.contains(condition))
        .any(|condition| {
            let opposite = match condition {
                // A datagram has neither.
                Condition::NotToPorts(ports) if clause.when.contains(&TCP) => {
                    Condition::ToPort(ports.clone())
                }
                Condition::NotTo(nets) => Condition::To(nets.clone()),
                _ => return false,
            };
            [condition.clone(), opposite].into_iter().all(|condition| {
                let mut part = clause.clone();
                part.when.push(condition);
                are_settled(&part, others, family, splits - 1)
            })
        })
}

/// Whether `wide` holds wherever `narrow` does.
fn covers(wide: &Clause, narrow: &Clause, family: Family) -> bool {
    wide.when
        .iter()
        .all(|wide| narrow.when.iter().any(|narrow| follows(wide, narrow, family)))
}

fn set(nets: &[IpNet], family: Family) -> Addresses {
    Addresses::of(family, nets)
}

/// Whether `wide` holds wherever `narrow` does, as far as can be told from the two alone.
fn follows(wide: &Condition, narrow: &Condition, family: Family) -> bool {
    use Condition::{
        CameBy, From, LeavesBy, NotTo, NotToPorts, OverLoopback, SocketHas, SocketLacks, To, ToPort,
    };
    match (wide, narrow) {
        (To(wide), To(narrow)) | (From(wide), From(narrow)) | (NotTo(narrow), NotTo(wide)) => {
            set(narrow, family).is_within(&set(wide, family))
        }
        (NotTo(wide), To(narrow)) => set(narrow, family).is_apart_from(&set(wide, family)),
        (ToPort(wide), ToPort(narrow)) => narrow.iter().all(|port| wide.contains(port)),
        (NotToPorts(wide), ToPort(narrow)) => !narrow.iter().any(|port| wide.contains(port)),
        (NotToPorts(wide), NotToPorts(narrow)) => wide.iter().all(|port| narrow.contains(port)),
        // A port is asked of TCP where no protocol is named.
        (Condition::Protocol(IpProtocol::Tcp), NotToPorts(_)) => true,
        (SocketHas(wide), SocketHas(narrow)) => narrow.iter().all(|sign| wide.contains(sign)),
        (LeavesBy(wide), LeavesBy(narrow)) | (CameBy(wide), CameBy(narrow)) => narrow
            .iter()
            .all(|narrow| wide.iter().any(|wide| names(wide, narrow))),
        (SocketLacks(groups), SocketHas(signs)) => signs
            .iter()
            .all(|sign| matches!(sign, Sign::Gid(id) if !groups.contains(id))),
        (OverLoopback, To(nets)) => are_loopback(nets),
        (LeavesBy(devices), To(nets)) => devices.iter().any(|name| names(name, "lo")) && are_loopback(nets),
        (LeavesBy(wide), OverLoopback) => wide.iter().any(|wide| names(wide, "lo")),
        (OverLoopback, LeavesBy(narrow)) => narrow.iter().all(|narrow| narrow == "lo"),
        _ => wide == narrow,
    }
}

/// Nothing goes there but by `lo`.
fn are_loopback(nets: &[IpNet]) -> bool {
    let is_loopback = |net: &IpNet| net.network().is_loopback() && net.broadcast().is_loopback();
    nets.iter().all(is_loopback)
}

/// Whether no packet is under both.
fn are_apart(one: &Clause, other: &Clause, family: Family) -> bool {
    one.when
        .iter()
        .any(|one| other.when.iter().any(|other| exclude(one, other, family)))
}

fn exclude(one: &Condition, other: &Condition, family: Family) -> bool {
    use Condition::{
        CameBy, From, LeavesBy, NotTo, NotToPorts, OverLoopback, Protocol, SocketHas, SocketLacks, To,
        ToPort, ToService,
    };
    let meet = |one: &[String], other: &[String]| {
        one.iter()
            .any(|one| other.iter().any(|other| names(one, other) || names(other, one)))
    };
    match (one, other) {
        (To(one), To(other)) | (From(one), From(other)) => {
            set(one, family).is_apart_from(&set(other, family))
        }
        (To(to), NotTo(not)) | (NotTo(not), To(to)) => set(to, family).is_within(&set(not, family)),
        (ToPort(one), ToPort(other)) => !one.iter().any(|port| other.contains(port)),
        (ToPort(ports), NotToPorts(not)) | (NotToPorts(not), ToPort(ports)) => {
            ports.iter().all(|port| not.contains(port))
        }
        (Protocol(one), Protocol(other)) => one != other,
        (Protocol(one), NotToPorts(_)) | (NotToPorts(_), Protocol(one)) => *one != IpProtocol::Tcp,
        (ToService(services), To(nets)) | (To(nets), ToService(services)) => {
            let nets = set(nets, family);
            !services.iter().any(|service| nets.contains(service.ip()))
        }
        (ToService(services), ToPort(ports)) | (ToPort(ports), ToService(services)) => {
            !services.iter().any(|service| ports.contains(&service.port()))
        }
        (SocketHas(signs), SocketLacks(groups)) | (SocketLacks(groups), SocketHas(signs)) => signs
            .iter()
            .all(|sign| matches!(sign, Sign::Gid(id) if groups.contains(id))),
        (LeavesBy(one), LeavesBy(other)) | (CameBy(one), CameBy(other)) => !meet(one, other),
        (LeavesBy(devices), OverLoopback) | (OverLoopback, LeavesBy(devices)) => {
            !meet(devices, &["lo".to_owned()])
        }
        (LeavesBy(devices), To(nets)) | (To(nets), LeavesBy(devices)) => {
            are_loopback(nets) && !meet(devices, &["lo".to_owned()])
        }
        _ => false,
    }
}

/// Whether a name, or one with `+` at its end, stands for (all of) the other.
pub(super) fn names(wide: &str, narrow: &str) -> bool {
    match wide.strip_suffix('+') {
        Some(start) => narrow.starts_with(start),
        None => wide == narrow,
    }
}
