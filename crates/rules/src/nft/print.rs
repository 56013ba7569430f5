//! Rule sets as a transaction for `nft -f -`.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::{Hook, Sign, TABLE, TableFamily, user_chain};
use crate::cgroup;
use crate::family::Family;
use crate::intent::SocketMark;
use crate::ruleset::{
    Addresses, Chain, ChainKind, ForeignTarget, ForeignTest, IpProtocol, Match, Memory, Policy, PortRange,
    Rule, Ruleset, SET, TableName, Target, Test,
};

/// The text that replaces the tables `there` by what `wanted` holds, in one step of the kernel. Both families
/// go into one `inet` table where they may.
#[must_use]
pub fn transaction(there: &[TableFamily], wanted: &[Ruleset], inet: bool) -> String {
    replacement(there, &[], wanted, inet)
}

/// The same where the tables remember signs of life, which their successors take over.
#[must_use]
pub fn replacement(there: &[TableFamily], signs: &[Sign], wanted: &[Ruleset], inet: bool) -> String {
    let mut text = String::new();
    for family in there {
        // Naming it first makes the removal right whether it is still there or not.
        line(&mut text, format_args!("table {family} {TABLE}"));
        line(&mut text, format_args!("delete table {family} {TABLE}"));
    }
    let wanted: Vec<_> = wanted
        .iter()
        .filter(|ruleset| !ruleset.tables.is_empty())
        .collect();
    match wanted[..] {
        [v4, v6] if inet => table(&mut text, TableFamily::Inet, signs, &[v4, v6]),
        _ => wanted
            .iter()
            .for_each(|ruleset| table(&mut text, ruleset.family.into(), signs, &[ruleset])),
    }
    text
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{what}");
}

fn table(text: &mut String, family: TableFamily, signs: &[Sign], rulesets: &[&Ruleset]) {
    line(text, format_args!("table {family} {TABLE} {{"));
    if rulesets.iter().any(|ruleset| remembers(ruleset)) {
        line(text, format_args!("\tset {SET} {{"));
        line(text, format_args!("\t\ttype nf_proto; flags dynamic,timeout;"));
        let seen = signs.iter().filter(|sign| family.sees().contains(&sign.family));
        let elements: Vec<_> = seen.map(|sign| sign.element()).collect();
        if !elements.is_empty() {
            line(text, format_args!("\t\telements = {{ {} }}", elements.join(", ")));
        }
        line(text, format_args!("\t}}"));
    }
    let mut names: Vec<(TableName, &Chain)> = vec![];
    for (name, chain) in rulesets.iter().flat_map(|ruleset| chains(ruleset)) {
        if !names
            .iter()
            .any(|known| (known.0, &known.1.name) == (name, &chain.name))
        {
            names.push((name, chain));
        }
    }
    // What is jumped to comes before what jumps.
    names.sort_by_key(|(_, chain)| chain.kind != ChainKind::User);
    for (name, chain) in names {
        let of = |index: usize| -> &[Rule] {
            let ruleset = rulesets.get(index);
            let chain = ruleset.and_then(|ruleset| ruleset.table(name)?.chain(&chain.name));
            chain.map_or(&[], |chain| &chain.rules)
        };
        head(text, name, chain);
        let tagged = rulesets.len() > 1;
        for (family, rule) in together(of(0), of(1)) {
            let family = family.filter(|_| tagged && !has_address(rule));
            line(text, format_args!("\t\t{}", rule_text(family, name, rule)));
        }
        line(text, format_args!("\t}}"));
    }
    line(text, format_args!("}}"));
}

/// Whether it needs the set for signs of life.
fn remembers(ruleset: &Ruleset) -> bool {
    let mut rules = chains(ruleset).flat_map(|(_, chain)| &chain.rules);
    rules.any(|rule| rule.target == Target::Remember(Memory::Set))
}

fn chains(ruleset: &Ruleset) -> impl Iterator<Item = (TableName, &Chain)> {
    let tables = ruleset.tables.iter();
    tables.flat_map(|table| table.chains.iter().map(move |chain| (table.name, chain)))
}

fn head(text: &mut String, table: TableName, chain: &Chain) {
    match (chain.kind, Hook::of(table, &chain.name)) {
        (ChainKind::Builtin(policy), Some(hook)) => {
            let policy = match policy {
                Policy::Accept => "accept",
                Policy::Drop => "drop",
            };
            line(text, format_args!("\tchain {} {{", hook.chain()));
            line(
                text,
                format_args!(
                    "\t\ttype {} hook {} priority {}; policy {policy};",
                    hook.kind, hook.hook, hook.priority
                ),
            );
        }
        _ => line(
            text,
            format_args!("\tchain {} {{", user_chain(table, &chain.name)),
        ),
    }
}

