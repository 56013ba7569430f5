//! Sets of others that rules of iptables look into: what `ipset save` lists, put into the rules in the place of their
//! names. What a set holds for a while only changes by itself, and so stays a name, which is not known to be anything.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::Family;
use crate::intent::SocketMark;
use crate::ruleset::{Addresses, ForeignTest, Holds, IpProtocol, Match, PortRange, Rule, Test};

/// How a rule names a set.
pub const NAMED: &str = "-m set ";

/// Sets by name.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sets(HashMap<String, Set>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Set {
    /// `ip`, `port`: what each element consists of.
    fields: Vec<String>,
    elements: Vec<String>,
    /// Whether its elements stay, and are no exceptions.
    is_plain: bool,
}

/// How deep lists of sets may hold lists.
const DEEPEST: usize = 8;

impl Sets {
    /// Those that `ipset save` lists.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut sets = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                ["create", name, kind, ..] => {
                    let fields = kind.split_once(':').map_or("", |(_, fields)| fields);
                    let set = Set {
                        fields: fields.split(',').map(str::to_owned).collect(),
                        elements: vec![],
                        is_plain: true,
                    };
                    sets.0.insert(name.to_owned(), set);
                }
                ["add", name, element, ref more @ ..] => {
                    if let Some(set) = sets.0.get_mut(name) {
                        set.elements.push(element.to_owned());
                        set.is_plain &= !more.iter().any(|word| matches!(*word, "timeout" | "nomatch"));
                    }
                }
                _ => {}
            }
        }
        sets
    }

    /// Puts what the sets hold into the rules that name them.
    pub fn put_into<'a>(&self, rules: impl Iterator<Item = &'a mut Rule>) {
        for found in rules.flat_map(|rule| &mut rule.matches) {
            if let Some(test) = self.test(&found.test) {
                found.test = test;
            }
        }
    }

    fn test(&self, test: &Test) -> Option<Test> {
        let Test::Other(text) = test else { return None };
        let words: Vec<_> = text.split(' ').collect();
        let (negated, name, sides) = match words[..] {
            ["-m", "set", "--match-set", name, sides] => (false, name, sides),
            ["-m", "set", "!", "--match-set", name, sides] => (true, name, sides),
            _ => return None,
        };
        let sides: Vec<_> = sides.split(',').map(|side| side == "src").collect();
        let holds = Holds::OneOf(self.rows(name, &sides, 0)?);
        let text = text.clone();
        if !negated {
            return Some(Test::Foreign(ForeignTest { text, holds }));
        }
        let inner = Test::Foreign(ForeignTest {
            text: text.clone(),
            holds,
        });
        let not = Match {
            negated: true,
            test: inner,
        };
        let holds = Holds::OneOf(vec![vec![not]]);
        Some(Test::Foreign(ForeignTest { text, holds }))
    }

    fn rows(&self, name: &str, sides: &[bool], depth: usize) -> Option<Vec<Vec<Match>>> {
        let set = self.0.get(name).filter(|set| set.is_plain && depth < DEEPEST)?;
        match set.fields.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["set"] => {
                let lists = set.elements.iter();
                let rows = lists.map(|name| self.rows(name, sides, depth + 1));
                Some(rows.collect::<Option<Vec<_>>>()?.concat())
            }
            ["ip" | "net"] => {
                let nets: Vec<IpNet> = set
                    .elements
                    .iter()
                    .map(|net| network(net))
                    .collect::<Option<_>>()?;
                let family = nets.first().map_or(Family::V4, |net| Family::of(net.addr()));
                Some(vec![vec![one(addresses(
                    *sides.first()?,
                    Addresses::of(family, &nets),
                ))]])
            }
            _ => set
                .elements
                .iter()
                .map(|element| row(set, element, sides))
                .collect(),
        }
    }
}

/// Whether a rule names a set that is not known.
pub fn names_unknown<'a>(mut rules: impl Iterator<Item = &'a Rule>) -> bool {
    rules.any(|rule| {
        let mut tests = rule.matches.iter().map(|found| &found.test);
        tests.any(|test| matches!(test, Test::Other(text) if text.starts_with(NAMED)))
    })
}

/// An element as tests that must all hold.
fn row(set: &Set, element: &str, sides: &[bool]) -> Option<Vec<Match>> {
    let values: Vec<_> = element.split(',').collect();
    (values.len() == set.fields.len() && sides.len() <= values.len()).then_some(())?;
    let mut row = vec![];
    for ((field, value), is_source) in set.fields.iter().zip(values).zip(sides) {
        match (field.as_str(), is_source) {
            ("ip" | "net", _) => {
                let net = network(value)?;
                row.push(one(addresses(
                    *is_source,
                    Addresses::of(Family::of(net.addr()), &[net]),
                )));
            }
            ("port", _) => row.extend(port(value, *is_source)?),
            ("iface", true) => row.push(one(Test::InInterface(value.to_owned()))),
            ("iface", false) => row.push(one(Test::OutInterface(value.to_owned()))),
            ("mark", _) => row.push(one(Test::Mark(value.parse::<SocketMark>().ok()?))),
            _ => return None,
        }
    }
    Some(row)
}

fn one(test: Test) -> Match {
    Match { negated: false, test }
}

fn addresses(is_source: bool, addresses: Addresses) -> Test {
    match is_source {
        true => Test::Sources(addresses),
        false => Test::Destinations(addresses),
    }
}

fn network(text: &str) -> Option<IpNet> {
    match text.split_once('/') {
        Some(_) => text.parse().ok(),
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
    }
}

/// `tcp:80`, `udp:53`, `80`; other protocols have no ports that are told.
fn port(text: &str, is_source: bool) -> Option<Vec<Match>> {
    let (protocol, ports) = text.split_once(':').unwrap_or(("tcp", text));
    let protocol = match protocol {
        "tcp" => IpProtocol::Tcp,
        "udp" => IpProtocol::Udp,
        "sctp" => IpProtocol::Sctp,
        _ => return None,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let range = PortRange {
        first: first.parse().ok()?,
        last: last.parse().ok()?,
    };
    let port = match is_source {
        true => Test::SourcePort(range),
        false => Test::DestinationPort(range),
    };
    Some(vec![one(Test::Protocol(protocol)), one(port)])
}
