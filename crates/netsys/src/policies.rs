//! Routing that goes by marks or into tables apart, whoever made it, in the calling thread's namespace: the rules of
//! `ip rule`, and which tables have routes. Nothing is written. Caller: `weir check`.

use std::io;

use rules::Family;

use crate::netlink::{
    self, LIST_POLICIES, LIST_ROUTES, POLICY_MARK, POLICY_MASK, POLICY_PROTOCOL, ROUTE_LOCAL, TABLE,
    attributes, family_of, number,
};
use crate::rules::OUR_ROUTES;

/// A rule of `ip rule` that looks at marks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Of which family.
    pub family: Family,
    /// In which turn it is asked.
    pub priority: u32,
    /// The mark under the mask.
    pub mark: u32,
    /// The bits that are compared.
    pub mask: u32,
    /// The table that it leads to; 0 for a rule that does something else.
    pub table: u32,
    /// Whether Weir made it.
    pub is_ours: bool,
}

/// The table that a route is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TableEntry {
    /// Of which family.
    pub family: Family,
    /// Its number.
    pub table: u32,
    /// Whether the route is one that delivers everything here, as TPROXY needs it.
    pub delivers_all: bool,
    /// Whether Weir made it.
    pub is_ours: bool,
}

/// The rules that look at marks, in the order in which the kernel lists them.
///
/// # Errors
/// Where netlink is refused. A kernel without such rules has none.
pub fn by_marks() -> io::Result<Vec<Policy>> {
    let bodies = match netlink::list(LIST_POLICIES) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => vec![],
        bodies => bodies?,
    };
    Ok(bodies
        .iter()
        .filter_map(|body| policy(body))
        .filter(|policy| policy.mask != 0)
        .collect())
}

/// One entry for each route outside of the kernel's own tables (main, local, default).
///
/// # Errors
/// Where netlink is refused.
pub fn apart() -> io::Result<Vec<TableEntry>> {
    const OWN: std::ops::RangeInclusive<u32> = 253..=255;
    let bodies = netlink::list(LIST_ROUTES)?;
    let entries = bodies.iter().filter_map(|body| entry(body));
    Ok(entries.filter(|entry| !OWN.contains(&entry.table)).collect())
}

/// A `fib_rule_hdr`, then attributes.
fn policy(body: &[u8]) -> Option<Policy> {
    const FIXED: usize = 12;
    const TO_TABLE: u8 = 1;
    const PRIORITY: u16 = 6;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let mut policy = Policy {
        family: family_of(fixed[0])?,
        priority: 0,
        mark: 0,
        mask: 0,
        table: fixed[4].into(),
        is_ours: false,
    };
    for (attribute, value) in attributes(rest) {
        match attribute {
            POLICY_MARK => policy.mark = number(value)?,
            POLICY_MASK => policy.mask = number(value)?,
            PRIORITY => policy.priority = number(value)?,
            TABLE => policy.table = number(value)?,
            POLICY_PROTOCOL => policy.is_ours = value.first() == Some(&OUR_ROUTES),
            _ => {}
        }
    }
    if fixed[7] != TO_TABLE {
        policy.table = 0;
    }
    Some(policy)
}

/// An `rtmsg`, then attributes.
fn entry(body: &[u8]) -> Option<TableEntry> {
    const FIXED: usize = 12;
    let (fixed, rest) = body.split_at_checked(FIXED)?;
    let [_, to_bits, from_bits, tos, table, protocol, _, kind, ..] = *fixed else {
        return None;
    };
    let named = attributes(rest).find(|(attribute, _)| *attribute == TABLE);
    Some(TableEntry {
        family: family_of(fixed[0])?,
        table: named.and_then(|(_, value)| number(value)).unwrap_or(table.into()),
        delivers_all: (to_bits, from_bits, tos, kind) == (0, 0, 0, ROUTE_LOCAL),
        is_ours: protocol == OUR_ROUTES,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::netlink::{Changes, LinkIndex};
    use crate::netns::Netns;

    #[test]
    fn rules_by_marks_and_tables_apart() {
        let ip = |arguments: &str| {
            let said = Command::new("ip").args(arguments.split(' ')).output().unwrap();
            assert!(said.status.success(), "ip {arguments}: {said:?}");
        };
        Netns::create()
            .unwrap()
            .run(|| {
                Changes::new().up(LinkIndex::LOOPBACK).commit().unwrap();
                assert_eq!((by_marks().unwrap(), apart().unwrap()), (vec![], vec![]));
                ip("rule add pref 77 fwmark 0x539/0xfff lookup 133");
                ip("-6 rule add fwmark 1337 lookup 4242 protocol 87");
                ip("rule add to 10.0.0.0/8 lookup 5");
                ip("route add local default dev lo table 133");
                ip("route add 10.0.0.0/8 dev lo table 4242 proto 87");
                let [six, four] = <[_; 2]>::try_from({
                    let mut found = by_marks().unwrap();
                    found.sort_by_key(|policy| policy.family == Family::V4);
                    found
                })
                .unwrap();
                assert_eq!(
                    (four.priority, four.mark, four.mask, four.table),
                    (77, 0x539, 0xfff, 133)
                );
                assert_eq!((six.mark, six.mask, six.table), (1337, u32::MAX, 4242));
                assert!(six.is_ours && !four.is_ours);
                let tables = apart().unwrap();
                let found: Vec<_> = tables
                    .iter()
                    .map(|entry| (entry.table, entry.delivers_all, entry.is_ours))
                    .collect();
                assert_eq!(found, [(133, true, false), (4242, false, true)]);
            })
            .unwrap();
    }
}
