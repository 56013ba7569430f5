//! What must be done to a rule set so that it holds what is wanted: the fewest edits, foreign rules
//! untouched, and in each table one commit, so that no packet ever finds it half done.

use std::fmt;

use crate::ipset;
use crate::ruleset::{Chain, ChainKind, IpProtocol, Match, Rule, Ruleset, Table, TableName, Target, Test};

/// Edits of one family's tables; printed, they are the text for `iptables-restore --noflush`.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    tables: Vec<(TableName, Vec<Edit>)>,
}

impl Changes {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Every edit, with its table.
    pub fn edits(&self) -> impl Iterator<Item = (TableName, &Edit)> {
        self.tables
            .iter()
            .flat_map(|(table, edits)| edits.iter().map(|edit| (*table, edit)))
    }
}

/// One edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// Makes a chain of ours, or empties it, and fills it.
    Fill(Chain),
    /// Takes one rule of ours out of somebody else's chain. Named by its text, not by its place: the
    /// place may have moved since the dump.
    Delete {
        /// The chain.
        chain: String,
        /// The rule.
        rule: Rule,
    },
    /// Puts a rule of ours into somebody else's chain.
    Insert {
        /// The chain.
        chain: String,
        /// Number of the rule that it comes before, from 1; at the end without.
        before: Option<usize>,
        /// The rule.
        rule: Rule,
    },
    /// Empties and removes a chain of ours.
    Remove(String),
}

/// What turns `current` into a rule set whose part of ours is exactly `wanted`.
#[must_use]
pub fn changes(current: &Ruleset, wanted: &Ruleset) -> Changes {
    let tables = TableName::ALL.iter().filter_map(|&(_, name)| {
        let empty = Table { name, chains: vec![] };
        let current = current.table(name).unwrap_or(&empty);
        let edits = table_edits(current, wanted.table(name).unwrap_or(&empty));
        (!edits.is_empty()).then_some((name, edits))
    });
    let mut tables: Vec<_> = tables.collect();
    if leaves_tproxy(current, wanted) {
        tables.reverse();
    }
    Changes { tables }
}

/// Each table is a commit of its own, and between two of them something has to capture too. Inbound, TPROXY does it
/// in `mangle`, and a redirect in `nat`, which must not be hindered by `raw`. So where TPROXY comes, `mangle` is
/// first and `raw` last, and where it goes the other way round.
fn leaves_tproxy(current: &Ruleset, wanted: &Ruleset) -> bool {
    let own = |ruleset: &Ruleset, table| {
        let table = ruleset.table(table).map(Table::own);
        let chains = table.into_iter().flat_map(|table| table.chains);
        chains.flat_map(|chain| chain.rules).collect::<Vec<_>>()
    };
    let is_tproxy = |rule: &Rule| matches!(rule.target, Target::Tproxy { .. });
    let goes = |of: &dyn Fn(&Ruleset) -> bool| of(current) && !of(wanted);
    goes(&|ruleset| own(ruleset, TableName::Mangle).iter().any(is_tproxy))
        || goes(&|ruleset| !own(ruleset, TableName::Raw).is_empty())
}

fn table_edits(current: &Table, wanted: &Table) -> Vec<Edit> {
    let mut edits = vec![];
    for chain in wanted.chains.iter().filter(|chain| chain.is_own()) {
        if !current
            .chain(&chain.name)
            .is_some_and(|there| are_alike(&there.rules, &chain.rules))
        {
            edits.push(Edit::Fill(chain.clone()));
        }
    }
    let nothing = [];
    for chain in current.chains.iter().filter(|chain| !chain.is_own()) {
        let rules = wanted
            .chain(&chain.name)
            .map_or(&nothing[..], |wanted| &wanted.rules);
        jump_edits(chain, rules, &mut edits);
    }
    for chain in wanted.chains.iter().filter(|chain| !chain.is_own()) {
        if current.chain(&chain.name).is_none() {
            let there = Chain {
                rules: vec![],
                ..chain.clone()
            };
            jump_edits(&there, &chain.rules, &mut edits);
        }
    }
    let stale = current
        .chains
        .iter()
        .filter(|chain| chain.is_own() && wanted.chain(&chain.name).is_none());
    edits.extend(stale.map(|chain| Edit::Remove(chain.name.clone())));
    edits
}

/// What a set holds is none of the rules' business.
fn are_alike(there: &[Rule], wanted: &[Rule]) -> bool {
    let mut pairs = there.iter().zip(wanted);
    there.len() == wanted.len() && pairs.all(|(one, other)| ipset::are_alike(one, other))
}

/// A rule of ours behind one that lets all TCP pass is never asked: its place is mended, in front of that one.
fn jump_edits(chain: &Chain, wanted: &[Rule], edits: &mut Vec<Edit>) {
    let own: Vec<_> = chain.rules.iter().filter(|rule| rule.is_own()).collect();
    let passing = chain.rules.iter().position(passes_all_tcp);
    let last = chain.rules.iter().rposition(Rule::is_own);
    let is_asked = passing.is_none_or(|passing| last.is_none_or(|last| last < passing));
    if is_asked && own.iter().copied().eq(wanted) {
        return;
    }
    edits.extend(own.into_iter().map(|rule| Edit::Delete {
        chain: chain.name.clone(),
        rule: rule.clone(),
    }));
    let first = chain.rules.iter().position(Rule::is_own);
    let place = first.into_iter().chain(passing).min();
    let is_last = place.is_none_or(|place| chain.rules[place..].iter().all(Rule::is_own));
    edits.extend(wanted.iter().enumerate().map(|(offset, rule)| Edit::Insert {
        chain: chain.name.clone(),
        before: place.filter(|_| !is_last).map(|place| place + 1 + offset),
        rule: rule.clone(),
    }));
}

/// Whether no later rule of a built-in chain sees any TCP. What drops or translates it was somebody's decision
/// about these packets, and stays in front.
fn passes_all_tcp(rule: &Rule) -> bool {
    let is_wide = |found: &Match| match &found.test {
        Test::Protocol(IpProtocol::Tcp) => !found.negated,
        Test::Comment(_) => true,
        _ => false,
    };
    matches!(rule.target, Target::Accept | Target::Return) && rule.matches.iter().all(is_wide)
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (table, edits) in &self.tables {
            writeln!(f, "*{}", table.as_str())?;
            for edit in edits {
                if let Edit::Fill(chain) = edit {
                    debug_assert_eq!(chain.kind, ChainKind::User);
                    writeln!(f, ":{} - [0:0]", chain.name)?;
                }
            }
            for edit in edits {
                edit.fmt(f)?;
            }
            // A chain goes only when nothing refers to it any more, another stale one included.
            for edit in edits {
                if let Edit::Remove(chain) = edit {
                    writeln!(f, "-X {chain}")?;
                }
            }
            writeln!(f, "COMMIT")?;
        }
        Ok(())
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(chain) => chain
                .rules
                .iter()
                .try_for_each(|rule| writeln!(f, "-A {}{rule}", chain.name)),
            Self::Delete { chain, rule } => writeln!(f, "-D {chain}{rule}"),
            Self::Insert {
                chain,
                before: Some(number),
                rule,
            } => writeln!(f, "-I {chain} {number}{rule}"),
            Self::Insert {
                chain,
                before: None,
                rule,
            } => writeln!(f, "-A {chain}{rule}"),
            Self::Remove(chain) => writeln!(f, "-F {chain}"),
        }
    }
}