/// Both lists in one, each in its order; what stands alike in both, and looks at no address, is one rule. The
/// others come with their family.
fn together<'a>(v4: &'a [Rule], v6: &'a [Rule]) -> Vec<(Option<Family>, &'a Rule)> {
    let (mut v4, mut v6) = (v4.iter().peekable(), v6.iter().peekable());
    let mut all = vec![];
    while v4.peek().is_some() || v6.peek().is_some() {
        let alike = matches!((v4.peek(), v6.peek()), (Some(a), Some(b)) if a == b && !has_address(a));
        if alike {
            v4.next();
            all.extend(v6.next().map(|rule| (None, rule)));
            continue;
        }
        let before = all.len();
        all.extend(
            v4.next_if(|rule| has_address(rule))
                .map(|rule| (Some(Family::V4), rule)),
        );
        all.extend(
            v6.next_if(|rule| has_address(rule))
                .map(|rule| (Some(Family::V6), rule)),
        );
        if all.len() == before {
            match v4.next() {
                Some(rule) => all.push((Some(Family::V4), rule)),
                None => all.extend(v6.next().map(|rule| (Some(Family::V6), rule))),
            }
        }
    }
    all
}

/// Whether the family is plain from the rule itself.
fn has_address(rule: &Rule) -> bool {
    let is_address = |found: &Match| {
        matches!(
            found.test,
            Test::Source(_)
                | Test::Sources(_)
                | Test::Destination(_)
                | Test::Destinations(_)
                | Test::DestinationServices(_)
        )
    };
    rule.matches.iter().any(is_address)
}

fn rule_text(family: Option<Family>, table: TableName, rule: &Rule) -> String {
    let mut words = vec![];
    match family {
        Some(Family::V4) => words.push("meta nfproto ipv4".to_owned()),
        Some(Family::V6) => words.push("meta nfproto ipv6".to_owned()),
        None => {}
    }
    let mut protocol = IpProtocol::Tcp;
    for (index, found) in rule.matches.iter().enumerate() {
        if let (Test::Protocol(asked), false) = (&found.test, found.negated) {
            protocol = *asked;
            let next = rule.matches.get(index + 1);
            // The test of a port says it as well.
            if next.is_some_and(|next| is_port(&next.test)) {
                continue;
            }
        }
        words.extend(test_text(found, protocol));
    }
    words.push("counter".to_owned());
    words.extend(target_text(table, &rule.target));
    if let Some(comment) = rule.comment() {
        words.push(format!("comment \"{comment}\""));
    }
    words.join(" ")
}

fn is_port(test: &Test) -> bool {
    matches!(
        test,
        Test::SourcePort(_)
            | Test::DestinationPort(_)
            | Test::DestinationPorts(_)
            | Test::DestinationServices(_)
            | Test::Opens
    )
}

fn test_text(found: &Match, protocol: IpProtocol) -> Option<String> {
    let not = if found.negated { "!= " } else { "" };
    Some(match &found.test {
        Test::Source(net) => format!("{} saddr {not}{}", ip(*net), short(*net)),
        Test::Sources(set) => format!("{} saddr {not}{}", ip_word(set.family()), set_text(set)),
        Test::Destination(net) => format!("{} daddr {not}{}", ip(*net), short(*net)),
        Test::Destinations(set) => format!("{} daddr {not}{}", ip_word(set.family()), set_text(set)),
        Test::InInterface(name) => format!("iifname {not}{}", device(name)),
        Test::OutInterface(name) => format!("oifname {not}{}", device(name)),
        Test::Protocol(asked) => format!("meta l4proto {not}{asked}"),
        Test::SourcePort(range) => format!("{protocol} sport {not}{}", port(*range)),
        Test::DestinationPort(range) => format!("{protocol} dport {not}{}", port(*range)),
        Test::DestinationPorts(ranges) => {
            let ranges: Vec<_> = ranges.iter().map(|range| port(*range)).collect();
            format!("{protocol} dport {not}{{ {} }}", ranges.join(", "))
        }
        Test::DestinationServices(services) => services_text(services, protocol, not),
        Test::Opens => {
            let operator = if found.negated { "!=" } else { "==" };
            format!("tcp flags & (fin | syn | rst | ack) {operator} syn")
        }
        Test::Uid(first, last) => format!("meta skuid {not}{}", id(*first, *last)),
        Test::Uids(ranges) => format!("meta skuid {not}{}", ids(ranges)),
        Test::Gid(first, last) => format!("meta skgid {not}{}", id(*first, *last)),
        Test::Gids(ranges) => format!("meta skgid {not}{}", ids(ranges)),
        Test::Mark(mark) => mark_text("meta", *mark, found.negated),
        Test::Class(class) => format!("meta cgroup {not}{class}"),
        Test::Classes(ranges) => format!("meta cgroup {not}{}", ids(ranges)),
        // nft itself counts the steps; the kernel compares at that depth.
        Test::Cgroup(path) => format!("socket cgroupv2 level {} {not}\"{path}\"", cgroup::level(path)),
        Test::ConnectionMark(mark) => mark_text("ct", *mark, found.negated),
        Test::State(states) => format!("ct state {not}{}", states.join(",").to_lowercase()),
        Test::Original => format!("ct direction {not}original"),
        // Told apart no better: a connection's socket, or a listener at the very address.
        Test::Socket => format!("socket wildcard {}", u8::from(found.negated)),
        Test::Transparent => format!("socket transparent {}", u8::from(!found.negated)),
        Test::Zone(zone) => format!("ct zone {not}{zone}"),
        Test::Alive(_) => format!("meta nfproto {not}@{SET}"),
        Test::Comment(_) => return None,
        Test::Foreign(ForeignTest { text, .. }) | Test::Other(text) => text.clone(),
    })
}

