//! What a set or a map is asked by: one selector or several with dots between them, and its elements as rows of tests.

use ipnet::IpNet;

use super::rule::{Reader, address_range, device, id_ranges, number, pair, protocol};
use super::words::Word;
use crate::family::Family;
use crate::intent::SocketMark;
use crate::render::{ids, port_set};
use crate::ruleset::{Addresses, Chance, ForeignTest, Holds, Match, Test};

/// One selector.
#[derive(Clone, Copy)]
pub(super) enum Key {
    Source(Family),
    Destination(Family),
    SourcePort,
    DestinationPort,
    Protocol,
    Uid,
    Gid,
    Mark,
    ConnectionMark,
    /// Of conntrack, or whether it has translated the connection.
    State,
    InDevice,
    OutDevice,
    Family,
    SourceKind,
    DestinationKind,
    OriginalDestination,
    OriginalPort,
}

/// How one of several is drawn.
pub(super) enum Asked {
    /// By what the packet has.
    By(Vec<Key>),
    /// By chance, or in turn: one of so many numbers.
    Drawn { of: u32 },
}

impl Reader {
    /// The selectors that words begin with, and how many words they are. What they say of protocol and family is
    /// noted.
    pub(super) fn asked(&mut self, words: &[Word]) -> Option<(Asked, usize)> {
        if let Some(drawn) = drawn(words) {
            return Some(drawn);
        }
        let mut keys = vec![];
        let mut used = 0;
        loop {
            let (key, more) = self.key(&words[used..])?;
            keys.push(key);
            used += more;
            match words.get(used) {
                Some(word) if word.raw() == "." => used += 1,
                _ => return Some((Asked::By(keys), used)),
            }
        }
    }

    fn key(&mut self, words: &[Word]) -> Option<(Key, usize)> {
        let raw: Vec<_> = words.iter().take(4).map(Word::raw).collect();
        let (key, used) = match raw[..] {
            [ip @ ("ip" | "ip6"), end @ ("saddr" | "daddr"), ..] => {
                let family = if ip == "ip" { Family::V4 } else { Family::V6 };
                self.only(family)?;
                let key = if end == "saddr" {
                    Key::Source
                } else {
                    Key::Destination
                };
                (key(family), 2)
            }
            ["th", "sport", ..] => (Key::SourcePort, 2),
            ["th", "dport", ..] => (Key::DestinationPort, 2),
            [header @ ("tcp" | "udp" | "sctp"), port @ ("sport" | "dport"), ..] => {
                self.protocol(header)?;
                let key = match port {
                    "sport" => Key::SourcePort,
                    _ => Key::DestinationPort,
                };
                (key, 2)
            }
            ["meta", "l4proto", ..] => (Key::Protocol, 2),
            ["ip", "protocol", ..] => self.only(Family::V4).map(|()| (Key::Protocol, 2))?,
            ["ip6", "nexthdr", ..] => self.only(Family::V6).map(|()| (Key::Protocol, 2))?,
            ["meta", "nfproto", ..] => (Key::Family, 2),
            ["meta", ..] => {
                let (key, used) = bare_key(raw.get(1)?)?;
                (key, used + 1)
            }
            ["ct", "state" | "status", ..] => (Key::State, 2),
            ["ct", "mark", ..] => (Key::ConnectionMark, 2),
            ["ct", "original", "proto-dst", ..] => (Key::OriginalPort, 3),
            ["ct", "original", ip @ ("ip" | "ip6"), "daddr", ..] => {
                self.only(if ip == "ip" { Family::V4 } else { Family::V6 })?;
                (Key::OriginalDestination, 4)
            }
            ["fib", "saddr", "type", ..] => (Key::SourceKind, 3),
            ["fib", "daddr", "type", ..] => (Key::DestinationKind, 3),
            [word, ..] => bare_key(word)?,
            [] => return None,
        };
        Some((key, used))
    }

    /// A selector, perhaps a comparison, and a set of values: what no rule of ours asks in this way.
    pub(super) fn set(&mut self, words: &[Word]) -> Option<usize> {
        let (family, known) = (self.family, self.matches.len());
        let found = self.set_test(words);
        if found.is_none() {
            self.family = family;
            self.matches.truncate(known);
        }
        found
    }

    fn set_test(&mut self, words: &[Word]) -> Option<usize> {
        let (asked, mut used) = self.asked(words)?;
        let negated = match words.get(used)?.raw() {
            "!=" => {
                used += 1;
                true
            }
            "==" => {
                used += 1;
                false
            }
            _ => false,
        };
        let (elements, more) = match words.get(used)?.raw() {
            "{" => elements(&words[used..])?,
            _ => single(&words[used..], &asked)?,
        };
        used += more;
        let holds = match &asked {
            Asked::By(keys) => Holds::OneOf(rows(keys, &elements)?),
            Asked::Drawn { of } => {
                let numbers = elements.iter().map(|element| count(&element.key));
                let times = numbers.sum::<Option<u32>>()?;
                Holds::ByChance(Chance { times, of: *of })
            }
        };
        let text = written(&words[..used]);
        self.add(negated, Test::Foreign(ForeignTest { text, holds }));
        Some(used)
    }
}

fn bare_key(word: &str) -> Option<(Key, usize)> {
    let key = match word {
        "iifname" | "iif" => Key::InDevice,
        "oifname" | "oif" => Key::OutDevice,
        "skuid" => Key::Uid,
        "skgid" => Key::Gid,
        "mark" => Key::Mark,
        _ => return None,
    };
    Some((key, 1))
}

