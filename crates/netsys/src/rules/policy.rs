//! Routes by marks, which lead the application's answers to a proxy that captures by TPROXY. The kernel takes
//! the same routing rule twice, so what is there is looked at first; what is ours has a protocol number of
//! our own, and rules of others that do the same are used and left to them.
//!
//! The metric of a route of ours says which switches were set by us: it is written before they are, and goes
//! after they are put back, so neither a run that is cut off nor a flush of all rules forgets them.

use std::io;

use rules::plan::{PolicyRoute, Switch};

use super::Error;
use crate::netlink::{
    self, Changes, LIST_POLICIES, LIST_ROUTES, LocalDefault, METRIC, POLICY_MARK, POLICY_MASK,
    POLICY_PROTOCOL, ROUTE_LOCAL, TABLE, attributes, family_of, number,
};

/// Who made it: no number that others are known to use.
pub(crate) const OURS: u8 = 87;

/// "wei" and a bit for each of [`Switch::ALL`], in that order.
const MEMORY: u32 = u32::from_be_bytes(*b"wei\0");

/// A routing rule that there is.
struct Found {
    policy: PolicyRoute,
    is_ours: bool,
}

/// A route that delivers everything here.
struct Routed {
    route: LocalDefault,
    is_ours: bool,
}

/// Those that were put there by us.
pub(super) fn ours() -> io::Result<Vec<PolicyRoute>> {
    let found = found()?.into_iter().filter(|found| found.is_ours);
    let mut ours: Vec<_> = found.map(|found| found.policy).collect();
    ours.sort_unstable();
    Ok(ours)
}

/// The routes that were put there by us, whether or not a rule still leads to them.
pub(super) fn our_routes() -> io::Result<Vec<LocalDefault>> {
    let routed = routed()?.into_iter().filter(|routed| routed.is_ours);
    Ok(routed.map(|routed| routed.route).collect())
}

/// The switches that the routes remember as set by us.
pub(super) fn remembered(routes: &[LocalDefault]) -> Vec<Switch> {
    let is_in = |index: usize| {
        routes
            .iter()
            .any(|route| is_memory(route.metric) && route.metric & (1 << index) != 0)
    };
    let all = Switch::ALL.into_iter().enumerate();
    all.filter(|(index, _)| is_in(*index))
        .map(|(_, switch)| switch)
        .collect()
}

fn is_memory(metric: u32) -> bool {
    metric & !((1 << Switch::ALL.len()) - 1) == MEMORY
}

/// The metric that remembers these switches; the kernel's default where there is none.
fn metric(switches: &[Switch]) -> u32 {
    let bits = Switch::ALL
        .into_iter()
        .enumerate()
        .filter(|(_, switch)| switches.contains(switch))
        .fold(0, |bits, (index, _)| bits | 1 << index);
    if bits == 0 { 0 } else { MEMORY | bits }
}

/// Whether this route does what is wanted of it: to deliver, and to remember where there is something to.
fn serves(routed: &Routed, wanted: LocalDefault) -> bool {
    let Routed { route, is_ours } = routed;
    let remembers = match wanted.metric {
        0 => !(*is_ours && is_memory(route.metric)),
        metric => *is_ours && route.metric == metric,
    };
    (route.family, route.table) == (wanted.family, wanted.table) && remembers
}

/// Makes those that are not there, with routes that remember `switches`. Answers whether any was not.
pub(super) fn add(wanted: &[PolicyRoute], switches: &[Switch]) -> Result<bool, Error> {
    if wanted.is_empty() {
        return Ok(false);
    }
    let found = found().map_err(Error::Facts)?;
    let routed = routed().map_err(Error::Facts)?;
    let mut changes = Changes::new();
    let mut any = false;
    let mut made: Vec<LocalDefault> = vec![];
    for &policy in wanted {
        if !found.iter().any(|found| found.policy == policy) {
            changes.policy(policy, OURS);
            any = true;
        }
        let route = LocalDefault {
            family: policy.family,
            table: policy.table,
            metric: metric(switches),
        };
        if !made.contains(&route) && !routed.iter().any(|routed| serves(routed, route)) {
            changes.local_default(route, OURS);
            made.push(route);
            any = true;
        }
    }
    if any {
        changes.commit().map_err(Error::Policy)?;
    }
    Ok(any)
}

