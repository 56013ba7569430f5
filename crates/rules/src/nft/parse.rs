//! What `nft list table` prints, as rule sets. A statement that is not known is kept as text, and the rule
//! then differs from any that is wanted; nothing is ever dropped.

mod flags;
mod foreign;
mod keys;
pub(super) mod rule;
pub(super) mod words;

use self::rule::{Found, rule};
use self::words::{Word, lines};
use super::{HOOKS, Hook, TableFamily};
use crate::family::Family;
use crate::ruleset::{Chain, ChainKind, Policy, Rule, Ruleset, Table, TableName};

/// The rule sets of the families that the tables in the text see.
#[must_use]
pub fn parse(text: &str) -> Vec<Ruleset> {
    let mut rulesets: Vec<Ruleset> = vec![];
    let mut sees: &[Family] = &[];
    let mut open: Option<Open> = None;
    for line in lines(text) {
        let raw: Vec<_> = line.iter().map(Word::raw).collect();
        match raw[..] {
            ["table", family, _, "{", ..] => {
                let family = TableFamily::ALL
                    .into_iter()
                    .find(|known| known.as_str() == family);
                sees = family.map_or(&[], TableFamily::sees);
                for &family in sees {
                    if !rulesets.iter().any(|known| known.family == family) {
                        rulesets.push(Ruleset::empty(family));
                    }
                }
            }
            ["chain", name, "{"] => open = Some(Open::new(name)),
            ["}"] => {
                if let Some(chain) = open.take() {
                    chain.close(&mut rulesets, sees);
                }
            }
            ["type", ..] => {
                if let Some(chain) = &mut open {
                    chain.head(&raw);
                }
            }
            [] => {}
            // The kernel asks none of its chains: it is as if they were not there.
            ["flags", "dormant", ..] if open.is_none() => sees = &[],
            // Outside a chain: what a named set holds, or a flag of the table.
            _ => {
                if let Some(chain) = &mut open {
                    chain.rules.push(rule(&line, Some(chain.table)));
                }
            }
        }
    }
    for ruleset in &mut rulesets {
        ruleset.tables.sort_by_key(|table| table.name);
        for table in &mut ruleset.tables {
            table
                .chains
                .sort_by_key(|chain| (chain.kind == ChainKind::User, place(table.name, &chain.name)));
        }
    }
    rulesets.sort_by_key(|ruleset| ruleset.family);
    rulesets
}

/// Hooks in the order in which a packet meets them, as a rendered rule set has them.
fn place(table: TableName, builtin: &str) -> usize {
    let same = |hook: &Hook| hook.table == table && hook.builtin == builtin;
    HOOKS.iter().position(same).unwrap_or(HOOKS.len())
}

/// A chain whose end has not been read yet.
struct Open {
    table: TableName,
    name: String,
    kind: ChainKind,
    rules: Vec<Found>,
}

impl Open {
    /// `nat-output`; a name that is not of ours counts as one in `filter`.
    fn new(name: &str) -> Self {
        let known = TableName::ALL.iter().find_map(|(prefix, table)| {
            let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
            Some((*table, rest))
        });
        let (table, name) = known.unwrap_or((TableName::Filter, name));
        Self {
            table,
            name: name.to_owned(),
            kind: ChainKind::User,
            rules: vec![],
        }
    }

    /// `type nat hook output priority -100; policy accept;`. One that is not as Weir makes it stays a chain
    /// that nothing jumps to, and so is never taken for what is wanted.
    fn head(&mut self, words: &[&str]) {
        let ["type", kind, "hook", hook, "priority", rest @ ..] = words else {
            return;
        };
        let priority = rest
            .iter()
            .take_while(|word| **word != ";")
            .copied()
            .collect::<Vec<_>>();
        let policy = match rest {
            [.., "policy", "drop", ";"] => Policy::Drop,
            _ => Policy::Accept,
        };
        let wanted = HOOKS
            .iter()
            .find(|known| known.table == self.table && known.hook == self.name);
        if let Some(known) = wanted
            && (known.kind, known.hook) == (*kind, *hook)
            && is_priority(&priority, known.priority)
        {
            self.kind = ChainKind::Builtin(policy);
            self.name = known.builtin.to_owned();
        }
    }

    fn close(self, rulesets: &mut [Ruleset], sees: &[Family]) {
        for ruleset in rulesets {
            if !sees.contains(&ruleset.family) {
                continue;
            }
            let rules: Vec<Rule> = self
                .rules
                .iter()
                .filter(|found| found.family.is_none_or(|family| family == ruleset.family))
                .map(|found| found.rule.clone())
                .collect();
            // A rule set of one family has no chain for what only the other one does.
            if rules.is_empty() && !self.rules.is_empty() {
                continue;
            }
            let chain = Chain {
                name: self.name.clone(),
                kind: self.kind,
                rules,
            };
            match ruleset.tables.iter_mut().find(|table| table.name == self.table) {
                Some(table) => table.chains.push(chain),
                None => ruleset.tables.push(Table {
                    name: self.table,
                    chains: vec![chain],
                }),
            }
        }
    }
}

/// Some versions print a number, others a word with an offset.
fn is_priority(words: &[&str], wanted: i32) -> bool {
    let named = match wanted {
        -300 => "raw",
        -150 => "mangle",
        -100 => "dstnat",
        _ => "filter",
    };
    words == [named] || words.concat() == wanted.to_string()
}
