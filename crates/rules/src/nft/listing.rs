//! What `nft list ruleset` prints, whoever wrote it: every table with its chains, when the kernel asks them, and
//! counters. The members of a named set stand in the rules that look into it.

use std::collections::HashMap;

use super::TableFamily;
use super::parse::rule::rule;
use super::parse::words::{Word, lines};
use crate::family::Family;
use crate::hook::{Base, HookPoint};
use crate::installed::{Counter, HeldTable, Installed, Note, Writer};
use crate::ruleset::{Chain, ChainKind, Policy, Rule};

/// Every table that IPv4 or IPv6 packets see.
#[must_use]
pub fn listing(text: &str) -> Installed {
    let mut installed = Installed::default();
    let mut open: Option<Open> = None;
    for line in lines(text) {
        let raw: Vec<_> = line.iter().map(Word::raw).collect();
        match (raw.as_slice(), &mut open) {
            (["table", family, .., "{"], _) => {
                let family = TableFamily::ALL
                    .into_iter()
                    .find(|known| known.as_str() == *family);
                open = family.map(|family| Open::new(family, line[2].text()));
            }
            // Of another family: bridges and devices.
            (_, None) => {}
            (["flags", "dormant", ..], Some(table)) => table.is_dormant = true,
            (["chain", .., "{"], Some(table)) => table.block = Block::Chain(FoundChain::new(line[1].text())),
            (["set" | "map", .., "{"], Some(table)) => table.block = Block::Set(Members::of(line[1].text())),
            (["}"], Some(table)) => match std::mem::replace(&mut table.block, Block::None) {
                Block::Chain(chain) => table.chains.push(chain),
                Block::Set(set) => table.sets.extend(set.close()),
                Block::None => {
                    if let Some(table) = open.take() {
                        installed.tables.extend(table.close());
                    }
                }
            },
            ([], _) => {}
            (_, Some(table)) => table.line(&line, &raw),
        }
    }
    installed
}

/// A table whose end has not been read yet.
struct Open {
    family: TableFamily,
    name: String,
    is_dormant: bool,
    sets: HashMap<String, Vec<Word>>,
    chains: Vec<FoundChain>,
    block: Block,
}

/// What is open in it.
enum Block {
    None,
    Chain(FoundChain),
    Set(Members),
}

/// What a set holds, or a map.
struct Members {
    name: String,
    /// In braces.
    words: Vec<Word>,
    /// Whether what it holds changes by itself.
    is_fleeting: bool,
}

impl Members {
    fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            words: lines("{ }").concat(),
            is_fleeting: false,
        }
    }

    fn line(&mut self, words: &[Word], raw: &[&str]) {
        match raw {
            ["elements", "=", ..] => self.words = plain(&words[2..]),
            ["flags", flags @ ..] => {
                self.is_fleeting |= flags.iter().any(|flag| matches!(*flag, "dynamic" | "timeout"));
            }
            ["timeout", ..] => self.is_fleeting = true,
            _ => {}
        }
    }

    /// Such a set stays a name, which is not known to be anything.
    fn close(self) -> Option<(String, Vec<Word>)> {
        let is_lasting = |word: &Word| !matches!(word.raw(), "timeout" | "expires");
        (!self.is_fleeting && self.words.iter().all(is_lasting)).then_some((self.name, self.words))
    }
}

/// Members without what is only said of them.
fn plain(words: &[Word]) -> Vec<Word> {
    let mut kept = vec![];
    let mut rest = words;
    while let [word, after @ ..] = rest {
        let said = match word.raw() {
            "comment" => 1,
            "counter" => 4,
            _ => {
                kept.push(word.clone());
                0
            }
        };
        rest = after.get(said..).unwrap_or_default();
    }
    kept
}

struct FoundChain {
    name: String,
    base: Option<(Base, Policy)>,
    rules: Vec<Vec<Word>>,
}

impl FoundChain {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            base: None,
            rules: vec![],
        }
    }

    fn line(&mut self, words: &[Word], raw: &[&str]) {
        match raw {
            ["type", kind, "hook", point, rest @ ..] => self.base = base(kind, point, rest).or(self.base),
            // A remark on the chain.
            ["comment", _] => {}
            _ => self.rules.push(words.to_vec()),
        }
    }
}