/// Takes away those of ours that are not wanted, as often as they are there, and routes that remember other
/// `switches`. Answers whether there were any.
pub(super) fn remove_others(wanted: &[PolicyRoute], switches: &[Switch]) -> Result<bool, Error> {
    let ours = ours().map_err(Error::Facts)?;
    let mut changes = Changes::new();
    let mut any = false;
    for (index, &policy) in ours.iter().enumerate() {
        let is_repeated = ours[..index].contains(&policy);
        if wanted.contains(&policy) && !is_repeated {
            continue;
        }
        any = true;
        changes.remove_policy(policy, OURS);
    }
    if any {
        changes.commit().map_err(Error::Policy)?;
    }
    Ok(remove_routes(wanted, switches)? | any)
}

fn remove_routes(wanted: &[PolicyRoute], switches: &[Switch]) -> Result<bool, Error> {
    let metric = metric(switches);
    let mut any = false;
    for routed in routed().map_err(Error::Facts)? {
        let is_wanted = wanted.iter().any(|policy| {
            let (family, table) = (policy.family, policy.table);
            serves(
                &routed,
                LocalDefault {
                    family,
                    table,
                    metric,
                },
            )
        });
        if !routed.is_ours || is_wanted {
            continue;
        }
        let mut changes = Changes::new();
        changes.remove_local_default(routed.route, OURS);
        match changes.commit() {
            // It has gone meanwhile.
            Err(netlink::Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
            result => result.map_err(Error::Policy)?,
        }
        any = true;
    }
    Ok(any)
}

fn found() -> io::Result<Vec<Found>> {
    match netlink::list(LIST_POLICIES) {
        Ok(bodies) => Ok(bodies.iter().filter_map(|body| rule(body)).collect()),
        // A kernel without such rules has none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// A `fib_rule_hdr`, then attributes. None where it asks for anything but a mark.
fn rule(body: &[u8]) -> Option<Found> {
    const FIXED: usize = 12;
    const TO_TABLE: u8 = 1;
    const PRIORITY: u16 = 6;
    const SUPPRESSORS: [u16; 2] = [13, 14];
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let family = family_of(fixed[0])?;
    let [_, to_bits, from_bits, tos, table, _, _, action, ..] = *fixed else {
        return None;
    };
    let flags = u32::from_ne_bytes(fixed[8..].try_into().ok()?);
    let (mut mark, mut mask, mut table, mut protocol) = (0, 0, u32::from(table), 0);
    for (attribute, value) in attributes(rest) {
        match attribute {
            POLICY_MARK => mark = number(value)?,
            POLICY_MASK => mask = number(value)?,
            TABLE => table = number(value)?,
            POLICY_PROTOCOL => protocol = *value.first()?,
            PRIORITY => {}
            _ if SUPPRESSORS.contains(&attribute) && number(value) == Some(u32::MAX) => {}
            _ => return None,
        }
    }
    let by_mark_alone =
        (to_bits, from_bits, tos, action, flags) == (0, 0, 0, TO_TABLE, 0) && mask == u32::MAX;
    by_mark_alone.then_some(Found {
        policy: PolicyRoute { family, mark, table },
        is_ours: protocol == OURS,
    })
}

/// The routes of every table that deliver everything here.
fn routed() -> io::Result<Vec<Routed>> {
    let bodies = netlink::list(LIST_ROUTES)?;
    Ok(bodies.iter().filter_map(|body| route(body)).collect())
}

/// An `rtmsg`, then attributes.
fn route(body: &[u8]) -> Option<Routed> {
    const FIXED: usize = 12;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let family = family_of(fixed[0])?;
    let [_, to_bits, from_bits, tos, table, protocol, _, kind, ..] = *fixed else {
        return None;
    };
    let find = |kind| {
        let (_, value) = attributes(rest).find(|(attribute, _)| *attribute == kind)?;
        number(value)
    };
    let is_everything = (to_bits, from_bits, tos, kind) == (0, 0, 0, ROUTE_LOCAL);
    is_everything.then(|| Routed {
        route: LocalDefault {
            family,
            table: find(TABLE).unwrap_or(u32::from(table)),
            metric: find(METRIC).unwrap_or(0),
        },
        is_ours: protocol == OURS,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rules::Family;

    use super::*;
    use crate::netlink::LinkIndex;
    use crate::netns::Netns;

    fn ip(arguments: &str) -> String {
        let said = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        assert!(said.status.success(), "ip {arguments}: {said:?}");
        String::from_utf8(said.stdout).unwrap()
    }

    /// Rules and routes as `ip` shows them.
    fn shown() -> String {
        ["-4", "-6"]
            .map(|family| {
                let routes = ip(&format!("{family} route show table all"));
                // The kernel adds and takes routes of its own where lo goes up.
                let routes: Vec<_> = routes.lines().filter(|line| line.contains("default")).collect();
                format!("{}{}", ip(&format!("{family} rule")), routes.join("\n"))
            })
            .concat()
    }

    fn both(mark: u32, table: u32) -> Vec<PolicyRoute> {
        Family::ALL
            .map(|family| PolicyRoute { family, mark, table })
            .to_vec()
    }

    fn inside(f: impl FnOnce() + Send) {
        let up = || Changes::new().up(LinkIndex::LOOPBACK).commit().unwrap();
        Netns::create()
            .unwrap()
            .run(|| {
                up();
                f();
            })
            .unwrap();
    }

    #[test]
    fn they_are_there_once_and_go_without_a_trace() {
        inside(|| {
            let before = shown();
            let wanted = both(1337, 133);
            assert!(add(&wanted, &[]).unwrap());
            let made = shown();
            assert_eq!(made.matches("fwmark 0x539 lookup 133").count(), 2, "{made}");
            assert_eq!(
                made.matches("local default dev lo table 133").count(),
                2,
                "{made}"
            );
            assert!(!add(&wanted, &[]).unwrap());
            assert!(!remove_others(&wanted, &[]).unwrap());
            assert_eq!(shown(), made);
            assert_eq!(ours().unwrap(), wanted);

            let others = both(77, 4242);
            assert!(add(&others, &[]).unwrap());
            assert!(remove_others(&others, &[]).unwrap());
            assert_eq!(ours().unwrap(), others);
            assert!(!shown().contains("133"));
            assert!(remove_others(&[], &[]).unwrap());
            assert!(!remove_others(&[], &[]).unwrap());
            assert_eq!(shown(), before);
        });
    }

    #[test]
    fn those_of_others_are_used_and_left_to_them() {
        inside(|| {
            ip("rule add fwmark 1337 lookup 133");
            ip("route add local default dev lo table 133");
            ip("rule add fwmark 1337 to 10.0.0.0/8 lookup 133");
            ip("-6 rule add fwmark 0x539/0xfff lookup 133");
            let before = shown();
            let wanted = both(1337, 133);
            assert!(add(&wanted, &[]).unwrap());
            assert_eq!(ours().unwrap(), wanted[1..]);
            assert!(remove_others(&[], &[]).unwrap());
            assert_eq!(shown(), before);
        });
    }

    #[test]
    fn a_lost_route_and_a_repeated_rule_are_mended() {
        inside(|| {
            let wanted = both(1337, 133);
            add(&wanted, &[]).unwrap();
            let made = shown();
            ip("route del local default dev lo table 133");
            ip("rule add fwmark 1337 lookup 133 protocol 87");
            assert!(add(&wanted, &[]).unwrap());
            assert!(remove_others(&wanted, &[]).unwrap());
            assert_eq!(ours().unwrap(), wanted);
            assert_eq!(shown().matches("fwmark").count(), made.matches("fwmark").count());
            assert_eq!(
                shown().matches("default").count(),
                made.matches("default").count()
            );
        });
    }

    #[test]
    fn routes_remember_switches_beside_those_of_others_and_without_their_rules() {
        inside(|| {
            ip("route add local default dev lo table 133");
            let before = shown();
            let wanted = both(1337, 133);
            let some = [Switch::Accept, Switch::Reflect(Family::V6)];
            assert!(add(&wanted, &some).unwrap());
            assert!(!add(&wanted, &some).unwrap());
            let kept = || remembered(&our_routes().unwrap());
            assert_eq!(kept(), some);
            assert!(add(&wanted, &Switch::ALL).unwrap());
            assert!(remove_others(&wanted, &Switch::ALL).unwrap());
            assert_eq!((kept(), our_routes().unwrap().len()), (Switch::ALL.to_vec(), 2));
            assert!(add(&wanted, &[]).unwrap());
            assert!(remove_others(&wanted, &[]).unwrap());
            assert_eq!(kept(), []);
            assert!(add(&wanted, &some).unwrap());
            // Cut off between rules and routes, or taken out by somebody.
            for family in ["-4", "-6"] {
                ip(&format!("{family} rule del fwmark 1337"));
            }
            assert_eq!(kept(), some);
            assert!(remove_others(&[], &[]).unwrap());
            assert!(!remove_others(&[], &[]).unwrap());
            assert_eq!(shown(), before);
        });
    }
}
