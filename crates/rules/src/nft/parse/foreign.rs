//! Statements that Weir's own rules have not, and other people's do: what only watches is passed over, what a test
//! of ours says in another way is that test, and maps, marks and NAT are what they mean.

use std::net::IpAddr;

use super::keys::{Asked, count, elements, row, written};
use super::rule::{Reader, device, number, protocol};
use super::words::Word;
use crate::family::Family;
use crate::intent::SocketMark;
use crate::parse::foreign::new_destination;
use crate::ruleset::{Case, Does, ForeignTarget, MarkChange, NewDestination, Target, Test};

impl Reader {
    /// How many words the first statement has; none where it is not known.
    pub(super) fn foreign(&mut self, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words.iter().take(7).map(Word::raw).collect();
        match raw[..] {
            ["log", ..] => Some(1 + options(&words[1..], &["prefix", "level", "flags", "group", "snaplen"])),
            ["continue", ..] => Some(1),
            ["meta", "nftrace" | "priority" | "pkttype", "set", _, ..]
            | ["ct", "helper" | "event" | "label", "set", _, ..]
            | ["ip", "dscp", "set", _, ..] => Some(4),
            ["tcp", "option", "maxseg", "size", "set", "rt", ..] => Some(7),
            ["tcp", "option", "maxseg", "size", "set", _, ..] => Some(6),
            ["flow", "add", _, ..] => Some(3),
            ["counter", "name", _, ..] => Some(3),
            ["update" | "add" | "delete", set, "{", ..] if set.starts_with('@') => noted(words),
            ["limit", "rate", ..] => Some(self.limit(words)),
            ["iif", ..] => self.by_index(words, Test::InInterface),
            ["oif", ..] => self.by_index(words, Test::OutInterface),
            ["meta", "iif" | "iifname" | "oif" | "oifname", ..] => {
                let used = match raw[1] {
                    "iif" | "iifname" => self.by_index(&words[1..], Test::InInterface),
                    _ => self.by_index(&words[1..], Test::OutInterface),
                };
                used.map(|used| used + 1).or_else(|| self.map_or_set(words))
            }
            ["ip", "protocol", name, ..] if protocol(name).is_some() => self.header(Family::V4, name),
            ["ip6", "nexthdr", name, ..] if protocol(name).is_some() => self.header(Family::V6, name),
            ["meta", "protocol", "ip", ..] => self.only(Family::V4).map(|()| 3),
            ["meta", "protocol", "ip6", ..] => self.only(Family::V6).map(|()| 3),
            ["mark", "&" | "and", mask, operator @ ("==" | "!="), value, ..] => {
                self.masked(operator, value, mask).map(|()| 5)
            }
            ["meta", "mark", "and", mask, operator @ ("==" | "!="), value, ..] => {
                self.masked(operator, value, mask).map(|()| 6)
            }
            ["mark", "set", ..] => self.mark_change(false, 2, words),
            ["meta", "mark", "set", ..] => self.mark_change(false, 3, words).or_else(|| self.mapped(words)),
            ["ct", "mark", "set", ..] => self.mark_change(true, 3, words),
            ["reject", "with", ..] => {
                let with: Vec<_> = words[2..].iter().map(Word::text).collect();
                self.target = Target::Reject(with.join(" "));
                Some(words.len())
            }
            ["masquerade", ..] => self.source_nat(words, None),
            ["dnat" | "snat", ..] => self.nat(words).or_else(|| self.mapped(words)),
            [header @ ("icmp" | "icmpv6"), ..] => {
                self.protocol(header)?;
                None
            }
            _ => self.map_or_set(words),
        }
    }

    /// A device that is known by its number is listed by its name all the same.
    fn by_index(&mut self, words: &[Word], test: fn(String) -> Test) -> Option<usize> {
        let negated = words.get(1)?.raw() == "!=";
        let name = words.get(1 + usize::from(negated))?;
        if matches!(name.raw(), "{" | "@" | "vmap" | ".") {
            return None;
        }
        self.add(negated, test(device(name.text())));
        Some(2 + usize::from(negated))
    }

