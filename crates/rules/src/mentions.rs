//! Which ports, networks, users, groups, marks and devices a rule set speaks of, in whatever language: what a
//! packet must look like for a rule to be about it. Read from the text, so that no match is too strange to be
//! noticed; `weir verify` sends packets like these.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::intent::SocketMark;

/// What is spoken of.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Mentions {
    /// Destination ports.
    pub ports: BTreeSet<u16>,
    /// Source ports.
    pub source_ports: BTreeSet<u16>,
    /// Destinations.
    pub destinations: BTreeSet<IpNet>,
    /// Sources.
    pub sources: BTreeSet<IpNet>,
    /// User ids.
    pub uids: BTreeSet<u32>,
    /// Group ids.
    pub gids: BTreeSet<u32>,
    /// Marks.
    pub marks: BTreeSet<u32>,
    /// Devices; a `+` at the end stands for any ending.
    pub devices: BTreeSet<String>,
}

/// What the next values are of.
#[derive(Clone, Copy)]
enum About {
    Ports,
    SourcePorts,
    Destinations,
    Sources,
    Uids,
    Gids,
    Marks,
    Device,
    /// In quotes, as nftables has them.
    Devices,
}

impl Mentions {
    /// Those of the text of `iptables-save` or `nft list ruleset`.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut mentions = Self::default();
        for line in text.lines() {
            let mut about = None;
            for word in words(line) {
                match keyword(word) {
                    Some(next) => about = Some(next),
                    None if matches!(word, "!" | "!=" | "==" | "vmap") => {}
                    // What follows the value is about something else.
                    None => about = about.and_then(|about| mentions.note(about, word)),
                }
            }
        }
        mentions
    }

    /// How many kinds of things it speaks of, devices apart.
    #[must_use]
    pub fn kinds(&self) -> usize {
        let kinds = [
            self.ports.is_empty(),
            self.source_ports.is_empty(),
            self.destinations.is_empty(),
            self.sources.is_empty(),
            self.uids.is_empty(),
            self.gids.is_empty(),
            self.marks.is_empty(),
        ];
        kinds.iter().filter(|is_empty| !**is_empty).count()
    }

    /// What this one speaks of and the other does not.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Self {
        fn minus<T: Ord + Clone>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> BTreeSet<T> {
            one.difference(other).cloned().collect()
        }
        Self {
            ports: minus(&self.ports, &other.ports),
            source_ports: minus(&self.source_ports, &other.source_ports),
            destinations: minus(&self.destinations, &other.destinations),
            sources: minus(&self.sources, &other.sources),
            uids: minus(&self.uids, &other.uids),
            gids: minus(&self.gids, &other.gids),
            marks: minus(&self.marks, &other.marks),
            devices: minus(&self.devices, &other.devices),
        }
    }

    /// Notes the word if it is a value of that, and answers what the next one would be a value of.
    fn note(&mut self, about: About, word: &str) -> Option<About> {
        let is_one = match about {
            About::Ports => note_all(&mut self.ports, range(word)),
            About::SourcePorts => note_all(&mut self.source_ports, range(word)),
            About::Destinations => note_all(&mut self.destinations, networks(word)),
            About::Sources => note_all(&mut self.sources, networks(word)),
            About::Uids => note_all(&mut self.uids, range(word)),
            About::Gids => note_all(&mut self.gids, range(word)),
            About::Marks => note_all(&mut self.marks, marks(word)),
            About::Device | About::Devices => {
                let name = word.trim_matches('"');
                let is_quoted = name.len() < word.len();
                if is_quoted || matches!(about, About::Device) {
                    // nftables has a star for any ending.
                    let name = match name.strip_suffix('*') {
                        Some(start) => format!("{start}+"),
                        None => name.to_owned(),
                    };
                    self.devices.insert(name);
                }
                return is_quoted.then_some(About::Devices);
            }
        };
        is_one.then_some(about)
    }
}

fn note_all<T: Ord>(kept: &mut BTreeSet<T>, values: Vec<T>) -> bool {
    let any = !values.is_empty();
    kept.extend(values);
    any
}

/// Words, and members of lists. A comment is none of them.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let rule = line.split("comment \"").next().unwrap_or(line);
    // What iptables prints after a comment is the target, which speaks of no packet.
    let rule = rule.split("--comment").next().unwrap_or(rule);
    rule.split([' ', '\t', ',', '{', '}', ';'])
        .filter(|word| !word.is_empty())
}

fn keyword(word: &str) -> Option<About> {
    Some(match word {
        "dport" | "--dport" | "--dports" | "--ports" | "--port" => About::Ports,
        "sport" | "--sport" | "--sports" => About::SourcePorts,
        "daddr" | "-d" | "--dst-range" | "--ctorigdst" => About::Destinations,
        "saddr" | "-s" | "--src-range" | "--ctorigsrc" => About::Sources,
        "skuid" | "--uid-owner" => About::Uids,
        "skgid" | "--gid-owner" => About::Gids,
        "mark" | "--mark" => About::Marks,
        "iifname" | "oifname" | "iif" | "oif" | "-i" | "-o" => About::Device,
        _ => return None,
    })
}

/// One number, or both ends of `1-2` or `1:2`.
fn range<T: std::str::FromStr>(word: &str) -> Vec<T> {
    let ends: Option<Vec<T>> = word.split([':', '-']).map(|end| end.parse().ok()).collect();
    ends.unwrap_or_default()
}

/// A network, an address, or both ends of a range.
fn networks(word: &str) -> Vec<IpNet> {
    let one = |text: &str| {
        let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        text.parse().ok().or_else(address)
    };
    let ends: Option<Vec<IpNet>> = word.split('-').map(one).collect();
    ends.unwrap_or_default()
}

fn marks(word: &str) -> Vec<u32> {
    let mark: Option<SocketMark> = word.parse().ok();
    mark.map(|mark| mark.value).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_read() {
        let iptables = "-A OUTPUT -d 10.0.0.0/8 -o eth0 -p tcp -m multiport --dports 80,443:444 -m owner \
                        ! --uid-owner 7-9 -m strange --what 5 -j ACCEPT";
        let nft = "\t\toifname \"eth0\" ip daddr { 10.0.0.0/8, 10.1.0.1-10.1.0.9 } tcp dport { 80, 443-444 } meta skuid != 7-9 counter packets 5 bytes 6 accept comment \"dport 99\"";
        let [one, other] = [iptables, nft].map(Mentions::of);
        assert_eq!(one.ports, BTreeSet::from([80, 443, 444]));
        assert_eq!(one.uids, BTreeSet::from([7, 9]));
        assert_eq!(one.devices, BTreeSet::from(["eth0".to_owned()]));
        assert_eq!(one.ports, other.ports);
        assert_eq!(one.uids, other.uids);
        assert_eq!(one.devices, other.devices);
        assert_eq!(
            Mentions::of("-i tap+").devices,
            Mentions::of("iifname \"tap*\"").devices
        );
        let beyond = other.beyond(&one);
        assert_eq!(
            beyond.destinations,
            BTreeSet::from(["10.1.0.1/32".parse().unwrap(), "10.1.0.9/32".parse().unwrap()])
        );
        assert!(beyond.ports.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_passed_over() {
        let text = "-A X --dport ssh --dport 70000 -d host --mark x\n dport\n ip daddr @set tcp sport 1 2";
        let mentions = Mentions::of(text);
        assert_eq!(mentions.source_ports, BTreeSet::from([1, 2]));
        assert_eq!(
            Mentions {
                source_ports: BTreeSet::new(),
                ..mentions
            },
            Mentions::default()
        );
    }
}
