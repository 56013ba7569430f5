//! One rule of a listing.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::keys::written;
use super::words::Word;
use crate::cgroup;
use crate::family::Family;
use crate::intent::SocketMark;
use crate::render::{PORT_UNREACHABLE, class, ids, port_set, rank};
use crate::ruleset::{
    Addresses, Does, ForeignTarget, IpProtocol, Match, Memory, Rule, SET, TableName, Target, Test,
};

/// A rule, and the family that it is for, where that is one of two.
pub(in crate::nft) struct Found {
    pub(in crate::nft) family: Option<Family>,
    pub(in crate::nft) rule: Rule,
}

/// Reads it statement by statement; from the first one that is not known the rest is kept as it stands. `table` is
/// what the chain stands in for, in a table of ours.
pub(in crate::nft) fn rule(words: &[Word], table: Option<TableName>) -> Found {
    let mut reader = Reader::new(table, None);
    let (mut rest, comment) = match words {
        [rest @ .., keyword, comment] if keyword.raw() == "comment" => (rest, Some(comment.text())),
        _ => (words, None),
    };
    let whole = rest;
    let mut tests = None;
    while !rest.is_empty() {
        match reader.statement(rest) {
            Some(used) => rest = &rest[used..],
            // Of a table of ours, more than one is no rule of ours.
            None if table.is_none() && reader.goes_on() => {
                tests.get_or_insert(reader.matches.len());
                reader
                    .targets
                    .push(std::mem::replace(&mut reader.target, Target::Continue));
            }
            None => {
                reader.targets.clear();
                reader.target = Target::Other(written(rest));
                break;
            }
        }
    }
    if let Some(tests) = tests.filter(|_| !reader.targets.is_empty()) {
        reader.join(tests, whole);
    }
    let mut matches = reader.matches;
    matches.sort_by_key(|found| rank(&found.test));
    matches.extend(comment.map(|text| Match {
        negated: false,
        test: Test::Comment(text.to_owned()),
    }));
    Found {
        family: reader.family,
        rule: Rule {
            matches,
            target: reader.target,
        },
    }
}

pub(super) struct Reader {
    pub(super) table: Option<TableName>,
    pub(super) family: Option<Family>,
    pub(super) matches: Vec<Match>,
    /// Those before the last one.
    targets: Vec<Target>,
    pub(super) target: Target,
}

impl Reader {
    pub(super) fn new(table: Option<TableName>, family: Option<Family>) -> Self {
        Self {
            table,
            family,
            matches: vec![],
            targets: vec![],
            target: Target::Continue,
        }
    }

    /// Whether the rule is not over with its target.
    fn goes_on(&self) -> bool {
        match &self.target {
            Target::Mark(_)
            | Target::MarkConnection(_)
            | Target::SaveMark
            | Target::RestoreMark
            | Target::Notrack
            | Target::Zone(_)
            | Target::Remember(_) => true,
            Target::Foreign(ForeignTarget { does, .. }) => matches!(does, Does::ChangeMark(_)),
            _ => false,
        }
    }

    /// All targets as one; a test after the first of them cannot be told of.
    fn join(&mut self, tests: usize, words: &[Word]) {
        let text = written(words);
        if self.matches.len() != tests {
            self.matches.truncate(tests);
            self.target = Target::Other(text);
            return;
        }
        let mut all = std::mem::take(&mut self.targets);
        all.push(self.target.clone());
        let does = Does::InTurn(all);
        self.target = Target::Foreign(ForeignTarget { text, does });
    }