/// `numgen random mod 3 offset 10`, `numgen inc mod 2`, `jhash ip saddr . tcp sport mod 4 seed 0x1`.
fn drawn(words: &[Word]) -> Option<(Asked, usize)> {
    let raw: Vec<_> = words.iter().map(Word::raw).take(24).collect();
    let at = match raw[..] {
        ["numgen", "random" | "inc", "mod", ..] => 2,
        ["jhash" | "symhash", ..] => raw.iter().position(|word| *word == "mod")?,
        _ => return None,
    };
    let of = raw.get(at + 1)?.parse().ok().filter(|of| *of > 0)?;
    let mut used = at + 2;
    while let Some("seed" | "offset") = raw.get(used).copied() {
        used += 2;
    }
    Some((Asked::Drawn { of }, used))
}

/// An entry of a set or of a map: words with no dots between them, and what stands after the colon.
pub(super) struct Element<'a> {
    pub(super) key: Vec<&'a Word>,
    pub(super) value: &'a [Word],
}

/// What stands in braces, and how many words that is. None where an element is more than it says.
pub(super) fn elements(words: &[Word]) -> Option<(Vec<Element<'_>>, usize)> {
    (words.first()?.raw() == "{").then_some(())?;
    let end = words.iter().position(|word| word.raw() == "}")?;
    let mut elements = vec![];
    for element in words[1..end].split(|word| word.raw() == ",") {
        if element.is_empty() {
            continue;
        }
        let colon = element.iter().position(|word| word.raw() == ":");
        let (key, value) = match colon {
            Some(at) => (&element[..at], &element[at + 1..]),
            None => (element, &[][..]),
        };
        let key = key.split(|word| word.raw() == ".");
        let key: Option<Vec<_>> = key
            .map(|part| match part {
                [word] => Some(word),
                _ => None,
            })
            .collect();
        elements.push(Element { key: key?, value });
    }
    Some((elements, end + 1))
}

/// The only value, without braces.
fn single<'a>(words: &'a [Word], asked: &Asked) -> Option<(Vec<Element<'a>>, usize)> {
    let parts = match asked {
        Asked::By(keys) => keys.len(),
        Asked::Drawn { .. } => 1,
    };
    let used = 2 * parts - 1;
    let words = words.get(..used)?;
    let key: Vec<_> = words.iter().step_by(2).collect();
    let dots = words.iter().skip(1).step_by(2);
    let is_value = |word: &&Word| word.is_quoted() || !word.raw().starts_with(['@', '{', '&', '!']);
    (dots.into_iter().all(|word| word.raw() == ".") && key.iter().all(is_value)).then_some(())?;
    Some((vec![Element { key, value: &[] }], used))
}

/// Each element as tests that must all hold.
pub(super) fn rows(keys: &[Key], elements: &[Element<'_>]) -> Option<Vec<Vec<Match>>> {
    elements.iter().map(|element| row(keys, &element.key)).collect()
}

pub(super) fn row(keys: &[Key], values: &[&Word]) -> Option<Vec<Match>> {
    (keys.len() == values.len()).then_some(())?;
    let mut row = vec![];
    for (key, value) in keys.iter().zip(values) {
        if value.raw() != "*" {
            let test = test(*key, value)?;
            row.push(Match { negated: false, test });
        }
    }
    Some(row)
}

/// How many numbers a value stands for.
pub(super) fn count(key: &[&Word]) -> Option<u32> {
    let [word] = key else { return None };
    let (first, last) = pair(word.raw(), |text| text.parse::<u32>().ok())?;
    last.checked_sub(first)?.checked_add(1)
}

fn test(key: Key, value: &Word) -> Option<Test> {
    let text = value.text();
    let foreign = |holds: Holds| {
        Test::Foreign(ForeignTest {
            text: text.to_owned(),
            holds,
        })
    };
    let addresses = |family| {
        let range = address_range(text)?;
        Some(Addresses::from_ranges(family, [range].into_iter()))
    };
    let ports = || Some(port_set(vec![pair(text, |text| text.parse().ok())?]));
    Some(match key {
        Key::Source(family) => Test::Sources(addresses(family)?),
        Key::Destination(family) => Test::Destinations(addresses(family)?),
        Key::DestinationPort => ports()?,
        Key::SourcePort => match ports()? {
            Test::DestinationPort(range) => Test::SourcePort(range),
            _ => return None,
        },
        Key::Protocol => Test::Protocol(protocol(text)?),
        Key::Uid => ids(id_ranges(&[text])?, Test::Uid, Test::Uids)?,
        Key::Gid => ids(id_ranges(&[text])?, Test::Gid, Test::Gids)?,
        Key::Mark => Test::Mark(SocketMark::exact(number(text)?)),
        Key::ConnectionMark => Test::ConnectionMark(SocketMark::exact(number(text)?)),
        Key::State => Test::State(vec![text.to_uppercase()]),
        Key::InDevice => Test::InInterface(device(text)),
        Key::OutDevice => Test::OutInterface(device(text)),
        Key::Family => {
            let all: IpNet = match text {
                "ipv4" => "0.0.0.0/0".parse().ok()?,
                "ipv6" => "::/0".parse().ok()?,
                _ => return None,
            };
            Test::Source(all)
        }
        Key::SourceKind => foreign(Holds::SourceKind(vec![text.to_uppercase()])),
        Key::DestinationKind => foreign(Holds::DestinationKind(vec![text.to_uppercase()])),
        Key::OriginalDestination => {
            let (first, last) = address_range(text)?;
            let net = Addresses::from_ranges(Family::of(first), [(first, last)].into_iter()).single()?;
            foreign(Holds::OriginalDestination(net))
        }
        Key::OriginalPort => match ports()? {
            Test::DestinationPort(range) => foreign(Holds::OriginalPort(range)),
            _ => return None,
        },
    })
}

pub(super) fn written(words: &[Word]) -> String {
    let written: Vec<_> = words.iter().map(Word::written).collect();
    written.join(" ")
}
