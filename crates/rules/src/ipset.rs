//! Sets of services for iptables, which has none of its own: the rule names a set, and the program `ipset` keeps it.
//! Text for `ipset restore` goes out, and what `ipset save` prints comes in. In a [`Ruleset`] the rule holds the
//! services themselves, as in nftables: a dump has the name alone and is [resolved](resolve).

mod others;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

pub use self::others::{NAMED, Sets, names_unknown};
use crate::family::Family;
use crate::ruleset::{Rule, Ruleset, Test};

/// The set of a family; both variants of iptables see the same one.
#[must_use]
pub fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "weir-services-v4",
        Family::V6 => "weir-services-v6",
    }
}

/// The set that the members are put into before it takes the other one's place.
#[must_use]
pub fn next_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "weir-services-v4-next",
        Family::V6 => "weir-services-v6-next",
    }
}

/// The test of a rule as iptables writes it, after the name of its module.
pub(crate) fn option(family: Family) -> String {
    format!("--match-set {} dst,dst", name(family))
}

/// Room for elements in a set where nobody says how many: `ipset`'s own.
const USUAL_ROOM: usize = 65_536;

/// Text for `ipset restore` that makes the set hold exactly these. A set that is `there` is replaced in one step, so
/// that no connection ever meets an empty one; what an earlier run `left` half made is taken away first.
#[must_use]
pub fn restore(family: Family, services: &[SocketAddr], there: bool, left: bool) -> String {
    let (name, next) = (name(family), next_name(family));
    let word = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let room = services.len().next_power_of_two().max(USUAL_ROOM);
    let filled = if there { next } else { name };
    let mut text = String::new();
    // Writing to a string cannot fail.
    if left {
        let _ = writeln!(text, "destroy {next}");
    }
    let _ = writeln!(text, "create {filled} hash:ip,port family {word} maxelem {room}");
    for service in services {
        let _ = writeln!(text, "add {filled} {},tcp:{}", service.ip(), service.port());
    }
    if there {
        let _ = writeln!(text, "swap {next} {name}\ndestroy {next}");
    }
    text
}

/// The members that `ipset save` lists, sorted; none where one is no address with a TCP port, or the set is of
/// another kind.
#[must_use]
pub fn members(family: Family, text: &str) -> Option<Vec<SocketAddr>> {
    let mut services = vec![];
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        match (words.next()?, words.next()?, words.next()?) {
            ("create", set, "hash:ip,port") if set == name(family) => {}
            ("add", set, member) if set == name(family) => {
                let (address, port) = member.split_once(",tcp:")?;
                let address: IpAddr = address.parse().ok().filter(|ip| Family::of(*ip) == family)?;
                services.push(SocketAddr::new(address, port.parse().ok()?));
            }
            _ => return None,
        }
    }
    services.sort_unstable();
    services.dedup();
    Some(services)
}

/// Whether a rule of a dump names the set.
#[must_use]
pub fn is_named(ruleset: &Ruleset) -> bool {
    let wanted = Test::Other(unresolved(ruleset.family));
    let mut rules = rules_of(ruleset);
    rules.any(|rule| rule.matches.iter().any(|found| found.test == wanted))
}

/// Puts what the set holds in the place of its name.
pub fn resolve(ruleset: &mut Ruleset, services: &[SocketAddr]) {
    let named = Test::Other(unresolved(ruleset.family));
    let chains = ruleset.tables.iter_mut().flat_map(|table| &mut table.chains);
    let rules = chains.flat_map(|chain| &mut chain.rules);
    for found in rules.flat_map(|rule| &mut rule.matches) {
        if found.test == named {
            found.test = Test::DestinationServices(services.to_vec());
        }
    }
}

/// As a dump has it and [`crate::parse()`] keeps it.
fn unresolved(family: Family) -> String {
    format!("-m set {}", option(family))
}

/// What the set of a rule set has to hold; none where no rule asks for one.
#[must_use]
pub fn wanted(ruleset: &Ruleset) -> Option<&[SocketAddr]> {
    let mut tests = rules_of(ruleset).flat_map(|rule| &rule.matches);
    tests.find_map(|found| match &found.test {
        Test::DestinationServices(services) => Some(services.as_slice()),
        _ => None,
    })
}