    /// How many words the first statement has; none where it is not known.
    pub(super) fn statement(&mut self, words: &[Word]) -> Option<usize> {
        let raw: Vec<_> = words.iter().take(12).map(Word::raw).collect();
        if self.target != Target::Continue {
            // A verdict ends a rule; what comes after one is not ours.
            return None;
        }
        match raw[..] {
            ["counter", "packets", _, "bytes", _, ..] => Some(5),
            ["counter", ..] => Some(1),
            ["meta", "nfproto", set, ..] if set.strip_prefix('@') == Some(SET) => {
                self.add(false, Test::Alive(Memory::Set));
                Some(3)
            }
            ["meta", "nfproto", family, ..] => {
                self.only(match family {
                    "ipv4" => Family::V4,
                    "ipv6" => Family::V6,
                    _ => return None,
                })?;
                Some(3)
            }
            ["update", ..] => self.remember(words).or_else(|| self.foreign(words)),
            ["ct", "zone", "set", ..] => self.verdict(&raw),
            ["tcp", "flags", ..] => self.opens(words).or_else(|| self.flags(words)),
            ["socket", "transparent", value @ ("0" | "1"), ..] => {
                self.add(value == "0", Test::Transparent);
                Some(3)
            }
            ["ct", "direction", "original", ..] => {
                self.add(false, Test::Original);
                Some(3)
            }
            ["meta" | "ct", "mark", "set", ..] => match self.verdict(&raw) {
                // More is computed of it than our rules do.
                Some(used) if !raw.get(used).is_some_and(|word| is_operator(word)) => Some(used),
                _ => self.foreign(words),
            },
            [
                of @ ("meta" | "ct"),
                "mark",
                "&",
                mask,
                operator @ ("==" | "!="),
                value,
                ..,
            ] => {
                let mark = SocketMark {
                    value: number(value)?,
                    mask: number(mask)?,
                };
                let test = if of == "ct" {
                    Test::ConnectionMark
                } else {
                    Test::Mark
                };
                self.add(operator == "!=", test(mark));
                Some(6)
            }
            [ip @ ("ip" | "ip6"), "daddr", ".", header, "dport", ..] => {
                self.services(ip, header, words).or_else(|| self.foreign(words))
            }
            ["socket", "cgroupv2", "level", level, ..] => self.cgroup(level, words),
            [
                "meta",
                key @ ("l4proto" | "skuid" | "skgid" | "mark" | "cgroup"),
                ..,
            ] => self.value(2, key, "", words).or_else(|| self.foreign(words)),
            [key @ ("skuid" | "skgid" | "mark" | "iifname" | "oifname"), ..] => {
                self.value(1, key, "", words).or_else(|| self.foreign(words))
            }
            [
                header @ ("ip" | "ip6" | "tcp" | "udp" | "sctp" | "ct"),
                key @ ("saddr" | "daddr" | "sport" | "dport" | "state" | "mark" | "zone"),
                ..,
            ] => self.value(2, key, header, words).or_else(|| self.foreign(words)),
            _ => self.verdict(&raw).or_else(|| self.foreign(words)),
        }
    }

    pub(super) fn only(&mut self, family: Family) -> Option<()> {
        if self.family.is_some_and(|known| known != family) {
            return None;
        }
        self.family = Some(family);
        Some(())
    }

    pub(super) fn add(&mut self, negated: bool, test: Test) {
        self.matches.push(Match { negated, test });
    }

    /// A selector, perhaps `!=`, and a value or a set of them.
    fn value(&mut self, start: usize, key: &str, header: &str, words: &[Word]) -> Option<usize> {
        let (family, known) = (self.family, self.matches.len());
        let found = self.value_test(start, key, header, words);
        if found.is_none() {
            self.family = family;
            self.matches.truncate(known);
        }
        found
    }

    fn value_test(&mut self, start: usize, key: &str, header: &str, words: &[Word]) -> Option<usize> {
        let negated = words.get(start)?.raw() == "!=";
        let start = start + usize::from(negated);
        let (values, used) = values(&words[start..])?;
        let test = match (header, key) {
            ("ip" | "ip6", "saddr" | "daddr") => {
                let family = if header == "ip" { Family::V4 } else { Family::V6 };
                self.only(family)?;
                address_test(family, key, &values)?
            }
            ("tcp" | "udp" | "sctp", "sport" | "dport") => {
                self.protocol(header)?;
                let ports = values.iter().map(|value| pair(value, |text| text.parse().ok()));
                match (key, port_set(ports.collect::<Option<_>>()?)) {
                    ("dport", test) => test,
                    (_, Test::DestinationPort(range)) => Test::SourcePort(range),
                    _ => return None,
                }
            }
            ("ct", "state") => Test::State(values.iter().map(|state| state.to_uppercase()).collect()),
            ("ct", "mark") => match values[..] {
                [value] => Test::ConnectionMark(SocketMark::exact(number(value)?)),
                _ => return None,
            },
            ("ct", "zone") => match values[..] {
                [value] => Test::Zone(value.parse().ok()?),
                _ => return None,
            },
            ("", "skuid") => ids(id_ranges(&values)?, Test::Uid, Test::Uids)?,
            ("", "skgid") => ids(id_ranges(&values)?, Test::Gid, Test::Gids)?,
            ("", "cgroup") => ids(id_ranges(&values)?, class, Test::Classes)?,
            ("", _) => match (key, &values[..]) {
                ("l4proto", [value]) => Test::Protocol(protocol(value)?),
                ("mark", [value]) => Test::Mark(SocketMark::exact(number(value)?)),
                ("iifname", [name]) => Test::InInterface(device(name)),
                ("oifname", [name]) => Test::OutInterface(device(name)),
                _ => return None,
            },
            _ => return None,
        };
        self.add(negated, test);
        Some(start + used)
    }

