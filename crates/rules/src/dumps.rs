//! Dumps as people take them and programs print them: `iptables-save`, with counters or without, of one family or
//! of both after each other, and `nft list ruleset`. Comes in text, goes out an [`Installed`]. What is not
//! known in a rule is kept as text, and said when it matters.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::family::Family;
use crate::hook::base_of;
use crate::installed::{Counter, HeldTable, Installed, Note, Writer};
use crate::ipset::Sets;
use crate::nft;
use crate::parse::{self, BadDump};
use crate::ruleset::{Ruleset, TableName};

/// Why a text is no dump.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoDump {
    /// A line is none that `iptables-save` prints.
    #[error(transparent)]
    Iptables(#[from] BadDump),
    /// There is nothing in it.
    #[error(
        "no table is in it; give what `iptables-save -c`, `ip6tables-save -c` or `nft list ruleset` printed, \
         one of them or several after each other"
    )]
    Nothing,
}

/// Reads whatever it is. What `ipset save` lists is put into the rules that name a set. A part of `iptables-save` that does not say its family, and has no address to tell it
/// by, counts for `otherwise`.
///
/// # Errors
/// Where it is no dump.
pub fn read(text: &str, otherwise: Family) -> Result<Installed, NoDump> {
    let mut installed = Installed::default();
    let mut sets = Sets::default();
    for part in parts(text) {
        match part.kind {
            Kind::Ipset => sets = Sets::read(&part.text),
            Kind::Addresses => {}
            Kind::Nft => installed.tables.extend(nft::listing(&part.text).tables),
            Kind::Iptables => {
                let family = family_of(&part.text).unwrap_or(otherwise);
                let held = iptables(writer_of(&part.text), family, &part.text)?;
                installed.tables.extend(held.tables);
            }
        }
    }
    if installed.tables.is_empty() {
        return Err(NoDump::Nothing);
    }
    sets.put_into(installed.rules_mut());
    Ok(installed)
}

/// The namespace's own addresses with their devices, where `ip addr` is in the text, too.
#[must_use]
pub fn addresses(text: &str) -> Vec<(String, IpNet)> {
    let mut found = vec![];
    for part in parts(text).iter().filter(|part| part.kind == Kind::Addresses) {
        let mut device = "";
        for line in part.text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            if line.starts_with(|c: char| c.is_ascii_digit()) {
                // `2: eth0@if7: <UP>`, or `2: eth0    inet …` with -o.
                let name = words.get(1).copied().unwrap_or_default().trim_end_matches(':');
                device = name.split('@').next().unwrap_or(name);
            }
            let net = words
                .windows(2)
                .find(|pair| matches!(pair[0], "inet" | "inet6"))
                .and_then(|pair| net(pair[1]));
            found.extend(net.map(|net| (device.to_owned(), net)));
        }
    }
    found
}

/// `10.1.0.9/16`; a device that has another end shows no length.
fn net(text: &str) -> Option<IpNet> {
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}

/// What `iptables-save -c` of one family printed.
///
/// # Errors
/// Where a line is none that it prints.
pub fn iptables(by: Writer, family: Family, text: &str) -> Result<Installed, BadDump> {
    Ok(with_notes(by, parse::parse(family, text)?, text))
}

/// The same of a rule set that was read from that text, and completed since: sets may have got their members.
#[must_use]
pub fn with_notes(by: Writer, ruleset: Ruleset, text: &str) -> Installed {
    let mut notes = notes(text);
    let Ruleset { family, tables } = ruleset;
    let tables = tables.into_iter().map(|table| {
        let name = table.name;
        let bases = table.chains.iter().map(|chain| base_of(name, &chain.name));
        let of_chain = table.chains.iter().map(|chain| {
            let mut notes = notes
                .remove(&(name.as_str(), chain.name.clone()))
                .unwrap_or_default();
            notes.resize(chain.rules.len(), Note::default());
            notes
        });
        HeldTable {
            by,
            family,
            name: name.as_str().to_owned(),
            bases: bases.collect(),
            notes: of_chain.collect(),
            chains: table.chains,
        }
    });
    Installed {
        tables: tables.collect(),
    }
}