fn ip(net: IpNet) -> &'static str {
    ip_word(Family::of(net.addr()))
}

fn ip_word(family: Family) -> &'static str {
    TableFamily::from(family).as_str()
}

fn short(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

fn set_text(set: &Addresses) -> String {
    let text = set.to_string();
    match text.contains(',') {
        true => format!("{{ {} }}", text.replace(',', ", ")),
        false => text,
    }
}

/// Address and port are one key, so that it is one look-up.
fn services_text(services: &[SocketAddr], protocol: IpProtocol, not: &str) -> String {
    let family = services
        .first()
        .map_or(Family::V4, |service| Family::of(service.ip()));
    let each = services
        .iter()
        .map(|service| format!("{} . {}", service.ip(), service.port()));
    let each: Vec<_> = each.collect();
    format!(
        "{} daddr . {protocol} dport {not}{{ {} }}",
        ip_word(family),
        each.join(", ")
    )
}

fn device(name: &str) -> String {
    match name.strip_suffix('+') {
        Some(start) => format!("\"{start}*\""),
        None => format!("\"{name}\""),
    }
}

fn port(range: PortRange) -> String {
    id(range.first.into(), range.last.into())
}

fn id(first: u32, last: u32) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn ids(ranges: &[(u32, u32)]) -> String {
    let ranges: Vec<_> = ranges.iter().map(|(first, last)| id(*first, *last)).collect();
    format!("{{ {} }}", ranges.join(", "))
}

fn mark_text(of: &str, mark: SocketMark, negated: bool) -> String {
    let SocketMark { value, mask } = mark;
    match (mask, negated) {
        (u32::MAX, false) => format!("{of} mark {value:#x}"),
        (u32::MAX, true) => format!("{of} mark != {value:#x}"),
        (_, false) => format!("{of} mark & {mask:#x} == {value:#x}"),
        (_, true) => format!("{of} mark & {mask:#x} != {value:#x}"),
    }
}

fn target_text(table: TableName, target: &Target) -> Option<String> {
    Some(match target {
        Target::Continue => return None,
        Target::Accept => "accept".to_owned(),
        Target::Drop => "drop".to_owned(),
        Target::Return => "return".to_owned(),
        Target::Reject(_) => "reject".to_owned(),
        Target::Jump(chain) => format!("jump {}", user_chain(table, chain)),
        Target::Goto(chain) => format!("goto {}", user_chain(table, chain)),
        Target::Redirect(port) => format!("redirect to :{port}"),
        Target::Tproxy {
            port,
            mark,
            connection,
            ..
        } => {
            let mark = mark.map(|mark| format!(" meta mark set {mark:#x}"));
            let connection = connection.map(|mark| format!(" ct mark set {mark:#x}"));
            let [mark, connection] = [mark, connection].map(Option::unwrap_or_default);
            format!("tproxy to :{port}{mark}{connection} accept")
        }
        Target::MarkConnection(mark) => format!("ct mark set {mark:#x}"),
        Target::Mark(mark) => format!("meta mark set {mark:#x}"),
        Target::SaveMark => "ct mark set meta mark".to_owned(),
        Target::RestoreMark => "meta mark set ct mark".to_owned(),
        Target::Notrack => "notrack".to_owned(),
        Target::Zone(zone) => format!("ct zone set {zone}"),
        Target::Remember(_) => Memory::Set.told(),
        Target::Foreign(ForeignTarget { text, .. }) | Target::Other(text) => text.clone(),
    })
}