    /// `ip daddr . tcp dport { 10.0.0.1 . 80, 10.0.0.2 . 443 }`.
    fn services(&mut self, ip: &str, header: &str, words: &[Word]) -> Option<usize> {
        const START: usize = 5;
        let negated = words.get(START)?.raw() == "!=";
        let mut used = START + usize::from(negated);
        (words.get(used)?.raw() == "{").then_some(())?;
        let mut services = vec![];
        loop {
            let [address, dot, port, end] = words.get(used + 1..used + 5)? else {
                return None;
            };
            (dot.raw() == ".").then_some(())?;
            services.push(SocketAddr::new(
                address.text().parse().ok()?,
                port.text().parse().ok()?,
            ));
            used += 4;
            match end.raw() {
                "," => {}
                "}" => break,
                _ => return None,
            }
        }
        services.sort_unstable();
        self.only(if ip == "ip" { Family::V4 } else { Family::V6 })?;
        self.protocol(header)?;
        self.add(negated, Test::DestinationServices(services));
        Some(used + 1)
    }

    /// `socket cgroupv2 level 2 "a/b"`. Where the cgroup is gone, nft shows a number without quotes: such a rule
    /// is not known.
    fn cgroup(&mut self, level: &str, words: &[Word]) -> Option<usize> {
        const START: usize = 4;
        let negated = words.get(START)?.raw() == "!=";
        let path = words.get(START + usize::from(negated))?;
        let is_path = path.is_quoted() && level.parse() == Ok(cgroup::level(path.text()));
        is_path.then(|| self.add(negated, Test::Cgroup(path.text().to_owned())))?;
        Some(START + usize::from(negated) + 1)
    }

    /// Which a test of a port says as well.
    pub(super) fn protocol(&mut self, header: &str) -> Option<()> {
        let protocol = Test::Protocol(protocol(header)?);
        if !self.matches.iter().any(|found| found.test == protocol) {
            self.add(false, protocol);
        }
        Some(())
    }

    /// The flags of a first packet, in each way in which they are listed.
    fn opens(&mut self, words: &[Word]) -> Option<usize> {
        const LISTED: [(&str, bool); 4] = [
            ("tcp flags syn / fin , syn , rst , ack", false),
            ("tcp flags != syn / fin , syn , rst , ack", true),
            ("tcp flags & (fin | syn | rst | ack) == syn", false),
            ("tcp flags & (fin | syn | rst | ack) != syn", true),
        ];
        let is_this = |form: &str| {
            let mut words = words.iter().map(Word::raw);
            form.split(' ').all(|word| words.next() == Some(word))
        };
        let (form, negated) = LISTED.into_iter().find(|(form, _)| is_this(form))?;
        let protocol = Test::Protocol(IpProtocol::Tcp);
        if !self.matches.iter().any(|found| found.test == protocol) {
            self.add(false, protocol);
        }
        self.add(negated, Test::Opens);
        Some(form.split(' ').count())
    }

    /// `update @dns-answers { meta nfproto timeout 3s }`.
    fn remember(&mut self, words: &[Word]) -> Option<usize> {
        let told = Memory::Set.told();
        let mut words = words.iter().map(Word::raw);
        let used = told.split(' ').count();
        told.split(' ')
            .all(|word| words.next() == Some(word))
            .then_some(())?;
        self.target = Target::Remember(Memory::Set);
        Some(used)
    }