/// What stands beside the rules, by table and chain, in their order.
fn notes(text: &str) -> HashMap<(&'static str, String), Vec<Note>> {
    let mut notes: HashMap<_, Vec<Note>> = HashMap::new();
    let mut table = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            let known = TableName::ALL.iter().find(|(known, _)| *known == name.trim());
            table = known.map_or("", |(known, _)| known);
        }
        let (counter, rest) = match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((counter, rest)) => (counted(counter), rest.trim_start()),
            None => (None, line),
        };
        let Some((chain, rule)) = rest
            .strip_prefix("-A ")
            .map(|rest| rest.split_once(' ').unwrap_or((rest, "")))
        else {
            continue;
        };
        let of_chain = notes.entry((table, chain.to_owned())).or_default();
        of_chain.push(Note {
            number: of_chain.len() + 1,
            text: rule.to_owned(),
            counter,
        });
    }
    notes
}

/// `12:720`.
fn counted(text: &str) -> Option<Counter> {
    let (packets, bytes) = text.split_once(':')?;
    Some(Counter {
        packets: packets.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Iptables,
    Nft,
    Ipset,
    Addresses,
}

/// A piece of one program's.
struct Part {
    kind: Kind,
    text: String,
}

/// One after the other: `iptables-save` begins and ends with a remark, a table of nftables is plain from its head.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = vec![];
    let mut depth = 0_i64;
    for line in text.lines() {
        let is_nft = depth > 0 || (line.starts_with("table ") && line.trim_end().ends_with('{'));
        let kind = match line.split_whitespace().next() {
            _ if is_nft => Kind::Nft,
            Some("create" | "add") => Kind::Ipset,
            Some("inet" | "inet6" | "valid_lft" | "altname") => Kind::Addresses,
            Some(word) if word.starts_with("link/") => Kind::Addresses,
            Some(word) if is_index(word) => Kind::Addresses,
            _ => Kind::Iptables,
        };
        if kind == Kind::Nft {
            depth += opened(line);
        }
        let begins = line.starts_with("# Generated by ");
        match parts.last_mut() {
            Some(part) if part.kind == kind && !begins => {
                part.text.push_str(line);
                part.text.push('\n');
            }
            _ if line.trim().is_empty() => {}
            _ => parts.push(Part {
                kind,
                text: format!("{line}\n"),
            }),
        }
    }
    parts
}

/// `2:`, of a device.
fn is_index(word: &str) -> bool {
    let number = word.strip_suffix(':').unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Braces that a line opens, less those that it closes; what is quoted has none.
fn opened(line: &str) -> i64 {
    let bare = line.split('"').step_by(2).flat_map(str::chars);
    bare.map(|c| i64::from(c == '{') - i64::from(c == '}')).sum()
}

/// By its first remark, else by the addresses in it.
fn family_of(text: &str) -> Option<Family> {
    let remark = text.lines().find(|line| line.starts_with("# Generated by "));
    match remark {
        Some(line) if line.contains("ip6tables") => return Some(Family::V6),
        Some(line) if line.contains("iptables") => return Some(Family::V4),
        _ => {}
    }
    let mut words = text.split_whitespace();
    words.find_map(|word| {
        let address = word.split('/').next().unwrap_or(word);
        address.parse().ok().map(Family::of)
    })
}

fn writer_of(text: &str) -> Writer {
    match text.lines().find(|line| line.starts_with("# Generated by ")) {
        Some(line) if line.contains("(nf_tables)") => Writer::IptablesNft,
        Some(line) if line.contains("(legacy)") => Writer::IptablesLegacy,
        _ => Writer::Iptables,
    }
}