    fn header(&mut self, family: Family, name: &str) -> Option<usize> {
        self.only(family)?;
        self.add(false, Test::Protocol(protocol(name)?));
        Some(3)
    }

    fn masked(&mut self, operator: &str, value: &str, mask: &str) -> Option<()> {
        let (value, mask) = (number(value)?, number(mask)?);
        self.add(operator == "!=", Test::Mark(SocketMark { value, mask }));
        Some(())
    }

    /// How many have come lately is not to be known: a test that may hold or not.
    fn limit(&mut self, words: &[Word]) -> usize {
        let raw: Vec<_> = words.iter().take(7).map(Word::raw).collect();
        let mut used = if raw.get(2) == Some(&"over") { 4 } else { 3 };
        // `1 mbytes/second` are two words.
        used += usize::from(raw.get(used).is_some_and(|word| word.contains("bytes/")));
        if raw.get(used) == Some(&"burst") {
            used += 3;
        }
        let used = used.min(words.len());
        self.add(false, Test::Other(written(&words[..used])));
        used
    }

    fn map_or_set(&mut self, words: &[Word]) -> Option<usize> {
        self.verdict_map(words).or_else(|| self.set(words))
    }

    /// `ip daddr . tcp dport vmap { 10.0.0.1 . 80 : goto a, … }`.
    fn verdict_map(&mut self, words: &[Word]) -> Option<usize> {
        let at = words.iter().position(|word| word.raw() == "vmap")?;
        let (family, known) = (self.family, self.matches.len());
        let found = self.map(&words[..at], &words[at + 1..], &[]);
        if found.is_none() {
            self.family = family;
            self.matches.truncate(known);
        }
        let used = at + 1 + found?;
        self.named(&words[..used]);
        Some(used)
    }

    /// `dnat to numgen random mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }`: a statement whose value is looked up.
    fn mapped(&mut self, words: &[Word]) -> Option<usize> {
        let at = words.iter().position(|word| word.raw() == "map")?;
        let start = words[..at]
            .iter()
            .position(|word| matches!(word.raw(), "to" | "set"))?
            + 1;
        let used = at + 1 + self.map(&words[start..at], &words[at + 1..], &words[..start])?;
        self.named(&words[..used]);
        Some(used)
    }

    /// The cases of a map with these selectors; what each leads to stands after `before`.
    fn map(&mut self, selectors: &[Word], braced: &[Word], before: &[Word]) -> Option<usize> {
        let (asked, whole) = self.asked(selectors)?;
        (whole == selectors.len()).then_some(())?;
        let (elements, used) = elements(braced)?;
        let mut cases = vec![];
        let mut ways = vec![];
        for element in &elements {
            let statement: Vec<Word> = before.iter().chain(element.value).cloned().collect();
            let then = self.leads_to(&statement)?;
            match &asked {
                Asked::By(keys) => cases.push(Case {
                    when: row(keys, &element.key)?,
                    then,
                }),
                Asked::Drawn { .. } => ways.push((count(&element.key)?, then)),
            }
        }
        let does = match asked {
            Asked::By(_) => Does::Cases(cases),
            Asked::Drawn { of } => Does::Split { of, ways },
        };
        let text = String::new();
        self.target = Target::Foreign(ForeignTarget { text, does });
        Some(used)
    }

    fn leads_to(&self, statement: &[Word]) -> Option<Target> {
        let mut reader = Self::new(self.table, self.family);
        let used = reader.statement(statement)?;
        (used == statement.len() && reader.matches.is_empty()).then_some(reader.target)
    }

    /// The words of the target that was just read.
    fn named(&mut self, words: &[Word]) {
        if let Target::Foreign(ForeignTarget { text, .. }) = &mut self.target {
            *text = written(words);
        }
    }