    fn verdict(&mut self, raw: &[&str]) -> Option<usize> {
        let (target, used) = match *raw {
            ["accept", ..] => (Target::Accept, 1),
            ["drop", ..] => (Target::Drop, 1),
            ["return", ..] => (Target::Return, 1),
            ["reject"] => (Target::Reject(PORT_UNREACHABLE.to_owned()), 1),
            ["jump", chain, ..] => (Target::Jump(self.chain(chain)), 2),
            ["goto", chain, ..] => (Target::Goto(self.chain(chain)), 2),
            ["redirect", "to", port, ..] => (Target::Redirect(port.strip_prefix(':')?.parse().ok()?), 3),
            ["tproxy", "to", port, ref rest @ ..] => {
                let (mark, rest) = set_mark("meta", rest)?;
                let (connection, rest) = set_mark("ct", rest)?;
                if rest.first() != Some(&"accept") {
                    return None;
                }
                let target = Target::Tproxy {
                    port: port.strip_prefix(':')?.parse().ok()?,
                    mark,
                    connection,
                    or_next: true,
                };
                (target, raw.len() - rest.len() + 1)
            }
            ["notrack", ..] => (Target::Notrack, 1),
            ["ct", "zone", "set", zone, ..] => (Target::Zone(zone.parse().ok()?), 4),
            ["ct", "mark", "set", "meta", "mark", ..] => (Target::SaveMark, 5),
            ["ct", "mark", "set", mark, ..] => (Target::MarkConnection(number(mark)?), 4),
            ["meta", "mark", "set", "ct", "mark", ..] => (Target::RestoreMark, 5),
            ["meta", "mark", "set", mark, ..] => (Target::Mark(number(mark)?), 4),
            _ => return None,
        };
        self.target = target;
        Some(used)
    }

    fn chain(&self, name: &str) -> String {
        let own = self.table.and_then(|table| name.strip_prefix(table.as_str()));
        own.and_then(|rest| rest.strip_prefix('-'))
            .unwrap_or(name)
            .to_owned()
    }
}

/// `meta mark set 0x539`, where it stands first, and what comes after.
fn set_mark<'a>(of: &str, words: &'a [&'a str]) -> Option<(Option<u32>, &'a [&'a str])> {
    match words {
        [there, "mark", "set", mark, rest @ ..] if *there == of => Some((Some(number(mark)?), rest)),
        _ => Some((None, words)),
    }
}

fn is_operator(word: &str) -> bool {
    matches!(word, "&" | "|" | "^" | "and" | "or" | "xor")
}

/// One value, `a,b`, or `{ a, b }`, and how many words that is.
fn values(words: &[Word]) -> Option<(Vec<&str>, usize)> {
    let braced = words.first()?.raw() == "{";
    let start = usize::from(braced);
    let first = words.get(start)?;
    // A map, several selectors, or nothing in braces.
    if matches!(first.raw(), "vmap" | "." | "}" | "set" | "&") || first.raw().starts_with('@') {
        return None;
    }
    let mut values = vec![first.text()];
    let mut used = start + 1;
    while words.get(used).is_some_and(|word| word.raw() == ",") {
        values.push(words.get(used + 1)?.text());
        used += 2;
    }
    if braced {
        (words.get(used)?.raw() == "}").then_some(())?;
        used += 1;
    }
    Some((values, used))
}

fn address_test(family: Family, key: &str, values: &[&str]) -> Option<Test> {
    let ranges = values.iter().map(|value| address_range(value));
    let ranges: Vec<_> = ranges.collect::<Option<_>>()?;
    let set = Addresses::from_ranges(family, ranges.into_iter());
    match (key, set.single()) {
        ("saddr", Some(net)) => Some(Test::Source(net)),
        ("saddr", None) => Some(Test::Sources(set)),
        (_, Some(net)) => Some(Test::Destination(net)),
        (_, None) => Some(Test::Destinations(set)),
    }
}

pub(super) fn address_range(text: &str) -> Option<(IpAddr, IpAddr)> {
    if text.contains('/') {
        let net: IpNet = text.parse().ok()?;
        return Some((net.network(), net.broadcast()));
    }
    pair(text, |part| part.parse().ok())
}

/// `a` or `a-b`.
pub(super) fn pair<T: Copy>(text: &str, read: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    match text.split_once('-') {
        Some((first, last)) => Some((read(first)?, read(last)?)),
        None => read(text).map(|value| (value, value)),
    }
}

pub(super) fn id_ranges(values: &[&str]) -> Option<Vec<(u32, u32)>> {
    let ranges = values.iter().map(|value| pair(value, |text| text.parse().ok()));
    ranges.collect()
}

pub(super) fn protocol(text: &str) -> Option<IpProtocol> {
    crate::parse::protocol(match text {
        "icmpv6" => "ipv6-icmp",
        text => text,
    })
}

pub(super) fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

pub(super) fn device(name: &str) -> String {
    match name.strip_suffix('*') {
        Some(start) => format!("{start}+"),
        None => name.to_owned(),
    }
}