/// Whether two rules are the same to iptables, whatever their set holds.
pub(crate) fn are_alike(one: &Rule, other: &Rule) -> bool {
    let are_sets = |one: &Test, other: &Test| {
        matches!(
            (one, other),
            (Test::DestinationServices(_), Test::DestinationServices(_))
        )
    };
    one.target == other.target
        && one.matches.len() == other.matches.len()
        && one.matches.iter().zip(&other.matches).all(|(one, other)| {
            one == other || (one.negated == other.negated && are_sets(&one.test, &other.test))
        })
}

fn rules_of(ruleset: &Ruleset) -> impl Iterator<Item = &Rule> {
    let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
    chains.flat_map(|chain| &chain.rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::changes;
    use crate::plan::Facts;
    use crate::{Flags, parse, plan, render};

    const LISTED: &str = "create weir-services-v4 hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12 \
                          initval 0x59195aa0\nadd weir-services-v4 10.0.0.2,tcp:443\nadd weir-services-v4 10.0.0.1,tcp:80\n";

    fn services(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn a_set_is_read_as_it_is_listed_and_as_it_is_written() {
        let held = services(&["10.0.0.1:80", "10.0.0.2:443"]);
        assert_eq!(members(Family::V4, LISTED), Some(held.clone()));
        assert_eq!(
            members(Family::V4, &restore(Family::V4, &held, false, false)),
            Some(held)
        );
        let held = services(&["[fd00::1]:80"]);
        assert_eq!(
            members(Family::V6, &restore(Family::V6, &held, false, false)),
            Some(held)
        );
        assert_eq!(members(Family::V4, ""), Some(vec![]));
    }

    #[test]
    fn what_is_no_set_of_ours_is_not_taken_for_one() {
        for odd in [
            "add weir-services-v4 10.0.0.1,udp:80",
            "add weir-services-v4 10.0.0.1,80",
            "add weir-services-v4 10.0.0.1,tcp:",
            "add weir-services-v4 10.0.0.1,tcp:65536",
            "add weir-services-v4 fd00::1,tcp:80",
            "add weir-services-v4 10.0.0.0/8,tcp:80",
            "add weir-services-v4",
            "add another 10.0.0.1,tcp:80",
            "create weir-services-v4 hash:net family inet",
            "flush weir-services-v4 now",
            "\u{0}",
            "add  weir-services-v4 10.0.0.1,tcp:80",
        ] {
            assert_eq!(members(Family::V4, &format!("{LISTED}{odd}\n")), None, "{odd}");
        }
    }

    #[test]
    fn a_set_that_is_there_is_replaced_in_one_step() {
        let held = services(&["10.0.0.1:80"]);
        assert_eq!(
            restore(Family::V4, &held, true, true),
            "destroy weir-services-v4-next\n\
             create weir-services-v4-next hash:ip,port family inet maxelem 65536\n\
             add weir-services-v4-next 10.0.0.1,tcp:80\n\
             swap weir-services-v4-next weir-services-v4\n\
             destroy weir-services-v4-next\n"
        );
        let many = vec![held[0]; USUAL_ROOM + 1];
        assert!(restore(Family::V4, &many, false, false).contains(" maxelem 131072\n"));
    }

    #[test]
    fn a_dump_is_whole_with_what_the_set_holds_and_the_rules_stay_while_it_changes() {
        let rendered = |list: &[&str]| {
            let mut intent = Flags::default().intent().unwrap();
            intent.outbound.services = Some(services(list));
            render(&plan(&intent, &Facts::fresh(&[Family::V4])).unwrap()).remove(0)
        };
        let ruleset = rendered(&["10.0.0.1:80", "10.0.0.2:443"]);
        let text = ruleset.to_string();
        assert!(
            text.contains(" -p tcp -m set --match-set weir-services-v4 dst,dst -m comment "),
            "{text}"
        );
        let mut dumped = parse(Family::V4, &text).unwrap();
        assert!(is_named(&dumped) && !is_named(&ruleset));
        resolve(&mut dumped, &services(&["10.0.0.1:80", "10.0.0.2:443"]));
        assert_eq!(dumped, ruleset);
        let other = rendered(&["10.0.0.3:80"]);
        assert_eq!(wanted(&other), Some(&services(&["10.0.0.3:80"])[..]));
        assert!(changes(&dumped, &other).is_empty());
        assert!(!changes(&Ruleset::empty(Family::V4), &other).is_empty());
    }
}
