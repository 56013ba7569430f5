//! What a namespace would hold with a plan's rules beside those of others. Comes in: what is installed, and the rule
//! sets of a plan with what would write them. Goes out: the same tables with ours where `weir init` would put them
//! ([`crate::diff`]). Asked by `weir check`, before anything is written.

use std::collections::HashMap;

use crate::family::Family;
use crate::hook::base_of;
use crate::installed::{HeldTable, Installed, Note, Writer};
use crate::nft;
use crate::ruleset::{Chain, ChainKind, Ruleset, Table};

/// The tables of others as they are, and `wanted` in the place of whatever of ours is there.
#[must_use]
pub fn beside(installed: &Installed, wanted: &[(Writer, Ruleset)]) -> Installed {
    let mut places = HashMap::new();
    let foreign = installed.tables.iter().filter(|table| !is_own_table(table));
    let mut tables: Vec<HeldTable> = foreign.map(|table| without_own(table, &mut places)).collect();
    let (native, iptables): (Vec<_>, Vec<_>) = wanted.iter().partition(|(by, _)| *by == Writer::Nft);
    for (by, ruleset) in iptables {
        for table in &ruleset.tables {
            put(&mut tables, &places, *by, ruleset.family, table);
        }
    }
    let native: Vec<_> = native.into_iter().map(|(_, ruleset)| ruleset.clone()).collect();
    if !native.is_empty() {
        // As the kernel would show it, for the rules' own words.
        tables.extend(nft::listing(&nft::transaction(&[], &native, true)).tables);
    }
    Installed { tables }
}

/// Whether a whole table is ours, as native nftables has it.
#[must_use]
pub fn is_own_table(table: &HeldTable) -> bool {
    table.by == Writer::Nft
        && table
            .name
            .split_once(' ')
            .is_some_and(|(_, name)| name == nft::TABLE)
}

/// Whether the rule at a place is ours: in a table or a chain of ours, or a jump to one.
#[must_use]
pub fn is_own_rule(installed: &Installed, at: crate::evaluate::At) -> bool {
    let Some(table) = installed.tables.get(at.table) else {
        return false;
    };
    let chain = table.chains.get(at.chain);
    is_own_table(table)
        || chain.is_some_and(|chain| {
            chain.is_own() || chain.rules.get(at.rule).is_some_and(crate::ruleset::Rule::is_own)
        })
}

/// Of a built-in chain: the writer, the family, the table, the chain.
type Place = (Writer, Family, String, String);

/// Takes ours out; notes where in a built-in chain it stood.
fn without_own(table: &HeldTable, places: &mut HashMap<Place, usize>) -> HeldTable {
    let mut kept = HeldTable {
        chains: vec![],
        bases: vec![],
        notes: vec![],
        ..table.clone()
    };
    for ((chain, base), notes) in table.chains.iter().zip(&table.bases).zip(&table.notes) {
        if chain.is_own() {
            continue;
        }
        if let Some(first) = chain.rules.iter().position(crate::ruleset::Rule::is_own) {
            let place = (table.by, table.family, table.name.clone(), chain.name.clone());
            places.insert(place, first);
        }
        let both = chain.rules.iter().zip(notes);
        let (rules, notes) = both
            .filter(|(rule, _)| !rule.is_own())
            .map(|(rule, note)| (rule.clone(), note.clone()))
            .unzip();
        kept.chains.push(Chain {
            rules,
            ..chain.clone()
        });
        kept.bases.push(*base);
        kept.notes.push(notes);
    }
    kept
}

/// Puts one table's rules of ours in: into the table of that name, where there is one.
fn put(tables: &mut Vec<HeldTable>, places: &HashMap<Place, usize>, by: Writer, family: Family, own: &Table) {
    let name = own.name.as_str();
    let is_it = |table: &HeldTable| (table.by, table.family) == (by, family) && table.name == name;
    let index = tables.iter().position(is_it).unwrap_or_else(|| {
        tables.push(HeldTable {
            by,
            family,
            name: name.to_owned(),
            chains: vec![],
            bases: vec![],
            notes: vec![],
        });
        tables.len() - 1
    });
    let table = &mut tables[index];
    for chain in &own.chains {
        let there = table.chains.iter().position(|there| there.name == chain.name);
        let Some(number) = there else {
            table.chains.push(chain.clone());
            table.bases.push(match chain.kind {
                ChainKind::Builtin(_) => base_of(own.name, &chain.name),
                ChainKind::User => None,
            });
            table.notes.push(vec![Note::default(); chain.rules.len()]);
            continue;
        };
        let place = (by, family, name.to_owned(), chain.name.clone());
        let rules = &mut table.chains[number].rules;
        let at = places
            .get(&place)
            .map_or(rules.len(), |&first| first.min(rules.len()));
        rules.splice(at..at, chain.rules.iter().cloned());
        table.notes[number].splice(at..at, chain.rules.iter().map(|_| Note::default()));
    }
}
