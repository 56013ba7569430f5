//! Routes by marks, which lead the application's answers to a proxy that captures by TPROXY. The kernel takes
//! the same routing rule twice, so what is there is looked at first; what is ours has a protocol number of
//! our own, and rules of others that do the same are used and left to them.

use std::io;

use rules::Family;
use rules::plan::PolicyRoute;

use super::Error;
use crate::netlink::{
    self, Changes, LIST_POLICIES, LIST_ROUTES, POLICY_MARK, POLICY_MASK, POLICY_PROTOCOL, ROUTE_LOCAL, TABLE,
    address_family, attributes,
};

/// Who made it: no number that others are known to use.
pub(crate) const OURS: u8 = 87;

/// A routing rule that there is.
struct Found {
    policy: PolicyRoute,
    is_ours: bool,
}

/// Those that were put there by us.
pub(super) fn ours() -> io::Result<Vec<PolicyRoute>> {
    let found = found()?.into_iter().filter(|found| found.is_ours);
    let mut ours: Vec<_> = found.map(|found| found.policy).collect();
    ours.sort_unstable();
    Ok(ours)
}

/// Makes those that are not there. Answers whether any was not.
pub(super) fn add(wanted: &[PolicyRoute]) -> Result<bool, Error> {
    if wanted.is_empty() {
        return Ok(false);
    }
    let found = found().map_err(Error::Facts)?;
    let routed = routed().map_err(Error::Facts)?;
    let mut changes = Changes::new();
    let mut any = false;
    for &policy in wanted {
        if !found.iter().any(|found| found.policy == policy) {
            changes.policy(policy, OURS);
            any = true;
        }
        if !routed.contains(&(policy.family, policy.table)) {
            changes.local_default(policy, OURS);
            any = true;
        }
    }
    if any {
        changes.commit().map_err(Error::Policy)?;
    }
    Ok(any)
}

/// Takes away those of ours that are not wanted, as often as they are there. Answers whether there were any.
pub(super) fn remove_others(wanted: &[PolicyRoute]) -> Result<bool, Error> {
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
    if !any {
        return Ok(false);
    }
    changes.commit().map_err(Error::Policy)?;
    remove_routes(&ours, wanted)?;
    Ok(true)
}

fn remove_routes(ours: &[PolicyRoute], wanted: &[PolicyRoute]) -> Result<(), Error> {
    let same =
        |one: &PolicyRoute, other: &PolicyRoute| (one.family, one.table) == (other.family, other.table);
    let mut done: Vec<PolicyRoute> = wanted.to_vec();
    for policy in ours {
        if done.iter().any(|known| same(known, policy)) {
            continue;
        }
        done.push(*policy);
        let mut changes = Changes::new();
        changes.remove_local_default(*policy, OURS);
        match changes.commit() {
            // It was another's, or has gone.
            Err(netlink::Error::Refused { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
            result => result.map_err(Error::Policy)?,
        }
    }
    Ok(())
}

fn found() -> io::Result<Vec<Found>> {
    match netlink::list(LIST_POLICIES) {
        Ok(bodies) => Ok(bodies.iter().filter_map(|body| rule(body)).collect()),
        // A kernel without such rules has none.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(vec![]),
        Err(error) => Err(error),
    }
}

fn family(number: u8) -> Option<Family> {
    Family::ALL
        .into_iter()
        .find(|family| address_family(*family) == number)
}

/// A `fib_rule_hdr`, then attributes. None where it asks for anything but a mark.
fn rule(body: &[u8]) -> Option<Found> {
    const FIXED: usize = 12;
    const TO_TABLE: u8 = 1;
    const PRIORITY: u16 = 6;
    const SUPPRESSORS: [u16; 2] = [13, 14];
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let family = family(fixed[0])?;
    let [_, to_bits, from_bits, tos, table, _, _, action, ..] = *fixed else {
        return None;
    };
    let flags = u32::from_ne_bytes(fixed[8..].try_into().ok()?);
    let number = |value: &[u8]| value.try_into().ok().map(u32::from_ne_bytes);
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

/// The tables that deliver everything here.
fn routed() -> io::Result<Vec<(Family, u32)>> {
    let bodies = netlink::list(LIST_ROUTES)?;
    Ok(bodies.iter().filter_map(|body| route(body)).collect())
}

/// An `rtmsg`, then attributes.
fn route(body: &[u8]) -> Option<(Family, u32)> {
    const FIXED: usize = 12;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let family = family(fixed[0])?;
    let [_, to_bits, from_bits, tos, table, _, _, kind, ..] = *fixed else {
        return None;
    };
    let named = attributes(rest).find(|(attribute, _)| *attribute == TABLE);
    let named = named.and_then(|(_, value)| value.try_into().ok().map(u32::from_ne_bytes));
    let is_everything = (to_bits, from_bits, tos, kind) == (0, 0, 0, ROUTE_LOCAL);
    is_everything.then(|| (family, named.unwrap_or(u32::from(table))))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

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
            assert!(add(&wanted).unwrap());
            let made = shown();
            assert_eq!(made.matches("fwmark 0x539 lookup 133").count(), 2, "{made}");
            assert_eq!(
                made.matches("local default dev lo table 133").count(),
                2,
                "{made}"
            );
            assert!(!add(&wanted).unwrap());
            assert!(!remove_others(&wanted).unwrap());
            assert_eq!(shown(), made);
            assert_eq!(ours().unwrap(), wanted);

            let others = both(77, 4242);
            assert!(add(&others).unwrap());
            assert!(remove_others(&others).unwrap());
            assert_eq!(ours().unwrap(), others);
            assert!(!shown().contains("133"));
            assert!(remove_others(&[]).unwrap());
            assert!(!remove_others(&[]).unwrap());
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
            assert!(add(&wanted).unwrap());
            assert_eq!(ours().unwrap(), wanted[1..]);
            assert!(remove_others(&[]).unwrap());
            assert_eq!(shown(), before);
        });
    }

    #[test]
    fn a_lost_route_and_a_repeated_rule_are_mended() {
        inside(|| {
            let wanted = both(1337, 133);
            add(&wanted).unwrap();
            let made = shown();
            ip("route del local default dev lo table 133");
            ip("rule add fwmark 1337 lookup 133 protocol 87");
            assert!(add(&wanted).unwrap());
            assert!(remove_others(&wanted).unwrap());
            assert_eq!(ours().unwrap(), wanted);
            assert_eq!(shown().matches("fwmark").count(), made.matches("fwmark").count());
            assert_eq!(
                shown().matches("default").count(),
                made.matches("default").count()
            );
        });
    }
}