impl Open {
    fn new(family: TableFamily, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
            is_dormant: false,
            sets: HashMap::new(),
            chains: vec![],
            block: Block::None,
        }
    }

    fn line(&mut self, words: &[Word], raw: &[&str]) {
        match &mut self.block {
            Block::Chain(chain) => chain.line(words, raw),
            Block::Set(set) => set.line(words, raw),
            Block::None => {}
        }
    }

    /// One for each family that sees it.
    fn close(self) -> Vec<HeldTable> {
        if self.is_dormant {
            return vec![];
        }
        let mut sees = self.family.sees().to_vec();
        sees.sort_unstable();
        sees.into_iter().map(|family| self.of_family(family)).collect()
    }

    fn of_family(&self, family: Family) -> HeldTable {
        let mut table = HeldTable {
            by: Writer::Nft,
            family,
            name: format!("{} {}", self.family, self.name),
            chains: vec![],
            bases: vec![],
            notes: vec![],
        };
        for chain in &self.chains {
            let (rules, notes) = chain
                .rules
                .iter()
                .zip(1..)
                .filter_map(|(words, number)| self.rule(words, number, family))
                .unzip();
            table.chains.push(Chain {
                name: chain.name.clone(),
                kind: chain
                    .base
                    .map_or(ChainKind::User, |(_, policy)| ChainKind::Builtin(policy)),
                rules,
            });
            table.bases.push(chain.base.map(|(base, _)| base));
            table.notes.push(notes);
        }
        table
    }

    /// None for one that is for packets of the other family alone.
    fn rule(&self, words: &[Word], number: usize, family: Family) -> Option<(Rule, Note)> {
        let (words, counter) = without_counter(words);
        let found = rule(&self.with_members(&words), None);
        let is_mine = found.family.is_none_or(|only| only == family);
        is_mine.then(|| {
            let note = Note {
                number,
                text: text(&words),
                counter,
            };
            (found.rule, note)
        })
    }

    /// With the members of each named set and map in its place.
    fn with_members(&self, words: &[Word]) -> Vec<Word> {
        let mut all: Vec<Word> = vec![];
        for word in words {
            let is_changed = all
                .last()
                .is_some_and(|last| matches!(last.raw(), "add" | "update" | "delete"));
            let members = word.raw().strip_prefix('@').and_then(|name| self.sets.get(name));
            match members.filter(|_| !is_changed) {
                Some(members) => all.extend(members.iter().cloned()),
                _ => all.push(word.clone()),
            }
        }
        all
    }
}

/// `filter hook output priority mangle - 5; policy drop;`, from the kind on, without the word `hook`.
fn base(kind: &str, point: &str, rest: &[&str]) -> Option<(Base, Policy)> {
    let (_, point) = HookPoint::ALL.into_iter().find(|(name, _)| *name == point)?;
    let at = rest.iter().position(|word| *word == "priority")? + 1;
    let words: Vec<_> = rest[at..]
        .iter()
        .take_while(|word| **word != ";")
        .copied()
        .collect();
    let policy = match rest {
        [.., "policy", "drop", ";"] => Policy::Drop,
        _ => Policy::Accept,
    };
    let base = Base {
        point,
        priority: priority(&words)?,
        is_nat: kind == "nat",
    };
    Some((base, policy))
}

/// `-150`, `mangle`, `mangle - 5`.
fn priority(words: &[&str]) -> Option<i32> {
    const NAMED: [(&str, i32); 6] = [
        ("raw", -300),
        ("mangle", -150),
        ("dstnat", -100),
        ("filter", 0),
        ("security", 50),
        ("srcnat", 100),
    ];
    let start = |word: &str| {
        let named = NAMED.iter().find(|(name, _)| *name == word);
        named.map(|(_, number)| *number).or_else(|| word.parse().ok())
    };
    match words {
        [word] => start(word),
        [word, "+", more] => start(word)?.checked_add(more.parse().ok()?),
        [word, "-", less] => start(word)?.checked_sub(less.parse().ok()?),
        _ => None,
    }
}

/// The words of a rule that say what it does, and what it has counted.
fn without_counter(words: &[Word]) -> (Vec<Word>, Option<Counter>) {
    let raw: Vec<_> = words.iter().map(Word::raw).collect();
    let Some(at) = raw
        .windows(5)
        .position(|five| matches!(five, ["counter", "packets", _, "bytes", _]))
    else {
        return (words.to_vec(), None);
    };
    let number = |offset: usize| raw[at + offset].parse().ok();
    let counter = number(2)
        .zip(number(4))
        .map(|(packets, bytes)| Counter { packets, bytes });
    let rest = words[..at].iter().chain(&words[at + 5..]);
    (rest.cloned().collect(), counter)
}

/// As `nft` would print it.
fn text(words: &[Word]) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() && word.raw() != "," {
            text.push(' ');
        }
        text.push_str(&word.written());
    }
    text
}