    /// `meta mark set meta mark | 0x4000`: from left to right, as it is listed.
    fn mark_change(&mut self, of_connection: bool, start: usize, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words[start..].iter().take(8).map(Word::raw).collect();
        let (is_own, mut used) = match raw[..] {
            ["meta", "mark", ..] => (Some(!of_connection), 2),
            ["mark", ..] => (Some(!of_connection), 1),
            ["ct", "mark", ..] => (Some(of_connection), 2),
            [word, ..] => (None, usize::from(number(word).is_some())),
            [] => return None,
        };
        let all = |is_it: bool| if is_it { u32::MAX } else { 0 };
        let mut change = MarkChange {
            of_connection,
            keep: all(is_own == Some(true)),
            take: all(is_own == Some(false)),
            flip: match is_own {
                Some(_) => 0,
                None => number(raw.first()?)?,
            },
        };
        while let [operator @ ("&" | "and" | "|" | "or" | "^" | "xor"), value, ..] = raw[used..] {
            let value = number(value)?;
            match operator {
                "&" | "and" => {
                    change.keep &= value;
                    change.take &= value;
                    change.flip &= value;
                }
                "|" | "or" => {
                    change.keep &= !value;
                    change.take &= !value;
                    change.flip |= value;
                }
                _ => change.flip ^= value,
            }
            used += 2;
        }
        let text = written(&words[..start + used]);
        let does = Does::ChangeMark(change);
        self.target = Target::Foreign(ForeignTarget { text, does });
        Some(start + used)
    }

    /// `dnat ip to 10.0.0.9:80`, `snat to 10.0.0.1`, perhaps with how one of several is chosen.
    fn nat(&mut self, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words.iter().map(Word::raw).collect();
        let (to, at) = match raw[..] {
            [_, "to", to, ..] => (to, 3),
            [_, family @ ("ip" | "ip6"), "to", to, ..] => {
                self.only(if family == "ip" { Family::V4 } else { Family::V6 })?;
                (to, 4)
            }
            _ => return None,
        };
        let (to, at) = match raw.get(at..) {
            Some([".", port, ..]) => {
                let address: IpAddr = to.parse().ok()?;
                let to = NewDestination {
                    addresses: Some((address, address)),
                    port: Some(port.parse().ok()?),
                };
                (to, at + 2)
            }
            _ => (new_destination(to)?, at),
        };
        if raw[0] == "snat" {
            let only = to.addresses.filter(|(first, last)| first == last);
            return self.source_nat(words, only.map(|(first, _)| first));
        }
        let used = at + how(&words[at..]);
        let text = written(&words[..used]);
        let does = Does::Dnat(to);
        self.target = Target::Foreign(ForeignTarget { text, does });
        Some(used)
    }

    /// Whatever else it says is about the source alone.
    fn source_nat(&mut self, words: &[Word], to: Option<IpAddr>) -> Option<usize> {
        let text = written(words);
        let does = Does::Snat(to);
        self.target = Target::Foreign(ForeignTarget { text, does });
        Some(words.len())
    }
}

/// What is put into a set, where nothing is asked with it.
fn noted(words: &[Word]) -> Option<usize> {
    let end = words.iter().position(|word| word.raw() == "}")?;
    let asks = |word: &Word| matches!(word.raw(), "limit" | "quota" | "ct" | "connlimit");
    (!words[..end].iter().any(asks)).then_some(end + 1)
}

/// How many words say how one of several is chosen.
fn how(words: &[Word]) -> usize {
    let is_how = |word: &&Word| matches!(word.raw(), "random" | "fully-random" | "persistent" | ",");
    words.iter().take_while(is_how).count()
}

/// How many words are options of these names, each with a value.
fn options(words: &[Word], names: &[&str]) -> usize {
    let pairs = words.chunks(2);
    let are_options = |pair: &&[Word]| pair.len() == 2 && names.contains(&pair[0].raw());
    2 * pairs.take_while(are_options).count()
}
