//! Tables that the nft variant of iptables makes when it is first used: remembered, and taken away again
//! when nothing is in them, which iptables itself has no word for.

use std::io;

use rules::ruleset::{Chain, ChainKind, Table, TableName};
use rules::{Family, Ruleset};

use super::nf_tables::{Object, Socket, name_of, protocol, value, zero_ended};

/// An empty chain that says who made the table that it is in.
const MARK: &str = "WEIR_MADE_THIS_TABLE";

/// Adds the mark to those tables that are not there yet, or have it.
pub(super) fn mark_made(held: &Ruleset, wanted: &mut Ruleset) {
    for table in &mut wanted.tables {
        let is_ours = held.table(table.name).is_none_or(is_marked);
        if is_ours && !is_marked(table) {
            table.chains.push(Chain {
                name: MARK.to_owned(),
                kind: ChainKind::User,
                rules: vec![],
            });
        }
    }
}

/// Those that an earlier run made, and `wanted` has no use for.
pub(super) fn made_and_unwanted(held: &Ruleset, wanted: &Ruleset) -> Vec<TableName> {
    let tables = held.tables.iter().filter(|table| is_marked(table));
    tables
        .map(|table| table.name)
        .filter(|name| wanted.table(*name).is_none())
        .collect()
}

fn is_marked(table: &Table) -> bool {
    table.chain(MARK).is_some()
}

/// How often it is looked again where somebody changed a rule meanwhile: the other family, mostly.
const LOOKS: usize = 100;

/// Takes those tables away that have nothing in them but built-in chains without a rule. The kernel is asked, as
/// a dump does not show what others keep in the same table.
///
/// # Errors
/// Where the kernel refuses.
pub(super) fn remove_unused(family: Family, names: &[TableName]) -> io::Result<()> {
    let socket = Socket::open()?;
    for name in names {
        for _ in 0..LOOKS {
            let generation = socket.generation()?;
            if !is_unused(&socket, family, name.as_str())? {
                break;
            }
            socket.remove_table(protocol(family), name.as_str(), generation)?;
        }
    }
    Ok(())
}

const BUILTIN: [&[u8]; 5] = [
    b"PREROUTING\0",
    b"INPUT\0",
    b"FORWARD\0",
    b"OUTPUT\0",
    b"POSTROUTING\0",
];
/// `NF_ACCEPT`.
const ACCEPT: [u8; 4] = 1_u32.to_be_bytes();

/// `NFTA_CHAIN_NAME`.
pub(super) const CHAIN_NAME: u16 = 3;

fn is_unused(socket: &Socket, family: Family, table: &str) -> io::Result<bool> {
    const TABLE_USE: u16 = 3;
    const CHAIN_POLICY: u16 = 5;
    const CHAIN_USE: u16 = 6;
    let name = zero_ended(table);
    let is_this = |object: &&Object| name_of(object) == Some(name.as_slice());
    let tables = socket.tables(protocol(family))?;
    let Some(table) = tables.iter().find(is_this) else {
        return Ok(false);
    };
    let chains = socket.chains(protocol(family))?;
    let chains: Vec<_> = chains.iter().filter(is_this).collect();
    // A table counts its chains, sets and all else that it holds; a chain its rules and the jumps to it.
    let holds_only_chains = value(table, TABLE_USE) == Some(&(chains.len() as u32).to_be_bytes()[..]);
    let is_idle = |chain: &&Object| {
        value(chain, CHAIN_NAME).is_some_and(|name| BUILTIN.contains(&name))
            && value(chain, CHAIN_USE).is_none_or(|count| count == [0; 4])
            && value(chain, CHAIN_POLICY).is_none_or(|policy| policy == ACCEPT)
    };
    Ok(holds_only_chains && chains.iter().all(is_idle))
}
